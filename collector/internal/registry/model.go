// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"provost/collector/internal/lifecycle"
	"provost/collector/internal/profile"
	"provost/collector/internal/store"
	"provost/proto"
)

// install is one install in memory. Its parts have different owners.
type install struct {
	id     string
	recipe *Recipe

	// Of the writer alone: with everything decided so far.
	next  *installRecord
	marks map[string]mark // by journal
	taken fill

	// For readers: as committed.
	rec  atomic.Pointer[installRecord]
	seen atomic.Int64 // last heartbeat, Unix milliseconds; not on disk
	// facts are the last heartbeat's; not on disk
	facts atomic.Pointer[proto.Facts]
	// learnt: its times are among the usual ones. Not on disk: after a restart a repeat of its end would count once more.
	learnt atomic.Bool
	// changed counts what deadlines follow from: events, and changes of the record.
	changed atomic.Uint64
	calm    calm // of Expire alone

	mu        sync.Mutex      // guards what follows: the fold of the committed events
	resting   bool            // then state and journals are in the checkpoint, and view is here
	rests     uint64          // how often it was laid to rest
	fetched   *checkpointBody // of this rest: wake need not read it; may be nil
	state     lifecycle.State
	journals  map[string]mark // marks as committed
	packed    packed          // the older events
	revisions []uint64        // of the others, which are in the feed
	bytes     int64           // of all of them
	quiet     uint64          // the newest revision when retention looked last
	idle      uint64          // the same, for restEnded
	view      *lifecycle.View // of state; nil when it has to be computed
}

// model is what the writer decides by. Only the writer touches it.
type model struct {
	nodes     map[string]*node
	installs  map[string]*install
	macs      map[string]string // MAC → node
	operators map[string]operatorToken
	touched   map[string]bool // files that were put since the last round of sweep

	// What the group at hand has changed, to be published with its commit or taken back. Of an install with new marks alone
	// nothing is published but its events.
	dirtyNodes, dirtyInstalls, dirtyMarks map[string]bool
	dirtyMACs, dirtyOperators             map[string]bool
	dirtyCells                            map[string]bool // of nodes whose part of lists is another one now
	events                                []*proto.Event
}

// published is what readers see.
type published struct {
	sync.RWMutex
	nodes     map[string]*node
	installs  map[string]*install
	macs      map[string]string
	agents    map[string]string // hash of an agent's token → install
	operators map[string]operatorToken
	changes   uint64 // commits that changed a node
	set       uint64 // changes of which nodes there are
}

// change is one decision in the making. It sees the model under its own wishes; keep makes them the model's.
type change struct {
	r   *Registry
	tx  *store.Tx
	who Caller
	now time.Time

	nodes     map[string]*node // nil value: removed
	records   map[string]*installRecord
	made      map[string]*install
	removed   map[string]bool
	marks     map[string]map[string]mark
	taken     map[string]fill
	macs      map[string]string // "": removed
	operators map[string]*operatorToken
	events    []*proto.Event
}

func (c *change) node(name string) *node {
	if n, ok := c.nodes[name]; ok {
		return n
	}
	return c.r.m.nodes[name]
}

func (c *change) mac(mac string) string {
	if n, ok := c.macs[mac]; ok {
		return n
	}
	return c.r.m.macs[mac]
}

// record gives an install's record as decided so far, nil if there is none. It must not be changed.
func (c *change) record(id string) *installRecord {
	if rec, ok := c.records[id]; ok {
		return rec
	}
	if in := c.r.m.installs[id]; in != nil && !c.removed[id] {
		return in.next
	}
	return nil
}

// edit gives an install's record for changing; putInstall takes it.
func (c *change) edit(id string) *installRecord { return c.record(id).clone() }

func (c *change) install(id string) *install {
	if in := c.made[id]; in != nil {
		return in
	}
	return c.r.m.installs[id]
}

func (c *change) mark(id, journal string) mark {
	if m, ok := c.marks[id][journal]; ok {
		return m
	}
	if in := c.install(id); in != nil {
		if m, ok := in.marks[journal]; ok {
			return m
		}
	}
	return mark{Next: 1}
}

func (c *change) setMark(id, journal string, m mark) {
	marks := c.marks[id]
	set(&marks, journal, m)
	set(&c.marks, id, marks)
}

func (c *change) putNode(n *node) error {
	v := *n
	v.Changed, v.Revision = c.now, c.tx.NextRevision()-1
	b, err := json.Marshal(v.nodeRecord)
	if err != nil {
		return fmt.Errorf("encoding node %s: %w", n.Spec.Name, err)
	}
	c.tx.Put(store.Nodes, n.Spec.Name, b)
	set(&c.nodes, n.Spec.Name, &v)
	return nil
}

func (c *change) putInstall(rec *installRecord) error {
	stored := rec
	if rec.StepList != "" {
		without := *rec
		without.Steps = nil
		stored = &without
	}
	b, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encoding install %s: %w", rec.ID, err)
	}
	c.tx.Put(store.Installs, rec.ID, b)
	set(&c.records, rec.ID, rec)
	return nil
}

// append adds an event of the collector's own, unless its identity is set already: then it is an agent's.
func (c *change) append(e proto.Event) error {
	if err := c.wake(e.Install); err != nil {
		return err
	}
	return c.appendEncoded(&e, nil)
}

// appendEncoded does it for an install that is awake, with the JSON of the event at hand, but for its end: what the collector
// says, which are the last fields of a proto.Event. Nil is none. The event is the model's from then on.
func (c *change) appendEncoded(e *proto.Event, b []byte) error {
	e.Revision = c.tx.NextRevision()
	if e.Seq == 0 {
		e.Seq = e.Revision // unique within a source, and growing
	}
	if e.At.IsZero() {
		e.At = stamp(c.now)
	}
	if e.Time.IsZero() {
		e.Time = e.At
	}
	if b == nil {
		var err error
		if b, err = json.Marshal(e); err != nil {
			return fmt.Errorf("encoding event: %w", err)
		}
	} else {
		b = strconv.AppendUint(append(slices.Grow(b, 200), `,"revision":`...), e.Revision, 10)
		b = append(append(append(b, `,"node":"`...), e.Node...), '"') // a name has nothing to escape: proto.CheckNode
		if e.Attempt != 0 {
			b = strconv.AppendInt(append(b, `,"attempt":`...), int64(e.Attempt), 10)
		}
		b = append(e.At.AppendFormat(append(b, `,"at":"`...), time.RFC3339Nano), `"}`...)
	}
	c.tx.Append(b)
	c.events = append(c.events, e)
	return nil
}

// stamp is a time as events have it: UTC, in milliseconds.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// keep makes the change part of the model. Nothing in it can fail.
func (c *change) keep() {
	m := c.r.m
	for id, in := range c.made {
		m.installs[id] = in
		m.dirtyInstalls[id] = true
	}
	for id, rec := range c.records {
		m.installs[id].next = rec
		m.dirtyInstalls[id] = true
	}
	for id := range c.removed {
		delete(m.installs, id)
		m.dirtyInstalls[id] = true
	}
	for id, marks := range c.marks {
		if in := m.installs[id]; in != nil {
			if in.marks == nil {
				in.marks = map[string]mark{}
			}
			maps.Copy(in.marks, marks)
			m.dirtyMarks[id] = true
		}
	}
	for id, f := range c.taken { // their marks are set as well
		if in := m.installs[id]; in != nil {
			in.taken = f
		}
	}
	for name, n := range c.nodes {
		put(m.nodes, name, n, n == nil)
		m.dirtyNodes[name] = true
	}
	for mac, name := range c.macs {
		put(m.macs, mac, name, name == "")
		m.dirtyMACs[mac] = true
	}
	for hash, t := range c.operators {
		if t == nil {
			delete(m.operators, hash)
		} else {
			m.operators[hash] = *t
		}
		m.dirtyOperators[hash] = true
	}
	m.events = append(m.events, c.events...)
}

// set is m[k] = v for a map that is made with its first entry.
func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

func put[K comparable, V any](m map[K]V, k K, v V, remove bool) {
	if remove {
		delete(m, k)
	} else {
		m[k] = v
	}
}

// committed publishes what the group has changed. The store's writer calls it after the commit.
func (r *Registry) committed(entries []store.Entry) {
	m, p := r.m, &r.pub
	now := r.now()
	for i := 0; i < len(m.events); { // every event of the store is a change's
		id, first := m.events[i].Install, i
		for i++; i < len(m.events) && m.events[i].Install == id; i++ { // those of a request come in a row
		}
		in := m.installs[id]
		if in == nil {
			continue
		}
		in.taken = in.apply(m.events[first:i], entries[first:i])
		for _, e := range m.events[first:i] {
			if e.Stage == "booted" || e.Kind == proto.KindRunEnd && e.Outcome.Good() && e.Phase != proto.PhasePre && e.Phase != proto.PhasePost {
				r.learn(in)
			}
		}
		r.checkpoints.touch(id, m.events[first].Revision, now)
		m.dirtyCells[in.next.Node] = true
	}
	p.Lock()
	for id := range m.dirtyInstalls {
		in := m.installs[id]
		p.publishInstall(id, in)
		if in != nil {
			m.dirtyCells[in.next.Node] = true
		}
	}
	for name := range m.dirtyNodes {
		n, ok := m.nodes[name]
		if ok && n.cell == nil {
			n.cell = new(cell) // nobody else has seen it yet
		}
		if _, was := p.nodes[name]; was != ok {
			p.set++
		}
		put(p.nodes, name, n, !ok)
		m.dirtyCells[name] = true
	}
	for name := range m.dirtyCells {
		if n := m.nodes[name]; n != nil {
			n.cell.changed()
		}
	}
	if len(m.dirtyNodes) > 0 {
		p.changes++
	}
	for mac := range m.dirtyMACs {
		n, ok := m.macs[mac]
		put(p.macs, mac, n, !ok)
	}
	for hash := range m.dirtyOperators {
		t, ok := m.operators[hash]
		put(p.operators, hash, t, !ok)
	}
	p.Unlock()
	m.clean()
}

func (p *published) publishInstall(id string, in *install) {
	if old := p.installs[id]; old != nil {
		if rec := old.rec.Load(); rec != nil {
			for _, t := range rec.Tokens {
				delete(p.agents, t.Hash)
			}
		}
	}
	if in == nil {
		delete(p.installs, id)
		return
	}
	in.rec.Store(in.next)
	in.changed.Add(1)
	in.passed(in.next)
	p.installs[id] = in
	for _, t := range in.next.Tokens {
		p.agents[t.Hash] = id
	}
}

// lost takes back what the group has changed: the published state is the last one that was committed.
func (r *Registry) lost() {
	m, p := r.m, &r.pub
	p.RLock()
	maps.Copy(m.dirtyInstalls, m.dirtyMarks)
	for id := range m.dirtyInstalls {
		in, ok := p.installs[id]
		put(m.installs, id, in, !ok)
		if ok {
			in.next = in.rec.Load()
			in.mu.Lock()
			in.marks = maps.Clone(in.journals)
			in.mu.Unlock()
			in.taken = in.fill()
		}
	}
	for name := range m.dirtyNodes {
		n, ok := p.nodes[name]
		put(m.nodes, name, n, !ok)
	}
	for mac := range m.dirtyMACs {
		n, ok := p.macs[mac]
		put(m.macs, mac, n, !ok)
	}
	for hash := range m.dirtyOperators {
		t, ok := p.operators[hash]
		put(m.operators, hash, t, !ok)
	}
	p.RUnlock()
	m.clean()
}

func (m *model) clean() {
	clear(m.dirtyNodes)
	clear(m.dirtyInstalls)
	clear(m.dirtyMarks)
	clear(m.dirtyCells)
	clear(m.dirtyMACs)
	clear(m.dirtyOperators)
	clear(m.events)
	m.events = m.events[:0]
}

// apply adds committed events to the fold, and gives what the install has then. Events may come again, as after a restart.
func (in *install) apply(events []*proto.Event, entries []store.Entry) fill {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, e := range events {
		in.applyOne(e, len(entries[i].Value))
	}
	in.view = nil
	in.changed.Add(1)
	return in.filled()
}

// applyOne adds an event of some bytes. in.mu is locked.
func (in *install) applyOne(e *proto.Event, bytes int) {
	if i, found := slices.BinarySearch(in.revisions, e.Revision); !found && e.Revision > in.packed.Revision {
		in.revisions = slices.Insert(in.revisions, i, e.Revision)
		in.bytes += int64(bytes)
	}
	if e.Journal != "" {
		m := in.journals[e.Journal]
		if in.journals == nil {
			in.journals = map[string]mark{}
		}
		if e.Seq >= m.Next {
			m.Next = e.Seq + 1
		}
		if e.At.After(m.At) {
			m.At = e.At
		}
		in.journals[e.Journal] = m
	}
	in.state.Apply(e)
}

// look gives the fold's view; it must not be changed.
func (in *install) look() *lifecycle.View {
	v, _ := in.lookNewest()
	return v
}

// lookNewest gives the view with the revision of the last event in it.
func (in *install) lookNewest() (*lifecycle.View, uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.viewed(), in.newest()
}

// viewed gives the view. in.mu is locked.
func (in *install) viewed() *lifecycle.View {
	if in.view == nil {
		v := in.state.View(lifecycle.Inputs{Sequence: in.recipe.Sequence, Trust: in.recipe.Trust, Diskless: in.recipe.diskless(),
			External: in.recipe.Boot == profile.BootExternal})
		in.view = &v
	}
	return in.view
}
