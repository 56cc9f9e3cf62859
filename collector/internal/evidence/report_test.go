// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/evidence"
)

// That firmware asks for a file's size first, and breaks that off, is no problem; a transfer that is not begun again is one.
func TestProbeSize(t *testing.T) {
	hpa := "2 in.tftpd[5]: RRQ from 10.0.0.5 filename grubx64.efi\n2 in.tftpd[5]: tftp: client does not accept options\n"
	dnsmasq := "2 dnsmasq-tftp[1]: error 8 User aborted the transfer received from 10.0.0.5\n2 dnsmasq-tftp[1]: sent /srv/grubx64.efi to 10.0.0.5\n"
	for _, tt := range []struct {
		name, log string
		problems  int
	}{
		{"tftpd-hpa", hpa + "3 in.tftpd[6]: RRQ from 10.0.0.5 filename grubx64.efi\n", 0},
		{"tftpd-hpa, and no more", hpa, 1},
		{"tftpd-hpa, much later", hpa + "60 in.tftpd[6]: RRQ from 10.0.0.5 filename grubx64.efi\n", 1},
		{"dnsmasq", dnsmasq + "3 dnsmasq-tftp[1]: sent /srv/grubx64.efi to 10.0.0.5\n", 0},
		{"dnsmasq, and no more", dnsmasq, 1},
		{"dnsmasq, another file", dnsmasq + "3 dnsmasq-tftp[1]: sent /srv/shimx64.efi to 10.0.0.5\n", 1},
	} {
		n := probe(t, dora(0, m1, "10.0.0.5"), tt.log).Nodes[0]
		if len(n.Problems) != tt.problems || tt.problems == 0 && n.Stage != evidence.BootLoader {
			t.Errorf("%s: after %s, problems %+v, want %d", tt.name, n.Stage, n.Problems, tt.problems)
		}
	}
}

// Where only a web server's errors are known, that is said: what went well is not among them.
func TestProbeErrorLogAlone(t *testing.T) {
	const log = `2026/11/20 19:23:35 [error] 9#9: *1 open() "/srv/vmlinuz" failed (2: No such file or directory), client: 10.0.0.5, server: _, request: "GET /vmlinuz HTTP/1.1", host: "10.0.0.1"` + "\n"
	const want = "what it sent is in its access log"
	if r := probe(t, log); !strings.Contains(strings.Join(r.Advice, "\n"), want) {
		t.Errorf("advice %q, want that %s", r.Advice, want)
	}
	if r := probe(t, log, "0 GET /initrd.img 10.0.0.5 200 9\n"); strings.Contains(strings.Join(r.Advice, "\n"), want) {
		t.Errorf("with an access log, advice %q", r.Advice)
	}
}

// A request and the line that says that it is done are one transfer, which a server counts that writes down both.
func TestProbeFinished(t *testing.T) {
	log := ""
	for i, file := range []string{"undionly.kpxe", "boot.ipxe", "vmlinuz"} {
		log += fmt.Sprintf("%d in.tftpd[%d]: RRQ from 10.0.0.5 filename %s\n%d in.tftpd[%d]: Client ::ffff:10.0.0.5 finished %s\n", 2*i+2, i, file, 2*i+3, i, file)
	}
	n := probe(t, dora(0, m1, "10.0.0.5"), log).Nodes[0]
	for _, s := range n.Stages {
		if s.Count != 1 {
			t.Errorf("%s was reached %d times, want once", s.Name, s.Count)
		}
	}
	if n = probe(t, dora(0, m1, "10.0.0.5"), log[:strings.Index(log, "4 in.tftpd")]).Nodes[0]; n.Stage != evidence.BootLoader || len(n.Causes) == 0 || strings.Contains(n.Causes[0], "given itself again") {
		t.Errorf("after one undionly.kpxe, sent whole: %s, causes %q", n.Stage, n.Causes)
	}
}

// A refused request implies no question before it that nobody logged; a refused question is one.
func TestProbeImplies(t *testing.T) {
	for line, want := range map[string]evidence.Kind{
		"DHCPREQUEST for 192.168.9.9 from " + m1 + " via br0: wrong network.":       evidence.Request,
		"DHCPDISCOVER from " + m1 + " via br0: unknown network segment":             evidence.Discover,
		"DHCPDISCOVER from " + m1 + " via br0: network 10.0.0.0/24: no free leases": evidence.Discover,
		"DHCPDISCOVER(br0) 10.0.0.9 " + m1 + " no address available":                evidence.Discover, // it would like that address again
	} {
		program := "dhcpd"
		if strings.Contains(line, "(br0)") {
			program = "dnsmasq-dhcp"
		}
		n := probe(t, "0 "+program+"[1]: "+line+"\n").Nodes[0]
		if len(n.Stages) != 1 || n.Stages[0].Name != want {
			t.Errorf("%s: stages %+v, want %s alone", line, n.Stages, want)
		}
	}
}

// The text of the lines about each node is kept where it is asked for, the last ones; what is not understood is kept in any
// case, one example for each program.
func TestProbeLines(t *testing.T) {
	var many strings.Builder
	for i := range 50 {
		fmt.Fprintf(&many, "%d dhcpd[1]: DHCPDISCOVER from %s via br0\n", i, m1)
	}
	logs := []string{many.String() + dora(60, m2, "10.0.0.6"), "70 in.tftpd[5]: RRQ from 10.0.0.6 filename " + strings.Repeat("x", 3000) + "/vmlinuz\n"}
	r := probeWith(t, evidence.ProbeOptions{Now: reference, Lines: true}, logs...)
	i := slices.IndexFunc(r.Nodes, func(n evidence.NodeReport) bool { return n.MAC == m1 })
	if n := r.Nodes[i]; len(n.Lines) != 40 || n.Dropped != 10 || !strings.HasSuffix(n.Lines[39], "front dhcpd[1]: DHCPDISCOVER from "+m1+" via br0") || !strings.Contains(n.Lines[0], ":00:10 ") {
		t.Errorf("%d lines, %d before them: %q, want the last 40 as they are", len(n.Lines), n.Dropped, n.Lines)
	}
	n := r.Nodes[1-i]
	if len(n.Lines) != 5 || !strings.Contains(n.Lines[3], "DHCPACK on 10.0.0.6") || len(n.Lines[4]) > 1100 || !strings.HasSuffix(n.Lines[4], "xx …") {
		t.Errorf("%q, want five lines, the long one cut", n.Lines)
	}
	if r = probe(t, logs...); r.Nodes[0].Lines != nil {
		t.Errorf("%q were not asked for", r.Nodes[0].Lines)
	}

	r = probe(t, dora(0, m1, "10.0.0.5")+"1 dhcpd[1]: a new word\n2 dhcpd[1]: DHCPACK on 10.0\n3 sshd[1]: what is this\n4 in.tftpd[1]: never heard of\n")
	if len(r.Odd) != 2 || r.Odd[0].Program != "dhcpd" || r.Odd[0].Lines != 2 || !strings.HasSuffix(r.Odd[0].Example, "front dhcpd[1]: a new word") || !strings.HasSuffix(r.Odd[0].File, "log0") || r.Odd[1].Program != "in.tftpd" {
		t.Errorf("%+v, want dhcpd with two lines and in.tftpd with one", r.Odd)
	}
	// A line that is still being written is nothing to wonder at.
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "Nov 20 17:46:51 f dhcpd: DHCPACK on 10.0.0.5 to "+m1+" via br0\nNov 20 17:46:52 f dhcpd: DHCPACK on 10.")
	if r, err := evidence.Probe(t.Context(), []string{path}, evidence.ProbeOptions{Now: reference}); err != nil || len(r.Odd) > 0 || r.Total.Broken != 1 {
		t.Errorf("%+v, %v, want a broken line and nothing odd", r, err)
	}
}

// What is left out is counted, so that nobody takes a selection for an empty log.
func TestProbeOthers(t *testing.T) {
	log := dora(0, m1, "10.0.0.5") + dora(3600, m2, "10.0.0.6")
	for _, tt := range []struct {
		name          string
		o             evidence.ProbeOptions
		nodes, others int
	}{
		{"all", evidence.ProbeOptions{}, 2, 0},
		{"selected", evidence.ProbeOptions{Nodes: []string{m1}}, 1, 1},
		{"none is like that", evidence.ProbeOptions{Nodes: []string{"n7"}}, 0, 2},
		{"since", evidence.ProbeOptions{Since: reference.Add(-time.Hour - 30*time.Minute)}, 1, 1},
		{"until", evidence.ProbeOptions{Until: reference.Add(-time.Hour - 30*time.Minute)}, 1, 1},
		{"since the end", evidence.ProbeOptions{Since: reference}, 0, 2},
	} {
		tt.o.Now = reference
		if r := probeWith(t, tt.o, log); len(r.Nodes) != tt.nodes || r.Others != tt.others || r.From.IsZero() {
			t.Errorf("%s: %d nodes, %d others, from %s, want %d and %d", tt.name, len(r.Nodes), r.Others, r.From, tt.nodes, tt.others)
		}
	}
}

// Nodes without a name come after those with one, in the order of their MACs, which are no row of numbers.
func TestProbeOrder(t *testing.T) {
	var log string
	for _, m := range []string{"52:54:00:00:00:10", "52:54:00:00:00:0a", "52:54:00:00:00:9f"} {
		log += "0 dhcpd[1]: DHCPDISCOVER from " + m + " via br0\n"
	}
	log += "0 dhcpd[1]: DHCPDISCOVER from 52:54:00:00:00:01 (n10) via br0\n0 dhcpd[1]: DHCPDISCOVER from 52:54:00:00:00:02 (n9) via br0\n"
	var got []string
	for _, n := range probe(t, log).Nodes {
		got = append(got, n.Name)
	}
	if want := []string{"n9", "n10", "52:54:00:00:00:0a", "52:54:00:00:00:10", "52:54:00:00:00:9f"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A time that began before the last rotation takes the rotated files with it, and no others.
func TestWithRotated(t *testing.T) {
	dir := t.TempDir()
	at := func(name string, ago time.Duration) string {
		path := filepath.Join(dir, name)
		write(t, path, "x\n")
		if err := os.Chtimes(path, reference, reference.Add(-ago)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	current, one, two, dated := at("messages", time.Minute), at("messages.1", time.Hour), at("messages.2.gz", 30*time.Hour), at("messages-20261120.zst", 2*time.Hour)
	at("messages-error", 200*time.Hour)
	at("message.1", time.Hour)
	at("messages.orig", time.Hour)
	for _, tt := range []struct {
		files, want []string
		ago         time.Duration
	}{
		{[]string{current}, []string{current}, 10 * time.Minute},
		{[]string{current}, []string{dated, one, current}, 3 * time.Hour},
		{[]string{current}, []string{two, dated, one, current}, 48 * time.Hour},
		{[]string{current, one}, []string{dated, current, one}, 3 * time.Hour},
		{[]string{"-", filepath.Join(dir, "nosuch")}, []string{"-", filepath.Join(dir, "nosuch")}, 3 * time.Hour},
	} {
		if got := evidence.WithRotated(tt.files, reference.Add(-tt.ago)); !slices.Equal(got, tt.want) {
			t.Errorf("WithRotated(%q, %s ago) = %q, want %q", tt.files, tt.ago, got, tt.want)
		}
	}
}

// Of a configuration that is not there it is said which other names would have done.
func TestProbeSearch(t *testing.T) {
	log := ""
	for i, f := range []string{"grubx64.efi", "grub.cfg-0A000005", "grub.cfg-0A00000", "grub.cfg"} {
		log += fmt.Sprintf("%d in.tftpd[%d]: RRQ from 10.0.0.5 filename %s\n", i+2, i, f)
		if i > 0 {
			log += fmt.Sprintf("%d in.tftpd[%d]: sending NAK (1, File not found) to 10.0.0.5\n", i+2, i)
		}
	}
	n := probe(t, dora(0, m1, "10.0.0.5"), log).Nodes[0]
	if !slices.Contains(n.Causes, "it looked for 2 more before that, like grub.cfg-0A00000: any one of them will do") {
		t.Errorf("causes %q, want the names that it looked for", n.Causes)
	}
}
