// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

type nodeAdoptOptions struct {
	ip, profile string
	groups      []string
	attrs       []string
}

func (o *nodeAdoptOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.ip, "ip", "", "`ADDRESS` of the node")
	f.StringVar(&o.profile, "profile", "", "how it is installed: `PROFILE`")
	f.StringSliceVar(&o.groups, "group", nil, "a `GROUP` it is in; repeat for more")
	f.StringArrayVar(&o.attrs, "attr", nil, "an attribute `K=V`, which steps see as PROVOST_ATTR_K")
}

func nodeAdoptCommand(s *session) *cobra.Command {
	var o nodeAdoptOptions
	cmd := &cobra.Command{
		Use:   "adopt MAC NAME",
		Short: "make a discovered machine a node",
		Long: `Adopt makes a node of a machine that was seen and that nobody has added, with
all its addresses and its serial number. provost status %discovered lists them.`,
		Args: arguments(2, 2, "give one of the machine's MAC addresses, and the name that it shall have"),
		RunE: func(cmd *cobra.Command, args []string) error {
			mac, err := proto.NormalMAC(args[0])
			if err != nil {
				return usage(cmd, "%v", err)
			}
			if err := oneNode(cmd, args[1]); err != nil {
				return err
			}
			attrs, err := attributes(cmd, o.attrs)
			if err != nil {
				return err
			}
			spec := proto.NodeSpec{Name: args[1], MACs: []string{mac}, IP: o.ip, Profile: o.profile, Groups: o.groups, Attrs: attrs}
			if err := spec.Check(); err != nil {
				return usage(cmd, "%v", err)
			}
			return runNodeAdopt(cmd.Context(), s, cmd, spec)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.addFlags(cmd.Flags())
	cmd.RegisterFlagCompletionFunc("profile", s.completeProfiles)
	help(cmd, `provost node adopt 52:54:00:00:00:01 n1
provost node adopt 52-54-00-00-00-02 n2 --profile compute --group rack1`, exitAdd)
	return cmd
}

// runNodeAdopt adds the machine that has the spec's only MAC. Adding fails if somebody was faster.
func runNodeAdopt(ctx context.Context, s *session, cmd *cobra.Command, spec proto.NodeSpec) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.Nodes(ctx, client.Query{Nodes: "%" + string(proto.StatusDiscovered)})
	if err != nil {
		return err
	}
	seen := adoptable(list.Nodes, spec.MACs[0])
	if seen == nil {
		return &usageError{text: fmt.Sprintf("no machine with the address %s was discovered", spec.MACs[0]), cmd: cmd,
			hint: fmt.Sprintf("`provost status %%discovered` lists them; `provost node add %s --mac %s` adds one unseen", spec.Name, spec.MACs[0])}
	}
	spec.MACs, spec.Serial = seen.MACs, seen.Serial
	n, err := cl.AddNode(ctx, spec)
	if err != nil {
		return err
	}
	return sayAdded(s, n, "adopted")
}
