// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	fastjson "github.com/go-json-experiment/json/v1"

	"provost/collector/internal/eventjson"
	"provost/collector/internal/store"
	"provost/proto"
)

// load builds the model from the store and publishes it: records, then checkpoints, then the events after them.
func (r *Registry) load() error {
	m := &model{nodes: map[string]*node{}, installs: map[string]*install{}, macs: map[string]string{}, operators: map[string]operatorToken{}, touched: map[string]bool{},
		dirtyNodes: map[string]bool{}, dirtyInstalls: map[string]bool{}, dirtyMarks: map[string]bool{}, dirtyCells: map[string]bool{}, dirtyMACs: map[string]bool{}, dirtyOperators: map[string]bool{}}
	r.m = m
	r.pub = published{nodes: map[string]*node{}, installs: map[string]*install{}, macs: map[string]string{}, agents: map[string]string{}, operators: map[string]operatorToken{}}
	err := readAll(r.st, store.Nodes, whole, func(name string, v []byte) (*node, error) {
		n := &node{cell: new(cell)}
		return n, readJSON(v, &n.nodeRecord, "node", name)
	}, func(name string, n *node) error {
		m.nodes[name], r.pub.nodes[name] = n, n
		for _, mac := range n.Spec.MACs {
			m.macs[mac], r.pub.macs[mac] = name, name
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = readAll(r.st, store.Installs, whole, func(id string, v []byte) (*installRecord, error) {
		rec := &installRecord{}
		return rec, readJSON(v, rec, "install", id)
	}, func(id string, rec *installRecord) error {
		recipe, err := r.recipeOf(rec.Recipe)
		if err == nil {
			err = r.fillSteps(rec)
		}
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
	err = readAll(r.st, store.Tokens, whole, func(hash string, v []byte) (t operatorToken, err error) {
		return t, readJSON(v, &t, "token", hash[:min(8, len(hash))]+"…")
	}, func(hash string, t operatorToken) error {
		m.operators[hash], r.pub.operators[hash] = t, t
		return nil
	})
	if err != nil {
		return err
	}
	return r.replay()
}

func newInstall(rec *installRecord, recipe *Recipe) *install {
	return &install{id: rec.ID, recipe: recipe, next: rec}
}

// replay brings the folds up to the last revision: from the checkpoints, then from the events after them.
func (r *Registry) replay() error {
	after, upTo, err := r.loadCheckpoints()
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
			if err := eventjson.Decode(s.Value, &e); err != nil {
				return fmt.Errorf("reading event %d: %w", s.Revision, err)
			}
			in := r.m.installs[e.Install]
			if in == nil || e.Revision <= upTo[e.Install] {
				continue
			}
			if err := r.st.View(in.wake); err != nil {
				return err
			}
			oneWords(&e)
			in.apply([]*proto.Event{&e}, []store.Entry{s})
			r.checkpoints.touch(e.Install, e.Revision, r.now())
		}
		after = entries[len(entries)-1].Revision
	}
	for _, in := range r.m.installs {
		in.passed(in.next)
		in.takeMarks()
		in.taken = in.fill()
	}
	return nil
}

// whole takes a value as it is, for readAll.
func whole(v []byte) []byte { return v }

// readJSON is json.Unmarshal in less than half of the time, with the same result: the decoder that is to become package encoding/json's.
func readJSON(b []byte, v any, what, name string) error {
	if err := fastjson.Unmarshal(b, v); err != nil {
		return fmt.Errorf("reading %s %s: %w", what, name, err)
	}
	return nil
}

// readAll reads a bucket on all processors: parse makes something of each value, or of the part of it that is asked for,
// several at a time; use takes that, one after the other and in no order.
func readAll[T any](st *store.Store, b store.Bucket, part func([]byte) []byte, parse func(key string, value []byte) (T, error), use func(key string, v T) error) error {
	type raw struct {
		key   string
		value []byte
	}
	type parsed struct {
		keys   []string
		values []T
		err    error
	}
	const piece = 256
	in, out := make(chan []raw, 8), make(chan parsed, 8)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for list := range in {
				p := parsed{keys: make([]string, len(list)), values: make([]T, len(list))}
				for i, x := range list {
					if p.err == nil {
						p.keys[i] = x.key
						p.values[i], p.err = parse(x.key, x.value)
					}
				}
				out <- p
			}
		})
	}
	var scanned error
	go func() {
		list := make([]raw, 0, piece)
		scanned = st.ScanParts(b, part, func(key string, value []byte) error {
			if list = append(list, raw{key, value}); len(list) == piece {
				in <- list
				list = make([]raw, 0, piece)
			}
			return nil
		})
		in <- list
		close(in)
		workers.Wait()
		close(out)
	}()
	var failed error
	for p := range out { // to its end: nobody is left behind
		if failed == nil {
			failed = p.err
		}
		for i, key := range p.keys {
			if failed == nil {
				failed = use(key, p.values[i])
			}
		}
	}
	if failed == nil {
		failed = scanned
	}
	return failed
}
