// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestUsual: the times of installs that came to their end say what is usual for the next one of the profile, also after a
// restart; a node far beyond it is said to be slow, and is not failed by that.
func TestUsual(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\n"})
	s.Profiles.Put("compute", p)
	start := func(i byte) (name, id string, reach func(seq uint64, boot byte, stage string)) {
		name = fmt.Sprintf("n%d", i)
		d := s.Script(func() string { m := s.Add(name, i); s.Ordered(name); return m }())
		if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
			t.Fatal(err)
		}
		return name, d.Install, func(seq uint64, boot byte, stage string) {
			t.Helper()
			send(t, s, d.Install, event(seq, proto.KindStage, boot, func(e *proto.Event) { e.Stage, e.OffsetMS = stage, 60_000 }))
		}
	}
	// The waits after post-started are 1, 2, … 6 minutes. What comes after them is not usual: one install waited for an operator,
	// one was overdue, and of one the collector was down in the middle.
	const waited, overdue, down = 7, 8, 9
	for i := byte(1); i <= 9; i++ {
		name, id, reach := start(i)
		if n := s.Seen(name); i <= 5 && n.Deadline != nil && n.Deadline.Usual != nil {
			t.Errorf("after %d installs something is called usual: %+v", i-1, n.Deadline.Usual)
		}
		reach(1, 1, "agent-started")
		pass(t, s, 30*time.Second)
		reach(2, 1, "post-started")
		next := uint64(3)
		switch i {
		case waited:
			pass(t, s, 20*time.Minute)
			send(t, s, id, event(3, proto.KindOrder, 1, func(e *proto.Event) { e.Order, e.OffsetMS = "release", 60_000 }))
			next++
		case overdue:
			pass(t, s, 3*time.Hour)
			if n := s.Seen(name); n.Status != proto.StatusFailed {
				t.Fatalf("%s is %s after hours", name, n.Summary)
			}
		case down:
			s.Clock.Advance(20 * time.Minute)
			pass(t, s, 5*time.Second)
		default:
			pass(t, s, time.Duration(i)*time.Minute)
		}
		for k, stage := range []string{"post-done", "sealed"} {
			pass(t, s, 10*time.Second)
			reach(next+uint64(k), 1, stage)
		}
		pass(t, s, 10*time.Second)
		e := event(1, proto.KindStage, 2, func(e *proto.Event) { e.Stage, e.OffsetMS = "booted", 30_000 })
		q := request(id, "00000000000000b2", e)
		q.Clock.Boot = registrytest.Boot(2)
		if _, err := s.Events(ctx, id, q); err != nil {
			t.Fatal(err)
		}
		if n := s.Seen(name); n.Status != proto.StatusBooted {
			t.Fatalf("%s is %s: %+v", name, n.Summary, n.Warnings)
		}
	}
	pass(t, s, 10*time.Second)
	s.Restart()
	name, _, reach := start(10)
	reach(1, 1, "agent-started")
	pass(t, s, 10*time.Second)
	reach(2, 1, "post-started")
	now := s.Clock.Now()
	u := s.Seen(name).Deadline.Usual
	// With the 10 s to post-done's report.
	if want := (proto.Usual{MedianMS: 190_000, P90MS: 370_000, Installs: 6, SlowAt: now.Add(740 * time.Second)}); u == nil || *u != want {
		t.Errorf("usual = %+v, want %+v", u, want)
	}
	pass(t, s, 15*time.Minute)
	if n := s.Seen(name); n.Deadline == nil || n.Deadline.Usual == nil || n.Deadline.Usual.SlowAt.After(s.Clock.Now()) || n.Status != proto.StatusPostinstall {
		t.Errorf("after 15 minutes: %s, %+v, want slow and not failed", n.Summary, n.Deadline)
	}
}
