// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is the processes of one step. With a cgroup the kernel keeps the list, and nothing escapes it. Without, they are
// the session of the script and whatever else descends from this process that was not there before the step: orphans
// come to this process, if it is a subreaper.
type group struct {
	list   Processes
	sid    int  // of the step; 0 before it starts
	ended  bool // the script's own process was waited for
	before map[int]uint64
	dir    string // cgroup
	fd     *os.File
}

func newGroup(s Spec) *group {
	g := &group{list: s.Processes, before: map[int]uint64{}}
	if s.Cgroup != "" {
		dir, err := os.MkdirTemp(s.Cgroup, "provost-"+filepath.Base(s.Name)+"-")
		if err == nil {
			if g.fd, err = os.Open(dir); err == nil {
				g.dir = dir
				return g
			}
			os.Remove(dir)
		}
	}
	g.remember()
	return g
}

// remember takes down what is there before the step: without a cgroup, that tells whose a process is. It reads all of /proc.
func (g *group) remember() {
	if g.list == nil {
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

func (g *group) leader(pid int) { g.sid = pid }

// members lists the step's processes that are alive.
func (g *group) members() []Process {
	var all []Process
	pids := cgroupPIDs(g.dir)
	if g.dir != "" && len(pids) == 0 {
		return nil
	}
	if g.list != nil {
		all, _ = g.list() // without it: fewer are found by name, and the process group is signalled all the same
	}
	if g.dir != "" {
		var out []Process
		for _, pid := range pids {
			i := slices.IndexFunc(all, func(p Process) bool { return p.PID == pid })
			switch {
			case i < 0 && g.list == nil:
				out = append(out, Process{PID: pid, Name: "?"})
			case i >= 0 && all[i].State != 'Z':
				out = append(out, all[i])
			}
		}
		return out
	}
	if g.list == nil {
		if g.ended { // zombies are members of a process group, too
			g.reapGroup()
		}
		if g.sid > 0 && unix.Kill(-g.sid, 0) == nil {
			return []Process{{PID: -g.sid, Name: "process group"}}
		}
		return nil
	}
	own, _ := unix.Getsid(0)
	var out []Process
	for _, p := range descendants(all, os.Getpid(), g.before) {
		if p.State != 'Z' && p.Session != own {
			out = append(out, p)
		}
	}
	for _, p := range all { // one that another subreaper adopted
		if p.Session == g.sid && p.State != 'Z' && !slices.ContainsFunc(out, func(o Process) bool { return o.PID == p.PID }) {
			out = append(out, p)
		}
	}
	return out
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

func cgroupPIDs(dir string) []int {
	var pids []int
	if dir == "" {
		return nil
	}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // what vanishes under us has no processes
		if err != nil || !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
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

// kill kills every process of the step, in one stroke where the kernel can (cgroup.kill, since 5.14).
func (g *group) kill() {
	if g.dir != "" {
		if err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0); err == nil {
			return
		}
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
	var out []Straggler
	for _, p := range left {
		here := slices.ContainsFunc(alive, func(a Process) bool { return a.PID == p.PID && a.Start == p.Start })
		out = append(out, Straggler{PID: p.PID, Name: p.Name, Args: p.Args, Killed: !here})
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

// remove removes the cgroup. With processes left in it, it stays.
func (g *group) remove() {
	if g.fd != nil {
		g.fd.Close()
		g.fd = nil
	}
	if g.dir == "" {
		return
	}
	until(settleTime, func() bool { return !errors.Is(os.Remove(g.dir), unix.EBUSY) || len(cgroupPIDs(g.dir)) > 0 })
	g.dir = ""
}

func (s Straggler) String() string {
	what := s.Name
	if s.Args != "" {
		what = s.Args
	}
	return fmt.Sprintf("%d (%s)", s.PID, what)
}

// EndLeftover kills what a step left when the agent that ran it died: the processes of its cgroup, or else of its session,
// whose leader was pid, started at start. It gives them back.
func EndLeftover(cgroup string, pid int, start uint64, list Processes) []Straggler {
	find := func() []Process {
		if list == nil {
			return nil
		}
		all, err := list()
		if err != nil {
			return nil
		}
		inside := cgroupPIDs(cgroup)
		var out []Process
		for _, p := range all {
			switch {
			case p.State == 'Z':
			case cgroup != "" && slices.Contains(inside, p.PID):
				out = append(out, p)
			case cgroup == "" && p.PID == pid && p.Start != start: // the number was given to another process since
				return nil
			case cgroup == "" && p.Session == pid:
				out = append(out, p)
			}
		}
		return out
	}
	left := find()
	for end := time.Now().Add(killWait); time.Now().Before(end); time.Sleep(poll) {
		now := find()
		if len(now) == 0 {
			break
		}
		for _, p := range now {
			unix.Kill(p.PID, unix.SIGKILL)
		}
	}
	var out []Straggler
	for _, p := range left {
		out = append(out, Straggler{PID: p.PID, Name: p.Name, Args: p.Args, Killed: true})
	}
	if cgroup != "" {
		os.Remove(cgroup) // EBUSY: something is stuck in the kernel; it stays
	}
	return out
}
