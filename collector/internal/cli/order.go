// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

// verb is an order to the agents of nodes.
type verb struct {
	proto.Verb
	step     string // how the step stands in the usage line; empty if the order takes none
	needed   bool   // the step
	short    string
	long     string
	examples string
	told     string // said after the order was taken
}

var verbs = []verb{
	{proto.VerbRetry, " [STEP]", false, "run the failed step again, then go on", `Retry ends the hold of nodes whose install failed: the failed step runs again,
and then what comes after it. It takes the scripts as they are on the frontend
now, for this step and all that is not done yet, and says what is new in the
plan; --same-plan takes those that the install began with.

--wait then waits as provost status --wait does, shows how it went, and ends
with its exit status: 1 if a node failed, also one that refused the order, and
2 if it took longer than --timeout.`,
		"provost retry n007\nprovost retry '%failed' --reason \"repository is back\"\nprovost retry n007 --wait --timeout 30m\nprovost retry n007 otherpkgs --same-plan", "the failed step runs again, then what comes after it"},
	{proto.VerbSkip, " [STEP]", false, "go on after the failed step, with a warning", `Skip ends the hold of nodes whose install failed: the failed step counts as
skipped and what comes after it runs. The node keeps a warning.`,
		"provost skip n007\nprovost skip n[001-010] otherpkgs --reason \"not needed here\"", "the install goes on without the step, and keeps a warning"},
	{proto.VerbRelease, "", false, "end the hold; a failed install stays failed", `Release ends a hold. The install of a node that failed stays failed, and its
installer gets a non-zero status; what it does then is its own matter. A node
that an operator held goes on.`,
		"provost release n007", "the hold ends; what failed stays failed"},
	{proto.VerbHold, "", false, "stop before the next step and wait", `Hold lets the running step end and then waits for an order before the next one.
The node stays up. Release makes it go on.`,
		"provost hold n007 --reason \"look at the disks first\"", "they stop before the next step; provost release makes them go on"},
	{proto.VerbAbort, "", false, "end the running step and the install", `Abort ends the running step (TERM, then KILL) and with it the install, which is
then failed(abort).`,
		"provost abort n007\nprovost abort @rack1 --reason \"wrong profile\"", "the running step is ended, and the install with it"},
	{proto.VerbForce, " STEP|all", true, "forget that a step had succeeded", `Force makes a step that would be passed over (run: once, run: on-change) run
again at its next turn, or all of them. What is running is not disturbed.`,
		"provost force n007 timesync\nprovost force @all all --yes", "what was done before counts as not done, from the next run on"},
}

type verbOptions struct {
	reason, output string
	yes            bool
	samePlan, wait bool // of retry
	timeout        time.Duration
}

func (o *verbOptions) addFlags(f *pflag.FlagSet, v verb) {
	if v.Verb == proto.VerbRetry {
		f.BoolVar(&o.samePlan, "same-plan", false, "with the scripts and settings that the install has, not those of now")
		f.BoolVar(&o.wait, "wait", false, "return when every install has ended")
		f.DurationVar(&o.timeout, "timeout", defaultWait, "with --wait: give up after `D`")
		f.Lookup("timeout").DefValue = "24h"
	}
	f.StringVar(&o.reason, "reason", "", "`WHY`, for those who ask later")
	f.BoolVar(&o.yes, "yes", false, "do not ask, however many nodes")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
}

func verbCommand(s *session, v verb) *cobra.Command {
	var o verbOptions
	least, most, missing := 1, 1, "say which nodes to "+string(v.Verb)
	if v.step != "" {
		most = 2
	}
	if v.needed {
		least, missing = 2, "say which nodes, and which step (or all)"
	}
	cmd := &cobra.Command{
		Use:   string(v.Verb) + " NODES" + v.step,
		Short: v.short,
		Long: v.long + `

The agent takes an order at its next heartbeat: within 10 s while it waits,
within 30 s otherwise.`,
		Args: arguments(least, most, missing),
		RunE: func(cmd *cobra.Command, args []string) error {
			order := proto.NodeOrder{Reason: o.reason, SamePlan: o.samePlan}
			if len(args) > 1 {
				order.Step = args[1]
				if err := proto.CheckName("step", order.Step); err != nil {
					return usage(cmd, "%v", err)
				}
			}
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			switch {
			case o.wait && o.timeout <= 0:
				return usage(cmd, "--timeout %s: use a duration above zero, like 90m", o.timeout)
			case !o.wait && v.Verb == proto.VerbRetry && cmd.Flags().Changed("timeout"):
				return usage(cmd, "--timeout bounds --wait: add --wait")
			}
			return runVerb(cmd.Context(), s, cmd, v, o, args[0], order)
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags(), v)
	complete(cmd, "output", "text", "json")
	exits := exitOrders
	if v.Verb == proto.VerbRetry {
		exits = exitRetry
	}
	help(cmd, v.examples, exits)
	return cmd
}

func runVerb(ctx context.Context, s *session, cmd *cobra.Command, v verb, o verbOptions, expr string, order proto.NodeOrder) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	t, err := resolve(ctx, cl, expr)
	if err != nil {
		return err
	}
	if err := s.confirm(cmd, t, o.yes, false, "orders "+string(v.Verb)+" for"); err != nil {
		return err
	}
	list, err := cl.Order(ctx, t.set, v.Verb, order)
	if err != nil {
		return err
	}
	if o.output == "json" && !o.wait { // else the one document is the status at the end
		return writeJSON(s.Stdout, list)
	}
	if o.output != "json" {
		fmt.Fprintf(s.Stdout, "%s ordered: %s\n", v.Verb, t)
		fmt.Fprintf(s.Stdout, "%s\n", v.told)
		writePlanChanges(s, list.PlanChanges)
	}
	if !o.wait {
		return nil
	}
	show := statusOptions{output: "table", wait: true, timeout: o.timeout}
	if o.output == "json" {
		show.output = "json"
	}
	return statusOf(ctx, s, cl, show, client.Query{Nodes: t.set})
}

// writePlanChanges says what is new in the plans that a retry brought, a line or more for all nodes of which it is the same.
func writePlanChanges(s *session, changes []proto.PlanChange) {
	for _, d := range changes {
		line := "new plan of " + nodeset.Fold(d.Nodes) + ": " + d.String()
		for i, l := range wrap(clean(line), defaultWidth-4) {
			fmt.Fprintf(s.Stdout, "%s%s\n", strings.Repeat(" ", 2*min(i, 1)), l)
		}
	}
}

// checkOutput refuses a -o that the command does not know.
func checkOutput(cmd *cobra.Command, got string, known ...string) error {
	list := ""
	for i, k := range known {
		if k == got {
			return nil
		}
		if i > 0 {
			list += ", "
		}
		list += k
	}
	return usage(cmd, "-o %q: use %s", got, list)
}
