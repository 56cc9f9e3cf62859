// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"provost/collector/internal/client"
	"provost/proto"
)

func completionCommand(s *session) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	cmd := &cobra.Command{
		Use:   "completion SHELL",
		Short: "write the completion script of a shell",
		Long: `Completion writes the script that makes bash, zsh or fish complete provost's
commands, flags, and the names of your nodes and profiles.`,
		Args:      arguments(1, 1, "say for which shell: bash, zsh or fish"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			var b bytes.Buffer
			var err error
			switch args[0] {
			case "bash":
				err = cmd.Root().GenBashCompletionV2(&b, true)
			case "zsh":
				err = cmd.Root().GenZshCompletion(&b)
			case "fish":
				err = cmd.Root().GenFishCompletion(&b, true)
			default:
				return usage(cmd, "shell %q: use bash, zsh or fish", args[0])
			}
			if err == nil {
				_, err = s.Stdout.Write(b.Bytes())
			}
			if err != nil {
				return fmt.Errorf("writing completion: %w", err)
			}
			return nil
		},
	}
	help(cmd, `provost completion bash > /etc/bash_completion.d/provost
provost completion zsh > "${fpath[1]}/_provost"
provost completion fish > ~/.config/fish/completions/provost.fish`, `0   done
64  usage: the shell is unknown`)
	return cmd
}

// completeLimit is how long a user who pressed TAB is kept waiting for the collector.
const completeLimit = 2 * time.Second

// complete offers fixed words for a flag.
func complete(cmd *cobra.Command, flag string, words ...string) {
	cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeNodes offers node names for the first argument. Without a collector it offers nothing and says nothing.
func (s *session) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completeFrom(cmd, func(ctx context.Context, cl *client.Client) (out []string, err error) {
		body, err := cl.Status(ctx, client.Query{})
		if err != nil {
			return nil, err
		}
		defer body.Close()
		_, err = client.DecodeNodes(body, func(n *proto.Node) { out = append(out, n.Name) })
		return out, err
	})
}

// completeProfiles offers the names of profiles.
func (s *session) completeProfiles(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return s.completeFrom(cmd, func(ctx context.Context, cl *client.Client) (out []string, err error) {
		list, err := cl.Profiles(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range list.Profiles {
			out = append(out, p.Name)
		}
		return out, nil
	})
}

func (s *session) completeFrom(cmd *cobra.Command, ask func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
	defer cancel()
	cl, err := s.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	words, err := ask(ctx, cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for i := range words {
		words[i] = clean(words[i])
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
