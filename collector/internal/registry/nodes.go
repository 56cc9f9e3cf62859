// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"provost/collector/internal/store"
	"provost/proto"
)

// AddNode adds a node. A discovered machine with one of its MACs becomes it.
func (r *Registry) AddNode(ctx context.Context, spec proto.NodeSpec) (proto.Node, error) {
	if err := spec.Check(); err != nil {
		return proto.Node{}, badRequest(err)
	}
	if err := r.checkProfile(spec.Profile); err != nil {
		return proto.Node{}, err
	}
	err := r.update(ctx, func(c *change) error {
		if old := c.node(spec.Name); old != nil && !old.Discovered {
			return problem(409, proto.CodeExists, "provost node set changes it", "node %s is there already", spec.Name)
		}
		for _, mac := range spec.MACs {
			if owner := c.mac(mac); owner != "" {
				if !c.node(owner).Discovered {
					return macTaken(mac, owner)
				}
				c.dropNode(c.node(owner))
			}
		}
		c.setMACs(nil, spec.MACs, spec.Name)
		if err := c.putNode(&node{nodeRecord: nodeRecord{Spec: spec, BootAction: proto.BootDisk}}); err != nil {
			return err
		}
		return c.history(spec.Name, proto.HistoryEntry{Order: "add", Detail: changes(proto.NodeSpec{}, spec)}, nil)
	})
	if err != nil {
		return proto.Node{}, err
	}
	return r.Node(spec.Name)
}

// PatchNodes changes several nodes, or none.
func (r *Registry) PatchNodes(ctx context.Context, names []string, patch proto.NodePatch) error {
	if err := patch.Check(); err != nil {
		return badRequest(err)
	}
	if len(names) > 1 && (patch.MACs != nil || patch.IP != nil || patch.Serial != nil) {
		return problem(400, proto.CodeBadRequest, "name one node", "MAC, address and serial belong to one node; %d are named", len(names))
	}
	if patch.Profile != nil {
		if err := r.checkProfile(*patch.Profile); err != nil {
			return err
		}
	}
	return r.update(ctx, func(c *change) error {
		for _, name := range names {
			old := c.node(name)
			if old == nil || old.Discovered {
				return unknownNode(name)
			}
			if err := old.canProtect(patch.Protected); err != nil {
				return err
			}
			n := *old
			n.said(patch.Apply(old.Spec))
			if err := n.Spec.Check(); err != nil {
				return badRequest(err)
			}
			for _, mac := range n.Spec.MACs {
				if owner := c.mac(mac); owner != "" && owner != name {
					return macTaken(mac, owner)
				}
			}
			c.setMACs(old.Spec.MACs, n.Spec.MACs, name)
			if err := c.putNode(&n); err != nil {
				return err
			}
			if err := c.history(name, proto.HistoryEntry{Order: "set", Detail: changes(old.Spec, n.Spec)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *change) dropNode(n *node) {
	c.setMACs(n.Spec.MACs, nil, n.Spec.Name)
	c.dropHistory(n)
	c.tx.Delete(store.Nodes, n.Spec.Name)
	set(&c.nodes, n.Spec.Name, nil)
	for _, id := range n.installs {
		c.dropInstall(id)
	}
}

// discover keeps a machine that showed a join key and that nobody has added.
func (c *change) discover(h *proto.Hello) error {
	if len(h.MACs) == 0 {
		return nil
	}
	if err := c.meet(h.MACs, identityOf(h.Serial, h.UUID), ""); err != nil {
		return err
	}
	hw := h.Hardware.Clipped()
	for _, mac := range h.MACs {
		if old := c.node(c.mac(mac)); old != nil && old.Discovered && hw.CPUs > 0 {
			n := *old
			n.Hardware = &hw
			return c.putNode(&n)
		}
	}
	return nil
}

func (c *change) setMACs(old, new []string, name string) {
	for _, mac := range old {
		set(&c.macs, mac, "")
	}
	for _, mac := range new {
		set(&c.macs, mac, name)
	}
}

func (r *Registry) checkProfile(name string) error {
	if name == "" || r.opt.Profiles.Has(name) {
		return nil
	}
	return unknownProfile(name)
}

func unknownProfile(name string) *proto.Problem {
	return problem(404, proto.CodeUnknownProfile, "provost profile list shows every profile", "there is no profile %q", proto.Clip(name, 64))
}

func macTaken(mac, owner string) *proto.Problem {
	return problem(409, proto.CodeExists, "a MAC belongs to one node: provost node show "+owner, "MAC %s belongs to node %s", mac, owner)
}

func badRequest(err error) *proto.Problem {
	return problem(400, proto.CodeBadRequest, "", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// SetBootAction sets what nodes get when they ask for a boot script, of all of them or of none.
func (r *Registry) SetBootAction(ctx context.Context, names []string, action proto.BootAction, actor, reason string) error {
	switch action {
	case proto.BootInstall, proto.BootDisk, proto.BootBlock, proto.BootNetboot:
	case proto.BootRescue:
		if err := r.canRescue(names); err != nil {
			return err
		}
	default:
		return problem(400, proto.CodeBadRequest, "use install, disk, netboot, block or rescue", "boot action %q is not supported", proto.Clip(string(action), 32))
	}
	return r.once(ctx, names, nil, func(c *change) error {
		if action == proto.BootInstall {
			if err := c.unprotected(names, "boot install"); err != nil {
				return err
			}
		}
		for _, name := range names {
			old := c.node(name)
			if old == nil || old.Discovered {
				return unknownNode(name)
			}
			rec := c.record(old.Install)
			if action == proto.BootNetboot {
				if err := c.netbootAgain(name, rec); err != nil {
					return err
				}
			}
			if action == proto.BootInstall {
				if rec != nil && c.install(rec.ID).recipe.diskless() {
					return problem(409, proto.CodeConflict, "provost boot "+name+" netboot", "node %s is diskless: there is nothing to install", name)
				}
				if rec == nil || c.install(rec.ID).look().Status == proto.StatusBooted {
					return problem(409, proto.CodeConflict, "provost install "+name+" orders one", "no install of %s is under way", name)
				}
				if rec.Erased {
					return problem(409, proto.CodeConflict, "provost install "+name+" orders another one", "the install of %s is over, and its plan was erased", name)
				}
				again := rec.clone()
				again.Allowed, again.Looped = max(rec.Allowed, rec.Attempt+c.install(rec.ID).recipe.Attempts), false
				if err := c.putInstall(again); err != nil {
					return err
				}
			}
			if err := c.setBoot(old, action, proto.SourceOperator, "", actor, reason); err != nil {
				return err
			}
			if err := c.history(name, proto.HistoryEntry{Order: "boot", Detail: string(action), Actor: actor, Reason: reason}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// setBoot changes a node's boot action and says so in the history of its install.
func (c *change) setBoot(old *node, action proto.BootAction, source proto.Source, stage, actor, reason string) error {
	n := *old
	n.BootAction = action
	message := string(action)
	if reason != "" {
		message += ": " + reason
	}
	err := c.append(proto.Event{Kind: proto.KindBootAction, Source: source, Install: n.Install, Node: n.Spec.Name, Stage: stage,
		Message: proto.Clip(message, proto.MaxMessage), Actor: actor})
	return errors.Join(err, c.putNode(&n))
}

// encode is for values whose encoding cannot fail but by a bug.
func encode(what string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", what, err)
	}
	return b, nil
}
