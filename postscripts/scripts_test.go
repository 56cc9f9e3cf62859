// SPDX-License-Identifier: Apache-2.0

package postscripts_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"provost/postscripts"
)

// shells are the interpreters that every script has to work under, as they are called in a target.
var shells = map[string][]string{"dash": {"/bin/dash"}, "bash": {"/bin/bash", "--posix"}, "busybox": {"/bin/busybox", "sh"}}

// programs makes, once, a directory of what the targets of the tests are made of: three shells with their libraries, and
// busybox for every other command, so that nothing more than that can be needed.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postscripts-")
	if err != nil {
		return "", err
	}
	for _, d := range []string{"bin", "dev", "tmp", "etc", "usr/sbin", "steps", "lib/provost"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return dir, err
		}
	}
	for _, name := range []string{"dash", "bash", "busybox"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return dir, errors.New(name + " is not installed: apt-get install dash bash busybox")
		}
		files := []string{path}
		// a static busybox has no libraries, and ldd says so by its exit status
		out, _ := exec.Command("ldd", path).Output()
		for _, w := range strings.Fields(string(out)) {
			if strings.HasPrefix(w, "/") {
				files = append(files, w)
			}
		}
		for i, f := range files {
			to := filepath.Join(dir, f)
			if i == 0 {
				to = filepath.Join(dir, "bin", name)
			}
			b, err := os.ReadFile(f)
			if err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o755))
			}
			if err != nil {
				return dir, err
			}
		}
	}
	applets, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		return dir, err
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
				return dir, err
			}
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, "dev/null"), nil, 0o666)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// target is the root of a system that is being installed.
type target struct {
	t     *testing.T
	root  string
	shell []string
}

// newTarget makes one by hard links to the programs.
func newTarget(t *testing.T, shell string) *target {
	t.Helper()
	from, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch dst := filepath.Join(to, rel); {
		case e.IsDir():
			return os.MkdirAll(dst, 0o755)
		case e.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			return errors.Join(err, os.Symlink(link, dst))
		case rel == "dev/null":
			return os.WriteFile(dst, nil, 0o666)
		default:
			return os.Link(path, dst)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	tg := &target{t: t, root: to, shell: shells[shell]}
	for _, f := range []struct {
		fsys embedFS
		dir  string
		to   string
	}{{postscripts.Lib, "lib", "lib/provost"}, {postscripts.Stock, "stock", "steps"}} {
		entries, err := f.fsys.ReadDir(f.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := f.fsys.ReadFile(f.dir + "/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			tg.write(filepath.Join(f.to, e.Name()), string(b), 0o755)
		}
	}
	return tg
}

type embedFS interface {
	ReadDir(string) ([]fs.DirEntry, error)
	ReadFile(string) ([]byte, error)
}

func (tg *target) write(name, text string, mode fs.FileMode) {
	tg.t.Helper()
	path := filepath.Join(tg.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		tg.t.Fatal(err)
	}
}

// read gives a file's text, or "-" for one that is not there.
func (tg *target) read(name string) string {
	tg.t.Helper()
	b, err := os.ReadFile(filepath.Join(tg.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	if err != nil {
		tg.t.Fatal(err)
	}
	return string(b)
}

// result is how a script ended.
type result struct {
	rc     int
	out    string // stdout and stderr
	status string // what it wrote to PROVOST_STATUS
}

// run runs /steps/NAME in the chroot of the target, as the agent does: PROVOST_ROOT is /.
func (tg *target) run(name string, env ...string) result {
	tg.t.Helper()
	cmd := exec.Command(tg.shell[0], append(tg.shell[1:], "/steps/"+name)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: tg.root}
	cmd.Dir = "/"
	return tg.exec(cmd, "", append([]string{"PROVOST_ROOT=/", "PROVOST_LIB=/lib/provost", "PROVOST_STEP=" + name}, env...))
}

// runOutside runs the script with chroot: false, as before the reboot: PROVOST_ROOT is where the target is mounted.
func (tg *target) runOutside(name string, env ...string) result {
	tg.t.Helper()
	shell := append([]string{filepath.Base(tg.shell[0])}, tg.shell[1:]...)
	cmd := exec.Command(shell[0], append(shell[1:], filepath.Join(tg.root, "steps", name))...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return tg.exec(cmd, tg.root, append([]string{"PROVOST_ROOT=" + tg.root, "PROVOST_LIB=" + filepath.Join(tg.root, "lib/provost"), "PROVOST_STEP=" + name}, env...))
}

func (tg *target) exec(cmd *exec.Cmd, prefix string, env []string) result {
	tg.t.Helper()
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	os.Remove(filepath.Join(tg.root, "tmp/status"))
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PROVOST_NODE=n1", "PROVOST_PHASE=post", "PROVOST_STATUS=" + prefix + "/tmp/status"}, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	exit := new(exec.ExitError)
	if err != nil && !errors.As(err, &exit) {
		tg.t.Fatal(err)
	}
	status := tg.read("tmp/status")
	if status == "-" {
		status = ""
	}
	return result{rc: cmd.ProcessState.ExitCode(), out: out.String(), status: status}
}

// each runs a test under every shell.
func each(t *testing.T, do func(t *testing.T, shell string)) {
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			do(t, shell)
		})
	}
}

// identity tells whether a file was written again: an atomic write makes a new inode.
func (tg *target) identity(name string) uint64 {
	tg.t.Helper()
	info, err := os.Lstat(filepath.Join(tg.root, name))
	if err != nil {
		tg.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func (tg *target) mode(name string) fs.FileMode {
	tg.t.Helper()
	info, err := os.Lstat(filepath.Join(tg.root, name))
	if err != nil {
		tg.t.Fatal(err)
	}
	return info.Mode()
}

func TestShellcheck(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Fatal("shellcheck is not installed: apt-get install shellcheck")
	}
	files, err := filepath.Glob("stock/*")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	out, err := exec.Command("shellcheck", append([]string{"-x", "-P", "lib", "lib/provost.sh"}, files...)...).CombinedOutput()
	if err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

func TestSyntax(t *testing.T) {
	files, err := filepath.Glob("[ls]*/*")
	if err != nil || len(files) < 4 {
		t.Fatal(err, files)
	}
	for _, f := range files {
		for _, sh := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
			if out, err := exec.Command(sh[0], append(sh[1:], "-n", f)...).CombinedOutput(); err != nil {
				t.Errorf("%s -n %s: %v\n%s", strings.Join(sh, " "), f, err, out)
			}
		}
	}
}
