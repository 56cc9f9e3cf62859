// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/proto"
)

type nodeAddOptions struct {
	spec  proto.NodeSpec
	attrs []string
}

func (o *nodeAddOptions) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.spec.MACs, "mac", nil, "Ethernet address `MAC`; repeat for more than one port")
	f.StringVar(&o.spec.IP, "ip", "", "`ADDRESS` of the node")
	f.StringVar(&o.spec.Serial, "serial", "", "serial number `S`")
	f.StringVar(&o.spec.Profile, "profile", "", "how it is installed: `PROFILE`")
	f.StringSliceVar(&o.spec.Groups, "group", nil, "a `GROUP` it is in; repeat for more")
	f.StringArrayVar(&o.attrs, "attr", nil, "an attribute `K=V`, which steps see as PROVOST_ATTR_K")
}

func nodeAddCommand(s *session) *cobra.Command {
	var o nodeAddOptions
	cmd := &cobra.Command{
		Use:   "add NAME --mac MAC",
		Short: "add a node",
		Long: `Add makes a node known. Its MAC address is how it is recognised when it boots
from the network. Nothing happens to it until an install is ordered.`,
		Args: arguments(1, 1, "give the new node's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.spec.Name = args[0]
			if len(o.spec.MACs) == 0 {
				return usage(cmd, "node %s without --mac: it would never be recognised", args[0])
			}
			var err error
			if o.spec.Attrs, err = attributes(cmd, o.attrs); err != nil {
				return err
			}
			if err := o.spec.Check(); err != nil {
				return usage(cmd, "%v", err)
			}
			return runNodeAdd(cmd.Context(), s, o.spec)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.addFlags(cmd.Flags())
	cmd.RegisterFlagCompletionFunc("profile", s.completeProfiles)
	help(cmd, `provost node add n1 --mac 52:54:00:00:00:01 --profile compute
provost node add n2 --mac 52-54-00-00-00-02 --ip 10.0.0.2 \
    --group rack1 --attr role=login`, exitAdd)
	return cmd
}

func runNodeAdd(ctx context.Context, s *session, spec proto.NodeSpec) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	n, err := cl.AddNode(ctx, spec)
	if err != nil {
		return err
	}
	return sayAdded(s, n, "added")
}

// sayAdded says that there is a new node, and what to type next.
func sayAdded(s *session, n *proto.Node, how string) error {
	name := clean(n.Name)
	fmt.Fprintf(s.Stdout, "%s %s: %s\n", name, how, clean(strings.Join(n.MACs, " ")))
	if n.Profile == "" {
		fmt.Fprintf(s.Stdout, "it has no profile yet: provost node set %s --profile PROFILE\n", name)
	} else {
		fmt.Fprintf(s.Stdout, "to install it with profile %s: provost install %s\n", clean(n.Profile), name)
	}
	return nil
}
