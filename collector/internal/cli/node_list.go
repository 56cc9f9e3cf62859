// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

type nodeListOptions struct {
	where  []string
	output string
}

func (o *nodeListOptions) addFlags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.where, "where", "w", nil, "only where `KEY==VALUE` (or KEY!=VALUE); repeat: all must hold")
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table, json, yaml or name")
}

func nodeListCommand(s *session) *cobra.Command {
	var o nodeListOptions
	cmd := &cobra.Command{
		Use:   "list [NODES]",
		Short: "the nodes that there are",
		Long: `List shows the nodes, or those of a node set. Keys of --where are name, status,
profile, group, mac, ip, serial, label, boot, and attr.NAME for an attribute;
of group and mac, any one must match.

-o yaml is an inventory: what was said of the nodes, without their status.`,
		Args: arguments(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "table", "json", "yaml", "name"); err != nil {
				return err
			}
			var filters []filter
			for _, w := range o.where {
				f, err := parseFilter(cmd, w)
				if err != nil {
					return err
				}
				filters = append(filters, f)
			}
			return runNodeList(cmd.Context(), s, o, filters, strings.Join(args, ""))
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "table", "json", "yaml", "name")
	help(cmd, `provost node list
provost node list @rack1 -w status!=booted
provost node list -w attr.role==login -o name
provost node list -o yaml > nodes.yaml`, exitUsual)
	return cmd
}

// filter is one KEY==VALUE.
type filter struct {
	key, value string
	not        bool
}

var filterKeys = []string{"name", "status", "profile", "group", "mac", "ip", "serial", "label", "boot"}

func parseFilter(cmd *cobra.Command, s string) (filter, error) {
	k, v, ok := strings.Cut(s, "==")
	f := filter{key: k, value: v}
	if !ok {
		if k, v, ok = strings.Cut(s, "!="); !ok {
			return f, usage(cmd, "--where %q: write KEY==VALUE or KEY!=VALUE", s)
		}
		f = filter{key: k, value: v, not: true}
	}
	if !slices.Contains(filterKeys, f.key) && !strings.HasPrefix(f.key, "attr.") {
		return f, usage(cmd, "--where key %q: use %s or attr.NAME", f.key, strings.Join(filterKeys, ", "))
	}
	if f.key == "mac" {
		m, err := proto.NormalMAC(f.value)
		if err != nil {
			return f, usage(cmd, "--where: %v", err)
		}
		f.value = m
	}
	return f, nil
}

func (f filter) match(n *proto.Node) bool { return slices.Contains(f.values(n), f.value) != f.not }

func (f filter) values(n *proto.Node) []string {
	switch f.key {
	case "name":
		return []string{n.Name}
	case "status":
		return []string{string(n.Status)}
	case "profile":
		return []string{n.Profile}
	case "group":
		return n.Groups
	case "mac":
		return n.MACs
	case "ip":
		return []string{n.IP}
	case "serial":
		return []string{n.Serial}
	case "label":
		return []string{n.Label}
	case "boot":
		return []string{string(n.BootAction)}
	}
	return []string{n.Attrs[strings.TrimPrefix(f.key, "attr.")]}
}

func runNodeList(ctx context.Context, s *session, o nodeListOptions, filters []filter, expr string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.Nodes(ctx, client.Query{Nodes: expr})
	if err != nil {
		return err
	}
	list.Nodes = slices.DeleteFunc(list.Nodes, func(n proto.Node) bool {
		return slices.ContainsFunc(filters, func(f filter) bool { return !f.match(&n) })
	})
	out := bufio.NewWriter(s.Stdout)
	switch o.output {
	case "json":
		if list.Nodes == nil {
			list.Nodes = []proto.Node{}
		}
		err = writeJSON(out, list)
	case "yaml":
		err = writeInventory(out, list.Nodes)
	case "name":
		for _, n := range list.Nodes {
			out.WriteString(clean(n.Name) + "\n")
		}
	default:
		if len(list.Nodes) == 0 && (len(filters) > 0 || expr != "") {
			out.WriteString("no node is like that\n")
			break
		}
		writeNodeTable(out, s.screen(s.Stdout), list.Nodes)
	}
	if err != nil {
		return err
	}
	return flush(out)
}

func writeInventory(out *bufio.Writer, nodes []proto.Node) error {
	inv := nodeFile{Nodes: []proto.NodeSpec{}}
	for i := range nodes {
		if nodes[i].Status != proto.StatusDiscovered { // nobody has said anything of it
			inv.Nodes = append(inv.Nodes, spec(&nodes[i]))
		}
	}
	return encodeYAML(out, inv)
}

func writeNodeTable(out *bufio.Writer, sc screen, nodes []proto.Node) {
	if len(nodes) == 0 {
		out.WriteString("no node; provost node add NAME --mac MAC adds one\n")
		return
	}
	cols := []column{{title: "NODE"}, {title: "MAC", min: 17}, {title: "IP", min: 15}, {title: "PROFILE", min: 8}, {title: "GROUPS", min: 8},
		{title: "STATUS", min: 8}}
	writeTable(out, sc, min(sc.width, defaultWidth), cols, len(nodes), func(i int, cs []cell) []string {
		n := &nodes[i]
		mac := ""
		if len(n.MACs) > 0 {
			mac = n.MACs[0]
		}
		if len(n.MACs) > 1 {
			mac += " …"
		}
		cs[0], cs[1], cs[2], cs[3] = cell{text: clean(n.Name)}, cell{text: clean(mac)}, cell{text: clean(n.IP)}, cell{text: clean(n.Profile)}
		cs[4], cs[5] = cell{text: clean(strings.Join(n.Groups, ","))}, cell{clean(string(n.Status)), statusColour(string(n.Status))}
		return nil
	})
}
