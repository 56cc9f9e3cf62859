// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Steps of phase post run in the target's chroot, with the shell library and the program in reach, and nothing of it
// keeps the target from being unmounted.
func TestChroot(t *testing.T) {
	t.Parallel()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil || os.Getuid() != 0 {
		t.Skipf("a chroot needs root and a static /bin/busybox: %v", err)
	}
	in := step("inside", proto.PhasePost, `. "$PROVOST_LIB/provost.sh"
test -e /marker && test "$PROVOST_ROOT" = ""
provost_stage half-way
"$PROVOST_AGENT" version || exit 9
"$PROVOST_AGENT" report nearly-done -m "just a bit" || exit 10
echo done >/made`)
	in.Step.Chroot = nil
	m := newMachine(t, in)
	target := m.path("target")
	if err := unix.Mount("t", m.mkdir("target"), "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mounting the target: %v", err)
	}
	defer unix.Unmount(target, unix.MNT_DETACH)
	m.write("target/marker", "")
	m.write("target/bin/busybox", string(busybox))
	os.Chmod(filepath.Join(target, "bin/busybox"), 0o755)
	for _, name := range []string{"sh", "test", "tr", "printf"} {
		if err := os.Symlink("busybox", filepath.Join(target, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mknod(filepath.Join(m.mkdir("target/dev"), "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	// the program under test is not static: what it needs comes along
	m.libraries(target)
	m.watch()
	m.wait(staged("agent-started"))
	m.login = nil
	m.want(0, "run", "--phase", "post", "--root", target, "--state", m.state)
	if b, err := os.ReadFile(filepath.Join(target, "made")); err != nil || string(b) != "done\n" {
		t.Errorf("what the step made: %q, %v", b, err)
	}
	m.want(0, "seal", "--root", target, "--state", m.state)
	if err := unix.Unmount(target, 0); err != nil {
		t.Errorf("unmounting the target after the seal while watch runs: %v", err)
	}
	s := m.story()
	for _, want := range []string{"stage post inside half-way\n", "stage post inside nearly-done\n", "run-end post post-done ok\n", "sealed sealed\n"} {
		if !strings.Contains(s, want) {
			t.Errorf("events:\n%swant %q among them", s, want)
		}
	}
}

func (m *machine) mkdir(name string) string {
	m.Helper()
	if err := os.MkdirAll(m.path(name), 0o755); err != nil {
		m.Fatal(err)
	}
	return m.path(name)
}

// libraries copies the shared libraries of the test binary, if it has any, into a root.
func (m *machine) libraries(root string) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	out, _ := exec.Command("ldd", self).Output() // not a dynamic executable: nothing to copy
	for _, f := range strings.Fields(string(out)) {
		if !strings.HasPrefix(f, "/") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			m.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o755); err != nil {
			m.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), b, 0o755); err != nil {
			m.Fatal(err)
		}
	}
}
