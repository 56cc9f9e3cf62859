// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/profile"
	"provost/collector/internal/sequence"
	"provost/proto"
)

func shipped(t *testing.T) *profile.Set {
	t.Helper()
	set, err := profile.Load("")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestShippedSequences(t *testing.T) {
	set := shipped(t)
	want := []string{"debian", "diskless", "generic", "redhat", "stacki-redhat", "stacki-suse", "suse", "ubuntu"}
	if diff := cmp.Diff(want, set.Sequences()); diff != "" {
		t.Errorf("Sequences: -want +got\n%s", diff)
	}
	for _, name := range want {
		q, at := set.Sequence(name), -1
		for i, s := range q.Stages {
			n := slices.Index(proto.Stages, s.Name)
			if n < 0 || n <= at && !strings.HasPrefix(name, "stacki-") {
				t.Errorf("%s: stage %s is not among proto.Stages, or out of their order", name, s.Name)
			}
			at = n
			if last := i == len(q.Stages)-1; (s.Within == 0) != last {
				t.Errorf("%s: stage %s within %s: only the last one has no limit", name, s.Name, s.Within)
			}
		}
		for _, s := range slices.Concat(q.Stages, q.Aside) {
			if s.Label == "" {
				t.Errorf("%s: stage %s has no label", name, s.Name)
			}
		}
		for _, s := range q.Stages {
			if len(s.Sources) == 0 {
				t.Errorf("%s: stage %s has no sources", name, s.Name)
			}
		}
	}
}

// TestLimits has times that were thought about, so that nobody changes them in passing.
func TestLimits(t *testing.T) {
	set := shipped(t)
	for _, c := range []struct {
		family, from, to string
		within           time.Duration
	}{
		{"generic", "ordered", "dhcp-discover", 15 * time.Minute},
		{"generic", "dhcp-ack", "bootscript-sent", 2 * time.Minute},
		{"generic", "bootscript-sent", "kernel-sent", 2 * time.Minute},
		{"generic", "initrd-sent", "agent-started", 10 * time.Minute},
		{"generic", "agent-started", "installer-started", 10 * time.Minute},
		{"generic", "packages-started", "post-started", 40 * time.Minute},
		{"generic", "post-started", "post-done", 60 * time.Minute},
		{"generic", "post-done", "sealed", 15 * time.Minute},
		{"generic", "sealed", "disk-booted", 15 * time.Minute},
		{"generic", "disk-booted", "firstboot-started", 5 * time.Minute},
		{"generic", "firstboot-started", "firstboot-done", 60 * time.Minute},
		{"generic", "firstboot-done", "booted", 5 * time.Minute},
		{"redhat", "installer-started", "partitioned", 30 * time.Minute},
		{"redhat", "partitioned", "packages-started", 20 * time.Minute},
		{"suse", "packages-started", "packages-done", 60 * time.Minute},
		{"debian", "packages-done", "post-started", 10 * time.Minute},
		{"diskless", "boot-started", "boot-done", 60 * time.Minute},
		{"stacki-redhat", "answer-sent", "partitions-recorded", 1600 * time.Second},
		{"stacki-suse", "packages-done", "partitions-recorded", 600 * time.Second},
	} {
		q := set.Sequence(c.family)
		next, _ := q.Next(c.from)
		if got := q.Stages[q.Index(c.from)].Within.D(); next.Name != c.to || got != c.within {
			t.Errorf("%s: after %s: %s within %s, want %s within %s", c.family, c.from, next.Name, got, c.to, c.within)
		}
	}
}

// stackiNames are Stacki's names of stages, each with ours.
var stackiNames = map[string]string{
	"DHCPDISCOVER": "dhcp-discover", "DHCPOFFER": "dhcp-offer", "DHCPREQUEST": "dhcp-request", "DHCPACK": "dhcp-ack", "TFTP_RRQ": "bootloader-sent",
	"VMLinuz_RRQ_Install": "kernel-sent", "Initrd_RRQ": "initrd-sent", "Profile_XML_Sent": "answer-sent", "SSH_Open": "ssh-open",
	"Partition_File_Present": "partitioned", "Partition_XML_Present": "partitioned", "Ludicrous_Started": "packages-started",
	"Ludicrous_Populated": "packages-done", "Set_DB_Partitions": "partitions-recorded", "Set_Bootaction_OS": "bootaction-disk",
	"Rebooting_HDD": "rebooting", "Reboot_Okay": "disk-booted", "DHCPNACK": "dhcp-nak", "DHCPNAK": "dhcp-nak", "DHCPDECLINE": "dhcp-decline",
	"Install_Wait": "wait", "Install_Stalled": "stalled", "Installation_Stalled": "stalled",
}

// slesNames are those that only SLES has.
var slesNames = map[string]string{
	"Config_Sent": "config-sent", "Common_Sent": "common-sent", "Root_Sent": "root-sent", "Cracklib_Dict_Sent": "cracklib-sent", "Bind_Sent": "bind-sent",
	"SLES_Img_Sent": "sles-img-sent", "AUTOINST_Present": "autoinst-present",
}

func TestStackiNames(t *testing.T) {
	set := shipped(t)
	for _, c := range []struct {
		families []string
		names    map[string]string
	}{{[]string{"redhat", "suse", "stacki-redhat", "stacki-suse"}, stackiNames}, {[]string{"suse", "stacki-suse"}, slesNames}} {
		for _, family := range c.families {
			for alias, want := range c.names {
				if s, ok := set.Sequence(family).Find(alias); !ok || s.Name != want {
					t.Errorf("%s: %s is %q, %v, want %s", family, alias, s.Name, ok, want)
				}
			}
		}
	}
}

// TestVisible: what nobody can see is not awaited, and the time for it is not lost.
func TestVisible(t *testing.T) {
	q := shipped(t).Sequence("redhat")
	awaited := func(q sequence.Sequence) (all []string) {
		for s, ok := q.Next("ordered"); ok; s, ok = q.Next(s.Name) {
			all = append(all, s.Name)
		}
		return all
	}
	for _, c := range []struct {
		sources []string
		first   string
		within  time.Duration
	}{
		{[]string{"agent", "operator", "boot", "log"}, "dhcp-discover", 15 * time.Minute},
		{[]string{"agent", "operator", "boot"}, "bootscript-sent", 20 * time.Minute}, // with five of DHCP
		{[]string{"agent", "operator", "log"}, "dhcp-discover", 15 * time.Minute},
		{[]string{"agent", "operator"}, "agent-started", 42 * time.Minute},
	} {
		v := q.Visible(c.sources...)
		if got := awaited(v); got[0] != c.first || v.Stages[0].Within.D() != c.within {
			t.Errorf("Visible(%v): first %s within %s, want %s within %s", c.sources, got[0], v.Stages[0].Within, c.first, c.within)
		}
		for _, s := range q.Stages {
			if v.Index(s.Name) < 0 {
				t.Errorf("Visible(%v) has lost %s", c.sources, s.Name)
			}
		}
	}
	if diff := cmp.Diff(q, shipped(t).Sequence("redhat")); diff != "" {
		t.Errorf("Visible changed its receiver:\n%s", diff)
	}
}
