// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"provost/collector/internal/evidence"
	"provost/collector/internal/store"
	"provost/proto"
)

// maxNodeSyslog bounds the log that a node's installer sends by syslog.
const maxNodeSyslog = 16 << 20

// nodeSyslog is that log's name.
const nodeSyslog = "syslog-network"

// KeepSyslog adds what came by syslog from an address to the log of the install that is under way on the node that has it,
// and reports whether it is a node's. What is too much, or of an install that has ended, is dropped.
func (r *Registry) KeepSyslog(from netip.Addr, text []byte) (bool, error) {
	w := &r.evidence
	w.mu.Lock()
	name := w.mapper.NodeAt(from, r.now())
	w.mu.Unlock()
	n := r.lookupNode(name)
	if n == nil {
		return false, nil
	}
	r.pub.RLock()
	in := r.pub.installs[n.Install]
	r.pub.RUnlock()
	if in == nil || in.look().Ended {
		return true, nil
	}
	size, err := r.opt.Logs.Append(in.id, nodeSyslog, 0, text)
	if errors.Is(err, store.ErrOffset) && size+int64(len(text)) <= maxNodeSyslog {
		_, err = r.opt.Logs.Append(in.id, nodeSyslog, size, text)
	}
	if errors.Is(err, store.ErrOffset) { // it is long enough
		err = nil
	}
	return true, err
}

// EvidenceSources gives what was read of each source, by name.
func (r *Registry) EvidenceSources() []SourceInfo {
	w := &r.evidence
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	return w.list()
}

// list gives every source. The lock of what is seen is held.
func (w *watcher) list() []SourceInfo {
	names := map[string]bool{}
	for name := range w.read {
		names[name] = true
	}
	for name := range w.trouble {
		names[name] = true
	}
	var out []SourceInfo
	for _, name := range slices.Sorted(maps.Keys(names)) {
		info := w.read[name]
		info.Name, info.Trouble = name, w.trouble[name]
		out = append(out, info)
	}
	return out
}

// blindness is the sources that cannot be read. It is replaced, never changed.
type blindness struct {
	sources []SourceInfo
	shows   func(SourceInfo, string) string
}

// troubled notes whether a source can be read.
func (r *Registry) troubled(source string, trouble error) {
	w := &r.evidence
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	if was, known := w.trouble[source]; known && (was == nil) == (trouble == nil) {
		w.trouble[source] = trouble
		return
	}
	w.trouble[source] = trouble
	all := slices.DeleteFunc(w.list(), func(s SourceInfo) bool { return s.Trouble == nil })
	if len(all) == 0 || r.opt.Evidence.Shows == nil {
		w.blind.Store(nil)
		return
	}
	w.blind.Store(&blindness{all, r.opt.Evidence.Shows})
}

// likely gives what keeps an install from a stage, with what only the logs' reader knows in front: that it would not see the
// stage, and that the last one stands for a request alone. An agent that says itself why it waits needs no guesses.
func (s sources) likely(st *proto.Stuck) []string {
	if len(st.Likely) == 0 {
		return nil
	}
	var first, names []string
	if s.blind != nil {
		for _, src := range s.blind.sources {
			if name := s.blind.shows(src, st.Stage); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		first = append(first, "the log that would show it cannot be read: "+strings.Join(names, ", "))
	}
	q := s.in.recipe.Sequence
	if h := s.rec.Heard; h != nil && h.Attempt == s.rec.Attempt && h.Asked != nil && q.Index(h.Asked.Stage) == q.Index(st.Last) {
		first = append(first, h.Asked.Text)
	}
	return slices.Concat(first, st.Likely)
}

// Rogues gives the DHCP servers that nodes took addresses from and that are not ours, in the last week.
func (r *Registry) Rogues() []RogueServer {
	w := &r.evidence
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	maps.DeleteFunc(w.rogues, func(_ string, x RogueServer) bool { return r.now().Sub(x.At) > rogueLife })
	return slices.SortedFunc(maps.Values(w.rogues), func(a, b RogueServer) int { return strings.Compare(a.Server, b.Server) })
}

// lastLine is when a frontend's log last spoke of a node, zero if none did.
func (r *Registry) lastLine(name string) time.Time {
	w := &r.evidence
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	return w.seen[name]
}

// inventory is the registry as evidence knows it. An address is looked for only where no lease says whose it is.
type inventory struct {
	r       *Registry
	ips     map[netip.Addr]string
	uuids   map[string]string // in both byte orders; the empty text for one that several nodes have
	changes uint64            // of the nodes when these were made
}

// ByMAC implements evidence.Resolver.
func (v *inventory) ByMAC(mac string) string {
	v.r.pub.RLock()
	defer v.r.pub.RUnlock()
	return v.r.pub.macs[mac]
}

// ByHost implements evidence.Resolver.
func (v *inventory) ByHost(host string) string {
	v.r.pub.RLock()
	defer v.r.pub.RUnlock()
	if v.r.pub.nodes[host] != nil {
		return host
	}
	return ""
}

// ByIP implements evidence.Resolver.
func (v *inventory) ByIP(ip netip.Addr) string {
	v.r.pub.RLock()
	defer v.r.pub.RUnlock()
	v.index()
	return v.ips[ip]
}

// ByUUID implements evidence.Resolver.
func (v *inventory) ByUUID(uuid string) string {
	v.r.pub.RLock()
	defer v.r.pub.RUnlock()
	v.index()
	return v.uuids[uuid]
}

// index makes the tables anew after a node has changed. The lock of what is published is held.
func (v *inventory) index() {
	if v.ips != nil && v.changes == v.r.pub.changes {
		return
	}
	v.ips, v.uuids, v.changes = map[netip.Addr]string{}, map[string]string{}, v.r.pub.changes
	for name, n := range v.r.pub.nodes {
		if a, err := netip.ParseAddr(n.Spec.IP); err == nil {
			v.ips[a.Unmap()] = name
		}
		for _, u := range []string{n.Identity.UUID, evidence.OtherOrder(n.Identity.UUID)} {
			if was, known := v.uuids[u]; u != "" && known && was != name {
				v.uuids[u] = ""
			} else if u != "" {
				v.uuids[u] = name
			}
		}
	}
}

var _ evidence.Resolver = (*inventory)(nil)
