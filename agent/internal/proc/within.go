// SPDX-License-Identifier: Apache-2.0

package proc

import "time"

// Within does f, and reports whether it came back within d. A disk that does not answer holds its caller for as long as the kernel
// does; so what looks at one is done here by a goroutine of its own. One that is late goes on alone: what it changes must be read
// by nobody then.
func Within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	limit := time.NewTimer(d)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-limit.C:
		return false
	}
}
