// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"provost/proto"
)

// What of a machine's facts is worth a line: less than a tenth of a file system or of the memory is left.
const (
	nearlyFull  = 90 // percent
	littleLeft  = 10 // percent
	targetWords = "The target's file system"
	runWords    = "The agent's file system"
)

// machine tells what the last heartbeat said that may be the reason for trouble, and how to get in.
func (f *finding) machine(x *explanation) {
	n := f.n
	if n.Status == proto.StatusBooted {
		return
	}
	if m := n.Facts; m != nil && f.now.Sub(m.At) <= silentAfter {
		for _, s := range []struct {
			what string
			*proto.Space
		}{{targetWords, m.Target}, {runWords, m.Run}} {
			if used := s.Used(); used >= nearlyFull {
				x.Now = append(x.Now, fmt.Sprintf("%s (%s) is %d %% full: %s of %s are left.", s.what, s.Path, used, size(s.Free), size(s.Total)))
			}
		}
		if m.AvailableMB > 0 && m.AvailableMB*100 < m.MemoryMB*littleLeft {
			x.Now = append(x.Now, fmt.Sprintf("It is short of memory: %d of %d MiB are available.", m.AvailableMB, m.MemoryMB))
		}
	}
	if n.Rescue != nil && f.now.Sub(n.LastSeen) <= silentAfter {
		x.Next = append(x.Next, action{"provost ssh " + n.Name, "a shell on the machine"})
	}
}
