// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"provost/collector/internal/boot"
	"provost/proto"
)

// What is done with a machine that asks for a boot script by an address that no node has. Whatever it is, its disk stays as
// it is: an install begins only with an order.
const (
	UnknownIgnore   = "ignore"   // it boots from disk
	UnknownDiscover = "discover" // it is listed as discovered, and waits until somebody adopts it
	// any other word: the name of a profile, with which it becomes a node
)

// discoverProfile is the profile whose kernel a discovered machine boots, if there is one of that name: nothing of it is
// installed, and the agent in its overlay tells more of the machine, if it has the site's join key.
const discoverProfile = "discover"

const (
	// maxDiscovered bounds the machines that are known only because they were seen. One more takes the oldest's place.
	maxDiscovered = 4096
	// A flood of made-up addresses must not keep the database busy: after a burst of strangers, as of new racks that are
	// switched on, there are only so many in a second. The others boot from disk, and are met at their next boot.
	strangerBurst = 512
	strangerRate  = 4
)

// strangers is a bucket of machines that may still be met.
type strangers struct {
	mu     sync.Mutex
	left   float64
	filled time.Time
}

func (s *strangers) take(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filled.IsZero() {
		s.left = strangerBurst
	}
	s.left = min(strangerBurst, s.left+strangerRate*max(0, now.Sub(s.filled).Seconds()))
	s.filled = now
	if s.left < 1 {
		return false
	}
	s.left--
	return true
}

// unknown decides for a machine whose address no node has; n is what it is listed as, nil if it was never met.
func (r *Registry) unknown(ctx context.Context, q boot.Request, n *node) (boot.Decision, error) {
	disk := boot.Decision{UnknownMAC: true, Action: proto.BootDisk}
	id := identityOf(q.Serial, q.UUID)
	if other := r.owner(id, ""); other != nil {
		return r.newCard(ctx, q, other, id)
	}
	policy := r.opt.Unknown
	if policy == "" || policy == UnknownIgnore || q.Method == http.MethodHead {
		return disk, nil
	}
	if n == nil || n.Identity != id && n.Discovered {
		if !r.strangers.take(r.now()) {
			r.forgotten.Add(1)
			r.opt.Log.Warn("an unknown machine was not listed: there are too many at once", "mac", q.MAC, "remote", q.RemoteAddr)
			return disk, nil
		}
		profile := ""
		if policy != UnknownDiscover {
			profile = policy
			if err := r.checkProfile(profile); err != nil {
				return disk, err
			}
		}
		err := r.update(ctx, func(c *change) error { return c.meet([]string{q.MAC}, id, profile) })
		if err != nil {
			return disk, err
		}
		r.opt.Log.Info("an unknown machine asked for a boot script", "mac", q.MAC, "serial", id.Serial, "uuid", id.UUID, "remote", q.RemoteAddr, "unknown_nodes", policy)
	}
	if policy != UnknownDiscover {
		r.pub.RLock()
		n = r.pub.nodes[r.pub.macs[q.MAC]]
		r.pub.RUnlock()
		if n == nil || n.Discovered {
			return disk, nil
		}
		return r.decision(n, q)
	}
	if r.opt.Profiles.Has(discoverProfile) {
		return r.rescue(boot.Decision{}, &node{nodeRecord: nodeRecord{Spec: proto.NodeSpec{Name: discoverProfile, MACs: []string{q.MAC}, Profile: discoverProfile}}}, nil, q)
	}
	reason := []string{"Nobody has added this machine yet.", "MAC     " + q.MAC}
	if id.Serial != "" {
		reason = append(reason, "serial  "+id.Serial)
	}
	if id.UUID != "" {
		reason = append(reason, "UUID    "+id.UUID)
	}
	return boot.Decision{Action: proto.BootBlock, Reason: reason, Hint: []string{"provost node adopt " + q.MAC + " NAME (make it a node)"}}, nil
}

// meet lists a machine: as discovered, or with a profile as a node that nobody has asked for. Its name is its address's.
func (c *change) meet(macs []string, id identity, profile string) error {
	name := strings.ReplaceAll(macs[0], ":", "-")
	if old := c.node(name); old != nil {
		if !old.Discovered {
			return nil
		}
		n := *old
		n.Identity, n.Spec.Serial = id, id.Serial
		return c.putNode(&n)
	}
	if slices.ContainsFunc(macs, func(mac string) bool { return c.mac(mac) != "" }) {
		return nil // it is listed already
	}
	c.makeRoom()
	c.setMACs(nil, macs, name)
	spec := proto.NodeSpec{Name: name, MACs: slices.Clone(macs), Serial: id.Serial, Profile: profile}
	n := &node{nodeRecord: nodeRecord{Spec: spec, BootAction: proto.BootDisk, Identity: id, Discovered: profile == "", Unasked: true}}
	if err := c.putNode(n); err != nil || profile == "" {
		return err
	}
	return c.history(name, proto.HistoryEntry{Order: "add", Actor: "unknown-nodes", Detail: "profile " + profile + "; nothing is ordered"}, nil)
}

// makeRoom forgets the oldest of the machines that nobody asked for, if there are too many. A node of which an operator has
// said anything is none of them.
func (c *change) makeRoom() {
	count := 0
	var oldest *node
	for name := range c.r.m.nodes {
		n := c.node(name)
		if n == nil || !n.Discovered && !n.Unasked || len(n.installs) > 0 {
			continue
		}
		count++
		if oldest == nil || n.Changed.Before(oldest.Changed) {
			oldest = n
		}
	}
	if count >= c.r.maxDiscovered() {
		c.r.forgotten.Add(1)
		c.r.opt.Log.Warn("a machine that nobody asked for was forgotten: there are too many", "name", oldest.Spec.Name, "limit", c.r.maxDiscovered())
		c.dropNode(oldest)
	}
}

func (r *Registry) maxDiscovered() int {
	if r.opt.MaxDiscovered > 0 {
		return r.opt.MaxDiscovered
	}
	return maxDiscovered
}

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
