// SPDX-License-Identifier: Apache-2.0

package journey_test

import (
	"strings"
	"syscall"
	"testing"

	"provost/proto"
)

// TestFailureBootsTheDisk: with on-failure: disk a failed step restarts the machine, and the collector lets it boot from its disk,
// though nothing was sealed.
func TestFailureBootsTheDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, `
kernel: images/vmlinuz
on-failure: disk
steps:
  - {name: bad, phase: pre}
`, map[string]string{"bad": "exit 3"})
	s.boots()
	if got := s.script(); !strings.Contains(got, "provost.claim") {
		t.Fatalf("the first boot gets\n%s\nwant the installer", got)
	}
	s.agent(syscall.SIGHUP, "run", "--phase", "pre")
	if n := s.seen(); n.BootAction != proto.BootDisk {
		t.Errorf("after the failure the boot action is %s, want disk", n.BootAction)
	}
	if got := s.script(); strings.Contains(got, "provost.claim") {
		t.Errorf("the boot after it gets\n%s\nwant its disk", got)
	}
	s.wants("failed(bad=3)")
}
