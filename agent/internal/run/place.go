// SPDX-License-Identifier: Apache-2.0

package run

import (
	"bytes"
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
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/journal"
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

// laid is what a step finds on disk, and what is to be said of that.
type laid struct {
	where      string // the agent's directory as the agent sees it
	lib, agent string // their paths as the step sees them
	log        *journal.LogWriter
	file       *os.File // instead, of a step that leaves something running
	notes      []string
}

// prepare lays out what the step needs where it can see it, and opens its log. In a chroot those are real copies, no bind mounts:
// after a kill -9 nothing is left that keeps the installer from unmounting the target.
func (r *runner) prepare(s proto.Step, try int, log string) (place, laid, error) {
	chroot := *s.Chroot && r.o.Root != ""
	if *s.Chroot && r.o.Root == "" && r.o.Phase == proto.PhasePost {
		return place{}, laid{}, fmt.Errorf("step %s runs in the target: say with --root where that is mounted", s.Name)
	}
	from, err := r.d.Script(s.Digest)
	if err != nil {
		return place{}, laid{}, fmt.Errorf("script %s: %w", s.Script, err)
	}
	script := "bin/steps/" + s.Script // bin is never noexec
	status := "run/.status-" + s.Name
	l := layer{d: r.d, o: r.o, install: r.plan.Install, chroot: chroot, lookForProc: chroot && !r.toldProc, compare: !r.copied, first: !r.laid}
	var got, none laid
	state := r.state
	if err := onDisk(r, r.d.diskWait, func() (err error) {
		state.flush() // before the step starts: it may be the agent's end
		if got, err = l.lay(from, script, status); err == nil {
			err = l.open(&got, s, try, log)
		}
		return err
	}); err != nil {
		return place{}, none, err
	}
	for _, n := range got.notes {
		r.note("", n, true)
	}
	r.toldProc, r.copied, r.laid = r.toldProc || chroot, r.copied || chroot, true
	// inside is the agent's directory as the step sees it, seen the target.
	inside, seen, root := got.where, r.o.Root, ""
	if chroot {
		inside, seen, root = targetDir, "", r.o.Root
	}
	env := environment(s, map[string]string{
		"NODE": r.plan.Node, "INSTALL": r.plan.Install, "ATTEMPT": strconv.Itoa(max(1, r.d.Attempt)), "PHASE": string(r.o.Phase), "STEP": s.Name,
		"TRY": strconv.Itoa(try), "REBOOTS": strconv.Itoa(r.history.steps[key(r.o.Phase, s.Name)].reboots), "ROOT": seen, "LIB": got.lib, "AGENT": got.agent, "PROFILE": r.plan.Profile,
		"RUN": path.Join(inside, "run"), "STATUS": path.Join(inside, status),
	}, r.plan.Attrs)
	return place{
		spec: proc.Spec{Name: s.Name, Path: path.Join(inside, script), Env: env, Root: root, Digest: s.Digest, Timeout: s.Timeout.D(),
			Grace: s.Grace.D(), Secrets: r.secrets, SuccessCodes: s.SuccessCodes, Processes: r.d.Processes, ProcessArgs: r.d.ProcessArgs, Cgroup: r.d.Cgroup},
		status: filepath.Join(got.where, status),
	}, got, nil
}

// layer lays out what a step needs. It shares nothing that changes with the runner, which may not have waited for it.
type layer struct {
	d           Deps
	o           Options
	install     string
	chroot      bool
	lookForProc bool
	compare     bool // whether the target's program is this one is not known
	first       bool // whose the private directory is, is not known
	notes       []string
}

func (l *layer) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// lay copies script, tools and private directory to the agent's directory, and makes the status file.
func (l *layer) lay(from, script, status string) (got laid, err error) {
	defer func() { got.notes = l.notes }()
	got.lib, got.agent = l.d.Lib, l.d.Agent
	dir, err := openGround(l.o.Root, l.d.StateDir)
	if err != nil {
		return got, fmt.Errorf("making the agent's directory: %w", err)
	}
	defer dir.Close()
	got.where = dir.path
	err = copyIn(dir, from, script, 0o755)
	if errors.Is(err, unix.ENOSPC) { // the copies of steps that are over make room
		err = errors.Join(dir.RemoveAll("bin/steps"), copyIn(dir, from, script, 0o755))
	}
	if err != nil {
		return got, err
	}
	if l.chroot {
		if got.lib, got.agent, err = l.copyTools(dir); err != nil {
			return got, err
		}
	}
	if l.lookForProc {
		l.look()
	}
	if l.first {
		if err := l.private(dir); err != nil {
			return got, err
		}
	}
	return got, l.makeStatus(dir, status)
}

// makeStatus makes the status file, which is empty and nothing that an earlier step put there.
func (l *layer) makeStatus(dir *ground, name string) (err error) {
	for range 3 { // the directory may be gone, and then what is in the place of the file
		var f *os.File
		if f, err = dir.create(name, 0o600); err == nil {
			return f.Close()
		}
		var mend error
		switch {
		case errors.Is(err, fs.ErrExist):
			mend = dir.RemoveAll(name)
		case errors.Is(err, fs.ErrNotExist):
			mend = l.private(dir)
		}
		if mend != nil {
			return mend
		}
	}
	return err
}

// open opens the step's log and begins it.
func (l *layer) open(got *laid, s proto.Step, try int, name string) (err error) {
	var w io.Writer
	if s.LeaveRunning {
		got.file, err = l.d.Journal.LogFile(name)
		w = got.file
	} else {
		got.log, err = l.d.Journal.Log(name)
		w = got.log
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "== step %s, try %d, %s\n", s.Name, try, time.Now().UTC().Format(time.RFC3339))
	}
	if err == nil {
		return nil
	}
	l.note("the output of step %s is not kept: %v", s.Name, err)
	got.notes = l.notes
	if s.LeaveRunning {
		got.file, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		return err
	}
	return nil
}

// close ends the log, as far as its disk answers within logWait.
func (l *laid) close() {
	if l.file == nil && l.log == nil {
		return
	}
	proc.Within(logWait, func() {
		if l.file != nil {
			l.file.Close()
		} else {
			l.log.Close()
		}
	})
}

// copyTools brings the shell library and the agent into the target, and gives their paths there.
func (l *layer) copyTools(dir *ground) (lib, agent string, err error) {
	if l.d.Lib != "" {
		entries, err := os.ReadDir(l.d.Lib)
		if err != nil {
			return "", "", fmt.Errorf("copying the shell library: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			if err := copyIn(dir, filepath.Join(l.d.Lib, e.Name()), "lib/"+e.Name(), 0o644); err != nil {
				return "", "", err
			}
		}
		lib = path.Join(targetDir, "lib")
	}
	if l.d.Agent != "" {
		if same, err := l.sameAgent(dir); err != nil {
			return "", "", fmt.Errorf("copying the agent: %w", err)
		} else if !same {
			if err := copyIn(dir, l.d.Agent, "bin/provost-agent", 0o755); err != nil {
				return "", "", err
			}
		}
		agent = path.Join(targetDir, "bin/provost-agent")
	}
	return lib, agent, nil
}

// sameAgent reports whether the target has this agent's program: by its size, and at a run's first look by its bytes, since an
// earlier install may have left one of the same size.
func (l *layer) sameAgent(dir *ground) (bool, error) {
	now, err := os.Stat(l.d.Agent)
	if err != nil {
		return false, err
	}
	was, err := dir.Lstat("bin/provost-agent")
	if err != nil || !was.Mode().IsRegular() || was.Size() != now.Size() {
		return false, nil // it is copied
	}
	if !l.compare {
		return true, nil
	}
	mine, err := os.ReadFile(l.d.Agent)
	if err != nil {
		return false, err
	}
	its, err := dir.ReadFile("bin/provost-agent")
	return err == nil && bytes.Equal(mine, its), nil
}

// procMagic is the type of procfs in statfs(2).
const procMagic = 0x9fa0

// look notes, once a run, that the target has no /proc: many tools fail without it, in ways that hide it.
func (l *layer) look() {
	var sf unix.Statfs_t
	at := filepath.Join(l.o.Root, "proc")
	if err := unix.Statfs(at, &sf); err != nil || sf.Type != procMagic {
		l.note("/proc is not mounted in the target, so some tools will not work there: mount -t proc proc %s", at)
	}
}

// privateOf says which install the private directory is of: a disk that was not formatted has an earlier one's.
const privateOf = "run.install"

// private makes the directory that lasts the install. In the target it begins with what the phases before left in /run. One of
// another install is put aside; one that does not say is, in a target, another's.
func (l *layer) private(dir *ground) error {
	if _, err := dir.Stat("run"); err == nil {
		of, err := dir.ReadFile(privateOf)
		if string(of) == l.install || errors.Is(err, fs.ErrNotExist) && l.o.Root == "" {
			return nil
		}
		if err := dir.Rename("run", fmt.Sprintf("run.old-%d", time.Now().UnixNano())); err != nil {
			return fmt.Errorf("putting an earlier install's PROVOST_RUN aside: %w", err)
		}
	}
	if err := errors.Join(dir.MkdirAll("run", 0o700), dir.WriteFile(privateOf, []byte(l.install), 0o600)); err != nil {
		return err
	}
	if l.o.Root == "" {
		if err := l.unpackPrivate(dir); err != nil {
			l.note("PROVOST_RUN does not have all that was kept before the restart: %v", err)
		}
		return nil
	}
	from := filepath.Join(l.d.StateDir, "run")
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
			l.note("PROVOST_RUN holds more than %d bytes: %s and what follows stays behind", maxPrivate, rel)
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
