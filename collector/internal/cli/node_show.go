// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/collector/internal/client"
	"provost/proto"
)

type nodeShowOptions struct{ output string }

func nodeShowCommand(s *session) *cobra.Command {
	var o nodeShowOptions
	cmd := &cobra.Command{
		Use:   "show NODES",
		Short: "all that is known of nodes",
		Long: `Show prints all that is known of nodes. -o yaml is an inventory: what was said
of them, without their status, as provost node import reads it.`,
		Args: arguments(1, 1, "say which nodes to show"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json", "yaml"); err != nil {
				return err
			}
			return runNodeShow(cmd.Context(), s, o, args[0])
		},
		ValidArgsFunction: s.completeNodes,
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text, json or yaml")
	complete(cmd, "output", "text", "json", "yaml")
	help(cmd, "provost node show n1\nprovost node show @rack1 -o yaml > rack1.yaml", exitUsual)
	return cmd
}

func runNodeShow(ctx context.Context, s *session, o nodeShowOptions, expr string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.Nodes(ctx, client.Query{Nodes: expr})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(s.Stdout)
	switch o.output {
	case "json":
		err = writeJSON(out, list)
	case "yaml":
		err = writeInventory(out, list.Nodes)
	default:
		for i := range list.Nodes {
			if i > 0 {
				out.WriteByte('\n')
			}
			showNode(out, s.screen(s.Stdout), &list.Nodes[i], s.Now())
		}
	}
	if err != nil {
		return err
	}
	return flush(out)
}

func showNode(out *bufio.Writer, sc screen, n *proto.Node, now time.Time) {
	field := func(name, format string, args ...any) {
		text := clean(fmt.Sprintf(format, args...))
		if text == "" {
			return
		}
		for _, l := range wrap(text, min(sc.width, defaultWidth)-13) {
			fmt.Fprintf(out, "%s %s\n", pad(name, 12), l)
			name = ""
		}
	}
	field("name", "%s", n.Name)
	field("status", "%s, %s", n.Summary, ago(n.Since, now))
	field("mac", "%s", strings.Join(n.MACs, " "))
	field("ip", "%s", n.IP)
	field("serial", "%s", n.Serial)
	field("profile", "%s", n.Profile)
	field("groups", "%s", strings.Join(n.Groups, " "))
	for _, k := range slices.Sorted(maps.Keys(n.Attrs)) {
		field("attr", "%s=%s", k, n.Attrs[k])
	}
	if n.Protected {
		field("protected", "yes: install and rm are refused")
	}
	field("boot action", "%s", n.BootAction)
	if n.Install != "" {
		field("install", "%d, %s, attempt %d", n.Ordinal, n.Install, n.Attempt)
	}
	for _, o := range n.Orders {
		field("ordered", "%s", strings.Join(strings.Fields(string(o.Verb)+" "+o.Step+" "+ago(o.Since, now)), " "))
	}
	field("label", "%s", n.Label)
	field("last seen", "%s", ago(n.LastSeen, now))
	for _, w := range n.Warnings {
		field("warning", "%s", w)
	}
}
