// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/lab"
	"provost/initrd/e2e/vm"
	"provost/proto"
)

// TestFrontendLogs boots machines on a virtual network with a real dnsmasq as DHCP and TFTP server and a real Apache, each
// with one thing wrong on the frontend. The collector has their logs and nothing else: no node reaches it.
func TestFrontendLogs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace: run it as root")
	}
	ctx := within(t, patience)
	l, err := lab.New(ctx, fstest.MapFS{
		"profiles/site.yaml":    {Mode: 0o644, Data: []byte("name: site\nboot: external\n")},
		"profiles/trusted.yaml": {Mode: 0o644, Data: []byte("name: trusted\nboot: external\ntrust: [agent, boot, \"log:apache\"]\n")},
		"sequences/generic.yaml": {Mode: 0o644, Data: []byte(`family: generic
stages:
  - {name: ordered, within: 5m, sources: [operator]}
  - {name: dhcp-discover, within: 20s, sources: [log]} # n4 stays here
  - {name: dhcp-offer, within: 5m, sources: [log]}
  - {name: dhcp-request, within: 5m, sources: [log]}
  - {name: dhcp-ack, within: 45s, sources: [log]} # n1
  - {name: bootloader-sent, within: 5m, sources: [log]}
  - {name: bootscript-sent, within: 30s, sources: [log]} # n2
  - {name: kernel-sent, within: 5m, sources: [log]}
  - {name: initrd-sent, within: 5m, sources: [log]}
  - {name: answer-sent, within: 5m, sources: [log]}
  - {name: agent-started, within: 5m, sources: [agent]}
  - {name: booted, sources: [agent]}
`)},
	}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	f := newSegment(t, l.Dir)
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			t.Logf("consoles and logs are in %s and %s", l.Dir, f.dir)
		} else {
			os.RemoveAll(l.Dir)
			os.RemoveAll(f.dir)
		}
	})
	err = l.AddSettings(fmt.Sprintf(`evidence:
  files: [{path: %q, kind: dnsmasq}, {path: %q, kind: access}, {path: %q, kind: error}]
  tftp-roots: [%q]
  web-roots: [%q]
`, f.path("dnsmasq.log"), f.path("apache/access_log"), f.path("apache/error_log"), f.path("tftp"), f.path("www")))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}

	for i, tt := range []struct {
		node, profile, summary string
		explained              []string // in what provost explain says
	}{
		{"n1", "site", `stalled\(bootloader-sent\)|failed\(stage-deadline\)`, []string{"wrong.0 is not on the TFTP server (bootloader-sent missed)", f.path("tftp") + " has no wrong.0"}},
		{"n2", "site", `stalled\(kernel-sent\)|failed\(stage-deadline\)`, []string{"vmlinuz-5.14 is not on the TFTP server (kernel-sent missed)", f.path("tftp") + " has no vmlinuz-5.14, but vmlinuz"}},
		{"n3", "trusted", `failed\(foreign\)`, []string{"n3.ks may not be read by the web server (answer-sent missed)", f.path("www/ks/n3.ks") + " has mode 0600 and the owner root:root", "chmod o+r"}},
		{"n4", "site", `stalled\(dhcp-offer\)|failed\(stage-deadline\)`, []string{"the DHCP server has no address for 52:54:00:00:90:04 (dhcp-offer missed): no address available"}},
	} {
		n, err := l.AddNode(ctx, tt.node, tt.profile, byte(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Provost(ctx, "install", tt.node); err != nil {
			t.Fatal(err)
		}
		v, err := vm.Start(ctx, vm.Config{Name: n.Name, MAC: n.MAC(), Disk: n.Disk(), Dir: l.Dir, Memory: "512M", Tap: "tap0", Netns: f.netns})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Kill)
		_, err = n.Await(ctx, tt.summary, func(n proto.Node) bool { return regexp.MustCompile("^(?:" + tt.summary + ")$").MatchString(n.Summary) })
		if err != nil {
			t.Error(err)
		}
		text, err := l.Provost(ctx, "explain", tt.node) // which exits 1: the node is stalled or failed
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("provost explain %s: %v, want exit status 1", tt.node, err)
		}
		plain := strings.Join(strings.Fields(text), " ")
		for _, want := range tt.explained {
			if !strings.Contains(plain, want) {
				t.Errorf("provost explain %s does not say %q:\n%s", tt.node, want, text)
			}
		}
		t.Logf("provost explain %s:\n%s", tt.node, text)
		v.Kill()
	}
}

// segment is a network namespace with a bridge, a tap for one machine, dnsmasq and Apache.
type segment struct {
	t          *testing.T
	dir, netns string
}

func (f *segment) path(name string) string { return filepath.Join(f.dir, name) }

func newSegment(t *testing.T, lab string) *segment {
	t.Helper()
	dir, err := os.MkdirTemp("", "provost-frontend-") // beside the lab's, which only root may enter
	if err != nil {
		t.Fatal(err)
	}
	f := &segment{t: t, dir: dir, netns: filepath.Base(lab)}
	for name, text := range map[string]string{
		"tftp/boot2.ipxe": "#!ipxe\nimgfetch tftp://10.77.0.1/vmlinuz-5.14 || sleep 600\n",
		"tftp/boot3.ipxe": "#!ipxe\nimgfetch tftp://10.77.0.1/vmlinuz\nimgfetch tftp://10.77.0.1/initrd.img\nimgfetch http://10.77.0.1/ks/n3.ks || sleep 600\n",
		"tftp/vmlinuz":    strings.Repeat("kernel ", 1000), "tftp/initrd.img": strings.Repeat("initrd ", 1000),
		"www/ks/n3.ks": "# kickstart\n", "apache/access_log": "", "apache/error_log": "", "dnsmasq.log": "",
		"apache.conf": fmt.Sprintf(`ServerName front
PidFile %[1]s/apache.pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
Listen 10.77.0.1:80
User nobody
Group nogroup
DocumentRoot %[1]s/www
ErrorLog %[1]s/apache/error_log
LogFormat "%%h %%l %%u %%t \"%%r\" %%>s %%b \"%%{Referer}i\" \"%%{User-Agent}i\"" combined
CustomLog %[1]s/apache/access_log combined
`, dir),
	} {
		if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, f.path("www/ks/n3.ks"): 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	f.ip("netns", "add", f.netns)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", f.netns).Run() })
	f.ip("-n", f.netns, "link", "set", "lo", "up")
	f.ip("-n", f.netns, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
	f.ip("-n", f.netns, "addr", "add", "10.77.0.1/24", "dev", "br0")
	f.ip("-n", f.netns, "link", "set", "br0", "up")
	f.ip("netns", "exec", f.netns, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap")
	f.ip("-n", f.netns, "link", "set", "tap0", "master", "br0")
	f.ip("-n", f.netns, "link", "set", "tap0", "up")
	// Three addresses: the fourth machine gets none.
	f.start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--bind-interfaces", "--user=root", "--pid-file=",
		"--dhcp-range=10.77.0.50,10.77.0.52,1h", "--dhcp-leasefile="+f.path("leases"), "--dhcp-authoritative", "--no-ping", "--log-facility="+f.path("dnsmasq.log"),
		"--enable-tftp", "--tftp-root="+f.path("tftp"), "--dhcp-boot=wrong.0",
		"--dhcp-host=52:54:00:00:90:02,set:n2", "--dhcp-boot=tag:n2,boot2.ipxe", "--dhcp-host=52:54:00:00:90:03,set:n3", "--dhcp-boot=tag:n3,boot3.ipxe")
	f.start("apache2", "-D", "FOREGROUND", "-f", f.path("apache.conf"))
	return f
}

func (f *segment) ip(args ...string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		f.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// start runs a server in the namespace until the test's end.
func (f *segment) start(name string, args ...string) {
	f.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", f.netns, name}, args...)...)
	log, err := os.Create(f.path(name + ".out"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with Apache's children
		cmd.Wait()
	})
}
