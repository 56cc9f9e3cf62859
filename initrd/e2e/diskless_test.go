// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"testing"

	"provost/proto"
)

// TestDiskless: a node whose system comes over the network into memory. Each boot is an install and ends as booted; a step
// that changes something outside of that system runs at the first one, not at the second since nothing has changed, and at
// the third since an operator forces it.
func TestDiskless(t *testing.T) {
	l := dracutSite(t, `kind: diskless
initrds: [images/dracut/systemd.img, overlay]
args: "`+dracutArgs+`"
steps:
  - {name: bmc, phase: boot, run: on-change, persists: outside}
  - {name: mounts, phase: boot}
`, map[string]string{
		"bmc":    `echo "lab: setting up the BMC" > /dev/console; echo set`,
		"mounts": `findmnt -no FSTYPE /; systemctl is-active provost-agent.service`,
	})
	ctx := within(t, patience)
	m := order(t, ctx, l)
	before := ""
	for i, bmc := range []proto.Outcome{proto.OutcomeOK, proto.OutcomeSkipped, proto.OutcomeOK} {
		m.powerOn()
		n := m.await("booted anew", func(n proto.Node) bool { return n.Install != before && n.Summary == "booted" })
		is(t, "boot action", n.BootAction, proto.BootNetboot)
		is(t, "ordinal", n.Ordinal, uint64(i+1))
		events := m.events()
		wantComplete(t, events, 1)
		wantOrder(t, events, "bootscript-sent", "kernel-sent", "agent-started", "installer-started", "booted")
		for step, want := range map[string]proto.Outcome{"bmc": bmc, "mounts": proto.OutcomeOK} {
			if end, ok := stepEvent(events, proto.KindStepEnd, step); !ok || end.Outcome != want {
				t.Errorf("boot %d: step %s ended as %q (event there: %v), want %s", i+1, step, end.Outcome, ok, want)
			}
		}
		if i == 1 {
			m.provost("force", "n1", "bmc")
		}
		before = n.Install
		m.Kill() // a diskless node has nothing to lose
	}
}
