// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Observation is what facts mean for one node: that it reached a stage, or that something kept it from one.
type Observation struct {
	Who    Who
	Time   time.Time // zero: the line did not say
	Source string    // whose word it is: "dnsmasq", "dhcpd", "apache", …
	Stage  Kind      // reached; with a Problem the one that was missed, empty if it is unknown
	Detail string    // the address, or the file
	Loader bool      // firmware or a boot loader fetched a boot loader, its script or a kernel

	// Problem is empty if all went well, else what kind of thing went wrong; Fact then has the particulars for Sentence.
	Problem Kind
	Rogue   string // the DHCP server that is not ours, with Problem Rogue
	Fact    Fact
}

// Rogue is the Problem of a node that took the offer of a DHCP server that is none of ours.
const Rogue Kind = "rogue-dhcp"

// Key names a problem: the same one is said once, however many lines tell of it.
func (o *Observation) Key() string {
	if o.Problem == Rogue {
		return string(Rogue) + " " + o.Rogue
	}
	return string(o.Problem) + " " + lastElement(o.Fact.File)
}

// aboutAddress is the topic of a DHCP server's refusals; that of a file's is its name.
const aboutAddress = "address"

// Topic is what an observation is about, so that a success ends the problems of the same topic: the file that a node was not
// sent and is, the address that it did not get and has. Empty: nothing that ends.
func (o *Observation) Topic() string {
	switch {
	case o.Problem != "":
		return TopicOf(o.Key())
	case o.Stage == Ack:
		return aboutAddress
	case o.Stage.dhcp() || o.Detail == "":
		return ""
	}
	return "file " + lastElement(o.Detail)
}

// TopicOf is the topic of a problem by its key.
func TopicOf(key string) string {
	kind, name, _ := strings.Cut(key, " ")
	switch Kind(kind) {
	case NotFound, Forbidden, Aborted, Refused:
		if name != "" {
			return "file " + name
		}
	case Nak, NoLeases, WrongNetwork:
		return aboutAddress
	}
	return ""
}

// The waits of an Observer.
const (
	// settleAfter is how long a request that a server only wrote down is held back for the error that may follow, and an
	// error in an access log for its reason in the error log. Servers write the one within milliseconds of the other, and
	// a follower looks at each file every quarter of a second.
	settleAfter = 3 * time.Second
	// claimAfter is how long the answer to a request that names another DHCP server may take, in two servers' logs.
	claimAfter = 10 * time.Second
)

// The bounds of an Observer. Beyond them the oldest request counts as granted, the oldest claim as answered.
const (
	maxHeld   = 256
	maxClaims = 1024
	maxOurs   = 64
)

// held is a fact that another line may still take back.
type held struct {
	Fact    Fact      `json:"fact"`
	Who     Who       `json:"who"`
	Source  string    `json:"source"`
	Arrived time.Time `json:"arrived"`
}

// claim is a request for an address in which the client named the server whose offer it takes.
type claim struct {
	Server  netip.Addr `json:"server,omitzero"` // not valid: a server that the line does not name
	Who     Who        `json:"who"`
	Time    time.Time  `json:"time"`
	Source  string     `json:"source"`
	Arrived time.Time  `json:"arrived"`
}

// memory is what an Observer carries from one batch to the next.
type memory struct {
	Held   []held           `json:"held,omitempty"`
	Claims map[string]claim `json:"claims,omitempty"` // by MAC
	Ours   []netip.Addr     `json:"ours,omitempty"`   // DHCP servers that were seen to grant what was asked of them
}

// Observer makes observations from the facts of all sources of a frontend. Its memory can be saved with what came of the
// facts, so that a restart in between neither loses nor doubles any. It is not safe for several goroutines.
type Observer struct {
	mapper *Mapper
	ours   []netip.Addr // DHCP servers that are known to be ours
	m      memory
	last   memory // at the last Keep
}

// NewObserver makes an Observer. ours are the DHCP servers that are known to be legitimate; others are learnt from what
// the logs show them to grant. saved is what Save gave, or nil.
func NewObserver(mapper *Mapper, ours []netip.Addr, saved []byte) (*Observer, error) {
	o := &Observer{mapper: mapper, ours: ours}
	if saved != nil {
		if err := json.Unmarshal(saved, &o.m); err != nil {
			return nil, fmt.Errorf("reading what evidence was held back: %w", err)
		}
	}
	o.Keep()
	return o, nil
}

// Save gives the memory for the next NewObserver.
func (o *Observer) Save() ([]byte, error) { return json.Marshal(&o.m) }

// Keep makes the memory final; Undo goes back to it. What the mapper learnt stays: learning it again changes nothing.
func (o *Observer) Keep() {
	o.last = memory{slices.Clone(o.m.Held), maps.Clone(o.m.Claims), slices.Clone(o.m.Ours)}
}

// Undo forgets what came since Keep.
func (o *Observer) Undo() {
	o.m = o.last
	o.Keep()
}

// SourceOf is the name under which a fact's program speaks. from is the source of its batch: an access log does not say
// whose it is, and its path may.
func SourceOf(f *Fact, from string) string {
	switch f.Program {
	case ProgDnsmasq, ProgDnsmasqTFT:
		return "dnsmasq"
	case ProgKea:
		return "kea"
	case ProgTFTPDHPA, ProgATFTPD:
		return "tftpd"
	case ProgWeb:
		switch {
		case strings.Contains(from, "nginx"):
			return ProgNginx
		case strings.Contains(from, "apache"), strings.Contains(from, "httpd"):
			return ProgApache
		}
	}
	return f.Program
}

// Add takes one fact of a source, in the order of its log, and gives what can be said by now. What a node itself sends over
// the network is taken of itself alone, and of its installer.
func (o *Observer) Add(from string, f Fact, now time.Time) []Observation {
	if f.From.IsValid() {
		if node := o.mapper.NodeAt(f.From, now); node != "" {
			if f.Program != ProgInstaller {
				return nil
			}
			b := Observation{Who: Who{Name: node, IP: f.From}, Time: f.Time, Source: f.Program, Stage: f.Kind, Detail: f.File}
			return []Observation{b}
		}
		if f.Program == ProgInstaller {
			return nil
		}
	}
	who := o.mapper.Map(&f)
	h := held{f, who, SourceOf(&f, from), now}
	if f.dhcpLine() {
		return append(o.claims(&h), o.observe(&h)...)
	}
	if f.Kind.Error() {
		o.settle(&h)
	}
	f = h.Fact
	if f.Asked || f.Kind.Error() && f.Program == ProgWeb {
		o.m.Held = append(o.m.Held, h)
		if len(o.m.Held) <= maxHeld {
			return nil
		}
		h, o.m.Held = o.m.Held[0], slices.Delete(o.m.Held, 0, 1)
	}
	return o.observe(&h)
}

// settle looks for the line that an error belongs to, takes that back, and lets each tell the other what it knows.
func (o *Observer) settle(h *held) {
	f := &h.Fact
	for i := len(o.m.Held) - 1; i >= 0; i-- {
		g := &o.m.Held[i].Fact
		switch {
		case g.IP != f.IP || g.Sender != f.Sender && g.Program == f.Program:
			continue
		case g.Asked && g.Program == f.Program && (f.File == "" || lastElement(f.File) == lastElement(g.File)):
			if f.File == "" { // a restart came between the two, and the joiner does not know any more
				f.File, f.Stage = g.File, g.Stage
			}
		case g.Program == ProgWeb && (f.Program == ProgApache || f.Program == ProgNginx) && lastElement(f.File) == lastElement(g.File):
			f.MAC = or(f.MAC, g.MAC)
		default:
			continue
		}
		if h.Who.Name == "" {
			h.Who = o.m.Held[i].Who
		}
		o.m.Held = slices.Delete(o.m.Held, i, i+1)
		return
	}
}

// Due gives what has waited long enough.
func (o *Observer) Due(now time.Time) []Observation {
	var out []Observation
	o.m.Held = slices.DeleteFunc(o.m.Held, func(h held) bool {
		over := now.Sub(h.Arrived) >= settleAfter
		if over {
			out = append(out, o.observe(&h)...)
		}
		return over
	})
	for _, mac := range slices.Sorted(maps.Keys(o.m.Claims)) {
		if c := o.m.Claims[mac]; now.Sub(c.Arrived) >= claimAfter {
			delete(o.m.Claims, mac)
			out = append(out, o.rogue(c)...)
		}
	}
	return out
}

// Waits reports whether Due may have something to say later.
func (o *Observer) Waits() bool { return len(o.m.Held) > 0 || len(o.m.Claims) > 0 }

// Mine reports whether a DHCP server is known to be ours.
func (o *Observer) Mine(server netip.Addr) bool {
	return slices.Contains(o.ours, server) || slices.Contains(o.m.Ours, server)
}

// claims follows which server's offers clients take. A server that then grants what was asked of it is ours; one that is
// asked and never seen to grant anything is somebody else's.
func (o *Observer) claims(h *held) []Observation {
	f := &h.Fact
	if h.Who.MAC == "" {
		return nil
	}
	was, open := o.m.Claims[h.Who.MAC]
	var out []Observation
	if open {
		delete(o.m.Claims, h.Who.MAC)
		if f.Kind == Ack {
			o.learn(was.Server)
		} else if !asks(f.Kind) || f.Server != was.Server {
			out = o.rogue(was)
		}
	}
	foreign := strings.Contains(f.Reason, "wrong server-ID") || strings.Contains(f.Reason, "foreign server identifier") ||
		f.Program == ProgKea && f.Kind == Request && f.Reason != "" && !f.IP.IsValid()
	if f.Program == ProgKea && (f.Kind == Offer || f.Kind == Nak) && f.Server.IsValid() { // what Kea writes of its own packets
		o.learn(f.Server)
		return out
	}
	if asks(f.Kind) && (foreign || f.Server.IsValid() && !o.Mine(f.Server)) {
		if o.m.Claims == nil {
			o.m.Claims = map[string]claim{}
		}
		c := claim{f.Server, h.Who, f.Time, h.Source, h.Arrived}
		if open && was.Server == c.Server {
			c = was // asking again does not put off the answer
		}
		if len(o.m.Claims) < maxClaims {
			o.m.Claims[h.Who.MAC] = c
		}
	}
	return out
}

func (o *Observer) learn(server netip.Addr) {
	if server.IsValid() && !o.Mine(server) && len(o.m.Ours) < maxOurs {
		o.m.Ours = append(o.m.Ours, server)
	}
}

// asks reports whether a line of this kind may stand for a client's request.
func asks(k Kind) bool { return k == Request || k == Nak || k == WrongNetwork }

func (o *Observer) rogue(c claim) []Observation {
	if c.Server.IsValid() && o.Mine(c.Server) {
		return nil
	}
	server := "unknown"
	if c.Server.IsValid() {
		server = c.Server.String()
	}
	return []Observation{{Who: c.Who, Time: c.Time, Source: c.Source, Problem: Rogue, Rogue: server, Fact: Fact{Kind: Rogue, Server: c.Server}}}
}

// observe says what a fact means that nothing takes back any more.
func (o *Observer) observe(h *held) []Observation {
	f := &h.Fact
	if h.Who.Name == "" {
		return nil
	}
	b := Observation{Who: h.Who, Time: f.Time, Source: h.Source, Stage: f.Kind}
	switch {
	case f.dhcpLine() && f.IP.IsValid():
		b.Detail = f.IP.String()
	case f.File != "":
		b.Detail = f.File
	}
	switch {
	case f.Kind.Stage():
		b.Loader = (f.Kind == BootLoader || f.Kind == BootScript || f.Kind == Kernel) && (f.Program != ProgWeb || loader(f.UserAgent))
		return []Observation{b}
	case !f.Kind.Error() || f.Kind == NotFound && Optional(f.File):
		return nil
	}
	p := b
	p.Stage, p.Problem, p.Fact = f.Stage, f.Kind, *f
	if f.Kind == NoLeases || f.Kind == WrongNetwork { // the line stands in the place of the one that names the request
		b.Stage = Discover
		return []Observation{b, p}
	}
	return []Observation{p}
}
