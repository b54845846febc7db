package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// demoOrigin is a real HTTP server on loopback with one generated file, a strong ETag
// and ranges. It knows the members apart by the user name in their URL, and sends to
// each no faster than that member's line, over however many connections. It counts
// the bytes of bodies that it sends.
type demoOrigin struct {
	size   int64
	sum    string // hexadecimal SHA-256 of the file
	lines  map[string]*rate.Limiter
	sent   atomic.Int64
	server *http.Server
	addr   string
	over   chan struct{} // closed when the server has ended, with failed
	failed error
}

// demoChunk is what one write of the origin sends; a line's bursts are no longer.
const demoChunk = 16 << 10

// newDemoOrigin makes the file and serves it until close. Every member has a line of
// perSecond bytes.
func newDemoOrigin(ctx context.Context, size int64, members int, perSecond int64) (*demoOrigin, error) {
	o := &demoOrigin{size: size, lines: map[string]*rate.Limiter{}, over: make(chan struct{})}
	for m := range members {
		o.lines[demoMember(m)] = rate.NewLimiter(rate.Limit(perSecond), demoChunk)
	}
	hash, file := sha256.New(), o.file()
	for more := true; more; {
		_, err := io.CopyN(hash, file, 64<<20)
		if err == nil {
			err = ctx.Err() // a large file takes a while
		}
		if more = !errors.Is(err, io.EOF); more && err != nil {
			return nil, fmt.Errorf("make the file of the demo: %w", err)
		}
	}
	o.sum = hex.EncodeToString(hash.Sum(nil))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the origin of the demo: %w", err)
	}
	o.addr = l.Addr().String()
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(o.over)
		if err := o.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.failed = fmt.Errorf("the origin of the demo has ended: %w", err)
		}
	}()
	return o, nil
}

func demoMember(index int) string { return fmt.Sprintf("member-%d", index+1) }

// url is the file's address as a member writes it. The user name is not part of what
// names the pool, so all members meet in one.
func (o *demoOrigin) url(member int) string {
	return fmt.Sprintf("http://%s:x@%s/demo.bin", demoMember(member), o.addr)
}

// close ends the server and its connections, and returns what ended it before.
func (o *demoOrigin) close() error {
	err := o.server.Close()
	<-o.over
	return errors.Join(err, o.failed)
}

func (o *demoOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, _, _ := r.BasicAuth()
	line := o.lines[user]
	switch {
	case line == nil:
		w.Header().Set("WWW-Authenticate", `Basic realm="demo"`)
		http.Error(w, "who is it?", http.StatusUnauthorized)
		return
	case r.URL.Path != "/demo.bin":
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+o.sum[:16]+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(&demoLine{ResponseWriter: w, request: r, line: line, sent: &o.sent}, r, "", time.Time{}, o.file())
}

// demoLine sends a body no faster than the member's line.
type demoLine struct {
	http.ResponseWriter
	request *http.Request
	line    *rate.Limiter
	sent    *atomic.Int64
}

func (d *demoLine) Write(p []byte) (int, error) {
	var done int
	for len(p) > 0 {
		n := min(len(p), demoChunk)
		if err := d.line.WaitN(d.request.Context(), n); err != nil {
			return done, err
		}
		n, err := d.ResponseWriter.Write(p[:n])
		done += n
		d.sent.Add(int64(n))
		if err != nil {
			return done, err
		}
		p = p[n:]
	}
	return done, nil
}

// file returns the content of the demo: a key stream, so that no two pieces are alike
// and any part of it can be made without the rest.
func (o *demoOrigin) file() io.ReadSeeker {
	key, err := aes.NewCipher([]byte(strings.Repeat("dragon", 3)[:16]))
	if err != nil {
		panic(err) // the key's length is right
	}
	return &keyStream{key: key, size: o.size}
}

type keyStream struct {
	key       cipher.Block
	size, pos int64
	stream    cipher.Stream // stands at pos; nil after a seek
}

func (k *keyStream) Read(p []byte) (int, error) {
	if k.pos >= k.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), k.size-k.pos)]
	if k.stream == nil {
		var counter [aes.BlockSize]byte
		binary.BigEndian.PutUint64(counter[8:], uint64(k.pos/aes.BlockSize))
		k.stream = cipher.NewCTR(k.key, counter[:])
		skip := make([]byte, k.pos%aes.BlockSize)
		k.stream.XORKeyStream(skip, skip)
	}
	clear(p)
	k.stream.XORKeyStream(p, p)
	k.pos += int64(len(p))
	return len(p), nil
}

func (k *keyStream) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += k.pos
	case io.SeekEnd:
		offset += k.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	k.pos, k.stream = offset, nil
	return offset, nil
}
