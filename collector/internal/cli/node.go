// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"provost/proto"
)

func nodeCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "add, import, list, show, change and remove nodes",
		Long:  `Node keeps the list of the machines that provost knows.`,
	}
	help(cmd, `provost node add n1 --mac 52:54:00:00:00:01 --profile compute
provost node list -w profile==compute
provost node show n1 -o yaml
provost node set n[001-100] --group +rack1
provost node import nodes.csv --dry-run
provost node rm n1`, exitUsual)
	cmd.AddCommand(nodeAddCommand(s), nodeListCommand(s), nodeShowCommand(s), nodeRenderCommand(s), nodeSetCommand(s), nodeRmCommand(s),
		nodeRenameCommand(s), nodeAdoptCommand(s), nodeImportCommand(s))
	return group(cmd)
}

// spec is what an operator said of a node.
func spec(n *proto.Node) proto.NodeSpec {
	return proto.NodeSpec{Name: n.Name, MACs: n.MACs, IP: n.IP, Serial: n.Serial, Profile: n.Profile, Groups: n.Groups, Attrs: n.Attrs,
		Protected: n.Protected}
}

// nodeFile is nodes in the form in which they can be written into a file and read again.
type nodeFile struct {
	Nodes []proto.NodeSpec `yaml:"nodes"`
}

// attributes reads K=V arguments. An empty value is allowed and means what the caller says.
func attributes(cmd *cobra.Command, args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			return nil, usage(cmd, "--attr %q: write KEY=VALUE", a)
		}
		if err := proto.CheckAttr(k, v); err != nil {
			return nil, usage(cmd, "%v", err)
		}
		out[k] = v
	}
	return out, nil
}
