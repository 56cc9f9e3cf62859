// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

// fileDone in the state directory of an installed system says that its first boot is over and acknowledged.
const fileDone = "firstboot.done"

// fileAlone there says that its steps are done where no collector was known; one that is found later gets the journal.
const fileAlone = "firstboot.alone"

// errRestart ends a first boot that goes on after a restart.
var errRestart = errors.New("the first boot goes on after a restart")

func firstbootCommand() command {
	return command{
		name: "firstboot", args: "",
		summary: "on the installed system: run phase firstboot and deliver what is left",
		help: `
Started by a unit of the installed system at each boot. It says hello with the
token that the installer left, runs the steps of phase firstboot, and delivers
everything that the collector does not have yet, for as long as that takes. When
all is acknowledged it removes the token: from then on it does nothing.

Examples:
  provost-agent firstboot

Exit status: 0 done, now or before, 1 a step failed (and that is delivered),
64 wrong usage, 75 another run is going on, 78 a setting is wrong.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var o runOptions
			o.flags(f)
			o.Phase = proto.PhaseFirstboot
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return usage("firstboot: unexpected argument %q", args[0])
				}
				if o.state == "" {
					o.state = stateInstalled
				}
				return doFirstboot(ctx, o, s)
			}
		},
	}
}

func doFirstboot(ctx context.Context, o runOptions, s *streams) error {
	dir, over := report.Dir(o.state), false
	if err := o.onState(beginWait, func() error {
		over = exists(dir.Path(fileDone)) || exists(dir.Path(fileAlone)) && !o.knowsCollector(dir)
		return nil
	}); err != nil || over {
		return err
	}
	a, err := o.open(s, proto.EnvInstalled)
	if err != nil {
		return err
	}
	defer a.close()
	stop, err := a.background(ctx)
	if err != nil {
		a.say(err.Error()) // the steps are run all the same
	}
	failed := a.firstboot(ctx, o)
	if errors.Is(failed, errRestart) || errors.Is(failed, context.Canceled) || errors.Is(failed, steps.ErrBusy) {
		return failed
	}
	if !a.sending() {
		if failed == nil && !a.reports() {
			return a.dir.WriteFile(fileAlone, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600)
		}
		return failed
	}
	// No bound but the context: the machine is up and works, and the collector may be off for days.
	if err := a.deliver(ctx); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	stop() // the next answer might bring another token
	if err := a.dir.WriteFile(fileDone, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	return a.dir.RemoveToken()
}

// knowsCollector reports whether an agent that is started with these options on an installed system has somebody to report to.
func (c *common) knowsCollector(dir report.Dir) bool {
	if c.urls != "" {
		return true
	}
	s, _ := host.Host{}.Settings() // what could be understood counts
	id, _ := dir.Identity()
	return len(s.URLs) > 0 || len(id.URLs) > 0
}

// done reports whether a phase of an install came to its good end in this boot or an earlier one.
func (a *agent) done(install string, phase proto.Phase) bool {
	done := false
	for r, err := range a.journal.Events() {
		if e := r.Event; err == nil && e.Install == install && e.Phase == phase {
			done = e.Kind == proto.KindRunEnd && e.Outcome.Good() || done && e.Kind != proto.KindRunStart
		}
	}
	return done
}

// firstboot runs the phase. Its error is what the unit ends with.
func (a *agent) firstboot(ctx context.Context, o runOptions) error {
	p, err := a.ready()
	if err != nil && a.sending() {
		p, err = a.wait(ctx, planWait)
	}
	var none *noPlan
	if errors.As(err, &none) {
		return a.withoutPlan(ctx, o.Phase, none)
	}
	if err != nil {
		return err
	}
	if a.done(p.Install, o.Phase) { // in an earlier boot, and not everything was delivered
		return nil
	}
	result, err := steps.Run(ctx, a.deps(p), o.Options)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if result.Reboot != nil {
		return errors.Join(errRestart, a.restart(ctx, result, goodWait))
	}
	if !result.Outcome.Good() {
		return fmt.Errorf("phase %s: %s", o.Phase, describe(result.Cause))
	}
	if err := a.forgetSecrets(); err != nil {
		a.say(err.Error())
	}
	return a.booted(o.Phase)
}

// booted records, once for each boot, that the system runs and the steps of its phase are done.
func (a *agent) booted(phase proto.Phase) error {
	for r, err := range a.journal.Events() {
		if e := r.Event; err == nil && e.Kind == proto.KindStage && e.Stage == "booted" && e.Phase == phase && e.Boot == a.boot {
			return nil
		}
	}
	if _, err := a.journal.Append(proto.Event{Kind: proto.KindStage, Phase: phase, Stage: "booted"}); err != nil {
		return fmt.Errorf("recording the boot: %w", err)
	}
	return nil
}

// deliver waits until everything is acknowledged, however long it takes.
func (a *agent) deliver(ctx context.Context) error {
	for {
		round, cancel := context.WithTimeout(ctx, time.Hour)
		err := report.Flush(round, a.dir, a.journal, a.past, true)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.tell("%v%s", err, because(a.dir.Sent().Trouble))
	}
}
