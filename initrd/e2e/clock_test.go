// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"slices"
	"testing"
	"time"

	"provost/proto"
)

// TestClock: one postscript sets the machine's clock to 1999, the next one to 2040. The install goes on: no certificate, plan
// or deadline is judged by that clock. What lasted how long, and when it really was, the collector tells as it was.
func TestClock(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`steps:
  - {name: past, phase: post, timeout: 1m}
  - {name: future, phase: post, timeout: 1m}
  - {name: after, phase: post, timeout: 1m}
`, map[string]string{
		"past":   `sleep 1; date -u -s '1999-06-01 12:00:00'; sleep 2`,
		"future": `sleep 1; date -u -s '2040-06-01 12:00:00'; sleep 2`,
		"after":  `sleep 3; echo "it is $(date -u +%Y)"`,
	})
	m := order(t, ctx, l)
	begin := time.Now().Add(-time.Second) // times are stored in milliseconds
	m.powerOn()
	n := m.await("sealed", func(n proto.Node) bool { return n.BootAction == proto.BootDisk })
	m.down()
	end := time.Now().Add(time.Second)
	is(t, "attempt", n.Attempt, 1)
	if n.Cause != nil {
		t.Errorf("cause = %+v, want none", n.Cause)
	}

	events := m.events()
	wantComplete(t, events, 1)
	wantOrder(t, events, "agent-started", "installer-started", "partitioned", "packages-done", "post-started", "post-done", "sealed")
	for step, years := range map[string][2]int{"past": {0, 1999}, "future": {1999, 2040}, "after": {2040, 2040}} {
		started, _ := stepEvent(events, proto.KindStepStart, step)
		ended, ok := stepEvent(events, proto.KindStepEnd, step)
		if !ok || ended.Outcome != proto.OutcomeOK {
			t.Errorf("step %s ended %+v, want ok", step, ended)
			continue
		}
		if got := [2]int{started.Time.Year(), ended.Time.Year()}; got[1] != years[1] || years[0] != 0 && got[0] != years[0] {
			t.Errorf("step %s lasted from %d to %d by the machine's clock, want %d to %d: this test tests nothing", step, got[0], got[1], years[0], years[1])
		}
		took, by := time.Duration(ended.DurationMS)*time.Millisecond, ended.At.Sub(started.At)
		if took < 3*time.Second || took > time.Minute || by < took || by > took+30*time.Second {
			t.Errorf("step %s took %s, and %s by the collector; want 3 s and little more of both", step, took, by)
		}
	}
	for _, e := range events {
		if e.At.Before(begin) && e.Source == proto.SourceAgent || e.At.After(end) {
			t.Errorf("event %s %s %s was at %s, want between %s and %s", e.Kind, e.Step, e.Stage, e.At, begin, end)
		}
	}
	records := slices.DeleteFunc(slices.Clone(events), func(e proto.Event) bool { return e.Source != proto.SourceAgent })
	slices.SortFunc(records, func(a, b proto.Event) int { return int(a.Seq) - int(b.Seq) })
	if !slices.IsSortedFunc(records, func(a, b proto.Event) int { return a.At.Compare(b.At) }) {
		t.Error("the records of the journal are not in the order of their true times")
	}
	wantLog(m, "after", "it is 2040")
}
