// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/proc"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

// flushWait bounds the delivery at the end of a run: whoever called it may halt or reboot the machine at once. What
// remains is in the journal. It is no constant for tests, whose machine may be slower than any installer's.
var (
	flushWait = 30 * time.Second // after a failure
	goodWait  = 10 * time.Second // after success: more commands follow
)

type runOptions struct {
	common
	steps.Options
	phase, onFailure string
	plan, scripts    string
	planWait         time.Duration
}

func runCommand() command {
	return command{
		name: "run", args: "--phase PHASE [--root DIR]",
		summary: "run the steps of one phase of the plan",
		help: `
The plan is the one that "watch" fetched, or else this command asks the
collector for it, or else it is the file of --plan. It waits for the collector's
plan at most as long as --plan-wait. Steps never wait for the network.

The first step that fails ends the phase. Then the plan's on-failure says what
happens: hold (wait for the orders retry, skip, release or abort), exit, poweroff,
or disk.

Examples:
  provost-agent run --phase post --root /target
  provost-agent run --phase post --root /mnt/sysroot --on-failure exit \
      --url https://10.0.0.1:8440 --ca /etc/provost/ca.pem --join-key-file /root/join
  provost-agent run --phase post --root /target --plan plan.yaml --scripts ./scripts
  provost-agent run --phase post --root /target --step ntp --force ntp

Exit status: 0 all steps are done, 1 a step failed or there was no plan in time,
64 wrong usage, 75 another run is going on, 78 a setting or the plan is wrong.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var o runOptions
			o.flags(f)
			f.StringVar(&o.phase, "phase", "", "`PHASE`: pre, post, firstboot or boot")
			f.StringVar(&o.Root, "root", "", "`DIR` where the target is mounted; steps run in its chroot")
			f.StringVar(&o.plan, "plan", "", "plan `FILE` (YAML) instead of the collector's plan")
			f.StringVar(&o.scripts, "scripts", "", "`DIR` of the plan file's scripts (default: the plan file's own)")
			f.DurationVar(&o.planWait, "plan-wait", planWait, "`TIME` to wait for the collector's plan, like 90s")
			f.StringVar(&o.onFailure, "on-failure", "", "`WHAT` to do instead of the plan's: hold, exit, poweroff or disk")
			f.StringVar(&o.Force, "force", "", "`STEP|all`: run it though it is done")
			f.StringVar(&o.Step, "step", "", "run this `STEP` only")
			return func(ctx context.Context, args []string) error {
				if err := o.check(args); err != nil {
					return err
				}
				return doRun(ctx, o, s)
			}
		},
	}
}

func (o *runOptions) check(args []string) error {
	var err error
	switch {
	case len(args) > 0:
		return usage("run: unexpected argument %q", args[0])
	case o.phase == "":
		return usage("run: --phase is missing: pre, post, firstboot or boot")
	case o.planWait <= 0 || o.planWait > maxPlanWait:
		return usage("run: --plan-wait %s: use more than 0 and at most %s", o.planWait, maxPlanWait)
	case o.scripts != "" && o.plan == "":
		return usage("run: --scripts needs --plan")
	}
	if o.Phase, err = proto.ParsePhase(o.phase); err != nil {
		return usage("run: --%w", err)
	}
	if o.Root != "" && !filepath.IsAbs(o.Root) {
		return usage("run: --root %q is no absolute path", o.Root)
	}
	if o.onFailure != "" {
		if o.OnFailure, err = proto.ParseOnFailure(o.onFailure); err != nil {
			return usage("run: --%w", err)
		}
	}
	for flag, v := range map[string]string{"step": o.Step, "force": o.Force} {
		if v != "" && proto.CheckName("step", v) != nil {
			return usage("run: --%s %q is no name of a step", flag, v)
		}
	}
	return nil
}

func doRun(ctx context.Context, o runOptions, s *streams) error {
	a, err := o.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	if a.installsNothing() {
		return a.stay(ctx)
	}
	if _, err := a.background(ctx); err != nil {
		if _, none := a.ready(); none != nil && o.plan == "" {
			return err
		}
		a.say(fmt.Sprintf("%v: running without the collector", err))
	}
	return a.runPhase(ctx, o)
}

// runPhase gets the plan, runs the phase, and does what is to be done after it.
func (a *agent) runPhase(ctx context.Context, o runOptions) error {
	var p planIs
	var err error
	if o.plan != "" {
		p, err = a.readPlanFile(o.plan, o.scripts)
	} else {
		p, err = a.wait(ctx, o.planWait)
	}
	var none *noPlan
	if errors.As(err, &none) {
		return a.withoutPlan(ctx, o.Phase, none)
	}
	if err != nil {
		return err
	}
	if err := steps.Check(p.Plan, string(a.dir), o.Options); err != nil { // before anything is written to the target
		return err
	}
	if o.Phase == proto.PhasePre && o.plan == "" {
		if err := a.unlessSealed(ctx); err != nil {
			return err
		}
	}
	if o.Root != "" {
		if err := a.mirrorState(o.Root, p.Install); err != nil {
			a.say(err.Error())
		}
	}
	stop := a.keepSending(ctx)
	result, err := steps.Run(ctx, a.deps(p), o.Options)
	stop()
	if err != nil {
		return err
	}
	if o.Root != "" {
		if err := a.mirrorState(o.Root, p.Install); err != nil { // a token may have come meanwhile
			a.say(err.Error())
		}
	}
	for _, w := range result.Warnings {
		a.tell("warning: %s", w)
	}
	if result.Reboot != nil {
		return a.restart(ctx, result, flushWait)
	}
	if result.Outcome.Good() {
		if o.Phase == proto.PhaseBoot && o.Step == "" {
			if err := a.booted(o.Phase); err != nil {
				a.say(err.Error())
			}
		}
		a.tell("phase %s is done", o.Phase)
		a.flushOwn(ctx)
		return nil
	}
	a.flush(ctx, flushWait, result.Action != steps.ActNone) // a machine that goes down keeps no log
	if err := a.act(ctx, result.Action); err != nil {
		a.say(err.Error())
	}
	return fmt.Errorf("phase %s: %s", o.Phase, describe(result.Cause))
}

// flushOwn gives a phase that went well its time to be delivered, unless another process sees to that.
func (a *agent) flushOwn(ctx context.Context) {
	if a.reports() && !a.watched() {
		a.flush(ctx, goodWait, true)
	}
}

// summary is the cause in the words of the status: failed(STEP=RC).
func summary(e *proto.Event) string {
	if e == nil {
		return "failed"
	}
	c := proto.Cause{Kind: e.Cause, Name: e.Step, Exit: e.Exit, Signal: e.Signal}
	return c.Summary()
}

// describe is summary with the reason.
func describe(e *proto.Event) string {
	if e == nil || e.Message == "" {
		return summary(e)
	}
	return summary(e) + ": " + e.Message
}

// restart brings the machine down as a step asked, after a bounded time for what is not delivered. Its error is for a caller
// that lives on: the phase is not over.
func (a *agent) restart(ctx context.Context, result steps.Result, limit time.Duration) error {
	text := fmt.Sprintf("step %s: %s", result.Reboot.Step, result.Reboot.Message)
	a.say(text)
	a.consoles.Say("provost: " + text)
	a.flush(ctx, limit, true)
	return errors.Join(errors.New(text), a.act(ctx, result.Action))
}

func (a *agent) act(ctx context.Context, what steps.Action) error {
	switch what {
	case steps.ActPoweroff:
		return host.PowerOff(ctx)
	case steps.ActDisk, steps.ActReboot:
		return host.Reboot(ctx)
	}
	return nil
}

// withoutPlan records that the phase failed for want of a plan.
func (a *agent) withoutPlan(ctx context.Context, phase proto.Phase, why *noPlan) error {
	for _, e := range []proto.Event{
		{Kind: proto.KindRunStart, Phase: phase},
		{Kind: proto.KindRunEnd, Phase: phase, Outcome: proto.OutcomeFailed, Cause: why.cause, Message: proto.Clip(why.why, proto.MaxMessage)},
	} {
		if _, err := a.journal.Append(e); err != nil {
			a.say(err.Error())
		}
	}
	a.flush(ctx, flushWait, false)
	return fmt.Errorf("phase %s: failed(%s): %w", phase, why.cause, why)
}

// deps are what a run needs of this process.
func (a *agent) deps(p planIs) steps.Deps {
	id, _ := a.dir.Identity()
	if err := proc.BecomeSubreaper(); err != nil {
		a.say(err.Error())
	}
	program, err := a.host.InstallProgram(a.dir.Path("bin"), programName)
	if err != nil {
		a.say(err.Error())
	}
	progress, err := a.dir.Progress()
	if err != nil {
		a.say(err.Error())
	}
	changes, err := a.dir.Changes()
	if err != nil {
		a.say(err.Error()) // then all on-change steps run
	}
	var acknowledged func(uint64) bool
	if a.reports() {
		acknowledged = func(seq uint64) bool { return report.Delivered(a.dir, a.journal, nil, seq, nil) }
	}
	return steps.Deps{
		Acknowledged: acknowledged, Progress: progress, Changes: changes,
		Journal: a.journal, Plan: p.Plan, PlanDigest: p.digest, Script: a.dir.Script, LoadPlan: a.loadPlan,
		StateDir: string(a.dir), Lib: a.dir.Path("lib"), Agent: program, Attempt: id.Attempt, Boot: a.boot,
		Consoles: a.consoles, Processes: a.processes, ProcessArgs: a.host.Args, Cgroup: a.host.Cgroup(), Log: a.log,
		Idle: a.forgetProgram,
	}
}

func (a *agent) processes() ([]proc.Process, error) {
	list, err := a.host.Processes()
	out := make([]proc.Process, len(list))
	for i, p := range list {
		out[i] = proc.Process(p)
	}
	return out, err
}
