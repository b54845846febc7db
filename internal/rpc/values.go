package rpc

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"dragonload/internal/piece"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

// Bounds of what one message may hold. With them no message is larger than
// MaxMessage, and none asks for more work than one pass over a file's pieces.
const (
	// MaxMessage bounds a message on the wire, in bytes.
	MaxMessage = 4 << 20
	// MaxRuns bounds the extents of one message.
	MaxRuns = 1 << 18
	// MaxPeers bounds the members of one Handout.
	MaxPeers = 4096
	// MaxAddr bounds an address, in bytes.
	MaxAddr = 255
	// MaxWait bounds the durations of messages; longer ones are sent as this long.
	MaxWait = 30 * 24 * time.Hour
)

// encodeExtents returns nil for no extents.
func encodeExtents(extents []piece.Extent) *poolv1.Extents {
	if len(extents) == 0 {
		return nil
	}
	runs := make([]uint32, 0, 2*len(extents))
	for _, e := range extents {
		runs = append(runs, e.First, e.Count)
	}
	return &poolv1.Extents{Runs: runs}
}

// decodeExtents checks that each extent lies in a file of count pieces and that they
// name no more pieces than that together, so that a few bytes cannot ask for a lot of
// work by naming the same pieces again and again.
func decodeExtents(x *poolv1.Extents, count int) ([]piece.Extent, error) {
	runs := x.GetRuns()
	if len(runs) == 0 {
		return nil, nil
	}
	if len(runs)%2 != 0 || len(runs) > 2*MaxRuns {
		return nil, fmt.Errorf("extents of %d numbers", len(runs))
	}
	extents := make([]piece.Extent, 0, len(runs)/2)
	for i := 0; i < len(runs); i += 2 {
		extents = append(extents, piece.Extent{First: runs[i], Count: runs[i+1]})
	}
	return extents, piece.CheckExtents(extents, count)
}

func encodePin(p piece.Pin) *poolv1.Pin {
	return &poolv1.Pin{
		Size: p.Size, Kind: poolv1.ValidatorKind(p.Kind), Validator: []byte(p.Validator),
		PieceLength: p.PieceLength, Pieces: p.Pieces,
	}
}

func decodePin(x *poolv1.Pin) (piece.Pin, error) {
	if x == nil {
		return piece.Pin{}, fmt.Errorf("no pin")
	}
	if x.Kind < 0 || x.Kind > poolv1.ValidatorKind(piece.Manifest) {
		return piece.Pin{}, fmt.Errorf("pin with an unknown kind of validator %d", x.Kind)
	}
	if len(x.Validator) > piece.MaxValidator {
		return piece.Pin{}, fmt.Errorf("pin with a validator of %d bytes", len(x.Validator))
	}
	p := piece.Pin{
		Size: x.Size, Kind: piece.ValidatorKind(x.Kind), Validator: string(x.Validator),
		PieceLength: x.PieceLength, Pieces: x.Pieces,
	}
	return p, p.Validate()
}

// encodeWait rounds up, so that what is not nothing stays not nothing.
func encodeWait(d time.Duration) uint64 {
	d = min(max(d, 0), MaxWait)
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

func decodeWait(ms uint64) (time.Duration, error) {
	if ms > uint64(MaxWait/time.Millisecond) {
		return 0, fmt.Errorf("a wait of %d ms", ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func decodeBytes(n uint64) (int64, error) {
	if n > piece.MaxSize {
		return 0, fmt.Errorf("a number of %d bytes", n)
	}
	return int64(n), nil
}

func decodeFailure(f poolv1.Failure) (swarm.Failure, error) {
	if f < 0 || f > poolv1.Failure(swarm.Lasting) {
		return 0, fmt.Errorf("unknown failure %d", f)
	}
	return swarm.Failure(f), nil
}

func decodeID(raw []byte) (id [32]byte, err error) {
	if len(raw) != len(id) {
		return id, fmt.Errorf("id of %d bytes", len(raw))
	}
	copy(id[:], raw)
	return id, nil
}

// CheckAddr reports what is wrong with a host:port that came from outside: it must
// have at most MaxAddr bytes, an IP address or a host name, and a port from 1 on.
func CheckAddr(addr string) error {
	host, err := checkPort(addr)
	if err != nil {
		return err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if !hostName(host) {
		return fmt.Errorf("address %.64q is not a host and a port", addr)
	}
	return nil
}

// checkPort checks everything of an address but its host, which it returns.
func checkPort(addr string) (host string, err error) {
	if len(addr) > MaxAddr {
		return "", fmt.Errorf("address of %d bytes", len(addr))
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("address %.64q is not a host and a port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", fmt.Errorf("address %.64q has no usable port", addr)
	}
	return host, nil
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
