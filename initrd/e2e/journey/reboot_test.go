// SPDX-License-Identifier: Apache-2.0

package journey_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReboots: an install whose steps restart the machine and switch it off, each by its exit status, is one attempt. What is
// done, and what the steps keep, comes back from the collector; a boot that nobody announced is one too many.
func TestReboots(t *testing.T) {
	t.Parallel()
	s := newSite(t, `
kernel: images/vmlinuz
steps:
  - {name: one, phase: pre}
  - {name: firmware, phase: pre, reboot: {max: 2}}
  - {name: later, phase: pre, reboot: {max: 2}}
  - {name: power, phase: pre, reboot: {max: 1}}
  - {name: enough, phase: pre, reboot: {max: 1}}
  - {name: never, phase: pre}
`, map[string]string{
		"one": "echo one >> $D/ran",
		"firmware": `echo "firmware$PROVOST_REBOOTS" >> $D/ran
if [ "$PROVOST_REBOOTS" = 0 ]; then
	head -c 700000 /dev/urandom > "$PROVOST_RUN/state"; sha256sum < "$PROVOST_RUN/state" > $D/sum; exit 192
fi
sha256sum < "$PROVOST_RUN/state" | cmp - $D/sum || exit 5
exit 64`,
		"later":  `echo "later$PROVOST_TRY" >> $D/ran; [ "$PROVOST_TRY" -gt 1 ] || exit 128`,
		"power":  `echo power >> $D/ran; sha256sum < "$PROVOST_RUN/state" | cmp - $D/sum || exit 5; exit 32`,
		"enough": "echo enough >> $D/ran; exit 16",
		"never":  "echo never >> $D/ran",
	})
	for _, down := range []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGINT, 0} {
		s.boots()
		s.script() // the firmware of a second card asks, too
		s.agent(down, "run", "--phase", "pre")
		if n := s.seen(); n.Attempt != 1 || n.Status != "installing" {
			t.Errorf("after boot %d: attempt %d, %s, want the first, installing", s.n, n.Attempt, n.Summary)
		}
	}
	if got, want := strings.Fields(s.read("ran")), strings.Fields("one firmware0 firmware1 later1 power later2 enough"); !cmp.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
	want := []string{"one=ok/0", "firmware=ok/192", "reboot", "firmware=ok/64", "reboot", "later=ok/128", "power=ok/32", "reboot",
		"later=ok/0", "enough=ok/16", "never=skipped/0", "end=ok"}
	if diff := cmp.Diff(want, s.story()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got := s.script(); strings.Contains(got, "provost.claim") {
		t.Errorf("a boot that was not announced gets\n%s\nwant no second attempt", got)
	}
	s.wants("failed(loop=2)")
}
