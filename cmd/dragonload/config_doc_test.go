package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// docs/configuration.md lists each table with each of its keys, in the order of the help.
func TestConfig_isDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var tables int
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if keys := keyNames(cmd); len(keys) > 0 && cmd.HasParent() {
			tables++
			row := "| `[" + strings.ReplaceAll(commandPath(cmd), " ", ".") + "]` | `" + strings.ReplaceAll(strings.Join(keys, "` `"), "-", "_") + "` |\n"
			if !strings.Contains(string(text), row) {
				t.Errorf("docs/configuration.md lacks the row\n%s", row)
			}
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRoot(streams{out: io.Discard, err: io.Discard}))
	if rows := strings.Count(string(text), "\n| `["); rows != tables {
		t.Errorf("docs/configuration.md has %d tables, the program %d", rows, tables)
	}
}
