package peer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// What a request names: a manifest by its info hash, or a pool, and either a list of pieces or, by its Range header,
// bytes of the file.

// MaxPieces bounds the pieces of one request.
const MaxPieces = 256

const (
	pathPrefix  = "/v1/pools/"
	pathPieces  = "/pieces/"
	pathContent = "/content"

	pathManifests = "/v1/manifests/"

	// maxList is the length of the longest list of MaxPieces pieces.
	maxList = MaxPieces * len("2097151,")
)

// appendPath writes the path that asks for pieces.
func appendPath(dst []byte, pool swarm.PoolID, pieces []piece.Index) []byte {
	dst = append(dst, pathPrefix...)
	dst = hex.AppendEncode(dst, pool[:])
	dst = append(dst, pathPieces...)
	for k := 0; k < len(pieces); {
		first := pieces[k]
		last := first
		for k++; k < len(pieces) && pieces[k] == last+1; k++ {
			last++
		}
		dst = strconv.AppendUint(dst, uint64(first), 10)
		if last > first {
			dst = append(dst, '-')
			dst = strconv.AppendUint(dst, uint64(last), 10)
		}
		if k < len(pieces) {
			dst = append(dst, ',')
		}
	}
	return dst
}

// parsePath reads a path. Pieces is nil if it asks for content.
func parsePath(path string) (pool swarm.PoolID, pieces []piece.Index, ok bool) {
	rest, found := strings.CutPrefix(path, pathPrefix)
	if !found || len(rest) < 2*len(pool) {
		return pool, nil, false
	}
	name, rest := rest[:2*len(pool)], rest[2*len(pool):]
	if _, err := hex.Decode(pool[:], []byte(name)); err != nil || name != strings.ToLower(name) {
		return pool, nil, false
	}
	if rest == pathContent {
		return pool, nil, true
	}
	list, found := strings.CutPrefix(rest, pathPieces)
	if !found {
		return pool, nil, false
	}
	pieces, err := parseList(list)
	return pool, pieces, err == nil
}

// parseManifestPath reads a path that asks for a manifest; the info hash has lower-case
// digits.
func parseManifestPath(path string) (infoHash [32]byte, ok bool) {
	name, found := strings.CutPrefix(path, pathManifests)
	if !found || len(name) != 2*len(infoHash) || name != strings.ToLower(name) {
		return infoHash, false
	}
	_, err := hex.Decode(infoHash[:], []byte(name))
	return infoHash, err == nil
}

var errList = errors.New("not a list of pieces")

// parseList reads a list such as 3,17,20-25: at most MaxPieces pieces in any order,
// none of them twice, written in the only way that appendPath might have written them,
// except that runs need not be written as such.
func parseList(list string) ([]piece.Index, error) {
	if len(list) > maxList {
		return nil, errList
	}
	var pieces []piece.Index
	seen := make(map[piece.Index]struct{})
	for item := range strings.SplitSeq(list, ",") {
		a, b, run := strings.Cut(item, "-")
		first, err := parseNumber(a, piece.MaxCount-1)
		if err != nil {
			return nil, err
		}
		last := first
		if run {
			if last, err = parseNumber(b, piece.MaxCount-1); err != nil || last <= first {
				return nil, errList
			}
		}
		if last-first >= int64(MaxPieces-len(pieces)) {
			return nil, errList
		}
		for i := piece.Index(first); i <= piece.Index(last); i++ {
			if _, twice := seen[i]; twice {
				return nil, errList
			}
			seen[i] = struct{}{}
			pieces = append(pieces, i)
		}
	}
	return pieces, nil
}

// parseNumber reads a decimal number from 0 to limit: digits only, none to spare.
func parseNumber(s string, limit int64) (int64, error) {
	if s == "" || len(s) > 16 || s[0] == '0' && len(s) > 1 {
		return 0, errList
	}
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, errList
		}
		n = n*10 + int64(c-'0')
	}
	if n > limit {
		return 0, errList
	}
	return n, nil
}

// parseRange reads the only Range header that is understood, bytes=FIRST-LAST or
// bytes=FIRST-, for a file of size bytes.
func parseRange(h http.Header, size int64) (piece.Range, error) {
	values := h.Values("Range")
	if len(values) != 1 {
		return piece.Range{}, fmt.Errorf("%d Range headers", len(values))
	}
	spec, found := strings.CutPrefix(values[0], "bytes=")
	a, b, dash := strings.Cut(spec, "-")
	if !found || !dash {
		return piece.Range{}, errors.New("not a range")
	}
	first, err := parseNumber(a, piece.MaxSize)
	if err != nil || first >= size {
		return piece.Range{}, errors.New("range begins beyond the end")
	}
	last := size - 1
	if b != "" {
		if last, err = parseNumber(b, piece.MaxSize); err != nil || last < first {
			return piece.Range{}, errors.New("not a range")
		}
	}
	return piece.Range{Start: first, End: min(last+1, size)}, nil
}
