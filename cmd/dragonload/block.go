package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/bubbles/v2/progress"
	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"dragonload/internal/node"
)

// blockEvery is how often the block is drawn anew.
const blockEvery = 200 * time.Millisecond

// block shows the downloads that run in a few lines at the bottom of a terminal,
// which it draws again and again. It asks the terminal nothing and reads no keys, so
// Ctrl-C stays a signal. What is told is only noted: a terminal that does not read
// stops the picture, not the download.
type block struct {
	ownsOutput bool // standard output is the same terminal
	program    *tea.Program
	cancel     context.CancelFunc
	over       chan struct{} // closed when the program has ended

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
	b := &block{over: make(chan struct{})}
	if isTerminal(output) {
		mine, err := f.Stat()
		theirs, err2 := output.Stat()
		b.ownsOutput = err == nil && err2 == nil && os.SameFile(mine, theirs)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.program = tea.NewProgram(newBlockModel(b),
		tea.WithContext(ctx), tea.WithOutput(f), tea.WithInput(nil), tea.WithoutSignalHandler(),
		tea.WithFPS(int(time.Second/blockEvery)*2), tea.WithEnvironment(askNothing(os.Environ())))
	go func() {
		defer close(b.over)
		// A block that cannot be drawn is no reason to stop a download.
		last, _ := b.program.Run()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.closed = true
		// The cursor stands at the beginning of the last line.
		if m, ok := last.(blockModel); ok && len(m.lines) > 1 {
			fmt.Fprintf(f, "\x1b[%dA\x1b[J", len(m.lines)-1)
		}
		for _, line := range b.lines {
			fmt.Fprintln(f, line)
		}
	}()
	return b
}

// askNothing returns an environment with which Bubble Tea asks the terminal for no
// abilities: nobody would read the answers, and the shell would find them typed in.
func askNothing(environ []string) []string {
	var kept []string
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		switch name {
		case "WT_SESSION", "TERM_PROGRAM", "SSH_TTY":
			continue
		case "TERM":
			for _, asked := range []string{"ghostty", "wezterm", "alacritty", "kitty", "rio"} {
				if strings.Contains(value, asked) {
					e = "TERM=xterm-256color"
				}
			}
		}
		kept = append(kept, e)
	}
	return append(kept, "SSH_TTY=/dev/tty")
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
	return true
}

// close removes the block from the terminal and returns when all that was to be
// printed is.
func (b *block) close() {
	b.program.Send(blockClose{})
	<-b.over
	b.cancel()
}

// blockModel is the picture; it looks at the block at each tick. It never shrinks:
// Bubble Tea leaves lines on the terminal when a picture does.
type blockModel struct {
	block *block
	bar   progress.Model
	width int
	lines []string
}

type (
	blockTick  struct{}
	blockClose struct{}
)

func newBlockModel(b *block) blockModel {
	return blockModel{
		block: b, width: 80,
		bar: progress.New(progress.WithoutPercentage(), progress.WithFillCharacters('█', '░'),
			progress.WithColors(lipgloss.Color("6"))),
	}
}

func (m blockModel) Init() tea.Cmd { return func() tea.Msg { return blockTick{} } }

func (m blockModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		if msg.Width > 0 {
			m.width = msg.Width
		}
	case blockTick:
		above := m.look()
		tick := tea.Tick(blockEvery, func(time.Time) tea.Msg { return blockTick{} })
		return m, tea.Batch(above, tick)
	case blockClose:
		return m, tea.Sequence(m.look(), tea.Quit)
	}
	return m, nil
}

// look takes over what was noted since the last time. The lines to be printed are for
// the command that it returns.
func (m *blockModel) look() tea.Cmd {
	b := m.block
	b.mu.Lock()
	defer b.mu.Unlock()
	height := len(m.lines)
	m.lines = nil
	for _, item := range b.items {
		m.lines = append(m.lines, m.itemLines(item)...)
	}
	for len(m.lines) < height {
		m.lines = append(m.lines, "")
	}
	if len(b.lines) == 0 {
		return nil
	}
	text := strings.Join(b.lines, "\n")
	b.lines = nil
	return tea.Println(text)
}

func (m blockModel) View() tea.View {
	view := tea.NewView(strings.Join(m.lines, "\n"))
	view.DisableBracketedPasteMode = true
	return view
}

var (
	nameStyle  = lipgloss.NewStyle().Bold(true)
	faintStyle = lipgloss.NewStyle().Faint(true)
)

// itemLines draws one download: its name, then bar and numbers, as many as fit.
func (m blockModel) itemLines(item blockItem) []string {
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
