// SPDX-License-Identifier: Apache-2.0

package offers_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/collector/internal/offers"
)

// TestTwoServers asks a network with two real DHCP servers, of which one is nobody's.
func TestTwoServers(t *testing.T) {
	dnsmasq, err := exec.LookPath("dnsmasq")
	if err != nil || os.Getuid() != 0 {
		t.Skip("a network of our own needs root and dnsmasq")
	}
	prefix := fmt.Sprintf("pv%d", os.Getpid()%100000)
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// A bridge in a namespace of its own, and on each of its ports a namespace: who asks, and two servers.
	ns := func(name string) string { return prefix + name }
	run("netns", "add", ns("b"))
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns("b")).Run() })
	run("-n", ns("b"), "link", "add", "br0", "type", "bridge", "forward_delay", "0")
	run("-n", ns("b"), "link", "set", "br0", "up")
	for _, n := range []struct{ name, address string }{{"q", ""}, {"s1", "10.77.0.1/24"}, {"s2", "10.77.0.66/24"}} {
		run("netns", "add", ns(n.name))
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns(n.name)).Run() })
		run("-n", ns("b"), "link", "add", "p"+n.name, "type", "veth", "peer", "name", "eth0", "netns", ns(n.name))
		run("-n", ns("b"), "link", "set", "p"+n.name, "master", "br0", "up")
		run("-n", ns(n.name), "link", "set", "eth0", "up")
		if n.address != "" {
			run("-n", ns(n.name), "addr", "add", n.address, "dev", "eth0")
		}
	}
	logs := map[string]string{}
	for _, sv := range []struct{ name, lease, boot string }{
		{"s1", "10.77.0.100,10.77.0.110,1h", "snponly.efi,,10.77.0.1"}, {"s2", "10.77.0.200,10.77.0.210,1h", "rogue.efi,,10.77.0.99"},
	} {
		dir := t.TempDir()
		logs[sv.name] = filepath.Join(dir, "log")
		cmd := exec.Command("ip", "netns", "exec", ns(sv.name), dnsmasq, "-k", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces", "--no-ping",
			"--user=root", "--dhcp-range="+sv.lease, "--dhcp-boot="+sv.boot, "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--log-dhcp", "--log-facility="+logs[sv.name], "--pid-file=")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
	for _, log := range logs { // a minute
		for i := 0; ; i++ {
			if b, err := os.ReadFile(log); err == nil && strings.Contains(string(b), "DHCP, IP range") {
				break
			}
			if i == 600 {
				t.Fatal("dnsmasq does not start")
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	ask := func(mac net.HardwareAddr) (got []offers.Offer, err error) {
		done := make(chan struct{})
		go func() { // its thread stays in that namespace, and ends with it
			defer close(done)
			runtime.LockOSThread()
			var fd int
			if fd, err = unix.Open("/run/netns/"+ns("q"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return
			}
			defer unix.Close(fd)
			if err = unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return
			}
			got, err = offers.Ask(context.Background(), offers.Question{Interface: "eth0", MAC: mac, Wait: 4 * time.Second})
		}()
		<-done
		return got, err
	}
	for _, mac := range []net.HardwareAddr{nil, {0x52, 0x54, 0, 0, 0, 9}} {
		var got []offers.Offer
		for try := 0; try < 5 && len(got) < 2; try++ { // each asks for 4 s: a slow machine is asked again
			if got, err = ask(mac); err != nil {
				t.Fatal(err)
			}
		}
		slices.SortFunc(got, func(a, b offers.Offer) int { return strings.Compare(a.Server, b.Server) })
		if len(got) != 2 {
			t.Fatalf("as %v: %d offers, want two: %+v", mac, len(got), got)
		}
		for i, want := range []offers.Offer{{Server: "10.77.0.1", NextServer: "10.77.0.1", BootFile: "snponly.efi"}, {Server: "10.77.0.66", NextServer: "10.77.0.99", BootFile: "rogue.efi"}} {
			o := got[i]
			if o.Server != want.Server || o.From != want.Server || o.NextServer != want.NextServer || o.BootFile != want.BootFile || o.Lease != time.Hour || o.Proxy ||
				!strings.HasPrefix(o.Address, "10.77.0.") || o.MAC == "" {
				t.Errorf("as %v: offer %d = %+v, want %+v", mac, i, o, want)
			}
		}
	}
	for name, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil || !strings.Contains(string(b), "DHCPDISCOVER(eth0)") || strings.Contains(string(b), "DHCPREQUEST") {
			t.Errorf("%s saw, %v:\n%s\nwant a DISCOVER and no REQUEST", name, err, b)
		}
	}
}

func TestNoSuchInterface(t *testing.T) {
	if _, err := offers.Ask(t.Context(), offers.Question{Interface: "nosuch0", Wait: time.Second}); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("Ask = %v, want an error that names the interface", err)
	}
}

// FuzzParse: whatever comes off the wire, and whatever its lengths claim.
func FuzzParse(f *testing.F) {
	xid := [4]byte{1, 2, 3, 4}
	frame := make([]byte, 14+20+8+240)
	frame[12], frame[14], frame[23] = 8, 0x45, 17
	copy(frame[26:], []byte{10, 0, 0, 1})
	copy(frame[34:], []byte{0, 67, 0, 68})
	frame[42] = 2
	copy(frame[46:], xid[:])
	copy(frame[42+16:], []byte{10, 0, 0, 5})
	copy(frame[42+108:], "boot.efi")
	copy(frame[42+236:], []byte{99, 130, 83, 99})
	good := append(slices.Clone(frame), 53, 1, 2, 54, 4, 10, 0, 0, 2, 51, 4, 0, 0, 14, 16, 255)
	if o, ok := offers.Parse(good, xid); !ok || o.Server != "10.0.0.2" || o.From != "10.0.0.1" || o.Address != "10.0.0.5" || o.BootFile != "boot.efi" || o.Lease != time.Hour {
		f.Errorf("Parse = %+v, %v", o, ok)
	}
	for _, c := range []struct {
		name string
		edit func([]byte) []byte
	}{
		{"an acknowledgement", func(b []byte) []byte { b[42+242] = 5; return b }},
		{"another transaction", func(b []byte) []byte { b[46] = 9; return b }},
		{"a request", func(b []byte) []byte { b[42] = 1; return b }},
		{"no DHCP", func(b []byte) []byte { b[42+236] = 0; return b }},
		{"cut", func(b []byte) []byte { return b[:200] }},
	} {
		b := c.edit(slices.Clone(good))
		if o, ok := offers.Parse(b, xid); ok {
			f.Errorf("%s is taken for an offer: %+v", c.name, o)
		}
	}
	f.Add(good)
	f.Add(append(slices.Clone(frame), 53, 1, 2, 52, 1, 3, 54, 200, 1))
	f.Fuzz(func(t *testing.T, b []byte) { offers.Parse(b, xid) })
}
