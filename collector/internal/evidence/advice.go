// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"provost/collector/internal/sequence"
)

// view is what the judgement on a node depends on beside its own lines.
type view struct {
	now             time.Time
	sizes           *bounded[string, int64]
	servers         map[netip.Addr]int // the DHCP servers that requests chose, and how often
	dhcp, tftp, web bool               // which kinds of log were given
	refuses         bool               // in.tftpd writes down what becomes of a request
}

// way is the order in which a boot passes the stages when all comes from the network. A boot script comes after the
// boot loader that asks for it.
var way = [...]int{iDiscover, iOffer, iRequest, iAck, iLoader, iScript, iKernel, iInitrd, iAnswer, iImage}

// node judges one node's latest boot.
func (v view) node(h *history) NodeReport {
	b := &h.cur
	n := NodeReport{Name: h.who.Name, MAC: h.who.MAC, Boots: h.boots, BootFile: h.tr.BootFile, Server: h.tr.NextServer, Problems: b.problems}
	if n.Client = h.tr.VendorClass; h.tr.UserClass != "" {
		n.Client = strings.TrimSpace(n.Client + " " + h.tr.UserClass)
	}
	for _, ip := range h.ips {
		n.IPs = append(n.IPs, ip.String())
	}
	if n.Name == "" {
		n.Name = h.host
	}
	if n.Name == "" {
		n.Name = h.who.Key()
	}
	v.stages(b, &n)
	cut := v.cut(b)
	last := -1
	for _, i := range way {
		if b.has(i) && i != cut {
			last = i
		}
	}
	if last >= 0 {
		n.Stage = stages[last]
	}
	blocked := v.blocked(b, cut)
	switch {
	case blocked != nil:
		n.State, n.Next = Stopped, blocked.Stage
	case cut >= 0 && !b.after(cut):
		n.State, n.Next = Stopped, stages[cut]
	case b.arrived():
		n.State = Arrived
	case last == iInitrd: // it is the last that a boot loader fetches
		n.State = Arrived
		n.Warnings = append(n.Warnings, "its initrd was sent and no kernel: that came from another server, or at another time, than these logs are about")
	case h.before && last == iScript:
		n.State = Arrived
		n.Warnings = append(n.Warnings, "its boot script was sent and no kernel: after the boot before, it was probably told to boot from its disk")
	case last == iAck && !v.sees(h):
		n.State = Leased
	case last >= iRequest && last <= iAck && !b.has(iDiscover) || last <= iAck && last >= 0 && h.tr.VendorClass != "" && !b.netbooted:
		n.State = Leased
	default:
		n.State = Stopped
	}
	if n.State == Stopped {
		if n.Next == "" {
			n.Next = v.next(h, last)
		}
		if quiet := v.now.Sub(b.last); blocked == nil && cut < 0 && !b.last.IsZero() && quiet >= 0 && quiet < Patience {
			n.State = Moving
		} else {
			n.Why, n.Causes = v.causes(h, last, blocked, cut)
		}
	}
	v.warnings(h, &n, cut)
	n.Lines, n.Dropped = h.lines, h.dropped
	return n
}

// netboots reports whether a client's firmware, or iPXE, asks.
func (t *Transaction) netboots() bool {
	return strings.HasPrefix(t.VendorClass, "PXEClient") || strings.HasPrefix(t.VendorClass, "HTTPClient") || strings.Contains(t.UserClass, "iPXE")
}

// onlyAsked gives the file of the last stage, if all that is known of it is that in.tftpd was asked for it.
func (v view) onlyAsked(h *history) string {
	if v.refuses {
		return ""
	}
	for _, i := range slices.Backward(way[:]) {
		if m := &h.cur.marks[i]; m.count > 0 {
			if m.asked {
				return m.file
			}
			return ""
		}
	}
	return ""
}

// after reports whether the boot went past a stage.
func (b *boot) after(i int) bool {
	for _, j := range way[slices.Index(way[:], i)+1:] {
		if b.has(j) {
			return true
		}
	}
	return false
}

// stages lists what was seen, in the order of time.
func (v view) stages(b *boot, n *NodeReport) {
	n.Stages = []StageReport{}
	for _, i := range way {
		if m := &b.marks[i]; m.count > 0 {
			n.Stages = append(n.Stages, StageReport{Name: stages[i], At: m.first, Last: m.last, Count: m.count, Program: m.program, File: m.file, Bytes: m.bytes})
		}
	}
	slices.SortStableFunc(n.Stages, func(x, y StageReport) int { return x.At.Compare(y.At) })
	for i := range n.Stages {
		s := &n.Stages[i]
		if i > 0 && !s.At.IsZero() && !n.Stages[i-1].At.IsZero() {
			s.GapMS = s.At.Sub(n.Stages[i-1].At).Milliseconds()
		}
		if n.From.IsZero() {
			n.From = s.At
		}
	}
	n.Until = b.last
}

// blocked finds the problem that ended the boot: the latest one whose stage was never reached.
func (v view) blocked(b *boot, cut int) *Problem {
	var found *Problem
	for i := range b.problems {
		p := &b.problems[i]
		j := slices.Index(stages[:], p.Stage)
		after := p.Kind == Nak || p.Kind == Decline // not mended: no dhcp-ack came after it
		if p.Mended || j < 0 || b.has(j) && j != cut && !after {
			continue
		}
		if (p.Stage == Offer || p.Stage == Ack) && (b.has(iLoader) || b.has(iScript) || b.has(iKernel)) {
			continue // the address came from elsewhere
		}
		if j < iAnswer && b.arrived() {
			continue // by another way
		}
		if found == nil || !p.Last.Before(found.Last) {
			found = p
		}
	}
	return found
}

// bigFile is the size from which on a short transfer is told from a file that differs from node to node.
const bigFile = 1 << 20

// cut gives the stage whose file was never sent whole, -1 if there is none.
func (v view) cut(b *boot) int {
	for _, i := range []int{iKernel, iInitrd, iImage} {
		m := &b.marks[i]
		if whole, _ := v.sizes.get(m.file); m.count > 0 && m.bytes > 0 && cutOff(m.bytes, whole) {
			return i
		}
	}
	return -1
}

// sees reports whether the log was given in which the node's first file would be: the web server's, if DHCP named a URL.
func (v view) sees(h *history) bool {
	switch {
	case h.tr.BootFile == "":
		return v.tftp || v.web
	case strings.HasPrefix(h.tr.BootFile, "http"):
		return v.web
	}
	return v.tftp
}

// next is the stage that should have come after the last one.
func (v view) next(h *history, last int) Kind {
	switch last {
	case -1:
		return Discover
	case iAck:
		if k := StageOf(h.tr.BootFile, true); k == BootLoader || k == BootScript {
			return k
		}
		if !v.tftp {
			return BootScript
		}
		return BootLoader
	case iLoader:
		return BootScript
	case iScript:
		return Kernel
	case iKernel:
		return Initrd
	}
	return stages[min(last+1, len(stages)-1)]
}

// causes says in one sentence what happened, and what it is likely to come from, the likeliest first.
func (v view) causes(h *history, last int, p *Problem, cut int) (why string, causes []string) {
	if p != nil {
		return v.blockedBy(h, p)
	}
	if cut >= 0 {
		m := &h.cur.marks[cut]
		whole, _ := v.sizes.get(m.file)
		return fmt.Sprintf("only %d of %d bytes of %s were sent", m.bytes, whole, m.file), []string{
			"the node was reset or lost its link during the transfer", "duplex or cable fault: look at the switch port's error counters", "the node has too little memory for the file"}
	}
	if last >= 0 && last <= iRequest {
		if m := &h.cur.marks[last]; m.reason != "" {
			causes = append(causes, "the server remarked: "+m.reason)
		}
	}
	switch last {
	case -1:
		return "no stage was seen", []string{"only errors are in the logs: see the warnings"}
	case iDiscover:
		why = "it asks for an address and gets no offer"
	case iOffer:
		why = "an address was offered and never asked for"
	case iRequest:
		why = "it asked for its address and got no answer"
	case iAck:
		why = "lease given, no TFTP or HTTP request since"
		switch {
		case h.tr.BootFile == "" && h.tr.VendorClass != "":
			causes = append(causes, "DHCP named no boot file to this client: check filename / dhcp-boot for its class")
		case h.tr.BootFile != "":
			causes = append(causes, "it was told to fetch "+h.tr.BootFile+" from "+or(h.tr.NextServer, "the DHCP server")+": is that server up, and reachable from its segment?")
		}
	case iLoader:
		why = "the boot loader was sent and asked for nothing more"
		causes = h.cur.loops()
		if n := h.cur.searched; n == 1 {
			causes = append(causes, "the one configuration file that it looked for is not there: "+h.cur.tried)
		} else if n > 1 {
			causes = append(causes, fmt.Sprintf("none of the %d configuration files that it looked for is there, the last was %s", n, h.cur.tried))
		}
	case iScript:
		why = "the boot script was sent and no kernel asked for"
		causes = []string{"the script tells it to boot from its disk"}
	case iKernel:
		why = "the kernel was sent and no initrd"
		causes = []string{"the script or configuration names no initrd"}
	default:
		return "nothing came after " + string(stages[last]), nil
	}
	if file := v.onlyAsked(h); file != "" && len(h.cur.loops()) == 0 {
		why = strings.Replace(why, "was sent", "was asked for", 1)
		causes = append([]string{file + " was only asked for, nobody logged that it was sent: is it there, and may everybody read it?"}, causes...)
	}
	for _, c := range usual(last, v.next(h, last)) {
		if !slices.Contains(causes, c) {
			causes = append(causes, c)
		}
	}
	if last == iAck && !v.tftp {
		causes = append(causes, "no TFTP server's log was given: TFTP requests cannot be seen")
	} else if last == iAck && !v.web {
		causes = append(causes, "no web server's log was given: HTTP requests cannot be seen")
	}
	return why, causes
}

// usual are the causes that depend on the stages alone. The collector has them in a table, which says what to look at where
// the site's own servers boot the node.
func usual(last int, next Kind) []string {
	return sequence.Sequence{}.Likely(sequence.Evidence{Last: string(stages[last]), Awaited: string(next), External: true})
}

// loops is the cause of a boot loader that was fetched again and again.
func (b *boot) loops() []string {
	m := &b.marks[iLoader]
	if m.count >= 3 && strings.Contains(strings.ToLower(m.file), "ipxe") || m.count >= 2 && strings.Contains(m.file, "undionly") {
		return []string{"iPXE is given itself again: send the script's URL to clients with the user class iPXE"}
	}
	return nil
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// blockedBy says what one problem that ended a boot comes from.
func (v view) blockedBy(h *history, p *Problem) (why string, causes []string) {
	file := or(p.File, "a file")
	switch p.Kind {
	case NoLeases:
		return "the DHCP server has no address for it", []string{"the pool is used up: make the range larger or the lease time shorter", "the node has no host entry and the pool is for known clients only"}
	case WrongNetwork:
		return "the DHCP server does not serve the network it is on", []string{"the port is in another VLAN, or the relay's address is in no subnet of the server's", "the server is not authoritative for this segment"}
	case Nak:
		return "the DHCP server refuses the address it asks for", []string{"it asks for an address of another network or server: a second DHCP server?", "its old lease was given to another node"}
	case Decline:
		arping := "`arping` finds its MAC"
		if len(h.ips) > 0 {
			arping = "`arping " + h.ips[len(h.ips)-1].String() + "` finds its MAC"
		}
		return "it found its address in use and declined it", []string{"another machine has this address by hand: " + arping}
	case NotFound:
		causes = []string{"the file is not there: compare the name, letter by letter, with the server's directory"}
		if strings.Contains(file, "//") || strings.Contains(file, `\`) {
			causes = append(causes, "the path has // or a backslash in it")
		}
		if n := h.cur.searched; p.Stage == BootScript && n > 0 {
			causes = append(causes, fmt.Sprintf("it looked for %d more before that, like %s: any one of them will do", n, h.cur.tried))
		}
		return file + " is not on the server (" + string(p.Stage) + " missed)", append(causes, "the server's root is another directory than the one that the name starts from")
	case Forbidden:
		mode := "mode or owner: the server's user needs r on the file and x on every directory above: `namei -l`"
		if p.Program == ProgTFTPDHPA {
			mode = "mode or owner: in.tftpd without -p sends only what everybody may read (chmod o+r), and needs x on every directory above: `namei -l`"
		}
		return file + " may not be read (" + string(p.Stage) + " missed)", []string{mode,
			"SELinux or AppArmor: `ls -Z`, `restorecon -R`", "the server's configuration denies it to this client"}
	case Aborted:
		return "the transfer of " + file + " was given up", []string{"the node was reset or lost its link", "packets are lost: MTU, duplex, a firewall that drops TFTP's data ports", "too little memory on the node"}
	}
	causes = []string{"the server's own error log has the reason"}
	switch {
	case strings.Contains(p.Reason, "upstream"), strings.Contains(p.Reason, "HTTP 502"), strings.Contains(p.Reason, "HTTP 504"):
		causes = []string{"what answers for this path behind the web server is down, or too slow: look at that service, and at the proxy's settings"}
	case p.Program == ProgApache || p.Program == ProgNginx:
		causes = []string{"what stands behind the colon is the server's own word: its settings, or its machine, have the fault"}
	}
	return file + " was refused (" + string(p.Stage) + " missed): " + or(p.Reason, "an error"), causes
}

// warnings adds what an administrator should know beside the cause and the problems.
func (v view) warnings(h *history, n *NodeReport, cut int) {
	b := &h.cur
	if len(h.servers) > 1 {
		var s []string
		for _, a := range h.servers {
			s = append(s, a.String())
		}
		n.Warnings = append(n.Warnings, "more than one DHCP server: "+strings.Join(s, ", ")+": is one of them a rogue?")
	} else if len(h.servers) == 1 && v.rival(h.servers[0]).IsValid() {
		n.Warnings = append(n.Warnings, "it chose the DHCP server "+h.servers[0].String()+", other nodes "+v.rival(h.servers[0]).String()+": is one of them a rogue?")
	} else if h.foreign != "" {
		n.Warnings = append(n.Warnings, "it took another DHCP server's offer ("+h.foreign+"): is there a rogue?")
	}
	if c := v.cut(b); c >= 0 && c != cut {
		n.Warnings = append(n.Warnings, "a file was not sent whole: "+b.marks[c].file)
	}
	if b.searched > 0 && !b.has(iScript) && !b.has(iKernel) && !b.has(iLoader) {
		n.Warnings = append(n.Warnings, fmt.Sprintf("it looked for configuration files, %d times, and none is there; the last was %s", b.searched, b.tried))
	}
	if m := &b.marks[iDiscover]; m.count >= 10 && !b.has(iAck) {
		n.Warnings = append(n.Warnings, fmt.Sprintf("%d times dhcp-discover", m.count))
	}
}
