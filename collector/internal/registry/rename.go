// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"

	"provost/collector/internal/store"
	"provost/proto"
)

// RenameNode gives a node another name; its installs, logs and history stay its own. While an install is under way it is
// refused: its plan is signed for the old name, and its agent would not take it under another one.
func (r *Registry) RenameNode(ctx context.Context, old, name string) (proto.Node, error) {
	if err := proto.CheckNode(name); err != nil {
		return proto.Node{}, badRequest(err)
	}
	err := r.update(ctx, func(c *change) error {
		was := c.node(old)
		if was == nil || was.Discovered {
			return unknownNode(old)
		}
		if old == name {
			return nil
		}
		if c.node(name) != nil {
			return problem(409, proto.CodeExists, "take another name", "node %s is there already", name)
		}
		if c.underWay(was.Install) {
			return problem(409, proto.CodeConflict, "provost abort "+old+" ends it", "an install is under way on %s", old)
		}
		for _, id := range was.installs {
			rec := c.edit(id)
			rec.Node = name
			if err := c.putInstall(rec); err != nil {
				return err
			}
		}
		c.tx.Delete(store.Nodes, old)
		set(&c.nodes, old, nil)
		n := *was
		n.Spec.Name = name
		c.setMACs(nil, n.Spec.MACs, name)
		c.moveHistory(was, name)
		if err := c.putNode(&n); err != nil {
			return err
		}
		return c.history(name, proto.HistoryEntry{Order: "rename", Detail: "was " + old}, nil)
	})
	if err != nil {
		return proto.Node{}, err
	}
	return r.Node(name)
}
