// SPDX-License-Identifier: Apache-2.0

package evidence

import "strings"

// dhcpKind names a DHCP message type as the logs write it.
func dhcpKind(s string) (Kind, bool) {
	switch s {
	case "DHCPDISCOVER", "BOOTREQUEST", "BOOTP":
		return Discover, true
	case "DHCPOFFER":
		return Offer, true
	case "DHCPREQUEST":
		return Request, true
	case "DHCPACK", "BOOTREPLY":
		return Ack, true
	case "DHCPNAK", "DHCPNACK":
		return Nak, true
	case "DHCPDECLINE":
		return Decline, true
	}
	return "", false
}

// because sets the kind of a DHCP line from the reason that stands behind it.
func (f *Fact) because(reason string) {
	f.Reason = strings.TrimRight(reason, ". ")
	was := f.Kind
	switch {
	case strings.Contains(reason, "no free leases"), strings.Contains(reason, "no address available"), strings.Contains(reason, "no address configured"),
		strings.Contains(reason, "holds all free leases"):
		f.Kind, f.Stage = NoLeases, Offer
	case f.Kind != Nak && (strings.Contains(reason, "wrong network") || strings.Contains(reason, "unknown network segment")):
		f.Kind, f.Stage = WrongNetwork, Ack
	}
	if f.Kind != was && (was == Discover || was == Request) {
		f.Message = was
	}
}

func (f *Fact) dhcp(program string, k Kind) {
	f.Program, f.Kind = program, k
	switch k {
	case Nak, Decline:
		f.Stage = Ack
	default:
		f.Stage = k
	}
}

// isc reads ISC dhcpd (server/dhcp.c, server/bootp.c).
func isc(s string, f *Fact) Verdict {
	word, rest := cut(s)
	k, ok := dhcpKind(word)
	if !ok {
		switch word {
		case "DHCPINFORM", "DHCPRELEASE", "DHCPLEASEQUERY", "DHCPLEASEACTIVE", "DHCPLEASEUNKNOWN", "DHCPEXPIRE":
			return Ignored
		}
		if iscChatter(s) {
			return Ignored
		}
		return Unknown
	}
	f.dhcp(ProgISC, k)
	prep, rest := cut(rest)
	fixed := word == "BOOTREPLY" && prep == "for" // to a host entry; "on" is a lease, and names the client as ever
	if k == Ack && prep == "to" {                 // the answer to a DHCPINFORM: no lease
		return Ignored
	}
	if prep == "on" || prep == "for" || prep == "of" {
		tok, after := cut(rest)
		if f.IP, ok = addr(tok); !ok {
			return Broken
		}
		rest = after
		if strings.HasPrefix(rest, "(") { // the server that the client chose
			end := strings.IndexByte(rest, ')')
			if end < 0 {
				return Broken
			}
			if f.Server, ok = addr(rest[1:end]); !ok {
				return Broken
			}
			rest = strings.TrimLeft(rest[end+1:], " ")
		}
		prep, rest = cut(rest)
	}
	if prep != "from" && prep != "to" {
		return Broken
	}
	if fixed { // to HOST (MAC) via IF
		host, after := cut(rest)
		f.Host = host
		if !strings.HasPrefix(after, "(") {
			return Broken
		}
		rest = after[1:]
		if f.MAC, ok = macAt(rest); !ok || !strings.HasPrefix(rest[17:], ")") {
			return Broken
		}
		rest = strings.TrimLeft(rest[18:], " ")
	} else {
		tok, after := cut(rest)
		tok = strings.TrimSuffix(tok, ":")
		switch m, is := mac(tok); {
		case is:
			f.MAC = m
		case tok == "" || len(tok) > 3*64 || !hexDigit(tok[0]) && tok[0] != '"' && tok[0] != '<':
			return Broken
		case strings.Count(tok, ":") < 6 && tok[0] != '"' && tok[0] != '<' && after == "": // a MAC that is cut
			return Broken
		default:
			f.ClientID = strings.Trim(tok, `"`)
		}
		rest = after
		if strings.HasPrefix(rest, "(") {
			// A host name may hold any printable character: the last ") via " ends it.
			end := strings.LastIndex(rest, ") via ")
			if end < 0 {
				if end = strings.LastIndexByte(rest, ')'); end < 0 {
					return Broken
				}
			}
			if h := rest[1:end]; h != "Hostname Unsuitable for Printing" {
				f.Host = h
			}
			rest = strings.TrimLeft(rest[end+1:], " ")
		}
	}
	if after, has := strings.CutPrefix(rest, "via "); has {
		via, reason, has := strings.Cut(after, ": ")
		via, _, _ = strings.Cut(via, " ")
		f.Interface = via
		if has {
			f.because(reason)
		}
		if via == "" {
			return Broken
		}
	} else if rest != "" || k != Decline {
		return Broken // every line but the shortest DHCPDECLINE names the interface at its end
	}
	return Known
}

// iscChatter knows what dhcpd says about itself.
func iscChatter(s string) bool {
	for _, p := range [...]string{"Internet Systems Consortium", "Copyright", "All rights reserved", "For info,", "Config file:", "Database file:", "PID file:",
		"Wrote ", "Listening on ", "Sending on ", "Server starting", "Abandoning IP", "Reclaiming ", "reuse_lease", "uid lease", "Dynamic and static leases",
		"Remove host declaration", "Added new forward map", "Added reverse map", "Removed forward map", "removed reverse map", "Removed reverse map",
		"Unable to add ", "execute", "failover", "balanc", "pool ", "ICMP Echo reply", "icmp_echorequest", "Can't ", "No subnet declaration", "** Ignoring",
		"client ", "Client ", "lease ", "Lease ", "bind update", "Received signal", "commit_leases", "send_packet", "fallback_discard", "Not configured",
		"exiting", "If you think", "not one of ours", "bugs on either", "before submitting", "than a configuration", "process and the", "Open a socket",
		"delaying", "ldap", "data: ", "DDNS", "Failed to ", "Both dynamic and static", "either ", "option ", "parse_option", "Multiple interfaces match",
		"lockfile", "Setting ", "using ", "Bound to", "Dropped ", "l2 ", "WARNING", "Warning", "warning", "Deleting ", "accepting packet"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// keaMessage reports whether what follows a severity is Kea's: its logger in brackets, or with a pattern without %c the
// message's identifier.
func keaMessage(s string) bool {
	return strings.HasPrefix(s, "[kea-") || strings.HasPrefix(s, "DHCP4_") || strings.HasPrefix(s, "ALLOC_ENGINE_V4_")
}

// kea reads Kea's DHCPv4 server (src/bin/dhcp4/dhcp4_messages.mes): [SEVERITY [[LOGGER] ]]ID MESSAGE.
func kea(s string, f *Fact) Verdict {
	id, rest := cut(s)
	if isSeverity(id) {
		if strings.HasPrefix(rest, "[") {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return Broken
			}
			rest = strings.TrimLeft(rest[end+1:], " ")
		}
		id, rest = cut(rest)
	}
	kind, known := keaKind(id)
	if !known {
		for i := range len(id) { // a message of Kea's that is about something else
			if c := id[i]; c != '_' && (c < 'A' || c > 'Z') && !digit(c) {
				return Unknown
			}
		}
		if strings.IndexByte(id, '_') < 0 {
			return Unknown
		}
		return Ignored
	}
	if id == "DHCP4_DECLINE_LEASE" {
		after, ok := strings.CutPrefix(rest, "Received DHCPDECLINE for addr ")
		if !ok {
			return Broken
		}
		tok, after := cut(after)
		if f.IP, ok = addr(tok); !ok {
			return Broken
		}
		rest = strings.TrimPrefix(after, "from client ")
	}
	msg, ok := f.keaLabel(rest)
	if !ok {
		return Broken
	}
	f.dhcp(ProgKea, kind)
	switch id {
	case "DHCP4_LEASE_ADVERT", "DHCP4_LEASE_OFFER", "DHCP4_LEASE_ALLOC", "DHCP4_LEASE_REUSE":
		after, has := strings.CutPrefix(msg, "lease ")
		tok, _ := cut(after)
		if f.IP, ok = addr(tok); !ok || !has {
			return Broken
		}
	case "DHCP4_INIT_REBOOT":
		if i := strings.LastIndexByte(msg, ' '); i >= 0 {
			f.IP, _ = addr(msg[i+1:])
		}
	case "DHCP4_PACKET_RECEIVED", "DHCP4_PACKET_SEND":
		return f.keaPacket(strings.TrimPrefix(msg, "trying to send packet "), id)
	default:
		f.Reason = strings.TrimRight(msg, ". ")
		switch kind {
		case NoLeases:
			f.Stage = Offer
		case WrongNetwork:
			f.Stage = Ack
		}
		if _, after, has := strings.Cut(msg, ", type "); has && kind.Error() {
			if k, ok := dhcpKind(after); ok && (k == Discover || k == Request) {
				f.Message = k
			}
		}
	}
	return Known
}

func keaKind(id string) (Kind, bool) {
	switch id {
	case "DHCP4_LEASE_ADVERT", "DHCP4_LEASE_OFFER":
		return Offer, true
	case "DHCP4_LEASE_ALLOC", "DHCP4_LEASE_REUSE":
		return Ack, true
	case "DHCP4_INIT_REBOOT", "DHCP4_PACKET_DROP_0003": // the latter: for another server
		return Request, true
	case "DHCP4_DECLINE_LEASE":
		return Decline, true
	case "DHCP4_PACKET_NAK_0001", "DHCP4_SUBNET_SELECTION_FAILED":
		return WrongNetwork, true
	case "DHCP4_PACKET_NAK_0002", "DHCP4_PACKET_NAK_0004":
		return Nak, true
	case "DHCP4_PACKET_NAK_0003", "ALLOC_ENGINE_V4_ALLOC_FAIL", "ALLOC_ENGINE_V4_ALLOC_FAIL_SUBNET", "ALLOC_ENGINE_V4_ALLOC_FAIL_SHARED_NETWORK",
		"ALLOC_ENGINE_V4_ALLOC_FAIL_NO_POOLS":
		return NoLeases, true
	case "DHCP4_PACKET_RECEIVED", "DHCP4_PACKET_SEND":
		return Discover, true // keaPacket knows better
	}
	return "", false
}

// keaLabel reads "[hwtype=1 MAC], cid=[01:…], tid=0x…: " and gives what follows.
func (f *Fact) keaLabel(s string) (msg string, ok bool) {
	hw, rest, ok := strings.Cut(s, "], cid=[")
	if !ok || !strings.HasPrefix(hw, "[") {
		return "", false
	}
	if _, m, has := strings.Cut(hw, " "); has {
		f.MAC, _ = mac(m)
	}
	cid, rest, ok := strings.Cut(rest, "]")
	if !ok {
		return "", false
	}
	if cid != "no info" {
		f.ClientID = cid
	}
	if f.MAC == "" && f.ClientID == "" {
		return "", false
	}
	after, has := strings.CutPrefix(rest, ", tid=")
	if !has {
		return "", false
	}
	n := 0
	for n < len(after) && (hexDigit(after[n]) || after[n] == 'x') {
		n++
	}
	if f.XID = after[:n]; n == 0 {
		return "", false
	}
	return strings.TrimLeft(after[n:], ":,. "), true
}

// keaPacket reads "DHCPOFFER (type 2) from 10.78.0.1:67 to 255.255.255.255:68 on interface vs".
func (f *Fact) keaPacket(msg, id string) Verdict {
	word, rest := cut(msg)
	k, ok := dhcpKind(word)
	if !ok || id == "DHCP4_PACKET_SEND" && k == Ack { // which may answer a DHCPINFORM; the lease has its own line
		return Ignored
	}
	f.dhcp(ProgKea, k)
	if i := strings.LastIndex(rest, " on interface "); i >= 0 {
		f.Interface = rest[i+len(" on interface "):]
	}
	if id == "DHCP4_PACKET_SEND" {
		if _, from, has := strings.Cut(rest, " from "); has {
			from, _, _ = strings.Cut(from, " ")
			from, _, _ = strings.Cut(from, ":")
			f.Server, _ = addr(from)
		}
	}
	return Known
}

// dnsmasq reads its DHCP messages (src/rfc2131.c, log_packet), with and without a transaction number in front.
func dnsmasq(s string, f *Fact) Verdict {
	tok, rest := cut(s)
	if allDigits(tok) && rest != "" {
		f.XID = tok
		s = rest
		tok, _ = cut(s)
	}
	open := strings.IndexByte(tok, '(')
	if open < 0 {
		return dnsmasqOther(s, f)
	}
	word := tok[:open]
	// The interface's name may hold a blank; its parenthesis ends it.
	end := strings.Index(s, ") ")
	if end < open {
		if _, ok := dhcpKind(word); ok {
			return Broken
		}
		return dnsmasqOther(s, f)
	}
	f.Interface, rest = s[open+1:end], strings.TrimLeft(s[end+1:], " ")
	k, ok := dhcpKind(word)
	switch {
	case ok:
	case word == "PXE": // proxy DHCP, or the boot server that it named
		k = Offer
	case strings.HasPrefix(word, "DHCP"), strings.HasPrefix(word, "RTR-"), strings.HasPrefix(word, "SLAAC"), word == "BOOTP":
		return Ignored // INFORM, RELEASE, and DHCPv6
	default:
		return Unknown
	}
	f.dhcp(ProgDnsmasq, k)
	tok, after := cut(rest)
	if ip, ok := addr(tok); ok && !strings.Contains(tok, "::") {
		f.IP, rest = ip, after
		tok, after = cut(rest)
	}
	if f.MAC, ok = mac(tok); !ok {
		switch {
		case len(tok) > 17 && strings.Count(tok, ":") >= 6: // InfiniBand: type, dash, 20 bytes
			if _, hw, has := strings.Cut(tok, "-"); has {
				tok = hw
			}
			f.ClientID = tok
		case tok == "<null>" && f.IP.IsValid(): // no hardware address in the packet: who has the address by other lines
		case tok == "<null>":
			return Ignored
		default:
			return Broken
		}
	}
	rest = strings.TrimRight(after, " ")
	switch {
	case k == Ack && rest != "":
		f.Host, _ = cut(rest)
	case k == Offer && word == "PXE":
		if f.Reason = "boot server"; rest == "proxy" {
			f.Reason = "proxy DHCP"
		} else {
			f.File = rest
		}
	case rest != "":
		f.because(rest)
	}
	return Known
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return s != ""
}

// dnsmasqOther reads the options that log-dhcp writes out, and what else dnsmasq-dhcp says.
func dnsmasqOther(s string, f *Fact) Verdict {
	f.Program, f.Kind = ProgDnsmasq, Detail
	if f.XID != "" {
		for _, name := range [...]string{"vendor class", "user class", "bootfile name", "next server", "server name", "client provides name"} {
			if after, ok := strings.CutPrefix(s, name); ok && strings.HasPrefix(after, ": ") {
				f.Reason, f.File = name, strings.TrimSpace(after[2:])
				return Known
			}
		}
		if strings.HasPrefix(s, "sent size:") {
			for _, name := range [...]string{"server-identifier", "bootfile-name", "tftp-server"} {
				if _, after, ok := strings.Cut(s, " "+name+"  "); ok {
					f.Reason, f.File = name, strings.TrimSpace(after)
					return Known
				}
			}
		}
		return Ignored
	}
	for _, p := range [...]string{"no address range available for DHCP request ", "DHCP packet received on "} {
		if after, ok := strings.CutPrefix(s, p); ok {
			f.Kind, f.Stage, f.Reason = WrongNetwork, Ack, s
			f.Interface, _, _ = strings.Cut(strings.TrimPrefix(after, "via "), " ")
			return Known
		}
	}
	for _, p := range [...]string{"DHCP,", "DHCPv", "read ", "not giving name ", "abandoning lease", "not using configured", "Ignoring domain", "IPv6 router", "router advertisement",
		"stateless", "cleared cache", "duplicate ", "failed to ", "started", "lease", "available DHCP", "vendor class:", "user class:", "tags:", "client provides name:"} {
		if strings.HasPrefix(s, p) {
			return Ignored
		}
	}
	return Unknown
}
