// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// What most commands may end with, as their help says it.
const (
	exitUsual = `0   done
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`
	exitAdd = `0   done
1   refused: the name or a MAC is taken
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`
	exitRetry = `0   the order was taken; with --wait: no node is failed or stalled
1   the order was refused: the nodes are not in a state for it; or, with
    --wait, a node failed or stalled
2   with --wait: not finished within --timeout
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`
	exitOrders = `0   the order was taken
1   the order was refused: the nodes are not in a state for it
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`
)

const exitKey = "exit-status"

// help gives a command its examples, without indentation, and its exit statuses.
func help(cmd *cobra.Command, examples, exits string) {
	cmd.Example = examples
	cmd.Annotations = map[string]string{exitKey: exits}
	cmd.DisableFlagsInUseLine = true
}

// writeHelp writes a command's help: what it does, its flags, then, always last, examples and exit status.
func writeHelp(cmd *cobra.Command) {
	var b strings.Builder
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	b.WriteString(strings.TrimSpace(text) + "\n\nUsage:\n")
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "  also: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	writeCommands(&b, cmd)
	flags := func(title, usages string) {
		if usages != "" {
			fmt.Fprintf(&b, "\n%s:\n%s", title, usages)
		}
	}
	flags("Flags", cmd.LocalFlags().FlagUsagesWrapped(defaultWidth))
	flags("The collector", cmd.InheritedFlags().FlagUsagesWrapped(defaultWidth))
	section := func(title, lines string) {
		fmt.Fprintf(&b, "\n%s:\n", title)
		for l := range strings.SplitSeq(lines, "\n") {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	section("Examples", cmd.Example)
	section("Exit status", cmd.Annotations[exitKey])
	fmt.Fprint(cmd.OutOrStdout(), b.String())
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	list := func(title, id string) {
		for _, c := range cmd.Commands() {
			if c.GroupID == id && c.IsAvailableCommand() {
				if title != "" {
					fmt.Fprintf(b, "\n%s\n", title)
					title = ""
				}
				fmt.Fprintf(b, "  %-11s %s\n", c.Name(), c.Short)
			}
		}
	}
	for _, g := range cmd.Groups() {
		list(g.Title, g.ID)
	}
	title := "Commands:"
	if len(cmd.Groups()) > 0 {
		title = "Other:"
	}
	list(title, "")
}

// helpCommand is for those who type help first: the same as --help.
func helpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "help [COMMAND]", Short: "the help of a command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), strings.Join(args, " "))
			}
			writeHelp(of)
			return nil
		},
	}
	help(cmd, "provost help install", "0   done\n64  usage: there is no such command")
	return cmd
}
