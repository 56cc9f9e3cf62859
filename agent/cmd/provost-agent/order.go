// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"time"

	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

func orderCommands() []command {
	var out []command
	for _, o := range []struct {
		verb          proto.Verb
		args, summary string
		help          string
	}{
		{proto.VerbHold, "[-m REASON]", "stop before the next step and wait", `
The running step is not touched. "release" goes on. It can be said before a run.

Examples:
  provost-agent hold -m "looking at the disks"
`},
		{proto.VerbRetry, "[STEP] [-m REASON]", "run the failed step again, then go on", `
Examples:
  provost-agent retry
  provost-agent retry ntp -m "the server is back"
`},
		{proto.VerbSkip, "[STEP] [-m REASON]", "go on after the failed step, with a warning", `
Examples:
  provost-agent skip ntp -m "not needed here"
`},
		{proto.VerbRelease, "[-m REASON]", "end a hold; a failed run then ends as failed", `
Examples:
  provost-agent release
`},
		{proto.VerbAbort, "[-m REASON]", "end the running step and the plan", `
Examples:
  provost-agent abort -m "wrong disks"
`},
		{proto.VerbForce, "STEP|all [-m REASON]", "run a step again though it is done", `
It counts for the run that goes on, before its next step; "provost-agent run --force"
is for one that begins.

Examples:
  provost-agent force ntp
`},
	} {
		withStep := o.verb == proto.VerbRetry || o.verb == proto.VerbSkip || o.verb == proto.VerbForce
		out = append(out, command{
			name: string(o.verb), args: o.args, summary: o.summary,
			help: o.help + `
Exit status: 0 the order is placed; the run takes it within seconds, and
"provost-agent status" shows it. 1 nothing runs here, 64 wrong usage.`,
			setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
				var c common
				c.stateFlag(f)
				reason := f.String("m", "", "`REASON` that is kept in the journal")
				return func(_ context.Context, args []string) error {
					order := proto.Order{ID: proto.NewID(time.Now()), Verb: o.verb, Actor: "local", Reason: proto.Clip(*reason, 512)}
					if withStep && len(args) == 1 {
						if err := proto.CheckName("step", args[0]); err != nil {
							return usage("%s: %w", o.verb, err)
						}
						order.Step = args[0]
					} else if len(args) == 0 && o.verb == proto.VerbForce {
						return usage("force: give a step, or all")
					} else if len(args) > 0 {
						return usage("%s: unexpected argument %q", o.verb, args[0])
					}
					if err := c.onState(askWait, func() error { return place(c.dir(), order) }); err != nil {
						return fmt.Errorf("placing the order: %w", err)
					}
					_, err := fmt.Fprintf(s.out, "%s is ordered\n", order.Verb)
					return err
				}
			},
		})
	}
	return out
}

// place puts an order where the run of this machine finds it.
func place(dir report.Dir, o proto.Order) error {
	if _, err := os.Stat(string(dir)); err != nil {
		return fmt.Errorf("no agent has run with this state directory: %w", err)
	}
	state, err := steps.ReadState(string(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if o.Verb != proto.VerbHold && !state.Alive {
		return errors.New("no steps run here at the moment: start provost-agent run again to go on after the last step that is done")
	}
	return steps.WriteOrder(string(dir), o)
}
