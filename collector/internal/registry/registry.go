// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// Profiles is what the registry asks of the site's profiles.
type Profiles interface {
	// Has reports whether there is a profile of this name.
	Has(profile string) bool
	// Prepare gives what a profile makes of a node: a refusal (*proto.Problem) if it makes no sense.
	Prepare(profile string, n proto.NodeSpec) (*Prepared, error)
}

// Prepared is a profile as it is now, for one node.
type Prepared struct {
	Recipe  Recipe
	Steps   []proto.Step      // with defaults, digests and sizes
	Scripts map[string][]byte // by digest
}

// Signer signs plans.
type Signer interface {
	SignPlan(*proto.Plan) (*proto.SignedPlan, error)
}

// Options are what a Registry works with. Now and Log may be left out.
type Options struct {
	Store    *store.Store
	Logs     *store.Logs
	Profiles Profiles
	Signer   Signer
	JoinKey  string   // of the site; empty is none
	Pin      string   // of the CA, for boot scripts
	URLs     []string // of the collector for agents, in order; empty: the host that a node reached
	Version  string   // of the collector, for the history
	// AnyAddress lets nodes in from wherever they come. Otherwise one whose address is known must say hello from there.
	AnyAddress bool
	Unknown    string // what becomes of machines that nobody has added: UnknownIgnore, UnknownDiscover, or a profile
	Log        *slog.Logger
	Now        func() time.Time

	Retention     Retention
	Evidence      Evidence
	MaxDiscovered int // machines that nobody asked for; 0: 4096
}

// Registry knows every node and install. It is safe for any number of goroutines.
type Registry struct {
	opt         Options
	st          *store.Store
	secret      []byte // claims and tickets are derived from it
	m           *model
	pub         published
	checkpoints checkpoints
	downtime    downtime
	evidence    watcher
	strangers   strangers

	unused                            atomic.Bool   // there may be files that no install names
	expired, refusedEvents, forgotten atomic.Uint64 // since the start
}

// Open reads everything from the store and takes its hooks. The registry does not close the store.
func Open(ctx context.Context, opt Options) (*Registry, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	opt.Retention = opt.Retention.withDefaults()
	r := &Registry{opt: opt, st: opt.Store}
	r.unused.Store(true)
	r.st.SetHooks(store.Hooks{Committed: r.committed, Lost: r.lost})
	if err := r.load(); err != nil {
		return nil, err
	}
	if err := r.openSecret(ctx); err != nil {
		return nil, err
	}
	if err := r.openDowntime(ctx); err != nil {
		return nil, err
	}
	if err := r.openEvidence(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Registry) now() time.Time { return r.opt.Now() }

// update makes one decision in the store's writer. fn may be cut off by ctx before it begins, never in the middle.
func (r *Registry) update(ctx context.Context, fn func(c *change) error) error {
	return r.st.Update(ctx, func(tx *store.Tx) error {
		c := &change{r: r, tx: tx, who: callerOf(ctx), now: stamp(r.now()), nodes: map[string]*node{}, records: map[string]*installRecord{},
			made: map[string]*install{}, removed: map[string]bool{}, marks: map[string]map[string]mark{}, taken: map[string]fill{}, macs: map[string]string{},
			operators: map[string]*operatorToken{}}
		if err := fn(c); err != nil {
			return err
		}
		if err := tx.Err(); err != nil {
			return err
		}
		c.keep()
		return nil
	})
}

// load builds the model from the store and publishes it: records, then checkpoints, then the events after them.
func (r *Registry) load() error {
	m := &model{nodes: map[string]*node{}, installs: map[string]*install{}, macs: map[string]string{}, operators: map[string]operatorToken{}, touched: map[string]bool{},
		dirtyNodes: map[string]bool{}, dirtyInstalls: map[string]bool{}, dirtyMACs: map[string]bool{}, dirtyOperators: map[string]bool{}}
	r.m = m
	r.pub = published{nodes: map[string]*node{}, installs: map[string]*install{}, macs: map[string]string{}, agents: map[string]string{}, operators: map[string]operatorToken{}}
	recipes := map[string]*Recipe{}
	err := r.st.Scan(store.Nodes, func(name string, v []byte) error {
		n := &node{}
		if err := json.Unmarshal(v, &n.nodeRecord); err != nil {
			return fmt.Errorf("reading node %s: %w", name, err)
		}
		m.nodes[name], r.pub.nodes[name] = n, n
		for _, mac := range n.Spec.MACs {
			m.macs[mac], r.pub.macs[mac] = name, name
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = r.st.Scan(store.Installs, func(id string, v []byte) error {
		rec := &installRecord{}
		if err := json.Unmarshal(v, rec); err != nil {
			return fmt.Errorf("reading install %s: %w", id, err)
		}
		recipe, err := r.recipe(recipes, rec.Recipe)
		if err != nil {
			return fmt.Errorf("reading install %s: %w", id, err)
		}
		in := newInstall(rec, recipe)
		m.installs[id] = in
		if n := m.nodes[rec.Node]; n != nil { // not published yet: it may be changed in place
			n.installs = append(n.installs, id)
		}
		r.pub.publishInstall(id, in)
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range m.nodes {
		slices.SortFunc(n.installs, func(a, b string) int { return int(m.installs[a].next.Ordinal) - int(m.installs[b].next.Ordinal) })
	}
	err = r.st.Scan(store.Tokens, func(hash string, v []byte) error {
		var t operatorToken
		if err := json.Unmarshal(v, &t); err != nil {
			return fmt.Errorf("reading token %s…: %w", hash[:min(8, len(hash))], err)
		}
		m.operators[hash], r.pub.operators[hash] = t, t
		return nil
	})
	if err != nil {
		return err
	}
	return r.replay()
}

func newInstall(rec *installRecord, recipe *Recipe) *install {
	return &install{id: rec.ID, recipe: recipe, next: rec, marks: map[string]mark{}, journals: map[string]mark{}}
}

// recipe reads a recipe once.
func (r *Registry) recipe(known map[string]*Recipe, digest string) (*Recipe, error) {
	if rc := known[digest]; rc != nil {
		return rc, nil
	}
	var b []byte
	if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.Files, digest); return nil }); err != nil {
		return nil, err
	}
	rc := &Recipe{}
	if err := json.Unmarshal(b, rc); err != nil {
		return nil, fmt.Errorf("reading its recipe: %w", err)
	}
	known[digest] = rc
	return rc, nil
}

// replay brings the folds up to the last revision: from the checkpoints, then from the events after them.
func (r *Registry) replay() error {
	after, err := r.loadCheckpoints()
	if err != nil {
		return err
	}
	for {
		entries, err := r.st.Events(after, 4096)
		if err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
		if len(entries) == 0 {
			break
		}
		for _, s := range entries {
			var e proto.Event
			if err := json.Unmarshal(s.Value, &e); err != nil {
				return fmt.Errorf("reading event %d: %w", s.Revision, err)
			}
			if in := r.m.installs[e.Install]; in != nil {
				in.apply(&e, len(s.Value))
				r.checkpoints.touch(e.Install, e.Revision)
			}
		}
		after = entries[len(entries)-1].Revision
	}
	for _, in := range r.m.installs {
		in.passed(in.next)
		for j, m := range in.journals {
			in.marks[j] = m
		}
		in.taken = in.fill()
	}
	return nil
}

// problem makes a refusal.
func problem(status int, code, hint, format string, args ...any) *proto.Problem {
	return proto.NewProblem(status, code, fmt.Sprintf(format, args...), hint)
}

// installOf gives a published install of a node by id, or "latest".
func (r *Registry) installOf(name, id string) (*node, *install, error) {
	r.pub.RLock()
	defer r.pub.RUnlock()
	n := r.pub.nodes[name]
	if n == nil {
		return nil, nil, unknownNode(name)
	}
	if id == "latest" {
		id = n.Install
	}
	in := r.pub.installs[id]
	if in == nil || in.rec.Load().Node != name {
		return nil, nil, problem(404, proto.CodeNotFound, "GET /v1/nodes/"+name+"/installs lists them", "node %s has no install %s", name, proto.Clip(id, 64))
	}
	return n, in, nil
}

func unknownNode(name string) *proto.Problem {
	return problem(404, proto.CodeUnknownNode, "provost node list shows every node; provost node add makes one", "there is no node %q", proto.Clip(name, 64))
}
