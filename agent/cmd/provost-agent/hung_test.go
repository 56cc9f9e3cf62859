// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/hungdisk"
	"provost/proto"
)

// TestHungStateDirectory: the disk of the state directory does not answer. No command hangs with it, and each says why it ends. The
// two minutes of those that begin with the journal are shortened here.
func TestHungStateDirectory(t *testing.T) {
	t.Parallel() // 30 s
	m := newMachine(t, step("one", proto.PhasePre, "echo one"))
	m.want(0, m.at("run", "--phase", "pre")...)
	var releases []func()
	for _, name := range []string{"open.lock", "run.lock", "identity.json"} {
		_, release := hungdisk.Hold(t, m.state+"/"+name, unix.FAN_OPEN_PERM)
		releases = append(releases, release)
	}
	defer func() {
		for _, release := range releases {
			release()
		}
		// What was given up goes on now, and writes into the directory that the test is about to remove.
		b := make([]byte, 1<<20)
		for end := time.Now().Add(time.Minute); strings.Contains(string(b[:runtime.Stack(b, true)]), "(*common).open"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Error("what was given up does not end, although the disk answers")
				return
			}
		}
	}()
	const want = "does not answer within"
	var all sync.WaitGroup
	for _, args := range [][]string{{"status"}, {"log"}, {"hold"}, {"retry", "one"}, {"skip", "one"}, {"release"}, {"abort"}, {"force", "all"}} {
		all.Go(func() {
			r := m.agent(append(args, "--state", m.state)...)
			if r.code != 1 || !strings.Contains(r.err, want+" 30s: see the kernel's log, dmesg") {
				t.Errorf("provost-agent %s = %d, %q, want 1 and that the disk does not answer", strings.Join(args, " "), r.code, r.err)
			}
		})
	}
	all.Wait()
	var said bytes.Buffer
	a, err := (&common{state: m.state, diskWait: time.Second}).open(&streams{out: &said, err: &said}, proto.EnvInstaller)
	if err == nil || !strings.Contains(err.Error(), want+" 1s") {
		t.Errorf("opening the state directory = %v, %v, want that its disk does not answer", a, err)
	}
}
