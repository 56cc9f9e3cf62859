// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"provost/collector/internal/nodeset"
	"provost/proto"
)

// Report is what whole log files say, without collector, inventory or agent.
type Report struct {
	Schema   int           `json:"schema"`
	From     time.Time     `json:"from,omitzero"`
	Until    time.Time     `json:"until,omitzero"`
	Total    Counts        `json:"total"`
	Files    []FileReport  `json:"files"`
	Nodes    []NodeReport  `json:"nodes"`
	Frontend []Problem     `json:"frontend,omitempty"` // problems of nobody in particular
	Missing  []string      `json:"missing,omitempty"`  // what kinds of log were not given: "tftp", "web", "dhcp"
	NotSeen  []string      `json:"not_seen,omitempty"` // selected, and in no line
	Checks   []proto.Check `json:"checks,omitempty"`   // of the frontend itself, where a collector could be asked
	Omitted  int           `json:"omitted,omitempty"`  // nodes beyond MaxNodes
	Others   int           `json:"others,omitempty"`   // nodes of these logs that are not among Nodes: not selected, or of another time
	Odd      []OddLines    `json:"odd,omitempty"`      // what was not understood, by program
	Advice   []string      `json:"advice,omitempty"`   // what would make the logs say more
}

// OddLines are the lines of one program that were not understood.
type OddLines struct {
	Program string `json:"program,omitempty"` // empty: the line is too damaged to tell
	Lines   int64  `json:"lines"`
	File    string `json:"file"`    // of the first
	Example string `json:"example"` // the first, as it is
}

// Stopped is the number of nodes that did not get as far as they should.
func (r *Report) Stopped() int {
	n := 0
	for i := range r.Nodes {
		if r.Nodes[i].State == Stopped {
			n++
		}
	}
	return n
}

// State is how a node did, as far as the logs can tell.
type State string

// The states of a node.
const (
	Stopped State = "stopped" // something that should have come did not
	Moving  State = "moving"  // its last line is less than two minutes old
	Arrived State = "arrived" // it fetched kernel and initrd, or went further
	Leased  State = "leased"  // it got an address, and nothing says that it meant to boot from the network
)

// NodeReport is the way of one node's latest boot.
type NodeReport struct {
	Name     string        `json:"name"` // from the inventory, else what it calls itself, else MAC or address
	MAC      string        `json:"mac,omitempty"`
	IPs      []string      `json:"ips,omitempty"`
	State    State         `json:"state"`
	Stage    Kind          `json:"stage,omitempty"` // the last that was reached
	Next     Kind          `json:"next,omitempty"`  // what should have come
	Stages   []StageReport `json:"stages"`
	Boots    int           `json:"boots"`
	From     time.Time     `json:"from,omitzero"`
	Until    time.Time     `json:"until,omitzero"`
	Why      string        `json:"why,omitempty"`    // in one sentence
	Causes   []string      `json:"causes,omitempty"` // the likely ones first
	Warnings []string      `json:"warnings,omitempty"`
	Problems []Problem     `json:"problems,omitempty"`
	BootFile string        `json:"boot_file,omitempty"` // what DHCP named
	Server   string        `json:"next_server,omitempty"`
	Client   string        `json:"client,omitempty"` // DHCP vendor and user class
	// Of an install that a collector knows: its status in a word, its number, and what every source said of it.
	Summary string   `json:"summary,omitempty"`
	Ordinal uint64   `json:"ordinal,omitempty"`
	Lines   []string `json:"lines,omitempty"`
	Dropped int      `json:"dropped_lines,omitempty"` // lines of it before these
}

// StageReport is one stage of it.
type StageReport struct {
	Name    Kind      `json:"name"`
	At      time.Time `json:"at,omitzero"` // first
	Last    time.Time `json:"last,omitzero"`
	Count   int       `json:"count"`
	Program string    `json:"program"`
	File    string    `json:"file,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"`
	GapMS   int64     `json:"gap_ms"` // since the stage before
}

// MaxNodes bounds the nodes of one report: lines with invented MAC addresses must not eat the memory.
const MaxNodes = 100_000

// Patience is how long after its last line a node may still be on its way: longer than any wait between the stages that
// a frontend's logs show, but for the installer's own start.
const Patience = 2 * time.Minute

// ProbeOptions are what a probe of log files depends on beside the files.
type ProbeOptions struct {
	Stdin    io.Reader // for the name "-"
	Now      time.Time
	Location *time.Location // of stamps without an offset
	Resolver Resolver       // may be nil
	Nodes    []string       // only these: names, MAC or IP addresses; empty for all
	// Since and Until bound what counts; zero: everything. What was before Since still says who has which address.
	Since, Until time.Time
	Lines        bool // keep the last lines about each node
}

// maxLines bounds the lines that are kept of one node, maxAllLines those of all: some 150 bytes each, less than 64 MiB.
const (
	maxLines    = 40
	maxAllLines = 400_000
)

// Probe reads log files, plain or compressed, merges them by time and reports the way of every node. All files are read
// at once and never held in memory. An error is a file that cannot be opened; one that breaks off is in the report.
func Probe(ctx context.Context, files []string, o ProbeOptions) (*Report, error) {
	t := &timeline{o: o, mapper: NewMapper(o.Resolver), nodes: map[string]*history{}, sizes: newBounded[string, int64](4096), seen: map[string]bool{}, servers: map[netip.Addr]int{},
		elsewhere: map[string]bool{}}
	var open []*replay
	defer func() {
		for _, r := range open {
			r.close()
		}
	}()
	for _, name := range files {
		r, err := openReplay(name, o.Stdin, o.Now, o.Location)
		if err != nil {
			return nil, err
		}
		r.seen, r.odd, r.keep = t.program, t.puzzle, o.Lines
		open = append(open, r)
	}
	for _, r := range open {
		r.next()
	}
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var first *replay
		for _, r := range open {
			if r.more && (first == nil || r.head.Time.Before(first.head.Time)) {
				first = r
			}
		}
		if first == nil {
			break
		}
		t.add(&first.head, first.tr, first.text)
		first.next()
	}
	for _, r := range open {
		t.files = append(t.files, r.report)
	}
	return t.report(), nil
}

type timeline struct {
	o        ProbeOptions
	mapper   *Mapper
	nodes    map[string]*history
	omitted  int
	frontend []Problem
	sizes    *bounded[string, int64] // greatest size that a file was sent with
	seen     map[string]bool         // programs
	servers  map[netip.Addr]int      // DHCP servers, and how many requests chose each
	files    []FileReport

	elsewhere map[string]bool // nodes with a line outside of the time that is asked for
	odd       []OddLines
	kept      int  // lines, of all nodes
	refuses   bool // in.tftpd's log tells more than that a file was asked for
}

func (t *timeline) program(p string) {
	if !t.seen[p] {
		t.seen[strings.Clone(p)] = true
	}
}

// puzzle counts a line that was not understood.
func (t *timeline) puzzle(program, file string, line []byte) {
	i := slices.IndexFunc(t.odd, func(o OddLines) bool { return o.Program == program })
	if i < 0 {
		i = len(t.odd)
		t.odd = append(t.odd, OddLines{Program: strings.Clone(program), File: file, Example: text(line)})
	}
	t.odd[i].Lines++
}

func (t *timeline) add(f *Fact, tr Transaction, line string) {
	who := t.mapper.Map(f)
	key := who.Key()
	if f.Program == ProgTFTPDHPA && !f.Asked && f.Kind != Aborted {
		t.refuses = true
	}
	if f.Time.Before(t.o.Since) || !t.o.Until.IsZero() && f.Time.After(t.o.Until) {
		if who.MAC != "" && len(t.elsewhere) < MaxNodes && !t.elsewhere[key] {
			t.elsewhere[strings.Clone(key)] = true
		}
		return
	}
	if f.Bytes > 0 && f.Status != 206 && (f.Kind == Kernel || f.Kind == Initrd || f.Kind == Image) {
		if max, _ := t.sizes.get(f.File); f.Bytes > max {
			t.sizes.put(f.File, f.Bytes)
		}
	}
	if key == "" {
		if f.Kind.Error() && !Optional(f.File) {
			t.frontend = note(t.frontend, f, "", maxFrontend)
		}
		return
	}
	h := t.nodes[key]
	if h == nil && who.MAC != "" && !f.dhcpLine() {
		h = t.adopt(key, who, f)
	}
	if h == nil {
		if who.MAC == "" && f.Kind.Error() && !f.Kind.dhcp() && f.Program != ProgDnsmasqTFT && f.Program != ProgTFTPDHPA && f.Program != ProgATFTPD && !bootAgent(f.UserAgent) {
			// Somebody without a lease in these logs asked a web server for a file that is not there: not a boot.
			t.frontend = note(t.frontend, f, key, maxFrontend)
			return
		}
		if len(t.nodes) >= MaxNodes {
			t.omitted++
			return
		}
		h = &history{who: who, boots: 1}
		t.nodes[strings.Clone(key)] = h
	}
	h.add(f, tr)
	t.keep(h, line)
	if _, known := t.servers[f.Server]; f.Server.IsValid() && (known || len(t.servers) < maxServers) {
		t.servers[f.Server]++
	}
}

// keep keeps a line's text with its node, where texts are asked for.
func (t *timeline) keep(h *history, line string) {
	switch {
	case line == "":
		return
	case len(h.lines) == maxLines || t.kept == maxAllLines && len(h.lines) > 0:
		h.lines = slices.Delete(h.lines, 0, 1)
		h.dropped++
	case t.kept == maxAllLines:
		h.dropped++
		return
	default:
		t.kept++
	}
	h.lines = append(h.lines, line)
}

// maxServers bounds the DHCP servers that are counted.
const maxServers = 64

// rival gives another DHCP server that at least as many requests chose, if there is one.
func (v view) rival(own netip.Addr) netip.Addr {
	var best netip.Addr
	for a, n := range v.servers {
		if a != own && n >= v.servers[own] && (!best.IsValid() || n > v.servers[best] || n == v.servers[best] && a.Less(best)) {
			best = a
		}
	}
	return best
}

// adopt gives a node what its address did just before the node named itself, in logs without its lease.
func (t *timeline) adopt(key string, who Who, f *Fact) *history {
	address := who.IP.String()
	h := t.nodes[address]
	if h == nil || h.who.MAC != "" || f.Time.Sub(h.cur.last) > sameBoot {
		return nil
	}
	delete(t.nodes, address)
	h.who = who
	t.nodes[strings.Clone(key)] = h
	return h
}

func (k Kind) dhcp() bool {
	switch k {
	case Discover, Offer, Request, Ack, Nak, Decline, NoLeases, WrongNetwork:
		return true
	}
	return false
}

func (t *timeline) report() *Report {
	r := &Report{Schema: 1, Files: t.files, Frontend: t.frontend, Omitted: t.omitted, Nodes: []NodeReport{}}
	for i := range t.files {
		f := &t.files[i]
		r.Total = r.Total.Plus(f.Counts)
		if !f.From.IsZero() && (r.From.IsZero() || f.From.Before(r.From)) {
			r.From = f.From
		}
		if f.Until.After(r.Until) {
			r.Until = f.Until
		}
	}
	has := func(programs ...string) bool {
		return slices.ContainsFunc(programs, func(p string) bool { return t.seen[p] })
	}
	view := view{now: t.o.Now, sizes: t.sizes, servers: t.servers, refuses: t.refuses,
		dhcp: has(ProgISC, ProgKea, ProgDnsmasq), tftp: has(ProgTFTPDHPA, ProgATFTPD, ProgDnsmasqTFT), web: has(ProgWeb, ProgApache, ProgNginx)}
	for _, m := range []struct {
		name string
		has  bool
	}{{"dhcp", view.dhcp}, {"tftp", view.tftp}, {"web", view.web}} {
		if !m.has {
			r.Missing = append(r.Missing, m.name)
		}
	}
	for key := range t.elsewhere {
		if t.nodes[key] == nil {
			r.Others++
		}
	}
	found, silent := map[string]bool{}, false
	for key, h := range t.nodes {
		n := view.node(h)
		delete(t.nodes, key) // the two together would be twice the memory
		if len(t.o.Nodes) > 0 && !n.selected(t.o.Nodes, found) {
			r.Others++
			continue
		}
		r.Nodes = append(r.Nodes, n)
		silent = silent || n.State == Stopped && view.onlyAsked(h) != ""
	}
	for _, s := range t.o.Nodes {
		if !found[s] {
			r.NotSeen = append(r.NotSeen, s)
		}
	}
	if silent {
		r.Advice = append(r.Advice, "in.tftpd writes down that a file is asked for, and not here that it is refused: only with -vv among its options does a missing file show")
	}
	if has(ProgApache, ProgNginx) && !has(ProgWeb) {
		r.Advice = append(r.Advice, "of the web server there is only the error log: what it sent is in its access log")
	}
	slices.SortStableFunc(t.odd, func(a, b OddLines) int { return cmp.Compare(b.Lines, a.Lines) })
	r.Odd = t.odd
	order := map[State]int{Stopped: 0, Moving: 1, Arrived: 2, Leased: 3}
	slices.SortFunc(r.Nodes, func(a, b NodeReport) int {
		if c := order[a.State] - order[b.State]; c != 0 {
			return c
		}
		return compareNames(&a, &b)
	})
	return r
}

// compareNames orders nodes by name, those without one after them by MAC, which is no row of numbers.
func compareNames(a, b *NodeReport) int {
	switch x, y := a.Name == a.MAC, b.Name == b.MAC; {
	case x && !y:
		return 1
	case y && !x:
		return -1
	case x && y:
		return strings.Compare(a.MAC, b.MAC)
	}
	return cmp.Or(nodeset.Compare(a.Name, b.Name), strings.Compare(a.MAC, b.MAC))
}

// selected reports whether one of the selectors is this node, and notes which.
func (n *NodeReport) selected(selectors []string, found map[string]bool) bool {
	any := false
	for _, s := range selectors {
		l := strings.ToLower(s)
		short, _, _ := strings.Cut(n.Name, ".")
		if strings.ToLower(n.Name) == l || strings.ToLower(short) == l || n.MAC == strings.ReplaceAll(l, "-", ":") || slices.Contains(n.IPs, l) {
			found[s], any = true, true
		}
	}
	return any
}
