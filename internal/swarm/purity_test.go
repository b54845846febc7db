package swarm_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPurity_noIONoClockNoGoroutine reads the sources of piece and swarm, and of every
// package of this module that they reach, and refuses whatever would make a decision
// depend on something but its events.
func TestPurity_noIONoClockNoGoroutine(t *testing.T) {
	t.Parallel()
	badImports := map[string]string{
		"os": "files and the environment", "net": "the network", "sync": "locks: a machine has one driver", "sync/atomic": "shared memory",
		"context": "waiting", "log": "output", "log/slog": "output", "io/fs": "files", "syscall": "the system", "unsafe": "memory",
		"net/http": "the network", "math/rand": "global randomness", "crypto/rand": "global randomness", "runtime": "the scheduler",
	}
	badCalls := map[string]map[string]bool{
		"time": {"Now": true, "Since": true, "Until": true, "After": true, "AfterFunc": true, "NewTimer": true, "NewTicker": true, "Tick": true, "Sleep": true},
		// Package-level functions of math/rand/v2 draw from a global generator.
		"rand": {"Int": true, "IntN": true, "Int32": true, "Int32N": true, "Int64": true, "Int64N": true, "Uint32": true, "Uint32N": true, "Uint64": true, "Uint64N": true, "Float64": true, "N": true, "Perm": true, "Shuffle": true},
	}
	seen := map[string]bool{}
	queue := []string{"piece", "swarm"}
	files := 0
	for len(queue) > 0 {
		pkg := queue[0]
		queue = queue[1:]
		if seen[pkg] {
			continue
		}
		seen[pkg] = true
		set := token.NewFileSet()
		dir := filepath.Join("..", pkg)
		pkgs, err := parser.ParseDir(set, dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // one directory without build tags
		if err != nil {
			t.Fatalf("read the sources of %s: %v", pkg, err)
		}
		for _, p := range pkgs {
			for name, file := range p.Files {
				files++
				for _, imp := range file.Imports {
					path, _ := strconv.Unquote(imp.Path.Value)
					if why, bad := badImports[path]; bad {
						t.Errorf("%s imports %s: %s", name, path, why)
					}
					if rest, ours := strings.CutPrefix(path, "dragonload/internal/"); ours {
						queue = append(queue, rest)
					}
				}
				ast.Inspect(file, func(n ast.Node) bool {
					at := func() token.Position { return set.Position(n.Pos()) }
					switch n := n.(type) {
					case *ast.GoStmt:
						t.Errorf("%v: a go statement", at())
					case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
						t.Errorf("%v: a channel", at())
					case *ast.SelectorExpr:
						if x, ok := n.X.(*ast.Ident); ok && x.Obj == nil && badCalls[x.Name][n.Sel.Name] {
							t.Errorf("%v: %s.%s", at(), x.Name, n.Sel.Name)
						}
					}
					return true
				})
			}
		}
	}
	if _, err := os.Stat(filepath.Join("..", "swarm", "node.go")); err != nil || files < 10 {
		t.Fatalf("only %d files were read: the check looks in the wrong place", files)
	}
}
