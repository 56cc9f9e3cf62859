// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestInterleavedInstalls sends what the agents of a superseded install and of the newest one of the same node say, in any
// interleaving, with repeats, and under the same journal id or two. Each install ends as it does when they come one after the
// other, and no request of the old one changes what is seen of the node or remembered of its steps.
func TestInterleavedInstalls(t *testing.T) {
	old := func() []proto.Event { // all that could mislead: it reaches every stage, fails, remembers a change and seals
		at := func(seq uint64, kind proto.Kind, edit func(*proto.Event)) proto.Event {
			return event(seq, kind, 1, edit)
		}
		return []proto.Event{
			at(1, proto.KindAgentStart, func(e *proto.Event) { e.Stage = "agent-started" }),
			at(2, proto.KindRunStart, func(e *proto.Event) { e.Stage, e.Phase = "post-started", proto.PhasePost }),
			at(3, proto.KindStepStart, func(e *proto.Event) { e.Phase, e.Step, e.Try = proto.PhasePost, "one", 1 }),
			at(4, proto.KindStepEnd, func(e *proto.Event) {
				e.Phase, e.Step, e.Try, e.Outcome, e.Change = proto.PhasePost, "one", 1, proto.OutcomeOK, proto.Digest([]byte("old"))
			}),
			at(5, proto.KindHold, func(e *proto.Event) { e.Message, e.Failed = "waits", true }),
			at(6, proto.KindOrder, func(e *proto.Event) { e.Order, e.Step, e.OrderID = string(proto.VerbRetry), "one", "x" }),
			at(7, proto.KindStepEnd, func(e *proto.Event) {
				e.Phase, e.Step, e.Try, e.Outcome, e.Exit = proto.PhasePost, "one", 2, proto.OutcomeFailed, 9
			}),
			at(8, proto.KindSealed, func(e *proto.Event) { e.Stage = "sealed" }),
			at(9, proto.KindStage, func(e *proto.Event) { e.Stage = "booted" }),
		}
	}
	newest := func() []proto.Event {
		at := func(seq uint64, kind proto.Kind, edit func(*proto.Event)) proto.Event {
			return event(seq, kind, 2, edit)
		}
		return []proto.Event{
			at(1, proto.KindAgentStart, func(e *proto.Event) { e.Stage = "agent-started" }),
			at(2, proto.KindRunStart, func(e *proto.Event) { e.Stage, e.Phase = "post-started", proto.PhasePost }),
			at(3, proto.KindStepStart, func(e *proto.Event) { e.Phase, e.Step, e.Try = proto.PhasePost, "one", 1 }),
			at(4, proto.KindStepEnd, func(e *proto.Event) { e.Phase, e.Step, e.Try, e.Outcome = proto.PhasePost, "one", 1, proto.OutcomeOK }),
			at(5, proto.KindRunEnd, func(e *proto.Event) { e.Stage, e.Phase, e.Outcome = "post-done", proto.PhasePost, proto.OutcomeOK }),
		}
	}
	s := registrytest.New(t)
	type move struct{ which, from, n int }
	type end struct {
		node    proto.Node
		old     string
		changes int
	}
	nodes := 0
	play := func(t testing.TB, journals [2]string, moves []move) end {
		nodes++
		name, mac := fmt.Sprintf("p%d", nodes), fmt.Sprintf("52:54:00:00:%02x:%02x", nodes>>8, nodes&255)
		if _, err := s.AddNode(ctx, proto.NodeSpec{Name: name, MACs: []string{mac}, Profile: "compute"}); err != nil {
			t.Fatal(err)
		}
		var ids [2]string
		for i := range ids {
			ids[i] = s.Ordered(name)
			if _, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(byte(i+1)))); err != nil {
				t.Fatal(err)
			}
			s.Clock.Advance(time.Minute)
		}
		all := [2][]proto.Event{old(), newest()}
		other := func() int { // the events of the newest install
			list, err := s.InstallEvents(name, ids[1])
			if err != nil {
				t.Fatal(err)
			}
			return len(list.Events)
		}
		for _, m := range moves {
			before, had := s.Seen(name), other()
			list := all[m.which]
			q := request(ids[m.which], journals[m.which], list[min(m.from, len(list)):min(m.from+m.n, len(list))]...)
			q.Clock.Boot = registrytest.Boot(byte(m.which + 1))
			if _, err := s.Events(ctx, ids[m.which], q); err != nil {
				t.Fatal(err)
			}
			if m.which == 1 {
				continue
			}
			beat := &proto.Heartbeat{Schema: 1, Install: ids[0], Clock: q.Clock, Waiting: true, Message: "old", Phase: proto.PhasePost, Step: "old"}
			if b, err := s.Heartbeat(ctx, ids[0], "10.0.0.99", beat); err != nil || len(b.Orders) > 0 {
				t.Fatalf("heartbeat of the old install = %+v, %v", b, err)
			}
			if diff := cmp.Diff(before, s.Seen(name)); diff != "" || other() != had {
				t.Fatalf("the old install changed the node (-before +after):\n%s", diff)
			}
		}
		a, err := s.Hello(ctx, ids[1], &proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: registrytest.Boot(2)}, Journal: journals[1]})
		if err != nil {
			t.Fatal(err)
		}
		in, err := s.Install(name, ids[0])
		if err != nil {
			t.Fatal(err)
		}
		n := s.Seen(name)
		n.Name, n.MACs, n.Install, n.Revision, n.Since, n.LastSeen, n.Deadline = "", nil, "", 0, time.Time{}, time.Time{}, nil
		return end{n, in.Summary, len(a.Changes.Done)}
	}
	compare := func(t testing.TB, want, got end) {
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(end{})); diff != "" {
			t.Fatalf("it ends differently (-one after the other +interleaved):\n%s", diff)
		}
	}
	const a1, b2 = "00000000000000a1", "00000000000000b2"
	last := []move{{0, 0, 99}, {1, 0, 99}}
	want := play(t, [2]string{a1, b2}, last)
	if want.node.Summary != "postinstall" || want.node.BootAction != proto.BootInstall || want.old != "failed(one=9)" || want.changes != 0 {
		t.Fatalf("one after the other they end as %s, %s, %s with %d changes", want.node.Summary, want.node.BootAction, want.old, want.changes)
	}
	rapid.Check(t, func(rt *rapid.T) {
		moves := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) move {
			return move{rapid.IntRange(0, 1).Draw(rt, "which"), rapid.IntRange(0, 8).Draw(rt, "from"), rapid.IntRange(0, 4).Draw(rt, "n")}
		}), 1, 12).Draw(rt, "moves")
		journals := [2]string{a1, rapid.SampledFrom([]string{a1, b2}).Draw(rt, "journal")}
		if rapid.Bool().Draw(rt, "newest ends first") {
			moves = append(moves, last[1], last[0])
		} else {
			moves = append(moves, last...)
		}
		tb := rapidTB{t, rt}
		compare(tb, want, play(tb, journals, moves))
	})
}
