// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"provost/proto"
)

// maxProblems bounds what an answer says to be wrong with an inventory.
const maxProblems = 1000

// errDryRun ends a decision that is not to be taken.
var errDryRun = errors.New("dry run")

// Import adds and changes nodes, all of them or none. With DryRun it only says what would be done and what stands
// against it; without, the first problem refuses the whole.
func (r *Registry) Import(ctx context.Context, inv proto.Inventory) (*proto.InventoryAnswer, error) {
	a := &proto.InventoryAnswer{Schema: proto.Schema, DryRun: inv.DryRun}
	err := r.update(ctx, func(c *change) error {
		a.Changes, a.Problems = []proto.NodeChange{}, nil
		if err := c.inventory(inv.Nodes, a); err != nil {
			return err
		}
		switch {
		case inv.DryRun:
			return errDryRun
		case len(a.Problems) > 0:
			p := a.Problems[0]
			return problem(409, proto.CodeConflict, "provost node import --dry-run says all that is wrong", "nothing was imported, for %s: %s", p.Name, p.Detail)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return a, nil
}

// inventory decides all nodes of an inventory. Addresses may wander between its nodes: all that are given up are free
// before any is taken.
func (c *change) inventory(nodes []proto.InventoryNode, a *proto.InventoryAnswer) error {
	wrong := func(i int, format string, args ...any) {
		if len(a.Problems) < maxProblems {
			text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
			a.Problems = append(a.Problems, proto.InventoryProblem{Index: i, Name: proto.Clip(nodes[i].Name, 64), Detail: proto.Clip(text, proto.MaxMessage)})
		}
	}
	first := map[string]int{}
	specs := make([]*proto.NodeSpec, len(nodes))
	for i, in := range nodes {
		if j, twice := first[in.Name]; twice {
			wrong(i, "node %s stands twice: it is also number %d", in.Name, j+1)
			continue
		}
		first[in.Name] = i
		var base proto.NodeSpec
		old := c.node(in.Name)
		if old != nil && !old.Discovered {
			base = old.Spec
			if err := old.canProtect(in.Patch.Protected); err != nil {
				wrong(i, "%v", err)
				continue
			}
		}
		base.Name = in.Name
		spec := in.Patch.Apply(base)
		if err := errors.Join(in.Patch.Check(), spec.Check()); err != nil {
			wrong(i, "%v", err)
			continue
		}
		if spec.Profile != base.Profile {
			if err := c.r.checkProfile(spec.Profile); err != nil {
				wrong(i, "%v", err)
				continue
			}
		}
		specs[i] = &spec
		if old != nil {
			c.setMACs(old.Spec.MACs, nil, in.Name)
		}
	}
	for i, spec := range specs {
		if spec == nil {
			continue
		}
		taken := false
		for _, mac := range spec.MACs {
			owner := c.mac(mac)
			if owner == "" {
				continue
			}
			if n := c.node(owner); n.Discovered {
				c.dropNode(n)
				continue
			}
			wrong(i, "MAC %s belongs to node %s", mac, owner)
			taken = true
		}
		if taken {
			continue
		}
		c.setMACs(nil, spec.MACs, spec.Name)
		n := node{nodeRecord: nodeRecord{BootAction: proto.BootDisk}}
		ch := proto.NodeChange{Name: spec.Name, New: true}
		if old := c.node(spec.Name); old != nil && !old.Discovered {
			n, ch.New = *old, false
		}
		ch.Fields = proto.Diff(n.Spec, *spec)
		if len(ch.Fields) == 0 {
			continue
		}
		detail := changes(n.Spec, *spec)
		n.said(*spec)
		if err := c.putNode(&n); err != nil {
			return err
		}
		if err := c.history(spec.Name, proto.HistoryEntry{Order: "import", Detail: detail}, nil); err != nil {
			return err
		}
		a.Changes = append(a.Changes, ch)
	}
	return nil
}
