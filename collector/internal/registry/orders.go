// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"slices"
	"strings"

	"provost/proto"
)

// Command gives an order to every named node, or to none. The agents carry it out; abort also ends the install here, for
// its agent may be gone.
func (r *Registry) Command(ctx context.Context, names []string, verb proto.Verb, o proto.NodeOrder, actor string) error {
	if verb == proto.VerbRetry {
		_, err := r.Retry(ctx, names, o, actor)
		return err
	}
	return r.command(ctx, names, verb, o, actor, nil)
}

// Retry is Command for retry, which brings the plan as the profile makes it now, unless the order says otherwise. It gives what
// is new in it, for those nodes whose plan is another one.
func (r *Registry) Retry(ctx context.Context, names []string, o proto.NodeOrder, actor string) ([]proto.PlanChange, error) {
	plans := map[string]*newPlan{}
	if !o.SamePlan {
		all, profiles := make([]*newPlan, len(names)), r.opt.Profiles.Frozen()
		var files stepFiles
		err := each(ctx, len(names), func(i int) (err error) {
			all[i], err = r.changedPlan(profiles, &files, names[i])
			return err
		})
		if err != nil {
			return nil, err
		}
		for i, p := range all {
			if p != nil {
				plans[names[i]] = p
			}
		}
	}
	if err := r.command(ctx, names, proto.VerbRetry, o, actor, plans); err != nil {
		return nil, err
	}
	return planChanges(names, plans), nil
}

// command gives an order; plans are the new ones, by node.
func (r *Registry) command(ctx context.Context, names []string, verb proto.Verb, o proto.NodeOrder, actor string, plans map[string]*newPlan) error {
	if err := checkOrder(verb, o); err != nil {
		return err
	}
	return r.once(ctx, names, planChanges(names, plans), func(c *change) error {
		if err := c.canTake(names, verb); err != nil {
			return err
		}
		for _, name := range names {
			if err := c.command(name, verb, o, actor, plans[name]); err != nil {
				return err
			}
			if err := c.noteCommand(name, verb, o, actor, plans[name] != nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkOrder(verb proto.Verb, o proto.NodeOrder) error {
	if _, err := proto.ParseVerb(string(verb)); err != nil {
		return badRequest(err)
	}
	if o.Action != "" {
		return problem(400, proto.CodeBadRequest, "", "%s takes no boot action", verb)
	}
	if o.SamePlan && verb != proto.VerbRetry {
		return problem(400, proto.CodeBadRequest, "only retry brings a new plan", "%s takes no same_plan", verb)
	}
	if o.Step != "" {
		if verb == proto.VerbHold || verb == proto.VerbRelease || verb == proto.VerbAbort {
			return problem(400, proto.CodeBadRequest, "", "%s takes no step", verb)
		}
		if err := proto.CheckName("step", o.Step); err != nil {
			return badRequest(err)
		}
	} else if verb == proto.VerbForce {
		return problem(400, proto.CodeBadRequest, "name a step, or all", "force without a step")
	}
	if len(o.Reason) > proto.MaxMessage {
		return problem(400, proto.CodeBadRequest, "", "reason of %d bytes: at most %d", len(o.Reason), proto.MaxMessage)
	}
	return nil
}

// canTake refuses the whole order if one node cannot take it, and names all of those.
func (c *change) canTake(names []string, verb proto.Verb) error {
	var cannot []string
	why := "no install is under way on"
	for _, name := range names {
		n := c.node(name)
		if n == nil || n.Discovered {
			return unknownNode(name)
		}
		in := c.install(n.Install)
		if in == nil {
			cannot = append(cannot, name)
			continue
		}
		v := in.look()
		// What the collector only concluded may be wrong: the node may be late, and alive.
		ok := !v.Ended || v.Cause != nil && v.Cause.Kind.Inferred()
		switch verb {
		case proto.VerbForce:
			ok = ok || n.remembers() || in.recipe.diskless()
		case proto.VerbRetry, proto.VerbSkip, proto.VerbRelease:
			ok, why = v.Waiting || v.Status == proto.StatusHeld, "nothing waits for an order on"
		}
		if !ok {
			cannot = append(cannot, name)
		}
	}
	if len(cannot) > 0 {
		named, _ := setOf(cannot)
		return problem(409, proto.CodeConflict, "provost status shows which nodes wait; provost install begins anew", "%s %s", why, named)
	}
	return nil
}

func (c *change) command(name string, verb proto.Verb, o proto.NodeOrder, actor string, p *newPlan) error {
	n := c.node(name)
	rec := c.edit(n.Install)
	order := pendingOrder{Order: proto.Order{ID: proto.NewID(c.now), Verb: verb, Step: o.Step, Actor: actor, Reason: o.Reason},
		Given: c.now}
	if p != nil {
		if err := c.bring(rec, p); err != nil {
			return err
		}
		order.WithPlan = true
	}
	if known := rec.has(o.Step) || n.remembersStep(o.Step); o.Step != "" && o.Step != "all" && len(rec.Steps) > 0 && !known {
		var names []string
		for _, st := range rec.Steps {
			names = append(names, st.Name)
		}
		return problem(409, proto.CodeConflict, "its steps are "+proto.Clip(strings.Join(names, ", "), 500), "the plan of %s has no step %s: nothing was ordered", name, o.Step)
	}
	same := func(x pendingOrder) bool { return x.Verb == verb && x.Step == o.Step && x.WithPlan == order.WithPlan }
	over := verb == proto.VerbForce && c.install(rec.ID).look().Ended // then it is for the next install
	if !over && !slices.ContainsFunc(rec.Orders, same) {              // one that is under way already need not be given twice
		if len(rec.Orders) >= maxOrders {
			return problem(409, proto.CodeConflict, "wait for the agent, or provost abort "+name, "%d orders of %s wait for its agent already", len(rec.Orders), name)
		}
		rec.Orders = append(rec.Orders, order)
	}
	if verb == proto.VerbForce {
		if err := c.forget(n, o.Step); err != nil {
			return err
		}
	}
	message := "ordered " + string(verb)
	if o.Step != "" {
		message += " of step " + o.Step
	}
	if order.WithPlan {
		message += " with a new plan"
	}
	if over {
		message += ", in the next install or boot"
	}
	if o.Reason != "" {
		message += ": " + o.Reason
	}
	kind := proto.KindNote
	if verb == proto.VerbAbort {
		kind, message = proto.KindAborted, o.Reason
	}
	err := c.append(proto.Event{Kind: kind, Source: proto.SourceOperator, Install: rec.ID, Node: name, Order: string(verb), OrderID: order.ID,
		Step: o.Step, Actor: actor, Message: proto.Clip(message, proto.MaxMessage)})
	err = errors.Join(err, c.putInstall(rec))
	if verb == proto.VerbAbort && (n.BootAction == proto.BootInstall || n.BootAction == proto.BootNetboot) {
		err = errors.Join(err, c.setBoot(n, proto.BootBlock, proto.SourceOperator, "", actor, "the install was aborted"))
	}
	return err
}

// has reports whether the present plan has a step.
func (rec *installRecord) has(step string) bool {
	return slices.ContainsFunc(rec.Steps, func(st stepRef) bool { return st.Name == step })
}

func (r *Registry) lookupNode(name string) *node {
	r.pub.RLock()
	defer r.pub.RUnlock()
	return r.pub.nodes[name]
}

// Heartbeat notes that an agent is alive and gives the orders that it has not acknowledged. id is its token's install.
// from is the address that it came from. Of it all only the way into the rescue shell is kept on disk, when it changes.
func (r *Registry) Heartbeat(ctx context.Context, id, from string, h *proto.Heartbeat) (*proto.HeartbeatAnswer, error) {
	if h.Install != id {
		return nil, badCredentials("the token is another install's")
	}
	if h.Schema > proto.Schema {
		return nil, problem(400, proto.CodeBadRequest, "upgrade provostd", "schema %d is newer than this collector, which knows %d", h.Schema, proto.Schema)
	}
	r.pub.RLock()
	in := r.pub.installs[id]
	var n *node
	if in != nil {
		n = r.pub.nodes[in.rec.Load().Node]
	}
	r.pub.RUnlock()
	if n == nil {
		return nil, badCredentials("the token's install is gone")
	}
	now := r.now()
	in.seen.Store(now.UnixMilli())
	if h.Facts != nil {
		f := *h.Facts
		f.At, f.Run, f.Target = stamp(now), sane(f.Run), sane(f.Target)
		in.facts.Store(&f)
	}
	n.cell.changed()
	if err := r.learnRescue(ctx, in, from, h.Rescue); err != nil {
		return nil, err
	}
	a := &proto.HeartbeatAnswer{BootAction: n.BootAction, HeartbeatS: heartbeatS}
	if h.Waiting {
		a.HeartbeatS = heartbeatWaitingS
	}
	for _, o := range in.rec.Load().Orders {
		if o.WithPlan {
			plan, err := r.planFor(ctx, id)
			if err != nil {
				return nil, err
			}
			o.Order.Plan = plan
		}
		a.Orders = append(a.Orders, o.Order)
	}
	return a, nil
}

// learnRescue keeps how the rescue shell of an install's node is reached. What makes no sense counts as none: a heartbeat
// is never refused for it.
func (r *Registry) learnRescue(ctx context.Context, in *install, from string, told *proto.Rescue) error {
	if told != nil {
		if told.Check() != nil {
			told = nil
		} else {
			told = &proto.Rescue{Port: told.Port, HostKey: told.HostKey, Address: from}
		}
	}
	same := func(rec *installRecord) bool {
		return rec.Rescue == told || rec.Rescue != nil && told != nil && *rec.Rescue == *told
	}
	if same(in.rec.Load()) {
		return nil
	}
	return r.update(ctx, func(c *change) error {
		rec := c.record(in.id)
		if rec == nil || same(rec) {
			return nil
		}
		rec = rec.clone()
		rec.Rescue = told
		return c.putInstall(rec)
	})
}

// sane passes over what an agent cannot mean.
func sane(s *proto.Space) *proto.Space {
	if s == nil || s.Total <= 0 || s.Free < 0 || len(s.Path) > 256 {
		return nil
	}
	return s
}
