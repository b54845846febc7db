package rpc

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"dragonload/internal/catalogue"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
)

// FuzzCatalogue_decode: what is decoded of a member's message is within all bounds, and
// says the same when it is sent again.
func FuzzCatalogue_decode(f *testing.F) {
	one := catalogue.Entry{Manifest: [32]byte{1}, Name: "a", Names: []string{"b"}, Size: 5, Files: 1, Folder: true}
	for _, m := range []proto.Message{
		&roomv1.PublishRequest{Addr: ":1", To: 3, Add: []*roomv1.Entry{encodeEntry(&one)}, Remove: [][]byte{make([]byte, 32)}},
		&roomv1.SearchRequest{Words: []string{"a b"}, Id: "0a", Limit: 1 << 31},
		&roomv1.Found{Entry: encodeEntry(&one), Holders: 2, By: []*roomv1.Holder{{Id: make([]byte, 32), Name: "n\x1b", Addr: "h:1"}}},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var batch roomv1.PublishRequest
		if proto.Unmarshal(raw, &batch) == nil {
			if b, err := DecodeBatch(&batch); err == nil {
				if err := b.Validate(); err != nil {
					t.Errorf("decoded %+v: %v", b, err)
				}
				for i := range b.Add {
					if again, err := decodeEntry(encodeEntry(&b.Add[i])); err != nil || !reflect.DeepEqual(again, b.Add[i]) {
						t.Errorf("%+v became %+v, %v", b.Add[i], again, err)
					}
				}
			}
		}
		var query roomv1.SearchRequest
		if proto.Unmarshal(raw, &query) == nil {
			if q, err := DecodeQuery(&query); err == nil {
				catalogue.NewIndex().Search(q, time.Unix(1, 0))
				if q.Limit < 0 || q.Limit > catalogue.MaxEntries {
					t.Errorf("a limit of %d", q.Limit)
				}
			}
		}
		var found roomv1.Found
		if proto.Unmarshal(raw, &found) == nil {
			if f, err := decodeFound(&found); err == nil && (len(f.By) > catalogue.MaxNamed || f.Entry.Validate() != nil || len(f.Entry.Names) > 0) {
				t.Errorf("decoded %+v", f)
			}
		}
	})
}
