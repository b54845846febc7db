package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// A frame of the stream is 4 bytes of length, counting what follows them, 1 byte that
// says what it is, 32 bytes that name the pool, and the payload. Numbers are
// big-endian. Whatever is accepted is encoded again as the same bytes.

const (
	// version is that of what is said on a stream; it goes with the ALPN's.
	version = 1

	// maxFrame bounds a frame, without the 4 bytes of its length.
	maxFrame = 1 << 20

	frameStart = 4 + 1 + 32 // bytes before the payload
	maxPayload = maxFrame - 1 - 32

	maxAddr = 255 // bytes in an address

	minRemovals = 45 + 64 // the shortest list of removals

	// MaxRemovals is how long a list of removals may be, in bytes; package room reads it.
	MaxRemovals = 45 + 40*4096 + 64
	maxRuns     = (maxPayload - 4) / 8

	// maxCertificate bounds a member's certificate; they have about 450 bytes.
	maxCertificate = 2 << 10

	// A statement is statementStart bytes and statedPiece for each piece.
	statementStart = 32 + 32 + 8 + 64 + 2
	statedPiece    = 4 + 32
	maxStatement   = statementStart + statedPiece*swarm.MaxStated
)

// kind says what a frame is.
type kind byte

const (
	kindHello    kind = 1 // the first frame; names no pool
	kindPing     kind = 2 // a sign of life; names no pool
	kindOpen     kind = 3
	kindLeave    kind = 4
	kindRemovals kind = 5 // who was shut out of the room; names no pool
	// kindCertificate is the certificate of a member whose statements follow; it names no
	// pool.
	kindCertificate kind = 6

	kindHolds         kind = 16
	kindHaves         kind = 17
	kindStatement     kind = 18
	kindAskStatements kind = 19
	kindClaim         kind = 20
	kindRelay         kind = 21
	kindAccuse        kind = 22
	kindSuccessor     kind = 23
)

// bounds returns how long a payload of this kind may be; ok is false if there is no
// such kind.
func (k kind) bounds() (least, most int, ok bool) {
	switch k {
	case kindHello:
		return 3, 3 + maxAddr, true
	case kindPing, kindOpen, kindLeave:
		return 0, 0, true
	case kindRemovals:
		return minRemovals, MaxRemovals, true
	case kindHolds:
		return 36, 36 + piece.MaxCount/8, true
	case kindStatement:
		return statementStart + statedPiece, maxStatement, true
	case kindAccuse:
		return 4 + 2*(statementStart+statedPiece), 4 + 2*maxStatement, true
	case kindCertificate:
		return 1, maxCertificate, true
	case kindHaves, kindAskStatements, kindClaim, kindRelay:
		return 4, 4 + 8*maxRuns, true
	case kindSuccessor:
		return 34, 34 + maxAddr, true
	}
	return 0, 0, false
}

// frame is one frame with its meaning.
type frame struct {
	kind    kind
	pool    swarm.PoolID
	addr    string       // of kindHello
	list    []byte       // of kindRemovals
	der     []byte       // of kindCertificate
	message swarm.ToPeer // from kindHolds on
}

// frameHead reads the first frameStart bytes of a frame and returns how long the
// payload is. Nothing longer than its kind may be is let through.
func frameHead(start []byte) (k kind, pool swarm.PoolID, payload int, err error) {
	n := int64(binary.BigEndian.Uint32(start)) - 33
	k = kind(start[4])
	copy(pool[:], start[5:])
	least, most, ok := k.bounds()
	switch {
	case !ok:
		return k, pool, 0, fmt.Errorf("frame of the unknown kind %d", k)
	case n < int64(least) || n > int64(most):
		return k, pool, 0, fmt.Errorf("frame of kind %d with a payload of %d bytes", k, n)
	case (k <= kindPing || k == kindRemovals || k == kindCertificate) && pool != swarm.PoolID{}:
		return k, pool, 0, fmt.Errorf("frame of kind %d names a pool", k)
	}
	return k, pool, int(n), nil
}

// decodePayload reads what follows the head. Nothing in the result refers to payload.
func decodePayload(k kind, pool swarm.PoolID, payload []byte) (frame, error) {
	f := frame{kind: k, pool: pool}
	var err error
	switch k {
	case kindHello:
		f.addr, err = decodeHello(payload)
	case kindRemovals:
		f.list = append([]byte(nil), payload...)
	case kindHolds:
		f.message, err = decodeHolds(payload)
	case kindStatement:
		f.message, err = decodeWhole(payload)
	case kindAccuse:
		f.message, err = decodeAccuse(payload)
	case kindCertificate:
		f.der = append([]byte(nil), payload...)
	case kindSuccessor:
		f.message, err = decodeSuccessor(payload)
	case kindHaves, kindAskStatements, kindClaim, kindRelay:
		var extents []piece.Extent
		extents, err = decodeExtents(payload)
		switch k {
		case kindHaves:
			f.message = swarm.Haves{Extents: extents}
		case kindAskStatements:
			f.message = swarm.AskStatements{Extents: extents}
		case kindClaim:
			f.message = swarm.Claim{Extents: extents}
		default:
			f.message = swarm.Relay{Extents: extents}
		}
	}
	return f, err
}

func decodeHello(p []byte) (string, error) {
	if v := binary.BigEndian.Uint16(p); v != version {
		return "", fmt.Errorf("%w: %d of the stream, here %d", ErrVersion, v, version)
	}
	addr := string(p[3:])
	if len(addr) != int(p[2]) {
		return "", errors.New("hello whose address has another length")
	}
	return addr, checkAddr(addr)
}

func decodeHolds(p []byte) (swarm.ToPeer, error) {
	var m swarm.Holds
	copy(m.Generation[:], p)
	n := binary.BigEndian.Uint32(p[32:])
	if n > piece.MaxCount {
		return nil, fmt.Errorf("bitfield of %d pieces", n)
	}
	var err error
	m.Have, err = piece.ParseBitfield(p[36:], int(n))
	return m, err
}

// decodeWhole reads a payload that is one statement.
func decodeWhole(p []byte) (swarm.ToPeer, error) {
	m, rest, err := decodeStatement(p)
	if err == nil && len(rest) > 0 {
		err = errors.New("statement with something after it")
	}
	return m, err
}

// decodeStatement reads a statement from the beginning of p and returns what follows it.
func decodeStatement(p []byte) (m swarm.Statement, rest []byte, err error) {
	if len(p) < statementStart {
		return m, nil, fmt.Errorf("statement of %d bytes", len(p))
	}
	copy(m.By[:], p)
	copy(m.Generation[:], p[32:])
	m.Run = binary.BigEndian.Uint64(p[64:])
	m.Signature = append([]byte(nil), p[72:136]...)
	n := int(binary.BigEndian.Uint16(p[136:]))
	p = p[statementStart:]
	if n == 0 || n > swarm.MaxStated || len(p) < statedPiece*n {
		return m, nil, fmt.Errorf("statement of %d digests in %d bytes", n, len(p))
	}
	m.Pieces, m.Digests = make([]piece.Index, n), make([]piece.Digest, n)
	for k := range n {
		m.Pieces[k] = binary.BigEndian.Uint32(p[statedPiece*k:])
		copy(m.Digests[k][:], p[statedPiece*k+4:])
	}
	return m, p[statedPiece*n:], checkStatement(&m)
}

func decodeAccuse(p []byte) (swarm.ToPeer, error) {
	m := swarm.Accuse{Piece: binary.BigEndian.Uint32(p)}
	rest := p[4:]
	var err error
	if m.Accused, rest, err = decodeStatement(rest); err != nil {
		return nil, err
	}
	if m.Accuser, rest, err = decodeStatement(rest); err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("accusation with something after it")
	}
	return m, checkAccuse(&m)
}

// checkAccuse checks that both statements are about the piece.
func checkAccuse(m *swarm.Accuse) error {
	for _, s := range []*swarm.Statement{&m.Accused, &m.Accuser} {
		if !slices.Contains(s.Pieces, m.Piece) {
			return errors.New("accusation about a piece that was not stated")
		}
	}
	return nil
}

// checkStatement checks what decoding and encoding both demand of a statement, except
// for the signature.
func checkStatement(m *swarm.Statement) error {
	if len(m.Pieces) == 0 || len(m.Pieces) > swarm.MaxStated || len(m.Digests) != len(m.Pieces) || len(m.Signature) != 64 {
		return fmt.Errorf("statement of %d digests for %d pieces with a signature of %d bytes",
			len(m.Digests), len(m.Pieces), len(m.Signature))
	}
	for k, i := range m.Pieces {
		if i >= piece.MaxCount || k > 0 && i <= m.Pieces[k-1] {
			return errors.New("statement whose pieces are not in order")
		}
	}
	return nil
}

func decodeSuccessor(p []byte) (swarm.ToPeer, error) {
	var m swarm.Successor
	if p[0] > 1 {
		return nil, fmt.Errorf("successor with the flags %#x", p[0])
	}
	m.Live = p[0] == 1
	copy(m.Tracker.ID[:], p[1:])
	m.Tracker.Addr = string(p[34:])
	if len(m.Tracker.Addr) != int(p[33]) {
		return nil, errors.New("successor whose address has another length")
	}
	return m, checkSuccessor(&m)
}

// checkSuccessor checks what decoding and encoding both demand.
func checkSuccessor(m *swarm.Successor) error {
	if m.Tracker.ID == (piece.NodeID{}) && m.Tracker.Addr != "" {
		return errors.New("successor without a key at an address")
	}
	return checkAddr(m.Tracker.Addr)
}

// decodeExtents reads extents that lie in the longest file that there may be and name
// no more pieces than that has, so that a few bytes cannot ask for a lot of work by
// naming the same pieces again and again.
func decodeExtents(p []byte) ([]piece.Extent, error) {
	n := binary.BigEndian.Uint32(p)
	p = p[4:]
	if n > maxRuns || len(p) != 8*int(n) {
		return nil, fmt.Errorf("%d extents in %d bytes", n, len(p))
	}
	if n == 0 {
		return nil, nil
	}
	extents := make([]piece.Extent, n)
	for k := range extents {
		extents[k] = piece.Extent{First: binary.BigEndian.Uint32(p[8*k:]), Count: binary.BigEndian.Uint32(p[8*k+4:])}
	}
	return extents, piece.CheckExtents(extents, piece.MaxCount)
}

// appendHead writes the start of a frame; endFrame fills in the length.
func appendHead(dst []byte, k kind, pool swarm.PoolID) []byte {
	dst = append(dst, 0, 0, 0, 0, byte(k))
	return append(dst, pool[:]...)
}

func endFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// appendSign writes a frame without payload.
func appendSign(dst []byte, k kind, pool swarm.PoolID) []byte {
	return endFrame(appendHead(dst, k, pool), len(dst))
}

func appendRemovals(dst []byte, list []byte) ([]byte, error) {
	if len(list) < minRemovals || len(list) > MaxRemovals {
		return dst, fmt.Errorf("list of removals of %d bytes", len(list))
	}
	start := len(dst)
	return endFrame(append(appendHead(dst, kindRemovals, swarm.PoolID{}), list...), start), nil
}

func appendHello(dst []byte, addr string) ([]byte, error) {
	if err := checkAddr(addr); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = appendHead(dst, kindHello, swarm.PoolID{})
	dst = binary.BigEndian.AppendUint16(dst, version)
	dst = append(dst, byte(len(addr)))
	return endFrame(append(dst, addr...), start), nil
}

// appendMessage writes a message as one frame or, if its extents do not fit into one,
// as several. A Claim or Relay cannot be divided: it keeps as many extents as fit.
func appendMessage(dst []byte, pool swarm.PoolID, message swarm.ToPeer) ([]byte, error) {
	start := len(dst)
	switch m := message.(type) {
	case swarm.Holds:
		if m.Have.Len() > piece.MaxCount {
			return dst, fmt.Errorf("bitfield of %d pieces", m.Have.Len())
		}
		dst = appendHead(dst, kindHolds, pool)
		dst = append(dst, m.Generation[:]...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(m.Have.Len()))
		return endFrame(append(dst, m.Have.Bytes()...), start), nil
	case swarm.Statement:
		if err := checkStatement(&m); err != nil {
			return dst, err
		}
		return endFrame(appendStatement(appendHead(dst, kindStatement, pool), &m), start), nil
	case swarm.Accuse:
		for _, s := range []*swarm.Statement{&m.Accused, &m.Accuser} {
			if err := checkStatement(s); err != nil {
				return dst, err
			}
		}
		if err := checkAccuse(&m); err != nil {
			return dst, err
		}
		dst = binary.BigEndian.AppendUint32(appendHead(dst, kindAccuse, pool), m.Piece)
		return endFrame(appendStatement(appendStatement(dst, &m.Accused), &m.Accuser), start), nil
	case swarm.Successor:
		if err := checkSuccessor(&m); err != nil {
			return dst, err
		}
		dst = append(appendHead(dst, kindSuccessor, pool), 0)
		if m.Live {
			dst[len(dst)-1] = 1
		}
		dst = append(dst, m.Tracker.ID[:]...)
		dst = append(dst, byte(len(m.Tracker.Addr)))
		return endFrame(append(dst, m.Tracker.Addr...), start), nil
	case swarm.Haves:
		return appendExtents(dst, kindHaves, pool, m.Extents)
	case swarm.AskStatements:
		return appendExtents(dst, kindAskStatements, pool, m.Extents)
	case swarm.Claim:
		return appendExtents(dst, kindClaim, pool, m.Extents)
	case swarm.Relay:
		return appendExtents(dst, kindRelay, pool, m.Extents)
	}
	return dst, fmt.Errorf("a message of the unknown type %T", message)
}

func appendStatement(dst []byte, m *swarm.Statement) []byte {
	dst = append(dst, m.By[:]...)
	dst = append(dst, m.Generation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.Run)
	dst = append(dst, m.Signature...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.Pieces)))
	for k, i := range m.Pieces {
		dst = binary.BigEndian.AppendUint32(dst, i)
		dst = append(dst, m.Digests[k][:]...)
	}
	return dst
}

func appendCertificate(dst []byte, der []byte) []byte {
	start := len(dst)
	return endFrame(append(appendHead(dst, kindCertificate, swarm.PoolID{}), der...), start)
}

func appendExtents(dst []byte, k kind, pool swarm.PoolID, extents []piece.Extent) ([]byte, error) {
	for {
		start := len(dst)
		dst = appendHead(dst, k, pool)
		dst = append(dst, 0, 0, 0, 0)
		n, left := 0, uint64(piece.MaxCount)
		for n < min(len(extents), maxRuns) {
			e := extents[n]
			if !e.Valid(piece.MaxCount) {
				return dst[:start], fmt.Errorf("extent of %d pieces from %d on", e.Count, e.First)
			}
			if uint64(e.Count) > left {
				break
			}
			left -= uint64(e.Count)
			dst = binary.BigEndian.AppendUint32(dst, e.First)
			dst = binary.BigEndian.AppendUint32(dst, e.Count)
			n++
		}
		binary.BigEndian.PutUint32(dst[start+frameStart:], uint32(n))
		dst = endFrame(dst, start)
		if extents = extents[n:]; len(extents) == 0 || k == kindClaim || k == kindRelay {
			return dst, nil
		}
	}
}

// checkAddr reports what is wrong with an advertised address. Empty is allowed: the
// sender does not know where it is reached. Else it is host:port, the host an IP
// address, a name as in DNS, or empty for the address that the receiver sees.
func checkAddr(addr string) error {
	if addr == "" {
		return nil
	}
	if len(addr) > maxAddr {
		return fmt.Errorf("address of %d bytes", len(addr))
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %.64q is not a host and a port", addr)
	}
	if n, err := parseNumber(port, 1<<16-1); err != nil || n == 0 {
		return fmt.Errorf("address %.64q has no usable port", addr)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostName(host) {
		return fmt.Errorf("address %.64q is not a host and a port", addr)
	}
	return nil
}

// hostName reports whether host may be a name in DNS. Underscores are let in, since
// machines are named with them.
func hostName(host string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}
