// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"provost/agent/internal/proc"
	"provost/proto"
)

// targetDir is the agent's directory in the target.
const targetDir = "/var/lib/provost"

// maxPrivate is how much of a step's private directory goes from one root to another.
const maxPrivate = 1 << 20

// place is where a step runs.
type place struct {
	spec   proc.Spec
	status string // the status file as the agent sees it
}

// prepare copies what the step needs to where it can see it. In a chroot that are real copies, no bind mounts: after a
// kill -9 nothing is left that keeps the installer from unmounting the target.
func (r *runner) prepare(s proto.Step, try int) (place, error) {
	chroot := *s.Chroot && r.o.Root != ""
	if *s.Chroot && r.o.Root == "" && r.o.Phase == proto.PhasePost {
		return place{}, fmt.Errorf("step %s runs in the target: say with --root where that is mounted", s.Name)
	}
	from, err := r.d.Script(s.Digest)
	if err != nil {
		return place{}, fmt.Errorf("script %s: %w", s.Script, err)
	}
	// outside is the agent's directory as the agent sees it, inside as the step sees it.
	outside, inside, root := r.d.StateDir, r.d.StateDir, ""
	lib, agent := r.d.Lib, r.d.Agent
	if r.o.Root != "" {
		outside = filepath.Join(r.o.Root, targetDir)
		inside = outside
	}
	if chroot {
		root, inside = r.o.Root, targetDir
	}
	dir, err := openDir(r.o.Root, outside)
	if err != nil {
		return place{}, fmt.Errorf("making %s: %w", outside, err)
	}
	defer dir.Close()
	script := "bin/steps/" + s.Script // bin is never noexec
	err = copyIn(dir, from, script, 0o755)
	if errors.Is(err, unix.ENOSPC) { // the copies of steps that are over make room
		err = errors.Join(dir.RemoveAll("bin/steps"), copyIn(dir, from, script, 0o755))
	}
	if err != nil {
		return place{}, err
	}
	if chroot {
		if lib, agent, err = r.copyTools(dir, inside); err != nil {
			return place{}, err
		}
		r.lookForProc()
	}
	if err := r.private(dir); err != nil {
		return place{}, err
	}
	status := "run/.status-" + s.Name
	if err := errors.Join(dir.RemoveAll(status), dir.WriteFile(status, nil, 0o600)); err != nil {
		return place{}, err
	}
	seen := ""
	if !chroot {
		seen = r.o.Root
	}
	env := environment(s, map[string]string{
		"NODE": r.plan.Node, "INSTALL": r.plan.Install, "ATTEMPT": strconv.Itoa(max(1, r.d.Attempt)), "PHASE": string(r.o.Phase), "STEP": s.Name,
		"TRY": strconv.Itoa(try), "REBOOTS": strconv.Itoa(r.history.steps[key(r.o.Phase, s.Name)].reboots), "ROOT": seen, "LIB": lib, "AGENT": agent, "PROFILE": r.plan.Profile,
		"RUN": path.Join(inside, "run"), "STATUS": path.Join(inside, status),
	}, r.plan.Attrs)
	return place{
		spec: proc.Spec{Name: s.Name, Path: path.Join(inside, script), Env: env, Root: root, Digest: s.Digest, Timeout: s.Timeout.D(),
			Grace: s.Grace.D(), Secrets: r.secrets, SuccessCodes: s.SuccessCodes, Processes: r.d.Processes, Cgroup: r.d.Cgroup},
		status: filepath.Join(outside, status),
	}, nil
}

// openDir makes and opens the agent's directory. In the target no symbolic link leads out of it.
func openDir(root, dir string) (*os.Root, error) {
	if root == "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		return os.OpenRoot(dir)
	}
	top, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	rel := strings.TrimPrefix(targetDir, "/")
	if err := top.MkdirAll(rel, 0o700); err != nil {
		return nil, err
	}
	return top.OpenRoot(rel)
}

// copyIn writes a fresh copy of the file from into dir. The old one goes away first: a step may have linked it elsewhere.
func copyIn(dir *os.Root, from, name string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	defer in.Close()
	if err := dir.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	if err := dir.RemoveAll(name); err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	out, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copying %s: %w", name, err)
	}
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return fmt.Errorf("copying %s: %w", name, err)
	}
	return out.Close()
}

// copyTools brings the shell library and the agent into the target, and gives their paths there.
func (r *runner) copyTools(dir *os.Root, inside string) (lib, agent string, err error) {
	if r.d.Lib != "" {
		entries, err := os.ReadDir(r.d.Lib)
		if err != nil {
			return "", "", fmt.Errorf("copying the shell library: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			if err := copyIn(dir, filepath.Join(r.d.Lib, e.Name()), "lib/"+e.Name(), 0o644); err != nil {
				return "", "", err
			}
		}
		lib = path.Join(inside, "lib")
	}
	if r.d.Agent != "" {
		was, werr := dir.Stat("bin/provost-agent")
		now, err := os.Stat(r.d.Agent)
		if err != nil {
			return "", "", fmt.Errorf("copying the agent: %w", err)
		}
		if werr != nil || was.Size() != now.Size() {
			if err := copyIn(dir, r.d.Agent, "bin/provost-agent", 0o755); err != nil {
				return "", "", err
			}
		}
		agent = path.Join(inside, "bin/provost-agent")
	}
	return lib, agent, nil
}

// procMagic is the type of procfs in statfs(2).
const procMagic = 0x9fa0

// lookForProc notes, once a run, that the target has no /proc: many tools fail without it, in ways that hide it.
func (r *runner) lookForProc() {
	if r.toldProc {
		return
	}
	r.toldProc = true
	var sf unix.Statfs_t
	at := filepath.Join(r.o.Root, "proc")
	if err := unix.Statfs(at, &sf); err != nil || sf.Type != procMagic {
		r.note("", "/proc is not mounted in the target, so some tools will not work there: mount -t proc proc "+at, true)
	}
}

// private makes the directory that lasts the install. In the target it begins with what the phases before left in /run.
func (r *runner) private(dir *os.Root) error {
	if _, err := dir.Stat("run"); err == nil {
		return nil
	}
	if err := dir.MkdirAll("run", 0o700); err != nil {
		return err
	}
	if r.o.Root == "" {
		if err := r.unpackPrivate(dir); err != nil {
			r.note("", "PROVOST_RUN does not have all that was kept before the restart: "+err.Error(), true)
		}
		return nil
	}
	from := filepath.Join(r.d.StateDir, "run")
	room := int64(maxPrivate)
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".status-") {
			return nil // also: there was no such directory
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return nil
		}
		if room -= info.Size(); room < 0 {
			r.note("", fmt.Sprintf("PROVOST_RUN holds more than %d bytes: %s and what follows stays behind", maxPrivate, rel), true)
			return fs.SkipAll
		}
		return copyIn(dir, p, path.Join("run", filepath.ToSlash(rel)), info.Mode().Perm())
	})
}

// environment is all that a step sees of variables: the same on every machine and in every installer.
func environment(s proto.Step, provost, attrs map[string]string) []string {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root", "LOGNAME": "root",
		"SHELL": "/bin/sh", "LANG": "C.UTF-8", "TERM": "dumb",
	}
	for _, m := range []map[string]string{s.Env, s.SecretEnv} {
		for k, v := range m {
			env[k] = v
		}
	}
	for k, v := range attrs {
		env["PROVOST_ATTR_"+strings.ToUpper(strings.ReplaceAll(k, "-", "_"))] = v
	}
	for k, v := range provost {
		env["PROVOST_"+k] = v
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}
