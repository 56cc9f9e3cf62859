// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"provost/agent/internal/plan"
	"provost/proto"
)

// errNoPlan is a hello that was answered well, but without a plan that may be run. It is asked for again.
type errNoPlan struct{ err error }

func (e *errNoPlan) Error() string { return e.err.Error() }
func (e *errNoPlan) Unwrap() error { return e.err }

// hello introduces this process, and again when its token is refused or the plan is still missing.
func (s *Sender) hello(ctx context.Context) (bool, error) {
	if s.greeted && (s.planned || s.plan != nil) {
		return false, nil
	}
	h := s.Hello()
	h.Schema, h.Clock, h.Journal = proto.Schema, s.Clock(), s.Journal.ID()
	// The token first: a claim or join key is spent with the boot that showed it.
	s.client.token = s.Dir.Token()
	if s.stale && (h.Claim != "" || h.JoinKey != "") {
		s.client.token = ""
	}
	if s.client.token != "" {
		h.Claim, h.JoinKey = "", ""
	}
	var a proto.HelloAnswer
	if err := s.client.json(ctx, "/v1/agent/hello", h, &a); err != nil {
		return false, err
	}
	if err := s.meet(a); err != nil {
		return false, err
	}
	if h.Env == proto.EnvInstaller { // an installed system has its journal
		if err := s.Dir.setProgress(a.Progress, h.Clock.Boot, time.Until(a.Time)); err != nil {
			return false, err
		}
	}
	if err := s.Dir.setChanges(a.Changes); err != nil {
		return false, err
	}
	s.greeted, s.stale = true, false
	s.theirs, s.ours = a.Time, time.Now()
	s.next[s.Journal.ID()] = max(a.Next, 1)
	s.setPace(a.HeartbeatS)
	s.sent.BootAction = a.BootAction
	if s.Met != nil {
		s.Met(a)
	}
	return true, s.accept(a.Plan, a.Time)
}

// meet keeps what a hello's answer says of this machine.
func (s *Sender) meet(a proto.HelloAnswer) error {
	switch {
	case a.Schema > proto.Schema:
		return senseless("it is of schema %d, this agent knows %d: rebuild the overlay with this collector's agent", a.Schema, proto.Schema)
	case proto.CheckNode(a.Node) != nil || !proto.ValidID(a.Install):
		return senseless("its node or install is malformed")
	case s.Node != "" && a.Node != s.Node:
		return senseless("it takes this machine for node %s, its settings say %s", a.Node, s.Node)
	case s.Order != "" && a.Install != s.Order:
		return senseless("it is for install %s, the boot script said %s", a.Install, s.Order)
	case len(a.Token) > 512:
		return senseless("its token is too long")
	}
	id, err := s.Dir.Identity()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Say(fmt.Sprintf("%v: it is written anew", err))
	}
	id.Node, id.Install, id.Attempt, id.Known = a.Node, a.Install, a.Attempt, true
	id.URLs = s.URLs
	if err := s.Dir.SetIdentity(id); err != nil {
		return err
	}
	if a.Token != "" {
		if err := s.Dir.SetToken(a.Token); err != nil {
			return err
		}
		s.client.token = a.Token
	}
	if b, err := os.ReadFile(s.Dir.CAFile()); err == nil && string(b) == string(s.pin.PEM()) {
		return nil
	}
	return s.Dir.WriteFile(fileCA, s.pin.PEM(), 0o644)
}

// accept takes a hello's plan, unless it is the one that is here.
func (s *Sender) accept(sp *proto.SignedPlan, now time.Time) error {
	id, err := s.Dir.Identity()
	if err != nil {
		return err
	}
	terms := plan.Terms{CAs: s.pin.CAs(), Node: id.Node, Install: id.Install, Now: now}
	here, digest, err := s.Dir.Plan()
	if err == nil {
		terms.MinRevision = here.Revision
		if sp == nil || proto.Digest(sp.Payload) == digest {
			s.planned = true // once judged, a plan stays good for its install
			return nil
		}
	}
	if sp == nil {
		return &errNoPlan{errors.New("the collector has no plan for this install")}
	}
	if now.IsZero() {
		return &errNoPlan{errors.New("the collector does not tell its time, by which the plan's expiry is judged")}
	}
	p, err := plan.Verify(sp, terms)
	if err != nil {
		return &errNoPlan{err}
	}
	s.plan, s.steps, s.planned = sp, p.Steps, false
	return nil
}

// setPace takes the collector's wish for the time between heartbeats, within 1 s and 5 min.
func (s *Sender) setPace(seconds int) {
	if seconds > 0 {
		s.every = min(max(time.Duration(seconds)*time.Second, time.Second), 5*time.Minute)
	}
}

// fetch brings the next missing script of the plan, one for each call, or of an order's plan. When all are there the
// plan is published: whoever finds plan.json can run it.
func (s *Sender) fetch(ctx context.Context) (bool, error) {
	if s.plan == nil {
		return false, nil
	}
	for _, st := range s.steps {
		ok, err := s.fetchOne(ctx, st)
		if ok || err != nil {
			return ok, err
		}
	}
	over := func(proto.Phase) bool { return false }
	if s.Hello().Env == proto.EnvInstalled {
		over = InstallerPhase
	}
	if err := s.Dir.Keep(s.plan, over); err != nil {
		return false, err
	}
	s.plan, s.steps, s.planned = nil, nil, true
	orders := s.orders
	s.orders = nil
	for _, o := range orders {
		if err := s.Take(o); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (s *Sender) fetchOne(ctx context.Context, st proto.Step) (bool, error) {
	path, err := s.Dir.Script(st.Digest)
	if err != nil {
		return false, err
	}
	if b, err := os.ReadFile(path); err == nil && proto.Digest(b) == st.Digest {
		return false, nil
	}
	limit := int64(proto.MaxScript)
	if st.Size > 0 {
		limit = st.Size
	}
	b, err := s.client.do(ctx, request{method: "GET", path: "/v1/agent/files/" + st.Digest, limit: limit, timeout: s.Timing.File})
	if err != nil {
		return false, fmt.Errorf("script of step %s: %w", st.Name, err)
	}
	if proto.Digest(b) != st.Digest || st.Size > 0 && int64(len(b)) != st.Size {
		return false, fmt.Errorf("script of step %s: %w", st.Name, senseless("these are not the bytes that the signed plan names"))
	}
	return true, s.Dir.AddScript(b)
}
