// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"io"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"provost/proto"
)

// TestStepHangs: a step that ignores SIGTERM is ended at its deadline, and named.
func TestStepHangs(t *testing.T) {
	ctx := within(t, 4*time.Minute)
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
	// 5 s, then 2 s of grace; the rest is emulation
	if took := time.Duration(n.Cause.DurationMS) * time.Millisecond; took < 5*time.Second || took > 15*time.Second {
		t.Errorf("the step was ended after %s, want 7 s", took)
	}
	if _, ok := stepEvent(m.events(), proto.KindStepStart, "after"); ok {
		t.Error("step after was started")
	}
}

// TestPowerOffInPost: the power fails while a postscript runs. At the next boot the node gets
// the block screen and is named failed(loop=2), and its disk is left alone.
func TestPowerOffInPost(t *testing.T) {
	ctx := within(t, 5*time.Minute)
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
	ctx := within(t, 6*time.Minute)
	l := siteOf(t, ctx, fstest.MapFS{
		"profiles/lab.yaml": {Mode: 0o644, Data: []byte(`name: lab
family: generic
kernel: images/fast/vmlinuz
initrds: [images/fast/initrd.img, overlay]
` + args + `steps:
  - {name: firstboot-unit, phase: post}
`)},
		"sequences/generic.yaml": {Mode: 0o644, Data: []byte(`family: generic
stages:
  - {name: ordered, within: 5m, sources: [operator]}
  - {name: bootscript-sent, within: 5m, sources: [boot]}
  - {name: agent-started, within: 5m, sources: [agent]}
  - {name: installer-started, within: 5m, sources: [agent]}
  - {name: post-started, within: 5m, sources: [agent]}
  - {name: post-done, within: 5m, sources: [agent]}
  - {name: sealed, within: 10s, sources: [agent]}
  - {name: disk-booted, within: 5m, sources: [agent]}
  - {name: booted, sources: [agent]}
`)},
	})
	m := order(t, ctx, l)
	m.powerOn()
	m.down()
	n := m.awaitSummary(`stalled\(disk-booted\)`)
	is(t, "status", n.Status, proto.StatusStalled)
	n = m.awaitSummary(`failed\(stage-deadline\)`)
	is(t, "name of the cause", n.Cause.Name, "disk-booted")

	// Late is better than never, and the truth: evidence ends what a clock concluded.
	m.powerOn()
	m.awaitSummary("booted")
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
