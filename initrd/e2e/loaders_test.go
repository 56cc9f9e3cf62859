// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"testing"

	"provost/proto"
)

// TestLoaders: PXELINUX and GRUB themselves, come by TFTP, boot the installer, and are told of the disk afterwards, by
// what the collector tells each in its own language. Whether the firmware then comes to the disk is not theirs.
func TestLoaders(t *testing.T) {
	for _, loader := range []string{"pxelinux", "grub"} {
		t.Run(loader, func(t *testing.T) {
			ctx := within(t, patience)
			l := site(t, ctx, args+"steps: []\n", nil)
			m := order(t, ctx, l)
			m.Node.Loader = loader
			m.powerOn()
			m.down()
			n, err := m.Now(ctx)
			if err != nil {
				t.Fatal(err)
			}
			is(t, "boot action", n.BootAction, proto.BootDisk)
			is(t, "attempt", n.Attempt, 1)
			m.powerOn()
			m.console(`n1 boots from disk`)
			m.Kill()
		})
	}
}
