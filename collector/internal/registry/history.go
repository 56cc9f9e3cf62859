// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// historyEntry is a value of bucket history. The steps of a plan are kept once for all orders that have the same: under
// its digest, for ever, some 100 bytes a step.
type historyEntry struct {
	proto.HistoryEntry
	Digest string `json:"steps_digest,omitempty"`
}

func historyKey(node string, n uint64) string { return fmt.Sprintf("n/%s/%020d", node, n) }
func historyPlanKey(digest string) string     { return "p/" + digest }

// history notes an order of an operator; steps are those of the plan that it brought. The node was put before.
func (c *change) history(name string, e proto.HistoryEntry, steps []stepRef) error {
	n := *c.node(name)
	n.History++
	e.At, e.Collector, e.Client = c.now, c.r.opt.Version, c.who.Client
	if e.Actor == "" {
		e.Actor = c.who.Actor
	}
	e.Detail, e.Reason = proto.Clip(e.Detail, proto.MaxMessage), proto.Clip(e.Reason, proto.MaxMessage)
	v := historyEntry{HistoryEntry: e}
	if len(steps) > 0 {
		b, err := encode("steps", steps)
		if err != nil {
			return err
		}
		v.Digest = proto.Digest(b)
		if c.tx.Get(store.History, historyPlanKey(v.Digest)) == nil {
			c.tx.Put(store.History, historyPlanKey(v.Digest), b)
		}
	}
	b, err := encode("history", v)
	if err != nil {
		return err
	}
	c.tx.Put(store.History, historyKey(name, n.History), b)
	if n.History > proto.MaxHistory {
		c.tx.Delete(store.History, historyKey(name, n.History-proto.MaxHistory))
	}
	if b, err = encode("node", n.nodeRecord); err != nil {
		return err
	}
	c.tx.Put(store.Nodes, name, b)
	set(&c.nodes, name, &n)
	return nil
}

// historyRange calls fn with the keys and values of a node's history, the oldest first.
func historyRange(n *node, get func(store.Bucket, string) []byte, fn func(key string, value []byte)) {
	first := uint64(1)
	if n.History > proto.MaxHistory {
		first = n.History - proto.MaxHistory + 1
	}
	for i := first; i <= n.History; i++ {
		key := historyKey(n.Spec.Name, i)
		if b := get(store.History, key); b != nil {
			fn(key, b)
		}
	}
}

// moveHistory gives a renamed node its history, and dropHistory ends that of a removed one.
func (c *change) moveHistory(old *node, name string) {
	at := uint64(0)
	if old.History > proto.MaxHistory {
		at = old.History - proto.MaxHistory
	}
	historyRange(old, c.tx.Get, func(key string, v []byte) {
		at++
		c.tx.Put(store.History, historyKey(name, at), v)
		c.tx.Delete(store.History, key)
	})
}

func (c *change) dropHistory(n *node) {
	historyRange(n, c.tx.Get, func(key string, _ []byte) { c.tx.Delete(store.History, key) })
}

// changes writes what a patch did in one line.
func changes(old, new proto.NodeSpec) string {
	var parts []string
	for _, f := range proto.Diff(old, new) {
		switch {
		case f.Old == "":
			parts = append(parts, f.Field+" "+f.New)
		case f.New == "":
			parts = append(parts, f.Field+" "+f.Old+" → none")
		default:
			parts = append(parts, f.Field+" "+f.Old+" → "+f.New)
		}
	}
	return strings.Join(parts, "; ")
}

// History gives the orders that touched a node since a time, the newest first; with the steps of their plans if plans
// is set. Of nodes of this name that were removed it has the removal.
func (r *Registry) History(name string, since time.Time, plans bool) (proto.History, error) {
	h := proto.History{Schema: proto.Schema, Node: name, Entries: []proto.HistoryEntry{}}
	removals, err := r.removals(name)
	if err != nil {
		return h, fmt.Errorf("reading the removals of %s: %w", name, err)
	}
	if n := r.lookupNode(name); n != nil {
		if err := r.historyOf(n, since, plans, &h); err != nil {
			return h, fmt.Errorf("reading the history of %s: %w", name, err)
		}
	} else if len(removals) == 0 {
		return h, unknownNode(name)
	}
	for _, e := range removals { // of earlier nodes: all orders of the present one are newer, or it was renamed
		if !e.At.Before(since) {
			h.Entries = append(h.Entries, e)
		}
	}
	slices.SortStableFunc(h.Entries, func(a, b proto.HistoryEntry) int { return b.At.Compare(a.At) })
	return h, nil
}

// historyOf adds the orders that touched a node.
func (r *Registry) historyOf(n *node, since time.Time, plans bool, h *proto.History) error {
	var raw [][]byte
	steps := map[string][]byte{}
	err := r.st.View(func(s *store.Reader) error {
		historyRange(n, s.Get, func(_ string, v []byte) { raw = append(raw, v) })
		return nil
	})
	var digests []string
	for i := len(raw) - 1; err == nil && i >= 0; i-- {
		var v historyEntry
		if err = json.Unmarshal(raw[i], &v); err == nil && !v.At.Before(since) {
			h.Entries = append(h.Entries, v.HistoryEntry)
			digests = append(digests, v.Digest)
		}
	}
	if err == nil && plans {
		err = r.st.View(func(s *store.Reader) error {
			for _, d := range digests {
				if _, ok := steps[d]; !ok && d != "" {
					steps[d] = s.Get(store.History, historyPlanKey(d))
				}
			}
			return nil
		})
		for i, d := range digests {
			if err == nil && d != "" {
				err = json.Unmarshal(steps[d], &h.Entries[i].Steps)
			}
		}
	}
	return err
}

// noteInstall notes the order of an install.
func (c *change) noteInstall(p *prepared) error {
	rec := c.record(p.rec.ID)
	return c.history(rec.Node, proto.HistoryEntry{Order: "install", Actor: rec.Actor, Reason: rec.Reason, Install: rec.ID, Ordinal: rec.Ordinal,
		Profile: p.recipe.Profile, Label: rec.Label, Plan: rec.Revision}, rec.Steps)
}

// noteCommand notes an order to the agent.
func (c *change) noteCommand(name string, verb proto.Verb, o proto.NodeOrder, actor string, newPlan bool) error {
	rec := c.record(c.node(name).Install)
	e := proto.HistoryEntry{Order: string(verb), Actor: actor, Reason: o.Reason, Step: o.Step, Install: rec.ID, Ordinal: rec.Ordinal,
		Profile: c.install(rec.ID).recipe.Profile, Label: rec.Label}
	if !newPlan {
		return c.history(name, e, nil)
	}
	e.Plan = rec.Revision
	return c.history(name, e, rec.Steps)
}
