// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"provost/proto"
)

type nodeRmOptions struct {
	reason string
	yes    bool
}

func nodeRmCommand(s *session) *cobra.Command {
	var o nodeRmOptions
	cmd := &cobra.Command{
		Use:   "rm NODES",
		Short: "forget nodes, with their history and logs",
		Long: `Rm makes provost forget nodes, with the history and the logs of their installs.
The machines themselves are left alone. Who removed a node, when and why stays:
provost history NODE. Booted nodes are asked about.`,
		Args: arguments(1, 1, "say which nodes to remove"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runNodeRm(cmd.Context(), s, cmd, o, args[0])
		},
		ValidArgsFunction: s.completeNodes,
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "`WHY`, for those who ask later")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask, however many nodes")
	help(cmd, "provost node rm n1 --reason \"sold\"\nprovost node rm n[001-100] --yes", exitOrders)
	return cmd
}

func runNodeRm(ctx context.Context, s *session, cmd *cobra.Command, o nodeRmOptions, expr string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	t, err := resolve(ctx, cl, expr)
	if err != nil {
		return err
	}
	if err := s.confirm(cmd, t, o.yes, true, "removes"); err != nil {
		return err
	}
	if err := cl.RemoveNodes(ctx, t.set, proto.Removal{Reason: o.reason}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Stdout, "removed: %s\n", t)
	return err
}
