package origin

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Portions in which a limiter is charged: large enough to cost nothing, small
	// enough that a slow limit does not come in bursts of seconds.
	minPortion = 4 << 10
	maxPortion = 256 << 10

	// leastTrickle must come within Options.Timeout.
	leastTrickle = 1 << 10
)

// body delivers what an accepted answer promised, to the byte. The last bytes are
// withheld until the answer has proven its end: whoever has got them all has got a
// complete answer. Read and Close are for one goroutine; to end a Read from another
// one, cancel the context of the request.
type body struct {
	x    *exchange
	left int64 // bytes still to come; -1 while the origin has not said
	got  int64
	rest int64 // bytes that were asked for and are not in this answer

	frames *framing // of an answer of HTTP/1.0; else nil

	slow    time.Duration // time spent in reads since trickle began
	trickle int64         // bytes in that time
	err     error         // of every further Read
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if l := b.x.client.limiter; l != nil {
		p = p[:min(len(p), portion(l))]
	}
	if b.left >= 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := 0, error(nil)
	if len(p) > 0 {
		n, err = b.read(p)
	}
	if b.left >= 0 {
		b.left -= int64(n)
	}
	if b.frames != nil {
		b.frames.take(p[:n])
	}
	if b.left == 0 && err == nil {
		var beyond [1]byte
		var m int
		if m, err = b.read(beyond[:]); m > 0 {
			return 0, b.end(b.x.bad("its body is longer than it said"))
		}
		if !errors.Is(err, io.EOF) {
			n = 0
		}
	}
	b.got += int64(n)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, b.end(b.x.failure(b.x.url, err, true))
	case b.left > 0 && b.ended():
		return n, b.end(b.x.bad("its body is %d bytes shorter than it said", b.left))
	case b.left > 0:
		return n, b.end(&Error{
			Kind: Network, Host: hostOf(b.x.url), Status: b.x.resp.StatusCode, Err: io.ErrUnexpectedEOF,
			what: fmt.Sprintf("the answer ended %d bytes before its end", b.left), hint: "asking again goes on where this ended",
		})
	case b.left < 0 && !b.ended() && b.x.cut():
		return n, b.end(&Error{
			Kind: Network, Host: hostOf(b.x.url), Status: b.x.resp.StatusCode, Err: io.ErrUnexpectedEOF,
			what: "the secure connection was cut off, and nothing else says where the file ends", hint: "it is asked again; else try another address of the file",
		})
	case b.frames.whole():
		return 0, b.end(b.x.bad("it sent the file in chunks, which the version of HTTP that it speaks has not, so that its bytes are not the file's"))
	case b.rest > 0:
		return n, b.end(&Error{
			Kind: Short, Host: hostOf(b.x.url), Status: b.x.resp.StatusCode,
			what: fmt.Sprintf("the answer held %d bytes less than was asked for", b.rest), hint: statusHints[BadAnswer],
		})
	}
	return n, b.end(io.EOF)
}

// ended reports whether the end that came is one that the origin has marked as such, and
// not just that of the connection.
func (b *body) ended() bool {
	return b.x.resp.ProtoMajor > 1 || len(b.x.resp.TransferEncoding) > 0
}

// read reads at least one byte or returns an error, within the time limit, and pays
// the limiter.
func (b *body) read(p []byte) (n int, err error) {
	x := b.x
	// The limit holds for a little at least, not for a byte: who sends one now and then
	// would otherwise be waited for as long as the file is.
	x.watch.wait(x.client.timeout - b.slow)
	began := time.Now()
	for n == 0 && err == nil {
		n, err = x.resp.Body.Read(p)
	}
	x.watch.rest()
	b.slow += time.Since(began)
	if b.trickle += int64(n); b.trickle >= leastTrickle {
		b.slow, b.trickle = 0, 0
	} else if err == nil && b.slow >= x.client.timeout {
		x.cancel(errSilent)
		return n, errSilent
	}
	if l := x.client.limiter; l != nil {
		for due := n; due > 0; {
			k := due
			if l.Limit() != rate.Inf {
				k = min(due, max(1, l.Burst()))
			}
			if waitErr := l.WaitN(x.ctx, k); waitErr != nil {
				x.cancel(waitErr) // it is no error of the origin, whatever the context says
				return 0, waitErr
			}
			due -= k
		}
	}
	return n, err
}

// portion returns how much is read between two charges of l.
func portion(l *rate.Limiter) int {
	limit := l.Limit()
	if limit == rate.Inf || limit > 8*maxPortion {
		return maxPortion
	}
	return max(int(limit)/8, minPortion)
}

// end fixes what every further Read returns and gives the connection back.
func (b *body) end(err error) error {
	b.err = err
	b.x.close()
	return err
}

func (b *body) Close() error {
	if b.err == nil {
		b.err = &Error{Kind: Cancelled, Host: hostOf(b.x.url), Status: b.x.resp.StatusCode, Err: io.ErrClosedPipe, what: "the body was closed"}
	}
	b.x.close()
	return nil
}
