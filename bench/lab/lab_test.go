// Package lab runs a few scenarios of the network laboratory with the real binary:
// hosts in network namespaces, shaped links, a real nginx. It asserts what must hold
// at any speed; how fast it went is for lab.py itself (see ../README.md).
package lab

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// result is what lab.py prints of one round.
type result struct {
	Finished   int     `json:"finished"`
	Failed     []int   `json:"failed"`
	Wrong      []int   `json:"wrong"`
	Gone       []int   `json:"gone"`
	BodyCopies float64 `json:"origin_body_copies"`
	PeakRSS    int     `json:"peak_rss_mib"`
}

func TestLab_roomsEndWithTheRightFile(t *testing.T) {
	bin := build(t)
	for _, c := range []struct {
		name, scenario string
		finished       int
		copies         float64 // of body bytes that the origin may send
	}{
		{"three members", `{"hosts": [{"wan":40,"lan_up":400,"lan_down":400}, {"wan":40,"lan_up":400,"lan_down":400}, {"wan":10,"lan_up":400,"lan_down":400}], "origin_up": 2000, "size_mib": 12}`, 3, 1.02},
		{"a member dies", `{"hosts": [{"wan":20,"lan_up":400,"lan_down":400}, {"wan":20,"lan_up":400,"lan_down":400}, {"wan":20,"lan_up":400,"lan_down":400}], "origin_up": 2000, "size_mib": 24, "events": [{"at": 1.5, "do": "kill9", "host": 2}]}`, 2, 1.15},
		{"the tracker's host dies", `{"hosts": [{"wan":20,"lan_up":400,"lan_down":400}, {"wan":20,"lan_up":400,"lan_down":400}, {"wan":20,"lan_up":400,"lan_down":400}], "origin_up": 2000, "size_mib": 24, "events": [{"at": 1.5, "do": "kill9", "host": 0}]}`, 2, 1.15},
		{"a member dies and comes back", `{"hosts": [{"wan":20,"lan_up":400,"lan_down":400}, {"wan":20,"lan_up":400,"lan_down":400}, {"wan":20,"lan_up":400,"lan_down":400}], "origin_up": 2000, "size_mib": 24, "events": [{"at": 1.5, "do": "kill9", "host": 2}, {"at": 2.0, "do": "restart", "host": 2}]}`, 3, 1.15},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "scenario.json")
			if err := os.WriteFile(file, []byte(c.scenario), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), python(), "lab.py", "run", file, "ours", "--limit", "90")
			cmd.Env = append(os.Environ(), "LAB_BIN="+bin, "LAB_TAG=dlt", "LAB_DIR="+filepath.Join(t.TempDir(), "lab"))
			out, _ := cmd.CombinedOutput() // its exit code says less than what it prints
			_, text, found := strings.Cut(string(out), "round 1: ")
			var r result
			if err := json.Unmarshal([]byte(strings.ReplaceAll(strings.TrimSpace(text), "NaN", "null")), &r); !found || err != nil {
				t.Fatalf("lab.py: %v\n%s", err, out)
			}
			t.Logf("%s", text)
			if r.Finished != c.finished || len(r.Failed) > 0 || len(r.Wrong) > 0 {
				t.Errorf("%d of %d finished, failed %v, wrong %v", r.Finished, c.finished, r.Failed, r.Wrong)
			}
			if r.BodyCopies > c.copies {
				t.Errorf("the origin sent %.3f copies, at most %.2f were to be", r.BodyCopies, c.copies)
			}
			if r.PeakRSS > 150 {
				t.Errorf("a member took %d MiB, at most 150 were to be", r.PeakRSS)
			}
		})
	}
}

func python() string {
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		return "/usr/bin/python3"
	}
	return "python3"
}

// build makes the binary, or skips where there can be no lab.
func build(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("SKIP: the lab needs Linux and root, for network namespaces")
	}
	for _, tool := range []string{"ip", "tc", "nginx", "curl", "openssl", python()} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP: the lab needs %s (Debian: iproute2 nginx-light curl openssl python3)", tool)
		}
	}
	if out, err := exec.Command("ip", "netns", "add", "dlt-probe").CombinedOutput(); err != nil {
		t.Skipf("SKIP: network namespaces cannot be made here: %s", strings.TrimSpace(string(out)))
	}
	exec.Command("ip", "netns", "del", "dlt-probe").Run() // made a moment ago
	bin := filepath.Join(t.TempDir(), "dragonload")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/dragonload").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}
