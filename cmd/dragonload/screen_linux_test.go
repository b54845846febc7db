package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// display is a terminal of 24 rows and 80 columns as far as this program uses one. What
// it does not know fails the test.
type display struct {
	t        *testing.T
	rows     []string
	top      int // the first row that is shown; those above have scrolled away
	row, col int
	wraps    bool // the last column is written: the next character begins a row

}

const screenRows, screenColumns = 24, 80

var escape = regexp.MustCompile(`^\x1b\[([?0-9;]*)([A-Za-z])`)

func (s *display) write(text string) {
	for text != "" {
		if m := escape.FindStringSubmatch(text); m != nil {
			s.control(m[1], m[2])
			text = text[len(m[0]):]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		switch r {
		case '\r':
			s.col, s.wraps = 0, false
		case '\n':
			s.down()
		case '\x1b':
			s.t.Fatalf("the terminal does not know %q", "\x1b"+text[:min(len(text), 8)])
		default:
			if s.wraps {
				s.col, s.wraps = 0, false
				s.down()
			}
			line := []rune(s.at(s.row))
			for len(line) <= s.col {
				line = append(line, ' ')
			}
			line[s.col] = r
			s.rows[s.row] = string(line)
			if s.col++; s.col == screenColumns {
				s.col, s.wraps = screenColumns-1, true
			}
		}
	}
}

func (s *display) at(row int) string {
	for len(s.rows) <= row {
		s.rows = append(s.rows, "")
	}
	return s.rows[row]
}

func (s *display) down() {
	s.row++
	s.at(s.row)
	s.top = max(s.top, s.row-screenRows+1)
}

func (s *display) control(number, word string) {
	n := 1
	if v, err := strconv.Atoi(number); err == nil {
		n = v
	}
	switch word {
	case "A":
		s.row, s.wraps = max(s.row-n, s.top), false
	case "K", "J":
		if number != "" {
			s.t.Fatalf("the terminal does not know CSI %s %s", number, word)
		}
		line := []rune(s.at(s.row))
		s.rows[s.row] = string(line[:min(s.col, len(line))])
		for below := s.row + 1; word == "J" && below < len(s.rows); below++ {
			s.rows[below] = ""
		}
	case "m", "h", "l":
	default:
		s.t.Fatalf("the terminal does not know CSI %s %s", number, word)
	}
}

// shown returns the rows down to the cursor, without spaces at their ends.
func (s *display) shown() []string {
	var rows []string
	for _, row := range s.rows[:s.row+1] {
		rows = append(rows, strings.TrimRight(row, " "))
	}
	return rows
}

// onTerminal runs the program on a terminal of so many rows and columns and returns what it
// has written there; look, if there is one, sees it grow.
func onTerminal(t *testing.T, rows, columns uint16, look func(written []byte), args ...string) (written []byte, exit int) {
	t.Helper()
	program, err := exec.LookPath("dragonload")
	if err != nil {
		t.Fatal(err)
	}
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this system gives no terminals: %v", err)
	}
	defer near.Close()
	fd := int(near.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	far, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "HOME="+dir, "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(scriptDeadline, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	far.Close()
	part := make([]byte, 4096)
	for {
		n, err := near.Read(part)
		written = append(written, part[:n]...)
		if look != nil {
			look(written)
		}
		if errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	return written, cmd.ProcessState.ExitCode()
}

// What was on the terminal before stays there, directly above what the program says.
func TestBlock_leavesWhatIsAboveAlone(t *testing.T) {
	t.Parallel()
	if underRace {
		t.Skip("the program is run without the race detector: go test ./cmd/dragonload")
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/small" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("small"))
	}))
	t.Cleanup(origin.Close)
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		rows, columns uint16
		args          []string
		exit          int
		says          string
	}{
		{"missing", screenRows, screenColumns, []string{"get", origin.URL + "/missing"}, 3, "dragonload: "},
		{"small", screenRows, screenColumns, []string{"get", origin.URL + "/small"}, 0, "saved /"},
		{"there", screenRows, screenColumns, []string{"get", "-o", there, origin.URL + "/small"}, 13, "dragonload: "},
		{"several", screenRows, screenColumns, []string{"get", origin.URL + "/missing", origin.URL + "/small"}, 3, ""},
		{"no size", 0, 0, []string{"get", origin.URL + "/small"}, 0, "saved /"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, before := range []int{1, 23, 40} {
				s := &display{t: t, rows: []string{""}}
				for k := range before {
					s.write(fmt.Sprintf("earlier line %d\r\n", k))
				}
				out, exit := onTerminal(t, c.rows, c.columns, nil, c.args...)
				if exit != c.exit {
					t.Fatalf("exit %d, want %d: %q", exit, c.exit, out)
				}
				s.write(string(out))
				rows := s.shown()
				for k := range before {
					if want := fmt.Sprintf("earlier line %d", k); rows[k] != want {
						t.Fatalf("row %d is %q, was %q; the program wrote %q", k, rows[k], want, out)
					}
				}
				if len(rows) <= before || !strings.HasPrefix(rows[before], c.says) {
					t.Errorf("no %q below the earlier lines: %q; the program wrote %q", c.says, rows[before:], out)
				}
				if last := rows[len(rows)-1]; last != "" || s.col != 0 {
					t.Errorf("the shell's prompt would stand behind %q", last)
				}
			}
		})
	}
}

// A terminal that does not know its size shows progress as one of the usual size.
func TestBlock_isDrawnWithoutASize(t *testing.T) {
	t.Parallel()
	if underRace {
		t.Skip("the program is run without the race detector: go test ./cmd/dragonload")
	}
	shown := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "200000")
		w.Header().Set("ETag", `"v1"`)
		_, _ = w.Write(make([]byte, 100000))
		w.(http.Flusher).Flush()
		select {
		case <-shown:
			_, _ = w.Write(make([]byte, 100000))
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(origin.Close)
	seen := false
	out, exit := onTerminal(t, 0, 0, func(written []byte) {
		if !seen && bytes.Contains(written, []byte("left")) {
			seen = true
			close(shown)
		}
	}, "get", origin.URL+"/file")
	if exit != 0 || !seen {
		t.Fatalf("exit %d: %q", exit, out)
	}
	s := &display{t: t, rows: []string{""}}
	s.write(string(out))
	if rows := s.shown(); len(rows) < 2 || !strings.HasPrefix(rows[0], "saved /") {
		t.Errorf("after the download the terminal shows %q", rows)
	}
}
