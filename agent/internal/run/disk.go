// SPDX-License-Identifier: Apache-2.0

package run

import (
	"fmt"
	"time"

	"provost/agent/internal/proc"
)

const (
	// diskWait bounds what a step waits for the disk that its files are on, before it starts and after it ended. A large copy to
	// a disk that is busy with packages takes a minute.
	diskWait = 2 * time.Minute
	// logWait bounds the closing of its log, which may hang in a write of its own.
	logWait = 10 * time.Second
)

// onDisk does f, which uses the target's disk or the state directory's, and waits for it at most wait. One that is late is not
// begun beside another; it must change nothing of the runner, and with an error what it changes must be read by nobody.
func onDisk(r *runner, wait time.Duration, f func() error) error {
	where := "the disk of " + r.d.StateDir
	if r.o.Root != "" {
		where = "the target"
	}
	select {
	case r.disk <- struct{}{}:
	default:
		return fmt.Errorf("%s does not answer: an earlier look at it has not come back; see the kernel's log, dmesg", where)
	}
	var err error
	if !proc.Within(wait, func() { err = f(); <-r.disk }) {
		return fmt.Errorf("%s does not answer within %s: see the kernel's log, dmesg", where, wait)
	}
	return err
}
