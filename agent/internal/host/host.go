// SPDX-License-Identifier: Apache-2.0

// Package host is everything that the agent asks of the machine under it: the kernel command line, the boot id and the
// clocks, network cards, firmware tables, consoles, processes, mounts, power.
//
// It is the only package that reads /proc and /sys or mounts. It must never read from a console, never block on one,
// and never judge what it found.
package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Host is a machine. Its files are looked up below Root, "" being the real machine's; system calls are always the
// running kernel's.
type Host struct {
	Root string
}

func (h Host) path(p string) string { return filepath.Join("/", h.Root, p) }

// text reads a small file of the kernel's, without the white space around it; "" if it cannot be read.
func (h Host) text(p string) string {
	b, err := os.ReadFile(h.path(p))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.Trim(string(b), "\x00"))
}

// Boot is the kernel's boot id.
func (h Host) Boot() (string, error) {
	b, err := os.ReadFile(h.path("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("reading the kernel's boot id (is /proc mounted?): %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !proto.ValidBoot(id) {
		return "", fmt.Errorf("the kernel's boot id %q is malformed", id)
	}
	return id, nil
}

// SinceBoot is the time since the kernel booted, sleep included (CLOCK_BOOTTIME, clock_gettime(2)). It never jumps.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // kernels before 2.6.39 only
	}
	return time.Duration(ts.Nano())
}

// MemoryMB is the machine's memory in MiB, 0 if unknown.
func (h Host) MemoryMB() int { return h.meminfo("MemTotal") }

// meminfo is a figure of /proc/meminfo in MiB, 0 if it is not there.
func (h Host) meminfo(name string) int {
	for line := range strings.Lines(h.text("/proc/meminfo")) {
		var kb int
		if n, _ := fmt.Sscanf(line, name+": %d kB", &kb); n == 1 {
			return kb >> 10
		}
	}
	return 0
}
