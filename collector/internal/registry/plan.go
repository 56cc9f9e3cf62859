// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// A plan is kept as what it is made of, and made and signed when an agent asks for it: of an order to many nodes only a
// planRecord is different from node to node, recipe and steps are in bucket files once.

// planRecord is a value of bucket plans.
type planRecord struct {
	Revision int               `json:"revision"`
	Steps    string            `json:"steps,omitempty"` // digest of the steps in bucket files; empty if there are none
	Issued   time.Time         `json:"issued"`
	Attrs    map[string]string `json:"attrs,omitempty"`
	Groups   []string          `json:"groups,omitempty"`

	// Payload is the whole plan instead, of an install that was ordered before schema 5.
	Payload []byte `json:"payload,omitempty"`
}

// stepFile is the steps of a plan as bucket files has them: whole, and without their secrets once the install is over.
type stepFile struct {
	steps   []proto.Step
	digest  string
	encoded []byte
	refs    []stepRef
}

func newStepFile(steps []proto.Step) (*stepFile, error) {
	f := &stepFile{steps: steps}
	if len(steps) == 0 {
		return f, nil
	}
	var err error
	if f.encoded, err = encode("steps", steps); err != nil {
		return nil, err
	}
	f.digest, f.refs = proto.Digest(f.encoded), make([]stepRef, len(steps))
	for i, s := range steps {
		f.refs[i] = stepRef{s.Name, s.Phase, s.Digest}
	}
	return f, nil
}

// stepFiles are those of one order, made once for all nodes that share their steps.
type stepFiles struct {
	mu      sync.Mutex
	byFirst map[*proto.Step]*stepFile
}

func (s *stepFiles) of(steps []proto.Step) (*stepFile, error) {
	if len(steps) == 0 {
		return newStepFile(nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.byFirst[&steps[0]]; f != nil && len(f.steps) == len(steps) {
		return f, nil
	}
	f, err := newStepFile(steps)
	if err == nil {
		set(&s.byFirst, &steps[0], f)
	}
	return f, err
}

// setSteps makes steps those of the record's present plan. The scripts of the plan before it can still be fetched.
func (rec *installRecord) setSteps(f *stepFile) {
	for _, s := range rec.Steps {
		if !slices.Contains(rec.Files, s.Digest) {
			rec.Files = append(rec.Files, s.Digest)
		}
	}
	rec.StepList, rec.Steps, rec.MaxReboots = f.digest, f.refs, maxReboots(f.steps)
}

// putPlan keeps the present plan of an install whose steps were set.
func (c *change) putPlan(rec *installRecord, spec proto.NodeSpec, f *stepFile) error {
	c.putSteps(rec, f)
	b, err := encode("plan", planRecord{Revision: rec.Revision, Steps: f.digest, Issued: c.now.Truncate(time.Second), Attrs: spec.Attrs, Groups: spec.Groups})
	if err == nil {
		c.tx.Put(store.Plans, rec.ID, b)
	}
	return err
}

// putSteps keeps the steps of a record where all that have the same find them.
func (c *change) putSteps(rec *installRecord, f *stepFile) {
	rec.StepList, rec.Steps = f.digest, nil
	if f.digest != "" {
		rec.Steps = c.r.shared.stepList(f.digest, f.refs)
		c.putFile(f.digest, f.encoded)
	}
}

// dropPlan erases the plan of an install that is over, with the secrets of its steps.
func (c *change) dropPlan(rec *installRecord) error {
	c.tx.Delete(store.Plans, rec.ID)
	c.tx.Delete(store.Plans, runKey(rec.ID))
	if rec.StepList == "" {
		return nil
	}
	steps, err := c.r.shared.fullSteps(rec.StepList, func() []byte { return c.tx.Get(store.Files, rec.StepList) })
	if err != nil {
		return fmt.Errorf("reading the plan of %s: %w", rec.ID, err)
	}
	bare, had := (&proto.Plan{Steps: steps}).WithoutSecrets(proto.EveryPhase)
	if !had {
		return nil
	}
	f, err := newStepFile(bare.Steps)
	if err == nil {
		c.putSteps(rec, f)
	}
	return err
}

// plan makes an install's plan of its parts.
func (of *planRecord) plan(rec *installRecord, recipe *Recipe, steps []proto.Step) *proto.Plan {
	return &proto.Plan{Schema: proto.Schema, Node: rec.Node, Install: rec.ID, Revision: of.Revision, Issued: of.Issued, Expires: of.Issued.Add(proto.PlanLife),
		Profile: recipe.Profile, Kind: recipe.Kind, OnFailure: recipe.OnFailure, HoldLimit: recipe.HoldLimit, SealWait: recipe.SealWait, Attrs: of.Attrs,
		Groups: of.Groups, Steps: steps, RescueKeys: recipe.RescueKeys}
}

// checkPlan refuses what makes no plan, before anybody waits for it.
func checkPlan(rec *installRecord, recipe *Recipe, spec proto.NodeSpec, steps []proto.Step) error {
	of := planRecord{Attrs: spec.Attrs, Groups: spec.Groups}
	if err := of.plan(rec, recipe, steps).Check(); err != nil {
		return problem(422, proto.CodeBadProfile, "provost check shows what is wrong with the profiles", "profile %s makes no plan for %s: %v", recipe.Profile, rec.Node, err)
	}
	return nil
}

// plan gives an install's present plan, issued anew when half of its life is over. It is nil once the plan was erased.
func (r *Registry) plan(in *install) (*proto.Plan, error) {
	rec := in.rec.Load()
	if rec.Erased {
		return nil, nil
	}
	p, err := r.readPlan(rec, in.recipe)
	if err != nil {
		return nil, fmt.Errorf("reading the plan of %s: %w", rec.ID, err)
	}
	if now := r.now().UTC().Truncate(time.Second); p.Expires.Sub(now) <= proto.PlanLife/2 {
		p.Issued, p.Expires = now, now.Add(proto.PlanLife)
	}
	return p, nil
}

func (r *Registry) readPlan(rec *installRecord, recipe *Recipe) (*proto.Plan, error) {
	var of planRecord
	var steps []byte
	err := r.st.View(func(s *store.Reader) error { // both of one moment: a new plan may be on its way
		if err := json.Unmarshal(s.Get(store.Plans, rec.ID), &of); err != nil || of.Steps == "" {
			return err
		}
		steps = s.Get(store.Files, of.Steps)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if of.Payload != nil {
		return proto.DecodePlan(of.Payload)
	}
	full, err := r.shared.fullSteps(of.Steps, func() []byte { return steps })
	if err != nil {
		return nil, err
	}
	return of.plan(rec, recipe, full), nil
}

// planFor signs an install's plan under the CA that the caller trusts; nil once it was erased.
func (r *Registry) planFor(ctx context.Context, id string) (*proto.SignedPlan, error) {
	r.pub.RLock()
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in == nil {
		return nil, nil
	}
	p, err := r.plan(in)
	if err != nil || p == nil {
		return nil, err
	}
	return r.opt.Signer.SignPlan(callerOf(ctx).Asked, p)
}

// newPlan is what a profile makes of an install now that it was not when it was ordered.
type newPlan struct {
	install string
	was     []proto.Step // of the plan before it
	base    int          // revision that it replaces
	spec    proto.NodeSpec
	steps   *stepFile
	scripts map[string][]byte
}

// changedPlan gives the new plan of a node's install, nil if nothing changed or the profile is gone.
func (r *Registry) changedPlan(profiles Profiles, files *stepFiles, name string) (*newPlan, error) {
	n, in, err := r.installOf(name, "latest")
	if err != nil {
		if n := r.lookupNode(name); n == nil {
			return nil, err
		}
		return nil, nil // canTake says what is the matter
	}
	if !profiles.Has(in.recipe.Profile) {
		return nil, nil
	}
	now, err := profiles.Prepare(in.recipe.Profile, n.Spec)
	if err != nil {
		return nil, err
	}
	is, err := files.of(now.Steps)
	if err != nil {
		return nil, err
	}
	rec := in.rec.Load()
	if is.digest == rec.StepList {
		return nil, nil
	}
	before, err := r.plan(in)
	if err != nil || before == nil { // of one that is over: canTake says so
		return nil, err
	}
	was, err := newStepFile(before.Steps)
	if err != nil || was.digest == is.digest { // of one that was ordered before schema 5, whose list has less in it
		return nil, err
	}
	return &newPlan{install: rec.ID, was: before.Steps, base: rec.Revision, spec: n.Spec, steps: is, scripts: now.Scripts},
		checkPlan(rec, in.recipe, n.Spec, now.Steps)
}

// bring makes p the present plan of a record that is being changed.
func (c *change) bring(rec *installRecord, p *newPlan) error {
	if p.base != rec.Revision || p.install != rec.ID {
		return problem(409, proto.CodeConflict, "give the order again", "the plan of %s was changed while the order was prepared", rec.Node)
	}
	rec.Revision++
	rec.setSteps(p.steps)
	c.r.unused.Store(true) // the steps before, with their secrets
	for digest, b := range p.scripts {
		c.putFile(digest, b)
	}
	return c.putPlan(rec, p.spec, p.steps)
}

// planChanges says what is new in plans, once for all nodes of which it is the same.
func planChanges(names []string, plans map[string]*newPlan) []proto.PlanChange {
	var out []proto.PlanChange
	for _, name := range names {
		p := plans[name]
		if p == nil {
			continue
		}
		d := proto.DiffSteps(p.was, p.steps.steps)
		i := slices.IndexFunc(out, d.Same)
		if i < 0 {
			i = len(out)
			out = append(out, d)
		}
		out[i].Nodes = append(out[i].Nodes, name)
	}
	return out
}
