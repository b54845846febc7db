package main

import (
	"github.com/spf13/cobra"
)

func newCompletion(std streams) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "print the completion script of a shell",
		Long: `Prints a script that completes commands and flags.

  bash:        dragonload completion bash > /etc/bash_completion.d/dragonload
  zsh:         dragonload completion zsh > "${fpath[1]}/_dragonload"
  fish:        dragonload completion fish > ~/.config/fish/completions/dragonload.fish
  powershell:  dragonload completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: shells,
		Args:      exactArgs("the name of a shell: bash, zsh, fish or powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(std.out, true)
			case "zsh":
				return root.GenZshCompletion(std.out)
			case "fish":
				return root.GenFishCompletion(std.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(std.out)
			}
			near := nearest(args[0], shells)
			if near == "" {
				near = "bash"
			}
			return usagef("no completion for the shell %q%s", args[0], didYouMean("", near))
		},
	}
}
