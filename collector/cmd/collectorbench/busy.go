// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// used is the CPU time of every process at a moment, by process id, and who started whom.
type used struct {
	at      time.Time
	seconds map[int]float64
	parent  map[int]int
}

// tick is the unit of /proc/PID/stat: USER_HZ, 100 on every Linux (proc(5)).
const tick = 0.01

// look reads /proc. What cannot be read is not counted: this is for a warning alone.
func look() used {
	u := used{at: time.Now(), seconds: map[int]float64{}, parent: map[int]int{}}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return u
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 13 {
			continue
		}
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		u.parent[pid], _ = strconv.Atoi(f[1])
		u.seconds[pid] = (user + system) * tick
	}
	return u
}

// others gives how many CPUs processes used between two looks that are not this one's and not the kernel's.
func (u used) others(now used) float64 {
	sum := 0.0
	for pid, s := range now.seconds {
		if !now.ours(pid) && !u.ours(pid) {
			sum += max(0, s-u.seconds[pid])
		}
	}
	return sum / now.at.Sub(u.at).Seconds()
}

// ours reports whether a process descends from this one, or is one of the kernel's.
func (u used) ours(pid int) bool {
	me := os.Getpid()
	for n := 0; pid > 1 && n < 100; n++ {
		if pid == me || pid == 2 {
			return true
		}
		pid = u.parent[pid]
	}
	return false
}
