package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/bubbles/v2/progress"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"

	"dragonload/internal/node"
)

// blockEvery is how often the block is drawn anew.
const blockEvery = 200 * time.Millisecond

// block shows the downloads that run in a few lines at the bottom of a terminal,
// which it draws again and again. It moves the cursor within the lines that it has
// drawn itself and nowhere else, asks the terminal nothing and reads no keys, so Ctrl-C
// stays a signal. What is told is only noted: a terminal that does not read stops the
// picture, not the download.
type block struct {
	ownsOutput bool // standard output is the same terminal
	wake       chan struct{}
	end        chan struct{} // closed by close
	over       chan struct{} // closed when nothing is drawn any more

	mu     sync.Mutex
	items  []blockItem // in the order of the command line
	lines  []string    // to be printed above the block
	closed bool
}

type blockItem struct {
	index    int
	name     string
	progress node.Progress
}

// canBlock reports whether f is a terminal on which lines can be redrawn.
func canBlock(f *os.File) bool {
	return os.Getenv("TERM") != "dumb" && isTerminal(f)
}

// newBlock draws on f, which canBlock. close must be called.
func newBlock(f, output *os.File) *block {
	b := &block{wake: make(chan struct{}, 1), end: make(chan struct{}), over: make(chan struct{})}
	if isTerminal(output) {
		mine, err := f.Stat()
		theirs, err2 := output.Stat()
		b.ownsOutput = err == nil && err2 == nil && os.SameFile(mine, theirs)
	}
	understandEscapes(f)
	go b.draw(&painter{
		out:     colorprofile.NewWriter(f, os.Environ()),
		size:    func() (int, int) { return sizeOf(f) },
		picture: newPicture(),
	})
	return b
}

// sizeOf returns the columns and rows of a terminal. One that does not know its size is
// taken for one of the usual.
func sizeOf(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// draw paints until the block is closed.
func (b *block) draw(p *painter) {
	defer close(b.over)
	tick := time.NewTicker(blockEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.paint(b.look(p))
		case <-b.wake:
			p.paint(b.look(p))
		case <-b.end:
			b.mu.Lock()
			defer b.mu.Unlock()
			b.closed = true
			p.clear(b.lines)
			return
		}
	}
}

// look takes the lines to be printed and draws the block as it stands.
func (b *block) look(p *painter) (above, picture []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	above, b.lines = b.lines, nil
	width, height := p.size()
	p.picture.width = width
	for _, item := range b.items {
		picture = append(picture, p.picture.itemLines(item)...)
	}
	// One row stays for what is above; of the rest those downloads are shown that fit.
	return above, picture[:min(len(picture), max(height-1, 1))]
}

// event notes what happened to a download.
func (b *block) event(index int, name string, ev node.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := slices.IndexFunc(b.items, func(i blockItem) bool { return i.index >= index })
	known := at >= 0 && b.items[at].index == index
	switch {
	case ev.Progress != nil:
		item := blockItem{index: index, name: name, progress: *ev.Progress}
		switch {
		case known:
			b.items[at] = item
		case at < 0:
			b.items = append(b.items, item)
		default:
			b.items = slices.Insert(b.items, at, item)
		}
	case (ev.Failed != nil || ev.Ended != nil) && known:
		b.items = slices.Delete(b.items, at, at+1)
	}
}

// print puts text above the block. It is false if there is no block any more.
func (b *block) print(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.lines = append(b.lines, strings.TrimSuffix(text, "\n"))
	select {
	case b.wake <- struct{}{}:
	default: // it is awake
	}
	return true
}

// close removes the block from the terminal and returns when all that was to be
// printed is.
func (b *block) close() {
	close(b.end)
	<-b.over
}

// painter draws lines where the cursor is, and draws them anew in their place. A block
// that cannot be drawn is no reason to stop a download: errors of writing are nobody's.
type painter struct {
	out     io.Writer
	size    func() (width, height int)
	picture picture
	drawn   []string // on the terminal now; the cursor is at the end of the last of them
	hidden  bool     // the cursor
}

// home takes the cursor to the beginning of what is drawn.
func (p *painter) home() string {
	if len(p.drawn) > 1 {
		return fmt.Sprintf("\r\x1b[%dA", len(p.drawn)-1)
	}
	return "\r"
}

// paint prints lines above the block and draws the block below them.
func (p *painter) paint(above, lines []string) {
	if len(above) == 0 && slices.Equal(lines, p.drawn) {
		return
	}
	var s strings.Builder
	if len(lines) > 0 && !p.hidden {
		s.WriteString(hideCursor)
		p.hidden = true
	}
	if len(p.drawn) > 0 {
		s.WriteString(p.home())
	}
	if len(above) > 0 {
		if len(p.drawn) > 0 {
			s.WriteString(eraseBelow)
		}
		s.WriteString(strings.Join(above, "\n") + "\n")
	}
	for k, line := range lines {
		if k > 0 {
			s.WriteString("\n")
		}
		s.WriteString(line + eraseRight) // no line is as wide as the terminal
	}
	if len(p.drawn) > len(lines) {
		s.WriteString(eraseBelow)
	}
	p.drawn = lines
	_, _ = io.WriteString(p.out, s.String())
}

// clear takes the block away, prints the last lines and gives the cursor back.
func (p *painter) clear(above []string) {
	p.paint(above, nil)
	if p.hidden {
		p.hidden = false
		_, _ = io.WriteString(p.out, showCursor)
	}
}

// Escape sequences that every terminal of today knows.
const (
	hideCursor = "\x1b[?25l"
	eraseRight = "\x1b[K"
	eraseBelow = "\x1b[J"
)

// picture is how a download looks in the block.
type picture struct {
	bar   progress.Model
	width int
}

func newPicture() picture {
	return picture{
		width: 80,
		bar: progress.New(progress.WithoutPercentage(), progress.WithFillCharacters('█', '░'),
			progress.WithColors(lipgloss.Color("6"))),
	}
}

var (
	nameStyle  = lipgloss.NewStyle().Bold(true)
	faintStyle = lipgloss.NewStyle().Faint(true)
)

// itemLines draws one download: its name, then bar and numbers, as many as fit.
func (m picture) itemLines(item blockItem) []string {
	width := max(m.width-1, 20) // the last column makes some terminals wrap
	p := &item.progress
	head := nameStyle.MaxWidth(width).Render(safeText(item.name))
	if note := stateNote(p); note != "" && lipgloss.Width(head)+2+lipgloss.Width(note) <= width {
		head += "  " + faintStyle.Render(note)
	}
	numbers := fmt.Sprintf("%3d %%  %s", percent(p), formatBytes(p.Size))
	if p.Size < 0 {
		numbers = formatBytes(p.Have)
	}
	rest := []string{"origin " + formatBytes(p.OriginRate) + "/s"}
	if p.Members > 1 || p.PeerBytes > 0 {
		rest = append(rest, "peers "+formatBytes(p.PeerRate)+"/s")
	}
	switch p.State {
	case "hashing":
		rest = []string{formatBytes(p.Rate) + "/s", formatETA(p.ETA) + " left"}
	case "serving":
		rest = []string{"up " + formatBytes(p.UploadRate) + "/s"}
	default:
		rest = append(rest, formatETA(p.ETA)+" left")
	}
	if p.Members > 1 {
		rest = append(rest, counted(p.Members, "member"))
	}
	const least = 10 // columns of a bar that says something
	for _, r := range rest {
		if len([]rune(numbers))+2+len([]rune(r))+2+least > width {
			break
		}
		numbers += "  " + r
	}
	if p.Size < 0 {
		return []string{head, numbers}
	}
	bar := m.bar
	bar.SetWidth(min(width-len([]rune(numbers))-2, 40))
	return []string{head, bar.ViewAs(min(float64(p.Have)/float64(max(p.Size, 1)), 1)) + "  " + numbers}
}

func stateNote(p *node.Progress) string {
	switch p.State {
	case "serving":
		return "saved; serving members that still need it, Ctrl-C ends that"
	case "downloading", "":
		return ""
	}
	return p.State
}
