// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one process, as /proc/PID/stat tells (proc_pid_stat(5)).
type Process struct {
	PID, PPID, Session int
	Start              uint64 // in clock ticks since boot: with PID, the process's identity
	State              byte
	Name               string
}

// Processes lists every process. One that ends meanwhile is left out. It reads nothing that waits for a process's memory.
func (h Host) Processes() ([]Process, error) {
	entries, err := os.ReadDir(h.path("/proc"))
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var out []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := parseStat(h.text("/proc/" + e.Name() + "/stat"))
		if err != nil || p.PID != pid {
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

// argsMax is how much of a process's arguments is read: more than any secret among them has.
const argsMax = 64 << 10

// Args gives what a process was started with, joined by spaces, at most argsMax bytes; "" if that is not known. It hangs while the
// process waits for a disk in a way that keeps its memory locked.
func (h Host) Args(pid int) string {
	f, err := os.Open(h.path("/proc/" + strconv.Itoa(pid) + "/cmdline"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, argsMax)) // what was read counts
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

// parseStat reads a line of /proc/PID/stat. The name may hold blanks and parentheses: it ends at the last one.
func parseStat(line string) (Process, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	bad := fmt.Errorf("%q is no line of /proc/PID/stat", line)
	if open < 1 || end < open {
		return Process{}, bad
	}
	f := strings.Fields(line[end+1:])
	if len(f) < 20 {
		return Process{}, bad
	}
	p := Process{Name: line[open+1 : end], State: f[0][0]}
	var errs [4]error
	p.PID, errs[0] = strconv.Atoi(strings.TrimSpace(line[:open]))
	p.PPID, errs[1] = strconv.Atoi(f[1])
	p.Session, errs[2] = strconv.Atoi(f[3])
	p.Start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	for _, err := range errs {
		if err != nil {
			return Process{}, bad
		}
	}
	return p, nil
}

// Cgroup is this process's own directory in a cgroup v2 hierarchy in which it may make children, or "".
func (h Host) Cgroup() string {
	own := ""
	for line := range strings.Lines(h.text("/proc/self/cgroup")) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = rest
		}
	}
	if own == "" {
		return ""
	}
	for _, m := range h.mounts() {
		if m.fstype != "cgroup2" {
			continue
		}
		dir := h.path(filepath.Join(m.point, own))
		if unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil {
			return dir
		}
	}
	return ""
}

type mount struct{ point, fstype string }

// mounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
func (h Host) mounts() []mount {
	f, err := os.Open(h.path("/proc/self/mountinfo"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []mount
	for s := bufio.NewScanner(f); s.Scan(); {
		if m, ok := parseMount(s.Text()); ok {
			out = append(out, m)
		}
	}
	return out
}

func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 6 || len(g) < 1 {
		return mount{}, false
	}
	// white space and backslashes are written in octal
	point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
	return mount{point, g[0]}, true
}
