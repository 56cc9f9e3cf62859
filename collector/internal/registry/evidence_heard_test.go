// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/evidence"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// renewal is what a running system makes a DHCP server say.
func renewal(ip, mac string) []string {
	return []string{"dhcpd[1]: DHCPREQUEST for " + ip + " from " + mac + " via br0", "dhcpd[1]: DHCPACK on " + ip + " to " + mac + " via br0"}
}

// TestEvidenceRenewal: a node that is ordered and still runs its old system renews its lease, and that is no boot.
func TestEvidenceRenewal(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	if err := s.Order(ctx, []string{"n1"}, proto.InstallOrder{NextBoot: true}, "op"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		pass(t, s, 20*time.Minute)
		says(t, s, "/var/log/messages", renewal("10.0.0.5", mac)...)
		says(t, s, "/var/log/messages", "dhcpd[1]: DHCPREQUEST for 10.0.0.9 from "+mac+" via br0: wrong network.", "dhcpd[1]: DHCPNAK on 10.0.0.9 to "+mac+" via br0")
	}
	pass(t, s, 20*time.Minute)
	if n := s.Seen("n1"); n.Summary != "ordered" || len(n.Warnings) > 0 || len(told(t, s, "n1")) > 0 {
		t.Fatalf("n1 = %s, warnings %q, told %q, want ordered and nothing else", n.Summary, n.Warnings, told(t, s, "n1"))
	}
	// Its lease is known all the same, and what it fetches then is a boot.
	says(t, s, "/var/log/messages", "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5")
	says(t, s, "/var/log/messages", renewal("10.0.0.5", mac)...)
	want := []string{"log:dnsmasq bootloader-sent", "log:dhcpd dhcp-request", "log:dhcpd dhcp-ack"}
	if d := cmp.Diff(want, told(t, s, "n1")); d != "" {
		t.Errorf("after a boot loader was sent (-want +got):\n%s", d)
	}
	// An offer is enough: Kea does not write down what it answers with one.
	mac = s.Add("n2", 2)
	s.Ordered("n2")
	s.Clock.Advance(time.Second)
	kea := func(id, text string) string {
		return "kea-dhcp4[1]: INFO  " + id + " [hwtype=1 " + mac + "], cid=[no info], tid=0x1: lease 10.0.0.6 " + text
	}
	says(t, s, "/var/log/messages", kea("DHCP4_LEASE_ALLOC", "has been allocated for 3600 seconds"))
	if got := told(t, s, "n2"); len(got) != 0 {
		t.Errorf("a grant alone is %q", got)
	}
	says(t, s, "/var/log/messages", kea("DHCP4_LEASE_OFFER", "will be offered"), kea("DHCP4_LEASE_ALLOC", "has been allocated for 3600 seconds"))
	if d := cmp.Diff([]string{"log:kea dhcp-offer", "log:kea dhcp-ack"}, told(t, s, "n2")); d != "" {
		t.Errorf("offer and grant (-want +got):\n%s", d)
	}
}

// TestEvidenceRefusedAddress: a refused and a declined address are stages out of line, which other systems' names find.
func TestEvidenceRefusedAddress(t *testing.T) {
	s := logSite(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Sequence = logSequence
	p.Recipe.Sequence.Aside = []lifecycle.Stage{{Name: "dhcp-nak", Aliases: []string{"DHCPNACK"}}}
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/messages", "dhcpd[1]: DHCPDISCOVER from "+mac+" via br0", "dhcpd[1]: DHCPNAK on 10.0.0.9 to "+mac+" via br0", "dhcpd[1]: DHCPNAK on 10.0.0.9 to "+mac+" via br0",
		"dhcpd[1]: DHCPDECLINE of 10.0.0.5 from "+mac+" via br0")
	got := told(t, s, "n1")
	stages := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return strings.Contains(s, "!") })
	if d := cmp.Diff([]string{"log:dhcpd dhcp-discover", "log:dhcpd dhcp-nak", "log:dhcpd dhcp-decline"}, stages); d != "" || len(got) != 5 {
		t.Errorf("told %q (-want +got):\n%s", got, d)
	}
	pass(t, s, 2*time.Minute)
	if st := s.Seen("n1").Stuck; st == nil || !slices.ContainsFunc(st.Likely, func(l string) bool { return strings.Contains(l, "the DHCP server refused its address: an old lease") }) {
		t.Errorf("stuck %+v, want that its address was refused", st)
	}
}

// lookingSite is a logSite that looks for files, and knows what the log messages.log would show.
func lookingSite(t *testing.T) *registrytest.Site {
	s := logSite(t)
	s.Evidence.Look = func(o *evidence.Observation) string { return "/srv/tftp has no " + o.Fact.File }
	s.Evidence.Shows = func(src registry.SourceInfo, stage string) string {
		if src.Name == "/var/log/httpd/access_log" && (stage == "kernel-sent" || stage == "initrd-sent") {
			return "httpd"
		}
		return ""
	}
	s.Restart()
	return s
}

// TestEvidenceOnlyAsked: where a server wrote down the request alone, that is what to look at first.
func TestEvidenceOnlyAsked(t *testing.T) {
	s := lookingSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	says(t, s, "/var/log/syslog", "in.tftpd[7]: RRQ from 10.0.0.5 filename images/vmlinuz")
	letPass(t, s, 4*time.Second)
	pass(t, s, 80*time.Second)
	const want = "images/vmlinuz was only asked for: nobody logged that it was sent: /srv/tftp has no images/vmlinuz"
	for range 2 {
		n := s.Seen("n1")
		if n.Summary != "stalled(initrd-sent)" || n.Stuck == nil || len(n.Stuck.Likely) < 2 || n.Stuck.Likely[0] != want {
			t.Fatalf("n1 = %s, stuck %+v, want %q first", n.Summary, n.Stuck, want)
		}
		s.Restart()
	}
	// That it was sent may be known much later: such a file takes its time.
	says(t, s, "/var/log/syslog", "in.tftpd[7]: Client 10.0.0.5 finished images/vmlinuz")
	if st := s.Seen("n1").Stuck; st == nil || slices.Contains(st.Likely, want) {
		t.Errorf("after the file was sent: %+v", st)
	}
	if got := told(t, s, "n1"); len(got) != 5 {
		t.Errorf("told %q, want five stages", got)
	}
}

// TestEvidenceBlind: that the log which would show a stage cannot be read comes before every guess.
func TestEvidenceBlind(t *testing.T) {
	s := lookingSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	s.Clock.Advance(time.Second)
	blind := func(trouble error) {
		t.Helper()
		for _, name := range []string{"/var/log/httpd/access_log", "/var/log/other"} {
			if err := s.Observe(ctx, evidence.Batch{Source: name, Trouble: trouble}); err != nil {
				t.Fatal(err)
			}
		}
	}
	blind(errors.New("permission denied"))
	says(t, s, "/var/log/syslog", append(lease("10.0.0.5", mac), "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5")...)
	pass(t, s, 80*time.Second)
	listed := func() string {
		var out strings.Builder
		if err := s.EncodeNodes([]string{"n1"}, func(b []byte) error { out.Write(b); return nil }); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	const want = "the log that would show it cannot be read: httpd"
	if n := s.Seen("n1"); n.Summary != "stalled(initrd-sent)" || len(n.Stuck.Likely) < 2 || n.Stuck.Likely[0] != want || !strings.Contains(listed(), want) {
		t.Errorf("n1 = %s, stuck %+v, want %q first", n.Summary, n.Stuck, want)
	}
	blind(nil)
	if n := s.Seen("n1"); slices.Contains(n.Stuck.Likely, want) || strings.Contains(listed(), want) {
		t.Errorf("the log can be read: stuck %+v", n.Stuck)
	}
}

// TestEvidenceByNetwork: anybody can send syslog. Only a listed sender's word ends an install.
func TestEvidenceByNetwork(t *testing.T) {
	for from, failed := range map[string]bool{"10.0.0.2": true, "10.0.9.2": false} {
		s := logSite(t, "log:dnsmasq")
		s.Evidence.Listed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")}
		s.Restart()
		mac := s.Add("n1", 1)
		s.Ordered("n1")
		b := batch(s, "syslog", append(lease("10.0.0.50", mac), "dnsmasq-tftp[1]: file /srv/tftp/vmlinuz not found for 10.0.0.50")...)
		for i := range b.Facts {
			b.Facts[i].From = netip.MustParseAddr(from)
		}
		if err := s.Observe(ctx, b); err != nil {
			t.Fatal(err)
		}
		if n := s.Seen("n1"); (n.Status == proto.StatusFailed) != failed || len(told(t, s, "n1")) != 5 {
			t.Errorf("from %s: %s, told %q, want failed %v", from, n.Summary, told(t, s, "n1"), failed)
		}
	}
}
