package lab

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplicas kills the tracker that works on a pool, then a server of etcd, then all of
// etcd that makes a majority; replicas.py tells what it asserts itself.
func TestReplicas(t *testing.T) {
	bin := build(t)
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("SKIP: trackers on a cluster need etcd (Debian: etcd-server)")
	}
	cmd := exec.CommandContext(t.Context(), python(), "replicas.py", "--rounds", "1", "--members", "2", "--mib", "48", "--settle", "1", "--away", "5")
	cmd.Env = append(os.Environ(), "LAB_BIN="+bin, "LAB_TAG=dlr", "LAB_DIR="+filepath.Join(t.TempDir(), "lab"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("replicas.py: %v\n%s", err, out)
	}
	var r map[string]float64
	_, text, _ := strings.Cut(string(out), "round 1: ")
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("replicas.py: %v\n%s", err, out)
	}
	t.Logf("%s", text)
	// That there are times says that another owner was found, that joins went on and were
	// refused where they were to be; how long it took is for replicas.py itself.
	for _, name := range []string{"owned", "stood_owner", "stood_server", "stood_away", "joined", "refused", "back"} {
		if _, told := r[name]; !told {
			t.Errorf("nothing is told of %s", name)
		}
	}
	if r["copies"] < 1 || r["copies"] > 1.15 {
		t.Errorf("the origin sent %v copies, from 1 to 1.15 were to be", r["copies"])
	}
}
