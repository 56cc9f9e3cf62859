// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// mark is one stage of one boot.
type mark struct {
	first, last time.Time
	count       int
	program     string
	file        string
	bytes       int64  // of a whole file; 0 if the log does not say
	reason      string // what the server remarked, the last time
	asked       bool   // the latest line is in.tftpd's of the request, which says nothing of the answer
}

func (m *mark) add(f *Fact) {
	if m.count++; m.count == 1 {
		m.first, m.program, m.file = f.Time, f.Program, f.File
	}
	m.last = f.Time
	m.asked = f.Asked && f.Program == ProgTFTPDHPA
	if f.File != "" && f.Kind != BootLoader { // of loaders the first one is telling: it asks for the others
		m.file = f.File
	}
	if f.Reason != "" {
		m.reason = f.Reason
	}
	if f.Status != 206 && f.Bytes > m.bytes {
		m.bytes = f.Bytes
	}
}

// Problem is one thing that went wrong, however often.
type Problem struct {
	Kind    Kind      `json:"kind"`
	Stage   Kind      `json:"stage,omitempty"` // the one that was missed by it
	File    string    `json:"file,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Program string    `json:"program"`
	Client  string    `json:"client,omitempty"` // if it is nobody's
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	Count   int       `json:"count"`
	Mended  bool      `json:"mended,omitempty"` // the same went well later
}

// maxProblems bounds what is kept of one boot, maxFrontend what is kept of problems that name no node.
const (
	maxProblems = 12
	maxFrontend = 50
)

func lastElement(file string) string {
	file = strings.TrimRight(file, "/")
	return file[strings.LastIndexByte(file, '/')+1:]
}

// note adds a problem, or counts one that is known. The web server's error log knows the reason better than its access
// log.
func note(list []Problem, f *Fact, client string, most int) []Problem {
	base := lastElement(f.File)
	for i := range list {
		p := &list[i]
		if p.Kind != f.Kind || p.Client != client || lastElement(p.File) != base {
			continue
		}
		switch {
		case p.Program == ProgWeb && f.Program != ProgWeb: // the line before was about the same request
			p.Reason, p.Program, p.File = f.Reason, f.Program, f.File
		case f.Program != ProgWeb || p.Program == ProgWeb:
			p.Count++
		}
		p.Last, p.Mended = f.Time, false
		return list
	}
	if len(list) >= most {
		return list
	}
	return append(list, Problem{Kind: f.Kind, Stage: f.Stage, File: f.File, Reason: f.Reason, Program: f.Program, Client: client, First: f.Time, Last: f.Time, Count: 1})
}

// boot is one way from the first packet on.
type boot struct {
	marks    [len(stages)]mark
	late     [4]mark // DHCP after the kernel: the installer's, the installed system's, or the begin of the next boot
	problems []Problem
	searched int    // configuration names that were looked for and not there
	tried    string // the last of them
	last     time.Time
	// netbooted: its firmware or iPXE asked for an address in this boot. What the system on its disk asks for afterwards
	// does not take that back.
	netbooted bool
}

const (
	iDiscover = iota
	iOffer
	iRequest
	iAck
	iScript
	iLoader
	iKernel
	iInitrd
	iAnswer
	iImage
)

func (b *boot) has(i int) bool { return b.marks[i].count > 0 }

// arrived reports whether an installer or a system was started.
func (b *boot) arrived() bool {
	return b.has(iKernel) && b.has(iInitrd) || b.has(iAnswer) || b.has(iImage)
}

// history is what is known of one node.
type history struct {
	who     Who
	host    string
	ips     []netip.Addr
	servers []netip.Addr
	foreign string // what a server said of another server
	tr      Transaction
	boots   int
	before  bool // an earlier boot in these logs arrived
	cur     boot
	lines   []string // as they stand in the logs, the last maxLines
	dropped int      // lines before these
}

// The pauses that tell one boot from another.
const (
	// newBootAfter is how long a node that had not fetched a kernel was silent when its next DISCOVER is a new boot:
	// longer than any firmware's retries.
	newBootAfter = 10 * time.Minute
	// sameBoot is how long before a boot loader's first file its DHCP can have been.
	sameBoot = 10 * time.Minute
)

// begins reports whether f is the begin of another boot.
func (h *history) begins(f *Fact) bool {
	c := &h.cur
	switch f.Kind {
	case BootLoader, BootScript:
		if f.Program == ProgWeb && !loader(f.UserAgent) {
			return false // installers load boot scripts, too: as answer files that they are not
		}
		return c.has(iKernel) && (f.Time.IsZero() || f.Time.After(c.marks[iKernel].last)) // without stamps, the order of the lines
	case Discover, NoLeases:
		return !c.arrived() && !c.last.IsZero() && f.Time.Sub(c.last) > newBootAfter
	}
	return false
}

func (h *history) add(f *Fact, tr Transaction) {
	if h.begins(f) {
		old := h.cur
		h.before = h.before || old.arrived()
		h.boots++
		h.cur = boot{}
		if f.Kind != Discover && f.Kind != NoLeases && f.Time.Sub(old.late[iAck].last) <= sameBoot {
			copy(h.cur.marks[:4], old.late[:])
		}
	}
	if f.Host != "" && f.dhcpLine() {
		h.host = f.Host
	}
	if tr != (Transaction{}) {
		if tr.netboots() || !h.cur.netbooted {
			h.tr = tr
		}
		h.cur.netbooted = h.cur.netbooted || tr.netboots()
		if h.host == "" {
			h.host = tr.Host
		}
	}
	if f.IP.IsValid() && (!f.dhcpLine() || f.Kind == Ack) && !slices.Contains(h.ips, f.IP) && len(h.ips) < 4 {
		h.ips = append(h.ips, f.IP)
	}
	if f.Server.IsValid() && !slices.Contains(h.servers, f.Server) && len(h.servers) < 4 {
		h.servers = append(h.servers, f.Server)
	}
	if strings.Contains(f.Reason, "wrong server-ID") || strings.Contains(f.Reason, "foreign server identifier") {
		h.foreign = f.Reason
	}
	h.cur.add(f)
}

func (b *boot) add(f *Fact) {
	if f.Time.After(b.last) {
		b.last = f.Time
	}
	i := slices.Index(stages[:], f.Kind)
	switch {
	case i >= 0 && i <= iAck && b.has(iKernel):
		b.late[i].add(f)
	case i >= 0:
		if f.Retracts { // it is the end of what was only asked for: one transfer, and not two
			b.retract(f)
		}
		b.marks[i].add(f)
		b.mend(f)
	case f.Kind.Error():
		if f.Retracts {
			b.retract(f)
		}
		if f.Kind == NoLeases || f.Kind == WrongNetwork {
			b.imply(slices.Index(stages[:], cmp.Or(f.Message, Discover)), f)
		}
		if f.Kind == NotFound && Optional(f.File) {
			if f.Stage == BootScript {
				b.searched++
				b.tried = f.File
			}
			return
		}
		b.problems = note(b.problems, f, "", maxProblems)
	}
}

// imply counts a stage that must have been reached for f to be written, if it has no line of its own.
func (b *boot) imply(i int, f *Fact) {
	if !b.has(i) && !b.has(iKernel) {
		b.marks[i].add(&Fact{Time: f.Time, Program: f.Program})
	}
}

// retract takes back a request that was counted as a stage.
func (b *boot) retract(f *Fact) {
	if i := slices.Index(stages[:], f.Stage); i >= 0 && b.marks[i].count > 0 {
		if b.marks[i].count--; b.marks[i].count == 0 {
			b.marks[i] = mark{}
		}
	}
}

// sizeProbe is how soon after it broke a transfer off to learn a file's size firmware asks for the file itself: it does
// so at once, and packets may be lost.
const sizeProbe = 10 * time.Second

// mend marks the problems that f shows to be over. That firmware asks for a file's size first, and breaks that off, is
// none at all.
func (b *boot) mend(f *Fact) {
	b.problems = slices.DeleteFunc(b.problems, func(p Problem) bool {
		return p.Kind == Aborted && p.Count == 1 && f.Kind == p.Stage && lastElement(f.File) == lastElement(p.File) && f.Time.Sub(p.Last) <= sizeProbe
	})
	for i := range b.problems {
		p := &b.problems[i]
		switch p.Kind {
		case NoLeases, WrongNetwork:
			p.Mended = p.Mended || f.Kind == Offer || f.Kind == Ack
		case Nak, Decline:
			p.Mended = p.Mended || f.Kind == Ack
		case Aborted:
			p.Mended = p.Mended || f.Kind == p.Stage
		default:
			p.Mended = p.Mended || f.Kind == p.Stage && lastElement(f.File) == lastElement(p.File)
		}
	}
}
