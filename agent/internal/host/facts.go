// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Facts looks at the machine: its load, its memory, and the space where the agent's state is and on the target, "" if there
// is none. A file system that hangs hangs the caller.
func (h Host) Facts(state, target string) proto.Facts {
	f := proto.Facts{Run: h.space(state), MemoryMB: h.MemoryMB(), AvailableMB: h.meminfo("MemAvailable")}
	if target != "" {
		f.Target = h.space(target)
	}
	fmt.Sscanf(h.text("/proc/loadavg"), "%f", &f.Load) // not there: it stays 0, which is left out
	return f
}

// space is that of the file system which holds path; nil if there is none or it tells no size.
func (h Host) space(path string) *proto.Space {
	var st unix.Statfs_t
	if path == "" || unix.Statfs(h.path(path), &st) != nil || st.Blocks == 0 {
		return nil
	}
	unit := int64(st.Frsize) // statfs(2): of Blocks and Bavail; 0 with some old file systems
	if unit == 0 {
		unit = int64(st.Bsize)
	}
	return &proto.Space{Path: path, Free: int64(st.Bavail) * unit, Total: int64(st.Blocks) * unit}
}
