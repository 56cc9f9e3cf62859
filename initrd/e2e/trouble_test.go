// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"provost/proto"
)

// TestStepHangs: a step that ignores SIGTERM is ended at its deadline, and named.
func TestStepHangs(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`steps:
  - {name: stuck, phase: post, timeout: 5s, grace: 2s}
  - {name: after, phase: post}
`, map[string]string{
		"stuck": `trap '' TERM; echo waiting for the tape; while :; do sleep 1; done`,
		"after": `touch /etc/lab-after`,
	})
	m := order(t, ctx, l)
	m.powerOn()
	n := m.awaitSummary(`failed\(stuck=timeout\)`)
	is(t, "kind", n.Cause.Kind, proto.CauseTimeout)
	// 5 s, then 2 s of grace; a step that nothing ends goes on for ever
	if took := time.Duration(n.Cause.DurationMS) * time.Millisecond; took < 5*time.Second || took > time.Minute {
		t.Errorf("the step was ended after %s, want 7 s", took)
	}
	if _, ok := stepEvent(m.events(), proto.KindStepStart, "after"); ok {
		t.Error("step after was started")
	}
}

// TestPowerOffInPost: the power fails while a postscript runs. At the next boot the node gets
// the block screen and is named failed(loop=2), and its disk is left alone.
func TestPowerOffInPost(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`steps:
  - {name: long, phase: post}
`, map[string]string{"long": `sleep 300`})
	m := order(t, ctx, l)
	m.powerOn()
	m.await("in step long", func(n proto.Node) bool { return n.Step == "long" })
	m.Kill()
	before := m.checksum()

	m.powerOn()
	n := m.awaitSummary(`failed\(loop=2\)`)
	is(t, "boot action", n.BootAction, proto.BootBlock)
	m.console(`n1 is blocked and boots nothing`)
	m.Kill()
	is(t, "checksum of the disk", m.checksum(), before)
}

// TestFlipLost: the collector never heard of the seal, so the node's boot action is still
// install when it comes back. It was the only attempt, so this boot only looks: the agent finds
// the sealed journal, reports, and leaves the disk alone.
func TestFlipLost(t *testing.T) {
	ctx := within(t, 20*time.Minute)
	l := site(t, ctx, args+`seal-wait: 5s
steps:
  - {name: slow, phase: post, timeout: 5m}
  - {name: firstboot-unit, phase: post}
`, map[string]string{"slow": untilGone})
	m := order(t, ctx, l)
	m.powerOn()
	m.await("in step slow", func(n proto.Node) bool { return n.Step == "slow" })
	l.KillCollector()
	m.down()
	before := m.checksum()
	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}
	n, err := m.Now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	is(t, "boot action before the second boot", n.BootAction, proto.BootInstall)

	m.powerOn()
	m.console(`looking whether the disk of n1 has this install`)
	m.down()
	is(t, "checksum of the disk", m.checksum(), before)
	n = m.await("to boot from disk", func(n proto.Node) bool { return n.BootAction == proto.BootDisk })
	is(t, "attempt", n.Attempt, 2)

	m.powerOn()
	m.awaitSummary("booted")
	wantComplete(t, m.events(), 3)
}

// TestFirstBootNeverComes: the node goes down after the seal and stays down. It is stalled by
// the stage that it did not reach, then failed.
func TestFirstBootNeverComes(t *testing.T) {
	ctx := within(t, patience)
	l := siteOf(t, ctx, shortSite(args+"steps:\n  - {name: firstboot-unit, phase: post}\n", "sealed"))
	m := order(t, ctx, l)
	m.powerOn()
	m.down()
	n := m.awaitSummary(`failed\(stage-deadline\)`)
	wantStalled(t, m.events(), "disk-booted")
	is(t, "name of the cause", n.Cause.Name, "disk-booted")

	// Late is better than never, and the truth: evidence ends what a clock concluded.
	m.powerOn()
	m.awaitSummary("booted")
}

// touchedNothing cuts the machine's power and checks that the disk is as it was before.
func (m *machine) touchedNothing(before [sha256.Size]byte) {
	m.t.Helper()
	m.Kill()
	if strings.Contains(m.Console(), "fast: partitioning") {
		m.t.Error("the installer has begun with the disk")
	}
	is(m.t, "checksum of the disk", m.checksum(), before)
}

// checksum is over the whole disk of a machine that is down.
func (m *machine) checksum() [sha256.Size]byte {
	m.t.Helper()
	f, err := os.Open(m.Disk())
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		m.t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
