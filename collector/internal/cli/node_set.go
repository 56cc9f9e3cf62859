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

type nodeSetOptions struct {
	macs, groups, attrs []string
	ip, serial, profile string
	yes                 bool
	protect, unprotect  bool
}

func (o *nodeSetOptions) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.macs, "mac", nil, "`MAC` addresses instead of those it has (one node)")
	f.StringVar(&o.ip, "ip", "", "`ADDRESS`; empty removes it (one node)")
	f.StringVar(&o.serial, "serial", "", "serial number `S`; empty removes it (one node)")
	f.StringVar(&o.profile, "profile", "", "how they are installed: `PROFILE`; empty for none")
	f.StringSliceVar(&o.groups, "group", nil, "`±GROUP`: +rack1 puts them in, -rack1 takes them out")
	f.StringArrayVar(&o.attrs, "attr", nil, "attribute `K=V`; K= removes it")
	f.BoolVar(&o.protect, "protect", false, "refuse to install or remove them")
	f.BoolVar(&o.unprotect, "unprotect", false, "allow it again")
	f.BoolVar(&o.yes, "yes", false, "do not ask, however many nodes")
}

func nodeSetCommand(s *session) *cobra.Command {
	var o nodeSetOptions
	cmd := &cobra.Command{
		Use:   "set NODES",
		Short: "change nodes",
		Long: `Set changes what is known of nodes. An install that is under way keeps the plan
that it was ordered with. Protected nodes refuse install, boot install and node
rm, until they are unprotected.`,
		Args: arguments(1, 1, "say which nodes to change"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := o.patch(cmd)
			if err != nil {
				return err
			}
			return runNodeSet(cmd.Context(), s, cmd, o, args[0], patch)
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	cmd.RegisterFlagCompletionFunc("profile", s.completeProfiles)
	help(cmd, `provost node set n[001-100] --profile compute --yes
provost node set n1 --mac 52:54:00:00:00:01 --group -rack1 --group +rack2
provost node set @rack1 --attr ntp=10.0.0.1
provost node set login[1-2] --protect`, exitAdd)
	return cmd
}

func (o *nodeSetOptions) patch(cmd *cobra.Command) (proto.NodePatch, error) {
	var p proto.NodePatch
	if cmd.Flags().Changed("mac") {
		for i, m := range o.macs {
			n, err := proto.NormalMAC(m)
			if err != nil {
				return p, usage(cmd, "%v", err)
			}
			o.macs[i] = n
		}
		p.MACs = &o.macs
	}
	some := len(o.groups) > 0 || len(o.attrs) > 0 || p.MACs != nil
	for name, f := range map[string]struct {
		from *string
		to   **string
	}{"ip": {&o.ip, &p.IP}, "serial": {&o.serial, &p.Serial}, "profile": {&o.profile, &p.Profile}} {
		if cmd.Flags().Changed(name) {
			*f.to = f.from
			some = true
		}
	}
	switch {
	case o.protect && o.unprotect:
		return p, usage(cmd, "--protect and --unprotect exclude each other")
	case o.protect || o.unprotect:
		p.Protected = &o.protect
	case !some:
		return p, usage(cmd, "nothing to change: give --mac, --ip, --serial, --profile, --group, --attr, --protect or --unprotect")
	}
	for _, g := range o.groups {
		switch {
		case strings.HasPrefix(g, "+"):
			p.AddGroups = append(p.AddGroups, g[1:])
		case strings.HasPrefix(g, "-"):
			p.RemoveGroups = append(p.RemoveGroups, g[1:])
		default:
			return p, usage(cmd, "--group %q: write +%s or -%s", g, g, g)
		}
	}
	attrs, err := attributes(cmd, o.attrs)
	if err != nil {
		return p, err
	}
	for k, v := range attrs {
		if p.Attrs == nil {
			p.Attrs = map[string]*string{}
		}
		p.Attrs[k] = nil
		if v != "" {
			p.Attrs[k] = &v
		}
	}
	if err := p.Check(); err != nil {
		return p, usage(cmd, "%v", err)
	}
	return p, nil
}

func runNodeSet(ctx context.Context, s *session, cmd *cobra.Command, o nodeSetOptions, expr string, patch proto.NodePatch) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	t, err := resolve(ctx, cl, expr)
	if err != nil {
		return err
	}
	if len(t.nodes) > 1 && (patch.MACs != nil || patch.IP != nil || patch.Serial != nil) {
		return usage(cmd, "--mac, --ip and --serial belong to one node, and %s is %s", expr, count(len(t.nodes), "node"))
	}
	if err := s.confirm(cmd, t, o.yes, false, "changes"); err != nil {
		return err
	}
	if _, err := cl.PatchNodes(ctx, t.set, patch); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Stdout, "changed: %s\n", t)
	return err
}
