package main

import (
	"slices"
	"strings"
	"testing"
)

// desktopArgs reads an Exec line as the Desktop Entry Specification says: the string's
// escapes first, then the quoting of arguments.
func desktopArgs(t *testing.T, exec string) (args []string) {
	t.Helper()
	var unescaped strings.Builder
	for k := 0; k < len(exec); k++ {
		if exec[k] == '\\' {
			if k++; k == len(exec) || exec[k] != '\\' {
				t.Fatalf("a lone backslash in %s", exec)
			}
		}
		unescaped.WriteByte(exec[k])
	}
	rest := unescaped.String()
	for rest != "" {
		if rest[0] != '"' {
			word, after, _ := strings.Cut(rest, " ")
			args, rest = append(args, word), after
			continue
		}
		var arg strings.Builder
		k := 1
		for ; rest[k] != '"'; k++ {
			if strings.IndexByte("`$", rest[k]) >= 0 {
				t.Fatalf("an unescaped %c in %s", rest[k], rest)
			}
			if rest[k] == '\\' {
				k++
			}
			arg.WriteByte(rest[k])
		}
		args = append(args, strings.ReplaceAll(arg.String(), "%%", "%"))
		rest = strings.TrimPrefix(rest[k+1:], " ")
	}
	return args
}

func TestDesktopEntry_startsTheProgramWithTheLinkAsOneArgument(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"/home/ann/Downloads", "/a b", `/"q"`, "/$HOME", "/`id`", `/back\slash`, `/\\$\"`, "/100%u", "/--yes", "/ü"} {
		entry := desktopEntry(openCommand("/opt/my apps/dragonload", dir))
		_, exec, _ := strings.Cut(entry, "\nExec=")
		exec, _, _ = strings.Cut(exec, "\n")
		want := []string{"/opt/my apps/dragonload", "open", "--hold", "--dir", dir, "--", "%u"}
		if got := desktopArgs(t, exec); !slices.Equal(got, want) {
			t.Errorf("%s\nis read as %q\nwant       %q", exec, got, want)
		}
	}
}

func TestAppleScript_quotesForTheScriptAndForTheShell(t *testing.T) {
	t.Parallel()
	script := appleScript(openCommand(`/Users/ann o'hara/"bin"/dragonload`, `/back\slash`))
	for _, want := range []string{
		`do script "'/Users/ann o'\\''hara/\"bin\"/dragonload'" & " " & "'open'" & " " & "'--hold'" & " " & "'--dir'" & " " & "'/back\\slash'" & " " & "'--'" & " " & quoted form of theLink` + "\n",
		`if allowed does not contain (one as text) then return`,
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the script has no %s:\n%s", want, script)
		}
	}
	_, allowed, _ := strings.Cut(script, `set allowed to "`)
	allowed, _, _ = strings.Cut(allowed, `"`)
	if strings.ContainsAny(allowed, "'`$\\\";|<>(){}!*^ \n") {
		t.Errorf("Terminal is typed one of %q", allowed)
	}
	// Every link of ours is let through.
	for _, c := range "abcXYZ019.-_~:/?#[]@&+,=%" {
		if !strings.ContainsRune(allowed, c) {
			t.Errorf("a link with %c is not opened", c)
		}
	}
}

func TestWindowsCommand(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]string{
		`C:\Users\ann\Downloads`: `"C:\Program Files\dragonload.exe" open --hold --dir C:\Users\ann\Downloads -- "%1"`,
		`C:\Users\ann o\`:        `"C:\Program Files\dragonload.exe" open --hold --dir "C:\Users\ann o\\" -- "%1"`,
		`C:\100%\x`:              `"C:\Program Files\dragonload.exe" open --hold --dir "C:\100%\x" -- "%1"`,
	} {
		if got := windowsCommand(openCommand(`C:\Program Files\dragonload.exe`, dir)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestOpen_takesNoFlagFromALink: on Windows a link with a quotation mark becomes several
// arguments. Behind the two dashes none of them is a flag, and open takes one.
func TestOpen_takesNoFlagFromALink(t *testing.T) {
	t.Setenv("DRAGONLOAD_STATE_DIR", t.TempDir())
	t.Setenv("DRAGONLOAD_CONFIG", "")
	var out, errs strings.Builder
	args := append(openCommand("dragonload", t.TempDir())[1:], "dragon://h:1/get?url=http%3A%2F%2Fx%2F", "--yes", "")
	err := execute(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs})
	if codeOf(err) != exitUsage || !strings.Contains(err.Error(), "takes one link") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutDefault(t *testing.T) {
	t.Parallel()
	for before, want := range map[string]string{
		"": "",
		"[Default Applications]\nx-scheme-handler/dragon=" + "ours.desktop\n":       "[Default Applications]\n",
		"x-scheme-handler/dragon = ours.desktop;other.desktop\ntext/x=ours.desktop": "x-scheme-handler/dragon=other.desktop;\ntext/x=ours.desktop",
		"x-scheme-handler/dragonfly=ours.desktop\n":                                 "x-scheme-handler/dragonfly=ours.desktop\n",
	} {
		if got := withoutDefault(before, "ours.desktop"); got != want {
			t.Errorf("%q becomes %q, want %q", before, got, want)
		}
	}
}
