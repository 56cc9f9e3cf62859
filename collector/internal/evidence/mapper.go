// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"provost/proto"
)

// Resolver is the inventory, as far as it is needed here. Each gives a node's name, or the empty text.
type Resolver interface {
	ByMAC(mac string) string
	ByUUID(uuid string) string // in lower case, and in either byte order: see OtherOrder
	ByIP(ip netip.Addr) string
	ByHost(host string) string // what a client calls itself; the host part alone, too
}

// Who is the node behind a fact.
type Who struct {
	Name string // the resolver's; empty without it
	MAC  string // empty if only an address is known
	UUID string // empty if nothing named it
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
	leases   *bounded[netip.Addr, []Lease]
	changed  map[netip.Addr]bool // since Saved
}

// Lease says to whom an address belongs from a moment on.
type Lease struct {
	From time.Time `json:"from"`
	MAC  string    `json:"mac"`            // empty: only its UUID is known
	UUID string    `json:"uuid,omitempty"` // as far as it was named
	Said bool      `json:"said,omitempty"` // by a DHCP server; else it is a guess from a MAC in a request
	// Other is when it last was another machine that named itself behind the address: several share it, by a proxy or a NAT.
	// Then MAC and UUID are those of the last, and a request that names none is nobody's.
	Other time.Time `json:"other,omitzero"`
}

func (l Lease) shared() bool { return !l.Other.IsZero() }

// The bounds of a Mapper: a /16, and how often one address may change hands before the oldest owner is forgotten.
const (
	maxLeases  = 1 << 16
	maxHistory = 16
)

// The times of an address that several machines share.
const (
	// sharedWithin is how soon after one machine another one names itself behind an address that is shared. No machine that
	// gave up its address is followed by the next so soon, but where a server hands them out, and that says so.
	sharedWithin = 5 * time.Minute
	// sharedFor is how long only one machine must have named itself until the address is its own again.
	sharedFor = time.Hour
)

// leaseSkew is how much earlier than its lease a request may be stamped: logs round to seconds, and several machines'
// clocks differ a little.
const leaseSkew = 2 * time.Second

// NewMapper makes a Mapper. resolver may be nil: then nodes are known by MAC.
func NewMapper(resolver Resolver) *Mapper {
	return &Mapper{resolver: resolver, leases: newBounded[netip.Addr, []Lease](maxLeases), changed: map[netip.Addr]bool{}}
}

// sameOwner reports whether two leases are one machine's.
func (l Lease) sameOwner(o Lease) bool {
	if l.MAC != "" || o.MAC != "" {
		return l.MAC == o.MAC
	}
	return l.UUID == o.UUID
}

// another reports whether two leases are surely of two machines, which may name themselves in several ways and have several
// cards.
func (l Lease) another(o Lease) bool {
	if l.UUID != "" && o.UUID != "" {
		return l.UUID != o.UUID && l.UUID != OtherOrder(o.UUID)
	}
	return l.MAC != "" && o.MAC != "" && l.MAC != o.MAC
}

// Map says whom a fact is about; facts must come roughly in the order of time. The Key is empty if the fact names
// nobody.
func (m *Mapper) Map(f *Fact) Who {
	w := Who{MAC: f.MAC, UUID: f.UUID, IP: f.IP}
	if w.MAC == "" && strings.Contains(f.ClientID, ":") { // RFC 2132, 9.14: hardware type and address; or Infiniband's hardware address
		w.MAC, _ = proto.NormalMAC(f.ClientID) // many name no card
	}
	if w.UUID == "" && f.ClientID != "" {
		w.UUID = uuidOfClient(f.ClientID)
	}
	own := w
	named := w.MAC != "" || w.UUID != ""
	switch {
	case !w.IP.IsValid():
	case named && f.Kind == Ack:
		m.learn(w.IP, Lease{From: f.Time, MAC: w.MAC, UUID: w.UUID, Said: true})
	case named && !f.dhcpLine():
		l, ok := m.at(w.IP, f.Time)
		switch {
		case w.IP.IsLoopback(): // a proxy's on this machine, whoever asked it
		case ok && l.shared():
			m.share(w.IP, l, Lease{From: f.Time, MAC: w.MAC, UUID: w.UUID})
		case ok && w.MAC == "" && (l.Said || l.UUID == "" || l.UUID == w.UUID): // who has the address named itself by its UUID
			w.MAC = l.MAC
			m.learn(w.IP, Lease{From: l.From, MAC: l.MAC, UUID: w.UUID, Said: l.Said})
		case !ok || !l.Said:
			next := Lease{From: f.Time, MAC: w.MAC, UUID: w.UUID}
			if ok && l.another(next) && f.Time.Sub(l.From) <= sharedWithin {
				next.Other = f.Time
			}
			m.learn(w.IP, next)
		}
	case !named:
		if l, ok := m.at(w.IP, f.Time); ok && !l.shared() {
			w.MAC, w.UUID = l.MAC, l.UUID
		}
	}
	if w.UUID == "" && w.IP.IsValid() {
		if l, ok := m.at(w.IP, f.Time); ok && !l.shared() && l.MAC == w.MAC {
			w.UUID = l.UUID
		}
	}
	if m.resolver == nil {
		return w
	}
	if own.MAC == "" && own.UUID != "" { // what it says itself goes before whose address it has
		w.Name = m.resolver.ByUUID(own.UUID)
	}
	if w.Name == "" {
		w.Name = m.name(w, f)
	}
	if w.Name == "" && f.Stage == BootScript { // the request came by way of a proxy
		if a := addressOf(f.File); a.IsValid() && a != w.IP {
			w.Name = m.NodeAt(a, f.Time)
		}
	}
	return w
}

// NodeAt names the node that has an address at a moment, the empty text if it is none's.
func (m *Mapper) NodeAt(ip netip.Addr, t time.Time) string {
	if m.resolver == nil || !ip.IsValid() {
		return ""
	}
	w := Who{IP: ip}
	if l, ok := m.at(ip, t); ok && !l.shared() {
		w.MAC, w.UUID = l.MAC, l.UUID
	}
	return m.name(w, &Fact{})
}

// Shared reports whether several machines stand behind an address at a moment.
func (m *Mapper) Shared(ip netip.Addr, t time.Time) bool {
	l, ok := m.at(ip, t)
	return ok && l.shared()
}

// NodeOf names the node that calls itself by a host name, in the header of a line; the empty text if none does.
func (m *Mapper) NodeOf(host string) string {
	if m.resolver == nil || host == "" {
		return ""
	}
	return m.name(Who{}, &Fact{Host: strings.ToLower(host)})
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
	if w.UUID != "" {
		if n := m.resolver.ByUUID(w.UUID); n != "" {
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
	if w.MAC == "" && w.IP.IsValid() && !w.IP.IsLoopback() && !m.Shared(w.IP, f.Time) { // a fixed address without a lease in the logs
		return m.resolver.ByIP(w.IP)
	}
	return ""
}

// share notes who named itself behind a shared address last. After an hour of one machine alone it is that one's.
func (m *Mapper) share(ip netip.Addr, was, now Lease) {
	h, _ := m.leases.get(ip)
	i := slices.Index(h, was)
	if i < 0 {
		return
	}
	switch {
	case was.another(now):
		h[i].MAC, h[i].UUID, h[i].Other = now.MAC, now.UUID, now.From
	case now.From.Sub(was.Other) > sharedFor:
		m.insert(ip, h, i+1, now)
	}
	m.changed[ip] = true
}

// learn notes that an address belongs to a MAC from a moment on.
func (m *Mapper) learn(ip netip.Addr, l Lease) {
	h, _ := m.leases.get(ip)
	i := len(h)
	for i > 0 && h[i-1].From.After(l.From) {
		i--
	}
	switch {
	case i > 0 && h[i-1].sameOwner(l):
		was := &h[i-1]
		if l.Said && (!was.Said || was.shared()) {
			was.Said, was.Other, m.changed[ip] = true, time.Time{}, true
		}
		if was.UUID == "" && l.UUID != "" {
			was.UUID, m.changed[ip] = l.UUID, true
		}
		return
	case i < len(h) && h[i].sameOwner(l):
		h[i].From, m.changed[ip] = l.From, true
		return
	}
	m.insert(ip, h, i, l)
}

func (m *Mapper) insert(ip netip.Addr, h []Lease, i int, l Lease) {
	h = slices.Insert(h, i, l)
	if len(h) > maxHistory {
		h = h[1:]
	}
	m.changed[ip] = true
	if old, evicted := m.leases.put(ip, h); evicted {
		m.changed[old] = true
	}
}

// Changed gives the leases of every address that has others than at the last Saved; none for one that was forgotten.
func (m *Mapper) Changed() map[netip.Addr][]Lease {
	out := make(map[netip.Addr][]Lease, len(m.changed))
	for ip := range m.changed {
		out[ip], _ = m.leases.get(ip)
	}
	return out
}

// Saved says that what Changed gave is kept.
func (m *Mapper) Saved() { clear(m.changed) }

// Restore sets the leases of an address as they were saved.
func (m *Mapper) Restore(ip netip.Addr, h []Lease) {
	if old, evicted := m.leases.put(ip, h); evicted {
		m.changed[old] = true
	}
}

// at gives the owner of an address at a moment; the zero time is now.
func (m *Mapper) at(ip netip.Addr, t time.Time) (Lease, bool) {
	h, _ := m.leases.get(ip)
	if len(h) == 0 || ip.IsLoopback() {
		return Lease{}, false
	}
	if t.IsZero() {
		return h[len(h)-1], true
	}
	for i := len(h) - 1; i >= 0; i-- {
		if !h[i].From.After(t) {
			return h[i], true
		}
	}
	if h[0].From.Sub(t) <= leaseSkew {
		return h[0], true
	}
	return Lease{}, false
}
