package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"dragonload/internal/node"
)

func TestBlockModel_fitsEveryWidth(t *testing.T) {
	item := blockItem{name: "a rather long name of a file \x1b[2J 漢字漢字漢字.iso", progress: node.Progress{
		State: "waiting", Size: 123456789012, Have: 98765432101, OriginRate: 123456789, PeerRate: 98765432, PeerBytes: 1,
		ETA: 30 * time.Hour, Members: 12,
	}}
	m := newPicture()
	for m.width = 21; m.width < 200; m.width++ {
		for _, size := range []int64{item.progress.Size, -1} {
			item.progress.Size = size
			lines := m.itemLines(item)
			if len(lines) != 2 {
				t.Fatalf("width %d: %d lines", m.width, len(lines))
			}
			for _, line := range lines {
				if w := lipgloss.Width(line); w >= m.width {
					t.Errorf("width %d: a line of %d columns: %q", m.width, w, line)
				}
				if strings.Contains(line, "\x1b[2J") {
					t.Errorf("the name steers the terminal: %q", line)
				}
			}
			item.progress.Size = 123456789012
		}
	}
	m.width = 200
	line := m.itemLines(item)[1]
	for _, part := range []string{"80 %", "115 GiB", "origin 118 MiB/s", "peers 94.2 MiB/s", "30:00:00 left", "12 members"} {
		if !strings.Contains(line, part) {
			t.Errorf("no %q in %q", part, line)
		}
	}
}

func TestBlock_printsAllAsksNothingAndGivesTheCursorBack(t *testing.T) {
	t.Setenv("TERM", "xterm-ghostty")
	t.Setenv("WT_SESSION", "1")
	f, err := os.Create(filepath.Join(t.TempDir(), "terminal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := newBlock(f, f)
	for i := range 3 {
		b.event(2-i, "file", node.Event{Progress: &node.Progress{Size: 100, Have: int64(i)}})
	}
	b.event(1, "file", node.Event{Ended: &struct{}{}})
	if len(b.items) != 2 || b.items[0].index != 0 || b.items[1].index != 2 {
		t.Errorf("items %v, want those of downloads 0 and 2 in this order", b.items)
	}
	if !b.print("the first line\n") || !b.print("the last line\n") {
		t.Error("a running block does not print")
	}
	b.close()
	if b.print("too late\n") {
		t.Error("a closed block says that it prints")
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	out := string(data)
	for _, line := range []string{"the first line", "the last line"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in %q", line, out)
		}
	}
	if strings.Count(out, "\x1b[?25l") != strings.Count(out, showCursor) {
		t.Errorf("the cursor stays hidden: %q", out)
	}
	for _, question := range []string{"$p", "\x1b[c", "\x1b[6n", "\x1b[?u", "\x1b]10;?", "\x1b]11;?"} {
		if strings.Contains(out, question) {
			t.Errorf("the terminal is asked %q: %q", question, out)
		}
	}
}
