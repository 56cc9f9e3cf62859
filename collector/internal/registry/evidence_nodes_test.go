// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
)

func TestEvidenceRogue(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	s.Ordered("n1")
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/syslog", // n2 takes ours, of which nobody knew: it answers
		"dhcpd[1]: DHCPREQUEST for 10.0.0.6 (10.0.0.2) from "+registrytest.MAC(2)+" via br0", "dhcpd[1]: DHCPACK on 10.0.0.6 to "+registrytest.MAC(2)+" via br0",
		"dhcpd[1]: DHCPREQUEST for 10.0.0.5 (10.0.0.1) from "+mac+" via br0", // known, and slow
	)
	letPass(t, s, 11*time.Second)
	if got := s.Rogues(); len(got) != 0 {
		t.Errorf("rogues %+v, want none", got)
	}
	s.Clock.Advance(6 * time.Second)
	says(t, s, "/var/log/syslog", "dhcpd[1]: DHCPDISCOVER from "+mac+" via br0", "dhcpd[1]: DHCPOFFER on 10.0.0.5 to "+mac+" via br0",
		"dhcpd[1]: DHCPREQUEST for 192.168.1.77 (192.168.1.1) from "+mac+" via br0: wrong network.")
	s.Restart()
	letPass(t, s, 11*time.Second)
	rogues := s.Rogues()
	if len(rogues) != 1 || rogues[0].Server != "192.168.1.1" || rogues[0].Node != "n1" {
		t.Errorf("rogues %+v, want 192.168.1.1 of n1", rogues)
	}
	if w := s.Seen("n1").Warnings; !slices.ContainsFunc(w, func(w string) bool {
		return strings.Contains(w, "took the offer of 192.168.1.1, a DHCP server that is not ours")
	}) {
		t.Errorf("warnings %q, want the rogue", w)
	}
	s.Restart()
	if got := s.Rogues(); len(got) != 1 || !got[0].At.Equal(rogues[0].At) {
		t.Errorf("after a restart %+v, want %+v", got, rogues)
	}
	s.Clock.Advance(8 * 24 * time.Hour)
	if got := s.Rogues(); len(got) != 0 {
		t.Errorf("%+v are still told of after a week in which they were not seen", got)
	}
}

// TestEvidenceFromNodes: what a node sends by syslog counts for itself alone, and its text is kept with its install.
func TestEvidenceFromNodes(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	s.Ordered("n1")
	s.Ordered("n2")
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	forged := batch(s, "syslog", append(lease("10.0.0.9", registrytest.MAC(2)), "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5",
		"preseed[1]: successfully loaded preseed file from http://10.0.0.1/n2/preseed.cfg")...)
	for i := range forged.Facts {
		forged.Facts[i].From = netip.MustParseAddr("10.0.0.5")
	}
	if err := s.Observe(ctx, forged); err != nil {
		t.Fatal(err)
	}
	if got := told(t, s, "n2"); len(got) != 0 {
		t.Errorf("n2 learnt %q from what n1 sent", got)
	}
	if got := told(t, s, "n1"); len(got) != 5 || got[4] != "log:installer answer-sent" {
		t.Errorf("n1: %q, want its lease and its own answer file", got)
	}
	for _, tt := range []struct {
		from string
		want bool
	}{{"10.0.0.5", true}, {"10.0.0.5", true}, {"10.0.0.77", false}} {
		if node, err := s.KeepSyslog(netip.MustParseAddr(tt.from), []byte("a line\n")); node != tt.want || err != nil {
			t.Errorf("KeepSyslog(%s) = %v, %v, want %v", tt.from, node, err, tt.want)
		}
	}
	f, err := s.OpenLog("n1", "latest", "syslog-network")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); string(b) != "a line\na line\n" {
		t.Errorf("the log is %q, %v", b, err)
	}
}
