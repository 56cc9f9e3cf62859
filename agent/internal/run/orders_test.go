// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/proc"
	"provost/agent/internal/run"
	"provost/proto"
)

// during calls f after d of the bench's time, while a run goes on.
func during(d time.Duration, f func()) { time.AfterFunc(d, f) }

func holding(t *testing.T, steps ...proto.Step) *bench {
	b := newBench(t, steps...)
	b.plan.OnFailure = proto.OnFailureHold
	return b
}

func TestHoldAndRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
		b.play = fails("a", 1)
		during(150*time.Second, func() {
			st, err := run.ReadState(b.state)
			if err != nil || !st.Waiting || !st.Alive || st.Step != "a" {
				t.Errorf("ReadState while it holds = %+v, %v", st, err)
			}
			b.order(proto.VerbRetry, "")
		})
		if r := b.run(); r.Outcome != proto.OutcomeOK || r.Cause != nil || r.Released {
			t.Errorf("Run = %+v", r)
		}
		b.tells("run-start", "a#1", "a#1=failed", "run-end=failed(a)", "hold", "retry a",
			"run-start", "a#2", "a#2=ok", "b#1", "b#1=ok", "run-end=ok")
		if len(b.said) != 3 || !strings.Contains(b.said[0], "step a") {
			t.Errorf("the consoles were told %q, want the reason at 0, 1 and 2 minutes", b.said)
		}
		es := b.events()
		if !es[4].Failed || es[4].Message == "" || es[5].Actor != "uid 0" || es[5].Message != "because" || es[5].OrderID == "" {
			t.Errorf("hold = %+v, order = %+v", es[4], es[5])
		}
	})
}

func TestHoldAndSkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
		b.play = fails("a", 99)
		during(time.Second, func() { b.order(proto.VerbSkip, "a") })
		r := b.run()
		if r.Outcome != proto.OutcomeOK || len(r.Warnings) != 1 {
			t.Errorf("Run = %+v", r)
		}
		b.tells("run-start", "a#1", "a#1=failed", "run-end=failed(a)", "hold", "skip a", "a#1=skipped", "run-start", "b#1", "b#1=ok", "run-end=ok")
	})
}

func TestHoldAndRelease(t *testing.T) {
	for _, verb := range []proto.Verb{proto.VerbRelease, proto.VerbAbort} {
		synctest.Test(t, func(t *testing.T) {
			b := holding(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
			b.play = fails("a", 99)
			during(time.Second, func() { b.order(verb, "") })
			r := b.run()
			if r.Outcome != proto.OutcomeFailed || !r.Released || r.Action != run.ActNone || r.Cause.Step != "a" {
				t.Errorf("Run = %+v", r)
			}
			b.tells("run-start", "a#1", "a#1=failed", "run-end=failed(a)", "hold", string(verb)+" a")
		})
	}
}

// TestOtherOrdersWhileHeld are refused in the journal, and do not come again.
func TestOtherOrdersWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
		b.play = fails("b", 1)
		during(1*time.Second, func() { b.order(proto.VerbSkip, "a") })
		during(2*time.Second, func() { b.order(proto.VerbRetry, "a") })
		during(3*time.Second, func() { b.order(proto.VerbHold, "") })
		during(4*time.Second, func() { b.order(proto.VerbForce, "a") })
		during(5*time.Second, func() { b.order(proto.VerbRetry, "b") })
		b.run()
		b.tells("run-start", "a#1", "a#1=ok", "b#1", "b#1=failed", "run-end=failed(b)", "hold", "skip a refused", "retry a refused", "hold refused",
			"force a", "retry b", "run-start", "a#2", "a#2=ok", "b#2", "b#2=ok", "run-end=ok")
		if left, _ := filepath.Glob(filepath.Join(b.state, "orders", "*.json")); len(left) != 0 {
			t.Errorf("orders are left: %v", left)
		}
	})
}

func TestOrderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a"})
		b.play = fails("a", 2)
		o := proto.Order{ID: proto.NewID(time.Now()), Verb: proto.VerbRetry}
		during(1*time.Second, func() { b.give(o) })
		during(5*time.Second, func() { b.give(o) }) // the heartbeat's answer has it again
		during(9*time.Second, func() { b.order(proto.VerbRetry, "") })
		b.run()
		b.tells("run-start", "a#1", "a#1=failed", "run-end=failed(a)", "hold", "retry a", "run-start", "a#2", "a#2=failed", "run-end=failed(a)",
			"hold", "retry a", "run-start", "a#3", "a#3=ok", "run-end=ok")
		// Also in the next process.
		b.give(o)
		b.plan.Steps = append(b.plan.Steps, b.script(proto.Step{Name: "z"}, "#!/bin/sh\n"))
		before := len(b.story())
		b.run()
		if d := cmp.Diff([]string{"run-start", "z#1", "z#1=ok", "run-end=ok"}, b.story()[before:]); d != "" {
			t.Errorf("with the old order again (-want +got):\n%s", d)
		}
	})
}

func TestHoldLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a"})
		b.plan.HoldLimit = proto.Duration(2 * time.Hour)
		b.play = fails("a", 1)
		begin := time.Now()
		r := b.run()
		if r.Outcome != proto.OutcomeFailed || r.Action != run.ActPoweroff || r.Cause.Step != "a" {
			t.Errorf("Run = %+v", r)
		}
		if took := time.Since(begin); took < 2*time.Hour || took > 2*time.Hour+time.Second {
			t.Errorf("held for %s, want 2h", took)
		}
		b.tells("run-start", "a#1", "a#1=failed", "run-end=failed(a)", "hold", "hold ended=aborted (warning)")
		if e := b.events()[5]; !e.Failed || !strings.Contains(e.Message, "within the hold limit of 2h: the machine is powered off") {
			t.Errorf("the hold's end = %+v", e)
		}
	})
}

func TestHoldEndsWithTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a"})
		b.play = fails("a", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := b.try(ctx)
		if err != nil || r.Outcome != proto.OutcomeFailed || r.Released || r.Action != run.ActNone {
			t.Errorf("Run = %+v, %v", r, err)
		}
		b.tells("run-start", "a#1", "a#1=failed", "run-end=failed(a)", "hold", "hold ended=interrupted (warning)")
	})
}

func TestAbortRunningStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a", Retries: 3}, proto.Step{Name: "b"})
		b.play = func(ctx context.Context, _ string, _ int) proc.Result {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), proc.ErrAbort) {
				t.Errorf("the step was ended by %v", context.Cause(ctx))
			}
			return proc.Result{Outcome: proto.OutcomeAborted, Signal: "SIGTERM"}
		}
		during(time.Minute, func() { b.order(proto.VerbAbort, "") })
		r := b.run()
		if r.Outcome != proto.OutcomeAborted || r.Cause.Cause != proto.CauseAbort || !strings.Contains(r.Cause.Message, "uid 0: because") {
			t.Errorf("Run = %+v, cause %+v", r, r.Cause)
		}
		b.tells("run-start", "a#1", "abort a", "a#1=aborted", "run-end=aborted(a)")
	})
}

func TestAbortInThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := holding(t, proto.Step{Name: "a", Retries: 20})
		b.play = fails("a", 99)
		during(100*time.Second, func() { b.order(proto.VerbAbort, "") })
		if r := b.run(); r.Outcome != proto.OutcomeAborted {
			t.Errorf("Run = %+v", r)
		}
	})
}

func TestOperatorsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
		b.play = func(_ context.Context, s string, _ int) proc.Result {
			if s == "a" {
				b.order(proto.VerbHold, "")
				during(10*time.Minute, func() { b.order(proto.VerbRelease, "") })
			}
			return proc.Result{}
		}
		begin := time.Now()
		if r := b.run(); r.Outcome != proto.OutcomeOK {
			t.Errorf("Run = %+v", r)
		}
		if took := time.Since(begin); took < 10*time.Minute {
			t.Errorf("held for %s, want 10m", took)
		}
		b.tells("run-start", "a#1", "a#1=ok", "hold", "hold by hold", "release", "b#1", "b#1=ok", "run-end=ok")
		if e := b.events()[4]; e.Failed || e.Actor != "uid 0" {
			t.Errorf("hold = %+v", e)
		}
	})
}

// TestHeldOn: an order that changes something, but does not end an operator's hold, is followed by the hold's own record: whoever
// reads the journal must not think that it goes on.
func TestHeldOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"}, proto.Step{Name: "c"})
		b.play = func(_ context.Context, s string, _ int) proc.Result {
			if s == "a" {
				b.order(proto.VerbHold, "")
				during(1*time.Minute, func() { b.order(proto.VerbSkip, "c") })
				during(2*time.Minute, func() { b.order(proto.VerbSkip, "a") })
				during(3*time.Minute, func() { b.order(proto.VerbRelease, "") })
			}
			return proc.Result{}
		}
		b.run()
		b.tells("run-start", "a#1", "a#1=ok", "hold", "hold by hold", "skip c", "c#1=skipped", "hold by hold", "skip a refused", "release", "b#1", "b#1=ok", "run-end=ok")
	})
}

func TestWaitFile(t *testing.T) {
	for _, how := range []string{"removed", "released"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
			if err := os.WriteFile(b.opts.WaitFile, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			during(time.Hour, func() {
				if how == "removed" {
					os.Remove(b.opts.WaitFile)
				} else {
					b.order(proto.VerbRelease, "")
				}
			})
			begin := time.Now()
			if r := b.run(); r.Outcome != proto.OutcomeOK || time.Since(begin) < time.Hour {
				t.Errorf("%s: Run = %+v after %s", how, r, time.Since(begin))
			}
			word := map[string]string{"removed": "hold by wait ended=ok", "released": "release"}[how]
			b.tells("run-start", "hold by wait", word, "a#1", "a#1=ok", "b#1", "b#1=ok", "run-end=ok")
		})
	}
}

func TestOrdersWithNothingWrong(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"}, proto.Step{Name: "c"})
	b.play = func(_ context.Context, s string, _ int) proc.Result {
		if s == "a" {
			b.order(proto.VerbRetry, "")
			time.Sleep(2 * time.Millisecond) // ids sort by the millisecond
			b.order(proto.VerbRelease, "")
			time.Sleep(2 * time.Millisecond)
			b.order(proto.VerbSkip, "c")
			time.Sleep(2 * time.Millisecond)
			b.order(proto.VerbSkip, "nonsense")
			if err := os.WriteFile(filepath.Join(b.state, "orders", "x.json"), []byte("{"), 0o600); err != nil {
				t.Error(err)
			}
		}
		return proc.Result{}
	}
	if r := b.run(); r.Outcome != proto.OutcomeOK {
		t.Errorf("Run = %+v", r)
	}
	b.tells("run-start", "a#1", "a#1=ok", "note (warning)", "retry b refused", "release refused", "skip c", "c#1=skipped", "skip nonsense refused",
		"b#1", "b#1=ok", "run-end=ok")
}

func TestRetryWithNewPlan(t *testing.T) {
	for _, good := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := holding(t, proto.Step{Name: "a"}, proto.Step{Name: "b"}, proto.Step{Name: "c"})
			b.play = fails("b", 1)
			next := b.plan
			next.Revision = 2
			next.Steps = []proto.Step{b.plan.Steps[0], b.script(proto.Step{Name: "b"}, "#!/bin/sh\n# mended\n"), b.script(proto.Step{Name: "d"}, "#!/bin/sh\n")}
			b.load = func(*proto.SignedPlan) (*proto.Plan, string, error) {
				if !good {
					return nil, "", errors.New("signature does not match")
				}
				return &next, strings.Repeat("e", 64), nil
			}
			during(time.Second, func() {
				b.give(proto.Order{ID: proto.NewID(time.Now()), Verb: proto.VerbRetry, Plan: &proto.SignedPlan{Payload: []byte("{}")}})
			})
			during(time.Minute, func() { b.order(proto.VerbRelease, "") })
			r := b.run()
			if !good {
				b.tells("run-start", "a#1", "a#1=ok", "b#1", "b#1=failed", "run-end=failed(b)", "hold", "retry refused", "release b")
				return
			}
			if r.Outcome != proto.OutcomeOK {
				t.Errorf("Run = %+v", r)
			}
			b.tells("run-start", "a#1", "a#1=ok", "b#1", "b#1=failed", "run-end=failed(b)", "hold", "note", "retry b",
				"run-start", "b#2", "b#2=ok", "d#1", "d#1=ok", "run-end=ok")
			es := b.events()
			if got, want := es[7].Message, "plan revision 2: b has changed, d is new, c is gone"; got != want {
				t.Errorf("note = %q, want %q", got, want)
			}
			if es[9].Plan != strings.Repeat("e", 64) {
				t.Errorf("run-start has plan %q", es[9].Plan)
			}
		})
	}
}

func TestWriteOrderRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []proto.Order{{}, {ID: "../x", Verb: proto.VerbRetry}, {ID: "a/b", Verb: proto.VerbRetry}, {ID: "x", Verb: "dance"}} {
		if err := run.WriteOrder(dir, o); err == nil {
			t.Errorf("WriteOrder(%+v) was taken", o)
		}
	}
}
