package node_test

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"dragonload/internal/node"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/store"
)

// fill sets every field of a struct to something that is not its zero value, so that
// a field which the wire forgets is noticed.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text é")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(12345)
	case reflect.Uint8:
		v.SetUint(123)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0))
		fill(t, v.Index(1))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("the test cannot fill a %v", v.Type())
	}
}

func recode[M proto.Message](t *testing.T, in, out M) M {
	t.Helper()
	data, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSpec_everyFieldCrossesTheLocalAPI(t *testing.T) {
	t.Parallel()
	var want node.Spec
	fill(t, reflect.ValueOf(&want).Elem())
	got, err := node.DecodeSpec(recode(t, node.EncodeSpec(want), &nodev1.Spec{}))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEvent_everyKindAndFieldCrossesTheLocalAPI(t *testing.T) {
	t.Parallel()
	kinds := reflect.TypeFor[node.Event]()
	for i := range kinds.NumField() {
		if kinds.Field(i).Type.Kind() != reflect.Pointer {
			continue
		}
		want := node.Event{Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
		body := reflect.New(kinds.Field(i).Type.Elem())
		fill(t, body.Elem())
		reflect.ValueOf(&want).Elem().Field(i).Set(body)
		if got := node.DecodeEvent(recode(t, node.EncodeEvent(want), &nodev1.DownloadEvent{})); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", kinds.Field(i).Name, got, want)
		}
	}
}

func TestDecodeSpec_refusesWhatNoCallerSends(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]*nodev1.Spec{
		"negative duration": {Timeout: durationpb.New(-time.Second)},
		"negative rate":     {LimitRate: -1},
		"long text":         {Url: string(make([]byte, 1<<17))},
		"many checksums":    {Checksums: make([]*nodev1.Checksum, 1000)},
	} {
		if s, err := node.DecodeSpec(x); err == nil {
			t.Errorf("%s: accepted as %+v", name, s)
		}
	}
}

func TestKept_roundTrip(t *testing.T) {
	t.Parallel()
	in := store.Kept{
		Path: "/a", Size: 5, Modified: time.Unix(7, 8).UTC(), Finished: time.Unix(9, 0).UTC(), PieceLength: 64 << 10,
		SHA256: [32]byte{1}, Sums: []store.Sum{{Algorithm: "md5", Sum: []byte{2}}}, From: []string{"http://h/"},
	}
	if out, err := node.DecodeKept("/a", node.EncodeKept(in)); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, %v, want %+v", out, err, in)
	}
	if _, err := node.DecodeKept("/a", &nodev1.Finished{}); err == nil {
		t.Error("without a digest: no error")
	}
}
