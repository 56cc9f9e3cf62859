// SPDX-License-Identifier: Apache-2.0

package proc

import "time"

// Within does f, and gives what it returns if it comes back within d. A disk that does not answer holds its caller for as long as
// the kernel does; so what looks at one is done here by a goroutine of its own. One that is late goes on alone: it must change
// nothing that others look at.
func Within[T any](d time.Duration, f func() T) (got T, ok bool) {
	done := make(chan T, 1)
	go func() { done <- f() }()
	limit := time.NewTimer(d)
	defer limit.Stop()
	select {
	case got = <-done:
		return got, true
	case <-limit.C:
		return got, false
	}
}
