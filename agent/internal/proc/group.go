// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// group is the processes of one step: those in its cgroup, where it has one, those of the session of the script, and whatever
// else descends from this process that was not there before the step. Orphans come to this process, if it is a subreaper. A
// cgroup alone is not enough: root may write its own process id into the cgroup.procs of another.
type group struct {
	list   Processes
	args   func(pid int) string
	hide   *Redactor // of what a process was started with
	sid    int       // of the step; 0 before it starts
	ended  bool      // the script's own process was waited for
	before map[int]uint64
	cgroup *cgroup // nil for none
	dir    string  // its directory
}

// newGroup makes the group of a step that is to begin, in the cgroup that an earlier one left if that is the right one.
func newGroup(s Spec, kept *cgroup) *group {
	g := &group{list: s.Processes, args: s.ProcessArgs, hide: NewRedactor(s.Secrets), before: map[int]uint64{}}
	if kept != nil && kept.parent != s.Cgroup {
		kept.remove()
		kept = nil
	}
	if kept == nil && s.Cgroup != "" {
		kept = newCgroup(s.Cgroup)
	}
	if kept != nil {
		g.cgroup, g.dir = kept, kept.dir
	}
	g.remember()
	return g
}

// remember takes down what is there before the step. It reads all of /proc, but where this process has no child, there is nothing.
func (g *group) remember() {
	if g.list == nil || childless() {
		return
	}
	all, err := g.list()
	if err != nil {
		return
	}
	for _, p := range descendants(all, os.Getpid(), nil) {
		g.before[p.PID] = p.Start
	}
}

// childless reports whether this process has no child, neither alive nor as a zombie.
func childless() bool {
	return errors.Is(unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil), unix.ECHILD)
}

func (g *group) leader(pid int) { g.sid = pid }

// members lists the step's processes that are alive.
func (g *group) members() []Process {
	var inside []int
	if g.cgroup != nil {
		inside = g.cgroup.pids()
	}
	if len(inside) == 0 && g.gone() {
		return nil
	}
	if g.list == nil {
		return g.unlisted(inside)
	}
	all, err := g.list()
	if err != nil {
		return g.unlisted(inside)
	}
	own, _ := unix.Getsid(0)
	var other []int // of steps before, in cgroups of theirs
	if g.cgroup != nil {
		other = g.cgroup.others()
	}
	mine := map[int]bool{}
	for _, p := range descendants(all, os.Getpid(), g.before) {
		mine[p.PID] = p.Session != own && !slices.Contains(other, p.PID)
	}
	return slices.DeleteFunc(all, func(p Process) bool { // the session is also that of one that another subreaper adopted
		return p.State == 'Z' || !mine[p.PID] && (g.sid == 0 || p.Session != g.sid) && !slices.Contains(inside, p.PID)
	})
}

// unlisted is members where processes cannot be listed: those in the cgroup, and the process group as one.
func (g *group) unlisted(inside []int) []Process {
	var out []Process
	for _, pid := range inside {
		out = append(out, Process{PID: pid, Name: "?"})
	}
	if g.ended { // zombies are members of a process group, too
		g.reapGroup()
	}
	if len(inside) == 0 && g.sid > 0 && unix.Kill(-g.sid, 0) == nil {
		out = append(out, Process{PID: -g.sid, Name: "process group"})
	}
	return out
}

// gone reports that no process of the step can be alive, without a look at all of /proc: the script was waited for, nothing is
// in its process group, and this process, to which orphans come, has no child.
func (g *group) gone() bool {
	return g.ended && g.sid > 0 && errors.Is(unix.Kill(-g.sid, 0), unix.ESRCH) && childless() && subreaper()
}

func subreaper() bool {
	var is int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&is)), 0, 0, 0)
	return err == nil && is != 0
}

// descendants lists what descends from pid, without those in except and theirs.
func descendants(all []Process, pid int, except map[int]uint64) []Process {
	children := map[int][]Process{}
	for _, p := range all {
		children[p.PPID] = append(children[p.PPID], p)
	}
	var out []Process
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		for _, p := range children[todo[0]] {
			if start, ok := except[p.PID]; (ok && start == p.Start) || p.PID == todo[0] {
				continue
			}
			out = append(out, p)
			todo = append(todo, p.PID)
		}
	}
	return out
}

// signal sends sig to every process of the step, once: a trap that cleans up must not run twice.
func (g *group) signal(sig unix.Signal) {
	grouped := g.sid > 0 && unix.Kill(-g.sid, sig) == nil // ESRCH: the group is empty already
	for _, p := range g.members() {
		if pgid, err := unix.Getpgid(p.PID); grouped && (p.PID == -g.sid || err == nil && pgid == g.sid) {
			continue
		}
		unix.Kill(p.PID, sig)
	}
}

// kill kills every process of the step: those in the cgroup in one stroke where the kernel can (cgroup.kill, since 5.14), and
// then whatever left it.
func (g *group) kill() {
	if g.cgroup != nil {
		g.cgroup.killed = true
		os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) // without it they are killed one by one
	}
	g.signal(unix.SIGKILL)
}

// finish deals with what is left when the script's own process has ended, and says what that was.
func (g *group) finish(leave bool) []Straggler {
	g.ended = true
	empty := func() bool { return len(g.members()) == 0 }
	if until(settleTime, empty) {
		return nil
	}
	left := g.members()
	out := stragglers(left, g.args, g.hide)
	if !leave {
		g.signal(unix.SIGTERM)
		g.signal(unix.SIGCONT)
		if !until(straggleGrace, empty) {
			// A process that forks faster than it is listed needs several rounds.
			for end := time.Now().Add(killWait); !empty() && time.Now().Before(end); time.Sleep(poll) {
				g.kill()
			}
		}
	}
	alive := g.members()
	for i, p := range left {
		out[i].Killed = !slices.ContainsFunc(alive, func(a Process) bool { return a.PID == p.PID && a.Start == p.Start })
	}
	return out
}

const (
	// argsWait bounds the reading of what a process was started with: the kernel takes it from that process's memory, and
	// waits where that one waits for a disk.
	argsWait = time.Second
	// argsMax is how much of it is told, in bytes.
	argsMax = 200
)

// stragglers names what was left, while it lives. Secrets are taken out of the arguments before those are cut.
func stragglers(left []Process, args func(pid int) string, hide *Redactor) []Straggler {
	var out []Straggler
	for _, p := range left {
		s := Straggler{PID: p.PID, Name: p.Name}
		if args != nil {
			got := make(chan string, 1)
			go func() { got <- args(p.PID) }()
			select {
			case text := <-got:
				s.Args = proto.Clip(hide.start(text), argsMax)
			case <-time.After(argsWait):
				args = nil // the others are named only
			}
		}
		out = append(out, s)
	}
	return out
}

// reap asks for the exit status of orphans, else they stay zombies. Only children in sessions of their own are orphans of
// steps; the script itself is waited for elsewhere.
func (g *group) reap() {
	if g.list == nil || !anyEnded() {
		return
	}
	all, err := g.list()
	if err != nil {
		return
	}
	own, _ := unix.Getsid(0)
	me := os.Getpid()
	for _, p := range all {
		if p.PPID == me && p.State == 'Z' && p.PID != g.sid && p.Session != own {
			unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
		}
	}
}

// anyEnded reports whether some child of this process waits to be asked for its exit status, and leaves it so. To list all of
// /proc takes longer than most steps.
func anyEnded() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

// reapGroup asks for the exit status of orphans in the step's process group.
func (g *group) reapGroup() {
	for {
		if pid, err := unix.Wait4(-g.sid, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

// release gives the cgroup back, for the next step if nothing is in it; nil if there is none, or it must stay.
func (g *group) release() *cgroup {
	c := g.cgroup
	g.cgroup, g.dir = nil, ""
	switch {
	case c == nil:
		return nil
	case !c.plain || c.killed || !c.clean():
		c.remove()
		return nil
	}
	return c
}

func (s Straggler) String() string {
	what := s.Name
	if s.Args != "" {
		what = s.Args
	}
	return fmt.Sprintf("%d (%s)", s.PID, what)
}

// EndLeftover kills what a step left when the agent that ran it died: the processes of its cgroup, those of its session, whose
// leader was pid, started at start (0 if that is not known), and what descends from them. It gives them back. One that has left all
// of these is not found: its orphans went to another process.
func EndLeftover(cgroup string, pid int, start uint64, list Processes, args func(pid int) string, secrets []string) []Straggler {
	find := func() []Process {
		if list == nil {
			return nil
		}
		all, err := list()
		if err != nil {
			return nil
		}
		mine := map[int]bool{}
		for _, p := range cgroupPIDs(cgroup) {
			mine[p] = true
		}
		session := !slices.ContainsFunc(all, func(p Process) bool { // else the number was given to another process since
			return pid == 0 || p.PID == pid && !mine[pid] && p.Start != start
		})
		for _, p := range all {
			if session && p.Session == pid {
				mine[p.PID] = true
			}
		}
		for _, p := range all {
			if mine[p.PID] {
				for _, d := range descendants(all, p.PID, nil) {
					mine[d.PID] = true
				}
			}
		}
		return slices.DeleteFunc(all, func(p Process) bool { return p.State == 'Z' || !mine[p.PID] })
	}
	out := stragglers(find(), args, NewRedactor(secrets))
	for end := time.Now().Add(killWait); time.Now().Before(end); time.Sleep(poll) {
		now := find()
		if len(now) == 0 {
			break
		}
		for _, p := range now {
			unix.Kill(p.PID, unix.SIGKILL)
		}
	}
	for i := range out {
		out[i].Killed = true
	}
	if cgroup != "" {
		os.Remove(cgroup) // EBUSY: something is stuck in the kernel; it stays
	}
	return out
}
