package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"dragonload/internal/piece"
)

const (
	// writeChunk is how much is written, and charged to the rate limit, at a time.
	writeChunk = 256 << 10

	// collectAtMost is how long records may wait for more: beyond, what comes next
	// (a slow disk, a rate limit) may take long too.
	collectAtMost = 20 * time.Millisecond
)

// handle answers one request. Only GET of the three paths is known; what is refused is
// refused without a word about why.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	m := r.Context().Value(memberKey{}).(*member)
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	if r.ContentLength != 0 {
		refuse(w, http.StatusBadRequest)
		return
	}
	infoHash, manifest := parseManifestPath(r.URL.Path)
	pool, pieces, ok := parsePath(r.URL.Path)
	if !ok && !manifest || r.URL.RawQuery != "" {
		refuse(w, http.StatusNotFound)
		return
	}
	if !s.ask(m.id) {
		refuse(w, http.StatusTooManyRequests)
		return
	}
	defer s.answered(m.id)
	if manifest {
		s.sendManifest(w, r, m, infoHash)
		return
	}

	var part piece.Range // of the file; empty if pieces are asked for
	if pieces == nil {
		layout, err := s.backend.Layout(m.room, m.id, pool)
		if err != nil {
			refuse(w, http.StatusNotFound)
			return
		}
		if part, err = parseRange(r.Header, layout.Size); err != nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", layout.Size))
			refuse(w, http.StatusRequestedRangeNotSatisfiable)
			return
		}
		first, last := layout.At(part.Start), layout.At(part.End-1)
		if last-first >= MaxPieces {
			// An answer may be shorter than the range asked for (RFC 9110, 15.3.7).
			last = first + MaxPieces - 1
			part.End = layout.Range(last).End
		}
		for i := first; i <= last; i++ {
			pieces = append(pieces, i)
		}
	}

	waiting, cancel := context.WithTimeout(r.Context(), s.o.AdmitTimeout)
	turn := tellWaiting(w)
	content, done, err := s.backend.Admit(waiting, m.room, m.id, pool, pieces)
	turn.come()
	cancel()
	switch {
	case err == nil:
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // nobody is there any more
	case errors.Is(err, ErrNotHeld):
		refuse(w, http.StatusNotFound)
		return
	default:
		s.o.Log.Debug("request not admitted", "peer", m.id, "err", err)
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	a := &answer{s: s, m: m, w: w, control: http.NewResponseController(w), ctx: r.Context(), content: content}
	defer func() { done(a.sent) }()
	a.send(pieces, part)
}

// turn is what a request waits for; who asked is told about every sayWaiting.
type turn struct {
	mu    sync.Mutex // held while w is written to
	w     http.ResponseWriter
	timer *time.Timer
	over  bool
}

func tellWaiting(w http.ResponseWriter) *turn {
	t := &turn{w: w}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(sayWaiting, t.tell)
	return t
}

func (t *turn) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.w.WriteHeader(statusWaiting)
		t.timer.Reset(sayWaiting)
	}
}

// come ends it: w is the caller's again.
func (t *turn) come() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.timer.Stop()
}

// refuse answers with a status and nothing else.
func refuse(w http.ResponseWriter, status int) {
	text := http.StatusText(status) + "\n"
	h := w.Header()
	h["Date"] = nil
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // if that fails, http.Server sees it too
}

// answer is one body on its way out.
type answer struct {
	s       *Server
	m       *member
	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context // of the request; answer lives no longer
	content Content

	moved time.Time // when the write deadline was last moved
	until time.Time // the deadline of all of it, which is not moved; zero if there is none
	sent  int64     // bytes of the body
}

// send sends pieces, or the part of them that is in part unless that is empty. The
// first piece is read before anything is promised; what goes wrong after that can only
// be told by closing the connection.
func (a *answer) send(pieces []piece.Index, part piece.Range) {
	layout := a.content.Layout()
	var length int64
	for _, i := range pieces {
		if int(i) >= layout.Count() {
			refuse(a.w, http.StatusNotFound)
			return
		}
		length += layout.Length(i)
	}
	status := http.StatusOK
	if part.Len() > 0 {
		last := pieces[len(pieces)-1]
		if layout.At(part.Start) != pieces[0] || part.End > layout.Range(last).End {
			refuse(a.w, http.StatusNotFound) // cut in another way meanwhile
			return
		}
		status, length = http.StatusPartialContent, part.Len()
		a.w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.Start, part.End-1, layout.Size))
	}
	buf := takeBuffer(longestOf(layout, pieces))
	defer giveBuffer(buf)
	began := time.Now()
	data, err := a.read(layout, pieces[0], *buf)
	if err != nil {
		a.w.Header().Del("Content-Range")
		refuse(a.w, http.StatusNotFound)
		return
	}

	a.m.out.begin(began)
	defer func() { _ = a.m.out.end() }() // its error comes again at the next use of the connection
	h := a.w.Header()
	h["Date"] = nil
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	a.deadline()
	a.w.WriteHeader(status)
	// The header gets a TLS record of its own, so that the receiver need not copy
	// the part of the body that shares one with it.
	if err := a.control.Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
	for k, i := range pieces {
		if k > 0 {
			if data, err = a.read(layout, i, *buf); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if part.Len() > 0 {
			r := layout.Range(i)
			data = data[max(part.Start, r.Start)-r.Start : min(part.End, r.End)-r.Start]
		}
		if err := a.write(data); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if err := a.flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// read reads a piece, checked by the Content.
func (a *answer) read(layout piece.Layout, i piece.Index, buf []byte) ([]byte, error) {
	data, err := a.content.ReadPiece(i, buf[:layout.Length(i)])
	if err == nil && int64(len(data)) != layout.Length(i) {
		err = fmt.Errorf("piece %d has %d bytes", i, len(data))
	}
	if err != nil {
		a.s.o.Log.Warn("piece cannot be served", "piece", i, "peer", a.m.id, "err", err)
	}
	return data, err
}

// write sends data as fast as the limit and the reader allow.
func (a *answer) write(data []byte) error {
	chunk := writeChunk
	if l := a.s.o.Limiter; l != nil {
		// At least four times a second, so that a low limit does not look like
		// silence.
		chunk = max(min(chunk, int(min(float64(l.Limit())/4, writeChunk)), l.Burst()), 1)
	}
	for len(data) > 0 {
		n := min(chunk, len(data))
		if err := a.pace(n); err != nil {
			return err
		}
		a.deadline()
		sent, err := a.w.Write(data[:n])
		a.sent += int64(sent)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if a.m.out.waiting() > collectAtMost {
		return a.flush()
	}
	return nil
}

// pace waits until the limit allows n more bytes. What was collected goes out first.
func (a *answer) pace(n int) error {
	if a.s.o.Limiter == nil {
		return nil
	}
	// With a burst of 0 nothing is ever allowed, which is for WaitN to say.
	if a.s.o.Limiter.AllowN(time.Now(), n) {
		return nil
	}
	if err := a.flush(); err != nil {
		return err
	}
	return a.s.o.Limiter.WaitN(a.ctx, n)
}

// flush sends everything that http.Server and the layer under TLS have collected.
func (a *answer) flush() error {
	a.deadline()
	if err := a.control.Flush(); err != nil {
		return err
	}
	return a.m.out.flush()
}

// deadline moves the write deadline on, if it was not moved just now.
func (a *answer) deadline() {
	now := time.Now()
	if now.Sub(a.moved) < a.s.o.WriteTimeout/32 {
		return
	}
	a.moved = now
	at := now.Add(a.s.o.WriteTimeout)
	if !a.until.IsZero() && a.until.Before(at) {
		at = a.until
	}
	// It fails only on a connection that is closed, which the next write tells.
	_ = a.control.SetWriteDeadline(at)
}
