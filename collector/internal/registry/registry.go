// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
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
	// Frozen gives the profiles as they are now, for one order to many nodes: what Prepare reads of a profile is read once and
	// is the same for all.
	Frozen() Profiles
}

// Prepared is a profile as it is now, for one node. Steps and Scripts are never changed: nodes may share them.
type Prepared struct {
	Recipe  Recipe
	Steps   []proto.Step      // with defaults, digests and sizes
	Scripts map[string][]byte // by digest
}

// Signer signs plans.
type Signer interface {
	// SignPlan checks a plan and signs it for a client that asked for a name in its handshake: see proto.PinName.
	SignPlan(name string, p *proto.Plan) (*proto.SignedPlan, error)
}

// Options are what a Registry works with. Now and Log may be left out.
type Options struct {
	Store    *store.Store
	Logs     *store.Logs
	Profiles Profiles
	Signer   Signer
	JoinKey  string        // of the site; empty is none
	Pin      func() string // of the CA, for boot scripts
	URLs     []string      // of the collector for agents, in order; empty: the host that a node reached
	Version  string        // of the collector, for the history
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
	shared      shared
	everybody   atomic.Pointer[order]
	pub         published
	checkpoints checkpoints
	downtime    downtime
	expiring    sync.Mutex // one Expire at a time
	evidence    watcher
	strangers   strangers
	usual       usual
	keys        keyBounds

	unknownTrouble atomic.Pointer[string] // see UnknownTrouble

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
	r := &Registry{opt: opt, st: opt.Store, keys: defaultKeyBounds}
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
	if err := r.openUsual(); err != nil {
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
		c := &change{r: r, tx: tx, who: callerOf(ctx), now: stamp(r.now())}
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
	switch {
	case id == "":
		return nil, nil, problem(404, proto.CodeNotFound, "provost install "+name+" orders one", "no install of %s was ever ordered", name)
	case in == nil || in.rec.Load().Node != name:
		return nil, nil, problem(404, proto.CodeNotFound, "provost history "+name+" lists those that were ordered", "node %s has no install %s", name, proto.Clip(id, 64))
	}
	return n, in, nil
}

func unknownNode(name string) *proto.Problem {
	return problem(404, proto.CodeUnknownNode, "provost node list shows every node; provost node add makes one", "there is no node %q", proto.Clip(name, 64))
}
