package manifest

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// decodeBencode reads a document into the values that appendBencode writes.
func decodeBencode(data []byte) (any, error) {
	r := &bencodeReader{data: data}
	v, err := decodeValue(r)
	if err == nil {
		err = r.end()
	}
	return v, err
}

func decodeValue(r *bencodeReader) (any, error) {
	switch r.peek() {
	case 'i':
		return r.integer()
	case 'l':
		list := []any{}
		err := r.list(func() error {
			v, err := decodeValue(r)
			list = append(list, v)
			return err
		})
		return list, err
	case 'd':
		dict := map[string]any{}
		err := r.dict(func(key []byte) error {
			v, err := decodeValue(r)
			dict[string(key)] = v
			return err
		})
		return dict, err
	}
	s, err := r.str()
	return string(s), err
}

func TestBencode_hasOneWayToWriteEachValue(t *testing.T) {
	t.Parallel()
	for _, document := range []string{
		"i0e", "i-1e", "i42e", "i9223372036854775807e", "i-9223372036854775807e", "0:", "3:abc", "le", "de",
		"l0:i1elee", "d0:i1e1:ai2e2:aai3e1:bdee", strings.Repeat("l", maxBencodeDepth) + strings.Repeat("e", maxBencodeDepth),
		"10:0123456789",
	} {
		v, err := decodeBencode([]byte(document))
		if err != nil {
			t.Errorf("%q: %v", document, err)
			continue
		}
		if got := appendBencode(nil, v); string(got) != document {
			t.Errorf("%q is written again as %q", document, got)
		}
		raw, err := (&bencodeReader{data: []byte(document)}).skip()
		if err != nil || string(raw) != document {
			t.Errorf("skip %q: %q, %v", document, raw, err)
		}
	}
}

func TestBencode_refusesAllElse(t *testing.T) {
	t.Parallel()
	for _, document := range []string{
		"", "x", "e", "-1:a", "i", "ie", "i-e", "i-0e", "i00e", "i01e", "i-01e", "i+1e", "i 1e", "i1", "i1x", "i1.0e",
		"i9223372036854775808e", "i-9223372036854775808e", "i99999999999999999999999e",
		"1:", "3:ab", "00:", "01:a", "1a", "1", "2147483648:", "99999999999999999999:a", "4294967295:a",
		"l", "li1e", "l:e", "d", "d1:a", "d1:ae", "di1ei1ee", "d1:ai1e1:ai2ee", "d1:bi1e1:ai2ee", "d2:aai1e1:ai2ee", "d0:i1e0:i1ee",
		"i1ei1e", "lee", "0:0:", "i1e\n", strings.Repeat("l", maxBencodeDepth+1) + strings.Repeat("e", maxBencodeDepth+1),
		strings.Repeat("d1:a", 1<<20), strings.Repeat("l", 1<<20),
	} {
		if _, err := decodeBencode([]byte(document)); !errors.Is(err, errBencode) {
			t.Errorf("%.40q: got %v, want it refused", document, err)
		}
		r := &bencodeReader{data: []byte(document)}
		if _, err := r.skip(); err == nil && r.end() == nil {
			t.Errorf("%.40q: skip takes it", document)
		}
	}
}

func TestAppendBencode_sortsKeysByTheirBytes(t *testing.T) {
	t.Parallel()
	got := appendBencode(nil, map[string]any{"b": int64(math.MinInt64 + 1), "a.b": []byte("x"), "a": []any{bencoded("i7e"), "y"}, "": int64(0)})
	if want := "d0:i0e1:ali7e1:ye3:a.b1:x1:bi-9223372036854775807ee"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzBencode(f *testing.F) {
	for _, seed := range []string{"d1:ai1e1:bl0:i-3eee", "i-0e", "03:abc", "d1:b0:1:a0:e", strings.Repeat("l", 60)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeBencode(data)
		if _, skipped := (&bencodeReader{data: data}).fields(); skipped == nil && err != nil && !errors.Is(err, errBencode) {
			t.Errorf("error of another kind: %v", err)
		}
		if err != nil {
			return
		}
		if again := appendBencode(nil, v); !bytes.Equal(again, data) {
			t.Errorf("%q is written again as %q", data, again)
		}
	})
}
