// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"provost/proto"
)

type versionOptions struct{ output string }

func versionCommand(s *session) *cobra.Command {
	var o versionOptions
	cmd := &cobra.Command{
		Use:   "version",
		Short: "the version of provost, and of the collector",
		Long: `Version prints the version of this program and, when it answers within 2 s, that
of the collector.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			return runVersion(cmd.Context(), s, o)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
	complete(cmd, "output", "text", "json")
	help(cmd, "provost version\nprovost version -o json", `0   done, whether the collector answered or not
64  usage: the command line makes no sense
78  configuration: --server, --ca or --token-file`)
	return cmd
}

// versionLimit bounds the wait for the collector, which is only asked in passing.
const versionLimit = 2 * time.Second

func runVersion(ctx context.Context, s *session, o versionOptions) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	theirs, err := cl.Version(ctx)
	if o.output == "json" {
		doc := struct {
			Schema    int    `json:"schema"`
			Version   string `json:"version"`
			Server    string `json:"server"`
			Collector string `json:"collector,omitempty"` // absent: no answer
		}{proto.Schema, s.Version, cl.Server(), theirs.Version}
		return writeJSON(s.Stdout, doc)
	}
	fmt.Fprintf(s.Stdout, "provost   %s\n", s.Version)
	if err != nil {
		_, err = fmt.Fprintf(s.Stdout, "provostd  no answer at %s\n", clean(cl.Server()))
	} else {
		_, err = fmt.Fprintf(s.Stdout, "provostd  %s at %s\n", clean(theirs.Version), clean(cl.Server()))
	}
	return err
}
