// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"slices"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// pass lets time go by as a running collector sees it.
func pass(t *testing.T, s *registrytest.Site, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= 5 * time.Second {
		s.Clock.Advance(min(d, 5*time.Second))
		if err := s.Alive(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Expire(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExpire(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	for _, tt := range []struct {
		pass    time.Duration
		do      func()
		summary string
	}{
		{14 * time.Minute, nil, "ordered"},
		{2 * time.Minute, nil, "stalled(dhcp-discover)"},
		{0, func() { s.Script(mac) }, "pxe-booting"},
		{time.Minute, nil, "pxe-booting"},
		{2 * time.Minute, nil, "stalled(kernel-sent)"},
		{2 * time.Minute, nil, "failed(stage-deadline)"},
		{10 * time.Minute, nil, "failed(stage-deadline)"},
		{0, func() { s.Sent(ctx, s.Script(mac).Ticket, "images/vmlinuz", true) }, "pxe-booting"},
	} {
		pass(t, s, tt.pass)
		if tt.do != nil {
			tt.do()
		}
		if n := s.Seen("n1"); n.Summary != tt.summary {
			t.Fatalf("after %v: %s, want %s", tt.pass, n.Summary, tt.summary)
		}
	}
	want := []string{"ordered", "stalled:dhcp-discover", "attempt:bootscript-sent", "stalled:kernel-sent", "deadline:kernel-sent", "stage:kernel-sent"}
	if got := kinds(t, s, "n1", id); !slices.Equal(got, want) {
		t.Errorf("events = %v, want %v", got, want)
	}
}

// TestDowntime: while the collector is off nothing expires, and afterwards everything has that much more time.
func TestDowntime(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Ordered("n1")
	pass(t, s, 10*time.Minute)
	before := s.Seen("n1").Deadline.At
	s.Clock.Advance(24 * time.Hour)
	s.Restart()
	if got, want := s.Seen("n1").Deadline.At, before.Add(24*time.Hour+time.Minute); !got.Equal(want) {
		t.Errorf("the deadline is %v, want %v: a day and the grace later", got, want)
	}
	pass(t, s, 5*time.Minute)
	if n := s.Seen("n1"); n.Status != proto.StatusOrdered {
		t.Errorf("the collector's downtime was counted: %s", n.Summary)
	}
	s.Restart() // a short one: no downtime
	pass(t, s, 2*time.Minute)
	if n := s.Seen("n1"); n.Summary != "stalled(dhcp-discover)" {
		t.Errorf("after its time the node is %s", n.Summary)
	}
}

func TestExpireLeavesOthers(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	s.Add("n2", 2)
	first := s.Ordered("n2")
	if err := s.Order(ctx, []string{"n2"}, proto.InstallOrder{NextBoot: true}, "op"); err != nil {
		t.Fatal(err)
	}
	pass(t, s, 200*time.Minute)
	if n := s.Seen("n1"); n.Summary != "failed(one=127)" || !n.Waiting || n.Deadline != nil {
		t.Errorf("a node that waits is %s, waiting %v", n.Summary, n.Waiting)
	}
	if n := s.Seen("n2"); n.Status != proto.StatusOrdered {
		t.Errorf("a node for its next boot is %s", n.Summary)
	}
	if got := kinds(t, s, "n2", first); !slices.Equal(got, []string{"ordered", "superseded"}) {
		t.Errorf("events of a superseded install = %v", got)
	}
	// After an order the whole install's time begins anew: it stood still while the node waited.
	send(t, s, id, event(7, proto.KindOrder, 1, func(e *proto.Event) { e.Order, e.Step = "retry", "one"; e.OffsetMS = 60_000 }))
	pass(t, s, time.Minute)
	if n := s.Seen("n1"); n.Status == proto.StatusStalled || n.Status == proto.StatusFailed {
		t.Errorf("right after the retry the node is %s", n.Summary)
	}
}

// TestClockJumps: a clock that is set forward is as if the collector had been off, and one that is set back makes nothing
// overdue before its time.
func TestClockJumps(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Ordered("n1")
	pass(t, s, 10*time.Minute)
	before := s.Seen("n1").Deadline.At
	s.Clock.Advance(time.Hour)
	pass(t, s, 5*time.Second)
	d := s.Seen("n1").Deadline
	if moved := time.Duration(d.MovedMS) * time.Millisecond; d.At.Sub(before) < time.Hour || moved != d.At.Sub(before) {
		t.Errorf("the clock was set forward by an hour: the deadline moved by %v, and says %v", d.At.Sub(before), moved)
	}
	s.Clock.Advance(-time.Hour)
	pass(t, s, 4*time.Minute)
	if n := s.Seen("n1"); n.Status != proto.StatusOrdered {
		t.Errorf("the clock was set back, and before 15 minutes had passed the node is %s", n.Summary)
	}
	s.Restart()
	pass(t, s, 3*time.Hour)
	if n := s.Seen("n1"); n.Status != proto.StatusFailed {
		t.Errorf("hours later the node is %s", n.Summary)
	}
}

// TestExpireInPieces: when the time of many is over at once, others have their turn in between, and each is told of once.
func TestExpireInPieces(t *testing.T) {
	s := registrytest.New(t)
	const nodes = 1500
	names := many(t, s, nodes)
	if err := s.Order(ctx, names, proto.InstallOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(16 * time.Minute)
	commits := func() (n uint64) {
		for _, c := range s.Store.Stats().Commits {
			n += c
		}
		return n
	}
	before, first := s.Revision(), commits()
	if n, err := s.Expire(ctx); n != nodes || err != nil {
		t.Errorf("Expire = %d, %v, want %d", n, err, nodes)
	}
	if n := commits() - first; n < 3 || s.Revision() != before+nodes {
		t.Errorf("%d commits and %d events, want three and %d", n, s.Revision()-before, nodes)
	}
	for _, name := range names {
		if n := s.Seen(name); n.Status != proto.StatusStalled {
			t.Fatalf("%s is %s", name, n.Summary)
		}
	}
	if n, err := s.Expire(ctx); n != 0 || err != nil {
		t.Errorf("Expire again = %d, %v, want 0", n, err)
	}
}
