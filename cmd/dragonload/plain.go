package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"dragonload/internal/node"
)

// plainEvery is the time between two lines of progress without a terminal.
const plainEvery = 10 * time.Second

// people tells a person: the saved lines on out, the rest on err, lines of progress
// each 10 s if there is no block on a terminal.
type people struct {
	mu       sync.Mutex
	names    []string // of the downloads
	out      io.Writer
	err      io.Writer
	quiet    bool // no progress, no warnings
	silent   bool // no saved lines either: JSON tells of them
	block    *block
	lastLine []time.Time // of progress, by download
	weak     [][]string  // algorithms of checksums that find errors alone, by download
	outErr   error       // the first of writing to out
	copied   *copied     // where a file goes for -o -; nil if none can
}

func newPeople(specs []node.Spec, std streams) *people {
	p := &people{out: std.out, err: std.err, lastLine: make([]time.Time, len(specs))}
	for _, s := range specs {
		p.weak = append(p.weak, weakSums(s))
		name := urlName(s.URL)
		if s.Output != "" && s.Output != "-" {
			name = filepath.Base(s.Output)
		}
		switch {
		case name == "" && s.URL != "":
			name = redacted(s.URL)
		case name == "":
			name = firstOf(s.ManifestName, s.ManifestID, "torrent") // until it is known
		}
		p.names = append(p.names, name)
	}
	return p
}

func (p *people) event(index int, ev node.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ev.Start != nil:
		p.named(index, ev.Start.Path)
		p.lastLine[index] = ev.Time
	case ev.Progress != nil:
		p.named(index, ev.Progress.Path)
		if p.block == nil && !p.quiet && ev.Time.Sub(p.lastLine[index]) >= plainEvery {
			if !p.lastLine[index].IsZero() {
				p.line(p.names[index] + ": " + plainProgress(ev.Progress))
			}
			p.lastLine[index] = ev.Time
		}
	case ev.Warning != nil:
		if !p.quiet {
			p.line("dragonload: warning: " + p.prefix(index) + ev.Warning.Message)
		}
	case ev.Failed != nil && p.copied.isUnread():
		// Whoever read the file has left, and knows it.
	case ev.Failed != nil:
		p.line("dragonload: " + p.prefix(index) + ev.Failed.Message)
	case ev.Saved != nil:
		p.named(index, ev.Saved.Path)
		if !p.silent {
			p.saved(savedLine(ev.Saved))
		}
		if index < len(p.weak) && len(p.weak[index]) > 0 && !p.quiet {
			p.line("dragonload: " + p.prefix(index) + weakNote(p.weak[index]))
		}
	}
	if p.block != nil {
		p.block.event(index, p.names[index], ev)
	}
}

// weakSums returns the algorithms of a download's checksums by which errors are found, and
// forgeries are not.
func weakSums(s node.Spec) []string {
	var weak []string
	for _, c := range s.Checksums {
		if !provingAlgorithms[c.Algorithm] && !slices.Contains(weak, c.Algorithm) {
			weak = append(weak, c.Algorithm)
		}
	}
	return weak
}

// weakNote is what is said of a saved file that has such checksums: it is saved only if
// they agree.
func weakNote(algorithms []string) string {
	return strings.Join(algorithms, " and ") + " as given: no error on the way; that nobody has changed the file only sha-256 or sha-512 can show"
}

// start hands progress over to a block on a terminal.
func (p *people) start(b *block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.block = b
}

func (p *people) named(index int, path string) {
	if path != "" && path != "-" {
		p.names[index] = filepath.Base(path)
	}
}

// prefix tells which of several downloads a message is about.
func (p *people) prefix(index int) string {
	if len(p.names) == 1 {
		return ""
	}
	return p.names[index] + ": "
}

// line writes one line for people, above the block if there is one.
func (p *people) line(text string) {
	text = safeText(text) + "\n"
	if p.block == nil || !p.block.print(text) {
		fmt.Fprint(p.err, text)
	}
}

// saved writes to standard output, through the block if both are one terminal.
func (p *people) saved(line string) {
	if p.block != nil && p.block.ownsOutput && p.block.print(line) {
		return
	}
	if _, err := io.WriteString(p.out, line); err != nil && p.outErr == nil {
		p.outErr = err
	}
}

// close ends the block, so that what is written after it stands below it.
func (p *people) close() {
	p.mu.Lock()
	block := p.block
	p.block = nil
	p.quiet = p.quiet || block != nil
	p.mu.Unlock()
	if block != nil {
		block.close()
	}
}

// Write takes what the log writes, whole lines, so that they do not tear the block.
func (p *people) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.block != nil && p.block.print(string(text)) {
		return len(text), nil
	}
	return p.err.Write(text)
}

// plainProgress is where a download stands, in words.
func plainProgress(p *node.Progress) string {
	var parts []string
	switch {
	case p.State == "serving":
		parts = append(parts, "whole, serving members, "+formatBytes(p.UploadRate)+"/s")
	case p.Size > 0:
		parts = append(parts, fmt.Sprintf("%d %% of %s", percent(p), formatBytes(p.Size)))
	default:
		parts = append(parts, formatBytes(p.Have))
	}
	if p.State == "hashing" {
		parts = append(parts, "hashing "+formatBytes(p.Rate)+"/s")
	} else if p.State != "serving" {
		if p.State != "downloading" && p.State != "" {
			parts = append(parts, p.State)
		}
		parts = append(parts, "origin "+formatBytes(p.OriginRate)+"/s")
		if p.Members > 1 || p.PeerBytes > 0 {
			parts = append(parts, "peers "+formatBytes(p.PeerRate)+"/s")
		}
		if p.ETA >= 0 {
			parts = append(parts, formatETA(p.ETA)+" left")
		}
	}
	if p.Members > 1 {
		parts = append(parts, counted(p.Members, "member"))
	}
	return strings.Join(parts, ", ")
}

// percent rounds down: 100 means all.
func percent(p *node.Progress) int {
	if p.Size <= 0 {
		return 0
	}
	return int(min(float64(p.Have)/float64(p.Size), 1) * 100)
}

// several tells all events to more than one reporter.
type several []reporter

func (s several) event(index int, ev node.Event) {
	for _, r := range s {
		r.event(index, ev)
	}
}
