// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"provost/collector/internal/boot"
	"provost/proto"
)

// identity is what a machine says of itself beside the addresses of its cards. Nothing of it is proven. Empty: not known.
type identity struct {
	Serial string `json:"serial,omitempty"`
	UUID   string `json:"uuid,omitempty"` // of DMI, lower case
}

// placeholders are what vendors write who write nothing.
var placeholders = []string{"none", "default string", "to be filled by o.e.m.", "not specified", "not applicable", "n/a", "unknown", "empty", "system serial number",
	"serial number", "oem", "invalid", "0123456789", "123456789", "1234567890", "03000200-0400-0500-0006-000700080009"}

func identityOf(serial, uuid string) identity {
	return identity{Serial: telling(serial), UUID: strings.ToLower(telling(uuid))}
}

// telling is a number that tells one machine from another, or nothing.
func telling(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
	lower := strings.ToLower(s)
	if slices.Contains(placeholders, lower) || strings.Trim(strings.ReplaceAll(lower, "-", ""), lower[:min(1, len(lower))]) == "" {
		return "" // or one character, again and again
	}
	return s
}

func (id identity) empty() bool { return id == identity{} }

// same reports whether two identities are one machine's, other whether they are those of two machines. Boards are swapped
// and cards, and a chassis may give its number to all of its blades: the UUID goes first.
func (id identity) same(o identity) bool {
	if id.UUID != "" && o.UUID != "" {
		return id.UUID == o.UUID
	}
	return id.Serial != "" && id.Serial == o.Serial
}

func (id identity) other(o identity) bool {
	return !id.same(o) && (id.UUID != "" && o.UUID != "" || id.Serial != "" && o.Serial != "")
}

func (id identity) String() string {
	switch {
	case id.Serial != "" && id.UUID != "":
		return "serial number " + id.Serial + ", UUID " + id.UUID
	case id.Serial != "":
		return "serial number " + id.Serial
	}
	return "UUID " + id.UUID
}

// identity is what is known of a node: what an operator has said goes before what the machine did.
func (n *node) identity() identity {
	id := n.Identity
	if n.Spec.Serial != "" {
		id.Serial = n.Spec.Serial
	}
	return id
}

// owner is the one node, but for except, that has an identity; nil if there is none, or more than one.
func (r *Registry) owner(id identity, except string) *node {
	if id.empty() {
		return nil
	}
	r.pub.RLock()
	defer r.pub.RUnlock()
	var found *node
	for _, n := range r.pub.nodes {
		if n.Discovered || n.Spec.Name == except || !n.identity().same(id) {
			continue
		}
		if found != nil {
			return nil
		}
		found = n
	}
	return found
}

// newCard decides for a machine that has a node's serial number or UUID and an address that is nobody's. It may be that node
// with another card, and only an operator can say so.
func (r *Registry) newCard(ctx context.Context, q boot.Request, n *node, id identity) (boot.Decision, error) {
	name := n.Spec.Name
	text := fmt.Sprintf("a machine with its %s asked for a boot script by the MAC %s, which is not listed", id, q.MAC)
	if err := r.noteMoved(ctx, q, name, text); err != nil {
		return boot.Decision{}, err
	}
	if n.BootAction == proto.BootDisk {
		return boot.Decision{Action: proto.BootDisk, Node: name, LocalBoot: "exit"}, nil
	}
	return boot.Decision{Action: proto.BootBlock, Node: name,
		Reason: []string{"This machine is " + name + " by its " + id.String() + ",", "but its MAC " + q.MAC + " is not listed there."},
		Hint:   []string{"provost node set " + name + " --mac " + q.MAC + " (if it is)", "provost node add NAME --mac " + q.MAC + " (if it is another one)"}}, nil
}

// recognise compares a listed machine with what it says of itself. It is a refusal, that blocks the machine, if its card
// came from another node and it would be installed as that one.
func (r *Registry) recognise(ctx context.Context, q boot.Request, n *node) error {
	id, known := identityOf(q.Serial, q.UUID), n.identity()
	if id.empty() || known.same(id) || q.Method == http.MethodHead {
		return nil
	}
	name := n.Spec.Name
	other := r.owner(id, name)
	// Without more, two nodes of one serial number are two in one chassis.
	if other != nil && known.empty() && (id.UUID == "" || other.identity().UUID == "") {
		other = nil
	}
	switch {
	case other != nil && (known.empty() || known.other(id)):
		text := fmt.Sprintf("its MAC %s is in a machine with the %s, which is that of %s", q.MAC, id, other.Spec.Name)
		if err := r.noteMoved(ctx, q, name, text); err != nil {
			return err
		}
		if n.BootAction == proto.BootInstall || n.BootAction == proto.BootNetboot {
			return problem(409, proto.CodeConflict, "provost node set "+name+" --mac …, and "+other.Spec.Name+" likewise, say which card is where",
				"This machine has the MAC of %s and the %s of %s: it is not clear which one it is.", name, id, other.Spec.Name)
		}
	case known.other(id):
		return r.noteMoved(ctx, q, name, fmt.Sprintf("the machine with its MAC %s has the %s now; it was the %s", q.MAC, id, known))
	case known.empty():
		return r.update(ctx, func(c *change) error {
			old := c.node(name)
			if old == nil || old.Identity != (identity{}) {
				return nil
			}
			now := *old
			now.Identity = id
			return c.putNode(&now)
		})
	}
	return nil
}

// noteMoved says once, until an operator has changed cards or number of the node, that a machine is not what it was. It stands in the node's
// status, its history, and the log of its install.
func (r *Registry) noteMoved(ctx context.Context, q boot.Request, name, text string) error {
	if q.Method == http.MethodHead {
		return nil
	}
	return r.update(ctx, func(c *change) error {
		old := c.node(name)
		if old == nil || old.Moved != "" {
			return nil
		}
		c.r.opt.Log.Warn("a machine moved", "node", name, "mac", q.MAC, "what", text)
		n := *old
		n.Moved = text
		err := c.putNode(&n)
		if rec := c.record(n.Install); rec != nil {
			err = errors.Join(err, c.append(proto.Event{Kind: proto.KindNote, Source: proto.SourceBoot, Install: rec.ID, Node: name, Message: proto.Clip(text, proto.MaxMessage)}))
		}
		return errors.Join(err, c.history(name, proto.HistoryEntry{Order: "moved", Actor: "boot server", Detail: text}, nil))
	})
}

// said takes what an operator says of a node. New cards or a new number answer the question whether the machine moved.
func (n *node) said(spec proto.NodeSpec) {
	if !slices.Equal(n.Spec.MACs, spec.MACs) || n.Spec.Serial != spec.Serial {
		n.Moved, n.Identity = "", identity{}
	}
	n.Spec, n.Unasked = spec, false
}
