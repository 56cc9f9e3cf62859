// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetProgram takes the pages of the program's own file out of this process's memory (madvise(2), MADV_DONTNEED). The kernel maps
// nearly all of the file while a program begins; what it still uses comes back from the page cache, page by page. So the process
// counts for what it needs where the kernel looks for one to kill, and a file on a disk can make room. It does nothing to what the
// program has written to.
func ForgetProgram() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("forgetting the program's pages: %w", err)
	}
	defer f.Close()
	var from, to uint64
	s := bufio.NewScanner(f)
	for s.Scan() {
		w := strings.Fields(s.Text())
		switch {
		case len(w) == 6 && w[4] != "0" && (w[1] == "r-xp" || w[1] == "r--p"): // proc_pid_maps(5): of a file, and not to be written
			a, b, _ := strings.Cut(w[0], "-")
			var errA, errB error
			from, errA = strconv.ParseUint(a, 16, 64)
			to, errB = strconv.ParseUint(b, 16, 64)
			if errA != nil || errB != nil {
				from, to = 0, 0
			}
		case len(w) >= 5 && strings.Contains(w[0], "-"): // another mapping
			from, to = 0, 0
		case to > from && len(w) == 3 && w[0] == "Anonymous:":
			if w[1] != "0" {
				continue // relocated when the program began
			}
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("forgetting the program's pages: %w", errno)
			}
		}
	}
	return s.Err()
}
