// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// DefaultWithin is the time for a first sign of life after an order.
const DefaultWithin = 15 * time.Minute

// prepared is one node's install, ready to be decided.
type prepared struct {
	spec    proto.NodeSpec
	profile string
	rec     *installRecord
	recipe  *Recipe
	encoded []byte // the recipe
	steps   *stepFile
	scripts map[string][]byte
	source  proto.Source // who ordered it: the operator, or the boot server for a node that asked
}

// Order orders an install of every named node, or of none. What their profiles say now is kept with it. An order whose caller has
// a key is given once, as those below: see once.
func (r *Registry) Order(ctx context.Context, names []string, o proto.InstallOrder, actor string) error {
	if o.Label != "" {
		if err := proto.CheckName("label", o.Label); err != nil {
			return badRequest(err)
		}
	}
	if len(o.Reason) > proto.MaxMessage {
		return problem(400, proto.CodeBadRequest, "", "reason of %d bytes: at most %d", len(o.Reason), proto.MaxMessage)
	}
	if o.NextBoot && o.Within != nil {
		return problem(400, proto.CodeBadRequest, "", "within and next_boot exclude each other")
	}
	within := proto.Duration(DefaultWithin)
	if o.Within != nil {
		within = *o.Within
	}
	if o.NextBoot {
		within = 0
	} else if within.D() < time.Second {
		return problem(400, proto.CodeBadRequest, "next_boot sets no limit", "within %s is too short", within)
	}
	// Reading scripts and trying out answer files takes long: it is done before, and what it rests on is looked at again inside.
	all, profiles := make([]*prepared, len(names)), r.opt.Profiles.Frozen()
	var mu sync.Mutex
	var files stepFiles
	recipes := map[string]*prepared{} // by digest: what many nodes share is held once
	err := each(ctx, len(names), func(i int) (err error) {
		p, err := r.prepare(profiles, &files, names[i], o, within, actor)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if first := recipes[p.rec.Recipe]; first != nil {
			p.recipe, p.encoded = first.recipe, first.encoded
		} else {
			recipes[p.rec.Recipe] = p
		}
		all[i] = p
		return nil
	})
	if err != nil {
		return err
	}
	return r.once(ctx, names, nil, func(c *change) error {
		if err := c.unprotected(names, "install"); err != nil {
			return err
		}
		for _, p := range all {
			if err := c.order(p); err != nil {
				return err
			}
			if err := c.noteInstall(p); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *Registry) prepare(profiles Profiles, files *stepFiles, name string, o proto.InstallOrder, within proto.Duration, actor string) (*prepared, error) {
	r.pub.RLock()
	n := r.pub.nodes[name]
	r.pub.RUnlock()
	if n == nil || n.Discovered {
		return nil, unknownNode(name)
	}
	profile := o.Profile
	if profile == "" {
		profile = n.Spec.Profile
	}
	if profile == "" {
		return nil, problem(422, proto.CodeBadProfile, "provost node set "+name+" --profile P; or, for this install: provost install "+name+" --profile P", "node %s has no profile", name)
	}
	if err := r.checkProfile(profile); err != nil {
		return nil, err
	}
	pp, err := profiles.Prepare(profile, n.Spec)
	if err != nil {
		return nil, err
	}
	p := &prepared{spec: n.Spec, profile: profile, recipe: &pp.Recipe, scripts: pp.Scripts, source: proto.SourceOperator}
	p.rec = &installRecord{Label: o.Label, Reason: o.Reason, Actor: actor, Within: within}
	return p, r.complete(p, pp.Steps, files)
}

// complete makes the record and the plan of an install of which node, recipe and source are set, and of the record what is not
// the same in every one.
func (r *Registry) complete(p *prepared, steps []proto.Step, files *stepFiles) (err error) {
	now := stamp(r.now())
	if p.encoded, err = encode("recipe", p.recipe); err != nil {
		return err
	}
	if p.steps, err = files.of(steps); err != nil {
		return err
	}
	p.rec.ID, p.rec.Node, p.rec.Ordered, p.rec.Revision = proto.NewID(now), p.spec.Name, now, 1
	p.rec.Recipe, p.rec.Allowed = proto.Digest(p.encoded), max(p.recipe.Attempts, 1)
	p.rec.setSteps(p.steps)
	return checkPlan(p.rec, p.recipe, p.spec, steps)
}

// order decides one install: what is under way is superseded, whatever its state.
func (c *change) order(p *prepared) error {
	old := c.node(p.rec.Node)
	if old == nil || old.Discovered {
		return unknownNode(p.rec.Node)
	}
	if p.profile != "" && old.Revision != 0 && !sameSpec(old.Spec, p.spec) {
		return problem(409, proto.CodeConflict, "order it again", "node %s was changed while its install was prepared", p.rec.Node)
	}
	rec := p.rec.clone()
	n := *old
	n.Unasked = false
	n.Ordinal++
	rec.Ordinal = n.Ordinal
	if err := c.supersede(n.Install, rec, p.source); err != nil {
		return err
	}
	n.Install, n.BootAction = rec.ID, proto.BootInstall
	switch {
	case p.recipe.Boot == "external":
		n.BootAction = proto.BootDisk // the site's own PXE decides; our boot script must not interfere
	case p.recipe.diskless():
		n.BootAction = proto.BootNetboot
	}
	n.installs = append(slices.Clip(slices.Clone(n.installs)), rec.ID)

	in := newInstall(rec, c.r.shared.recipe(rec.Recipe, p.recipe))
	set(&c.made, rec.ID, in)
	for digest, b := range p.scripts {
		c.putFile(digest, b)
	}
	c.putFile(rec.Recipe, p.encoded)
	if err := c.putPlan(rec, p.spec, p.steps); err != nil {
		return err
	}
	err := c.append(proto.Event{Kind: proto.KindOrdered, Source: p.source, Install: rec.ID, Node: rec.Node, Stage: "ordered",
		Message: rec.Reason, Actor: rec.Actor})
	return errors.Join(err, c.putInstall(rec), c.putNode(&n))
}

// orEmpty stands for a script without a byte, which is a valid one: the store keeps no empty values.
func orEmpty(b []byte) []byte {
	if len(b) == 0 {
		return []byte("\n")
	}
	return b
}

func (c *change) supersede(id string, by *installRecord, source proto.Source) error {
	old := c.record(id)
	if old == nil || old.Superseded {
		return nil
	}
	rec := old.clone()
	rec.Superseded, rec.Orders = true, nil
	err := c.append(proto.Event{Kind: proto.KindSuperseded, Source: source, Install: id, Node: rec.Node,
		Message: fmt.Sprintf("install %s (number %d) was ordered", by.ID, by.Ordinal), Actor: by.Actor})
	return errors.Join(err, c.putInstall(rec))
}

func sameSpec(a, b proto.NodeSpec) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// File gives a script to an agent whose install's plan has it.
func (r *Registry) File(id, digest string) ([]byte, error) {
	r.pub.RLock()
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in == nil || !in.rec.Load().names(digest) {
		return nil, problem(404, proto.CodeNotFound, "", "no script of this install's plan has the digest %q", proto.Clip(digest, 64))
	}
	var b []byte
	if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.Files, digest); return nil }); err != nil {
		return nil, fmt.Errorf("reading script %s: %w", digest, err)
	}
	if digest == proto.Digest(nil) {
		b = nil
	}
	if got := proto.Digest(b); got != digest {
		return nil, fmt.Errorf("reading script %s: the database holds %d bytes with digest %s", digest, len(b), got)
	}
	return b, nil
}
