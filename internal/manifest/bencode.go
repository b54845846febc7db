package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// Bencode (BEP 3) is read here as strictly as it is written: there is one way to write
// each value, so that a document that is read and written again has the same hash. A
// value is read where it stands, and nothing is allocated for what it only declares.

// maxBencodeDepth bounds how deep lists and dictionaries are nested. A file's
// properties in a metainfo of maxPathDepth folders lie at 36.
const maxBencodeDepth = 48

// errBencode is wrapped by every error that is about the form of a document.
var errBencode = errors.New("not valid bencode")

// bencodeReader reads the values of data one after the other.
type bencodeReader struct {
	data  []byte
	at    int
	depth int
}

func (r *bencodeReader) refuse(format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d, %s", errBencode, r.at, fmt.Sprintf(format, args...))
}

// peek returns the first byte of the next value, 0 at the end of the document: no
// value begins with it.
func (r *bencodeReader) peek() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

// end fails if there is more.
func (r *bencodeReader) end() error {
	if r.at < len(r.data) {
		return r.refuse("there is more behind the end")
	}
	return nil
}

// digits reads a number without a sign that ends with stop.
func (r *bencodeReader) digits(limit uint64, stop byte) (uint64, error) {
	start, n := r.at, uint64(0)
	for ; r.peek() >= '0' && r.peek() <= '9'; r.at++ {
		digit := uint64(r.peek() - '0')
		if n > (limit-digit)/10 {
			return 0, r.refuse("a number is larger than %d", limit)
		}
		n = n*10 + digit
	}
	switch {
	case r.at == start:
		return 0, r.refuse("a number has no digits")
	case r.data[start] == '0' && r.at > start+1:
		return 0, r.refuse("a number begins with a zero")
	case r.peek() != stop:
		return 0, r.refuse("a number is followed by something else than %q", string(stop))
	}
	r.at++
	return n, nil
}

// integer reads an integer.
func (r *bencodeReader) integer() (int64, error) {
	if r.peek() != 'i' {
		return 0, r.refuse("there is no integer")
	}
	r.at++
	negative := r.peek() == '-'
	if negative {
		r.at++
	}
	n, err := r.digits(math.MaxInt64, 'e')
	switch {
	case err != nil:
		return 0, err
	case negative && n == 0:
		return 0, r.refuse("zero has a sign")
	case negative:
		return -int64(n), nil
	}
	return int64(n), nil
}

// str reads a string; it is a part of the document, not a copy.
func (r *bencodeReader) str() ([]byte, error) {
	if c := r.peek(); c < '0' || c > '9' {
		return nil, r.refuse("there is no string")
	}
	n, err := r.digits(math.MaxInt32, ':')
	if err != nil {
		return nil, err
	}
	if n > uint64(len(r.data)-r.at) {
		return nil, r.refuse("a string of %d bytes is cut short", n)
	}
	s := r.data[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return s, nil
}

func (r *bencodeReader) enter(kind byte, what string) error {
	if r.peek() != kind {
		return r.refuse("there is no %s", what)
	}
	if r.depth == maxBencodeDepth {
		return r.refuse("values are nested more than %d deep", maxBencodeDepth)
	}
	r.depth++
	r.at++
	return nil
}

// leave ends a list or dictionary.
func (r *bencodeReader) leave() error {
	if r.peek() != 'e' {
		return r.refuse("it is cut short")
	}
	r.depth--
	r.at++
	return nil
}

// list reads a list; each reads one value of it.
func (r *bencodeReader) list(each func() error) error {
	if err := r.enter('l', "list"); err != nil {
		return err
	}
	for r.at < len(r.data) && r.peek() != 'e' {
		if err := each(); err != nil {
			return err
		}
	}
	return r.leave()
}

// dict reads a dictionary; each reads the value of one key.
func (r *bencodeReader) dict(each func(key []byte) error) error {
	if err := r.enter('d', "dictionary"); err != nil {
		return err
	}
	var last []byte
	for first := true; r.at < len(r.data) && r.peek() != 'e'; first = false {
		key, err := r.str()
		if err != nil {
			return err
		}
		if !first && bytes.Compare(last, key) >= 0 {
			return r.refuse("the keys of a dictionary are not in order, or one is there twice")
		}
		last = key
		if err := each(key); err != nil {
			return err
		}
	}
	return r.leave()
}

// skip reads any value and returns its bytes, a part of the document.
func (r *bencodeReader) skip() ([]byte, error) {
	start := r.at
	var err error
	switch r.peek() {
	case 'i':
		_, err = r.integer()
	case 'l':
		err = r.list(r.ignore)
	case 'd':
		err = r.dict(func([]byte) error { return r.ignore() })
	default:
		_, err = r.str()
	}
	return r.data[start:r.at:r.at], err
}

func (r *bencodeReader) ignore() error {
	_, err := r.skip()
	return err
}

// fields reads a dictionary and returns the values of the keys that are asked for, as
// they stand there.
func (r *bencodeReader) fields(keys ...string) (map[string]*bencodeReader, error) {
	found := make(map[string]*bencodeReader, len(keys))
	err := r.dict(func(key []byte) error {
		name := string(key)
		value, err := r.skip()
		if slices.Contains(keys, name) {
			found[name] = &bencodeReader{data: value, depth: r.depth}
		}
		return err
	})
	return found, err
}

// bencoded is a value that is written as it stands.
type bencoded []byte

// appendBencode appends v: an int64, a string, []byte, []any, map[string]any or
// bencoded. It panics for anything else.
func appendBencode(dst []byte, v any) []byte {
	switch v := v.(type) {
	case bencoded:
		return append(dst, v...)
	case int64:
		return append(strconv.AppendInt(append(dst, 'i'), v, 10), 'e')
	case string:
		return append(append(strconv.AppendInt(dst, int64(len(v)), 10), ':'), v...)
	case []byte:
		return append(append(strconv.AppendInt(dst, int64(len(v)), 10), ':'), v...)
	case []any:
		dst = append(dst, 'l')
		for _, element := range v {
			dst = appendBencode(dst, element)
		}
		return append(dst, 'e')
	case map[string]any:
		dst = append(dst, 'd')
		for _, key := range slices.Sorted(maps.Keys(v)) {
			dst = appendBencode(appendBencode(dst, key), v[key])
		}
		return append(dst, 'e')
	}
	panic(fmt.Sprintf("bencode of a %T", v))
}
