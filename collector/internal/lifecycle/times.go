// SPDX-License-Identifier: Apache-2.0

package lifecycle

import "time"

// Span is a time from one stage to the next.
type Span struct{ From, To time.Time }

// Waits gives for each stage that the last attempt reached how long the next awaited one took to come.
func (s *State) Waits(q Sequence) map[string]Span {
	at := make([]time.Time, len(q.Stages))
	for _, seen := range s.Stages {
		last := seen.Value.Last
		if i := q.Index(seen.Key); i >= 0 && !s.earlier(last) && last.At().After(at[i]) {
			at[i] = last.At()
		}
	}
	out := map[string]Span{}
	for i, begin := range at {
		if begin.IsZero() {
			continue
		}
		for j := i + 1; j < len(at); j++ {
			if !at[j].IsZero() && !q.Stages[j].Optional && !at[j].Before(begin) {
				out[q.Stages[i].Name] = Span{begin, at[j]}
				break
			}
		}
	}
	return out
}
