// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"provost/collector/internal/profile"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// named is a stage with the seconds that it may take to the next one.
type named struct {
	alias, name string
	seconds     int
}

// The stages of Stacki with its times, in its order, under its names.
var (
	stackiBoot = []named{{"DHCPDISCOVER", "dhcp-discover", 20}, {"DHCPOFFER", "dhcp-offer", 20}, {"DHCPREQUEST", "dhcp-request", 30}, {"DHCPACK", "dhcp-ack", 40},
		{"TFTP_RRQ", "bootloader-sent", 50}, {"VMLinuz_RRQ_Install", "kernel-sent", 60}, {"Initrd_RRQ", "initrd-sent", 70}}
	stackiEnd = []named{{"Set_DB_Partitions", "partitions-recorded", 200}, {"Set_Bootaction_OS", "bootaction-disk", 210}, {"Rebooting_HDD", "rebooting", 220},
		{"Reboot_Okay", "disk-booted", 230}}
	stackiRHEL7 = slices.Concat(stackiBoot, []named{{"Profile_XML_Sent", "answer-sent", 1600}}, stackiEnd)
	stackiSLES  = slices.Concat(stackiBoot, []named{{"Config_Sent", "config-sent", 80}, {"Common_Sent", "common-sent", 90}, {"Root_Sent", "root-sent", 100},
		{"Cracklib_Dict_Sent", "cracklib-sent", 110}, {"Bind_Sent", "bind-sent", 120}, {"SLES_Img_Sent", "sles-img-sent", 130}, {"Profile_XML_Sent", "answer-sent", 140},
		{"SSH_Open", "ssh-open", 150}, {"AUTOINST_Present", "autoinst-present", 160}, {"Partition_File_Present", "partitioned", 170},
		{"Ludicrous_Started", "packages-started", 180}, {"Ludicrous_Populated", "packages-done", 600}}, stackiEnd)
)

// TestStackiSimulation plays installs of RHEL 7 and of SLES 11 and 12 as Stacki sees them, each of their stages missing in
// turn: the stage that is named is the missing one, at the second at which its time ends; twice that time fails the install;
// and if it comes after all, the install goes on.
func TestStackiSimulation(t *testing.T) {
	set, err := profile.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for sequence, stages := range map[string][]named{"stacki-redhat": stackiRHEL7, "stacki-suse": stackiSLES} {
		t.Run(sequence, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t)
			p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\n"})
			p.Recipe.Sequence, p.Recipe.Deadline = set.Sequence(sequence), 0
			s.Profiles.Put("compute", p)
			// by lets time go by as a running collector sees it, in steps of ten seconds.
			by := func(d time.Duration) {
				for ; d > 0; d -= 10 * time.Second {
					s.Clock.Advance(min(d, 10*time.Second))
					if err := s.Alive(ctx); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := s.Expire(ctx); err != nil {
					t.Fatal(err)
				}
			}
			node := func(i int) (name, install string, reach func(stage string)) {
				name = fmt.Sprintf("n%d", i)
				s.Add(name, byte(i))
				install = s.Ordered(name)
				seq := uint64(0)
				return name, install, func(stage string) {
					seq++
					send(t, s, install, event(seq, proto.KindStage, 1, func(e *proto.Event) { e.Stage, e.OffsetMS = stage, 60_000 }))
				}
			}
			ordered := named{"ordered", "ordered", 15 * 60}
			for k := range stages {
				name, id, reach := node(k + 1)
				for _, st := range stages[:k] {
					by(10 * time.Second)
					reach(st.alias)
				}
				last, want, who := ordered, stages[k], proto.SourceOperator
				if k > 0 {
					last, who = stages[k-1], proto.SourceAgent
				}
				limit := time.Duration(last.seconds) * time.Second
				reached := s.Clock.Now()
				if n := s.Seen(name); n.Stage != last.name || n.Deadline == nil || n.Deadline.Stage != want.name || n.Deadline.At.Sub(reached) != limit {
					t.Fatalf("after %s: at %s, deadline %+v; want %s, %s within %v", last.alias, n.Stage, n.Deadline, last.name, want.name, limit)
				}
				by(limit - time.Second)
				if n := s.Seen(name); n.Status == proto.StatusStalled || n.Status == proto.StatusFailed {
					t.Fatalf("%s missing: %s a second too early", want.alias, n.Summary)
				}
				by(time.Second)
				n := s.Seen(name)
				if n.Summary != "stalled("+want.name+")" {
					t.Fatalf("%s missing: %s after %v", want.alias, n.Summary, limit)
				}
				if st := n.Stuck; st == nil || st.Stage != want.name || st.Last != last.name || st.LastSource != who || !st.Since.Equal(reached) ||
					!st.LastAt.Equal(reached) || len(st.Likely) < 2 {
					t.Errorf("%s missing: stuck %+v", want.alias, n.Stuck)
				}
				by(limit)
				if n := s.Seen(name); n.Summary != "failed(stage-deadline)" || n.Cause.Name != want.name || n.Stuck == nil || n.Stuck.Stage != want.name {
					t.Fatalf("%s missing for twice its time: %s, %+v", want.alias, n.Summary, n.Cause)
				}
				by(time.Second)
				reach(want.alias)
				if n := s.Seen(name); n.Status == proto.StatusFailed || n.Status == proto.StatusStalled || n.Stage != want.name || n.Stuck != nil {
					t.Errorf("%s came late: %s at %s", want.alias, n.Summary, n.Stage)
				}
				got := kinds(t, s, name, id)
				if want := []string{"stalled:" + want.name, "deadline:" + want.name, "stage:" + want.alias}; !slices.Equal(got[len(got)-3:], want) {
					t.Errorf("events = %v, want %v at the end", got, want)
				}
			}
			// One line that a log has lost stalls nothing, as long as a later one comes in time.
			for k := 1; k < len(stages)-1; k++ {
				name, id, reach := node(100 + k)
				for i, st := range stages {
					if i == k {
						continue
					}
					reach(st.alias)
					by(10 * time.Second)
				}
				if n := s.Seen(name); n.Stage != "disk-booted" || slices.ContainsFunc(kinds(t, s, name, id), func(k string) bool { return k[0] == 'd' || k[:4] == "stal" }) {
					t.Errorf("%s not seen: %s at %s: %v", stages[k].alias, n.Summary, n.Stage, kinds(t, s, name, id))
				}
			}
		})
	}
}
