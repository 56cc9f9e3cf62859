// SPDX-License-Identifier: Apache-2.0

// Package metrics writes figures in Prometheus' text exposition format, version 0.0.4. It keeps nothing: who has a figure
// counts it. It must never have a label whose values a node can choose, such as a node's name.
package metrics

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Writer writes metrics, each once. Errors of its io.Writer are that one's.
type Writer struct{ w io.Writer }

// New makes a Writer.
func New(w io.Writer) Writer { return Writer{w} }

func (m Writer) head(name, kind, help string) {
	fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(help), name, kind)
}

// Counter writes a value that only grows while the process lives. Its name ends in _total.
func (m Writer) Counter(name, help string, value float64) {
	m.head(name, "counter", help)
	fmt.Fprintf(m.w, "%s %s\n", name, number(value))
}

// Gauge writes a value.
func (m Writer) Gauge(name, help string, value float64) {
	m.head(name, "gauge", help)
	fmt.Fprintf(m.w, "%s %s\n", name, number(value))
}

// Sample is one value of a metric with a label.
type Sample struct {
	Label string // the label's value
	Value float64
}

// Labelled writes a metric (kind counter or gauge) with one label, in the samples' order.
func (m Writer) Labelled(name, kind, help, label string, samples []Sample) {
	m.head(name, kind, help)
	for _, s := range samples {
		fmt.Fprintf(m.w, "%s{%s=\"%s\"} %s\n", name, label, strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`).Replace(s.Label), number(s.Value))
	}
}

// Histogram writes counts by upper bound, one more than there are bounds, with the sum of all values.
func (m Writer) Histogram(name, help string, bounds []float64, counts []uint64, sum float64) {
	m.head(name, "histogram", help)
	all := uint64(0)
	for i, n := range counts {
		all += n
		le := "+Inf"
		if i < len(bounds) {
			le = number(bounds[i])
		}
		fmt.Fprintf(m.w, "%s_bucket{le=\"%s\"} %d\n", name, le, all)
	}
	fmt.Fprintf(m.w, "%s_sum %s\n%s_count %d\n", name, number(sum), name, all)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
