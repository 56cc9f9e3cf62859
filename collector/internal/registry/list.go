// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
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

// cell is what is kept of a node for lists, whichever of its records that was made of.
type cell struct {
	latest atomic.Pointer[encoded]
	piece  atomic.Pointer[piece] // of the list of all nodes
}

// changed says that some of the node's sources are others now.
func (c *cell) changed() {
	if p := c.piece.Load(); p != nil {
		p.fresh.Store(false)
	}
}

// encode gives a node as JSON, which nobody may change. It is encoded when something has changed.
func (s sources) encode() ([]byte, error) {
	if e := s.n.cell.latest.Load(); e != nil && e.sources == s {
		return e.json, nil
	}
	v := s.node()
	v.Hardware = nil // some kilobytes of each node, which no list is asked for
	b, err := json.Marshal(&v)
	if err != nil {
		return nil, fmt.Errorf("encoding node %s: %w", s.n.Spec.Name, err)
	}
	s.n.cell.latest.Store(&encoded{s, slices.Clip(b)})
	return b, nil
}

// listPiece is how many nodes are looked at in one go, so that nobody waits long to change them.
const listPiece = 512

// order is all nodes, and of how many changes of that set.
type order struct {
	changes uint64
	names   []string
	pieces  []*piece
}

// piece is a part of the list of all nodes, with its JSON, commas between, as long as that is what there is.
type piece struct {
	names []string
	fresh atomic.Bool // no node of it has changed since json was begun

	mu    sync.Mutex
	json  []byte // replaced, never changed
	of    common
	lines map[string]time.Time // of nodes without an install: when a log last spoke of them
}

// common is what all nodes' sources rest on.
type common struct {
	down  *[]deadline.Interval
	blind *blindness
	usual uint64 // changes of it
}

// all gives every node in natural order.
func (r *Registry) all() *order {
	r.pub.RLock()
	defer r.pub.RUnlock()
	if o := r.everybody.Load(); o != nil && o.changes == r.pub.set {
		return o
	}
	o := &order{changes: r.pub.set, names: make([]string, 0, len(r.pub.nodes))}
	for name := range r.pub.nodes {
		o.names = append(o.names, name)
	}
	slices.SortFunc(o.names, nodeset.Compare)
	for names := range slices.Chunk(o.names, listPiece) {
		p := &piece{names: names}
		o.pieces = append(o.pieces, p)
		for _, name := range names {
			r.pub.nodes[name].cell.piece.Store(p)
		}
	}
	r.everybody.Store(o)
	return o
}

// Everybody gives the names of all nodes in natural order. They must not be changed.
func (r *Registry) Everybody() []string { return r.all().names }

// EncodeAll gives the JSON of all nodes in natural order, with commas between, in parts that must not be changed. Parts of
// which no node has changed are those of the last time.
func (r *Registry) EncodeAll() ([][]byte, error) {
	var parts [][]byte
	for _, p := range r.all().pieces {
		b, err := r.encodePiece(p)
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			continue // its nodes have gone
		}
		if len(parts) > 0 {
			parts = append(parts, []byte{','})
		}
		parts = append(parts, b)
	}
	return parts, nil
}

func (r *Registry) encodePiece(p *piece) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := common{r.downtime.list(), r.evidence.blind.Load(), r.usual.changes.Load()}
	spoken := func() bool {
		for name, at := range p.lines {
			if !r.lastLine(name).Equal(at) {
				return true
			}
		}
		return false
	}
	if p.fresh.Load() && p.of == of && !spoken() {
		return p.json, nil
	}
	p.fresh.Store(true) // before the look: what changes meanwhile is looked at again
	found := r.lookUp(p.names, nil)
	b, err := join(nil, found)
	if err != nil {
		p.fresh.Store(false)
		return nil, err
	}
	p.json, p.of, p.lines = slices.Clip(b), of, nil
	for _, s := range found {
		if s.in == nil {
			set(&p.lines, s.n.Spec.Name, s.line)
		}
	}
	return p.json, nil
}

// lookUp appends the sources of the named nodes that there are.
func (r *Registry) lookUp(names []string, to []sources) []sources {
	r.pub.RLock()
	defer r.pub.RUnlock()
	for _, name := range names {
		if n := r.pub.nodes[name]; n != nil {
			to = append(to, r.sources(n))
		}
	}
	return to
}

// join appends the JSON of nodes, with commas between.
func join(b []byte, nodes []sources) ([]byte, error) {
	for i, s := range nodes {
		one, err := s.encode()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, one...)
	}
	return b, nil
}

// EncodeNodes calls write with the JSON of the named nodes in their order, with commas between, in pieces. Nodes that have
// gone meanwhile are left out.
func (r *Registry) EncodeNodes(names []string, write func([]byte) error) error {
	found := make([]sources, 0, min(len(names), listPiece))
	var b []byte
	first := true
	for piece := range slices.Chunk(names, listPiece) {
		found, b = r.lookUp(piece, found[:0]), b[:0]
		if !first && len(found) > 0 {
			b = append(b, ',')
		}
		first = first && len(found) == 0
		var err error
		if b, err = join(b, found); err != nil {
			return err
		}
		if err := write(b); err != nil {
			return err
		}
	}
	return nil
}
