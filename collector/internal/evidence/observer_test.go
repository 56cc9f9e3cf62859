// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"provost/collector/internal/evidence"
)

// observe gives a log to an Observer line by line, then lets everything settle.
func observe(t *testing.T, path string) []evidence.Observation {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := evidence.NewObserver(evidence.NewMapper(everybody{}), evidence.ObserverOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, j := parser(), evidence.NewJoiner()
	var out []evidence.Observation
	for line := range strings.Lines(string(b)) {
		f, v := p.Parse([]byte(line))
		if v != evidence.Known {
			continue
		}
		if f, ok := j.Add(f); ok {
			out = append(out, o.Add(path, f, reference)...)
		}
	}
	return append(out, o.Due(reference.Add(time.Minute))...)
}

// TestObserveCorpus gives real logs to an Observer. Every observation names a node and says something. In three of the logs a
// client took the offer of a server that was none of those that wrote them; no other server is taken for a rogue.
func TestObserveCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d logs, %v", len(files), err)
	}
	rogues := map[string]string{"dnsmasq-plain.log": "unknown", "isc-dhcpd-all.log": "10.78.0.99", "kea-debug.log": "unknown"}
	stages, problems := 0, 0
	for _, path := range files {
		for _, b := range observe(t, path) {
			switch {
			case b.Who.Name == "" || b.Source == "":
				t.Errorf("%s: %+v names nobody", path, b)
			case b.Problem == evidence.Rogue:
				name := filepath.Base(path)
				if want := rogues[name]; b.Rogue != want {
					t.Errorf("%s: %s is taken for a rogue, want %q", path, b.Rogue, want)
				}
				delete(rogues, name)
			case b.Problem != "":
				problems++
				if s := b.Sentence(""); s == "" || strings.Contains(s, "a file ") && b.Fact.File != "" {
					t.Errorf("%s: %+v says %q", path, b, s)
				}
			case !b.Stage.Stage():
				t.Errorf("%s: %+v is no stage", path, b)
			default:
				stages++
			}
		}
	}
	if len(rogues) > 0 {
		t.Errorf("not found: %v", rogues)
	}
	if stages < 100 || problems < 10 {
		t.Errorf("%d stages, %d problems", stages, problems)
	}
}

// TestObserverSettles: of a request and the error that denies it only the error is left, in whatever pieces they come.
func TestObserverSettles(t *testing.T) {
	const log = "testdata/logs/tftpd-hpa-errors.log"
	reached := map[string]bool{}
	for _, b := range observe(t, log) {
		if b.Problem == "" {
			reached[b.Detail] = true
		}
	}
	for _, b := range observe(t, log) {
		if (b.Problem == evidence.NotFound || b.Problem == evidence.Forbidden) && reached[b.Detail] {
			t.Errorf("%s was sent, and is missing: %+v", b.Detail, b)
		}
	}
}

// teller makes an Observer that is told lines, and gives what it says of them at once or after it has waited.
func teller(t *testing.T, o evidence.ObserverOptions) func(from, source string, lines ...string) []evidence.Observation {
	t.Helper()
	inv := inventory{macs: map[string]string{m1: "n1", m2: "n2"}, hosts: map[string]string{"n1": "n1", "n2": "n2", "front": "front", "s3": "s3"}, ips: map[string]string{"10.0.0.5": "n1", "10.0.0.6": "n2", "10.0.0.8": "s3"}}
	ob, err := evidence.NewObserver(evidence.NewMapper(inv), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	j := evidence.NewJoiner()
	return func(from, source string, lines ...string) []evidence.Observation {
		var out []evidence.Observation
		for _, l := range lines {
			f, v := parser().Parse([]byte(l))
			if v != evidence.Known {
				t.Fatalf("%q is %v", l, v)
			}
			if from != "" {
				f.From = ip(from)
			}
			if f, ok := j.Add(f); ok {
				out = append(out, ob.Add(source, f, reference)...)
			}
		}
		return append(out, ob.Due(reference.Add(time.Minute))...)
	}
}

// said lists observations: "node stage", "node stage asked" or "node! problem".
func said(all []evidence.Observation) []string {
	out := []string{}
	for _, b := range all {
		text := b.Who.Name + " " + string(b.Stage)
		if b.Problem != "" {
			text = b.Who.Name + "! " + string(b.Problem)
		}
		if b.Asked {
			text += " asked"
		}
		out = append(out, text)
	}
	return out
}

// TestObserverAsked: a request alone is told from a transfer, and the end of one from its request.
func TestObserverAsked(t *testing.T) {
	tell := teller(t, evidence.ObserverOptions{})
	const h = "Nov 20 17:46:51 boot in.tftpd"
	got := tell("", "/var/log/messages", h+"[1]: RRQ from 10.0.0.5 filename vmlinuz", h+"[2]: RRQ from 10.0.0.6 filename vmlinuz", h+"[2]: Client ::ffff:10.0.0.6 finished vmlinuz",
		h+"[3]: Client ::ffff:10.0.0.6 finished initrd.img", h+"[4]: Client ::ffff:10.0.0.6 File not found ks.cfg")
	if d := cmp.Diff([]string{"n2 kernel-sent", "n2 initrd-sent", "n2! file-not-found", "n1 kernel-sent asked"}, said(got)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	b := got[3]
	if s := b.OnlyAsked("/srv/tftp has no vmlinuz"); s != "vmlinuz was only asked for: nobody logged that it was sent: /srv/tftp has no vmlinuz" {
		t.Errorf("OnlyAsked = %q", s)
	}
	if s := b.Look([]string{t.TempDir()}, nil); !strings.Contains(s, "has no vmlinuz") {
		t.Errorf("Look = %q", s)
	}
	b.Detail = "pxelinux.cfg/default"
	if s := b.OnlyAsked("x"); !strings.Contains(s, "a configuration was only asked for (pxelinux.cfg/default was the first)") {
		t.Errorf("OnlyAsked of a configuration = %q", s)
	}
}

// TestObserverWhole: a transfer that broke off is logged as a good one, and shorter.
func TestObserverWhole(t *testing.T) {
	tell := teller(t, evidence.ObserverOptions{})
	get := func(ip, file string, status, size int) string {
		return fmt.Sprintf(`%s - - [20/Nov/2026:17:47:07 +0000] "GET %s HTTP/1.1" %d %d "-" "iPXE/1.21"`, ip, file, status, size)
	}
	for _, tt := range []struct{ name, line, want string }{
		{"the first", get("10.0.0.5", "/vmlinuz", 200, 14_000_000), "n1 kernel-sent"},
		{"broken off", get("10.0.0.6", "/vmlinuz", 200, 3_000_000), "n2! transfer-aborted"},
		{"the same line, after its commit failed", get("10.0.0.6", "/vmlinuz", 200, 3_000_000), "n2! transfer-aborted"},
		{"whole, without its headers", get("10.0.0.6", "/vmlinuz", 200, 13_999_700), "n2 kernel-sent"},
		{"a part that was asked for", get("10.0.0.6", "/vmlinuz", 206, 3_000_000), "n2 kernel-sent"},
		{"replaced by a smaller one", get("10.0.0.5", "/vmlinuz", 200, 12_000_000), "n1! transfer-aborted"},
		{"which is known by the second time", get("10.0.0.6", "/vmlinuz", 200, 12_000_000), "n2 kernel-sent"},
		{"from then on", get("10.0.0.5", "/vmlinuz", 200, 12_000_000), "n1 kernel-sent"},
		{"a small file", get("10.0.0.5", "/x/vmlinuz", 200, 1000), "n1 kernel-sent"},
		{"that differs", get("10.0.0.6", "/x/vmlinuz", 200, 500), "n2 kernel-sent"},
	} {
		if got := said(tell("", "/var/log/httpd/access_log", tt.line)); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: %q, want %s", tt.name, got, tt.want)
		}
	}
}

// TestObserverWriters: what a node wrote itself is taken of itself alone, whichever way its lines came.
func TestObserverWriters(t *testing.T) {
	const ack, preseed = "DHCPACK on 10.0.0.6 to " + m2 + " via br0", "successfully loaded preseed file from http://x/preseed.cfg"
	for _, tt := range []struct {
		name, from, line string
		want             []string
	}{
		{"a server", "", "Nov 20 17:46:51 boot dhcpd[1]: " + ack, []string{"n2 dhcp-ack"}},
		{"a node by its name", "", "Nov 20 17:46:51 n1 dhcpd[1]: " + ack, nil},
		{"a node by its full name", "", "Nov 20 17:46:51 N1.cluster dhcpd[1]: " + ack, nil},
		{"a node by its address", "", "Nov 20 17:46:51 10.0.0.5 dhcpd[1]: " + ack, nil},
		{"a node's installer", "", "Nov 20 17:46:51 n1 preseed[1]: " + preseed, []string{"n1 answer-sent"}},
		{"this machine, which is a node, too", "", "Nov 20 17:46:51 front dhcpd[1]: " + ack, []string{"n2 dhcp-ack"}},
		{"a server, by network", "10.0.0.2", "<30>Nov 20 17:46:51 boot dhcpd[1]: " + ack, []string{"n2 dhcp-ack"}},
		{"a node, by network", "10.0.0.5", "<30>Nov 20 17:46:51 boot dhcpd[1]: " + ack, nil},
		{"a node's installer, by network, with any clock", "10.0.0.5", "<30>Jan  1 00:00:07 debian preseed[1]: " + preseed, []string{"n1 answer-sent"}},
		{"a node that is listed as a server", "10.0.0.6", "<30>Nov 20 17:46:51 boot dhcpd[1]: " + ack, []string{"n2 dhcp-ack"}},
		{"that one by its address, in a log of several machines", "", "Nov 20 17:46:51 10.0.0.6 dhcpd[1]: " + ack, []string{"n2 dhcp-ack"}},
		{"a listed server by its name", "", "Nov 20 17:46:51 S3.cluster dhcpd[1]: " + ack, []string{"n2 dhcp-ack"}},
		{"a node whose address is in a listed prefix only, by its name", "", "Nov 20 17:46:51 n2 dhcpd[1]: " + ack, nil},
	} {
		tell := teller(t, evidence.ObserverOptions{Self: "Front.example.org", Listed: []netip.Prefix{netip.MustParsePrefix("10.0.0.6/31"), netip.MustParsePrefix("10.0.0.8/32")}})
		got := tell(tt.from, "syslog", tt.line)
		if d := cmp.Diff(tt.want, said(got), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s, -want +got:\n%s", tt.name, d)
		}
		for _, b := range got {
			if b.Source == evidence.ProgInstaller && b.Time.Equal(reference) != (tt.from != "") {
				t.Errorf("%s: at %v: of a line by network the time of its arrival is wanted, of others their own", tt.name, b.Time)
			}
		}
	}
}

// TestObserverMessage: an error of DHCP implies the message that was answered with it, and no other.
func TestObserverMessage(t *testing.T) {
	tell := teller(t, evidence.ObserverOptions{Ours: []netip.Addr{ip("10.0.0.1")}})
	const h = "Nov 20 17:46:51 boot "
	for line, want := range map[string][]string{
		h + "dhcpd[1]: DHCPREQUEST for 192.168.99.5 from " + m1 + " via br0: wrong network.":                       {"n1 dhcp-request", "n1! wrong-network"},
		h + "dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0: unknown network segment":                              {"n1 dhcp-discover", "n1! wrong-network"},
		h + "dhcpd[1]: DHCPDISCOVER from " + m1 + " via br0: network 10.77.0.0/24: no free leases":                 {"n1 dhcp-discover", "n1! no-free-leases"},
		h + "kea-dhcp4[1]: WARN  ALLOC_ENGINE_V4_ALLOC_FAIL [hwtype=1 " + m1 + "], cid=[no info], tid=0x7: failed": {"n1 dhcp-discover", "n1! no-free-leases"},
	} {
		if d := cmp.Diff(want, said(tell("", "x", line))); d != "" {
			t.Errorf("%s, -want +got:\n%s", line, d)
		}
	}
}
