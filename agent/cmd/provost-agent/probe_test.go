// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/host"
	"provost/agent/internal/probe"
	"provost/proto"
)

// node is an agent whose machine is a directory of files.
func node(t *testing.T, state, root string) *agent {
	t.Helper()
	c := common{state: state}
	a, err := c.open(&streams{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}}, proto.EnvInstaller)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	a.host = host.Host{Root: root}
	a.settings.Claim = "CANARY"
	return a
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func stages(t *testing.T, a *agent) []string {
	t.Helper()
	var out []string
	for r, err := range a.journal.Events() {
		if err != nil {
			t.Fatal(err)
		}
		switch e := r.Event; {
		case e.Kind == proto.KindStage && e.Failed:
			out = append(out, e.Stage+" failed: "+e.Message)
		case e.Kind == proto.KindStage:
			out = append(out, e.Stage)
		case e.Kind == proto.KindNote && e.Warning:
			out = append(out, "warning: "+e.Message)
		}
	}
	return out
}

// TestProbe: what an installer does comes into the journal, once, over restarts of the watch, and its log beside it.
func TestProbe(t *testing.T) {
	t.Parallel()
	root, state := t.TempDir(), t.TempDir()
	a := node(t, state, root)
	p := prober{a: a, sys: probeSystem{a.host, make(chan struct{}, 1)}}
	p.begin(probe.Generic)
	p.look()
	if got := stages(t, a); got != nil {
		t.Errorf("stages of an empty machine = %q", got)
	}
	put(t, root, "tmp/wait", "")
	p.look()

	put(t, root, "usr/share/debconf/confmodule", "")
	put(t, root, "usr/bin/main-menu", "")
	put(t, root, "var/log/syslog", "Nov 20 17:58:02 kernel: Command line: provost.claim=CANARY\nNov 20 17:58:02 main-menu[304]: INFO: Menu item 'a' selected\n")
	put(t, root, "proc/self/mountinfo", "30 29 0:26 / /target rw - ext4 /dev/vda1 rw\n")
	p.look()
	p.look()
	p.end()

	again := prober{a: a, sys: probeSystem{a.host, make(chan struct{}, 1)}}
	again.begin(probe.Generic)
	again.look()
	if _, err := a.journal.Append(proto.Event{Kind: proto.KindStage, Stage: "packages-started"}); err != nil { // somebody's report
		t.Fatal(err)
	}
	plan, err := json.Marshal(proto.Plan{Schema: 1, Node: "n1", Install: proto.NewID(time.Now()), OnFailure: proto.OnFailureExit, Steps: []proto.Step{
		{Name: "a", Phase: proto.PhasePost, Digest: strings.Repeat("0", 64), SecretEnv: map[string]string{"KEY": "hunter2"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.dir.WriteFile(localPlan, plan, 0o600); err != nil { // it comes while the logs are read
		t.Fatal(err)
	}
	put(t, root, "var/log/syslog", "Nov 20 17:59:02 debootstrap: hunter2\nNov 20 17:59:02 main-menu[304]: WARNING **: Menu item 'a' failed.\n")
	again.look()
	again.look()
	again.end()
	want := []string{
		"wait", "warning: the file /tmp/wait is there: the install waits until it is removed",
		"installer-started", "partitioned", "packages-started", "packages-done failed: main-menu: WARNING **: Menu item 'a' failed.",
	}
	if diff := cmp.Diff(want, stages(t, a)); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
	b, err := a.journal.ReadLog(a.logName(probe.LogBase), 0, 1<<20)
	wantLog := "==> /var/log/syslog <==\nNov 20 17:58:02 kernel: Command line: provost.claim=[redacted]\nNov 20 17:58:02 main-menu[304]: INFO: Menu item 'a' selected\n" +
		"==> /var/log/syslog <==\nNov 20 17:59:02 debootstrap: [redacted]\nNov 20 17:59:02 main-menu[304]: WARNING **: Menu item 'a' failed.\n"
	if err != nil || string(b) != wantLog {
		t.Errorf("installer.log = %q, %v, want %q", b, err, wantLog)
	}
}

// TestWatchProbes: the real watch sees the machine that it runs on, here with Anaconda's marks in a mount namespace of its
// own, and delivers what it sees.
func TestWatchProbes(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	m := newMachine(t)
	script := `mount -t tmpfs t /run && mkdir /run/anaconda && mount -t tmpfs t /mnt && mkdir /mnt/sysroot && mount -t tmpfs t /mnt/sysroot && exec provost-agent "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", script, "sh"}, m.at("watch")...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		giveUp := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
		defer giveUp.Stop()
		wantEnded(t, cmd.Wait(), &stderr)
	})
	m.wait(staged("partitioned"))
}
