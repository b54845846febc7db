package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// readBounded reads a file that a user named; one of more than limit bytes is
// refused.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > limit {
		return nil, tooLong(path, limit)
	}
	return readAtMost(f, path, limit)
}

func tooLong(name string, limit int64) error {
	return fmt.Errorf("%s has more than %s", name, formatBytes(limit))
}

func readAtMost(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, tooLong(name, limit)
	}
	return data, nil
}

// textLine is a line of a list that a user wrote, and its number from 1.
type textLine struct {
	number int
	text   string
}

// listLines returns the lines of a file that are neither empty nor comments (#).
func listLines(data []byte) []textLine {
	var lines []textLine
	for i, text := range strings.Split(string(data), "\n") {
		text = strings.TrimSuffix(text, "\r")
		if trimmed := strings.TrimSpace(text); trimmed != "" && trimmed[0] != '#' {
			lines = append(lines, textLine{number: i + 1, text: text})
		}
	}
	return lines
}
