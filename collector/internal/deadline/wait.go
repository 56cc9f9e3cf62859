// SPDX-License-Identifier: Apache-2.0

package deadline

import "time"

// waitGrace is for an agent's clock that is slow, and for its last words to be delivered.
const waitGrace = time.Hour

// Gone is from when on a node that waits for orders, and was last heard at a time, does not wait any more, whatever became of
// it: an agent ends its hold by itself at the plan's hold limit, and is heard until then.
func Gone(heard time.Time, holdLimit time.Duration, down []Interval) time.Time {
	return after(heard, holdLimit+waitGrace, down)
}
