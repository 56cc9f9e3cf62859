// SPDX-License-Identifier: Apache-2.0

package sequence_test

import (
	"strings"
	"testing"

	"provost/collector/internal/profile"
	"provost/collector/internal/sequence"
)

func shipped(t *testing.T) *profile.Set {
	t.Helper()
	set, err := profile.Load("")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestEveryPairHasCauses: whatever stage is awaited after whatever other one, in every sequence that ships and whatever can be
// seen on a frontend, there is something to look at that was thought about.
func TestEveryPairHasCauses(t *testing.T) {
	set := shipped(t)
	for _, name := range set.Sequences() {
		for _, sources := range [][]string{{"agent", "operator", "boot", "log", "compat"}, {"agent", "operator", "boot"}, {"agent", "operator"}} {
			q := set.Sequence(name).Visible(sources...)
			for _, s := range q.Stages {
				next, ok := q.Next(s.Name)
				if !ok {
					continue
				}
				got := q.Likely(sequence.Evidence{Last: s.Name, Awaited: next.Name})
				if len(got) < 2 || strings.Contains(got[0], "nobody reported it: is `provost-agent") {
					t.Errorf("%s, seen by %v: after %s, %s awaited: likely %q", name, sources, s.Name, next.Name, got)
				}
				if whole := q.Likely(sequence.Evidence{Last: s.Name, Awaited: "booted"}); len(whole) == 0 || whole[0] != got[0] {
					t.Errorf("%s: after %s the whole install took too long: likely %q, want what keeps it from %s", name, s.Name, whole, next.Name)
				}
			}
		}
	}
}

func TestLikely(t *testing.T) {
	q := shipped(t).Sequence("redhat")
	seen := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	for _, c := range []struct {
		name  string
		in    sequence.Evidence
		first []string // parts of the first causes
	}{
		{"nothing at all", sequence.Evidence{Last: "ordered", Awaited: "dhcp-discover"}, []string{"is off", "boots the disk first", "MAC is not", "VLAN"}},
		{"no offer", sequence.Evidence{Last: "dhcp-discover", Awaited: "dhcp-offer"}, []string{"pool", "no subnet"}},
		{"offer not taken", sequence.Evidence{Last: "dhcp-offer", Awaited: "dhcp-request"}, []string{"another DHCP server answered", "portfast"}},
		{"refused", sequence.Evidence{Last: "dhcp-request", Awaited: "dhcp-ack", Seen: seen("dhcp-nak")}, []string{"refused its address", "chose another"}},
		{"lease given, no request", sequence.Evidence{Last: "dhcp-ack", Awaited: "bootscript-sent"}, []string{"next-server", "firewall drops TFTP", "Secure Boot"}},
		{"its address is in use", sequence.Evidence{Last: "dhcp-ack", Awaited: "bootscript-sent", Seen: seen("dhcp-decline")}, []string{"address in use", "next-server"}},
		{"a log knows better", sequence.Evidence{Last: "dhcp-ack", Awaited: "bootscript-sent", Remarks: []string{"wrong.0 is not on the TFTP server"}},
			[]string{"a log says: wrong.0 is not", "next-server"}},
		{"loader, no script", sequence.Evidence{Last: "bootloader-sent", Awaited: "bootscript-sent"}, []string{"architecture", "configuration is not where"}},
		{"loader and script, no kernel", sequence.Evidence{Last: "bootloader-sent", Awaited: "kernel-sent", Seen: seen("bootscript-sent")}, []string{"the kernel that the profile names"}},
		{"no agent", sequence.Evidence{Last: "initrd-sent", Awaited: "agent-started"}, []string{"no driver", "`overlay`"}},
		{"no answer file", sequence.Evidence{Last: "agent-started", Awaited: "installer-started"}, []string{"not fetched its answer file", "inst.repo="}},
		{"answer file sent", sequence.Evidence{Last: "answer-sent", Awaited: "installer-started", Seen: seen("answer-sent")}, []string{"inst.repo=", "memory"}},
		{"no disk", sequence.Evidence{Last: "installer-started", Awaited: "partitioned"}, []string{"sees no disk"}},
		{"pre steps run", sequence.Evidence{Last: "pre-started", Awaited: "partitioned"}, []string{"a step hangs", "sees no disk"}},
		{"packages", sequence.Evidence{Last: "packages-started", Awaited: "packages-done"}, []string{"repository's server"}},
		{"a step", sequence.Evidence{Last: "post-started", Awaited: "post-done"}, []string{"a step hangs"}},
		{"not sealed", sequence.Evidence{Last: "post-done", Awaited: "sealed"}, []string{"provost-agent seal"}},
		{"no disk boot", sequence.Evidence{Last: "sealed", Awaited: "disk-booted"}, []string{"no boot loader", "sanboot", "firstboot-unit"}},
		{"by an alias", sequence.Evidence{Last: "sealed", Awaited: "Reboot_Okay"}, []string{"no boot loader"}},
		{"a site's own", sequence.Evidence{Last: "sealed", Awaited: "racked"}, []string{"`provost-agent report racked`", "console"}},
	} {
		got := q.Likely(c.in)
		for i, want := range c.first {
			if i >= len(got) || !strings.Contains(got[i], want) {
				t.Errorf("%s: likely %q, want %q as number %d", c.name, got, want, i+1)
			}
		}
	}
}

// TestLikelyExternal: where the site boots its nodes itself, no cause is one of our boot server's.
func TestLikelyExternal(t *testing.T) {
	set := shipped(t)
	for _, name := range set.Sequences() {
		q := set.Sequence(name)
		for _, after := range q.Stages {
			for _, awaited := range q.Stages {
				for _, external := range []bool{true, false} {
					for _, got := range q.Likely(sequence.Evidence{Last: after.Name, Awaited: awaited.Name, External: external}) {
						if strings.Contains(got, "|") || got == "" {
							t.Errorf("%s, %s after %s: likely %q", name, awaited.Name, after.Name, got)
						}
						for _, ours := range []string{"8480", "dhcp-config", "/boot/$", "sanboot", "`overlay`", "that the profile names"} {
							if external && strings.Contains(got, ours) {
								t.Errorf("%s, %s after %s: likely %q speaks of our boot server", name, awaited.Name, after.Name, got)
							}
						}
					}
				}
			}
		}
	}
}
