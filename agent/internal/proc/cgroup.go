// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroup is a group of cgroup v2 (kernel documentation, admin-guide/cgroup-v2) for the processes of one step. To make one
// costs the kernel more than a short step, so an empty one serves the next step.
type cgroup struct {
	parent, dir string
	fd          *os.File // of the directory
	events      *os.File // cgroup.events, which says whether any process is in it or below
	killed      bool     // by cgroup.kill: some kernels then kill whatever is cloned into it later (6.18 does)
	plain       bool     // it has no controllers, so that no step can leave limits to the next
}

// dirPrefix is how the name of each step's directory begins.
const dirPrefix = "provost-steps-"

// newCgroup makes one below parent, or gives nil.
func newCgroup(parent string) *cgroup {
	dir, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		return nil
	}
	c := &cgroup{parent: parent, dir: dir}
	if c.fd, err = os.Open(dir); err == nil {
		c.events, err = os.Open(filepath.Join(dir, "cgroup.events"))
	}
	if err != nil {
		c.remove()
		return nil
	}
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	c.plain = err == nil && len(bytes.TrimSpace(controllers)) == 0
	return c
}

// state reads cgroup.events: whether no process that is alive is in it or below, and whether a step has frozen it (since Linux 5.2).
// What cannot be read is not taken for empty.
func (c *cgroup) state() (empty, frozen bool) {
	var b [256]byte
	n, err := unix.Pread(int(c.events.Fd()), b[:], 0)
	if err != nil || n == len(b) {
		return false, false
	}
	return bytes.Contains(b[:n], []byte("populated 0")), bytes.Contains(b[:n], []byte("frozen 1"))
}

func (c *cgroup) empty() bool {
	empty, _ := c.state()
	return empty
}

// clean reports whether no step has left anything in it: no process, no group below its own, and it is not frozen. A directory of
// cgroupfs has two links, and one more for each directory in it.
func (c *cgroup) clean() bool {
	var st unix.Stat_t
	empty, frozen := c.state()
	return empty && !frozen && unix.Fstat(int(c.fd.Fd()), &st) == nil && st.Nlink == 2
}

// pids are those of all processes in it and below.
func (c *cgroup) pids() []int {
	if c.empty() {
		return nil
	}
	return cgroupPIDs(c.dir)
}

// others are the processes in the cgroups of other steps, which were left running or did not end.
func (c *cgroup) others() []int {
	dirs, err := filepath.Glob(filepath.Join(c.parent, dirPrefix+"*"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, dir := range dirs {
		if dir != c.dir {
			pids = append(pids, cgroupPIDs(dir)...)
		}
	}
	return pids
}

// close keeps the directory.
func (c *cgroup) close() {
	if c.fd != nil {
		c.fd.Close()
	}
	if c.events != nil {
		c.events.Close()
	}
}

// remove removes it. With processes left in it, the directory stays.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	c.close()
	until(settleTime, func() bool { return !errors.Is(os.Remove(c.dir), unix.EBUSY) || len(cgroupPIDs(c.dir)) > 0 })
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
