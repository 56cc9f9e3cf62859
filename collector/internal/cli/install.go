// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/proto"
)

type installOptions struct {
	profile, label, reason string
	within                 time.Duration
	withinSet              bool
	nextBoot, yes          bool
	output                 string
}

func (o *installOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.profile, "profile", "", "install with this `PROFILE` instead of the nodes' own")
	f.StringVar(&o.label, "label", "", "a `LABEL` to find these installs by: status --label")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for those who ask later")
	f.DurationVar(&o.within, "within", 15*time.Minute, "time `D` for the first sign of life, else stalled")
	f.Lookup("within").DefValue = "15m"
	f.BoolVar(&o.nextBoot, "next-boot", false, "no limit for it: they install whenever they boot next")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
}

func installCommand(s *session) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use: "install NODES", Aliases: []string{"reinstall"},
		Short: "order an install at the next network boot",
		Long: `Install orders one install of each node: at its next network boot the node gets
the installer, once. Its disks are written anew. The plan is fixed now, with
all its scripts; later changes of the profile do not touch it.

Provost does not switch power: reset the nodes, or power them on. A newer order
supersedes an older one. Orders for more than 20 nodes, or for booted ones, ask
for the number of nodes; scripts add --yes.`,
		Args: arguments(1, 1, "say which nodes to install"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.withinSet = cmd.Flags().Changed("within")
			switch {
			case o.withinSet && o.nextBoot:
				return usage(cmd, "--within sets a limit and --next-boot takes it away: use one of them")
			case o.within <= 0:
				return usage(cmd, "--within %s: use a duration above zero, like 15m", o.within)
			}
			for what, v := range map[string]string{"profile": o.profile, "label": o.label} {
				if v == "" {
					continue
				}
				if err := proto.CheckName(what, v); err != nil {
					return usage(cmd, "%v", err)
				}
			}
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			return runInstall(cmd.Context(), s, cmd, o, args[0])
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "text", "json")
	cmd.RegisterFlagCompletionFunc("profile", s.completeProfiles)
	help(cmd, `provost install n007
provost install n[001-100] --profile compute --label nightly --yes
provost install @rack1 --next-boot --reason "new disks"
provost install n1 && provost status n1 --wait`, exitOrders)
	return cmd
}

func runInstall(ctx context.Context, s *session, cmd *cobra.Command, o installOptions, expr string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	t, err := resolve(ctx, cl, expr)
	if err != nil {
		return err
	}
	if err := s.confirm(cmd, t, o.yes, true, "wipes and installs"); err != nil {
		return err
	}
	order := proto.InstallOrder{Profile: o.profile, Label: o.label, Reason: o.reason, NextBoot: o.nextBoot}
	if o.withinSet {
		w := proto.Duration(o.within)
		order.Within = &w
	}
	list, err := cl.OrderInstall(ctx, t.set, order)
	if err != nil {
		return err
	}
	if o.output == "json" {
		return writeJSON(s.Stdout, list)
	}
	limit := "within " + proto.Duration(o.within).String()
	if o.nextBoot {
		limit = "whenever you like"
	}
	fmt.Fprintf(s.Stdout, "install ordered: %s\n", t)
	if len(list.Nodes) <= manyFailures {
		for _, n := range list.Nodes {
			fmt.Fprintf(s.Stdout, "  %s  install %d, %s\n", clean(n.Name), n.Ordinal, clean(n.Install))
		}
	}
	what := "them"
	if len(t.nodes) == 1 {
		what = "it"
	}
	_, err = fmt.Fprintf(s.Stdout, "now reset %s or power %s on, %s; then\n  provost status %s --wait\n", what, what, limit, quoteSet(t.set))
	return err
}

// quoteSet makes a node set fit for a shell, where brackets are patterns.
func quoteSet(set string) string {
	for _, r := range set {
		if r == '[' || r == '!' || r == '&' {
			return "'" + clean(set) + "'"
		}
	}
	return clean(set)
}
