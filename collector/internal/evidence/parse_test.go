// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"provost/collector/internal/evidence"
)

var reference = time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)

func parser() *evidence.Parser { return evidence.NewParser(reference, nil) }

var comparable = cmp.Options{cmpopts.EquateComparable(netip.Addr{})}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

const m1 = "52:54:00:77:00:01"

// messages are what each program says, without time and header.
var messages = []struct {
	tag, text string
	want      evidence.Fact
}{
	{"dhcpd[1]", "DHCPDISCOVER from " + m1 + " via br0", evidence.Fact{Program: "dhcpd", Kind: evidence.Discover, MAC: m1, Interface: "br0"}},
	{"dhcpd[1]", "DHCPDISCOVER from 52:54:00:77:00:AB (node01) via 10.1.0.1", evidence.Fact{Program: "dhcpd", Kind: evidence.Discover, MAC: "52:54:00:77:00:ab", Host: "node01", Interface: "10.1.0.1"}},
	{"dhcpd[1]", "DHCPDISCOVER from " + m1 + " via br0: network 10.77.0.0/24: no free leases",
		evidence.Fact{Program: "dhcpd", Kind: evidence.NoLeases, Stage: evidence.Offer, MAC: m1, Interface: "br0", Reason: "network 10.77.0.0/24: no free leases", Message: evidence.Discover}},
	{"dhcpd[1]", "DHCPDISCOVER from " + m1 + " via br0: unknown network segment",
		evidence.Fact{Program: "dhcpd", Kind: evidence.WrongNetwork, Stage: evidence.Ack, MAC: m1, Interface: "br0", Reason: "unknown network segment", Message: evidence.Discover}},
	{"dhcpd[1]", "DHCPOFFER on 10.77.0.11 to " + m1 + " (node01) via br0", evidence.Fact{Program: "dhcpd", Kind: evidence.Offer, MAC: m1, IP: ip("10.77.0.11"), Host: "node01", Interface: "br0"}},
	{"dhcpd[1]", "DHCPREQUEST for 10.77.0.11 (10.77.0.1) from " + m1 + " (node01) via br0",
		evidence.Fact{Program: "dhcpd", Kind: evidence.Request, MAC: m1, IP: ip("10.77.0.11"), Server: ip("10.77.0.1"), Host: "node01", Interface: "br0"}},
	{"dhcpd[1]", "DHCPREQUEST for 192.168.99.5 from " + m1 + " via br0: wrong network.",
		evidence.Fact{Program: "dhcpd", Kind: evidence.WrongNetwork, Stage: evidence.Ack, MAC: m1, IP: ip("192.168.99.5"), Interface: "br0", Reason: "wrong network", Message: evidence.Request}},
	{"dhcpd[1]", "DHCPREQUEST for 10.78.0.250 from " + m1 + " via vs: unknown lease 10.78.0.250.",
		evidence.Fact{Program: "dhcpd", Kind: evidence.Request, MAC: m1, IP: ip("10.78.0.250"), Interface: "vs", Reason: "unknown lease 10.78.0.250"}},
	{"dhcpd[1]", "DHCPACK on 10.77.0.11 to " + m1 + " via br0", evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0"}},
	{"dhcpd[1]", "DHCPACK on 10.77.0.11 to " + m1 + " (Hostname Unsuitable for Printing) via br0", evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0"}},
	{"dhcpd[1]", "DHCPACK on 10.77.0.11 to " + m1 + " (x) via eth9: no free leases) via br0",
		evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Host: "x) via eth9: no free leases", Interface: "br0"}},
	{"dhcpd[1]", "DHCPACK on 10.77.0.12 to 80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:2b:31 via ib0",
		evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, IP: ip("10.77.0.12"), ClientID: "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:2b:31", Interface: "ib0"}},
	{"dhcpd[1]", "DHCPNAK on 192.168.99.5 to " + m1 + " via br0", evidence.Fact{Program: "dhcpd", Kind: evidence.Nak, Stage: evidence.Ack, MAC: m1, IP: ip("192.168.99.5"), Interface: "br0"}},
	{"dhcpd[1]", "DHCPDECLINE of 10.77.0.11 from " + m1, evidence.Fact{Program: "dhcpd", Kind: evidence.Decline, Stage: evidence.Ack, MAC: m1, IP: ip("10.77.0.11")}},
	{"dhcpd[1]", "DHCPDECLINE of 10.77.0.11 from " + m1 + " via vs: abandoned",
		evidence.Fact{Program: "dhcpd", Kind: evidence.Decline, Stage: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Interface: "vs", Reason: "abandoned"}},
	{"dhcpd[1]", "BOOTREQUEST from " + m1 + " via vs", evidence.Fact{Program: "dhcpd", Kind: evidence.Discover, MAC: m1, Interface: "vs"}},
	{"dhcpd[1]", "BOOTREPLY on 10.78.0.21 to " + m1 + " (n21) via vs", evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, MAC: m1, IP: ip("10.78.0.21"), Host: "n21", Interface: "vs"}},
	{"dhcpd[1]", "BOOTREPLY on 10.78.0.21 to " + m1 + " via vs", evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, MAC: m1, IP: ip("10.78.0.21"), Interface: "vs"}},
	{"dhcpd[1]", "DHCPACK on 10.78.0.22 to 01:02:03:04 via vs", evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, ClientID: "01:02:03:04", IP: ip("10.78.0.22"), Interface: "vs"}},
	{"dhcpd[1]", "BOOTREPLY for 10.78.0.20 to n20 (" + m1 + ") via vs", evidence.Fact{Program: "dhcpd", Kind: evidence.Ack, MAC: m1, IP: ip("10.78.0.20"), Host: "n20", Interface: "vs"}},

	{"kea-dhcp4[1]", "INFO  [kea-dhcp4.leases.0x7f] DHCP4_LEASE_ALLOC [hwtype=1 " + m1 + "], cid=[01:52:54:00:77:00:01], tid=0x9152e07e: lease 10.78.0.101 has been allocated for 3600 seconds",
		evidence.Fact{Program: "kea-dhcp4", Kind: evidence.Ack, MAC: m1, IP: ip("10.78.0.101"), ClientID: "01:52:54:00:77:00:01", XID: "0x9152e07e"}},
	{"kea-dhcp4[1]", "INFO  DHCP4_LEASE_ALLOC [hwtype=1 " + m1 + "], cid=[no info], tid=0x2: lease 10.78.0.101 has been allocated for 3600 seconds",
		evidence.Fact{Program: "kea-dhcp4", Kind: evidence.Ack, MAC: m1, IP: ip("10.78.0.101"), XID: "0x2"}},
	{"kea-dhcp4[1]", "ERROR [kea-dhcp4.bad-packets.0x7f] DHCP4_PACKET_NAK_0001 [hwtype=1 " + m1 + "], cid=[no info], tid=0x4: failed to select a subnet for incoming packet, src 10.2.0.5, type DHCPREQUEST",
		evidence.Fact{Program: "kea-dhcp4", Kind: evidence.WrongNetwork, Stage: evidence.Ack, MAC: m1, XID: "0x4", Message: evidence.Request,
			Reason: "failed to select a subnet for incoming packet, src 10.2.0.5, type DHCPREQUEST"}},
	{"kea-dhcp4[1]", "DHCP4_LEASE_OFFER [hwtype=1 " + m1 + "], cid=[no info], tid=0x1: lease 10.78.0.101 will be offered",
		evidence.Fact{Program: "kea-dhcp4", Kind: evidence.Offer, MAC: m1, IP: ip("10.78.0.101"), XID: "0x1"}},
	{"kea-dhcp4[1]", "WARN  [kea-dhcp4.alloc-engine.0x7f] ALLOC_ENGINE_V4_ALLOC_FAIL [hwtype=1 " + m1 + "], cid=[no info], tid=0x78: failed to allocate an IPv4 address after 3 attempt(s)",
		evidence.Fact{Program: "kea-dhcp4", Kind: evidence.NoLeases, Stage: evidence.Offer, MAC: m1, XID: "0x78", Reason: "failed to allocate an IPv4 address after 3 attempt(s)"}},

	{"dnsmasq-dhcp[1]", "DHCPDISCOVER(br0) " + m1 + " ", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Discover, MAC: m1, Interface: "br0"}},
	{"dnsmasq-dhcp[1]", "DHCPDISCOVER(br0) 10.77.0.11 " + m1 + " ", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Discover, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0"}},
	{"dnsmasq-dhcp[1]", "1367454516 DHCPOFFER(br0) 10.77.0.11 " + m1 + " ", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Offer, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0", XID: "1367454516"}},
	{"dnsmasq-dhcp[1]", "DHCPREQUEST(br0) 10.77.0.11 " + m1 + " ", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Request, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0"}},
	{"dnsmasq-dhcp[1]", "DHCPACK(br0) 10.77.0.11 " + m1 + " node01", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Host: "node01", Interface: "br0"}},
	{"dnsmasq-dhcp[1]", "DHCPNAK(br0) 10.77.0.11 " + m1 + " wrong server-ID",
		evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Nak, Stage: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0", Reason: "wrong server-ID"}},
	{"dnsmasq-dhcp[1]", "DHCPNAK(br0) 10.77.0.11 " + m1 + " wrong network",
		evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Nak, Stage: evidence.Ack, MAC: m1, IP: ip("10.77.0.11"), Interface: "br0", Reason: "wrong network"}},
	{"dnsmasq-dhcp[1]", "DHCPDISCOVER(vs) " + m1 + " no address available",
		evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.NoLeases, Stage: evidence.Offer, MAC: m1, Interface: "vs", Reason: "no address available", Message: evidence.Discover}},
	{"dnsmasq-dhcp[1]", "DHCPDISCOVER(vs) " + m1 + " ignored", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Discover, MAC: m1, Interface: "vs", Reason: "ignored"}},
	{"dnsmasq-dhcp[1]", "DHCPACK(ib0) 10.77.0.12 <null> n12", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Ack, IP: ip("10.77.0.12"), Host: "n12", Interface: "ib0"}},
	{"dnsmasq-dhcp[1]", "DHCPACK(ib0) 10.77.0.12 20-80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:2b:31",
		evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Ack, IP: ip("10.77.0.12"), ClientID: "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:2b:31", Interface: "ib0"}},
	{"dnsmasq-dhcp[1]", "PXE(vs) " + m1 + " proxy", evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.Offer, MAC: m1, Interface: "vs", Reason: "proxy DHCP"}},
	{"dnsmasq-dhcp[1]", "no address range available for DHCP request via vs",
		evidence.Fact{Program: "dnsmasq-dhcp", Kind: evidence.WrongNetwork, Stage: evidence.Ack, Interface: "vs", Reason: "no address range available for DHCP request via vs"}},

	{"dnsmasq-tftp[1]", "sent /srv/tftp/pxelinux.0 to 10.78.0.2", evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.BootLoader, IP: ip("10.78.0.2"), File: "/srv/tftp/pxelinux.0"}},
	{"dnsmasq-tftp[1]", "sent /srv/my to x/vmlinuz to 10.78.0.2", evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.Kernel, IP: ip("10.78.0.2"), File: "/srv/my to x/vmlinuz"}},
	{"dnsmasq-tftp[1]", "file /srv/tftp/nope/vmlinuz not found for 10.78.0.2",
		evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.NotFound, Stage: evidence.Kernel, IP: ip("10.78.0.2"), File: "/srv/tftp/nope/vmlinuz", Reason: "not found"}},
	{"dnsmasq-tftp[1]", "file /srv/tftp/undionly.kpxe not found",
		evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.NotFound, Stage: evidence.BootLoader, File: "/srv/tftp/undionly.kpxe", Reason: "not found"}},
	{"dnsmasq-tftp[1]", "failed sending /srv/tftp/initrd.img to 10.78.0.2",
		evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.Aborted, Stage: evidence.Initrd, IP: ip("10.78.0.2"), File: "/srv/tftp/initrd.img", Reason: "the client stopped answering"}},
	{"dnsmasq-tftp[1]", "cannot access /srv/tftp/pxelinux.0: Permission denied",
		evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.Forbidden, Stage: evidence.BootLoader, File: "/srv/tftp/pxelinux.0", Reason: "Permission denied"}},
	{"dnsmasq-tftp[1]", "error 8 User aborted the transfer received from 10.78.0.2",
		evidence.Fact{Program: "dnsmasq-tftp", Kind: evidence.Aborted, IP: ip("10.78.0.2"), Reason: "User aborted the transfer"}},

	{"in.tftpd[7]", "RRQ from 10.77.0.11 filename pxelinux.cfg/01-52-54-00-77-00-01",
		evidence.Fact{Program: "in.tftpd", Kind: evidence.BootScript, MAC: m1, IP: ip("10.77.0.11"), File: "pxelinux.cfg/01-52-54-00-77-00-01", XID: "7", Asked: true}},
	{"in.tftpd[7]", "RRQ from fd00:78::2 filename boot\\x64\\vmlinuz remapped to /srv/tftp/boot/x64/vmlinuz",
		evidence.Fact{Program: "in.tftpd", Kind: evidence.Kernel, IP: ip("fd00:78::2"), File: `boot\x64\vmlinuz`, XID: "7", Asked: true}},
	{"in.tftpd[7]", "sending NAK (1, File not found) to 10.77.0.11", evidence.Fact{Program: "in.tftpd", Kind: evidence.NotFound, IP: ip("10.77.0.11"), Reason: "File not found", XID: "7"}},
	{"in.tftpd[7]", "sending NAK (0, Permission denied) to 10.77.0.11", evidence.Fact{Program: "in.tftpd", Kind: evidence.Forbidden, IP: ip("10.77.0.11"), Reason: "Permission denied", XID: "7"}},
	{"in.tftpd[7]", "Client ::ffff:10.77.0.11 finished pxelinux/pxelinux.0", evidence.Fact{Program: "in.tftpd", Kind: evidence.BootLoader, IP: ip("10.77.0.11"), File: "pxelinux/pxelinux.0", XID: "7"}},
	{"in.tftpd[7]", "Client 10.77.0.11 File not found images/vmlinuz",
		evidence.Fact{Program: "in.tftpd", Kind: evidence.NotFound, Stage: evidence.Kernel, IP: ip("10.77.0.11"), File: "images/vmlinuz", Reason: "File not found", XID: "7"}},
	{"in.tftpd[7]", "client fd00:78::2: finished initrd.img", evidence.Fact{Program: "in.tftpd", Kind: evidence.Initrd, IP: ip("fd00:78::2"), File: "initrd.img", XID: "7"}},
	{"in.tftpd[7]", "client 10.77.0.11: file not found: ks.cfg",
		evidence.Fact{Program: "in.tftpd", Kind: evidence.NotFound, Stage: evidence.Answer, IP: ip("10.77.0.11"), File: "ks.cfg", Reason: "File not found", XID: "7"}},
	{"in.tftpd[7]", "tftp: client does not accept options", evidence.Fact{Program: "in.tftpd", Kind: evidence.Aborted, Reason: "client does not accept options", XID: "7"}},
	{"atftpd[7]", "Serving pxelinux.0 to 10.78.0.2:46139", evidence.Fact{Program: "atftpd", Kind: evidence.BootLoader, IP: ip("10.78.0.2"), File: "pxelinux.0", XID: "7", Asked: true}},
	{"atftpd[7]", "File /srv/tftp/nope/vmlinuz not found",
		evidence.Fact{Program: "atftpd", Kind: evidence.NotFound, Stage: evidence.Kernel, File: "/srv/tftp/nope/vmlinuz", Reason: "not found or not readable", XID: "7"}},
}

// headers are the forms in which a message reaches a file, and the time that each gives it.
var headers = []struct {
	name, format string // %[1]s is TAG[PID], %[2]s the message
	at           time.Time
	sender       string
}{
	{"RFC 3339, UTC offset", "2026-11-20T17:46:51.123456+00:00 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 123456000, time.UTC), "front"},
	{"RFC 3339, west", "2026-11-20T12:46:51-05:00 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"RFC 3339, Z", "2026-11-20T17:46:51Z front.example.org %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front.example.org"},
	{"RFC 3339, east with half an hour", "2026-11-20T23:16:51.5+05:30 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 5e8, time.UTC), "front"},
	{"no offset, comma", "2026-11-20 17:46:51,250 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 25e7, time.UTC), "front"},
	{"traditional", "Nov 20 17:46:51 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"traditional, one digit", "Nov  3 07:46:51 front %[1]s: %[2]s", time.Date(2026, 11, 3, 7, 46, 51, 0, time.UTC), "front"},
	{"traditional, no host", "Nov 20 17:46:51 %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), ""},
	{"traditional, with year", "Nov 20 2025 17:46:51 front %[1]s: %[2]s", time.Date(2025, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"after New Year, of last year", "Dec 31 23:59:59 front %[1]s: %[2]s", time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC), "front"},
	{"RFC 3164 raw", "<30>Nov 20 17:46:51 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"RFC 3164 raw, no host", "<30>Nov 20 17:46:51 %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), ""},
	{"captured, seconds in front", "  63.15 <30>Nov 20 17:46:51 %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), ""},
	{"path as tag", "Nov 20 17:46:51 front /usr/sbin/%[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"journalctl -o short-full", "Fri 2026-11-20 17:46:51 UTC front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"journalctl -o short-full, a zone without letters", "Fri 2026-11-20 20:46:51 +03 front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"journalctl -o short-full, the parser's zone", "Fri 2026-11-20 17:46:51 WET front %[1]s: %[2]s", time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC), "front"},
	{"no time", "%[1]s: %[2]s", time.Time{}, ""},
}

func TestParse(t *testing.T) {
	p := parser()
	for _, m := range messages {
		for _, h := range headers {
			want := m.want
			want.Time, want.Sender = h.at, h.sender
			if want.Stage == "" && want.Kind.Stage() {
				want.Stage = want.Kind
			}
			line := fmt.Sprintf(h.format, m.tag, m.text)
			got, v := p.Parse([]byte(line + "\n"))
			if v != evidence.Known {
				t.Errorf("%s: Parse(%q) = %v, want known", h.name, line, v)
				continue
			}
			got.Time = got.Time.UTC()
			if h.at.IsZero() {
				got.Time = time.Time{}
			}
			if d := cmp.Diff(want, got, comparable); d != "" {
				t.Errorf("%s: Parse(%q), -want +got:\n%s", h.name, line, d)
			}
		}
	}
}

// RFC 5424 and journald carry tag and process id apart.
func TestParseStructured(t *testing.T) {
	p := parser()
	for _, m := range messages {
		tag, pid, _ := strings.Cut(strings.TrimSuffix(m.tag, "]"), "[")
		text := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(m.text)
		octets := strings.Trim(strings.Join(strings.Fields(fmt.Sprint([]byte(m.text))), ","), "[]")
		for name, line := range map[string]string{
			"RFC 5424":                       "<30>1 2026-11-20T17:46:51.123Z front " + tag + " " + pid + " - - " + m.text,
			"RFC 5424, structured data, BOM": "<30>1 2026-11-20T18:46:51.123+01:00 front " + tag + " " + pid + ` ID47 [x@1 a="b\]\"c"][y@2] ` + "\ufeff" + m.text,
			"journald":                       `{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1795196811123000","_HOSTNAME":"front","SYSLOG_IDENTIFIER":"` + tag + `","_PID":"` + pid + `","MESSAGE":"` + text + `"}`,
			"journald, message not UTF-8":    `{"MESSAGE":[` + octets + `], "PRIORITY" : 6 ,"x":[1,{"y":"]"}],"__REALTIME_TIMESTAMP":"1795196811123000","_HOSTNAME":"front","SYSLOG_IDENTIFIER":"` + tag + `","_PID":"` + pid + `"}`,
		} {
			want := m.want
			want.Time, want.Sender = time.Date(2026, 11, 20, 17, 46, 51, 123e6, time.UTC), "front"
			if want.Stage == "" && want.Kind.Stage() {
				want.Stage = want.Kind
			}
			got, v := p.Parse([]byte(line))
			if d := cmp.Diff(want, got, comparable); v != evidence.Known || d != "" {
				t.Errorf("%s: Parse(%q) = %v, -want +got:\n%s", name, line, v, d)
			}
		}
	}
}

// Programs that log to a file of their own write the message alone.
func TestParseBare(t *testing.T) {
	p := parser()
	for _, m := range messages {
		if strings.HasPrefix(m.tag, "dnsmasq-tftp") || !strings.HasPrefix(m.text, "DHCP") && !strings.HasPrefix(m.text, "BOOT") && !strings.HasPrefix(m.text, "RRQ") && !strings.HasPrefix(m.text, "Serving") {
			continue
		}
		got, v := p.Parse([]byte(m.text))
		if v != evidence.Known || got.Kind != m.want.Kind || got.MAC != m.want.MAC || got.IP != m.want.IP {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", m.text, got, v, m.want)
		}
	}
	line := "2026-11-20 19:21:55.916 INFO  [kea-dhcp4.leases/8140.140480818203072] DHCP4_LEASE_ALLOC [hwtype=1 " + m1 + "], cid=[no info], tid=0x41c51875: lease 10.78.0.101 has been allocated for 3600 seconds"
	got, v := p.Parse([]byte(line))
	want := evidence.Fact{Time: time.Date(2026, 11, 20, 19, 21, 55, 916e6, time.UTC), Program: "kea-dhcp4", Kind: evidence.Ack, Stage: evidence.Ack, MAC: m1, IP: ip("10.78.0.101"), XID: "0x41c51875"}
	if d := cmp.Diff(want, got, comparable); v != evidence.Known || d != "" {
		t.Errorf("Kea's own file: %v, -want +got:\n%s", v, d)
	}
}

func TestYear(t *testing.T) {
	day := func(s string) time.Time {
		d, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tt := range []struct{ name, reference, stamp, want string }{
		{"before New Year, read after it", "2027-01-01T00:00:05Z", "Dec 31 23:59:59", "2026-12-31T23:59:59Z"},
		{"after New Year", "2027-01-01T00:00:05Z", "Jan  1 00:00:01", "2027-01-01T00:00:01Z"},
		{"a clock that is ahead", "2026-12-31T23:59:00Z", "Jan  1 00:03:00", "2027-01-01T00:03:00Z"},
		{"almost a year old", "2026-11-20T12:00:00Z", "Nov 22 12:00:00", "2025-11-22T12:00:00Z"},
		{"29 February, read the year after", "2025-03-01T12:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00Z"},
		{"29 February, across a century without one", "2103-03-01T12:00:00Z", "Feb 29 12:00:00", "2096-02-29T12:00:00Z"},
	} {
		p := evidence.NewParser(day(tt.reference), nil)
		f, v := p.Parse([]byte(tt.stamp + " front dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0"))
		if v != evidence.Known || !f.Time.Equal(day(tt.want)) {
			t.Errorf("%s: %q at %s = %s, %v, want %s", tt.name, tt.stamp, tt.reference, f.Time.Format(time.RFC3339), v, tt.want)
		}
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, reference, want string }{ // 02:10 comes twice on that night
		{"read the first time", "2026-10-25T00:10:05Z", "2026-10-25T00:10:00Z"},
		{"read the second time", "2026-10-25T01:10:05Z", "2026-10-25T01:10:00Z"},
		{"read much later", "2026-10-25T09:00:00Z", "2026-10-25T01:10:00Z"},
	} {
		f, v := evidence.NewParser(day(tt.reference), berlin).Parse([]byte("Oct 25 02:10:00 front dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0"))
		if v != evidence.Known || !f.Time.Equal(day(tt.want)) {
			t.Errorf("the hour that comes twice, %s: %s, %v, want %s", tt.name, f.Time.UTC().Format(time.RFC3339), v, tt.want)
		}
	}
	f, _ := evidence.NewParser(reference, berlin).Parse([]byte("Nov 20 18:46:51 front dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0"))
	if want := day("2026-11-20T17:46:51Z"); !f.Time.Equal(want) {
		t.Errorf("in CET: %s, want %s", f.Time, want)
	}
}

func TestParseWeb(t *testing.T) {
	at := time.Date(2026, 11, 20, 17, 47, 7, 0, time.UTC)
	const ipxe = "iPXE/1.21.1+"
	tests := []struct {
		name, line string
		verdict    evidence.Verdict
		want       evidence.Fact
	}{
		{"common", `10.77.0.11 - - [20/Nov/2026:17:47:07 +0000] "GET /vmlinuz HTTP/1.1" 200 14186432`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Kernel, IP: ip("10.77.0.11"), File: "/vmlinuz", Status: 200, Bytes: 14186432}},
		{"combined, offset", `10.77.0.11 - - [20/Nov/2026:12:47:07 -0500] "GET /boot.ipxe HTTP/1.1" 200 169 "-" "` + ipxe + `"`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.BootScript, IP: ip("10.77.0.11"), File: "/boot.ipxe", Status: 200, Bytes: 169, UserAgent: ipxe}},
		{"virtual host", `frontend:80 10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 200 203 "-" "x"`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Answer, IP: ip("10.78.0.2"), File: "/ks.cfg", Status: 200, Bytes: 203, UserAgent: "x"}},
		{"virtual host and client of IPv6", `[fd00:78::1]:80 fd00:78::2 - - [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 200 203`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Answer, IP: ip("fd00:78::2"), File: "/ks.cfg", Status: 200, Bytes: 203}},
		{"IPv4 in IPv6", `::ffff:10.77.0.11 - - [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 200 203`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Answer, IP: ip("10.77.0.11"), File: "/ks.cfg", Status: 200, Bytes: 203}},
		{"user with a blank", `10.77.0.11 - joe doe [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 200 203`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Answer, IP: ip("10.77.0.11"), File: "/ks.cfg", Status: 200, Bytes: 203}},
		{"client by name", `n7.cluster - - [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 200 203`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Answer, Host: "n7.cluster", File: "/ks.cfg", Status: 200, Bytes: 203}},
		{"escaped quotes", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "GET /a\"b.ks HTTP/1.0" 404 5 "http://x/\"q\"" "a\"b\\c"`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.NotFound, Stage: evidence.Answer, IP: ip("10.78.0.2"), File: `/a"b.ks`, Status: 404, Bytes: 5, UserAgent: `a"b\c`, Reason: "HTTP 404"}},
		{"nginx's escapes", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "GET /a\x22b.ks HTTP/1.0" 404 5 "-" "x\x1B[31m\xFF"`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.NotFound, Stage: evidence.Answer, IP: ip("10.78.0.2"), File: `/a"b.ks`, Status: 404, Bytes: 5, UserAgent: "x\x1b[31m\xff", Reason: "HTTP 404"}},
		{"MAC in the path", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /boot/52%3A54%3A00%3a77%3A00%3A01 HTTP/1.1" 200 -`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.BootScript, IP: ip("10.0.2.15"), MAC: m1, File: "/boot/" + m1, Status: 200}},
		{"MAC in the query", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /boot.php?mac=52-54-00-77-00-01&x=1 HTTP/1.1" 200 9`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.BootScript, IP: ip("10.0.2.15"), MAC: m1, File: "/boot.php", Status: 200, Bytes: 9}},
		{"forbidden", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /secret.ks HTTP/1.1" 403 9`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Forbidden, Stage: evidence.Answer, IP: ip("10.0.2.15"), File: "/secret.ks", Status: 403, Bytes: 9, Reason: "HTTP 403"}},
		{"server error", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 502 9`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Refused, Stage: evidence.Answer, IP: ip("10.0.2.15"), File: "/ks.cfg", Status: 502, Bytes: 9, Reason: "HTTP 502"}},
		{"closed by the client", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /initrd.img HTTP/1.1" 499 9`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Aborted, Stage: evidence.Initrd, IP: ip("10.0.2.15"), File: "/initrd.img", Status: 499, Bytes: 9, Reason: "the client closed the connection"}},
		{"a wrong name asked for by a boot loader", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /bzImg HTTP/1.1" 404 9 "-" "` + ipxe + `"`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.NotFound, IP: ip("10.0.2.15"), File: "/bzImg", Status: 404, Bytes: 9, UserAgent: ipxe, Reason: "HTTP 404"}},
		{"without stamp", ` 346.625 127.0.0.1 "GET /files/dracut-agent.img HTTP/1.1" 200 ua="` + ipxe + `"`, evidence.Known,
			evidence.Fact{Kind: evidence.Initrd, IP: ip("127.0.0.1"), File: "/files/dracut-agent.img", Status: 200, UserAgent: ipxe}},
		{"by way of syslog", `Nov 20 17:47:08 web httpd[3]: 10.77.0.11 - - [20/Nov/2026:17:47:07 +0000] "GET /vmlinuz HTTP/1.1" 200 14186432`, evidence.Known,
			evidence.Fact{Time: at, Kind: evidence.Kernel, IP: ip("10.77.0.11"), File: "/vmlinuz", Status: 200, Bytes: 14186432, Sender: "web"}},
		{"HEAD", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "HEAD /vmlinuz HTTP/1.1" 200 0`, evidence.Ignored, evidence.Fact{}},
		{"a package", `10.0.2.15 - - [20/Nov/2026:17:47:07 +0000] "GET /el9/kernel-5.14.rpm HTTP/1.1" 200 1`, evidence.Ignored, evidence.Fact{}},
		{"TLS to the plain port", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "\x16\x03\x01\x02\"\\ \xff" 400 448 "-" "-"`, evidence.Ignored, evidence.Fact{}},
		{"no request", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "-" 408 - "-" "-"`, evidence.Ignored, evidence.Fact{}},
		{"quote never closed", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "GET /vmlinuz`, evidence.Broken, evidence.Fact{}},
		{"status cut", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "GET /vmlinuz HTTP/1.1" 2`, evidence.Broken, evidence.Fact{}},
		{"size is no number", `10.78.0.2 - - [20/Nov/2026:17:47:07 +0000] "GET /vmlinuz HTTP/1.1" 200 12x`, evidence.Broken, evidence.Fact{}},

		{"nginx, not there", `2026/11/20 17:47:07 [error] 9923#9923: *3 open() "/srv/www/nope/vmlinuz" failed (2: No such file or directory), client: 10.78.0.2, server: _, request: "GET /nope/vmlinuz HTTP/1.1", host: "10.78.0.1"`,
			evidence.Known, evidence.Fact{Time: at, Program: "nginx", Kind: evidence.NotFound, Stage: evidence.Kernel, IP: ip("10.78.0.2"), File: "/nope/vmlinuz", Reason: "the file is not there: /srv/www/nope/vmlinuz"}},
		{"nginx, mode", `2026/11/20 17:47:07 [error] 9923#9923: *4 open() "/srv/www/secret.ks" failed (13: Permission denied), client: fd00:78::2, server: _, request: "GET /secret.ks HTTP/1.1", host: "[fd00:78::1]"`,
			evidence.Known, evidence.Fact{Time: at, Program: "nginx", Kind: evidence.Forbidden, Stage: evidence.Answer, IP: ip("fd00:78::2"), File: "/secret.ks",
				Reason: "the web server's user may not read the file or search its directory: /srv/www/secret.ks"}},
		{"nginx, rule", `2026/11/20 17:47:07 [error] 9923#9923: *6 access forbidden by rule, client: 10.78.0.2, server: _, request: "GET /denied/ks.cfg HTTP/1.1", host: "10.78.0.1"`,
			evidence.Known, evidence.Fact{Time: at, Program: "nginx", Kind: evidence.Forbidden, Stage: evidence.Answer, IP: ip("10.78.0.2"), File: "/denied/ks.cfg", Reason: "access forbidden by rule"}},
		{"nginx about itself", `2026/11/20 17:46:47 [notice] 14763#14763: nginx/1.22.1`, evidence.Ignored, evidence.Fact{}},
		{"Apache, not there", `[Fri Nov 20 17:47:07.500000 2026] [core:info] [pid 9926:tid 9955] [client 10.78.0.2:41874] AH00128: File does not exist: /srv/www/nope/vmlinuz`, evidence.Known,
			evidence.Fact{Time: at.Add(time.Second / 2), Program: "apache", Kind: evidence.NotFound, Stage: evidence.Kernel, IP: ip("10.78.0.2"), File: "/srv/www/nope/vmlinuz", Reason: "the file is not there"}},
		{"Apache, mode", `[Fri Nov 20 17:47:07.000000 2026] [core:error] [pid 1:tid 2] (13)Permission denied: [client fd00:78::2:58860] AH00132: file permissions deny server access: /srv/www/secret.ks`, evidence.Known,
			evidence.Fact{Time: at, Program: "apache", Kind: evidence.Forbidden, Stage: evidence.Answer, IP: ip("fd00:78::2"), File: "/srv/www/secret.ks", Reason: "the web server's user may not read the file"}},
		{"Apache, directory", `[Fri Nov 20 17:47:07.000000 2026] [core:error] [pid 1:tid 2] (13)Permission denied: [client 10.78.0.2:1] AH00035: access to /shut/ks.cfg denied (filesystem path '/srv/www/shut/ks.cfg') because search permissions are missing on a component of the path`,
			evidence.Known, evidence.Fact{Time: at, Program: "apache", Kind: evidence.Forbidden, Stage: evidence.Answer, IP: ip("10.78.0.2"), File: "/shut/ks.cfg", Reason: "the web server's user may not search the directory"}},
		{"Apache 2.2", `[Fri Nov 20 17:47:07 2026] [error] [client 10.78.0.2] File does not exist: /srv/www/ks.cfg, referer: http://x/`, evidence.Known,
			evidence.Fact{Time: at, Program: "apache", Kind: evidence.NotFound, Stage: evidence.Answer, IP: ip("10.78.0.2"), File: "/srv/www/ks.cfg", Reason: "the file is not there"}},
		{"Apache about itself", `[Fri Nov 20 17:48:37.073924 2026] [mpm_event:notice] [pid 16484:tid 16484] AH00489: Apache/2.4.71 (Debian) configured`, evidence.Ignored, evidence.Fact{}},
	}
	for _, tt := range tests {
		got, v := parser().Parse([]byte(tt.line))
		if v != tt.verdict {
			t.Errorf("%s: Parse(%q) = %v, want %v", tt.name, tt.line, v, tt.verdict)
			continue
		}
		if v != evidence.Known {
			continue
		}
		if tt.want.Program == "" {
			tt.want.Program = "http"
		}
		if tt.want.Stage == "" && tt.want.Kind.Stage() {
			tt.want.Stage = tt.want.Kind
		}
		got.Time = got.Time.UTC()
		if d := cmp.Diff(tt.want, got, comparable); d != "" {
			t.Errorf("%s, -want +got:\n%s", tt.name, d)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		line string
		want evidence.Verdict
	}{
		{"", evidence.Ignored},
		{"Nov 20 17:46:51 front sshd[1]: Accepted publickey for root", evidence.Ignored},
		{"Nov 20 17:46:51 front log-output:", evidence.Ignored},
		{"Nov 20 17:46:51 front dhcpd[1]: Wrote 0 leases to leases file.", evidence.Ignored},
		{"Nov 20 17:46:51 front dhcpd[1]: something that no release has said yet", evidence.Unknown},
		{"Nov 20 17:46:51 front dhcpd[1]: DHCPINFORM from 10.78.0.101 via vs", evidence.Ignored},
		{"Nov 20 17:46:51 front dhcpd[1]: DHCPACK to 10.78.0.101 (" + m1 + ") via vs", evidence.Ignored},
		{"Nov 20 17:46:51 front dhcpd[1]: DHCPACK on 10.78.0", evidence.Broken},
		{"Nov 20 17:46:51 front dnsmasq-dhcp[1]: DHCPDISCOVER(ib0) <null>", evidence.Ignored},
		{"Nov 20 17:46:51 front in.tftpd[1]: Client ??? finished pxelinux.0", evidence.Broken},
		{"Nov 20 17:46:51 front in.tftpd[1]: Client 10.0.0.1 finished notes.txt", evidence.Ignored},
		{"Nov 20 17:46:51 front in.tftpd[1]: Client 10.0.0.1 said something else", evidence.Unknown},
		{"Nov 20 17:46:51 front dnsmasq[1]: started, version 2.90", evidence.Ignored},
		{`{"MESSAGE":"dnsmasq-dhcp[5]: DHCPDISCOVER(br0) ` + m1 + `","SYSLOG_IDENTIFIER":"dnsmasq","__REALTIME_TIMESTAMP":"1795196811123000"}`, evidence.Known},
		{`{"MESSAGE":"Nov 20 17:46:51 dnsmasq-tftp[5]: sent /srv/tftp/vmlinuz to 10.0.0.1","SYSLOG_IDENTIFIER":"dnsmasq","__REALTIME_TIMESTAMP":"1795196811123000"}`, evidence.Known},
		{`{"MESSAGE":"dnsmasq: dnsmasq: dnsmasq-x: y","SYSLOG_IDENTIFIER":"dnsmasq","__REALTIME_TIMESTAMP":"1795196811123000"}`, evidence.Ignored},
		{"Nov 20 17:46:51 front dhcpd[1]: DHCPACK on 10.78.0.101 to 52:54:00:77", evidence.Broken},
		{"Nov 20 17:46:51 front dhcpd[1]: DHCPACK on 10.78.0.101 to " + m1, evidence.Broken},
		{"Nov 20 17:46:51 front dnsmasq-dhcp[1]: DHCPACK(br0) 10.78.0.101 52:54", evidence.Broken},
		{"Nov 20 17:46:51 front dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.78.", evidence.Broken},
		{"2026-11-20 19:21:55.916 INFO  [kea-dhcp4.leases/1.2] DHCP4_LEASE_ALLOC [hwtype=1 52:54", evidence.Broken},
		{"2026-11-20 19:21:55.916 INFO  [kea-dhcp4.dhcp4/1.2] DHCP4_STARTED Kea DHCPv4 server version 2.2.0 started", evidence.Ignored},
		{`{"MESSAGE":"DHCPACK on 10`, evidence.Broken},
		{`{"name":"init-local","event_type":"start"}`, evidence.Unknown},
		{"<999>Nov 20 17:46:51 front dhcpd[1]: x", evidence.Unknown},
		{"<30>1 2026-11-20T17:46:51Z front dhcpd", evidence.Broken},
		{"\x00\x00\x00\x00Nov 20 17:46:51 front dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0", evidence.Broken},
		{"Feb 30 17:46:51 front dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0", evidence.Unknown},
		{"Nov 20 25:46:51 front dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0", evidence.Unknown},
		{"hello", evidence.Unknown},
		{strings.Repeat("x", evidence.MaxLine+1), evidence.Broken},
	} {
		if _, got := parser().Parse([]byte(tt.line)); got != tt.want {
			t.Errorf("Parse(%.80q) = %v, want %v", tt.line, got, tt.want)
		}
	}
}

func TestStageOf(t *testing.T) {
	for _, tt := range []struct {
		file   string
		loader bool
		want   evidence.Kind
	}{
		{"vmlinuz", true, evidence.Kernel}, {"/images/el9/vmlinuz", true, evidence.Kernel}, {"/debian-installer/amd64/linux", true, evidence.Kernel}, {"bzImage", true, evidence.Kernel},
		{"vmlinuz.efi", true, evidence.Kernel}, {"/casper/vmlinuz-6.8", false, evidence.Kernel},
		{"initrd.img", true, evidence.Initrd}, {"/initrd.gz", false, evidence.Initrd}, {"initramfs-5.14.img", true, evidence.Initrd}, {"mini.img", true, evidence.Initrd}, {"/images/overlay", true, evidence.Initrd},
		{"mini.img", false, evidence.Image}, {"/LiveOS/squashfs.img", true, evidence.Image}, {"/images/install.img", false, evidence.Image}, {"/ubuntu.iso", false, evidence.Image}, {"/rootimg.cpio.gz", true, evidence.Image},
		{"pxelinux.0", true, evidence.BootLoader}, {"undionly.kpxe", true, evidence.BootLoader}, {"/EFI/BOOT/BOOTX64.EFI", true, evidence.BootLoader}, {`\boot\x64\wdsnbp.com`, true, evidence.BootLoader},
		{"grubx64.efi", true, evidence.BootLoader}, {"ldlinux.c32", true, evidence.BootLoader}, {"snponly.efi", true, evidence.BootLoader},
		{"pxelinux.cfg/default", true, evidence.BootScript}, {"/grub/grub.cfg-01-52-54-00-77-00-01", true, evidence.BootScript}, {"/boot.ipxe", true, evidence.BootScript}, {"/boot/" + m1, true, evidence.BootScript},
		{"/cblr/svc/op/ipxe/system/n1", true, evidence.BootScript},
		{"/boot/answer/01J/abc/ks.cfg", false, evidence.Answer}, {"/ks.cfg", false, evidence.Answer}, {"/preseed.cfg", false, evidence.Answer}, {"/install/autoinst/n1", false, evidence.Answer}, {"/autoinst.xml", false, evidence.Answer},
		{"/nocloud/user-data", false, evidence.Answer}, {"/cblr/svc/op/ks/system/n1", false, evidence.Answer}, {"/install/sbin/profile.cgi", false, evidence.Answer},
		{"/sles12/boot/x86_64/config", false, evidence.SLESConfig}, {"/sles12/boot/x86_64/common", false, evidence.SLESCommon}, {"/sles12/boot/x86_64/root", false, evidence.SLESRoot},
		{"/sles12/boot/x86_64/cracklib-dict-full.rpm", false, evidence.SLESCracklib}, {"/sles12/boot/x86_64/bind", false, evidence.SLESBind}, {"/sles12/boot/x86_64/sles12.img", false, evidence.SLESImage},
		{"/sles12/boot/x86_64/loader/linux", true, evidence.Kernel}, {"/sles12/boot/x86_64/loader/initrd", true, evidence.Initrd}, {"/home/config", false, ""},
		{"/el9/Packages/kernel-5.14.rpm", false, ""}, {"/index.html", true, ""}, {"/v1/status", false, ""}, {"", true, ""},
	} {
		if got := evidence.StageOf(tt.file, tt.loader); got != tt.want {
			t.Errorf("StageOf(%q, %v) = %q, want %q", tt.file, tt.loader, got, tt.want)
		}
	}
	for file, want := range map[string]bool{"pxelinux.cfg/01-52-54-00-77-00-01": true, "/autoexec.ipxe": true, "/images/updates.img": true, "vmlinuz": false, "/ks.cfg": false} {
		if got := evidence.Optional(file); got != want {
			t.Errorf("Optional(%q) = %v, want %v", file, got, want)
		}
	}
}
