package peer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"dragonload/internal/piece"
)

const (
	// headerLine is the longest line of an answer's header, headerLines the most of
	// them.
	headerLine  = 4 << 10
	headerLines = 32

	// statusWaiting is what a member answers with for the time being, about every
	// sayWaiting, while a request waits for its turn: 102 (RFC 2518, 10.1).
	statusWaiting = http.StatusProcessing
	sayWaiting    = time.Second
	maxWaiting    = 64
)

// head is what matters of an answer's header.
type head struct {
	status int
	length int64
	info   int64 // of an answer with a manifest: where its info dictionary ends, counted from its start; else 0
	close  bool  // the connection ends after this answer
}

// readFinalHead reads the header of an answer, past those with which the member says that
// the request waits for its turn; each of them is told to waits.
func readFinalHead(r *bufio.Reader, waits func()) (head, error) {
	for range maxWaiting {
		h, err := readHead(r)
		if err != nil || h.status != statusWaiting {
			return h, err
		}
		waits()
	}
	return head{}, errors.New("the answer is put off again and again")
}

// readHead reads the header of an HTTP/1.1 answer: a final status, and a body whose
// length is stated once; or one of statusWaiting, without a body. Everything else that
// HTTP knows is refused.
func readHead(r *bufio.Reader) (head, error) {
	line, err := readLine(r)
	if err != nil {
		return head{}, err
	}
	h := head{length: -1}
	rest, found := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !found || len(rest) < 4 || rest[3] != ' ' {
		return head{}, errors.New("the answer is not HTTP/1.1")
	}
	status, err := parseNumber(string(rest[:3]), 599)
	if err != nil || status < 200 && status != statusWaiting {
		return head{}, fmt.Errorf("the answer has status %q", rest[:3])
	}
	h.status = int(status)
	for range headerLines {
		if line, err = readLine(r); err != nil {
			return head{}, err
		}
		if len(line) == 0 {
			if h.status == statusWaiting && h.length >= 0 {
				return head{}, errors.New("an answer that only waits has a body")
			}
			if h.status != statusWaiting && h.length < 0 {
				return head{}, errors.New("the answer does not state its length")
			}
			return h, nil
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			return head{}, errors.New("the answer's header is not HTTP")
		}
		value = bytes.Trim(value, " \t")
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length >= 0 {
				return head{}, errors.New("the answer states its length twice")
			}
			if h.length, err = parseNumber(string(value), piece.MaxSize); err != nil {
				return head{}, errors.New("the answer does not state its length")
			}
		case bytes.EqualFold(name, []byte(infoLength)):
			if h.info, err = parseNumber(string(value), MaxManifest); err != nil {
				return head{}, errors.New("the answer does not state the length of its info dictionary")
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return head{}, errors.New("the answer has a transfer encoding")
		case bytes.EqualFold(name, []byte("Connection")):
			h.close = h.close || bytes.EqualFold(value, []byte("close"))
		}
	}
	return head{}, errors.New("the answer's header is too long")
}

// readLine reads a line up to CR LF, which it leaves out. The line is valid until the
// next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errors.New("the answer's header is too long")
	}
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	line, found := bytes.CutSuffix(line, []byte("\r\n"))
	if !found {
		return nil, errors.New("the answer's header is not HTTP")
	}
	return line, nil
}

// discard reads n bytes and reports whether they came.
func discard(r *bufio.Reader, n int64) bool {
	m, err := r.Discard(int(n))
	return err == nil && int64(m) == n
}
