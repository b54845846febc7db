package dragonload

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var codeForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// TestMessages_listsEveryCode checks that docs/messages.md and the sources name the same
// codes, failures with the same exit codes.
func TestMessages_listsEveryCode(t *testing.T) {
	t.Parallel()
	failures, warnings, rows, derived := codesInSources(t)
	text, err := os.ReadFile("docs/messages.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## Failed")
	failed, warned, ok := strings.Cut(rest, "\n## Warnings")
	if !ok {
		t.Fatal("docs/messages.md has no sections Failed and Warnings")
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*) \\|")
	documented, heard := make(map[string]string), make(map[string]bool)
	for _, m := range row.FindAllStringSubmatch(failed, -1) {
		if _, twice := documented[m[1]]; twice {
			t.Errorf("docs/messages.md lists the failure %s twice", m[1])
		}
		documented[m[1]] = m[2]
	}
	for _, m := range row.FindAllStringSubmatch(warned, -1) {
		heard[m[1]] = true
	}
	if len(failures) < 30 || len(warnings) < 12 {
		t.Errorf("only %d failures and %d warnings found: the check looks in the wrong place", len(failures), len(warnings))
	}
	for _, code := range slices.Sorted(maps.Keys(failures)) {
		if got, ok := documented[code]; !ok {
			t.Errorf("the failure %s is not in docs/messages.md", code)
		} else if exit := failures[code]; got != exit {
			t.Errorf("docs/messages.md gives %s the exit code %s, the sources %s", code, got, exit)
		}
	}
	for _, exit := range slices.Sorted(maps.Keys(derived)) {
		if !slices.Contains(slices.Collect(maps.Values(rows)), exit) {
			t.Errorf("the commands fail with the exit code %s, for which the table codes has no code", exit)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(warnings)) {
		if !heard[code] {
			t.Errorf("the warning %s is not in docs/messages.md", code)
		}
	}
	for code := range documented {
		if _, ok := failures[code]; !ok {
			t.Errorf("docs/messages.md lists the failure %s, which nothing says", code)
		}
	}
	for code := range heard {
		// A pause has the code of the failure that it would have been.
		if _, fails := failures[code]; !warnings[code] && !fails {
			t.Errorf("docs/messages.md lists the warning %s, which nothing says", code)
		}
	}
}

// codesInSources finds every code that a failure has, with its exit code, and every
// code of a warning. A failure's code stands before its exit code, in a call or a
// literal, or in a literal's field Code, with Exit; a warning's is what warn is called
// with, or a constant of type WarnCode.
//
// A failure of a command that names no code of its own has the one that the table codes
// gives for its exit code: rows is that table, derived are the exit codes of such failures.
func codesInSources(t *testing.T) (failures map[string]string, warnings map[string]bool, rows map[string]string, derived map[string]bool) {
	failures, warnings = make(map[string]string), make(map[string]bool)
	rows, derived = make(map[string]string), map[string]bool{}
	exits := make(map[string]string)
	var files []*ast.File
	for _, dir := range []string{"cmd/dragonload", "internal/node", "internal/swarm"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
			ast.Inspect(f, func(n ast.Node) bool {
				if v, ok := n.(*ast.ValueSpec); ok {
					noteConstant(v, exits, warnings)
				}
				return true
			})
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if name := lastName(n.Fun); name == "warn" && len(n.Args) > 0 {
					if code, ok := codeOf(n.Args[0]); ok {
						warnings[code] = true
					}
				}
				if lastName(n.Fun) == "failf" && len(n.Args) > 0 && exits[lastName(n.Args[0])] != "" {
					derived[exits[lastName(n.Args[0])]] = true
				}
				noteFailures(n.Args, exits, failures)
			case *ast.ValueSpec:
				if list, ok := tableCodes(n); ok {
					for _, row := range list {
						noteFailures(row.(*ast.CompositeLit).Elts, exits, rows)
					}
				}
			case *ast.CompositeLit:
				noteFailures(n.Elts, exits, failures)
			}
			return true
		})
	}
	if len(rows) == 0 || len(derived) < 5 {
		t.Errorf("%d rows of the table codes and %d exit codes of commands found: the check looks in the wrong place", len(rows), len(derived))
	}
	return failures, warnings, rows, derived
}

// tableCodes returns the rows of the variable codes.
func tableCodes(v *ast.ValueSpec) ([]ast.Expr, bool) {
	if len(v.Names) != 1 || v.Names[0].Name != "codes" || len(v.Values) != 1 {
		return nil, false
	}
	lit, ok := v.Values[0].(*ast.CompositeLit)
	if !ok {
		return nil, false
	}
	return lit.Elts, true
}

// noteConstant takes in ExitX = 9 (or exitX) and WarnX WarnCode = "…".
func noteConstant(v *ast.ValueSpec, exits map[string]string, warnings map[string]bool) {
	for i, name := range v.Names {
		if i >= len(v.Values) {
			return
		}
		lit, ok := v.Values[i].(*ast.BasicLit)
		if !ok {
			continue
		}
		if lit.Kind == token.INT && strings.HasPrefix(strings.ToLower(name.Name), "exit") {
			exits[name.Name] = lit.Value
		}
		if code, ok := codeOf(lit); ok && v.Type != nil && lastName(v.Type) == "WarnCode" {
			warnings[code] = true
		}
	}
}

// noteFailures takes in "code", ExitX next to each other, and Code: "code", Exit: ExitX.
func noteFailures(list []ast.Expr, exits map[string]string, failures map[string]string) {
	var code, exit string
	for i, e := range list {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			switch lastName(kv.Key) {
			case "Code":
				code, _ = codeOf(kv.Value)
			case "Exit":
				exit = exits[lastName(kv.Value)]
			}
			continue
		}
		if c, ok := codeOf(e); ok && i+1 < len(list) {
			if x := exits[lastName(list[i+1])]; x != "" {
				failures[c] = x
			}
		}
	}
	if code != "" && exit != "" {
		failures[code] = exit
	}
}

// codeOf returns the code that an expression is literally.
func codeOf(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil && codeForm.MatchString(s)
}

// lastName returns the identifier that an expression ends with, through a conversion.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.CallExpr:
		if len(e.Args) == 1 {
			return lastName(e.Args[0])
		}
	}
	return ""
}
