// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// joins is the hello of an installer's boot on a site that boots its nodes by itself.
func joins(t *testing.T, s *registrytest.Site, mac string, boot byte) *proto.HelloAnswer {
	t.Helper()
	a, err := s.Hello(ctx, "", &proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: registrytest.Boot(boot), OffsetMS: 20_000},
		JoinKey: registrytest.JoinKey, MACs: []string{mac}, Journal: registrytest.Journal})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestExternalLoop: what the frontend's logs and the agents' hellos say of a node's boots, and what that is taken for.
func TestExternalLoop(t *testing.T) {
	const (
		loader = "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5"
		config = "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.cfg/01-52-54-00-00-00-01 to 10.0.0.5"
		kernel = "dnsmasq-tftp[1]: sent /srv/tftp/el9/vmlinuz to 10.0.0.5"
		initrd = "dnsmasq-tftp[1]: sent /srv/tftp/el9/initrd.img to 10.0.0.5"
		image  = `10.0.0.5 - - [T] "GET /el9/images/install.img HTTP/1.1" 200 800000000 "-" "Anaconda/34 (dracut)"`
		wget   = `10.0.0.5 - - [T] "GET /el9/vmlinuz HTTP/1.1" 200 14000000 "-" "Wget/1.21"`
		ipxe   = `10.0.0.5 - - [T] "GET /el9/vmlinuz HTTP/1.1" 200 14000000 "-" "iPXE/1.21.1+"`
		plain  = `10.0.0.5 - - [T] "GET /el9/vmlinuz HTTP/1.1" 200 14000000`
	)
	type do struct {
		after time.Duration
		what  string // a line; "hello N" of the agent in boot N; "seal"; or "restart" of the collector
	}
	boot := []do{{20 * time.Second, loader}, {time.Second, config}, {time.Second, kernel}, {5 * time.Second, initrd}, {30 * time.Second, image}}
	with := func(all ...[]do) []do { return slices.Concat(all...) }
	const minute = time.Minute
	for _, tt := range []struct {
		name     string
		allowed  int
		do       []do
		attempt  int
		summary  string
		warning  string // of the status; empty: none at all
		decision string // by whose word, if it loops
	}{
		{"one boot", 1, boot, 1, "installing", "", ""},
		{"one boot, and its agent", 1, with(boot, []do{{0, "hello 1"}}), 1, "installing", "", ""},
		{"the installer again, by logs alone", 1, with(boot, boot), 2, "failed(loop=2)", "was sent again", "log:dnsmasq"},
		{"the installer again, after a restart of the collector", 1, with(boot, []do{{0, "restart"}}, boot), 2, "failed(loop=2)", "was sent again", "log:dnsmasq"},
		{"the installer again, which its agent's hello does not count once more", 1, with(boot, boot, []do{{0, "hello 1"}}), 2, "failed(loop=2)", "was sent again", "log:dnsmasq"},
		{"twice, of two that are allowed", 2, with(boot, []do{{0, "hello 1"}}, boot, []do{{0, "hello 2"}}), 2, "installing", "was sent again", ""},
		{"thrice, of two that are allowed", 2, with(boot, []do{{0, "hello 1"}}, boot, []do{{0, "hello 2"}}, boot), 3, "failed(loop=3)", "was sent again", "log:dnsmasq"},
		{"seen by its kernel alone, in a web server's log", 1, []do{{minute, ipxe}, {2 * minute, ipxe}}, 2, "failed(loop=2)", "", "log:http"},
		{"in a web server's log that has no user agents", 1, []do{{minute, plain}, {2 * minute, plain}}, 2, "failed(loop=2)", "", "log:http"},
		{"seen by hellos alone", 1, []do{{minute, "hello 1"}, {minute, "hello 2"}}, 2, "failed(loop=2)", "", "auth"},
		{"a kernel that is fetched again at once", 1, []do{{minute, kernel}, {20 * time.Second, kernel}}, 1, "pxe-booting", "", ""},
		{"a kernel that the installer fetches", 1, with(boot, []do{{0, "hello 1"}, {minute, wget}}), 1, "installing", "", ""},
		{"boot from the disk by way of the network, the seal having come", 1, with(boot, []do{{0, "hello 1"}, {minute, "seal"}, {minute, loader}, {0, config}}), 1, "rebooting", "", ""},
		{"the same, without a seal", 1, with(boot, []do{{0, "hello 1"}, {minute, loader}, {0, config}}), 1, "installing", "pxelinux.0 was sent again", ""},
		{"lines that come late", 1, []do{{minute, "hello 1"}, {0, "-30s " + loader}, {0, "-25s " + kernel}, {0, "-22s " + kernel}}, 1, "installing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := logSite(t)
			s.Profiles.All["compute"].Recipe.Attempts = tt.allowed
			mac := s.Add("n1", 1)
			id := s.Ordered("n1")
			says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
			last := byte(0)
			for _, d := range tt.do {
				s.Clock.Advance(d.after)
				if _, err := fmt.Sscanf(d.what, "hello %d", &last); err == nil {
					joins(t, s, mac, last)
					e := event(uint64(last), proto.KindAgentStart, last, func(e *proto.Event) { e.Stage, e.OffsetMS = "agent-started", 19_000 })
					q := request(id, registrytest.Journal, e)
					q.Clock.Boot, q.Clock.OffsetMS = registrytest.Boot(last), 20_000
					if _, err := s.Events(ctx, id, q); err != nil {
						t.Fatal(err)
					}
					continue
				}
				switch when, line, late := strings.Cut(d.what, "s "); {
				case d.what == "restart":
					s.Restart()
				case d.what == "seal":
					e := event(uint64(last)+1, proto.KindSealed, last, func(e *proto.Event) { e.Stage, e.OffsetMS = "sealed", 80_000 })
					q := request(id, registrytest.Journal, e)
					q.Clock.Boot, q.Clock.OffsetMS = registrytest.Boot(last), 80_000
					if _, err := s.Events(ctx, id, q); err != nil {
						t.Fatal(err)
					}
				case late && strings.HasPrefix(when, "-"):
					back, err := time.ParseDuration(when + "s")
					if err != nil {
						t.Fatal(err)
					}
					says(t, s, "/var/log/syslog", s.Clock.Now().Add(back).Format(time.RFC3339Nano)+" front "+line)
				default:
					says(t, s, "/var/log/messages", strings.Replace(d.what, "[T]", s.Clock.Now().Format("[02/Jan/2006:15:04:05 -0700]"), 1))
				}
			}
			n := s.Seen("n1")
			if n.Summary != tt.summary || n.Attempt != tt.attempt {
				t.Errorf("n1 = %s in attempt %d, want %s in %d; %q", n.Summary, n.Attempt, tt.summary, tt.attempt, told(t, s, "n1"))
			}
			if n.BootAction != proto.BootDisk {
				t.Errorf("boot action %s, want what it was: disk", n.BootAction)
			}
			if tt.warning == "" && len(n.Warnings) > 0 || tt.warning != "" && !slices.ContainsFunc(n.Warnings, func(w string) bool { return strings.Contains(w, tt.warning) }) {
				t.Errorf("warnings %q, want %q", n.Warnings, tt.warning)
			}
			if tt.decision != "" && (n.Cause == nil || string(n.Cause.Source) != tt.decision || !strings.Contains(n.Cause.Message, "Provost cannot stop this node") ||
				!strings.Contains(n.Cause.Message, "set its next boot to disk in your PXE configuration")) {
				t.Errorf("cause %+v, want a loop that cannot be stopped, by the word of %s", n.Cause, tt.decision)
			}
		})
	}
}

// TestExternalIsNotOurs: the logs count no attempts of a node that our own boot server boots.
func TestExternalIsNotOurs(t *testing.T) {
	s := logSite(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Sequence = logSequence
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	for range 3 {
		s.Clock.Advance(2 * time.Minute)
		says(t, s, "/var/log/syslog", "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5")
	}
	if n := s.Seen("n1"); n.Attempt != 0 || n.Status != proto.StatusPXEBooting {
		t.Errorf("n1 = %s in attempt %d, want pxe-booting before any", n.Summary, n.Attempt)
	}
}

// TestEvidenceMended: what went wrong and goes well afterwards is no warning any more, but for its history.
func TestEvidenceMended(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  []string // in the warnings that are left
	}{
		{"a file that was put there", []string{"dnsmasq-tftp[1]: file /srv/tftp/el9/vmlinuz not found for 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/el9/vmlinuz to 10.0.0.5"}, nil},
		{"a file that may be read now", []string{`10.0.0.5 - - [T] "GET /ks/n1.ks HTTP/1.1" 403 153 "-" "anaconda/34"`, `10.0.0.5 - - [T] "GET /ks/n1.ks HTTP/1.1" 200 1530 "-" "anaconda/34"`}, nil},
		{"and then not again", []string{"dnsmasq-tftp[1]: file /srv/tftp/el9/vmlinuz not found for 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/el9/vmlinuz to 10.0.0.5",
			"dnsmasq-tftp[1]: file /srv/tftp/el9/vmlinuz not found for 10.0.0.5"}, []string{"vmlinuz is not on the TFTP server"}},
		{"another file", []string{"dnsmasq-tftp[1]: file /srv/tftp/el9/vmlinuz not found for 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/el9/initrd.img to 10.0.0.5"}, []string{"vmlinuz is not on the TFTP server"}},
		{"the file that another node gets", []string{"dnsmasq-tftp[1]: file /srv/tftp/el9/vmlinuz not found for 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/el9/vmlinuz to 10.0.0.6"}, []string{"vmlinuz is not on the TFTP server"}},
		{"an address in the end", []string{"dnsmasq-dhcp[1]: DHCPDISCOVER(br0) 52:54:00:00:00:01 no address available", "dnsmasq-dhcp[1]: DHCPACK(br0) 10.0.0.7 52:54:00:00:00:01"}, nil},
		{"a probe of the size, and the boot loader", []string{"in.tftpd[7]: RRQ from 10.0.0.5 filename grubx64.efi\nin.tftpd[7]: tftp: client does not accept options",
			"in.tftpd[8]: RRQ from 10.0.0.5 filename grubx64.efi"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := logSite(t)
			mac := s.Add("n1", 1)
			s.Add("n2", 2)
			s.Ordered("n1")
			s.Ordered("n2")
			says(t, s, "/var/log/syslog", append(lease("10.0.0.5", mac), lease("10.0.0.6", registrytest.MAC(2))...)...)
			said := 0
			for _, l := range tt.lines {
				s.Clock.Advance(5 * time.Second)
				l = strings.Replace(l, "[T]", s.Clock.Now().Format("[02/Jan/2006:15:04:05 -0700]"), 1)
				says(t, s, "/var/log/nginx/access.log", strings.Split(l, "\n")...)
				letPass(t, s, 4*time.Second)
				said = max(said, len(s.Seen("n1").Warnings))
			}
			if said == 0 {
				t.Error("no warning was given at any time")
			}
			s.Restart()
			got := s.Seen("n1").Warnings
			if len(got) != len(tt.want) || len(got) > 0 && !strings.Contains(got[0], tt.want[0]) {
				t.Errorf("warnings %q, want %q", got, tt.want)
			}
			if !slices.ContainsFunc(told(t, s, "n1"), func(l string) bool { return strings.Contains(l, "! ") }) {
				t.Errorf("the timeline forgot the warning: %q", told(t, s, "n1"))
			}
		})
	}
}

// TestEvidenceMendedBounded: a file that comes and goes for ever costs a bounded number of events.
func TestEvidenceMendedBounded(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	for range 100 {
		s.Clock.Advance(10 * time.Millisecond)
		says(t, s, "/var/log/syslog", "dnsmasq-tftp[1]: file /srv/tftp/vmlinuz not found for 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5")
	}
	list, err := s.InstallEvents("n1", "latest")
	if err != nil {
		t.Fatal(err)
	}
	if got := len(list.Events); got > 60 {
		t.Errorf("%d events of 100 changes, want some 40", got)
	}
	if n := s.Seen("n1"); len(n.Warnings) == 0 {
		t.Error("a file that is missing again and again is no warning")
	}
}

// TestEvidenceByUUID: a machine whose agent told its UUID is known by that in logs that have neither its MAC nor its address.
func TestEvidenceByUUID(t *testing.T) {
	const uuid, wire = "4c4c4544-0044-3010-8052-b4c04f373632", "44454c4c-4400-1030-8052-b4c04f373632"
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	s.Ordered("n1")
	hello := func(mac string, boot byte, uuid string) {
		t.Helper()
		if _, err := s.Hello(ctx, "", &proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: registrytest.Boot(boot)}, JoinKey: registrytest.JoinKey,
			MACs: []string{mac}, UUID: uuid, Journal: registrytest.Journal}); err != nil {
			t.Fatal(err)
		}
	}
	hello(mac, 1, strings.ToUpper(uuid))
	s.Restart()
	lines := []string{"in.tftpd[7]: RRQ from 10.0.0.9 filename pxelinux.cfg/" + wire, "in.tftpd[7]: sending NAK (1, File not found) to 10.0.0.9",
		"dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.9"}
	s.Ordered("n1")
	s.Clock.Advance(time.Minute)
	says(t, s, "/var/log/syslog", lines...)
	if got := told(t, s, "n1"); !slices.Equal(got, []string{"log:dnsmasq kernel-sent"}) {
		t.Errorf("n1 learnt %q, want of its kernel", got)
	}
	// Two machines with the same number are told apart by other means, or not at all.
	s.Ordered("n2")
	hello(registrytest.MAC(2), 2, uuid)
	s.Ordered("n1")
	s.Clock.Advance(time.Minute)
	says(t, s, "/var/log/syslog", strings.Split(strings.ReplaceAll(strings.Join(lines, "\n"), "10.0.0.9", "10.0.0.8"), "\n")...)
	if got := append(told(t, s, "n1"), told(t, s, "n2")...); len(got) != 0 {
		t.Errorf("learnt %q by a number that two nodes have", got)
	}
}

// TestExternalLikely: what an operator is told to look at is the site's, and no more what was mended.
func TestExternalLikely(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/syslog", "dnsmasq-tftp[1]: file /srv/tftp/pxelinux.0 not found for 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5",
		"dnsmasq-tftp[1]: file /srv/tftp/el9/vmlinuz not found for 10.0.0.5")
	s.Clock.Advance(61 * time.Second)
	if _, err := s.Expire(ctx); err != nil {
		t.Fatal(err)
	}
	n := s.Seen("n1")
	if n.Summary != "stalled(kernel-sent)" || n.Stuck == nil {
		t.Fatalf("n1 = %s, stuck %+v, want stalled(kernel-sent)", n.Summary, n.Stuck)
	}
	likely := strings.Join(n.Stuck.Likely, "\n")
	if !strings.HasPrefix(likely, "a log says: /srv/tftp/el9/vmlinuz is not on the TFTP server") || strings.Contains(likely, "pxelinux.0") || strings.Contains(likely, "says: \n") {
		t.Errorf("likely:\n%s\nwant the kernel's log first, and not what was mended", likely)
	}
	if !strings.Contains(likely, "your boot loader's configuration") || strings.Contains(likely, "8480") {
		t.Errorf("likely:\n%s\nwant what is on the site's servers", likely)
	}
	if in, err := s.Install("n1", "latest"); err != nil || in.Boot != "external" {
		t.Errorf("install %+v, %v, want boot: external", in.Boot, err)
	}
}
