// SPDX-License-Identifier: Apache-2.0

package proc

import "time"

// SetCheckWait and SetSettleTime last until undo is called. No other step may run meanwhile.
func SetCheckWait(d time.Duration) (undo func())  { return set(&checkWait, d) }
func SetSettleTime(d time.Duration) (undo func()) { return set(&settleTime, d) }

func set(to *time.Duration, d time.Duration) (undo func()) {
	was := *to
	*to = d
	return func() { *to = was }
}

// Filter is what takes secrets out of a step's output.
type Filter struct{ f filter }

func NewFilter(r *Redactor) *Filter     { return &Filter{filter{r: r}} }
func (f *Filter) Write(b []byte) []byte { return f.f.write(b) }
func (f *Filter) End() []byte           { return f.f.end() }
