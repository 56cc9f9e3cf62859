// SPDX-License-Identifier: Apache-2.0

package initrd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"provost/initrd"
)

// root is an initrd of busybox alone, with an agent and a systemctl that only note how they are called.
type root struct {
	*testing.T
	dir string
}

func newRoot(t *testing.T) root {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a chroot needs root")
	}
	r := root{t, t.TempDir()}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	r.write("bin/busybox", string(busybox))
	r.write("dev/null", "")
	if err := os.MkdirAll(filepath.Join(r.dir, "proc/1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "grep", "echo", "mount", "cat"} {
		if err := os.Symlink("busybox", filepath.Join(r.dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	note := "#!/bin/sh\necho \"${0##*/} $*\" >>/called\nexit $(cat /fails-$1 2>/dev/null || echo 0)\n"
	r.write("usr/bin/provost-agent", note)
	r.write("run/provost/bin/provost-agent", note)
	r.write("bin/systemctl", note)
	r.write("usr/lib/provost/start", string(initrd.Start))
	return r
}

func (r root) write(name, text string) {
	r.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		r.Fatal(err)
	}
}

// sh runs shell text in the root, and gives what was called in it, and how it ended.
func (r root) sh(text string) (called string, status int) {
	r.Helper()
	os.Remove(filepath.Join(r.dir, "called"))
	cmd := exec.Command("chroot", r.dir, "/bin/sh", "-c", text)
	cmd.Env = []string{"PATH=/bin:/usr/bin"}
	if out, err := cmd.CombinedOutput(); len(out) > 0 {
		r.Logf("it said: %s (%v)", out, err)
	}
	b, _ := os.ReadFile(filepath.Join(r.dir, "called")) // not there: nothing was called
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "; "), cmd.ProcessState.ExitCode()
}

func (r root) want(text, called string, status int) {
	r.Helper()
	if got, code := r.sh(text); got != called || code != status {
		r.Errorf("sh -c %q calls %q and ends with %d, want %q and %d", text, got, code, called, status)
	}
}

func TestStart(t *testing.T) {
	r := newRoot(t)
	r.want("/usr/lib/provost/start", "provost-agent watch --detach", 0)

	// with systemd: a unit, made and started once; where that does not work, as without
	r.write("run/systemd/system/x", "")
	r.write("fails---quiet", "3") // is-active: no
	unit := "systemctl --quiet is-active provost-agent.service; provost-agent watch --unit; systemctl daemon-reload"
	r.want("/usr/lib/provost/start", unit+"; systemctl --no-block start provost-agent.service", 0)
	r.write("fails-daemon-reload", "1")
	r.want("/usr/lib/provost/start", unit+"; provost-agent watch --detach", 0)
	r.write("fails---quiet", "0")
	r.want("/usr/lib/provost/start", "systemctl --quiet is-active provost-agent.service", 0)
}

// TestDracutHook: dracut sources it, and goes on after it whatever comes.
func TestDracutHook(t *testing.T) {
	r := newRoot(t)
	r.write("dev/console", "")
	r.write("hook", string(initrd.DracutHook))
	r.want("set -e; . /hook eth0; echo dracut goes on >>/called", "provost-agent watch --detach; dracut goes on", 0)
	r.write("fails-watch", "78")
	r.want("set -e; . /hook eth0; echo dracut goes on >>/called", "provost-agent watch --detach; dracut goes on", 0)
	b, err := os.ReadFile(filepath.Join(r.dir, "dev/console"))
	if err != nil || !strings.Contains(string(b), "the agent does not run") {
		t.Errorf("the console has %q, %v, want a line that the agent does not run", b, err)
	}
}

func TestDebianInstaller(t *testing.T) {
	r := newRoot(t)
	r.write("S11provost", string(initrd.DebianStartup))
	r.write("95provost", string(initrd.DebianFinish))
	r.write("target/proc/1/x", "")
	r.write("fails-watch", "78")
	r.want("/S11provost", "provost-agent watch --detach", 0)

	r.want("/95provost", "", 0) // no plan
	r.write("run/provost/plan.json", "{}")
	r.write("run/provost/journal/1.log", `{"kind":"run-end","phase":"pre"}`)
	both := "provost-agent run --phase post --root /target; provost-agent seal --root /target"
	r.want("/95provost", both, 0)
	r.write("fails-run", "1")
	r.want("/95provost", "provost-agent run --phase post --root /target", 1) // and no seal
	r.write("run/provost/journal/1.log", `{"kind":"run-start","phase":"post"}`)
	r.want("/95provost", "", 0) // late_command did it
}

// TestInitramfsTools: /init sources the file, maybe more than once, and what it lists runs after what was listed before.
func TestInitramfsTools(t *testing.T) {
	r := newRoot(t)
	r.write("conf/conf.d/provost", string(initrd.InitramfsTools))
	r.want(". /conf/conf.d/provost", "", 0) // no such directory
	r.write("scripts/init-bottom/ORDER", "echo udev >>/called\n")
	r.want("set -e; . /conf/conf.d/provost; . /conf/conf.d/provost; . /scripts/init-bottom/ORDER", "udev; provost-agent watch --detach", 0)
}
