// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"provost/collector/internal/deadline"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

// sources is all that what everybody sees of a node is made of: as long as none of it changes, neither does that. None of
// what it points to is ever changed, only replaced.
type sources struct {
	n      *node
	in     *install // nil: it has none
	rec    *installRecord
	view   *lifecycle.View
	newest uint64 // revision of the install's last event
	heard  int64  // the last heartbeat, in Unix milliseconds; 0 without one
	line   time.Time
	facts  *proto.Facts
	down   *[]deadline.Interval
	usual  *proto.Usual // after the stage that it is at
	blind  *blindness   // of what its being stuck may come from
}

// sources looks them up. r.pub is locked for reading.
func (r *Registry) sources(n *node) sources {
	s := sources{n: n, in: r.pub.installs[n.Install], down: r.downtime.list()}
	if s.in == nil {
		s.line = r.lastLine(n.Spec.Name)
		return s
	}
	s.rec, s.heard, s.facts = s.in.rec.Load(), s.in.seen.Load(), s.in.facts.Load()
	s.view, s.newest = s.in.lookNewest()
	if s.view.Stuck != nil {
		s.blind = r.evidence.blind.Load()
	}
	if s.view.Awaited != "" {
		s.usual = r.usual.after(s.in.recipe.Profile, s.view.Stage)
	}
	return s
}

// encoded is a node as JSON, and what that was made of.
type encoded struct {
	sources
	json []byte
}

// cell has the latest encoded of a node, whichever of its records that was made of.
type cell = atomic.Pointer[encoded]

// encode gives a node as JSON, which nobody may change. It is encoded when something has changed.
func (s sources) encode() ([]byte, error) {
	if e := s.n.cell.Load(); e != nil && e.sources == s {
		return e.json, nil
	}
	v := s.node()
	v.Hardware = nil // some kilobytes of each node, which no list is asked for
	b, err := json.Marshal(&v)
	if err != nil {
		return nil, fmt.Errorf("encoding node %s: %w", s.n.Spec.Name, err)
	}
	s.n.cell.Store(&encoded{s, slices.Clip(b)})
	return b, nil
}

// order is the names of all nodes, and of how many changes of that set.
type order struct {
	changes uint64
	names   []string
}

// Everybody gives the names of all nodes in natural order. They must not be changed.
func (r *Registry) Everybody() []string {
	r.pub.RLock()
	defer r.pub.RUnlock()
	if o := r.everybody.Load(); o != nil && o.changes == r.pub.set {
		return o.names
	}
	o := &order{changes: r.pub.set, names: make([]string, 0, len(r.pub.nodes))}
	for name := range r.pub.nodes {
		o.names = append(o.names, name)
	}
	slices.SortFunc(o.names, nodeset.Compare)
	r.everybody.Store(o)
	return o.names
}

// listPiece is how many nodes are looked at in one go, so that nobody waits long to change them.
const listPiece = 512

// EncodeNodes calls write with the JSON of the named nodes in their order, with commas between, in pieces. Nodes that have
// gone meanwhile are left out.
func (r *Registry) EncodeNodes(names []string, write func([]byte) error) error {
	found := make([]sources, 0, listPiece)
	var b []byte
	first := true
	for piece := range slices.Chunk(names, listPiece) {
		found, b = found[:0], b[:0]
		r.pub.RLock()
		for _, name := range piece {
			if n := r.pub.nodes[name]; n != nil {
				found = append(found, r.sources(n))
			}
		}
		r.pub.RUnlock()
		for _, s := range found {
			one, err := s.encode()
			if err != nil {
				return err
			}
			if !first {
				b = append(b, ',')
			}
			b, first = append(b, one...), false
		}
		if err := write(b); err != nil {
			return err
		}
	}
	return nil
}
