// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"provost/proto"
)

func nodeRenameCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "give a node another name",
		Long: `Rename gives a node another name. Its installs, logs and history stay its own.
While an install of it is under way, rename is refused.`,
		Args: arguments(2, 2, "give the old and the new name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				if err := oneNode(cmd, a); err != nil {
					return err
				}
			}
			return runNodeRename(cmd.Context(), s, args[0], args[1])
		},
		ValidArgsFunction: s.completeNodes,
	}
	help(cmd, "provost node rename n1 login1", exitOrders)
	return cmd
}

func runNodeRename(ctx context.Context, s *session, old, name string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := cl.RenameNode(ctx, old, name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Stdout, "%s is now %s\n", clean(old), clean(n.Name))
	return err
}

// adoptable finds the machine among those that are only discovered.
func adoptable(nodes []proto.Node, mac string) *proto.Node {
	for i := range nodes {
		for _, m := range nodes[i].MACs {
			if m == mac && nodes[i].Status == proto.StatusDiscovered {
				return &nodes[i]
			}
		}
	}
	return nil
}
