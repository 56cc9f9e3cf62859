// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"slices"
	"testing"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// held makes a node that waits after its step failed, and gives its install.
func held(t *testing.T, s *registrytest.Site) string {
	t.Helper()
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	d := s.Script(mac)
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(100e9)
	post := func(e *proto.Event) { e.Phase = proto.PhasePost }
	step := func(e *proto.Event) { e.Phase, e.Step, e.Try = proto.PhasePost, "one", 1 }
	send(t, s, d.Install,
		event(1, proto.KindAgentStart, 1, func(e *proto.Event) { e.Stage = "agent-started" }),
		event(2, proto.KindRunStart, 1, post, func(e *proto.Event) { e.Stage = "post-started" }),
		event(3, proto.KindStepStart, 1, step),
		event(4, proto.KindStepEnd, 1, step, func(e *proto.Event) { e.Outcome, e.Exit = proto.OutcomeFailed, 127 }),
		event(5, proto.KindRunEnd, 1, step, func(e *proto.Event) { e.Outcome, e.Exit = proto.OutcomeFailed, 127 }),
		event(6, proto.KindHold, 1, func(e *proto.Event) { e.Message, e.Failed = "waiting", true }))
	if n := s.Seen("n1"); n.Summary != "failed(one=127)" || !n.Waiting {
		t.Fatalf("the node is %s, waiting %v", n.Summary, n.Waiting)
	}
	return d.Install
}

func beat(t *testing.T, s *registrytest.Site, id string) []proto.Order {
	t.Helper()
	a, err := s.Heartbeat(t.Context(), id, "10.0.0.7", &proto.Heartbeat{Schema: 1, Install: id, Waiting: true})
	if err != nil {
		t.Fatal(err)
	}
	return a.Orders
}

func TestOrders(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	command := func(v proto.Verb, o proto.NodeOrder) string { return code(s.Command(ctx, []string{"n1"}, v, o, "op")) }
	for _, tt := range []struct {
		verb proto.Verb
		o    proto.NodeOrder
		code string
	}{
		{"x", proto.NodeOrder{}, proto.CodeBadRequest},
		{proto.VerbForce, proto.NodeOrder{}, proto.CodeBadRequest},
		{proto.VerbHold, proto.NodeOrder{Step: "one"}, proto.CodeBadRequest},
		{proto.VerbRetry, proto.NodeOrder{Step: "a b"}, proto.CodeBadRequest},
		{proto.VerbRetry, proto.NodeOrder{Action: proto.BootDisk}, proto.CodeBadRequest},
		{proto.VerbRetry, proto.NodeOrder{Reason: "try"}, ""},
		{proto.VerbRetry, proto.NodeOrder{}, ""}, // the same again is one
		{proto.VerbForce, proto.NodeOrder{Step: "all"}, ""},
	} {
		if got := command(tt.verb, tt.o); got != tt.code {
			t.Errorf("%s %+v = %q, want %q", tt.verb, tt.o, got, tt.code)
		}
	}
	s.Restart()
	want := []proto.Pending{{Verb: proto.VerbRetry, Since: s.Clock.Now(), Actor: "op"}, {Verb: proto.VerbForce, Step: "all", Since: s.Clock.Now(), Actor: "op"}}
	if n := s.Seen("n1"); n.Summary != "failed(one=127)" || !slices.Equal(n.Orders, want) || !proto.Resumes(n.Orders) {
		t.Errorf("with orders that are not acknowledged the node is %s with %+v, want them all", n.Summary, n.Orders)
	}
	orders := beat(t, s, id)
	if len(orders) != 2 || orders[0].Verb != proto.VerbRetry || orders[0].Reason != "try" || orders[0].Actor != "op" || orders[0].Plan != nil || orders[1].Step != "all" {
		t.Fatalf("orders = %+v, want retry and force", orders)
	}
	send(t, s, id, event(7, proto.KindOrder, 1, func(e *proto.Event) { e.Order, e.OrderID, e.Step = "retry", orders[0].ID, "one" }))
	if left := beat(t, s, id); len(left) != 1 || left[0].ID != orders[1].ID {
		t.Errorf("orders after the acknowledgement = %+v, want force only", left)
	}
	if got := command(proto.VerbSkip, proto.NodeOrder{}); got != proto.CodeConflict {
		t.Errorf("skip of a node that does not wait = %q, want conflict", got)
	}
	if n := s.Seen("n1"); n.Status == proto.StatusFailed || n.Waiting || len(n.Orders) != 1 || proto.Resumes(n.Orders) {
		t.Errorf("after the retry the node is %s, waiting %v, orders %v", n.Summary, n.Waiting, n.Orders)
	}
	s.Add("n2", 2)
	if got := code(s.Command(ctx, []string{"n1", "n2"}, proto.VerbHold, proto.NodeOrder{}, "op")); got != proto.CodeConflict {
		t.Errorf("hold of two, one without an install = %q, want conflict", got)
	}
	if left := beat(t, s, id); len(left) != 1 {
		t.Errorf("a refused order was given to one of its nodes: %+v", left)
	}
}

func TestRetryTakesTheNewPlan(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho mended\n"})
	s.Profiles.Put("compute", p)
	if err := s.Command(ctx, []string{"n1"}, proto.VerbRetry, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	orders := beat(t, s, id)
	if len(orders) != 1 || orders[0].Plan == nil {
		t.Fatalf("orders = %+v, want a retry with a plan", orders)
	}
	plan, err := proto.DecodePlan(orders[0].Plan.Payload)
	if err != nil || plan.Revision != 2 || plan.Steps[0].Digest != p.Steps[0].Digest {
		t.Errorf("plan = %+v, %v: want revision 2 with the new script", plan, err)
	}
	for _, digest := range []string{p.Steps[0].Digest, registrytest.Prepared("x", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho one\n"}).Steps[0].Digest} {
		if _, err := s.File(id, digest); err != nil {
			t.Errorf("File(%s) = %v: both revisions' scripts are the agent's", digest, err)
		}
	}
	if _, err := s.File(id, proto.Digest([]byte("other"))); code(err) != proto.CodeNotFound {
		t.Errorf("File of a digest that is not in the plan = %v", err)
	}
}

func TestAbort(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{Reason: "wrong node"}, "op"); err != nil {
		t.Fatal(err)
	}
	n := s.Seen("n1")
	if n.Summary != "failed(abort)" || n.BootAction != proto.BootBlock || n.Cause.Message != "wrong node" || n.Deadline != nil {
		t.Errorf("aborted node = %+v", n)
	}
	if d := s.Script(mac); d.Action != proto.BootBlock {
		t.Errorf("boot script after an abort = %s", d.Action)
	}
	if o := beat(t, s, id); len(o) != 1 || o[0].Verb != proto.VerbAbort {
		t.Errorf("orders = %+v: an agent that still runs has to stop", o)
	}
	if got := code(s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op")); got != proto.CodeConflict {
		t.Errorf("the second abort = %q, want conflict", got)
	}
}

func TestOrdersAreBounded(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Ordered("n1")
	var last string
	for i := range 40 {
		last = code(s.Command(ctx, []string{"n1"}, proto.VerbForce, proto.NodeOrder{Step: fmt.Sprintf("s%d", i)}, "op"))
	}
	if last != proto.CodeConflict {
		t.Errorf("the 40th order that nobody fetched = %q, want conflict", last)
	}
}
