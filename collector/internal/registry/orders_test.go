// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
		{proto.VerbRetry, proto.NodeOrder{Step: "two"}, proto.CodeConflict}, // its plan has no such step
		{proto.VerbSkip, proto.NodeOrder{Step: "two"}, proto.CodeConflict},
		{proto.VerbForce, proto.NodeOrder{Step: "two"}, proto.CodeConflict},
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
	var scripts []registrytest.Script
	for i := range 17 {
		scripts = append(scripts, registrytest.Script{Name: fmt.Sprintf("s%d", i), Phase: proto.PhasePost, Body: "#!/bin/sh\n"})
	}
	s.Profiles.Put("compute", registrytest.Prepared("compute", scripts...))
	s.Add("n1", 1)
	s.Ordered("n1")
	for i := range scripts {
		want := ""
		if i == 16 {
			want = proto.CodeConflict
		}
		if got := code(s.Command(ctx, []string{"n1"}, proto.VerbForce, proto.NodeOrder{Step: scripts[i].Name}, "op")); got != want {
			t.Errorf("order %d that nobody fetched = %q, want %q", i+1, got, want)
		}
	}
}

// TestRetryOfANewStep: a step that only the plan has which the retry brings can be named.
func TestRetryOfANewStep(t *testing.T) {
	s := registrytest.New(t)
	held(t, s)
	s.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\n"},
		registrytest.Script{Name: "two", Phase: proto.PhasePost, Body: "#!/bin/sh\n"}))
	for _, o := range []proto.NodeOrder{{Step: "two", SamePlan: true}, {Step: "two"}} {
		err := s.Command(ctx, []string{"n1"}, proto.VerbRetry, o, "op")
		if got := code(err); (got == proto.CodeConflict) != o.SamePlan || !o.SamePlan && err != nil {
			t.Errorf("retry of step two, with the plan of before: %t = %v", o.SamePlan, err)
		}
	}
}

// TestAbortedIsNotUnderWay: a node that waits for orders and was aborted can be removed or renamed though its agent, which may be
// gone, has not taken the order.
func TestAbortedIsNotUnderWay(t *testing.T) {
	s := registrytest.New(t)
	held(t, s)
	if got := code(s.RemoveNodes(ctx, []string{"n1"}, "")); got != proto.CodeConflict {
		t.Errorf("removing a node that waits for orders = %q, want conflict", got)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenameNode(ctx, "n1", "n5"); err != nil {
		t.Errorf("renaming it after an abort: %v", err)
	}
	if err := s.RemoveNodes(ctx, []string{"n5"}, ""); err != nil {
		t.Errorf("removing it after an abort: %v", err)
	}
}

// TestRefusedOrder: an order that the agent did not carry out leaves its node as it was, with a warning that says why, is not
// given again, and moves no deadline.
func TestRefusedOrder(t *testing.T) {
	s := registrytest.New(t)
	s.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\n"},
		registrytest.Script{Name: "two", Phase: proto.PhasePost, Body: "#!/bin/sh\n"}))
	id := held(t, s)
	refuse := func(seq uint64, verb proto.Verb, step string) {
		t.Helper()
		orders := beat(t, s, id)
		if len(orders) != 1 || orders[0].Verb != verb {
			t.Fatalf("orders = %+v, want %s", orders, verb)
		}
		send(t, s, id, event(seq, proto.KindOrder, 1, func(e *proto.Event) { // as the agent's run.carriedOut has it
			e.Phase, e.Step, e.Order, e.OrderID, e.Actor = proto.PhasePost, step, string(verb), orders[0].ID, "op"
			e.Failed, e.Message = true, "not carried out: step one is the one that failed"
		}))
	}
	for i, verb := range []proto.Verb{proto.VerbRetry, proto.VerbSkip} {
		if err := s.Command(ctx, []string{"n1"}, verb, proto.NodeOrder{Step: "two"}, "op"); err != nil {
			t.Fatal(err)
		}
		refuse(uint64(7+i), verb, "two")
		s.Restart()
		n := s.Seen("n1")
		want := "order " + string(verb) + " of step two: not carried out: step one is the one that failed"
		if n.Summary != "failed(one=127)" || !n.Waiting || len(n.Orders) != 0 || !slices.Equal(n.Warnings, []string{want}) {
			t.Errorf("after a refused %s the node is %s, waiting %v, orders %v, warnings %q, want it as before and %q", verb, n.Summary, n.Waiting, n.Orders, n.Warnings, want)
		}
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbRetry, proto.NodeOrder{}, "op"); err != nil {
		t.Fatalf("the right order after the wrong ones: %v", err)
	}
	send(t, s, id, event(9, proto.KindOrder, 1, func(e *proto.Event) { e.Order, e.OrderID, e.Step = "retry", beat(t, s, id)[0].ID, "one" }),
		event(10, proto.KindRunStart, 1, func(e *proto.Event) { e.Phase, e.Stage = proto.PhasePost, "post-started" }))
	n := s.Seen("n1")
	if n.Status == proto.StatusFailed || len(n.Warnings) != 0 || n.Deadline == nil {
		t.Fatalf("after the retry the node is %s, warnings %q, deadline %v", n.Summary, n.Warnings, n.Deadline)
	}
	s.Clock.Advance(time.Minute)
	q := request(id, registrytest.Journal, event(11, proto.KindOrder, 1, func(e *proto.Event) {
		e.Order, e.OrderID, e.Failed, e.Message = "release", "x", true, "not carried out: nothing is held"
	}))
	q.Clock.OffsetMS += 60_000
	q.Events[0] = []byte(strings.Replace(string(q.Events[0]), `"offset_ms":11000`, `"offset_ms":110000`, 1))
	if _, err := s.Events(ctx, id, q); err != nil {
		t.Fatal(err)
	}
	if is := s.Seen("n1"); is.Deadline == nil || !is.Deadline.Since.Equal(n.Deadline.Since) || len(is.Warnings) != 1 {
		t.Errorf("after a refused release the wait began at %+v, and before at %+v; warnings %q", is.Deadline, n.Deadline, is.Warnings)
	}
}

// TestLateNodeTakesOrders: where the collector only concluded that a node has failed, its agent may be alive, and can be stopped.
func TestLateNodeTakesOrders(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
		t.Fatal(err)
	}
	s.Sent(ctx, d.Ticket, "images/vmlinuz", true)
	pass(t, s, 2*time.Hour)
	if n := s.Seen("n1"); n.Summary != "failed(stage-deadline)" {
		t.Fatalf("after two hours the node is %s", n.Summary)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbHold, proto.NodeOrder{}, "op"); err != nil {
		t.Errorf("hold: %v", err)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{Reason: "too slow"}, "op"); err != nil {
		t.Errorf("abort: %v", err)
	}
	if n := s.Seen("n1"); n.Summary != "failed(abort)" || n.Cause.Message != "too slow" {
		t.Errorf("after the abort the node is %s", n.Summary)
	}
	if o := beat(t, s, id); len(o) != 2 || o[1].Verb != proto.VerbAbort {
		t.Errorf("orders = %+v, want hold and abort", o)
	}
	if got := code(s.Command(ctx, []string{"n1"}, proto.VerbHold, proto.NodeOrder{}, "op")); got != proto.CodeConflict {
		t.Errorf("hold after the abort = %q, want conflict", got)
	}
}

func TestRetryWithTheSamePlan(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	s.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho mended\n"},
		registrytest.Script{Name: "new", Phase: proto.PhasePost, Body: "#!/bin/sh\n"}))
	changes, err := s.Retry(ctx, []string{"n1"}, proto.NodeOrder{SamePlan: true}, "op")
	if err != nil || changes != nil {
		t.Fatalf("Retry with the same plan = %+v, %v", changes, err)
	}
	if o := beat(t, s, id); len(o) != 1 || o[0].Plan != nil {
		t.Errorf("orders = %+v, want a retry without a plan", o)
	}
	changes, err = s.Retry(ctx, []string{"n1"}, proto.NodeOrder{}, "op")
	if want := []proto.PlanChange{{Nodes: []string{"n1"}, Changed: []string{"one"}, Added: []string{"new"}}}; err != nil || !reflect.DeepEqual(changes, want) {
		t.Errorf("Retry = %+v, %v, want %+v", changes, err, want)
	}
	if got := code(s.Command(ctx, []string{"n1"}, proto.VerbSkip, proto.NodeOrder{SamePlan: true}, "op")); got != proto.CodeBadRequest {
		t.Errorf("skip with the same plan = %q, want bad-request", got)
	}
}

// TestWaitEnds: a node that waits for orders and is not heard any more waits until its hold limit and an hour are over. Then it is
// over, and can be removed; heartbeats put that off.
func TestWaitEnds(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	expire := func(want int) {
		t.Helper()
		if n, err := s.Expire(ctx); err != nil || n != want {
			t.Fatalf("Expire = %d, %v, want %d", n, err, want)
		}
	}
	s.Clock.Advance(20 * time.Hour)
	beat(t, s, id)
	s.Clock.Advance(24*time.Hour + 59*time.Minute)
	expire(0)
	if got := code(s.RemoveNodes(ctx, []string{"n1"}, "")); got != proto.CodeConflict {
		t.Errorf("removing a node that waits = %q, want conflict", got)
	}
	s.Clock.Advance(2 * time.Minute)
	expire(1)
	expire(0)
	s.Restart()
	n := s.Seen("n1")
	if n.Summary != "failed(one=127)" || n.Waiting || len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], "its hold limit of 24h is over") {
		t.Errorf("the node is %s, waiting %v, warnings %q", n.Summary, n.Waiting, n.Warnings)
	}
	if err := s.RemoveNodes(ctx, []string{"n1"}, ""); err != nil {
		t.Errorf("removing it: %v", err)
	}
}
