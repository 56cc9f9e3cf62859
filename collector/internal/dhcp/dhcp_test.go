// SPDX-License-Identifier: Apache-2.0

package dhcp_test

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/dhcp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func site(subnets ...string) dhcp.Site {
	s := dhcp.Site{Frontend: netip.MustParseAddrPort("10.0.0.1:8480"), Nodes: []dhcp.Node{
		{Name: "n1", MACs: []string{"52:54:00:00:00:01"}, IP: "10.0.0.11"},
		{Name: "n2.cluster", MACs: []string{"52:54:00:00:00:02", "52:54:00:00:00:12"}, IP: "10.0.0.12"},
		{Name: "n3", MACs: []string{"52:54:00:00:00:03"}},
	}}
	for _, p := range subnets {
		s.Subnets = append(s.Subnets, netip.MustParsePrefix(p))
	}
	return s
}

func TestConfig(t *testing.T) {
	for _, server := range dhcp.Servers {
		for kind, s := range map[string]dhcp.Site{"plain": site(), "subnets": site("10.0.0.0/24", "10.1.0.0/16")} {
			got, err := dhcp.Config(server, s)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", server+"-"+kind)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s: -want +got (go test -update writes it anew)\n%s", path, diff)
			}
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, c := range []struct {
		change func(*dhcp.Site)
		want   string
	}{
		{func(s *dhcp.Site) { s.Frontend = netip.AddrPort{} }, "is no IPv4 address with a port"},
		{func(s *dhcp.Site) { s.Frontend = netip.MustParseAddrPort("[fd00::1]:8480") }, "is no IPv4 address with a port"},
		{func(s *dhcp.Site) { s.Frontend = netip.MustParseAddrPort("0.0.0.0:8480") }, "is no IPv4 address with a port"},
		{func(s *dhcp.Site) { s.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")} }, "write an IPv4 network"},
		{func(s *dhcp.Site) { s.Subnets = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")} }, "address 10.0.0.11 is in none of the subnets"},
		{func(s *dhcp.Site) { s.Nodes[0].Name = "n1;}" }, "node name"},
		{func(s *dhcp.Site) { s.Nodes[0].MACs[0] = "52:54\nboot" }, "node n1: address 52:54"},
		{func(s *dhcp.Site) { s.Nodes[0].IP = "fd00::1" }, "is no IPv4 address"},
		{func(s *dhcp.Site) { s.Nodes[0].IP = "10.0.0.12" }, "nodes n1 and n2.cluster have the same address"},
	} {
		s := site()
		c.change(&s)
		if _, err := dhcp.Config("dnsmasq", s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Config = %v, want %q", err, c.want)
		}
	}
	if _, err := dhcp.Config("udhcpd", site()); err == nil || !strings.Contains(err.Error(), "use one of dnsmasq, isc, kea") {
		t.Errorf("Config = %v", err)
	}
}

// TestRealServers lets the servers themselves read the snippets, as far as they are installed here.
func TestRealServers(t *testing.T) {
	for server, command := range map[string]string{
		"dnsmasq": "dnsmasq --test -C FILE", "isc": "dhcpd -t -4 -cf FILE -lf /dev/null", "kea": "kea-dhcp4 -t FILE",
	} {
		t.Run(server, func(t *testing.T) {
			words := strings.Fields(command)
			if _, err := exec.LookPath(words[0]); err != nil {
				t.Skipf("not read by the real one: %v", err)
			}
			for _, kind := range []string{"plain", "subnets"} {
				cmd := exec.Command("sh", "-c", strings.ReplaceAll(command, "FILE", "testdata/"+server+"-"+kind))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", cmd, err, out)
				}
			}
		})
	}
}
