// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

type reloadOptions struct{ output string }

func reloadCommand(s *session) *cobra.Command {
	var o reloadOptions
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "let the collector read its profiles and sequences anew",
		Long: `Reload makes the collector read the files of its configuration directory again,
and shows what is different. Everything is checked first: when a file is wrong,
nothing changes. Installs that are ordered keep what they were ordered with.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			return runReload(cmd.Context(), s, o)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
	complete(cmd, "output", "text", "json")
	help(cmd, "provost reload", exitUsual)
	return cmd
}

func runReload(ctx context.Context, s *session, o reloadOptions) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	a, err := cl.Reload(ctx)
	if err != nil {
		return err
	}
	if o.output == "json" {
		return writeJSON(s.Stdout, a)
	}
	out := bufio.NewWriter(s.Stdout)
	for _, part := range []struct {
		what  string
		names []string
	}{{"added", a.Added}, {"changed", a.Changed}, {"removed", a.Removed}} {
		for _, name := range part.names {
			fmt.Fprintf(out, "%s %s\n", pad(part.what, 8), clean(name))
		}
	}
	if len(a.Added)+len(a.Changed)+len(a.Removed) == 0 {
		out.WriteString("nothing changed\n")
	}
	fmt.Fprintf(out, "%d profiles in %s\n", a.Profiles, clean(a.ConfigDir))
	return flush(out)
}
