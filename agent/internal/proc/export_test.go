// SPDX-License-Identifier: Apache-2.0

package proc

// Filter is what takes secrets out of a step's output.
type Filter struct{ f filter }

func NewFilter(r *Redactor) *Filter     { return &Filter{filter{r: r}} }
func (f *Filter) Write(b []byte) []byte { return f.f.write(b) }
func (f *Filter) End() []byte           { return f.f.end() }
