package origin

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dragonload/internal/origin/origintest"
	"dragonload/internal/piece"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const etag = `ETag: "v1"`

// file is what the origins of these tests serve.
var file = origintest.File(1000)

func pinned(size int) piece.Pin {
	return piece.Pin{Size: int64(size), Kind: piece.StrongETag, Validator: `"v1"`}
}

// newClient returns a client for url that ends with the test.
func newClient(t *testing.T, url string, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{URL: url, Timeout: 5 * time.Second, ConnectTimeout: 5 * time.Second}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// read reads an answer to its end.
func read(t *testing.T, a *Answer) ([]byte, error) {
	t.Helper()
	defer a.Body.Close()
	return io.ReadAll(a.Body)
}

// kindOf returns the Kind of err, which must be an *Error.
func kindOf(t *testing.T, err error) Kind {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v of type %T, want an *Error", err, err)
	}
	return e.Kind
}

func probe(t *testing.T, c *Client, n int64) (*Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return c.Probe(ctx, n)
}

func fetch(t *testing.T, c *Client, pin piece.Pin, first, end int64) (*Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return c.Fetch(ctx, pin, piece.Range{Start: first, End: end})
}
