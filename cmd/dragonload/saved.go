package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"dragonload/internal/node"
)

// savedLine is the one line that tells of a whole file; scripts read it.
func savedLine(s *node.Saved) string {
	return fmt.Sprintf("saved %s  %d bytes  sha-256=%s  checked=%s  origin=%d peers=%d  %.2fs\n",
		quotedPath(s.Path), s.Size, s.SHA256, s.Checked, s.OriginBytes, s.PeerBytes, s.Took.Seconds())
}

// quotedPath quotes a path as Go does if it holds a space, a control character or
// what a terminal or a reader of lines would trip over.
func quotedPath(path string) string {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }) {
		return path
	}
	return strconv.Quote(path)
}
