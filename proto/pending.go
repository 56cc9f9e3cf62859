// SPDX-License-Identifier: Apache-2.0

package proto

import "time"

// Pending is an order that was given to a node's agent, which has not acknowledged it yet.
type Pending struct {
	Verb  Verb      `json:"verb"`
	Step  string    `json:"step,omitempty"`
	Since time.Time `json:"since,omitzero"` // when it was given
	Actor string    `json:"actor,omitempty"`
}

// Resumes reports whether these orders, once they are carried out, end the hold of a failed install so that it goes on.
// A node that is failed and has such orders has not come to its end.
func Resumes(orders []Pending) bool {
	resumes := false
	for _, o := range orders {
		switch o.Verb {
		case VerbRetry, VerbSkip:
			resumes = true
		case VerbAbort:
			return false
		}
	}
	return resumes
}
