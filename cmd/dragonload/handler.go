package main

import (
	"strings"
)

// What is written for each system so that links lead here. None of it passes a link
// through a shell as text: Linux and Windows start the program with the link as one
// argument, on macOS it is checked and quoted.

// desktopEntry is the file of the Desktop Entry Specification (1.5) that opens links with
// a command line; %u, as an argument of its own, is the link.
func desktopEntry(command []string) string {
	var words []string
	for _, word := range command {
		words = append(words, desktopQuoted(word))
	}
	return `[Desktop Entry]
Type=Application
Name=dragonload
Comment=Opens dragon:// links, after asking
Exec=` + strings.Join(words, " ") + ` %u
Terminal=true
NoDisplay=true
MimeType=` + linkType + `;
`
}

// linkType is the type that links have on Linux.
const linkType = "x-scheme-handler/dragon"

// desktopQuoted quotes an argument of Exec: in quotation marks some characters have a
// backslash before them, a per cent sign is doubled, and then every backslash is doubled,
// as in every string of the file.
func desktopQuoted(arg string) string {
	quoted := strings.NewReplacer(`"`, `\"`, "`", "\\`", `$`, `\$`, `\`, `\\`, `%`, `%%`).Replace(arg)
	return `"` + strings.ReplaceAll(quoted, `\`, `\\`) + `"`
}

// withoutDefault returns a mimeapps.list without the choice of a desktop file for links.
func withoutDefault(list, desktopFile string) string {
	var kept []string
	for line := range strings.Lines(list) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.TrimSpace(key) != linkType {
			kept = append(kept, line)
			continue
		}
		var others []string
		for one := range strings.SplitSeq(value, ";") {
			if one = strings.TrimSpace(one); one != "" && one != desktopFile {
				others = append(others, one)
			}
		}
		if len(others) > 0 {
			kept = append(kept, linkType+"="+strings.Join(others, ";")+";\n")
		}
	}
	return strings.Join(kept, "")
}

// appleScript is the program of the macOS application: links come to it as events, and it
// has Terminal run the command. A link with any other character than those of links is
// dropped, for Terminal is typed to.
func appleScript(command []string) string {
	var words []string
	for _, word := range command {
		words = append(words, appleQuoted(posixQuoted(word)))
	}
	return `on open location theLink
	set allowed to "` + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~:/?#[]@&+,=%" + `"
	considering case, diacriticals
		repeat with one in (characters of theLink)
			if allowed does not contain (one as text) then return
		end repeat
	end considering
	tell application "Terminal"
		activate
		do script ` + strings.Join(words, ` & " " & `) + ` & " " & quoted form of theLink
	end tell
end open location
`
}

// appleQuoted writes text as AppleScript does.
func appleQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// posixQuoted writes an argument for a POSIX shell.
func posixQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// windowsCommand is the command of a registry key; %1 is the link. The system puts it in
// as it is: one that has a quotation mark gets into further arguments, none of which is
// a flag, so that the command refuses them.
func windowsCommand(command []string) string {
	var words []string
	for _, word := range command {
		words = append(words, windowsQuoted(word))
	}
	return strings.Join(words, " ") + ` "%1"`
}

// windowsQuoted quotes an argument as CommandLineToArgv reads it; names of files have no
// quotation marks there, and backslashes count only before one.
func windowsQuoted(arg string) string {
	if arg != "" && !strings.ContainsAny(arg, " \t%") {
		return arg
	}
	trailing := len(arg) - len(strings.TrimRight(arg, `\`))
	return `"` + arg + strings.Repeat(`\`, trailing) + `"`
}
