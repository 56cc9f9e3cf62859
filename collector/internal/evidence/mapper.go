// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Resolver is the inventory, as far as it is needed here. Each gives a node's name, or the empty text.
type Resolver interface {
	ByMAC(mac string) string
	ByIP(ip netip.Addr) string
	ByHost(host string) string // what a client calls itself; the host part alone, too
}

// Who is the node behind a fact.
type Who struct {
	Name string // the resolver's; empty without it
	MAC  string // empty if only an address is known
	IP   netip.Addr
}

// Key is what facts of one node have in common: its name, else its MAC address, else its IP address.
func (w Who) Key() string {
	switch {
	case w.Name != "":
		return w.Name
	case w.MAC != "":
		return w.MAC
	case w.IP.IsValid():
		return w.IP.String()
	}
	return ""
}

// Mapper says which node a fact is about, and follows leases over time: an address that was leased to another MAC later
// still means the first one before that moment. It holds a bounded number of leases and is not safe for several
// goroutines.
type Mapper struct {
	resolver Resolver
	leases   *bounded[netip.Addr, []lease]
}

type lease struct {
	from time.Time
	mac  string
	said bool // by a DHCP server; else it is a guess from a MAC in a request
}

// The bounds of a Mapper: a /16, and how often one address may change hands before the oldest owner is forgotten.
const (
	maxLeases  = 1 << 16
	maxHistory = 16
)

// leaseSkew is how much earlier than its lease a request may be stamped: logs round to seconds, and several machines'
// clocks differ a little.
const leaseSkew = 2 * time.Second

// NewMapper makes a Mapper. resolver may be nil: then nodes are known by MAC.
func NewMapper(resolver Resolver) *Mapper {
	return &Mapper{resolver: resolver, leases: newBounded[netip.Addr, []lease](maxLeases)}
}

// Map says whom a fact is about; facts must come roughly in the order of time. The Key is empty if the fact names
// nobody.
func (m *Mapper) Map(f *Fact) Who {
	w := Who{MAC: f.MAC, IP: f.IP}
	if w.MAC == "" && strings.HasPrefix(f.ClientID, "01:") { // RFC 2132, 9.14: hardware type and address
		w.MAC, _ = mac(strings.ToLower(f.ClientID[3:]))
	}
	switch {
	case w.MAC != "" && w.IP.IsValid() && f.Kind == Ack:
		m.learn(w.IP, lease{f.Time, w.MAC, true})
	case w.MAC != "" && w.IP.IsValid() && !f.dhcpLine():
		if l, ok := m.at(w.IP, f.Time); !ok || !l.said {
			m.learn(w.IP, lease{f.Time, w.MAC, false})
		}
	case w.MAC == "" && w.IP.IsValid():
		if l, ok := m.at(w.IP, f.Time); ok {
			w.MAC = l.mac
		}
	}
	if m.resolver != nil {
		w.Name = m.name(w, f)
	}
	return w
}

// dhcpLine reports whether the address in f is one that DHCP speaks of and not the sender's.
func (f *Fact) dhcpLine() bool {
	return f.Program == ProgISC || f.Program == ProgKea || f.Program == ProgDnsmasq
}

func (m *Mapper) name(w Who, f *Fact) string {
	if w.MAC != "" {
		if n := m.resolver.ByMAC(w.MAC); n != "" {
			return n
		}
	}
	if f.Host != "" {
		if n := m.resolver.ByHost(f.Host); n != "" {
			return n
		}
		if short, _, dotted := strings.Cut(f.Host, "."); dotted {
			if n := m.resolver.ByHost(short); n != "" {
				return n
			}
		}
	}
	if w.MAC == "" && w.IP.IsValid() { // a fixed address without a lease in the logs
		return m.resolver.ByIP(w.IP)
	}
	return ""
}

// learn notes that an address belongs to a MAC from a moment on.
func (m *Mapper) learn(ip netip.Addr, l lease) {
	h, _ := m.leases.get(ip)
	i := len(h)
	for i > 0 && h[i-1].from.After(l.from) {
		i--
	}
	switch {
	case i > 0 && h[i-1].mac == l.mac:
		h[i-1].said = h[i-1].said || l.said
		return
	case i < len(h) && h[i].mac == l.mac:
		h[i].from = l.from
		return
	}
	h = slices.Insert(h, i, l)
	if len(h) > maxHistory {
		h = h[1:]
	}
	m.leases.put(ip, h)
}

// at gives the owner of an address at a moment; the zero time is now.
func (m *Mapper) at(ip netip.Addr, t time.Time) (lease, bool) {
	h, _ := m.leases.get(ip)
	if len(h) == 0 {
		return lease{}, false
	}
	if t.IsZero() {
		return h[len(h)-1], true
	}
	for i := len(h) - 1; i >= 0; i-- {
		if !h[i].from.After(t) {
			return h[i], true
		}
	}
	if h[0].from.Sub(t) <= leaseSkew {
		return h[0], true
	}
	return lease{}, false
}
