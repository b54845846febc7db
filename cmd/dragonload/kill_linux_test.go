package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Row 1 of the fault table, on the program itself: it is killed at its n-th write, sync
// or rename, and the next run makes the file whole and fetches no byte that is kept. The
// calls are counted for each of its threads.
func TestFault01KilledAtTheNthCall(t *testing.T) {
	t.Parallel()
	if underRace {
		t.Skip("the program is killed without the race detector: go test ./cmd/dragonload")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: nobody kills the program at its n-th call")
	}
	if out, err := exec.Command(strace, "-f", "-qq", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here (%v): %s", err, out)
	}
	program, err := exec.LookPath("dragonload")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	for k := range len(data) / 4096 {
		copy(data[k*4096:], fmt.Sprint(k))
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(origin.Close)

	calls := []struct {
		name  string
		at    []int
		limit string // of the rate, so that batches are recorded on the way
	}{
		{"pwrite64", []int{1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32}, "2M"},
		{"fdatasync", []int{1, 2, 3, 4, 5, 6, 7, 8}, "2M"},
		{"fsync", []int{1, 2, 3}, "2M"},
		{"ftruncate", []int{1, 2}, "2M"},
		{"renameat2", []int{1}, "0"},
	}
	slots := make(chan struct{}, 6) // they wait for the rate, not for the processor
	killed := make(chan string, 100)
	t.Run("calls", func(t *testing.T) {
		for _, call := range calls {
			for _, n := range call.at {
				t.Run(fmt.Sprintf("%s %d", call.name, n), func(t *testing.T) {
					t.Parallel()
					slots <- struct{}{}
					defer func() { <-slots }()
					k := &killing{t: t, program: program, dir: t.TempDir(), url: origin.URL + "/file.bin", data: data}
					inject := fmt.Sprintf("inject=%s:signal=KILL:when=%d", call.name, n)
					if k.run(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call.name, "-e", inject, program, "get", "--json", "--limit-rate", call.limit, k.url) {
						killed <- call.name
					}
					k.whole()
				})
			}
		}
	})
	close(killed)
	count := make(map[string]int)
	for name := range killed {
		count[name]++
	}
	if count["pwrite64"] < 4 || count["fdatasync"] < 2 || count["renameat2"] != 1 {
		t.Errorf("killed at so many calls: %v", count)
	}
}

// killing is one download that is killed and made whole.
type killing struct {
	t       *testing.T
	program string
	dir     string
	url     string
	data    []byte
}

func (k *killing) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(k.t.Context(), name, args...)
	cmd.Dir = k.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + k.dir, "DRAGONLOAD_STATE_DIR=" + filepath.Join(k.dir, "state")}
	return cmd
}

// run reports whether the program was killed; else it must have ended well.
func (k *killing) run(name string, args ...string) bool {
	cmd := k.command(name, args...)
	out, err := cmd.CombinedOutput()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGKILL, status.ExitStatus() == 128+int(syscall.SIGKILL):
		return true
	case err != nil:
		k.t.Fatalf("the first run: %v\n%s", err, out)
	}
	return false
}

// whole looks at what is there, and lets the next run make it whole.
func (k *killing) whole() {
	final := filepath.Join(k.dir, "file.bin")
	if got, err := os.ReadFile(final); err == nil {
		if !bytes.Equal(got, k.data) {
			k.t.Error("the final name has wrong bytes")
		}
		return
	}
	out, err := k.command(k.program, "get", "--json", k.url).Output()
	if err != nil {
		k.t.Fatalf("the next run: %v\n%s", err, out)
	}
	if got, err := os.ReadFile(final); err != nil || !bytes.Equal(got, k.data) {
		k.t.Fatalf("the next run left wrong bytes (%v)", err)
	}
	if _, err := os.Lstat(final + ".part"); err == nil {
		k.t.Error("the partial file is left")
	}
	var resumed, fetched int64
	for line := range bytes.Lines(out) {
		var ev struct {
			Event       string
			Resumed     int64
			OriginBytes int64 `json:"origin_bytes"`
		}
		if err := json.Unmarshal(line, &ev); err != nil {
			k.t.Fatal(err)
		}
		switch ev.Event {
		case "start":
			resumed = ev.Resumed
		case "saved":
			fetched = ev.OriginBytes
		}
	}
	// The probe's first bytes may be known already.
	if bound := int64(len(k.data)) - resumed + 256<<10; fetched > bound {
		k.t.Errorf("%d bytes were kept, and %d fetched", resumed, fetched)
	}
	k.t.Logf("kept %d, fetched %d", resumed, fetched)
}
