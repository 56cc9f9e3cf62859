// SPDX-License-Identifier: Apache-2.0

package lifecycle

import "time"

// Waits gives for each stage that the last attempt reached how long the next awaited one took to come.
func (s *State) Waits(q Sequence) map[string]time.Duration {
	at := make([]time.Time, len(q.Stages))
	for name, seen := range s.Stages {
		if i := q.Index(name); i >= 0 && !s.earlier(seen.Last) && seen.Last.At.After(at[i]) {
			at[i] = seen.Last.At
		}
	}
	out := map[string]time.Duration{}
	for i, begin := range at {
		if begin.IsZero() {
			continue
		}
		for j := i + 1; j < len(at); j++ {
			if d := at[j].Sub(begin); !at[j].IsZero() && !q.Stages[j].Optional && d >= 0 {
				out[q.Stages[i].Name] = d
				break
			}
		}
	}
	return out
}
