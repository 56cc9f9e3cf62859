// SPDX-License-Identifier: Apache-2.0

package journey_test

import (
	"os"
	"strings"
	"testing"
)

const ramProfile = `
kind: diskless
kernel: images/vmlinuz
steps:
  - {name: bmc, phase: boot, run: on-change, persists: outside, inputs: [INPUT]}
  - {name: mounts, phase: boot}
`

// TestDiskless: a step whose effect lives outside of the node's root runs at its first boot, and again when anything that it
// depends on has changed, or somebody forces it. Nothing on the node could know.
func TestDiskless(t *testing.T) {
	t.Parallel()
	input := t.TempDir() + "/bmc.conf"
	s := newSite(t, strings.Replace(ramProfile, "INPUT", input, 1), map[string]string{"bmc": "echo bmc >> $D/ran", "mounts": "echo mounts >> $D/ran"})
	installs := map[string]bool{}
	boot := func(why, want string) {
		t.Helper()
		s.boots()
		s.agent(0, "run", "--phase", "boot")
		if got := strings.Join(strings.Fields(s.read("ran")), " "); got != want {
			t.Errorf("%s: ran %q, want %q; it said:\n%s", why, got, want, s.read("agent.out"))
		}
		s.wants("booted")
		if id := s.seen().Install; installs[id] {
			t.Errorf("%s: install %s is an earlier boot's", why, id)
		} else {
			installs[id] = true
		}
	}
	boot("the first boot", "bmc mounts")
	boot("nothing has changed", "mounts")
	if got := strings.Join(s.story(), " "); got != "bmc=skipped/0 mounts=ok/0 end=ok" {
		t.Errorf("events = %s, want bmc skipped", got)
	}
	s.kill()
	s.start()
	boot("nothing has changed but the collector, which crashed", "mounts")
	if err := os.WriteFile(input, []byte("fan=slow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	boot("an input is there", "bmc mounts")
	boot("and is the same", "mounts")
	s.write("cfg/postscripts/bmc", "#!/bin/sh\necho bmc >> '"+s.dir+"/ran' # better\n")
	boot("the script has changed", "bmc mounts")
	s.provost(0, "force", s.node, "bmc", "--yes")
	boot("forced", "bmc mounts")
	boot("and not for ever", "mounts")

	// a boot in which it fails is one after which it runs
	s.provost(0, "force", s.node, "bmc", "--yes")
	s.write("cfg/postscripts/bmc", "#!/bin/sh\necho bmc >> '"+s.dir+"/ran'; [ -e '"+s.dir+"/good' ]\n")
	s.boots()
	s.agent(-1, "run", "--phase", "boot")
	s.read("ran")
	s.wants("failed(bmc=1)")
	s.write("good", "")
	boot("after a failure", "bmc mounts")
}

// TestDisklessLoop: boots that come to no end are counted, and then the node is blocked until somebody says otherwise.
func TestDisklessLoop(t *testing.T) {
	t.Parallel()
	s := newSite(t, strings.Replace(ramProfile, "INPUT", "/etc/none", 1)+"attempts: 2\n", map[string]string{"bmc": ":", "mounts": ":"})
	for range 2 {
		s.boots()
		s.agent(0, "report", "network-up") // and then it dies
	}
	if got := s.script(); strings.Contains(got, "kernel ") || !strings.Contains(got, "failed(loop=3)") {
		t.Errorf("the third boot gets\n%s\nwant a screen with failed(loop=3)", got)
	}
	s.wants("failed(loop=3)")
	s.provost(0, "boot", s.node, "netboot", "--yes")
	s.boots()
	s.agent(0, "run", "--phase", "boot")
	s.wants("booted")
}
