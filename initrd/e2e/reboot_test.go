// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"provost/proto"
)

// TestReboots: one install that restarts three times before its disk boots: a step of phase pre asks to be run again after
// a restart, the next one asks for a restart, and then the installer is done. It is one attempt and no loop, and what the
// steps kept in PROVOST_RUN comes through, though there is no disk yet.
func TestReboots(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`steps:
  - {name: firmware, phase: pre, reboot: {max: 2}}
  - {name: bios, phase: pre, reboot: {max: 1}}
  - {name: look, phase: pre}
  - {name: greet, phase: post}
  - {name: firstboot-unit, phase: post}
  - {name: first, phase: firstboot}
`, map[string]string{
		"firmware": `echo "reboots $PROVOST_REBOOTS" >> "$PROVOST_RUN/firmware"; [ "$PROVOST_REBOOTS" -ge 1 ] || exit 192`,
		"bios":     `echo bios >> "$PROVOST_RUN/bios"; exit 64`,
		"look":     `cat "$PROVOST_RUN/firmware" "$PROVOST_RUN/bios"`,
		"greet":    `echo hello`,
		"first":    `echo up`,
	})
	m := order(t, ctx, l)
	for range 2 {
		m.powerOn()
		m.down()
		n, err := m.Now(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n.Status == proto.StatusFailed || n.BootAction != proto.BootInstall {
			t.Fatalf("after a restart that a step asked for the node is %s and boots %s", n.Summary, n.BootAction)
		}
		if strings.Contains(m.Console(), "EXT4-fs") {
			t.Error("the console shows the kernel's complaints about the blank disk, which the agent has looked at")
		}
	}
	m.powerOn()
	m.console(`fast: installed after`)
	m.down()
	m.powerOn()
	n := m.awaitSummary("booted")
	is(t, "attempt", n.Attempt, 1)
	if len(n.Warnings) > 0 {
		t.Errorf("warnings = %q, want none", n.Warnings)
	}

	events := m.events()
	wantComplete(t, events, 4)
	var story []string
	slices.SortStableFunc(events, func(a, b proto.Event) int { return a.At.Compare(b.At) })
	for _, e := range events {
		switch e.Kind {
		case proto.KindStepStart, proto.KindReboot:
			story = append(story, strings.TrimSuffix(string(e.Kind), "-start")+" "+e.Step)
		}
	}
	want := []string{"step firmware", "reboot firmware", "step firmware", "step bios", "reboot bios", "step look", "step greet", "step firstboot-unit", "step first"}
	if !slices.Equal(story, want) {
		t.Errorf("what happened = %q, want %q", story, want)
	}
	for _, want := range []string{"reboots 0", "reboots 1", "bios"} { // what the steps of the boots before kept
		wantLog(m, "look-r2", want) // the log of the boot after the second restart
	}
}
