package main

import "strings"

// What the contract names and this version does not do is refused by name and never
// ignored: a script that asks for it must not go on as if it had been done.

// laterCommands are the commands that come with a later version.
var laterCommands = map[string]bool{
	"status": true, "pause": true, "resume": true, "rm": true,
	"top": true, "doctor": true,
}

// laterFlags are the flags that come with a later version, by command.
var laterFlags = map[string]map[string]bool{
	"get": {"start-at": true, "between": true},
}

func notYet(what string) error {
	return usagef("%s is not in this version yet; see dragonload help for what is", what)
}

// laterCommand returns an error if args ask for a command of a later version.
func laterCommand(args []string) error {
	for n := 1; n <= min(2, len(args)); n++ {
		if words := strings.Join(args[:n], " "); laterCommands[words] {
			return notYet("dragonload " + words)
		}
	}
	return nil
}
