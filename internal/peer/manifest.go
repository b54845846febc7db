package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"dragonload/internal/piece"
)

const (
	// MaxManifest is the longest manifest that is sent or taken, in bytes.
	MaxManifest = 64 << 20

	// manifestPace, in bytes a second, is what a manifest has to move with on the whole,
	// manifestGrace aside: who is slower is left.
	manifestPace  = 16 << 10
	manifestGrace = 30 * time.Second

	// infoLength is the field of an answer with a manifest that says how long the info
	// dictionary is, for that is checked before anything of the manifest is read.
	infoLength = "Info-Length"

	// manifestStart is what a manifest begins with that is sent: it has the info
	// dictionary and the piece layers, and nothing that the info hash does not vouch for.
	manifestStart = "d4:info"
)

// Manifest is the metainfo file of a content, without web seeds and all else that its
// info hash says nothing about.
type Manifest struct {
	Data []byte // begins with d4:info and the info dictionary
	Info int    // length of the info dictionary
}

// check reports what is wrong with the form of a manifest, and whether its info dictionary
// is the one that is meant.
func (m Manifest) check(infoHash [32]byte) error {
	end := len(manifestStart) + m.Info
	switch {
	case m.Info <= 0 || end > len(m.Data) || !bytes.HasPrefix(m.Data, []byte(manifestStart)):
		return errors.New("what came is no manifest")
	case sha256.Sum256(m.Data[len(manifestStart):end]) != infoHash:
		return errors.New("what came is another manifest")
	}
	return nil
}

// manifestWithin is how long a manifest of so many bytes may take.
func manifestWithin(length int64) time.Duration {
	return manifestGrace + time.Duration(length/manifestPace)*time.Second
}

// sendManifest answers a request for a manifest.
func (s *Server) sendManifest(w http.ResponseWriter, r *http.Request, m *member, infoHash [32]byte) {
	if !s.beginManifest(m.id) {
		refuse(w, http.StatusTooManyRequests)
		return
	}
	defer s.endManifest(m.id)
	manifest, err := s.backend.Manifest(m.room, m.id, infoHash)
	if err == nil && len(manifest.Data) > MaxManifest {
		err = fmt.Errorf("the manifest is longer than %d MiB", MaxManifest>>20)
	}
	if err == nil {
		err = manifest.check(infoHash)
	}
	if err != nil {
		if !errors.Is(err, ErrNotHeld) {
			s.o.Log.Warn("manifest cannot be sent", "manifest", hex.EncodeToString(infoHash[:]), "err", err)
		}
		refuse(w, http.StatusNotFound)
		return
	}
	began := time.Now()
	a := &answer{
		s: s, m: m, w: w, control: http.NewResponseController(w), ctx: r.Context(),
		until: began.Add(manifestWithin(int64(len(manifest.Data)))),
	}
	m.out.begin(began)
	defer func() { _ = m.out.end() }() // its error comes again at the next use of the connection
	h := w.Header()
	h["Date"] = nil
	h.Set("Content-Type", "application/x-bittorrent")
	h.Set("Content-Length", strconv.Itoa(len(manifest.Data)))
	h.Set(infoLength, strconv.Itoa(manifest.Info))
	a.deadline()
	w.WriteHeader(http.StatusOK)
	if a.write(manifest.Data) != nil || a.flush() != nil {
		panic(http.ErrAbortHandler)
	}
}

// beginManifest counts a manifest that is sent to a member; false if there are too many.
func (s *Server) beginManifest(id piece.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lists >= s.o.MaxManifests || s.count[id].list {
		return false
	}
	s.lists++
	s.count[id].list = true
	return true
}

func (s *Server) endManifest(id piece.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists--
	s.count[id].list = false
}

// Manifest asks the member id at addr for a manifest and returns its metainfo file. Its
// info dictionary has the info hash that is asked for; the rest is unchecked. Memory is
// taken as bytes come, and they must come at 16 KiB/s on the whole. Errors are those of
// Fetch.
func (c *Client) Manifest(ctx context.Context, addr string, id piece.NodeID, infoHash [32]byte) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var limit *time.Timer
	defer func() {
		if limit != nil {
			limit.Stop()
		}
	}()
	var data []byte
	f := &fetch{c: c, request: appendManifestRequest(nil, infoHash)}
	f.body = func(l *line, h head) (again bool, err error) {
		if h.length > MaxManifest || h.info == 0 {
			return false, fmt.Errorf("%w: its answer of %d bytes is no manifest", ErrBroken, h.length)
		}
		within := manifestWithin(h.length)
		if own := c.o.Limiter; own != nil && own.Limit() > 0 {
			within += time.Duration(float64(h.length) / float64(own.Limit()) * float64(time.Second))
		}
		limit = time.AfterFunc(within, func() { cancel(ErrSilent) })
		if data, err = f.whole(l, h.length); err != nil {
			return false, err
		}
		if err := (Manifest{Data: data, Info: int(h.info)}).check(infoHash); err != nil {
			return false, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		return !h.close && l.in.Buffered() == 0, nil
	}
	if err := c.ask(ctx, addr, id, f); err != nil {
		return nil, err
	}
	return data, nil
}

func appendManifestRequest(dst []byte, infoHash [32]byte) []byte {
	dst = append(dst, "GET "+pathManifests...)
	dst = hex.AppendEncode(dst, infoHash[:])
	return append(dst, " HTTP/1.1\r\nHost: member\r\n\r\n"...)
}

// whole reads a body of length bytes. No more memory is taken than about twice of what
// has come.
func (f *fetch) whole(l *line, length int64) ([]byte, error) {
	var data []byte
	for left := length; left > 0; {
		n := min(left, max(int64(len(data)), writeChunk))
		data = append(data, make([]byte, n)...)
		if err := f.fill(l, data[int64(len(data))-n:], left); err != nil {
			return nil, err
		}
		left -= n
	}
	return data, nil
}
