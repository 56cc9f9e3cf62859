// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"provost/agent/internal/journal"
	"provost/agent/internal/proc"
	"provost/agent/internal/run"
	"provost/proto"
)

// TestMain lets this program be an agent that runs the plan in PROVOST_TEST_RUN, with real processes.
func TestMain(m *testing.M) {
	if state := os.Getenv("PROVOST_TEST_RUN"); state != "" {
		os.Exit(agent(state))
	}
	goleak.VerifyTestMain(m)
}

const (
	install = "01J00000000000000000000000"
	boot1   = "11111111-1111-1111-1111-111111111111"
	boot2   = "22222222-2222-2222-2222-222222222222"
)

// bench is a node with a state directory, and steps that are played by a function.
type bench struct {
	t     *testing.T
	state string
	boot  string
	plan  proto.Plan
	opts  run.Options
	// play is the step of this name in its n-th call, from 1.
	play func(ctx context.Context, step string, n int) proc.Result

	mu    sync.Mutex
	calls map[string]int
	ran   []string
	said  []string
	load  func(*proto.SignedPlan) (*proto.Plan, string, error)

	acked    func(seq uint64) bool
	progress []proto.Event
	changes  *proto.Changes
	point    func(name string)
	env      []string // of the first step that ran
}

func newBench(t *testing.T, steps ...proto.Step) *bench {
	t.Helper()
	b := &bench{t: t, state: t.TempDir(), boot: boot1, calls: map[string]int{}}
	b.opts = run.Options{Phase: proto.PhasePre, WaitFile: filepath.Join(b.state, "wait")}
	if err := os.MkdirAll(filepath.Join(b.state, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.plan = proto.Plan{Schema: 1, Node: "n1", Install: install, Revision: 1, Profile: "fast", OnFailure: proto.OnFailureExit,
		Attrs: map[string]string{"time-zone": "Europe/Berlin"}}
	for _, s := range steps {
		b.plan.Steps = append(b.plan.Steps, b.script(s, "#!/bin/sh\n"))
	}
	b.play = func(context.Context, string, int) proc.Result { return proc.Result{} }
	return b
}

// script makes the step's script in files/.
func (b *bench) script(s proto.Step, text string) proto.Step {
	b.t.Helper()
	if s.Phase == "" {
		s.Phase = proto.PhasePre
	}
	s.Digest, s.Size = proto.Digest([]byte(text)), int64(len(text))
	if err := os.WriteFile(filepath.Join(b.state, "files", s.Digest), []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) Say(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, text)
}

func (b *bench) exec(ctx context.Context, s proc.Spec) proc.Result {
	b.mu.Lock()
	b.calls[s.Name]++
	n := b.calls[s.Name]
	if b.ran = append(b.ran, s.Name); len(b.ran) == 1 {
		b.env = s.Env
	}
	b.mu.Unlock()
	if s.Started != nil {
		s.Started(0, "")
	}
	r := b.play(ctx, s.Name, n)
	if r.Outcome == "" {
		r.Outcome = proto.OutcomeOK
	}
	return r
}

func (b *bench) journal() *journal.Journal {
	b.t.Helper()
	begin := time.Now()
	boot := b.boot
	j, err := journal.Open(b.state, func() (time.Time, string, time.Duration) { return time.Now(), boot, time.Since(begin) }, journal.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

// run calls Run as one agent process does.
func (b *bench) run() run.Result {
	b.t.Helper()
	r, err := b.try(b.t.Context())
	if err != nil {
		b.t.Fatalf("Run: %v", err)
	}
	return r
}

func (b *bench) try(ctx context.Context) (run.Result, error) {
	j := b.journal()
	defer j.Close()
	b.ran = nil
	return run.Run(ctx, b.deps(j), b.opts)
}

func (b *bench) deps(j *journal.Journal) run.Deps {
	return run.Deps{Journal: j, Plan: &b.plan, PlanDigest: strings.Repeat("d", 64), StateDir: b.state, Boot: b.boot, Attempt: 1, Consoles: b, Exec: b.exec,
		LoadPlan: b.load, Acknowledged: b.acked, Progress: b.progress, Changes: b.changes, Crash: b.point, Script: func(d string) (string, error) {
			path := filepath.Join(b.state, "files", d)
			_, err := os.Stat(path)
			return path, err
		}}
}

func (b *bench) events() []proto.Event {
	b.t.Helper()
	j := b.journal()
	defer j.Close()
	var out []proto.Event
	for r, err := range j.Events() {
		if err != nil {
			b.t.Fatal(err)
		}
		if err := r.Event.CheckAgent(); err != nil {
			b.t.Errorf("the collector would refuse %+v: %v", r.Event, err)
		}
		out = append(out, r.Event)
	}
	return out
}

// story is the journal in short words.
func (b *bench) story() []string {
	var out []string
	for _, e := range b.events() {
		w := string(e.Kind)
		switch e.Kind {
		case proto.KindStepStart:
			w = fmt.Sprintf("%s#%d", e.Step, e.Try)
		case proto.KindStepEnd:
			w = fmt.Sprintf("%s#%d=%s", e.Step, e.Try, e.Outcome)
		case proto.KindRunEnd:
			w = "run-end=" + string(e.Outcome)
			if e.Step != "" {
				w += "(" + e.Step + ")"
			}
		case proto.KindOrder:
			w = e.Order
			if e.Step != "" {
				w += " " + e.Step
			}
			if e.Failed {
				w += " refused"
			}
		case proto.KindHold:
			w = "hold"
			if e.Order != "" {
				w += " by " + e.Order
			}
			if e.Outcome != "" {
				w += " ended=" + string(e.Outcome)
			}
		case proto.KindStage:
			w = "stage " + e.Stage
		}
		if e.Warning {
			w += " (warning)"
		}
		out = append(out, w)
	}
	return out
}

func (b *bench) tells(want ...string) {
	b.t.Helper()
	if d := cmp.Diff(want, b.story()); d != "" {
		b.t.Errorf("journal (-want +got):\n%s", d)
	}
}

func (b *bench) order(verb proto.Verb, step string) proto.Order {
	b.t.Helper()
	o := proto.Order{ID: proto.NewID(time.Now()), Verb: verb, Step: step, Actor: "uid 0", Reason: "because"}
	b.give(o)
	return o
}

func (b *bench) give(o proto.Order) {
	b.t.Helper()
	if err := run.WriteOrder(b.state, o); err != nil {
		b.t.Fatal(err)
	}
}

func failing(code int) proc.Result {
	return proc.Result{Outcome: proto.OutcomeFailed, Exit: code, Message: "broke", Tail: []string{"line", "broke"}, Duration: time.Second}
}

// fails makes the step fail in its first n calls.
func fails(step string, n int) func(context.Context, string, int) proc.Result {
	return func(_ context.Context, s string, call int) proc.Result {
		if s == step && call <= n {
			return failing(7)
		}
		return proc.Result{}
	}
}

func TestOrderOfSteps(t *testing.T) {
	b := newBench(t, proto.Step{Name: "b"}, proto.Step{Name: "other", Phase: proto.PhaseFirstboot}, proto.Step{Name: "a"})
	r := b.run()
	if r.Outcome != proto.OutcomeOK || r.Cause != nil || r.LastSeq != 6 {
		t.Errorf("Run = %+v", r)
	}
	b.tells("run-start", "b#1", "b#1=ok", "a#1", "a#1=ok", "run-end=ok")
	es := b.events()
	if es[0].Stage != "pre-started" || es[5].Stage != "pre-done" || es[0].Plan == "" {
		t.Errorf("stages %q and %q, plan %q", es[0].Stage, es[5].Stage, es[0].Plan)
	}
	st, err := run.ReadState(b.state)
	if err != nil || !st.Done || st.Alive {
		t.Errorf("ReadState = %+v, %v, want done", st, err)
	}
}

func TestFailFast(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"}, proto.Step{Name: "c"})
	b.play = fails("b", 1)
	r := b.run()
	if r.Outcome != proto.OutcomeFailed || r.Cause == nil || r.Cause.Step != "b" || r.Cause.Exit != 7 || r.Action != run.ActNone {
		t.Errorf("Run = %+v, cause %+v", r, r.Cause)
	}
	b.tells("run-start", "a#1", "a#1=ok", "b#1", "b#1=failed", "run-end=failed(b)")
	es := b.events()
	step, end := es[4], es[5]
	if step.Cause != proto.CauseStep || step.Log != "b.log" || len(step.Tail) != 2 || step.Message != "broke" || step.DurationMS != 1000 {
		t.Errorf("step-end = %+v", step)
	}
	if end.Step != "b" || end.Exit != 7 || end.Cause != proto.CauseStep || end.Try != 1 || len(end.Tail) != 2 || end.Log != "b.log" {
		t.Errorf("run-end = %+v", end)
	}
	// Called again, it goes on where it was.
	if r := b.run(); r.Outcome != proto.OutcomeOK {
		t.Errorf("second Run = %+v", r)
	}
	if d := cmp.Diff([]string{"b", "c"}, b.ran); d != "" {
		t.Errorf("second call ran (-want +got):\n%s", d)
	}
	// And a third time nothing is left to do.
	if b.run(); len(b.ran) != 0 {
		t.Errorf("third call ran %q", b.ran)
	}
}

func TestWarn(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a", OnFailure: "warn"}, proto.Step{Name: "b"})
	b.play = fails("a", 9)
	r := b.run()
	if r.Outcome != proto.OutcomeOK || len(r.Warnings) != 1 {
		t.Errorf("Run = %+v, want ok with a warning", r)
	}
	b.tells("run-start", "a#1", "a#1=failed (warning)", "b#1", "b#1=ok", "run-end=ok")
	if b.run(); len(b.ran) != 0 {
		t.Errorf("second call ran %q", b.ran)
	}
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a", Retries: 3})
		b.play = fails("a", 3)
		begin := time.Now()
		if r := b.run(); r.Outcome != proto.OutcomeOK {
			t.Errorf("Run = %+v", r)
		}
		b.tells("run-start", "a#1", "a#1=failed (warning)", "a#2", "a#2=failed (warning)", "a#3", "a#3=failed (warning)", "a#4", "a#4=ok", "run-end=ok")
		if took := time.Since(begin); took < 17500*time.Millisecond || took > 36*time.Second {
			t.Errorf("three pauses took %s, want half to all of 5+10+20 s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a", Retries: proto.MaxRetries})
		b.play = fails("a", 99)
		begin := time.Now()
		if r := b.run(); r.Outcome != proto.OutcomeFailed {
			t.Errorf("Run = %+v", r)
		}
		if n, took := b.calls["a"], time.Since(begin); n != proto.MaxRetries+1 || took > 1040*time.Second {
			t.Errorf("%d tries in %s, want %d in at most 1035 s", n, took, proto.MaxRetries+1)
		}
	})
}

func TestPreflightIsNotRetried(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a", Retries: 5})
	b.play = func(context.Context, string, int) proc.Result {
		return proc.Result{Outcome: proto.OutcomePreflight, Message: "no interpreter"}
	}
	b.run()
	b.tells("run-start", "a#1", "a#1=preflight", "run-end=preflight(a)")
}

func TestMissingScript(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"})
	os.Remove(filepath.Join(b.state, "files", b.plan.Steps[0].Digest))
	r := b.run()
	if r.Outcome != proto.OutcomePreflight || !strings.Contains(r.Cause.Message, "script a") || len(b.ran) != 0 {
		t.Errorf("Run = %+v, cause %+v", r, r.Cause)
	}
}

func TestUnsupported(t *testing.T) {
	for _, s := range []proto.Step{{Name: "b", Reboot: &proto.Reboot{Max: 1}},
		{Name: "b", Phase: proto.PhaseBoot, Reboot: &proto.Reboot{Max: 1}}} { // seen before the disks are touched
		b := newBench(t, proto.Step{Name: "a"}, s)
		if r := b.run(); r.Outcome != proto.OutcomePreflight || len(b.ran) != 0 {
			t.Errorf("Run of %+v = %+v, ran %q", s, r, b.ran)
		}
		b.tells("run-start", "b#1", "b#1=preflight", "run-end=preflight(b)")
	}
}

// TestCrash: the agent died under a step, which a journal with a start and no end says.
func TestCrash(t *testing.T) {
	crash := func(b *bench) {
		j := b.journal()
		defer j.Close()
		for _, e := range []proto.Event{{Kind: proto.KindRunStart, Phase: b.opts.Phase}, {Kind: proto.KindStepStart, Phase: b.opts.Phase, Step: "a", Try: 1}} {
			e.Install = install
			if _, err := j.Append(e); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	t.Run("not rerunnable", func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
		crash(b)
		r := b.run()
		if r.Outcome != proto.OutcomeInterrupted || r.Cause.Cause != proto.CauseInterrupted || len(b.ran) != 0 {
			t.Errorf("Run = %+v, ran %q", r, b.ran)
		}
		b.run() // a service that is started again must not do what a person has to decide
		b.tells("run-start", "a#1", "run-start", "a#1=interrupted", "run-end=interrupted(a)",
			"run-start", "a#2", "a#2=interrupted", "run-end=interrupted(a)")
		b.order(proto.VerbRetry, "")
		if r := b.run(); r.Outcome != proto.OutcomeOK || len(b.ran) != 2 {
			t.Errorf("after retry: %+v, ran %q", r, b.ran)
		}
	})
	t.Run("force", func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a"})
		crash(b)
		b.opts.Force = "a"
		if r := b.run(); r.Outcome != proto.OutcomeOK {
			t.Errorf("Run = %+v", r)
		}
	})
	t.Run("rerunnable", func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a", Rerunnable: true})
		crash(b)
		if r := b.run(); r.Outcome != proto.OutcomeOK {
			t.Errorf("Run = %+v", r)
		}
		b.tells("run-start", "a#1", "run-start", "a#1=interrupted (warning)", "a#2", "a#2=ok", "run-end=ok")
	})
	t.Run("another boot of a diskless node", func(t *testing.T) {
		for policy, want := range map[proto.RunPolicy]proto.Outcome{proto.RunAlways: proto.OutcomeOK, proto.RunOnce: proto.OutcomeInterrupted} {
			b := newBench(t, proto.Step{Name: "a", Phase: proto.PhaseBoot, Run: policy})
			b.opts.Phase = proto.PhaseBoot
			crash(b)
			b.boot = boot2
			if r := b.run(); r.Outcome != want {
				t.Errorf("run: %s after a crash in an earlier boot = %s, want %s", policy, r.Outcome, want)
			}
		}
	})
}

func TestBootPhaseRunsAtEachBoot(t *testing.T) {
	b := newBench(t, proto.Step{Name: "always", Phase: proto.PhaseBoot}, proto.Step{Name: "once", Phase: proto.PhaseBoot, Run: proto.RunOnce})
	b.opts.Phase = proto.PhaseBoot
	for _, tt := range []struct {
		boot string
		want []string
	}{{boot1, []string{"always", "once"}}, {boot1, nil}, {boot2, []string{"always"}}} {
		b.boot = tt.boot
		b.run()
		if d := cmp.Diff(tt.want, b.ran); d != "" {
			t.Errorf("boot %.4s ran (-want +got):\n%s", tt.boot, d)
		}
	}
}

func TestForceAll(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b", Run: proto.RunOnce})
	b.run()
	b.opts.Force = "all"
	if b.run(); len(b.ran) != 2 {
		t.Errorf("forced: ran %q, want both", b.ran)
	}
}

func TestSingleStep(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
	b.opts.Step = "b"
	b.plan.OnFailure = proto.OnFailureHold // which a single step does not do
	b.play = fails("b", 1)
	if r := b.run(); r.Outcome != proto.OutcomeFailed {
		t.Errorf("Run = %+v", r)
	}
	b.tells("b#1", "b#1=failed")
}

func TestBadOptions(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"})
	for _, o := range []run.Options{{}, {Phase: "x"}, {Phase: proto.PhasePre, Step: "z"}, {Phase: proto.PhasePre, Force: "z"},
		{Phase: proto.PhasePost, Root: "/no/such"}, {Phase: proto.PhasePost, Root: "/"}, {Phase: proto.PhasePost, Root: "mnt"}, {Phase: proto.PhasePre, OnFailure: "dance"}} {
		b.opts = o
		if r, err := b.try(t.Context()); err == nil {
			t.Errorf("Run(%+v) = %+v, want an error", o, r)
		}
	}
	b.tells()
}

func TestBusy(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"})
	b.play = func(context.Context, string, int) proc.Result {
		st, err := run.ReadState(b.state)
		if err != nil || !st.Alive || st.Done || st.Step != "a" || st.Phase != proto.PhasePre {
			t.Errorf("ReadState while it runs = %+v, %v", st, err)
		}
		j := b.journal()
		defer j.Close()
		if _, err := run.Run(t.Context(), b.deps(j), b.opts); err != run.ErrBusy {
			t.Errorf("a second Run = %v, want ErrBusy", err)
		}
		return proc.Result{}
	}
	b.run()
}

func TestOnFailure(t *testing.T) {
	for _, tt := range []struct {
		phase      proto.Phase
		plan, flag proto.OnFailure
		want       run.Action
	}{
		{proto.PhasePre, proto.OnFailureExit, "", run.ActNone},
		{proto.PhasePre, proto.OnFailurePoweroff, "", run.ActPoweroff},
		{proto.PhasePre, proto.OnFailureDisk, "", run.ActDisk},
		{proto.PhasePre, proto.OnFailureHold, proto.OnFailureExit, run.ActNone},
		{proto.PhaseFirstboot, proto.OnFailureHold, "", run.ActNone}, // never keeps a system from booting
		{proto.PhaseFirstboot, proto.OnFailurePoweroff, "", run.ActNone},
		{proto.PhaseBoot, proto.OnFailureHold, "", run.ActNone},
		{proto.PhaseFirstboot, proto.OnFailureExit, proto.OnFailurePoweroff, run.ActPoweroff},
	} {
		b := newBench(t, proto.Step{Name: "a", Phase: tt.phase})
		b.opts.Phase, b.opts.OnFailure, b.plan.OnFailure = tt.phase, tt.flag, tt.plan
		b.play = fails("a", 1)
		if r := b.run(); r.Outcome != proto.OutcomeFailed || r.Action != tt.want {
			t.Errorf("%s with plan %s, flag %q: %+v, want action %q", tt.phase, tt.plan, tt.flag, r, tt.want)
		}
	}
}

func TestCancelBetweenSteps(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
	ctx, cancel := context.WithCancel(t.Context())
	b.play = func(context.Context, string, int) proc.Result { cancel(); return proc.Result{} }
	r, err := b.try(ctx)
	if err != nil || r.Outcome != proto.OutcomeInterrupted || r.Cause.Step != "b" {
		t.Errorf("Run = %+v, %v", r, err)
	}
	b.tells("run-start", "a#1", "a#1=ok", "run-end=interrupted(b)")
	// Nothing of b ran, so it may run without anybody's word.
	if r := b.run(); r.Outcome != proto.OutcomeOK {
		t.Errorf("second Run = %+v", r)
	}
}
