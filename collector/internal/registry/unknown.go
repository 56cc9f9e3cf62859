// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
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
			if err := r.checkProfile(profile); r.strayed(q, err) {
				return disk, nil
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
		d, err := r.rescue(boot.Decision{}, &node{nodeRecord: nodeRecord{Spec: proto.NodeSpec{Name: discoverProfile, MACs: []string{q.MAC}, Profile: discoverProfile}}}, nil, q)
		if r.strayed(q, err) {
			return disk, nil
		}
		return d, nil
	}
	r.strayed(q, nil)
	reason := []string{"Nobody has added this machine yet.", "MAC     " + q.MAC}
	if id.Serial != "" {
		reason = append(reason, "serial  "+id.Serial)
	}
	if id.UUID != "" {
		reason = append(reason, "UUID    "+id.UUID)
	}
	return boot.Decision{Action: proto.BootBlock, Reason: reason, Hint: []string{"provost node adopt " + q.MAC + " NAME (make it a node)"}}, nil
}

// strayed reports whether the site's settings for unknown machines make no sense: then every one of them boots from disk, the log
// says why, and so does UnknownTrouble until one of them gets what it should.
func (r *Registry) strayed(q boot.Request, err error) bool {
	if err == nil {
		r.unknownTrouble.Store(nil)
		return false
	}
	r.opt.Log.Error("an unknown machine boots from disk: what it should get is broken", "unknown_nodes", r.opt.Unknown, "mac", q.MAC, "remote", q.RemoteAddr, "error", err)
	text := fmt.Sprintf("unknown-nodes: %s: unknown machines boot from disk: %v", r.opt.Unknown, err)
	r.unknownTrouble.Store(&text)
	return true
}

// UnknownTrouble is why unknown machines do not get what the site's settings say, "" if they do.
func (r *Registry) UnknownTrouble() string {
	if text := r.unknownTrouble.Load(); text != nil {
		return *text
	}
	return ""
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
