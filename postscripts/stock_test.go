// SPDX-License-Identifier: Apache-2.0

package postscripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostname(t *testing.T) {
	const mark = "\t# provost: hostname\n"
	each(t, func(t *testing.T, shell string) {
		for _, c := range []struct {
			name     string
			env      []string
			before   string // /etc/hosts; "" for none
			hostname string
			after    string
			message  string
		}{
			{"no domain", nil, "127.0.0.1 localhost\n", "n1\n", "127.0.0.1 localhost\n", "this is n1"},
			{"no domain, no hosts", nil, "", "n1\n", "-", "this is n1"},
			{"domain, no hosts", []string{"PROVOST_ATTR_DOMAIN=example.org"}, "", "n1\n",
				"127.0.1.1\tn1.example.org n1" + mark + "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", "this is n1.example.org"},
			{"the installer's line goes", []string{"PROVOST_ATTR_DOMAIN=example.org"},
				"127.0.0.1\tlocalhost\n127.0.1.1\tn1.lan\tn1\n\n# keep * this\n10.0.0.9 store.example.org store\n", "n1\n",
				"127.0.1.1\tn1.example.org n1" + mark + "127.0.0.1\tlocalhost\n127.0.1.1 n1.lan\n\n# keep * this\n10.0.0.9 store.example.org store\n", "this is n1.example.org"},
			{"names of localhost stay", []string{"PROVOST_ATTR_DOMAIN=.example.org"}, "127.0.0.1 localhost n1 n1.example.org # loop\n::1 localhost\n", "n1\n",
				"127.0.1.1\tn1.example.org n1" + mark + "127.0.0.1 localhost\n::1 localhost\n", "this is n1.example.org"},
			{"somebody's own line stays", []string{"PROVOST_ATTR_DOMAIN=example.org", "ADDRESS=10.0.0.7"}, "10.1.0.7 n1 n1-ib\n127.0.1.1 n1", "n1\n",
				"10.0.0.7\tn1.example.org n1" + mark + "10.1.0.7 n1 n1-ib\n", "this is n1.example.org"},
			{"another domain before", []string{"PROVOST_ATTR_DOMAIN=b.org"}, "127.0.1.1\tn1.a.org n1" + mark + "127.0.0.1 localhost", "n1\n",
				"127.0.1.1\tn1.b.org n1" + mark + "127.0.0.1 localhost\n", "this is n1.b.org"},
			{"a star is no pattern", []string{"PROVOST_ATTR_DOMAIN=example.org"}, "127.0.1.1 n1 *\n", "n1\n",
				"127.0.1.1\tn1.example.org n1" + mark + "127.0.1.1 *\n", "this is n1.example.org"},
			{"a node named by its whole name", []string{"PROVOST_NODE=n1.example.org", "PROVOST_ATTR_DOMAIN=example.org"}, "", "n1\n",
				"127.0.1.1\tn1.example.org n1" + mark + "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", "this is n1.example.org"},
		} {
			t.Run(c.name, func(t *testing.T) {
				tg := newTarget(t, shell)
				tg.write("etc/hostname", "debian\n", 0o600)
				if c.before != "" {
					tg.write("etc/hosts", c.before, 0o644)
				}
				for range 2 { // the second run must change nothing
					got := tg.run("hostname", c.env...)
					if got.rc != 0 || got.status != "message="+c.message+"\n" {
						t.Fatalf("status %d, said %q, output %q", got.rc, got.status, got.out)
					}
					if h := tg.read("etc/hostname"); h != c.hostname || tg.mode("etc/hostname") != 0o644 {
						t.Errorf("hostname = %q with mode %s, want %q", h, tg.mode("etc/hostname"), c.hostname)
					}
					if h := tg.read("etc/hosts"); h != c.after {
						t.Errorf("hosts =\n%swant\n%s", h, c.after)
					}
				}
			})
		}
	})
}

func TestHostnameErrorsAndPhases(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		for _, c := range []struct {
			env, want string
			rc        int
		}{
			{"PROVOST_NODE=", "PROVOST_NODE is not set", 64},
			{"PROVOST_ATTR_DOMAIN=a b", "is no domain", 78},
			{"PROVOST_ATTR_DOMAIN=a..b", "is no domain", 78},
			{"PROVOST_ATTR_DOMAIN=$(reboot)", "is no domain", 78},
			{"ADDRESS=10.0.0.7 evil", "is no address", 78},
		} {
			got := tg.run("hostname", c.env)
			if got.rc != c.rc || !strings.Contains(got.out, c.want) || !strings.Contains(got.status, c.want) || tg.read("etc/hostname") != "-" {
				t.Errorf("%s: status %d, output %q, hostname %q", c.env, got.rc, got.out, tg.read("etc/hostname"))
			}
		}
		tg.write("proc/sys/kernel/hostname", "(none)\n", 0o644)
		if tg.run("hostname"); tg.read("proc/sys/kernel/hostname") != "(none)\n" {
			t.Error("in phase post the installer's own name was changed")
		}
		if got := tg.run("hostname", "PROVOST_PHASE=firstboot"); got.rc != 0 || tg.read("proc/sys/kernel/hostname") != "n1\n" {
			t.Errorf("in phase firstboot: status %d, output %q, the kernel has %q", got.rc, got.out, tg.read("proc/sys/kernel/hostname"))
		}
		tg.write("etc/hostname", "x\n", 0o644)
		if got := tg.runOutside("hostname", "PROVOST_PHASE=firstboot"); got.rc != 0 || tg.read("etc/hostname") != "n1\n" {
			t.Errorf("outside of the chroot: status %d, output %q, hostname %q", got.rc, got.out, tg.read("etc/hostname"))
		}
	})
}

const (
	rsyslogConf = "module(load=\"imuxsock\")\ninclude(file=\"/etc/rsyslog.d/*.conf\" mode=\"optional\")\n"
	// takes every configuration but one with the word refuse
	rsyslogd = "#!/bin/sh\necho \"$@\" >>/tmp/rsyslogd\n! grep -q refuse /etc/rsyslog.d/*\n"
)

func withRsyslog(t *testing.T, shell string) *target {
	tg := newTarget(t, shell)
	tg.write("etc/rsyslog.conf", rsyslogConf, 0o644)
	tg.write("usr/sbin/rsyslogd", rsyslogd, 0o755)
	return tg
}

const remote = "etc/rsyslog.d/20-provost-remote.conf"

func TestRemoteSyslog(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := withRsyslog(t, shell)
		for _, c := range []struct{ server, target, port, protocol string }{
			{"10.0.0.1", "10.0.0.1", "514", "udp"},
			{"10.0.0.1:5140", "10.0.0.1", "5140", "udp"},
			{"log.example.org:6514/tcp", "log.example.org", "6514", "tcp"},
			{"log/tcp", "log", "514", "tcp"},
			{"log/udp", "log", "514", "udp"},
			{"[2001:db8::1]:5140/tcp", "2001:db8::1", "5140", "tcp"},
			{"[2001:db8::1]", "2001:db8::1", "514", "udp"},
			{"2001:db8::1", "2001:db8::1", "514", "udp"},
		} {
			got := tg.run("remote-syslog", "SYSLOG_SERVER="+c.server, "PROVOST_ATTR_SYSLOG=other")
			want := `target="` + c.target + `" port="` + c.port + `" protocol="` + c.protocol + `"`
			if got.rc != 0 || !strings.Contains(tg.read(remote), want) {
				t.Errorf("%s: status %d, output %q, configuration\n%swant %s", c.server, got.rc, got.out, tg.read(remote), want)
			}
		}
		before := tg.identity(remote)
		got := tg.run("remote-syslog", "PROVOST_ATTR_SYSLOG=2001:db8::1")
		if got.rc != 0 || tg.identity(remote) != before || got.status != "message=syslog goes to 2001:db8::1 port 514, udp\n" {
			t.Errorf("by the attribute, again: status %d, said %q; written again: %t", got.rc, got.status, tg.identity(remote) != before)
		}
		if !strings.HasPrefix(tg.read("tmp/rsyslogd"), "-N1\n") {
			t.Errorf("rsyslogd was run with %q", tg.read("tmp/rsyslogd"))
		}
		if got := tg.runOutside("remote-syslog", "SYSLOG_SERVER=10.9.9.9"); got.rc != 0 || !strings.Contains(tg.read(remote), "10.9.9.9") {
			t.Errorf("outside of the chroot: status %d, output %q", got.rc, got.out)
		}
	})
}

func TestRemoteSyslogErrors(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := withRsyslog(t, shell)
		for _, c := range []struct {
			server, want string
		}{
			{"", "no syslog server is given: set env SYSLOG_SERVER"},
			{"log:0", "is not from 1 to 65535"},
			{"log:65536", "is not from 1 to 65535"},
			{"log:99999999999999999999", "is not from 1 to 65535"},
			{"log:", "is not from 1 to 65535"},
			{"log:x", "is not from 1 to 65535"},
			{"log/relp", "neither tcp nor udp"},
			{"a b", "no host"},
			{"\"; stop", "no host"},
			{":514", "no host"},
			{"[", "no host"},
			{"-x", "no host"},
		} {
			got := tg.run("remote-syslog", "SYSLOG_SERVER="+c.server)
			if got.rc != 78 || !strings.Contains(got.out, c.want) || !strings.Contains(got.status, c.want) || tg.read(remote) != "-" {
				t.Errorf("%q: status %d, output %q, configuration %q", c.server, got.rc, got.out, tg.read(remote))
			}
		}

		// a configuration that rsyslogd refuses is taken back, whether there was one before or not
		tg.write("etc/rsyslog.d/99-site.conf", "refuse\n", 0o644)
		got := tg.run("remote-syslog", "SYSLOG_SERVER=new")
		if got.rc != 1 || !strings.Contains(got.out, "rsyslogd -N1 refuses") || tg.read(remote) != "-" {
			t.Errorf("refused: status %d, output %q, configuration %q", got.rc, got.out, tg.read(remote))
		}
		tg.write(remote, "old\n", 0o644)
		if got := tg.run("remote-syslog", "SYSLOG_SERVER=new"); got.rc != 1 || tg.read(remote) != "old\n" || tg.read(remote+".provost-old") != "-" {
			t.Errorf("refused with an old one: status %d, configuration %q, kept %q", got.rc, tg.read(remote), tg.read(remote+".provost-old"))
		}
		tg.write("etc/rsyslog.d/99-site.conf", "", 0o644)

		tg.write("etc/rsyslog.conf", "# include(file=\"/etc/rsyslog.d/*.conf\")\n", 0o644)
		if got := tg.run("remote-syslog", "SYSLOG_SERVER=new"); got.rc != 69 || !strings.Contains(got.out, "does not include") {
			t.Errorf("without an include: status %d, output %q", got.rc, got.out)
		}
		if err := os.Remove(filepath.Join(tg.root, "usr/sbin/rsyslogd")); err != nil {
			t.Fatal(err)
		}
		if got := tg.run("remote-syslog", "SYSLOG_SERVER=new"); got.rc != 69 || !strings.Contains(got.out, "no rsyslogd in the target: add the package rsyslog") {
			t.Errorf("without rsyslogd: status %d, output %q", got.rc, got.out)
		}
	})
}

const unit = "etc/systemd/system/provost-firstboot.service"

func TestFirstbootUnit(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		tg.write("mnt/agent", "\x7fELF agent\x00", 0o755)
		got := tg.run("firstboot-unit", "PROVOST_AGENT=/mnt/agent")
		if got.rc != 69 || !strings.Contains(got.out, "the target has no systemd") || tg.read("usr/sbin/provost-agent") != "-" {
			t.Errorf("without systemd: status %d, output %q", got.rc, got.out)
		}
		tg.write("usr/lib/systemd/systemd", "", 0o755)
		for range 2 {
			got := tg.run("firstboot-unit", "PROVOST_AGENT=/mnt/agent")
			if got.rc != 0 || tg.read("usr/sbin/provost-agent") != "\x7fELF agent\x00" || tg.mode("usr/sbin/provost-agent") != 0o755 {
				t.Fatalf("status %d, output %q, agent %q", got.rc, got.out, tg.read("usr/sbin/provost-agent"))
			}
			link, err := os.Readlink(filepath.Join(tg.root, "etc/systemd/system/multi-user.target.wants/provost-firstboot.service"))
			if err != nil || link != "../provost-firstboot.service" {
				t.Errorf("link = %q, %v", link, err)
			}
		}
		for _, want := range []string{"ConditionPathExists=/var/lib/provost/journal\n", "Wants=network-online.target\n",
			"After=network-online.target YaST2-Second-Stage.service autoyast-initscripts.service\n",
			"ExecStart=/usr/sbin/provost-agent firstboot\n", "Restart=on-failure\n", "WantedBy=multi-user.target\n"} {
			if !strings.Contains(tg.read(unit), want) {
				t.Errorf("%q is not in the unit\n%s", want, tg.read(unit))
			}
		}

		// a second run of the installed agent itself, and another version of it
		if got := tg.run("firstboot-unit", "PROVOST_AGENT=/usr/sbin/provost-agent"); got.rc != 0 {
			t.Errorf("over itself: status %d, output %q", got.rc, got.out)
		}
		if got := tg.run("firstboot-unit"); got.rc != 0 {
			t.Errorf("by PATH: status %d, output %q", got.rc, got.out)
		}
		tg.write("mnt/agent", "new", 0o755)
		if got := tg.runOutside("firstboot-unit", "PROVOST_AGENT="+tg.root+"/mnt/agent"); got.rc != 0 || tg.read("usr/sbin/provost-agent") != "new" {
			t.Errorf("outside of the chroot: status %d, output %q, agent %q", got.rc, got.out, tg.read("usr/sbin/provost-agent"))
		}
		for _, path := range []string{"/nowhere", "/etc", "/steps/none"} {
			if got := tg.run("firstboot-unit", "PROVOST_AGENT="+path); got.rc != 69 || !strings.Contains(got.out, "is no program") {
				t.Errorf("PROVOST_AGENT=%s: status %d, output %q", path, got.rc, got.out)
			}
		}
	})
}

// systemd itself has to be content with the unit, where it is there to ask.
func TestUnitBySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: the unit was not verified")
		return
	}
	tg := newTarget(t, "dash")
	tg.write("usr/lib/systemd/systemd", "", 0o755)
	tg.write("mnt/agent", "agent", 0o755)
	if got := tg.run("firstboot-unit", "PROVOST_AGENT=/mnt/agent"); got.rc != 0 {
		t.Fatalf("status %d, output %q", got.rc, got.out)
	}
	text := strings.Replace(tg.read(unit), "/usr/sbin/provost-agent", filepath.Join(tg.root, "usr/sbin/provost-agent"), 1)
	path := filepath.Join(t.TempDir(), "provost-firstboot.service")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "provost-firstboot") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
