// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"provost/collector/internal/evidence"
)

const (
	m2 = "52:54:00:77:00:02"
	m3 = "52:54:00:77:00:03"
)

type inventory struct{ macs, hosts, ips, uuids map[string]string }

func (v inventory) ByMAC(m string) string    { return v.macs[m] }
func (v inventory) ByUUID(u string) string   { return v.uuids[u] }
func (v inventory) ByHost(h string) string   { return v.hosts[h] }
func (v inventory) ByIP(a netip.Addr) string { return v.ips[a.String()] }
func at(s int) time.Time                     { return reference.Add(time.Duration(s) * time.Second) }
func ack(s int, m, a string) *evidence.Fact {
	return &evidence.Fact{Time: at(s), Program: "dhcpd", Kind: evidence.Ack, MAC: m, IP: ip(a)}
}
func fetch(s int, a string) *evidence.Fact {
	return &evidence.Fact{Time: at(s), Program: "http", Kind: evidence.Kernel, IP: ip(a)}
}
func script(s int, m, a string) *evidence.Fact {
	return &evidence.Fact{Time: at(s), Program: "http", Kind: evidence.BootScript, MAC: m, IP: ip(a)}
}

func TestMapper(t *testing.T) {
	m := evidence.NewMapper(nil)
	for _, tt := range []struct {
		name string
		f    *evidence.Fact
		want string
	}{
		{"an address that nobody has", fetch(0, "10.0.0.9"), "10.0.0.9"},
		{"lease of the first", ack(10, m1, "10.0.0.5"), m1},
		{"stamped a second before its lease, by another machine", fetch(9, "10.0.0.5"), m1},
		{"long before", fetch(-100, "10.0.0.5"), "10.0.0.5"},
		{"after it", fetch(20, "10.0.0.5"), m1},
		{"the address goes to the second", ack(100, m2, "10.0.0.5"), m2},
		{"after that", fetch(101, "10.0.0.5"), m2},
		{"a late line from before", fetch(99, "10.0.0.5"), m1},
		{"and back", ack(200, m1, "10.0.0.5"), m1},
		{"between the two", fetch(150, "10.0.0.5"), m2},
		{"at last", fetch(1000, "10.0.0.5"), m1},
		{"an offer of the address is no lease", &evidence.Fact{Time: at(1001), Program: "dhcpd", Kind: evidence.Offer, MAC: m3, IP: ip("10.0.0.5")}, m3},
		{"after the offer", fetch(1002, "10.0.0.5"), m1},
		{"the MAC in a request does not beat a lease", script(1003, m3, "10.0.0.5"), m3},
		{"after that request", fetch(1004, "10.0.0.5"), m1},
		{"the MAC in a request where there is no lease", script(1005, m3, "10.0.0.8"), m3},
		{"after that", fetch(1006, "10.0.0.8"), m3},
		{"behind the same address another one, long after", script(3000, m2, "10.0.0.8"), m2},
		{"after that one", fetch(3001, "10.0.0.8"), m2},
		{"and soon the first again: it is a proxy", script(3100, m3, "10.0.0.8"), m3},
		{"whose request is that?", fetch(3101, "10.0.0.8"), "10.0.0.8"},
		{"one before it was known", fetch(3050, "10.0.0.8"), m2},
		{"it stays one while several ask", script(6000, m2, "10.0.0.8"), m2},
		{"still", fetch(6001, "10.0.0.8"), "10.0.0.8"},
		{"one alone", script(9599, m2, "10.0.0.8"), m2},
		{"not for long enough", fetch(9599, "10.0.0.8"), "10.0.0.8"},
		{"for an hour", script(9601, m2, "10.0.0.8"), m2},
		{"so it is that one's", fetch(9602, "10.0.0.8"), m2},
		{"two at once behind it", script(9700, m3, "10.0.0.8"), m3},
		{"so it is shared again", fetch(9701, "10.0.0.8"), "10.0.0.8"},
		{"a server says whose it is", ack(9702, m1, "10.0.0.8"), m1},
		{"and that counts", fetch(9703, "10.0.0.8"), m1},
		{"by UUID, then by MAC, as PXELINUX asks", &evidence.Fact{Time: at(9800), Program: "http", Kind: evidence.BootScript, UUID: "4c4c4544-0044-4a10-8059-b8c04f4d5a32", IP: ip("10.0.0.10")}, "10.0.0.10"},
		{"the second name", script(9801, m2, "10.0.0.10"), m2},
		{"is the same machine's", fetch(9802, "10.0.0.10"), m2},
		{"this machine's own proxy", script(9803, m3, "127.0.0.1"), m3},
		{"does not say who asks", fetch(9804, "127.0.0.1"), "127.0.0.1"},
		{"Infiniband", &evidence.Fact{Kind: evidence.Ack, Time: at(9805), Program: "dhcpd", IP: ip("10.0.0.12"), ClientID: "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:2b:31"}, "00:02:c9:03:00:0a:2b:31"},
		{"and after its lease", fetch(9806, "10.0.0.12"), "00:02:c9:03:00:0a:2b:31"},
		{"by client id", &evidence.Fact{Kind: evidence.Discover, Program: "kea-dhcp4", ClientID: "01:52:54:00:77:00:03"}, m3},
		{"a client id of another kind", &evidence.Fact{Kind: evidence.Discover, Program: "kea-dhcp4", ClientID: "ff:01:02"}, ""},
		{"no time at all is now", &evidence.Fact{Program: "http", Kind: evidence.Kernel, IP: ip("10.0.0.5")}, m1},
	} {
		if got := m.Map(tt.f).Key(); got != tt.want {
			t.Errorf("%s: Map(%+v) = %q, want %q", tt.name, *tt.f, got, tt.want)
		}
	}
}

func TestMapperInventory(t *testing.T) {
	m := evidence.NewMapper(inventory{macs: map[string]string{m1: "n1"}, hosts: map[string]string{"n2": "n2"}, ips: map[string]string{"10.0.0.7": "n7"}})
	for _, tt := range []struct {
		name string
		f    *evidence.Fact
		want string
	}{
		{"MAC", ack(0, m1, "10.0.0.5"), "n1"},
		{"lease", fetch(1, "10.0.0.5"), "n1"},
		{"host name with its domain", &evidence.Fact{Kind: evidence.Ack, Program: "dhcpd", MAC: m2, IP: ip("10.0.0.6"), Host: "n2.cluster"}, "n2"},
		{"fixed address", fetch(2, "10.0.0.7"), "n7"},
		{"the lease beats the fixed address", ack(3, m3, "10.0.0.7"), m3},
		{"and after it", fetch(4, "10.0.0.7"), m3},
	} {
		if got := m.Map(tt.f).Key(); got != tt.want {
			t.Errorf("%s: Map = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestMapperBounded(t *testing.T) {
	m := evidence.NewMapper(nil)
	for i := range 200_000 {
		m.Map(ack(i, fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16&255, i>>8&255, i&255), fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)))
	}
	if got := m.Map(fetch(300_000, "10.0.0.1")).Key(); got != "10.0.0.1" {
		t.Errorf("the first lease of 200,000 is still held: %q", got)
	}
	if got := m.Map(fetch(300_000, "10.3.13.63")).Key(); got != "52:54:00:03:0d:3f" {
		t.Errorf("the last lease is lost: %q", got)
	}
}

func TestJoiner(t *testing.T) {
	type out struct {
		kind     evidence.Kind
		file, ip string
		retracts bool
	}
	const h = "Nov 20 17:46:51 front "
	for _, tt := range []struct {
		name  string
		lines []string
		want  []out
	}{
		{"tftpd-hpa, not found", []string{h + "in.tftpd[5]: RRQ from 10.0.0.5 filename nope/vmlinuz", h + "in.tftpd[6]: RRQ from 10.0.0.6 filename vmlinuz", h + "in.tftpd[5]: sending NAK (1, File not found) to 10.0.0.5"},
			[]out{{evidence.Kernel, "nope/vmlinuz", "10.0.0.5", false}, {evidence.Kernel, "vmlinuz", "10.0.0.6", false}, {evidence.NotFound, "nope/vmlinuz", "10.0.0.5", true}}},
		{"tftpd-hpa, a file of no stage", []string{h + "in.tftpd[5]: RRQ from 10.0.0.5 filename noread", h + "in.tftpd[5]: sending NAK (0, Permission denied) to 10.0.0.5"},
			[]out{{evidence.Forbidden, "noread", "10.0.0.5", false}}},
		{"tftpd-hpa of Red Hat with -v", []string{h + "in.tftpd[5]: RRQ from 10.0.0.5 filename vmlinuz", h + "in.tftpd[6]: RRQ from 10.0.0.6 filename nope/vmlinuz", h + "in.tftpd[5]: Client 10.0.0.5 finished vmlinuz", h + "in.tftpd[6]: Client 10.0.0.6 File not found nope/vmlinuz"},
			[]out{{evidence.Kernel, "vmlinuz", "10.0.0.5", false}, {evidence.Kernel, "nope/vmlinuz", "10.0.0.6", false}, {evidence.Kernel, "vmlinuz", "10.0.0.5", true}, {evidence.NotFound, "nope/vmlinuz", "10.0.0.6", true}}},
		{"tftpd-hpa, the size is asked for first", []string{h + "in.tftpd[5]: RRQ from 10.0.0.5 filename pxelinux.0", h + "in.tftpd[5]: tftp: client does not accept options"},
			[]out{{evidence.BootLoader, "pxelinux.0", "10.0.0.5", false}, {evidence.Aborted, "pxelinux.0", "10.0.0.5", true}}},
		{"atftpd", []string{h + "atftpd[1]: Serving pxelinux.0 to 10.0.0.5:1", h + "atftpd[1]: Serving nope/vmlinuz to 10.0.0.6:2", h + "atftpd[1]: File /srv/tftp/nope/vmlinuz not found", h + "atftpd[1]: End of transfer", h + "atftpd[1]: Aborting transfer"},
			[]out{{evidence.BootLoader, "pxelinux.0", "10.0.0.5", false}, {evidence.Kernel, "nope/vmlinuz", "10.0.0.6", false}, {evidence.NotFound, "nope/vmlinuz", "10.0.0.6", true}}},
		{"dnsmasq writes sent after a transfer that was given up", []string{h + "dnsmasq-tftp[1]: error 0 TFTP Aborted received from 10.0.0.5", h + "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5", h + "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5"},
			[]out{{evidence.Aborted, "/srv/tftp/pxelinux.0", "10.0.0.5", false}, {evidence.BootLoader, "/srv/tftp/pxelinux.0", "10.0.0.5", false}}},
		{"options", []string{h + "dnsmasq-dhcp[1]: 77 vendor class: PXEClient:Arch:00007", h + "dnsmasq-dhcp[1]: 77 DHCPDISCOVER(br0) " + m1 + " "}, []out{{evidence.Discover, "", "invalid IP", false}}},
	} {
		j := evidence.NewJoiner()
		var got []out
		var last evidence.Fact
		for _, l := range tt.lines {
			f, v := parser().Parse([]byte(l))
			if v != evidence.Known {
				t.Errorf("%s: %q is %v", tt.name, l, v)
			}
			if f, ok := j.Add(f); ok {
				got = append(got, out{f.Kind, f.File, f.IP.String(), f.Retracts})
				last = f
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s:\n got %v\nwant %v", tt.name, got, tt.want)
		}
		if tr, ok := j.Transaction(last); tt.name == "options" && (!ok || tr.VendorClass != "PXEClient:Arch:00007") {
			t.Errorf("Transaction = %+v, %v", tr, ok)
		}
	}
}
