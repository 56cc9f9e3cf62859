// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"net/netip"
	"strings"
	"testing"

	"provost/collector/internal/evidence"
)

// linux is a UUID as Linux and iPXE write it, wire the same as PXE firmware sends it and PXELINUX asks for it.
const (
	linux = "4c4c4544-0044-3010-8052-b4c04f373632"
	wire  = "44454c4c-4400-1030-8052-b4c04f373632"
)

func TestOtherOrder(t *testing.T) {
	for in, want := range map[string]string{linux: wire, wire: linux, strings.ToUpper(linux): wire, "": "", "x": "", linux + "0": "", strings.Replace(linux, "-", "_", 1): ""} {
		if got := evidence.OtherOrder(in); got != want {
			t.Errorf("OtherOrder(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestNamedByTheRequest has the lines that name a machine otherwise than by its address: in each group all are of one log, in
// order, and what the last one says is looked at.
func TestNamedByTheRequest(t *testing.T) {
	const h = "Nov 20 17:46:51 front "
	resolver := inventory{macs: map[string]string{m1: "n1"}, ips: map[string]string{"10.0.0.7": "n7", "192.168.2.91": "n91"},
		uuids: map[string]string{linux: "n5", wire: "n5"}, hosts: map[string]string{"n2": "n2"}}
	duid := "ff:12:34:56:78:00:04:" + "44:45:4c:4c:44:00:10:30:80:52:b4:c0:4f:37:36:32"
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"PXELINUX by UUID, dnsmasq", []string{h + "dnsmasq-tftp[812]: file /srv/tftp/pxelinux.cfg/" + wire + " not found for 10.0.0.5"}, "n5"},
		{"PXELINUX by UUID, an older dnsmasq without the address", []string{h + "dnsmasq-tftp[812]: file /var/lib/tftpboot/pxelinux.cfg/" + wire + " not found"}, "n5"},
		{"PXELINUX by UUID, tftpd-hpa", []string{h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/" + wire}, "n5"},
		{"PXELINUX by UUID, atftpd", []string{h + "atftpd[99]: Serving pxelinux.cfg/" + wire + " to 10.0.0.5:2070"}, "n5"},
		{"what comes from that address after it", []string{h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/" + wire, h + "in.tftpd[4244]: RRQ from 10.0.0.5 filename el9/vmlinuz"}, "n5"},
		{"with the lease of a card that is not listed before it", []string{h + "dhcpd[7]: DHCPACK on 10.0.0.5 to " + m3 + " via eth1", h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/" + wire,
			h + "in.tftpd[4244]: RRQ from 10.0.0.5 filename el9/vmlinuz"}, "n5"},
		{"and the lease renewed", []string{h + "dhcpd[7]: DHCPACK on 10.0.0.5 to " + m3 + " via eth1", h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/" + wire,
			h + "dhcpd[7]: DHCPACK on 10.0.0.5 to " + m3 + " via eth1"}, "n5"},
		{"the address goes to another machine", []string{h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/" + wire, h + "dhcpd[7]: DHCPACK on 10.0.0.5 to " + m1 + " via eth1",
			h + "in.tftpd[4244]: RRQ from 10.0.0.5 filename el9/vmlinuz"}, "n1"},
		{"a UUID that nobody has, and a lease", []string{h + "dhcpd[7]: DHCPACK on 10.0.0.5 to " + m1 + " via eth1", h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/564d0000-0000-0000-0000-000000000001"}, "n1"},
		{"a UUID that nobody has", []string{h + "in.tftpd[4242]: RRQ from 10.0.0.5 filename pxelinux.cfg/564d0000-0000-0000-0000-000000000001"}, ""},
		{"PXELINUX by MAC, of an address that nobody knows", []string{h + "in.tftpd[4242]: RRQ from 10.0.0.99 filename pxelinux.cfg/01-" + strings.ReplaceAll(m1, ":", "-")}, "n1"},
		{"GRUB by MAC", []string{h + "dnsmasq-tftp[812]: sent /srv/tftp/grub/grub.cfg-01-" + strings.ReplaceAll(m1, ":", "-") + " to 10.0.0.99"}, "n1"},
		{"GRUB by UUID", []string{h + "dnsmasq-tftp[812]: file /srv/tftp/grub2/grub.cfg-" + wire + " not found for 10.0.0.5"}, "n5"},
		{"PXELINUX by address, without another one in the line", []string{h + "dnsmasq-tftp[812]: file /srv/tftp/pxelinux.cfg/C0A8025B not found"}, "n91"},
		{"the same of a lease", []string{h + "dhcpd[7]: DHCPACK on 192.168.2.92 to " + m1 + " via eth1", h + "dnsmasq-tftp[812]: file /srv/tftp/pxelinux.cfg/C0A8025C not found"}, "n1"},
		{"by way of a proxy", []string{`127.0.0.1 - - [20/Nov/2026:17:46:51 +0000] "GET /pxelinux.cfg/C0A8025B HTTP/1.0" 200 310 "-" "Syslinux/6.03"`}, "n91"},
		{"part of an address is many machines'", []string{h + "dnsmasq-tftp[812]: file /srv/tftp/pxelinux.cfg/C0A8025 not found"}, ""},
		{"a file of eight digits is no address", []string{h + "dnsmasq-tftp[812]: file /srv/tftp/images/C0A8025B/vmlinuz not found"}, ""},
		{"iPXE in a field of the query", []string{`10.0.0.5 - - [20/Nov/2026:17:46:51 +0000] "GET /boot.ipxe?uuid=` + linux + `&asset= HTTP/1.1" 200 310 "-" "iPXE/1.21.1+"`}, "n5"},
		{"the same behind others, in capitals", []string{`10.0.0.5 - - [20/Nov/2026:17:46:51 +0000] "GET /boot.php?serial=x%20y&uuid=` + strings.ToUpper(linux) + ` HTTP/1.1" 200 310 "-" "iPXE/1.21.1+"`}, "n5"},
		{"Matchbox, at a path that is known by the field", []string{`10.0.0.5 - - [20/Nov/2026:17:46:51 +0000] "GET /boot?uuid=` + linux + ` HTTP/1.1" 200 310 "-" "iPXE/1.21.1+"`}, "n5"},
		{"a UUID that is a token", []string{`10.0.0.5 - - [20/Nov/2026:17:46:51 +0000] "GET /unattended/provision?token=` + linux + ` HTTP/1.1" 200 310 "-" "anaconda"`}, ""},
		{"PXE firmware's client id, Kea", []string{h + "kea-dhcp4[9]: INFO  [kea-dhcp4.leases.140123] DHCP4_LEASE_ALLOC [hwtype=1 " + m3 + "], cid=[00:44:45:4c:4c:44:00:10:30:80:52:b4:c0:4f:37:36:32], tid=0x1: lease 10.0.0.5 has been allocated for 600 seconds"}, "n5"},
		{"a DUID of type 4, Kea", []string{h + "kea-dhcp4[9]: INFO  [kea-dhcp4.leases.140123] DHCP4_LEASE_ALLOC [hwtype=1 " + m3 + "], cid=[" + duid + "], tid=0x1: lease 10.0.0.5 has been allocated for 600 seconds"}, "n5"},
		{"a listed MAC goes before the client id", []string{h + "kea-dhcp4[9]: INFO  [kea-dhcp4.leases.140123] DHCP4_LEASE_ALLOC [hwtype=1 " + m1 + "], cid=[" + duid + "], tid=0x1: lease 10.0.0.5 has been allocated for 600 seconds"}, "n1"},
		{"InfiniBand, which has no MAC, and what comes after it", []string{h + "kea-dhcp4[9]: INFO  [kea-dhcp4.leases.140123] DHCP4_LEASE_ALLOC [hwtype=32 ], cid=[" + duid + "], tid=0x1: lease 10.0.0.5 has been allocated for 600 seconds",
			h + "in.tftpd[4244]: RRQ from 10.0.0.5 filename el9/vmlinuz"}, "n5"},
	} {
		m, p := evidence.NewMapper(resolver), parser()
		got := "no line is known"
		for _, l := range tt.lines {
			f, v := p.Parse([]byte(l))
			if v != evidence.Known {
				t.Errorf("%s: %q is %v, want known", tt.name, l, v)
				continue
			}
			got = m.Map(&f).Name
			// As after a restart: what was learnt is kept.
			again := evidence.NewMapper(resolver)
			for _, a := range []string{"10.0.0.5", "10.0.0.99", "192.168.2.92"} {
				ip := netip.MustParseAddr(a)
				if h := m.Changed()[ip]; h != nil {
					again.Restore(ip, h)
				}
			}
			if now := again.NodeAt(f.IP, f.Time); f.IP.IsValid() && f.IP.String() != "127.0.0.1" && now != m.NodeAt(f.IP, f.Time) {
				t.Errorf("%s: after a restart %s is %q, want %q", tt.name, f.IP, now, m.NodeAt(f.IP, f.Time))
			}
		}
		if got != tt.want {
			t.Errorf("%s: the node is %q, want %q", tt.name, got, tt.want)
		}
	}
}
