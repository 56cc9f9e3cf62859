// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"provost/proto"
)

// reportWait bounds the delivery of a report where no other process delivers: it must not slow an installer down. For tests it
// is as variable as flushWait.
var reportWait = 3 * time.Second

func reportCommand() command {
	return command{
		name: "report", args: "STAGE [--failed] [-m TEXT]",
		summary: "record that the install has reached a stage",
		help: `
STAGE is one of the stages of the node's sequence, like packages-started, or a
name of your own. With --failed it says that the installer failed before that
stage. The record is in the journal when the command returns; it is delivered by
"watch", or where none runs by this command, which tries for at most 3 seconds.

Inside a step it writes to $PROVOST_STATUS instead. There a failure is said by
the step's exit status.

Examples:
  provost-agent report packages-started
  provost-agent report packages-done --failed -m "rpm database is damaged"

Exit status: 0 recorded, 1 not recorded, 64 wrong usage.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.flags(f)
			failed := f.Bool("failed", false, "the installer failed before this stage")
			message := f.String("m", "", "`TEXT` to go with it")
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return usage("report: give one stage")
				}
				if err := proto.CheckName("stage", args[0]); err != nil {
					return usage("report: %w", err)
				}
				if status := os.Getenv("PROVOST_STATUS"); status != "" {
					if *failed {
						return usage("report: a step fails by its exit status, not by --failed")
					}
					return reportInStep(status, args[0], *message)
				}
				return doReport(ctx, c, s, proto.Event{
					Kind: proto.KindStage, Stage: args[0], Failed: *failed, Message: proto.Clip(*message, proto.MaxMessage),
				})
			}
		},
	}
}

// reportInStep tells the agent outside of the chroot.
func reportInStep(status, stage, message string) error {
	f, err := os.OpenFile(status, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("reporting from a step: %w", err)
	}
	defer f.Close()
	text := "stage=" + stage + "\n"
	if message != "" {
		text = "message=" + strings.Join(strings.Fields(message), " ") + "\n" + text
	}
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("reporting from a step: %w", err)
	}
	return f.Close()
}

func doReport(ctx context.Context, c common, s *streams, e proto.Event) error {
	a, err := c.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	if e.Failed {
		e.Cause = proto.CauseInstaller
	}
	if _, err := a.journal.Append(e); err != nil {
		return fmt.Errorf("recording stage %s: %w", e.Stage, err)
	}
	if !a.reports() || a.watched() {
		return nil
	}
	if _, err := a.background(ctx); err != nil {
		a.tell("recorded; not delivered now: %v", err)
		return nil
	}
	a.flush(ctx, reportWait, false)
	return nil
}
