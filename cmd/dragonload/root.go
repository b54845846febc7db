package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dragonload/internal/node"
)

const longHelp = `dragonload downloads one URL with a room of machines together: each machine
pulls a different part over its own line, and the parts are swapped between
them while they arrive.

  dragonload get URL                   download alone
  dragonload room create lab           make a room; prints the invite
  dragonload room join INVITE          on each other machine
  dragonload get --room lab URL        on all of them: together
  dragonload demo                      see it happen on this machine`

// execute carries out one command line.
func execute(ctx context.Context, args []string, std streams) error {
	if err := node.EnoughFiles(); err != nil {
		return err
	}
	if err := laterCommand(args); err != nil {
		return err
	}
	root := newRoot(std)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

func newRoot(std streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "dragonload",
		Short:         "download one file with a room of machines together",
		Long:          longHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          onlySubcommands,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return emptyFlag(cmd)
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetVersionTemplate("dragonload {{.Version}}\n")
	root.SetIn(std.in)
	root.SetOut(unheard{std.out})
	root.SetErr(std.err)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		newGet(std), newShare(std), newUnshare(std), newLs(std), newUp(std), newTracker(std), newRoom(std), newInspect(std), newExport(std), newOpen(std),
		newDemo(std), newSimulate(std), newVersion(std), newCompletion(std),
	)
	root.SetHelpCommand(newHelp())
	return root
}

// onlySubcommands is what a command does that only holds others.
func onlySubcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(parent *cobra.Command, word string) error {
	var names []string
	for _, c := range parent.Commands() {
		names = append(names, c.Name())
	}
	near := nearest(word, names)
	if near == "" {
		return usagef("%s has no command %q; see %s --help", parent.CommandPath(), word, parent.CommandPath())
	}
	return usagef("%s has no command %q%s", parent.CommandPath(), word, didYouMean(parent.CommandPath()+" ", near))
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "how to use a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := laterCommand(args); err != nil {
				return err
			}
			at := cmd.Root()
			for _, word := range args {
				i := slices.IndexFunc(at.Commands(), func(c *cobra.Command) bool { return c.Name() == word })
				if i < 0 {
					return unknownCommand(at, word)
				}
				at = at.Commands()[i]
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

// stringTypes are the types of flags that take any text.
var stringTypes = map[string]bool{"string": true, "stringArray": true, "stringSlice": true}

// emptyFlag finds a flag that was given without a value on the command line: most often a
// variable of a script that is not set.
func emptyFlag(cmd *cobra.Command) error {
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		empty := f.Value.String() == ""
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty = slices.Contains(list.GetSlice(), "")
		}
		if stringTypes[f.Value.Type()] && empty && err == nil {
			err = usagef("%s is empty; give it a value, or leave it out", flagName(f))
		}
	})
	return err
}

// exactArgs demands that a command gets just the named arguments.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s needs %s; see %s --help", cmd.CommandPath(), names[len(args)], cmd.CommandPath())
		}
		if len(args) > len(names) {
			return usagef("%s takes %s, and %q is too many", cmd.CommandPath(), counted(len(names), "argument"), args[len(names)])
		}
		return nil
	}
}

// foreignFlags are names that other download programs give to what a flag of ours
// does.
var foreignFlags = map[string]string{
	"out": "output", "output-document": "output", "O": "output", "directory-prefix": "dir", "P": "dir",
	"output-dir": "dir", "max-download-limit": "limit-rate", "max-overall-download-limit": "limit-rate",
	"max-upload-limit": "limit-upload", "max-connection-per-server": "max-connections", "split": "max-connections",
	"s": "max-connections", "k": "max-connections", "retry": "max-tries", "tries": "max-tries", "t": "timeout",
	"http-proxy": "proxy", "https-proxy": "proxy", "all-proxy": "proxy", "load-cookies": "cookies", "silent": "quiet",
	"ca-certificate": "cacert", "referer": "header", "A": "user-agent", "U": "user-agent", "n": "netrc",
	"allow-overwrite": "overwrite", "auto-file-renaming": "auto-rename", "connections": "max-connections",
}

// flagError turns what the flag parser found wrong into one sentence.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown.GetSpecifiedName())
	case errors.As(err, &missing):
		if f := missing.GetFlag(); f != nil {
			return usagef("%s needs a value: %s", flagName(f), f.Usage)
		}
	case errors.As(err, &invalid):
		if f := invalid.GetFlag(); f != nil {
			return usagef("bad value %q for %s: %w", invalid.GetValue(), flagName(f), plainFlagError(f, invalid.Unwrap()))
		}
	}
	return usagef("%w; see %s --help", err, cmd.CommandPath())
}

// plainFlagError says what a flag accepts where only a library's error says that a
// value is none.
func plainFlagError(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "bool":
		return errors.New("write true or false, or the flag alone for true")
	case "count":
		return errors.New("write a whole number, or the flag as often as is meant")
	case "uint64":
		return errors.New("write a whole number from 0 to 18446744073709551615")
	}
	return err
}

func flagName(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return fmt.Sprintf("-%s, --%s", f.Shorthand, f.Name)
	}
	return "--" + f.Name
}

func unknownFlag(cmd *cobra.Command, name string) error {
	if laterFlags[cmd.Name()][name] {
		return notYet("--" + name)
	}
	dashes := "--"
	if len(name) == 1 {
		dashes = "-"
	}
	near := foreignFlags[name]
	if near != "" && cmd.Flags().Lookup(near) == nil {
		near = ""
	}
	if near == "" && len(name) > 1 {
		near = nearest(name, append(flagNames(cmd), sortedKeys(laterFlags[cmd.Name()])...))
	}
	if near == "" {
		return usagef("%s has no flag %s%s; see %s --help", cmd.CommandPath(), dashes, name, cmd.CommandPath())
	}
	return usagef("%s has no flag %s%s%s", cmd.CommandPath(), dashes, name, didYouMean("--", near))
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}
