// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"provost/collector/internal/boot"
	"provost/proto"
)

// A diskless node installs nothing: its system comes over the network, and each of its boots is an install of its own, made
// when it asks for its boot script, with the plan that its profile gives then. It is booted when the agent in that system
// says that the steps of phase boot are done.

const (
	kindDiskless = "diskless" // of a Recipe
	// loopWindow is the time in which as many boots as the profile's attempts, none of which came to its end, make a loop.
	loopWindow = time.Hour
)

func (rc *Recipe) diskless() bool { return rc.Kind == kindDiskless }

// errStale: what was prepared for a decision is not what it rests on any more.
var errStale = errors.New("the node was changed while its boot was prepared")

// staleTries bounds how often a boot is prepared anew: each time somebody else has changed the node within milliseconds.
const staleTries = 3

// netboot counts a fetch of a diskless node's boot script, which may begin an install, and gives the node as it is then.
func (r *Registry) netboot(ctx context.Context, n *node, q boot.Request) (*node, error) {
	var err error
	for range staleTries {
		var p *prepared
		if p, err = r.prepareBoot(n.Spec.Name); err != nil {
			return nil, err
		}
		err = r.update(ctx, func(c *change) (err error) {
			n, err = c.askedForNetboot(n.Spec.Name, p, q)
			return err
		})
		if !errors.Is(err, errStale) {
			return n, err
		}
		r.pub.RLock()
		now := r.pub.nodes[n.Spec.Name]
		r.pub.RUnlock()
		if now == nil {
			return nil, unknownNode(n.Spec.Name)
		}
		n = now
	}
	return nil, err
}

// prepareBoot makes the install of the boot that a node's fetch may begin; nil if its present one has not got that far. Where
// its profile makes no sense any more, or none of a diskless node, it is the present one once more: a mistake in a profile
// must not keep a cluster down, and no order to install a disk may come of it.
func (r *Registry) prepareBoot(name string) (*prepared, error) {
	n, in, err := r.installOf(name, "latest")
	if err != nil || !in.rec.Load().begun() {
		return nil, nil // askedForNetboot says what is the matter
	}
	p := &prepared{spec: n.Spec, profile: in.recipe.Profile, rec: &installRecord{Label: in.rec.Load().Label}, source: proto.SourceBoot}
	var steps []proto.Step
	pp, err := r.opt.Profiles.Prepare(in.recipe.Profile, n.Spec)
	if err == nil && pp.Recipe.diskless() {
		p.recipe, p.scripts, steps = &pp.Recipe, pp.Scripts, pp.Steps
	} else {
		if err == nil {
			err = fmt.Errorf("it is of kind %s now", pp.Recipe.Kind)
		}
		p.rec.Reason = proto.Clip(fmt.Sprintf("as the boot before: profile %s: %v", in.recipe.Profile, err), proto.MaxMessage)
		plan, err := r.plan(in)
		if err != nil {
			return nil, err
		}
		p.recipe, steps = in.recipe, plan.Steps
	}
	return p, r.complete(p, steps, new(stepFiles))
}

// begun: the boot got as far as its kernel, so that another fetch of its script is another boot.
func (rec *installRecord) begun() bool { return rec.Attempt > 0 && rec.Progressed && !rec.Rebooting }

func (c *change) askedForNetboot(name string, p *prepared, q boot.Request) (*node, error) {
	n := c.node(name)
	if n == nil {
		return nil, unknownNode(name)
	}
	rec := c.record(n.Install)
	if n.BootAction != proto.BootNetboot || rec == nil {
		return n, nil
	}
	switch {
	case rec.Rebooting:
		rec = rec.clone()
		rec.Rebooting, rec.Progressed, rec.Sent = false, false, nil
		return n, c.scriptSent(rec, q.MAC)
	case rec.Attempt == 0:
		return n, c.boots(rec, nil, q.MAC)
	case !rec.begun(), rec.loadsAgain(q.Again): // without end: it has nothing else to boot
		return n, c.scriptSent(rec, q.MAC)
	}
	before := rec.Unfinished
	if v := c.install(rec.ID).look(); v.Status == proto.StatusBooted {
		before = nil
	}
	before = slices.DeleteFunc(slices.Clone(before), func(at time.Time) bool { return c.now.Sub(at) > loopWindow })
	if len(before) >= rec.Allowed {
		return c.loop(n, rec, len(before), fmt.Sprintf("the node asked for another boot script after %d boots within %s that came to no end",
			len(before), proto.Duration(loopWindow)))
	}
	if p == nil || !sameSpec(n.Spec, p.spec) {
		return nil, errStale
	}
	if err := c.order(p); err != nil {
		return nil, err
	}
	err := c.boots(c.record(p.rec.ID), before, q.MAC)
	return c.node(name), err
}

// boots begins the one attempt of a diskless node's install, by a card; before are the boots before it that came to no end.
func (c *change) boots(rec *installRecord, before []time.Time, mac string) error {
	rec = rec.clone()
	rec.Unfinished = append(slices.Clone(before), c.now)
	if err := c.attempt(rec, proto.Event{Source: proto.SourceBoot, Stage: stageScript}, true); err != nil {
		return err
	}
	return c.scriptSent(rec, mac)
}

// netbootAgain lets a node that was blocked boot again.
func (c *change) netbootAgain(name string, rec *installRecord) error {
	if rec == nil || !c.install(rec.ID).recipe.diskless() {
		return problem(409, proto.CodeConflict, "give it a profile with kind: diskless, then provost install "+name, "node %s is not diskless", name)
	}
	again := rec.clone()
	again.Looped, again.Unfinished = false, nil
	return c.putInstall(again)
}

// maxChanges bounds what is remembered of one node's on-change steps: as many steps as a plan may have.
const maxChanges = proto.MaxSteps

// changeKey is the key of every node's proto.Changes.
func (r *Registry) changeKey() []byte { return []byte(r.derive("changes", "", 0)) }

func (n *node) remembers() bool { return len(n.Changes) > 0 }

// memory is what one request's events make of what is remembered of their node's on-change steps. Those of an install that
// is not the newest change nothing: its steps may have ended before the newest one's began.
type memory struct {
	node    string
	current bool
	start   map[string]bool
	done    map[string]string
}

func (c *change) memory(rec *installRecord) *memory {
	n := c.node(rec.Node)
	return &memory{node: rec.Node, current: n != nil && n.Install == rec.ID, start: map[string]bool{}, done: map[string]string{}}
}

func (h *memory) follow(e *proto.Event) {
	if !h.current || e.Kind != proto.KindStepStart && e.Kind != proto.KindStepEnd {
		return
	}
	k := proto.ChangeKey(e.Phase, e.Step)
	switch {
	case e.Kind == proto.KindStepStart:
		h.start[k] = true // it may fail with half of its work done
		delete(h.done, k)
	case e.Kind == proto.KindStepEnd && e.Outcome == proto.OutcomeOK && e.Change != "":
		h.done[k] = e.Change
	}
}

// settle writes it, if anything changed.
func (h *memory) settle(c *change) error {
	if len(h.start) == 0 && len(h.done) == 0 {
		return nil
	}
	n := c.node(h.node)
	if n == nil || len(h.done) == 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(n.Changes)), func(k string) bool { return h.start[k] }) {
		return nil
	}
	all := map[string]string{}
	maps.Copy(all, n.Changes)
	maps.DeleteFunc(all, func(k, _ string) bool { return h.start[k] })
	for k, v := range h.done {
		if len(all) < maxChanges {
			all[k] = v
		}
	}
	now := *n
	now.Changes = all
	return c.putNode(&now)
}

// isOf reports whether a key of Changes is a step's, in any phase.
func isOf(key, step string) bool {
	return slices.ContainsFunc(proto.Phases, func(p proto.Phase) bool { return key == proto.ChangeKey(p, step) })
}

// remembersStep reports whether a step is among Changes.
func (n *node) remembersStep(step string) bool {
	for k := range n.Changes {
		if isOf(k, step) {
			return true
		}
	}
	return false
}

// forget lets a step, or all, run again though nothing has changed.
func (c *change) forget(n *node, step string) error {
	all := map[string]string{}
	for k, v := range n.Changes {
		if step != "all" && !isOf(k, step) {
			all[k] = v
		}
	}
	if len(all) == len(n.Changes) {
		return nil
	}
	now := *n
	now.Changes = all
	return c.putNode(&now)
}
