// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"provost/collector/internal/evidence"
)

// probe writes logs and probes them. Their lines get the stamp of the second that stands in front of them.
func probe(t *testing.T, logs ...string) *evidence.Report {
	t.Helper()
	return probeWith(t, evidence.ProbeOptions{Now: reference}, logs...)
}

func probeWith(t *testing.T, o evidence.ProbeOptions, logs ...string) *evidence.Report {
	t.Helper()
	dir := t.TempDir()
	var names []string
	for i, text := range logs {
		var b strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if s, rest, ok := strings.Cut(line, " "); ok {
				if n, err := strconv.Atoi(s); err == nil {
					when := reference.Add(time.Duration(n-7200) * time.Second)
					if strings.HasPrefix(rest, "GET ") { // GET PATH ADDRESS STATUS BYTES
						f := strings.Fields(rest)
						line = fmt.Sprintf(`%s - - [%s] "GET %s HTTP/1.1" %s %s "-" "iPXE/1.21"`, f[2], when.Format("02/Jan/2006:15:04:05 -0700"), f[1], f[3], f[4])
					} else {
						line = when.Format("Jan _2 15:04:05") + " front " + rest
					}
				}
			}
			b.WriteString(line + "\n")
		}
		name := filepath.Join(dir, fmt.Sprintf("log%d", i))
		write(t, name, b.String())
		names = append(names, name)
	}
	r, err := evidence.Probe(context.Background(), names, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dora is a whole DHCP exchange.
func dora(s int, m, a string) string {
	return fmt.Sprintf("%d dhcpd[1]: DHCPDISCOVER from %s via br0\n%d dhcpd[1]: DHCPOFFER on %s to %s via br0\n%d dhcpd[1]: DHCPREQUEST for %s (10.0.0.1) from %s via br0\n%d dhcpd[1]: DHCPACK on %s to %s via br0\n",
		s, m, s, a, m, s+1, a, m, s+1, a, m)
}

// bare is a boot by ISC dhcpd and tftpd-hpa in lines without stamps.
func bare(m, a string, files ...string) string {
	out := fmt.Sprintf("DHCPDISCOVER from %s via br0\nDHCPACK on %s to %s via br0\nin.tftpd[1]: RRQ from %s filename pxelinux.0\n", m, a, m, a)
	for i, f := range files {
		out += fmt.Sprintf("in.tftpd[%d]: RRQ from %s filename %s\n", i+2, a, f)
	}
	return out
}

// classed is a whole DHCP exchange with dnsmasq, which writes down the client's vendor class; firmware is told a boot file.
func classed(s int, m, a, class string) string {
	file := ""
	if strings.HasPrefix(class, "PXE") {
		file = fmt.Sprintf("%d dnsmasq-dhcp[1]: %d bootfile name: grubx64.efi\n", s, s)
	}
	return fmt.Sprintf("%d dnsmasq-dhcp[1]: %d vendor class: %s\n%d dnsmasq-dhcp[1]: %d DHCPDISCOVER(br0) %s \n%d dnsmasq-dhcp[1]: %d DHCPOFFER(br0) %s %s \n%s%d dnsmasq-dhcp[1]: %d DHCPREQUEST(br0) %s %s \n%d dnsmasq-dhcp[1]: %d DHCPACK(br0) %s %s \n",
		s, s, class, s, s, m, s, s, a, m, file, s, s, a, m, s, s, a, m)
}

const tftpIdle = "0 in.tftpd[1]: received signal, reloading\n"

// TestProbe has one node per story: where it stopped, what should have come, and the sentence.
func TestProbe(t *testing.T) {
	const web = "0 GET /nothing.html 10.9.9.9 200 5\n"
	for _, tt := range []struct {
		name        string
		dhcp, other string
		state       evidence.State
		stage, next evidence.Kind
		why         string // part of it
		cause       string // part of the first
	}{
		{"no offer", "0 dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0\n", web, evidence.Stopped, evidence.Discover, evidence.Offer, "gets no offer", "no free address"},
		{"told to ignore it", "0 dnsmasq-dhcp[1]: DHCPDISCOVER(br0) " + m1 + " ignored\n", web, evidence.Stopped, evidence.Discover, evidence.Offer, "gets no offer", "remarked: ignored"},
		{"no free leases", "0 dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0: network 10.0.0.0/24: no free leases\n", web, evidence.Stopped, evidence.Discover, evidence.Offer, "no address for it", "pool is used up"},
		{"wrong network", "0 dhcpd[1]: DHCPREQUEST for 192.168.9.9 from " + m1 + " via br0: wrong network.\n1 dhcpd[1]: DHCPNAK on 192.168.9.9 to " + m1 + " via br0\n", web, evidence.Stopped, evidence.Request, evidence.Ack, "refuses", "another network"},
		{"offer not taken", "0 dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0\n0 dhcpd[1]: DHCPOFFER on 10.0.0.5 to " + m1 + " via br0\n", web, evidence.Stopped, evidence.Offer, evidence.Request, "never asked for", "another DHCP server"},
		{"NAK", "0 dhcpd[1]: DHCPREQUEST for 10.0.0.5 from " + m1 + " via br0\n0 dhcpd[1]: DHCPNAK on 10.0.0.5 to " + m1 + " via br0\n", web, evidence.Stopped, evidence.Request, evidence.Ack, "refuses the address", "another network"},
		{"address in use", dora(0, m1, "10.0.0.5") + "3 dhcpd[1]: DHCPDECLINE of 10.0.0.5 from " + m1 + " via br0: abandoned\n", web, evidence.Stopped, evidence.Ack, evidence.Ack, "declined", "`arping 10.0.0.5` finds its MAC"},
		{"NAK, then well", "0 dhcpd[1]: DHCPNAK on 10.9.0.5 to " + m1 + " via br0\n" + dora(1, m1, "10.0.0.5"), web + "3 GET /vmlinuz 10.0.0.5 200 9\n3 GET /initrd.img 10.0.0.5 200 9\n", evidence.Arrived, evidence.Initrd, "", "", ""},
		{"lease and nothing", dora(0, m1, "10.0.0.5"), tftpIdle + web, evidence.Stopped, evidence.Ack, evidence.BootLoader, "lease given, no TFTP or HTTP request", "next-server"},
		{"lease and nothing, no log of TFTP or web", dora(0, m1, "10.0.0.5"), "", evidence.Leased, evidence.Ack, "", "", ""},
		{"lease and nothing, no log of the kind of server that it was sent to", classed(0, m1, "10.0.0.5", "PXEClient:Arch:00007"), web, evidence.Leased, evidence.Ack, "", "", ""},
		{"only renews", "0 dhcpd[1]: DHCPREQUEST for 10.0.0.5 from " + m1 + " via br0\n0 dhcpd[1]: DHCPACK on 10.0.0.5 to " + m1 + " via br0\n", web, evidence.Leased, evidence.Ack, "", "", ""},
		{"TFTP not found", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename pxelinx.0\n2 in.tftpd[5]: sending NAK (1, File not found) to 10.0.0.5\n", evidence.Stopped, evidence.Ack, evidence.BootLoader, "pxelinx.0 is not on the server", "compare the name"},
		{"TFTP not readable", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename pxelinux.0\n2 in.tftpd[5]: sending NAK (0, Permission denied) to 10.0.0.5\n", evidence.Stopped, evidence.Ack, evidence.BootLoader, "pxelinux.0 may not be read", "mode or owner"},
		{"loader and nothing", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename grubx64.efi\n3 in.tftpd[6]: sending NAK (1, File not found) to 10.0.0.77\n", evidence.Stopped, evidence.BootLoader, evidence.BootScript, "was sent and asked for nothing more", "architecture"},
		{"in.tftpd without -vv", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename grubx64.efi\n", evidence.Stopped, evidence.BootLoader, evidence.BootScript, "was asked for and asked for nothing more", "grubx64.efi was only asked for"},
		{"iPXE loads itself for ever", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename undionly.kpxe\n4 in.tftpd[6]: RRQ from 10.0.0.5 filename undionly.kpxe\n6 in.tftpd[7]: RRQ from 10.0.0.5 filename undionly.kpxe\n", evidence.Stopped, evidence.BootLoader, evidence.BootScript, "asked for nothing more", "given itself again"},
		{"no configuration of PXELINUX", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename pxelinux.0\n2 in.tftpd[6]: RRQ from 10.0.0.5 filename pxelinux.cfg/default\n2 in.tftpd[6]: sending NAK (1, File not found) to 10.0.0.5\n", evidence.Stopped, evidence.BootLoader, evidence.BootScript, "asked for nothing more", "the one configuration file that it looked for is not there: pxelinux.cfg/default"},
		{"no configuration of GRUB", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename grubx64.efi\n2 in.tftpd[6]: RRQ from 10.0.0.5 filename grub.cfg-01-52-54-00-77-00-01\n2 in.tftpd[6]: sending NAK (1, File not found) to 10.0.0.5\n" +
			"2 in.tftpd[7]: RRQ from 10.0.0.5 filename grub.cfg-0A000005\n2 in.tftpd[7]: sending NAK (1, File not found) to 10.0.0.5\n", evidence.Stopped, evidence.BootLoader, evidence.BootScript, "asked for nothing more", "none of the 2 configuration files that it looked for is there, the last was grub.cfg-0A000005"},
		{"no configuration of GRUB, down to the last", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename grubx64.efi\n2 in.tftpd[6]: RRQ from 10.0.0.5 filename grub.cfg-0A000005\n2 in.tftpd[6]: sending NAK (1, File not found) to 10.0.0.5\n" +
			"2 in.tftpd[7]: RRQ from 10.0.0.5 filename grub.cfg\n2 in.tftpd[7]: sending NAK (1, File not found) to 10.0.0.5\n", evidence.Stopped, evidence.BootLoader, evidence.BootScript, "grub.cfg is not on the server", "compare the name"},
		{"the usual search of PXELINUX", dora(0, m1, "10.0.0.5"), "2 in.tftpd[5]: RRQ from 10.0.0.5 filename pxelinux.0\n2 in.tftpd[6]: RRQ from 10.0.0.5 filename pxelinux.cfg/0A\n2 in.tftpd[6]: sending NAK (1, File not found) to 10.0.0.5\n2 in.tftpd[7]: RRQ from 10.0.0.5 filename pxelinux.cfg/default\n3 in.tftpd[8]: RRQ from 10.0.0.5 filename vmlinuz\n3 in.tftpd[9]: RRQ from 10.0.0.5 filename initrd.img\n",
			evidence.Arrived, evidence.Initrd, "", "", ""},
		{"boot script and nothing", dora(0, m1, "10.0.0.5"), "2 GET /boot.ipxe 10.0.0.5 200 9\n", evidence.Stopped, evidence.BootScript, evidence.Kernel, "no kernel asked for", "boot from its disk"},
		{"kernel is 404", dora(0, m1, "10.0.0.5"), "2 GET /boot.ipxe 10.0.0.5 200 9\n2 GET /el9/vmlinuz 10.0.0.5 404 9\n", evidence.Stopped, evidence.BootScript, evidence.Kernel, "/el9/vmlinuz is not on the server", "compare the name"},
		{"kernel is 403", dora(0, m1, "10.0.0.5"), "2 GET /boot.ipxe 10.0.0.5 200 9\n2 GET /el9/vmlinuz 10.0.0.5 403 9\n", evidence.Stopped, evidence.BootScript, evidence.Kernel, "/el9/vmlinuz may not be read", "mode or owner"},
		{"kernel, no initrd", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n", evidence.Stopped, evidence.Kernel, evidence.Initrd, "the kernel was sent and no initrd", "names no initrd"},
		{"kernel and initrd", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n", evidence.Arrived, evidence.Initrd, "", "", ""},
		{"initrd, and the kernel elsewhere", dora(0, m1, "10.0.0.5"), "2 GET /initrd.img 10.0.0.5 200 9\n", evidence.Arrived, evidence.Initrd, "", "", ""},
		{"initrd, and the kernel is 404", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 404 9\n2 GET /initrd.img 10.0.0.5 200 9\n", evidence.Stopped, evidence.Initrd, evidence.Kernel, "/vmlinuz is not on the server", "compare the name"},
		{"kickstart is 404", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n20 GET /ks.cfg 10.0.0.5 404 9\n", evidence.Stopped, evidence.Initrd, evidence.Answer, "/ks.cfg is not on the server", "compare the name"},
		{"kickstart is 404, then there", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n20 GET /ks.cfg 10.0.0.5 404 9\n30 GET /ks.cfg 10.0.0.5 200 9\n", evidence.Arrived, evidence.Answer, "", "", ""},
		{"initrd cut short", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 1000000\n0 GET /initrd.img 10.8.8.8 200 9000000\n", evidence.Stopped, evidence.Kernel, evidence.Initrd, "only 1000000 of 9000000 bytes", "reset or lost its link"},
		{"files that installers look for and do without", dora(0, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n20 GET /el9/images/updates.img 10.0.0.5 404 9\n", evidence.Arrived, evidence.Initrd, "", "", ""},
		{"the installed system's DHCP is no new boot", dora(0, m1, "10.0.0.5") + dora(900, m1, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n", evidence.Arrived, evidence.Initrd, "", "", ""},
		{"a second boot that stops where the first went on", dora(0, m1, "10.0.0.5") + dora(900, m1, "10.0.0.5"), "2 GET /boot.ipxe 10.0.0.5 200 9\n2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n902 GET /boot.ipxe 10.0.0.5 200 9\n902 GET /vmlinuz 10.0.0.5 404 9\n",
			evidence.Stopped, evidence.BootScript, evidence.Kernel, "/vmlinuz is not on the server", "compare"},
		{"told to boot from its disk after the install", dora(0, m1, "10.0.0.5") + dora(900, m1, "10.0.0.5"), "2 GET /boot.ipxe 10.0.0.5 200 9\n2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n902 GET /boot.ipxe 10.0.0.5 200 9\n",
			evidence.Arrived, evidence.BootScript, "", "", ""},
		{"two boots without stamps", bare(m1, "10.0.0.5", "vmlinuz", "initrd.img") + bare(m1, "10.0.0.5"), web, evidence.Stopped, evidence.BootLoader, evidence.BootScript, "asked for nothing more", "only asked for"},
		{"network boot fails, and the disk boots", classed(0, m1, "10.0.0.5", "PXEClient:Arch:00007") + classed(60, m1, "10.0.0.5", "anaconda-Linux"), tftpIdle + web, evidence.Stopped, evidence.Ack, evidence.BootLoader, "lease given, no TFTP or HTTP request", "told to fetch grubx64.efi"},
		{"the disk boots, and its firmware did not ask", classed(60, m1, "10.0.0.5", "anaconda-Linux"), tftpIdle + web, evidence.Leased, evidence.Ack, "", "", ""},
		{"the begin of a later boot", classed(0, m1, "10.0.0.5", "PXEClient:Arch:00007") + classed(4000, m1, "10.0.0.5", "anaconda-Linux"), tftpIdle + web, evidence.Leased, evidence.Ack, "", "", ""},
		{"on its way", dora(7150, m1, "10.0.0.5"), web, evidence.Moving, evidence.Ack, evidence.BootScript, "", ""},
		{"no PXE client", "0 dnsmasq-dhcp[1]: 77 vendor class: android-dhcp-14\n0 dnsmasq-dhcp[1]: 77 DHCPDISCOVER(br0) " + m1 + " \n0 dnsmasq-dhcp[1]: 77 DHCPACK(br0) 10.0.0.5 " + m1 + " phone\n", web, evidence.Leased, evidence.Ack, "", "", ""},
	} {
		r := probe(t, tt.dhcp, tt.other)
		i := slices.IndexFunc(r.Nodes, func(n evidence.NodeReport) bool { return n.MAC == m1 })
		if i < 0 {
			t.Errorf("%s: no node %s in %+v", tt.name, m1, r.Nodes)
			continue
		}
		n := r.Nodes[i]
		first := ""
		if len(n.Causes) > 0 {
			first = n.Causes[0]
		}
		if n.State != tt.state || n.Stage != tt.stage || n.State != evidence.Arrived && n.State != evidence.Leased && n.Next != tt.next ||
			!strings.Contains(n.Why, tt.why) || (n.Why == "") != (tt.why == "") || !strings.Contains(first, tt.cause) {
			t.Errorf("%s: %s after %q, next %q, why %q, first cause %q\n want %s after %q, next %q, why %q, first cause %q", tt.name, n.State, n.Stage, n.Next, n.Why, first, tt.state, tt.stage, tt.next, tt.why, tt.cause)
		}
	}
}

// What others' tools hide: a failure stays one though the node went further before, and whatever comes first.
func TestProbeHidesNothing(t *testing.T) {
	r := probe(t, dora(0, m1, "10.0.0.5")+dora(0, m2, "10.0.0.6"), "2 GET /vmlinuz 10.0.0.5 200 9\n2 GET /initrd.img 10.0.0.5 200 9\n2 GET /boot.ipxe 10.0.0.6 404 9\n")
	if r.Stopped() != 1 || r.Nodes[0].MAC != m2 || r.Nodes[0].State != evidence.Stopped {
		t.Errorf("%d stopped, first %s: want the one that failed first", r.Stopped(), r.Nodes[0].MAC)
	}
	// Nothing is lost after a line on which other parsers die, nor by rotation.
	r = probe(t, "0 dhcpd[1]: DHCPNAK on 10.0.0.5 to "+m1+" via br0\n", dora(5, m1, "10.0.0.5"), "7 GET /vmlinuz 10.0.0.5 200 9\n8 GET /initrd.img 10.0.0.5 200 9\n")
	if n := r.Nodes[0]; n.State != evidence.Arrived || len(n.Stages) != 6 || len(n.Problems) != 1 || !n.Problems[0].Mended {
		t.Errorf("after a DHCPNAK: %+v", n)
	}
}

func TestProbeAttribution(t *testing.T) {
	// The same address, first of one node, then of another: each keeps its own.
	r := probe(t, dora(0, m1, "10.0.0.5")+dora(3600, m2, "10.0.0.5"), "2 GET /vmlinuz 10.0.0.5 200 9\n3 GET /initrd.img 10.0.0.5 200 9\n3602 GET /vmlinuz 10.0.0.5 404 9\n")
	if len(r.Nodes) != 2 || r.Nodes[0].MAC != m2 || r.Nodes[0].State != evidence.Stopped || r.Nodes[1].MAC != m1 || r.Nodes[1].State != evidence.Arrived {
		t.Errorf("%+v, want %s stopped and %s arrived", r.Nodes, m2, m1)
	}
	// Without DHCP's log a node is its address until it names itself.
	r = probe(t, "0 in.tftpd[1]: RRQ from 10.0.0.5 filename pxelinux.0\n1 in.tftpd[2]: RRQ from 10.0.0.5 filename pxelinux.cfg/01-52-54-00-77-00-01\n2 in.tftpd[3]: RRQ from 10.0.0.5 filename vmlinuz\n")
	if len(r.Nodes) != 1 || r.Nodes[0].MAC != m1 || len(r.Nodes[0].Stages) != 3 {
		t.Errorf("%+v, want one node with three stages", r.Nodes)
	}
	// More than one DHCP server.
	r = probe(t, "0 dhcpd[1]: DHCPREQUEST for 10.0.0.5 (10.0.0.1) from "+m1+" via br0\n1 dhcpd[1]: DHCPREQUEST for 10.0.0.77 (10.0.0.66) from "+m1+" via br0: lease 10.0.0.77 unavailable.\n")
	if w := strings.Join(r.Nodes[0].Warnings, ";"); !strings.Contains(w, "10.0.0.1, 10.0.0.66") || !strings.Contains(w, "rogue") {
		t.Errorf("warnings %q, want both servers", w)
	}
	r = probe(t, dora(0, m1, "10.0.0.5")+dora(0, m2, "10.0.0.6")+"0 dhcpd[1]: DHCPREQUEST for 10.0.0.7 (10.0.0.66) from "+m3+" via br0\n")
	for _, n := range r.Nodes {
		if w := strings.Join(n.Warnings, ";"); strings.Contains(w, "10.0.0.66, other nodes 10.0.0.1") != (n.MAC == m3) {
			t.Errorf("%s: warnings %q, want the odd one's only", n.MAC, w)
		}
	}
	r = probe(t, "0 dnsmasq-dhcp[1]: DHCPNAK(br0) 10.0.0.5 "+m1+" wrong server-ID\n")
	if w := strings.Join(r.Nodes[0].Warnings, ";"); !strings.Contains(w, "rogue") {
		t.Errorf("warnings %q, want another server", w)
	}
	// An error that names nobody is the frontend's; somebody's browser is no node.
	r = probe(t, "0 dnsmasq-tftp[1]: cannot access /srv/tftp/pxelinux.0: Permission denied\n", `10.5.5.5 - - [20/Nov/2026:17:47:07 +0000] "GET /ks.cfg HTTP/1.1" 404 5 "-" "Mozilla/5.0"`)
	if len(r.Nodes) != 0 || len(r.Frontend) != 2 || r.Frontend[0].File == "" {
		t.Errorf("nodes %+v, frontend %+v", r.Nodes, r.Frontend)
	}
	// Both logs of a web server about one request are one problem, with the better reason.
	r = probe(t, dora(0, m1, "10.0.0.5"), "2 GET /secret.ks 10.0.0.5 403 9\n", "[Fri Nov 20 18:00:02.500000 2026] [core:error] [pid 1:tid 2] (13)Permission denied: [client 10.0.0.5:58860] AH00132: file permissions deny server access: /srv/www/secret.ks\n")
	if p := r.Nodes[0].Problems; len(p) != 1 || p[0].Count != 1 || !strings.Contains(p[0].Reason, "may not read") {
		t.Errorf("problems %+v, want one with the reason", p)
	}
	// The inventory names nodes; a selection leaves the others out and says what is in no line.
	r = probeWith(t, evidence.ProbeOptions{Now: reference, Resolver: inventory{macs: map[string]string{m1: "n1"}}, Nodes: []string{"n1", "10.0.0.6", "n9"}},
		dora(0, m1, "10.0.0.5")+dora(0, m2, "10.0.0.6")+dora(0, m3, "10.0.0.7"), tftpIdle)
	if len(r.Nodes) != 2 || len(r.NotSeen) != 1 || r.NotSeen[0] != "n9" || r.Nodes[0].Name != "n1" {
		t.Errorf("nodes %+v, not seen %q", r.Nodes, r.NotSeen)
	}
}

// A log that is read across New Year is in order, whatever the stamps leave out.
func TestProbeNewYear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "syslog")
	write(t, path, "Dec 31 23:59:58 f dhcpd: DHCPACK on 10.0.0.5 to "+m1+" via br0\nJan  1 00:00:01 f in.tftpd[1]: RRQ from 10.0.0.5 filename vmlinuz\nJan  1 00:00:03 f in.tftpd[2]: RRQ from 10.0.0.5 filename initrd.img\n")
	now := time.Date(2027, 1, 1, 8, 0, 0, 0, time.UTC)
	if err := os.Chtimes(path, now, time.Date(2027, 1, 1, 0, 0, 3, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	r, err := evidence.Probe(context.Background(), []string{path}, evidence.ProbeOptions{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Until.Sub(r.From); d != 5*time.Second || r.From.Year() != 2026 || len(r.Nodes) != 1 || r.Nodes[0].Stages[1].GapMS != 3000 {
		t.Errorf("from %s to %s, %+v", r.From, r.Until, r.Nodes)
	}
	// The same file, read years later: its last change says which New Year it was.
	r, err = evidence.Probe(context.Background(), []string{path}, evidence.ProbeOptions{Now: now.AddDate(5, 0, 0)})
	if err != nil || r.From.Year() != 2026 {
		t.Errorf("years later: from %s, %v", r.From, err)
	}
}

func TestProbeFiles(t *testing.T) {
	dir := t.TempDir()
	packed := filepath.Join(dir, "messages.1.gz")
	f, err := os.Create(packed)
	if err != nil {
		t.Fatal(err)
	}
	w := gzip.NewWriter(f)
	fmt.Fprintf(w, "Nov 20 17:46:51 f dhcpd: DHCPACK on 10.0.0.5 to %s via br0\n", m1)
	w.Close()
	f.Close()
	r, err := evidence.Probe(context.Background(), []string{packed, "-"}, evidence.ProbeOptions{Now: reference, Stdin: strings.NewReader(strings.Repeat("x", 3*evidence.MaxLine) + "\nNov 20 17:46:52 f in.tftpd[1]: RRQ from 10.0.0.5 filename pxelinux.0")})
	if err != nil || len(r.Nodes) != 1 || r.Nodes[0].Stage != evidence.BootLoader || r.Total != (evidence.Counts{Lines: 3, Known: 2, Broken: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := evidence.Probe(context.Background(), []string{filepath.Join(dir, "nosuch")}, evidence.ProbeOptions{Now: reference}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := evidence.Probe(context.Background(), []string{dir}, evidence.ProbeOptions{Now: reference}); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
	b, _ := os.ReadFile(packed)
	torn := filepath.Join(dir, "torn.gz")
	write(t, torn, string(b[:len(b)-12]))
	if r, err := evidence.Probe(context.Background(), []string{torn}, evidence.ProbeOptions{Now: reference}); err != nil || r.Files[0].Error == "" {
		t.Errorf("a torn file: %+v, %v", r, err)
	}
	t.Setenv("PATH", "")
	xz := filepath.Join(dir, "messages.2.xz")
	write(t, xz, "\xfd7zXZ\x00rest")
	if _, err := evidence.Probe(context.Background(), []string{xz}, evidence.ProbeOptions{Now: reference}); !errors.Is(err, evidence.ErrNoXZ) {
		t.Errorf("xz without the tool: %v", err)
	}
}

// mixture is a log of everything: the real lines over and over, broken ones, and ones of other programs.
func mixture(t testing.TB) []string {
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			lines = append(lines, l, l, "Nov 20 17:46:51 front sshd[77]: Accepted publickey for root from 10.0.0.9 port 51234 ssh2\n")
			if len(lines)%50 == 0 {
				lines = append(lines, l[:len(l)/2]+"\n", "\x00\x00\xff\n")
			}
		}
	}
	return lines
}

// writeLarge writes a large file of mixed and broken lines and gives its path and the number of its lines. Its size in
// megabytes is in EVIDENCE_LARGE_MB, else it is small.
func writeLarge(t *testing.T, small int) (path string, size int, count int64) {
	t.Helper()
	size = small
	if s := os.Getenv("EVIDENCE_LARGE_MB"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		size = n
	}
	path = filepath.Join(t.TempDir(), "messages")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	lines := mixture(t)
	written := 0
	for i := 0; written < size<<20; i++ {
		n, _ := w.WriteString(lines[i%len(lines)])
		written += n
		count++
		if i%97 == 0 { // thousands of nodes, and ever new addresses
			n, _ = fmt.Fprintf(w, "Nov 20 17:46:51 f dhcpd: DHCPACK on 10.%d.%d.%d to 52:54:00:00:%02x:%02x via br0\n", i>>18&255, i>>10&255, i>>2&255, i/97>>8&31, i/97&255)
			written += n
			count++
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path, size, count
}

// heapPeak gives the most that is in use while fn runs, without what the collector of garbage has yet to find.
func heapPeak(fn func()) (peak uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var m runtime.MemStats
		for ctx.Err() == nil {
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	fn()
	cancel()
	<-done
	return peak
}

// TestLarge probes a large file of mixed and broken lines: each is counted, and memory stays what it was.
func TestLarge(t *testing.T) {
	path, size, count := writeLarge(t, 100)
	var r *evidence.Report
	var err error
	peak := heapPeak(func() {
		r, err = evidence.Probe(context.Background(), []string{path}, evidence.ProbeOptions{Now: reference})
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Total.Lines != count || r.Total.Known+r.Total.Ignored+r.Total.Unknown+r.Total.Broken != count {
		t.Errorf("%+v of %d lines", r.Total, count)
	}
	if r.Total.Known < count/4 || r.Total.Broken < count/200 || r.Total.Unknown == 0 {
		t.Errorf("%+v: not the mixture that was written", r.Total)
	}
	t.Logf("%d MB, %d lines, %d nodes, heap at most %d MiB", size, count, len(r.Nodes), peak>>20)
	// Some 8,000 nodes of about 5 KiB, 65,536 leases, and the buffers: at any size.
	if limit := uint64(160) << 20; peak > limit {
		t.Errorf("heap of %d bytes, more than %d", peak, limit)
	}
	if b, err := json.Marshal(r); err != nil || len(b) == 0 {
		t.Errorf("as JSON: %v", err)
	}
}

// TestFollowLarge follows such a file as the collector does, with everything that comes after the follower: nothing is lost,
// nothing stops it, and memory stays what it was.
func TestFollowLarge(t *testing.T) {
	path, size, count := writeLarge(t, 12)
	var total evidence.Counts
	o, err := evidence.NewObserver(evidence.NewMapper(everybody{}), evidence.ObserverOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	observations := 0
	peak := heapPeak(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		err = (&evidence.File{Path: path, FromStart: true}).Run(ctx, nil, func(b evidence.Batch) error {
			total = total.Plus(b.Counts)
			for _, f := range b.Facts {
				observations += len(o.Add(b.Source, f, reference))
			}
			o.Keep()
			if total.Lines >= count {
				cancel()
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if total.Lines != count || total.Known+total.Ignored+total.Unknown+total.Broken != count {
		t.Errorf("%+v of %d lines", total, count)
	}
	if observations < int(count/8) {
		t.Errorf("%d observations of %d lines", observations, count)
	}
	t.Logf("%d MB, %d lines, %d observations, heap at most %d MiB", size, count, observations, peak>>20)
	if limit := uint64(160) << 20; peak > limit {
		t.Errorf("heap of %d bytes, more than %d", peak, limit)
	}
}

// everybody is an inventory that knows every machine.
type everybody struct{}

func (everybody) ByMAC(mac string) string   { return mac }
func (everybody) ByUUID(string) string      { return "" }
func (everybody) ByHost(string) string      { return "" } // or whoever wrote the logs would be a node
func (everybody) ByIP(ip netip.Addr) string { return ip.String() }

func BenchmarkParse(b *testing.B) {
	p := parser()
	var lines [][]byte
	size := 0
	for _, l := range mixture(b) {
		lines = append(lines, []byte(l))
		size += len(l)
	}
	b.SetBytes(int64(size / len(lines)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p.Parse(lines[i%len(lines)])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkGrep is the yardstick of BenchmarkParse: grep -c over the same lines (-a, or it stops at the broken ones).
func BenchmarkGrep(b *testing.B) {
	tool, err := exec.LookPath("grep")
	if err != nil {
		b.Skip("no grep here")
	}
	path := filepath.Join(b.TempDir(), "log")
	lines := mixture(b)
	text := strings.Repeat(strings.Join(lines, ""), 200)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if _, err := exec.Command(tool, "-a", "-c", "DHCPACK", path).Output(); err != nil { // into /dev/null it stops at once
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(200*len(lines))/b.Elapsed().Seconds(), "lines/s")
}
