// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

type bootOptions struct {
	reason, output string
	yes            bool
}

func (o *bootOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.reason, "reason", "", "`WHY`, for those who ask later")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table, json or yaml")
}

func bootCommand(s *session) *cobra.Command {
	var o bootOptions
	cmd := &cobra.Command{
		Use:   "boot NODES [ACTION]",
		Short: "show or set what nodes get when they network-boot",
		Long: `Boot shows the boot action of nodes, or sets it:

  install   the installer
  disk      the system on the disk
  netboot   its system over the network (kind: diskless)
  block     a screen that says why, and what to type
  rescue    the kernel and initrds of its profile, without anything that
            installs: no answer file, no step; reach it by SSH with keys that
            mkinitrd --rescue-keys put into the overlay

provost install orders an install and sets the action by itself; the collector
sets it to disk when the installer is done. A rescue lasts until you set
another action. Booted nodes are asked about, unless they keep their disk.`,
		Args: arguments(1, 2, "say which nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "table", "json", "yaml"); err != nil {
				return err
			}
			action := proto.BootAction("")
			if len(args) > 1 {
				var err error
				if action, err = proto.ParseBootAction(args[1]); err != nil {
					return usage(cmd, "%v", err)
				}
			}
			return runBoot(cmd.Context(), s, cmd, o, args[0], action)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
			if len(args) != 1 {
				return s.completeNodes(cmd, args, begin)
			}
			var words []string
			for _, a := range proto.BootActions {
				words = append(words, string(a))
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "table", "json", "yaml")
	help(cmd, `provost boot @rack1
provost boot n007 disk --reason "its disk is good"
provost boot n[001-100] block --yes
provost boot n007 rescue --reason "look at its disk"`, exitOrders)
	return cmd
}

func runBoot(ctx context.Context, s *session, cmd *cobra.Command, o bootOptions, expr string, action proto.BootAction) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var list *proto.NodeList
	var set target
	if action == "" {
		list, err = cl.Nodes(ctx, client.Query{Nodes: expr})
	} else {
		list, set, err = setBoot(ctx, s, cl, cmd, o, expr, action)
	}
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, list)
	case "yaml":
		return writeYAMLOf(s.Stdout, list)
	}
	if len(set.nodes) > manyNodes { // as an order to so many is answered
		fmt.Fprintf(s.Stdout, "boot action %s: %s\n", action, set)
		return nil
	}
	cols := []column{{title: "NODE"}, {title: "ACTION", min: 7}, {title: "STATUS", min: 20}}
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	writeTable(out, sc, min(sc.width, defaultWidth), cols, len(list.Nodes), func(i int, cs []cell) []string {
		n := &list.Nodes[i]
		cs[0], cs[1], cs[2] = cell{text: clean(n.Name)}, cell{text: clean(string(n.BootAction))}, cell{clean(n.Summary), statusColour(string(n.Status))}
		return nil
	})
	return flush(out)
}

func setBoot(ctx context.Context, s *session, cl *client.Client, cmd *cobra.Command, o bootOptions, expr string, action proto.BootAction) (*proto.NodeList, target, error) {
	t, err := resolve(ctx, cl, expr)
	if err != nil {
		return nil, t, err
	}
	doing := fmt.Sprintf("sets the boot action %s for", action)
	// With any action but disk a booted node does not come up again by itself at its next boot.
	if err := s.confirm(cmd, t, o.yes, action != proto.BootDisk, doing); err != nil {
		return nil, t, err
	}
	list, err := cl.SetBoot(ctx, t.set, proto.NodeOrder{Action: action, Reason: o.reason})
	return list, t, err
}
