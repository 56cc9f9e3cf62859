// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"provost/collector/internal/store"
	"provost/proto"
)

// maxRemovals bounds what is kept of the removals of nodes of one name: it stays when the nodes are gone.
const maxRemovals = 16

// removalsPrefix begins the keys of a name's removals in bucket history; their numbers grow.
func removalsPrefix(name string) string { return "r/" + name + "/" }

// underWay reports whether an install goes on. One that an operator has aborted does not: its agent, which may be gone, has only
// to take the order.
func (c *change) underWay(id string) bool {
	in := c.install(id)
	return in != nil && !in.look().Ended && !slices.ContainsFunc(c.record(id).Orders, func(o pendingOrder) bool { return o.Verb == proto.VerbAbort })
}

// RemoveNodes removes nodes with all their installs and logs, or none. A node whose install is under way stays. What is left
// of one is who removed it, when and why.
func (r *Registry) RemoveNodes(ctx context.Context, names []string, reason string) error {
	if len(reason) > proto.MaxMessage {
		return problem(400, proto.CodeBadRequest, "", "reason of %d bytes: at most %d", len(reason), proto.MaxMessage)
	}
	var gone []string
	err := r.update(ctx, func(c *change) error {
		gone = nil
		if err := c.unprotected(names, "rm"); err != nil {
			return err
		}
		var busy []string
		for _, name := range names {
			n := c.node(name)
			if n == nil {
				return unknownNode(name)
			}
			if c.underWay(n.Install) {
				busy = append(busy, name)
			}
		}
		if len(busy) > 0 {
			named, argument := setOf(busy)
			return problem(409, proto.CodeConflict, "provost abort "+argument+" ends it", "an install is under way on %s", named)
		}
		for _, name := range names {
			n := c.node(name)
			gone = append(gone, n.installs...)
			if err := c.noteRemoval(n, reason); err != nil {
				return err
			}
			c.dropNode(n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	who := callerOf(ctx)
	for _, name := range names {
		r.opt.Log.Info("node removed", "node", name, "actor", who.Actor, "reason", reason)
	}
	r.removeLogs(gone) // unreachable already; a crash here leaves only files behind
	return nil
}

// noteRemoval keeps that a node was removed. It must be there still.
func (c *change) noteRemoval(n *node, reason string) error {
	e := proto.HistoryEntry{Order: "rm", At: c.now, Actor: c.who.Actor, Client: c.who.Client, Collector: c.r.opt.Version, Reason: reason,
		Profile: n.Spec.Profile, Detail: "MAC " + strings.Join(n.Spec.MACs, " ")}
	if rec := c.record(n.Install); rec != nil {
		e.Install, e.Ordinal, e.Label = rec.ID, rec.Ordinal, rec.Label
		e.Detail += ", " + c.install(rec.ID).look().Summary
	}
	e.Detail = proto.Clip(e.Detail, proto.MaxMessage)
	b, err := encode("history", e)
	if err != nil {
		return err
	}
	prefix, last := removalsPrefix(n.Spec.Name), uint64(0)
	var keys []string
	// What this decision itself has written is not looked through for each of its nodes: a node is removed once in it.
	c.tx.Reader.Range(store.History, prefix, store.PrefixEnd(prefix), func(key string, _ []byte) bool {
		keys = append(keys, key)
		return true
	})
	if len(keys) > 0 {
		if _, err := fmt.Sscanf(keys[len(keys)-1][len(prefix):], "%d", &last); err != nil {
			return fmt.Errorf("reading the removals of %s: key %s: %w", n.Spec.Name, keys[len(keys)-1], err)
		}
	}
	c.tx.Put(store.History, fmt.Sprintf("%s%020d", prefix, last+1), b)
	for len(keys) >= maxRemovals {
		c.tx.Delete(store.History, keys[0])
		keys = keys[1:]
	}
	return nil
}

// removals gives those of a name, the newest first.
func (r *Registry) removals(name string) ([]proto.HistoryEntry, error) {
	var out []proto.HistoryEntry
	prefix := removalsPrefix(name)
	var bad error
	err := r.st.View(func(s *store.Reader) error {
		s.Range(store.History, prefix, store.PrefixEnd(prefix), func(_ string, v []byte) bool {
			var e proto.HistoryEntry
			if bad = json.Unmarshal(v, &e); bad == nil {
				out = append(out, e)
			}
			return bad == nil
		})
		return bad
	})
	slices.Reverse(out)
	return out, err
}
