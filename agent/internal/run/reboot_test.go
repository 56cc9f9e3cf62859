// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/proc"
	"provost/agent/internal/run"
	"provost/proto"
)

// rebooter is a step that may ask for reboots.
func rebooter(name string, max int) proto.Step {
	return proto.Step{Name: name, Reboot: &proto.Reboot{Max: max, Within: proto.Duration(40 * time.Minute)}}
}

// exits plays steps that end with these statuses, one for each call of a step; after the last with 0.
func (b *bench) exits(statuses map[string][]int) {
	b.play = func(_ context.Context, step string, n int) proc.Result {
		if all := statuses[step]; n <= len(all) && all[n-1] != 0 {
			return proc.Result{Outcome: proto.OutcomeFailed, Exit: all[n-1], Message: "exit"}
		}
		return proc.Result{}
	}
}

// TestReboots: what becomes of each exit status, boot by boot. The journal stays, as on an installed system.
func TestReboots(t *testing.T) {
	boots := []string{boot1, boot2, "33333333-3333-3333-3333-333333333333", "44444444-4444-4444-4444-444444444444"}
	type boot struct {
		ran    []string
		action run.Action
		end    string // of the phase: ok, a failed step, or empty
	}
	for _, tt := range []struct {
		name  string
		exits map[string][]int
		boots []boot
	}{
		{"reboot, then next", map[string][]int{"a": {64}}, []boot{{[]string{"a"}, run.ActReboot, ""}, {[]string{"b", "c"}, "", "ok"}}},
		{"reboot and again", map[string][]int{"a": {192, 192}}, []boot{{[]string{"a"}, run.ActReboot, ""}, {[]string{"a"}, run.ActReboot, ""}, {[]string{"a", "b", "c"}, "", "ok"}}},
		{"again later", map[string][]int{"a": {128}}, []boot{{[]string{"a", "b", "c", "a"}, "", "ok"}}},
		{"power off", map[string][]int{"a": {32}}, []boot{{[]string{"a"}, run.ActPoweroff, ""}, {[]string{"b", "c"}, "", "ok"}}},
		{"stop here", map[string][]int{"a": {16}}, []boot{{[]string{"a"}, "", "ok"}, {nil, "", "ok"}}},
		{"too often", map[string][]int{"a": {192, 192, 64}}, []boot{{[]string{"a"}, run.ActReboot, ""}, {[]string{"a"}, run.ActReboot, ""}, {[]string{"a"}, "", "a"}}},
		{"again too often", map[string][]int{"a": {128, 128, 128}}, []boot{{[]string{"a", "b", "c", "a", "a"}, "", "a"}}},
		{"of another step", map[string][]int{"b": {64}}, []boot{{[]string{"a", "b"}, "", "b"}}},
		{"two steps", map[string][]int{"a": {64}, "c": {192}}, []boot{{[]string{"a"}, run.ActReboot, ""}, {[]string{"b", "c"}, run.ActReboot, ""}, {[]string{"c"}, "", "ok"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, rebooter("a", 2), proto.Step{Name: "b"}, rebooter("c", 1))
				for i := range b.plan.Steps {
					b.plan.Steps[i].Phase = proto.PhaseFirstboot
				}
				b.opts.Phase = proto.PhaseFirstboot
				b.exits(tt.exits)
				for i, want := range tt.boots {
					b.boot = boots[i]
					r := b.run()
					got := boot{ran: b.ran, action: r.Action}
					switch {
					case r.Cause != nil:
						got.end = r.Cause.Step
					case r.Reboot == nil:
						got.end = string(r.Outcome)
					}
					if d := cmp.Diff(want, got, cmp.AllowUnexported(boot{})); d != "" {
						t.Fatalf("boot %d (-want +got):\n%s", i, d)
					}
					if r.Reboot == nil {
						continue
					}
					// the agent dies before the machine goes down: it asks again, and runs nothing
					if again := b.run(); len(b.ran) > 0 || again.Action != r.Action || again.Reboot == nil || again.Reboot.Seq != r.Reboot.Seq {
						t.Errorf("run again in the same boot ran %v and wants %q, want nothing and %q", b.ran, again.Action, r.Action)
					}
				}
			})
		})
	}
}

func TestRebootWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, rebooter("a", 9))
		b.plan.Steps[0].Phase, b.opts.Phase = proto.PhaseFirstboot, proto.PhaseFirstboot
		took := []time.Duration{30 * time.Minute, 9 * time.Minute, 2 * time.Minute}
		b.play = func(_ context.Context, _ string, n int) proc.Result {
			time.Sleep(took[n-1])
			return proc.Result{Outcome: proto.OutcomeFailed, Exit: proto.ExitRebootAgain, Duration: took[n-1]}
		}
		b.run()
		time.Sleep(24 * time.Hour) // no kernel runs
		b.boot = boot2
		if r := b.run(); r.Reboot == nil {
			t.Fatalf("after 39 of 40 minutes: %+v, want a reboot", r)
		}
		time.Sleep(24 * time.Hour)
		b.boot = "33333333-3333-3333-3333-333333333333"
		if r := b.run(); r.Cause == nil || !strings.Contains(r.Cause.Message, "for more 41m after its first start; its reboot: within is 40m") {
			t.Errorf("after 41 of 40 minutes: %+v, want a failure that says so", r.Cause)
		}
	})
}

// TestRebootWithoutDisk: the restart waits until the collector knows, and what it knows comes back.
func TestRebootWithoutDisk(t *testing.T) {
	for _, phase := range []proto.Phase{proto.PhasePre, proto.PhaseBoot} {
		t.Run(string(phase), func(t *testing.T) { rebootWithoutDisk(t, phase) })
	}
}

func rebootWithoutDisk(t *testing.T, phase proto.Phase) {
	synctest.Test(t, func(t *testing.T) {
		newBench := func(t *testing.T, steps ...proto.Step) *bench {
			for i := range steps {
				steps[i].Phase = phase
			}
			b := newBench(t, steps...)
			b.opts.Phase = phase
			return b
		}
		b := newBench(t, proto.Step{Name: "one"}, rebooter("a", 1), proto.Step{Name: "two"})
		b.exits(map[string][]int{"a": {192}})
		if r := b.run(); r.Cause == nil || r.Cause.Outcome != proto.OutcomePreflight || len(b.ran) > 0 {
			t.Errorf("without a collector: %+v, ran %v, want a refusal before the first step", r.Cause, b.ran)
		}

		b = newBench(t, proto.Step{Name: "one"}, rebooter("a", 1), proto.Step{Name: "two"})
		b.exits(map[string][]int{"a": {192}})
		began := time.Now()
		asked := uint64(0)
		b.acked = func(seq uint64) bool { asked = seq; return time.Since(began) > 4*time.Minute }
		if err := os.MkdirAll(filepath.Join(b.state, "run/sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.state, "run/sub/kept"), []byte("this"), 0o640); err != nil {
			t.Fatal(err)
		}
		r := b.run()
		if r.Reboot == nil || r.Reboot.Seq != asked || r.Action != run.ActReboot || time.Since(began) > 5*time.Minute {
			t.Fatalf("Run = %+v after %s, want a reboot after 4 minutes", r, time.Since(began))
		}
		b.acked = func(uint64) bool { return true }
		first := b.events()
		kept, err := os.ReadFile(filepath.Join(b.state, run.PrivateArchive))
		if err != nil {
			t.Fatal(err)
		}

		// the next boot has nothing but what the collector gave back
		next := newBench(t, b.plan.Steps...)
		next.boot, next.acked, next.progress, next.plan = boot2, b.acked, first, b.plan
		for _, s := range next.plan.Steps {
			next.script(s, "#!/bin/sh\n")
		}
		if err := os.WriteFile(filepath.Join(next.state, run.PrivateArchive), kept, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := next.run(); r.Outcome != proto.OutcomeOK || r.Reboot != nil || !slices.Equal(next.ran, []string{"a", "two"}) {
			t.Errorf("after the reboot: %+v, ran %v, want a and two", r, next.ran)
		}
		if got, err := os.ReadFile(filepath.Join(next.state, "run/sub/kept")); err != nil || string(got) != "this" {
			t.Errorf("PROVOST_RUN after the reboot has %q, %v", got, err)
		}
		if !slices.Contains(next.env, "PROVOST_REBOOTS=1") || !slices.Contains(next.env, "PROVOST_TRY=2") {
			t.Errorf("environment of a after the reboot = %q, want one reboot and the second try", next.env)
		}
	})
}

func TestRebootNotAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		verb proto.Verb
		want proto.Outcome
	}{{proto.VerbRelease, proto.OutcomeOK}, {proto.VerbAbort, proto.OutcomeAborted}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, rebooter("a", 1))
			b.exits(map[string][]int{"a": {64}})
			b.acked = func(uint64) bool { return false }
			done := make(chan run.Result, 1)
			go func() { done <- b.run() }()
			time.Sleep(11 * time.Minute)
			synctest.Wait()
			if s, err := run.ReadState(b.state); err != nil || !s.Waiting || !strings.Contains(s.Message, "has not acknowledged") {
				t.Errorf("after 11 minutes the state is %+v, %v, want a hold", s, err)
			}
			if err := run.WriteOrder(b.state, proto.Order{ID: proto.NewID(time.Now()), Verb: tt.verb}); err != nil {
				t.Fatal(err)
			}
			if r := <-done; r.Outcome != tt.want || (r.Reboot != nil) != (tt.want == proto.OutcomeOK) {
				t.Errorf("after %s: %+v", tt.verb, r)
			}
		})
	}
}
