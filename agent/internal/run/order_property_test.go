// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"provost/agent/internal/proc"
	"provost/proto"
)

// crash stands for a kill -9 of the agent under a step.
type crash struct{}

// timeless hides the test's deadline from rapid: a bubble of synctest has no real time.
type timeless struct{ testing.TB }

// TestPlanOrderProperty calls Run until the phase is done, with steps that succeed, fail and crash as chance has it, and
// checks what was run against the few rules that hold for every plan.
func TestPlanOrderProperty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := t.TempDir()
		n := 0
		rapid.Check(timeless{t}, func(rt *rapid.T) {
			n++
			var steps []proto.Step
			for i := range rapid.IntRange(0, 5).Draw(rt, "steps") {
				steps = append(steps, proto.Step{Name: fmt.Sprintf("s%d", i), Retries: rapid.IntRange(0, 2).Draw(rt, "retries"),
					Rerunnable: rapid.Bool().Draw(rt, "rerunnable"), OnFailure: rapid.SampledFrom([]string{"fail", "warn"}).Draw(rt, "on-failure"),
					Run: rapid.SampledFrom([]proto.RunPolicy{proto.RunAlways, proto.RunOnce}).Draw(rt, "run")})
			}
			b := newBench(t, steps...)
			b.state = filepath.Join(top, fmt.Sprint(n))
			if err := os.MkdirAll(filepath.Join(b.state, "files"), 0o700); err != nil {
				rt.Fatal(err)
			}
			for i, s := range b.plan.Steps {
				b.plan.Steps[i] = b.script(s, "#!/bin/sh\n")
			}
			m := model{rt: rt, b: b, done: map[string]bool{}, crashed: map[string]bool{}}
			b.play = m.play
			for calls := 0; !m.call(); calls++ {
				if calls > 60 {
					rt.Fatalf("the plan does not come to an end")
				}
			}
			m.journalIsWhole()
		})
	})
}

// model knows what must be true of the steps so far.
type model struct {
	rt      *rapid.T
	b       *bench
	done    map[string]bool // need not and must not run again
	crashed map[string]bool // may be half done: must not run again without an order
	broken  bool            // in this call a step failed for good
	tries   map[string]int  // in this call
}

func (m *model) step(name string) proto.Step {
	i := slices.IndexFunc(m.b.plan.Steps, func(s proto.Step) bool { return s.Name == name })
	return m.b.plan.Steps[i]
}

func (m *model) play(_ context.Context, name string, _ int) proc.Result {
	s := m.step(name)
	for _, before := range m.b.plan.Steps {
		if before.Name == name {
			break
		}
		if !m.done[before.Name] {
			m.rt.Fatalf("%s ran before %s was done", name, before.Name)
		}
	}
	if m.done[name] || m.broken || m.crashed[name] && !s.Rerunnable {
		m.rt.Fatalf("%s ran: done %v, plan broken %v, crashed %v", name, m.done[name], m.broken, m.crashed[name])
	}
	m.crashed[name] = false
	m.tries[name]++
	switch rapid.SampledFrom([]string{"ok", "ok", "fail", "crash"}).Draw(m.rt, name) {
	case "ok":
		m.done[name] = true
		return proc.Result{}
	case "crash":
		m.crashed[name] = true
		panic(crash{})
	}
	if m.tries[name] > s.Retries+1 {
		m.rt.Fatalf("%s was tried %d times with %d retries", name, m.tries[name], s.Retries)
	}
	if m.tries[name] == s.Retries+1 {
		m.done[name] = s.OnFailure == "warn"
		m.broken = s.OnFailure != "warn"
	}
	return failing(1)
}

// call is one life of an agent process; it reports whether the phase is done.
func (m *model) call() (over bool) {
	m.broken, m.tries = false, map[string]int{}
	waiting := slices.IndexFunc(m.b.plan.Steps, func(s proto.Step) bool { return m.crashed[s.Name] && !s.Rerunnable })
	if waiting >= 0 && rapid.Bool().Draw(m.rt, "retry") {
		m.b.give(proto.Order{ID: proto.NewID(time.Now()), Verb: proto.VerbRetry, Step: m.b.plan.Steps[waiting].Name})
		m.crashed[m.b.plan.Steps[waiting].Name] = false
		waiting = -1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // a process that dies takes its goroutines along
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			cancel()
			synctest.Wait()
		}
	}()
	r, err := m.b.try(ctx)
	if err != nil {
		m.rt.Fatalf("Run: %v", err)
	}
	all := !slices.ContainsFunc(m.b.plan.Steps, func(s proto.Step) bool { return !m.done[s.Name] })
	switch {
	case (r.Outcome == proto.OutcomeOK) != all:
		m.rt.Fatalf("Run = %s, all steps done: %v", r.Outcome, all)
	case m.broken && r.Outcome != proto.OutcomeFailed:
		m.rt.Fatalf("Run = %s with a failed step", r.Outcome)
	case waiting >= 0 && (r.Outcome != proto.OutcomeInterrupted || r.Cause.Step != m.b.plan.Steps[waiting].Name):
		m.rt.Fatalf("Run = %s with an interrupted step", r.Outcome)
	}
	return all
}

// journalIsWhole checks that every start has one end and that tries are counted without a gap.
func (m *model) journalIsWhole() {
	open := map[string]int{}
	last := map[string]int{}
	for _, e := range m.b.events() {
		switch e.Kind {
		case proto.KindStepStart:
			if open[e.Step] != 0 || e.Try != last[e.Step]+1 {
				m.rt.Fatalf("%s: try %d begins after try %d, open %d", e.Step, e.Try, last[e.Step], open[e.Step])
			}
			open[e.Step], last[e.Step] = e.Try, e.Try
		case proto.KindStepEnd:
			if open[e.Step] != e.Try {
				m.rt.Fatalf("%s: try %d ends, open is %d", e.Step, e.Try, open[e.Step])
			}
			open[e.Step] = 0
		}
	}
	for s, try := range open {
		if try != 0 && !m.crashed[s] {
			m.rt.Fatalf("%s: try %d has no end", s, try)
		}
	}
}
