// SPDX-License-Identifier: Apache-2.0

// Package run carries out the steps of one phase of a plan: in order, and no further than the first that fails. What it
// does it first writes into the journal, so that whoever comes after a crash knows where it was. It takes orders from a
// directory, whoever put them there.
//
// It never waits for the network, never powers the machine off, and never starts a process but through package proc.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"provost/agent/internal/journal"
	"provost/agent/internal/proc"
	"provost/proto"
)

// ErrBusy: another process runs steps with this state directory.
var ErrBusy = errors.New("another run is going on here: wait for it, or look at provost-agent status")

// Action is what the caller has to do after a run, when it has delivered what it can.
type Action string

// The actions.
const (
	ActNone     Action = ""
	ActPoweroff Action = "poweroff"
	ActDisk     Action = "disk"   // reboot; the next boot is from the disk
	ActReboot   Action = "reboot" // as a step asked
)

// Consoles shows a text to whoever stands before the machine. It must not block.
type Consoles interface{ Say(text string) }

// Deps is what a run needs of its surroundings.
type Deps struct {
	Journal    *journal.Journal
	Plan       *proto.Plan
	PlanDigest string // of the plan's exact bytes
	// Script gives the path of the verified script with this SHA-256.
	Script func(digest string) (string, error)
	// LoadPlan verifies a plan that came with a retry and gives it with its digest; its scripts are here already. nil:
	// such an order goes on with the plan that is there.
	LoadPlan func(*proto.SignedPlan) (*proto.Plan, string, error)
	// Acknowledged reports whether the collector has a record of the journal. nil: there is no collector, so that phase pre
	// cannot restart the machine.
	Acknowledged func(seq uint64) bool
	// Progress is what the collector remembers of earlier boots of this attempt.
	Progress []proto.Event
	// Changes is what the collector remembers of on-change steps with persists: outside, as of the last hello; nil without.
	Changes   *proto.Changes
	StateDir  string
	Lib       string // directory of the shell library; empty for none
	Agent     string // path of the agent's binary; empty for none
	Attempt   int
	Boot      string // kernel boot id
	Consoles  Consoles
	Processes proc.Processes
	// ProcessArgs is proc.Spec's.
	ProcessArgs func(pid int) string
	Cgroup      string
	Log         *slog.Logger
	// Idle is called when a hold begins, which may last for days: memory can be given back. May be nil.
	Idle     func()
	Exec     func(context.Context, proc.Spec) proc.Result // a proc.Runner's if nil
	diskWait time.Duration                                // of the files of steps; the constant if 0
	rest     func()                                       // no step is run for a long time
	Crash    func(point string)                           // called where a crash would hurt the most; nil outside of tests
}

// Options say which steps to run, and what to do when one fails.
type Options struct {
	Phase     proto.Phase
	Root      string          // where the target is mounted; empty outside of phase post
	OnFailure proto.OnFailure // instead of the plan's
	Force     string          // forget that this step had succeeded; "all" for all
	Step      string          // run this one only
	WaitFile  string          // holds the plan while it exists; /tmp/wait if empty
}

// Result says how the phase ended.
type Result struct {
	Outcome  proto.Outcome
	Cause    *proto.Event // the first failure; nil if there is none
	Released bool         // a hold ended by an order
	Action   Action
	Reboot   *proto.Event // the phase goes on after a restart, which this record announces
	LastSeq  uint64       // of the journal's last record of this run
	Warnings []string
}

// runner is one call of Run.
type runner struct {
	d        Deps
	o        Options
	plan     *proto.Plan
	secrets  []string       // of all its steps
	hide     *proc.Redactor // takes them out of everything that is written or said
	history  *history
	state    *stateFile
	result   Result
	hold     *proto.Order  // an order to hold before the next step
	ignored  bool          // the wait file was overruled
	toldProc bool          // that the target has no /proc
	copied   bool          // the target has this agent's program
	laid     bool          // the private directory is this install's
	disk     chan struct{} // has a token while onDisk's function is at it
}

// Run carries out the steps of a phase. Its error says that it did not even begin, and nothing was recorded; a step that
// fails is in the result. Steps that an earlier call in the same install finished are not run again; in phase boot, only
// those that are to run once.
func Run(ctx context.Context, d Deps, o Options) (Result, error) {
	if d.Exec == nil {
		steps := proc.NewRunner()
		defer steps.Close()
		d.Exec, d.rest = steps.Run, steps.Close
	}
	if d.diskWait == 0 {
		d.diskWait = diskWait
	}
	if d.rest == nil {
		d.rest = func() {}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Consoles == nil {
		d.Consoles = silent{}
	}
	if o.WaitFile == "" {
		o.WaitFile = "/tmp/wait"
	}
	r := &runner{d: d, o: o, disk: make(chan struct{}, 1)}
	r.setPlan(d.Plan)
	if err := Check(d.Plan, d.StateDir, o); err != nil {
		return Result{}, err
	}
	at, err := begin(d)
	if err != nil {
		return Result{}, err
	}
	defer at.unlock()
	r.history = at.history
	r.endLeftover(at.was)
	r.state = newStateFile(d.StateDir, o.Phase, d.Boot)
	defer r.state.done()
	if o.Root != "" {
		if err := d.Journal.SetMirror(o.Root, d.Plan.Install); err != nil {
			d.Log.Warn("mirroring the journal", "error", err)
		}
	}
	r.force(o.Force)
	r.phase(ctx)
	if last, err := d.Journal.Last(); err == nil {
		r.result.LastSeq = last
	}
	return r.result, nil
}

type silent struct{}

func (silent) Say(string) {}

// Check refuses options that make no sense, or not with this plan.
func Check(p *proto.Plan, stateDir string, o Options) error {
	if _, err := proto.ParsePhase(string(o.Phase)); err != nil {
		return err
	}
	if o.OnFailure != "" {
		if _, err := proto.ParseOnFailure(string(o.OnFailure)); err != nil {
			return err
		}
	}
	switch diskless := o.Phase == proto.PhaseBoot; { // a plan of an older collector does not say what node it is for
	case p.Kind == proto.PlanDisk && diskless:
		return fmt.Errorf("phase boot is that of nodes without a disk, and the plan, of profile %s, is for one that installs a disk: run pre, post or firstboot", p.Profile)
	case p.Kind == proto.PlanDiskless && !diskless:
		return fmt.Errorf("phase %s is one of nodes that install a disk, and the plan, of profile %s, is for a node without one: run phase boot", o.Phase, p.Profile)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(p.Steps, func(s proto.Step) bool { return s.Name == name && s.Phase == o.Phase })
	}
	if o.Step != "" && !has(o.Step) {
		return fmt.Errorf("phase %s has no step %q: see the plan in %s", o.Phase, o.Step, filepath.Join(stateDir, "plan.json"))
	}
	if o.Force != "" && o.Force != "all" && !has(o.Force) {
		return fmt.Errorf("phase %s has no step %q to force", o.Phase, o.Force)
	}
	if o.Root == "" {
		return nil
	}
	return CheckRoot(o.Root)
}

// CheckRoot says why a target cannot be mounted at root.
func CheckRoot(root string) error {
	if filepath.Clean(root) == "/" || !filepath.IsAbs(root) {
		return fmt.Errorf("root %q: give the absolute path where the target is mounted; on the installed system leave --root out", root)
	}
	good := false
	if !proc.Within(diskWait, func() {
		info, err := os.Stat(root)
		good = err == nil && info.IsDir()
	}) {
		return fmt.Errorf("root %s does not answer: see the kernel's log, dmesg", root)
	}
	if !good {
		return fmt.Errorf("root %s is no directory: is the target mounted there?", root)
	}
	return nil
}

// setPlan takes a plan. The secrets of an earlier one stay secret: a step of it may still have one.
func (r *runner) setPlan(p *proto.Plan) {
	r.plan = p
	for _, s := range p.Steps {
		for _, v := range s.SecretEnv {
			if !slices.Contains(r.secrets, v) {
				r.secrets = append(r.secrets, v)
			}
		}
	}
	r.hide = proc.NewRedactor(r.secrets)
}

// steps are the phase's, in the plan's order.
func (r *runner) steps() []proto.Step {
	var out []proto.Step
	for _, s := range r.plan.Steps {
		if s.Phase == r.o.Phase && (r.o.Step == "" || s.Name == r.o.Step) {
			out = append(out, s.WithDefaults())
		}
	}
	return out
}

// append writes a record. One that the disk does not take is kept by the journal: the steps go on.
func (r *runner) append(e proto.Event) proto.Event {
	e.Install = r.plan.Install
	e.Message = r.hide.String(e.Message)
	for i, l := range e.Tail {
		e.Tail[i] = r.hide.String(l)
	}
	w, err := r.d.Journal.Append(e)
	if err != nil {
		r.d.Log.Error("writing the journal", "kind", e.Kind, "error", err)
	}
	return w
}

// point is where a test may kill this process.
func (r *runner) point(name string) {
	if r.d.Crash != nil {
		r.d.Crash(name)
	}
}

func (r *runner) note(step, msg string, warning bool) {
	r.append(proto.Event{Kind: proto.KindNote, Phase: r.o.Phase, Step: step, Message: msg, Warning: warning})
}

// phase runs the steps until one fails, then does what is to be done on failure, which may lead back to the steps.
func (r *runner) phase(ctx context.Context) {
	for {
		cause := r.pass(ctx)
		if cause == nil {
			r.result.Outcome = proto.OutcomeOK
			return
		}
		if r.result.Cause == nil {
			r.result.Cause = cause
		}
		r.result.Outcome = cause.Outcome
		if r.o.Step != "" || !r.failed(ctx, *cause) {
			return
		}
		r.result.Cause, r.result.Released = nil, false
	}
}

// stage names a milestone of the phase.
func (r *runner) stage(suffix string) string { return string(r.o.Phase) + suffix }

// pass is one walk over the steps: run-start, steps, run-end. It gives the first failure. A single step is not the phase:
// it has no start and end but its own.
func (r *runner) pass(ctx context.Context) *proto.Event {
	if r.o.Step != "" {
		if cause := r.unsupported(); cause != nil {
			return cause
		}
		return r.walk(ctx)
	}
	r.append(proto.Event{Kind: proto.KindRunStart, Phase: r.o.Phase, Stage: r.stage("-started"), Plan: r.d.PlanDigest})
	var cause *proto.Event
	if cause = r.unsupported(); cause == nil {
		cause = r.walk(ctx)
	}
	if r.result.Reboot != nil { // the phase is not over
		return nil
	}
	end := proto.Event{Kind: proto.KindRunEnd, Phase: r.o.Phase, Outcome: proto.OutcomeOK, Stage: r.stage("-done")}
	if cause != nil {
		end = *cause
		end.Kind, end.Seq, end.Time, end.OffsetMS, end.Boot, end.Stage = proto.KindRunEnd, 0, time.Time{}, 0, "", ""
		end.DurationMS = 0
		if cause.Cause != proto.CauseAbort && r.result.Action == ActNone && r.onFailure() == proto.OnFailureDisk {
			end.Then = proto.BootDisk // the collector lets it
		}
	}
	r.append(end)
	return cause
}

// walk goes over the steps that are not done, and again over those that asked for it.
func (r *runner) walk(ctx context.Context) *proto.Event {
	for round := 1; ; round++ {
		again, cause := r.round(ctx)
		if cause != nil || again == nil {
			return cause
		}
		d := pause(round)
		if cause := r.rest(ctx, *again, d, fmt.Sprintf("step %s asked to be run again: in %s", again.Name, d.Round(time.Second))); cause != nil {
			return cause
		}
	}
}

// round is one walk. It gives a step that asked to be run again, if one did. Each may do that reboot: max times, so there
// is an end.
func (r *runner) round(ctx context.Context) (again *proto.Step, cause *proto.Event) {
	for _, s := range r.steps() {
		if r.history.restarts(s, r.o.Phase) {
			return nil, r.restart(ctx, s)
		}
	}
	for _, s := range r.steps() {
		if r.history.stops(s, r.o.Phase) {
			r.skipRest(s)
			return nil, nil
		}
		if o := r.history.steps[key(r.o.Phase, s.Name)].owed; o != nil { // the agent died when it had taken the order
			r.skipped(s, *o)
			continue
		}
		if r.settled(s) {
			continue
		}
		if cause := r.before(ctx, s); cause != nil {
			return nil, cause
		}
		if r.settled(s) || r.unchanged(s) { // skipped by an order meanwhile, or not needed
			continue
		}
		if cause := r.step(ctx, s); cause != nil {
			return nil, cause
		}
		switch {
		case r.history.restarts(s, r.o.Phase):
			return nil, r.restart(ctx, s)
		case r.history.stops(s, r.o.Phase):
			r.skipRest(s)
			return nil, nil
		}
		if r.history.steps[key(r.o.Phase, s.Name)].repeat {
			again = &s
		}
	}
	return again, nil
}

// unsupported refuses a plan that asks for what this agent cannot do, before the first step of any phase: better while the
// disks are untouched than when they are half made.
func (r *runner) unsupported() *proto.Event {
	now := slices.Index(proto.Phases, r.o.Phase)
	for _, s := range r.plan.Steps {
		if r.o.Step != "" && r.o.Step != s.Name || slices.Index(proto.Phases, s.Phase) < now || r.history.done(s.WithDefaults(), s.Phase) {
			continue
		}
		if s.Reboot != nil && s.Reboot.Max > 0 && s.Phase.Fleeting() && r.d.Acknowledged == nil {
			return r.refuse(s, proto.OutcomePreflight, fmt.Sprintf("step %s of phase %s asks for reboots, after which only a collector knows what is done, "+
				"and there is none: give --url and --ca, or, on a node with a disk, move it to firstboot", s.Name, s.Phase))
		}
	}
	return nil
}

// refuse records a try that did not take place.
func (r *runner) refuse(s proto.Step, o proto.Outcome, msg string) *proto.Event {
	try := r.history.steps[key(r.o.Phase, s.Name)].tries + 1
	r.append(proto.Event{Kind: proto.KindStepStart, Phase: r.o.Phase, Step: s.Name, Try: try})
	return r.end(s, proto.Event{Try: try, Outcome: o, Message: msg}, false)
}

// stopped is a cause that is not a step's own: the plan ended before step s began, and nothing of it ran.
func (r *runner) stopped(s proto.Step, o proto.Outcome, msg string) *proto.Event {
	return &proto.Event{Phase: r.o.Phase, Step: s.Name, Outcome: o, Cause: o.Cause(), Message: msg}
}

// end records the end of a try and gives it when the plan cannot go on after it.
func (r *runner) end(s proto.Step, e proto.Event, goesOn bool) *proto.Event {
	e.Kind, e.Phase, e.Step = proto.KindStepEnd, r.o.Phase, s.Name
	if !e.Outcome.Good() {
		e.Cause = e.Outcome.Cause()
		e.Warning = goesOn
	}
	w := r.append(e)
	r.history.apply(w)
	r.point("step-ended")
	if e.Outcome.Good() || goesOn {
		return nil
	}
	return &w
}
