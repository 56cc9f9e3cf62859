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
	Asked  bool      // the server wrote down that it was asked, and nothing of what became of it

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

// OnlyAsked says of a file that was only asked for what that means, if nothing came after it. where is what Look found of the
// file, or empty.
func (o *Observation) OnlyAsked(where string) string {
	if Optional(o.Detail) { // one of many names that a loader tries
		return "a configuration was only asked for (" + o.Detail + " was the first): nobody logged that one was sent"
	}
	text := o.Detail + " was only asked for: nobody logged that it was sent"
	if where != "" {
		text += ": " + where
	}
	return text
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
	maxHeld   = 8192 // thousands of nodes that are started together, in settleAfter
	maxClaims = 1024
	maxOurs   = 64
	maxSizes  = 4096
	// maxSized is the longest path whose size is kept, in bytes, with its sender's name: none of a boot's files has such a one.
	maxSized = 1024
)

// FileSize is how large a file is, as far as transfers tell.
type FileSize struct {
	Whole int64      `json:"whole"`           // the largest transfer
	Short int64      `json:"short,omitempty"` // the last one that was smaller, when it was and whose
	At    time.Time  `json:"at,omitzero"`
	By    netip.Addr `json:"by,omitzero"`
}

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
	o      ObserverOptions
	sizes  *bounded[string, FileSize] // by sender and path
	sized  map[string]bool            // changed since SavedSizes
	m      memory
	last   memory // at the last Keep
}

// ObserverOptions are what an Observer knows of its site.
type ObserverOptions struct {
	// Ours are the DHCP servers that are known to be legitimate; others are learnt from what the logs show them to grant.
	Ours []netip.Addr
	// Self is this machine's name: lines with it in their header are no node's, also if a node is called so.
	Self string
	// Listed are the senders of syslog that may speak of others, whoever they are, also by way of another machine's syslog.
	Listed []netip.Prefix
}

// NewObserver makes an Observer. saved is what Save gave, or nil.
func NewObserver(mapper *Mapper, options ObserverOptions, saved []byte) (*Observer, error) {
	o := &Observer{mapper: mapper, o: options, sizes: newBounded[string, FileSize](maxSizes), sized: map[string]bool{}}
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

// writer says which node wrote a line, so that it is taken of that one alone. nobody: several nodes may have written it.
func (o *Observer) writer(f *Fact, now time.Time) (node string, nobody bool) {
	if f.From.IsValid() {
		if Within(o.o.Listed, f.From) {
			return "", false
		}
		return o.mapper.NodeAt(f.From, now), o.mapper.Shared(f.From, now)
	}
	if a, ok := addr(f.Sender); ok {
		if Within(o.o.Listed, a) {
			return "", false
		}
		return o.mapper.NodeAt(a, now), o.mapper.Shared(a, now)
	}
	if short(f.Sender) == short(o.o.Self) {
		return "", false
	}
	name := o.mapper.NodeOf(f.Sender)
	if name != "" && o.listed(name, now) {
		return "", false
	}
	return name, false
}

// listed reports whether a node has an address that is listed by itself: a boot server that is one of the nodes, whose lines
// another machine's syslog wrote down with its name.
func (o *Observer) listed(node string, now time.Time) bool {
	return slices.ContainsFunc(o.o.Listed, func(p netip.Prefix) bool { return p.IsSingleIP() && o.mapper.NodeAt(p.Addr(), now) == node })
}

func short(host string) string {
	host, _, _ = strings.Cut(host, ".")
	return strings.ToLower(host)
}

// Within reports whether an address is in one of a list of prefixes.
func Within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Add takes one fact of a source, in the order of its log, and gives what can be said by now. What a node itself wrote, by its
// address or by the name in the line's header, is taken of itself alone and of its installer; and as of now if it has just come
// over the network, since its clock may be any.
func (o *Observer) Add(from string, f Fact, now time.Time) []Observation {
	node, nobody := o.writer(&f, now)
	switch {
	case nobody:
		return nil
	case node != "" && f.Program == ProgInstaller:
		if f.From.IsValid() {
			f.Time = now
		}
		return []Observation{{Who: Who{Name: node, IP: f.From}, Time: f.Time, Source: f.Program, Stage: f.Kind, Detail: f.File}}
	case node != "", f.Program == ProgInstaller && f.From.IsValid() && !Within(o.o.Listed, f.From):
		return nil
	}
	o.whole(&f)
	who := o.mapper.Map(&f)
	h := held{f, who, SourceOf(&f, from), now}
	if f.dhcpLine() {
		return append(o.claims(&h), o.observe(&h)...)
	}
	if f.Kind.Error() || f.Program == ProgTFTPDHPA && !f.Asked {
		o.settle(&h)
	}
	f = h.Fact
	if f.Asked || f.Kind.Error() && f.Program == ProgWeb {
		o.m.Held = append(o.m.Held, h)
		if len(o.m.Held) <= maxHeld {
			return nil
		}
		h, o.m.Held = o.m.Held[0], o.m.Held[1:]
	}
	return o.observe(&h)
}

// whole compares the size of a transfer that a web server calls good with the largest that there was: clients that break off
// are logged with the same status. A file that was replaced by a smaller one is known by two transfers of the same size.
func (o *Observer) whole(f *Fact) {
	key := f.Sender + " " + f.File
	if f.Program != ProgWeb || f.Status == 206 || f.Bytes <= 0 || f.Kind != Kernel && f.Kind != Initrd && f.Kind != Image || len(key) > maxSized {
		return
	}
	s, _ := o.sizes.get(key)
	switch {
	case f.Bytes > s.Whole && f.Bytes >= bigFile, f.Bytes == s.Short && (f.IP != s.By || !f.Time.Equal(s.At)): // the same line may come again
		o.size(key, FileSize{Whole: f.Bytes})
	case cutOff(f.Bytes, s.Whole):
		o.size(key, FileSize{s.Whole, f.Bytes, f.Time, f.IP})
		f.Kind, f.Reason = Aborted, fmt.Sprintf("only %d of %d bytes were sent", f.Bytes, s.Whole)
	}
}

func (o *Observer) size(key string, s FileSize) {
	o.sized[key] = true
	if old, evicted := o.sizes.put(key, s); evicted {
		o.sized[old] = true
	}
}

// ChangedSizes gives the sizes of files that are others than at the last SavedSizes; nil for one that was forgotten. What was
// learnt stays after Undo: learning it again changes nothing.
func (o *Observer) ChangedSizes() map[string]*FileSize {
	out := make(map[string]*FileSize, len(o.sized))
	for key := range o.sized {
		out[key] = nil
		if s, ok := o.sizes.get(key); ok {
			out[key] = &s
		}
	}
	return out
}

// SavedSizes says that what ChangedSizes gave is kept.
func (o *Observer) SavedSizes() { clear(o.sized) }

// RestoreSize sets a file's size as it was saved.
func (o *Observer) RestoreSize(key string, s FileSize) {
	if old, evicted := o.sizes.put(key, s); evicted {
		o.sized[old] = true
	}
}

// cutOff reports whether a transfer was less than the whole. Servers that write down the size of what they sent count headers,
// too, so a hundredth may be missing.
func cutOff(sent, whole int64) bool { return whole >= bigFile && sent < whole-whole/100 }

// settle looks for the line that an error, or the end of a transfer, belongs to, takes that back, and lets each tell the other
// what it knows.
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
	return slices.Contains(o.o.Ours, server) || slices.Contains(o.m.Ours, server)
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
		if b.Asked = f.Asked; f.Asked {
			b.Fact = *f // for Look
		}
		b.Loader = (f.Kind == BootLoader || f.Kind == BootScript || f.Kind == Kernel) && (f.Program != ProgWeb || loader(f.UserAgent))
		return []Observation{b}
	case !f.Kind.Error() || f.Kind == NotFound && Optional(f.File):
		return nil
	}
	p := b
	p.Stage, p.Problem, p.Fact = f.Stage, f.Kind, *f
	if b.Stage = f.Message; b.Stage == "" && f.Kind == NoLeases { // a request for what was offered is refused in other words
		b.Stage = Discover
	}
	if b.Stage != "" { // the line stands in the place of the one that names the message
		return []Observation{b, p}
	}
	return []Observation{p}
}
