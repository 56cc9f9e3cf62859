// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// figure is what is measured: ours and the yardstick's, in turn. Both give a rate, or both a time.
type figure struct {
	id, name string
	unit     string  // of both
	target   float64 // of the ratio
	most     bool    // the ratio is to be at most the target, not at least
	ours     func(context.Context) (float64, error)
	theirs   func(context.Context) (float64, error)
}

// row is a line of the table.
type row struct {
	id, name, unit  string
	ours, yardstick string
	ratio, spread   string
	target, verdict string
	missed          bool
	notes           []string
}

// table collects rows and prints them.
type table struct {
	o    *options
	rows []row
}

const (
	busyShare  = 0.25 // CPUs that others may use before a measurement says little
	busySpread = 1.6  // the greatest ratio by the least
)

// measure takes ours and the yardstick in turn, after one of each that does not count.
func (t *table) measure(ctx context.Context, f figure) error {
	var ours, theirs, ratios, shares []float64
	for i := range t.o.runs + 1 {
		began := look()
		b, err := f.theirs(ctx)
		if err != nil {
			return fmt.Errorf("%s, yardstick: %w", f.id, err)
		}
		a, err := f.ours(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", f.id, err)
		}
		if i == 0 {
			continue
		}
		shares = append(shares, began.others(look()))
		ours, theirs, ratios = append(ours, a), append(theirs, b), append(ratios, a/b)
	}
	slices.Sort(ratios)
	good := median(ratios) >= f.target
	sign := "≥"
	if f.most {
		good, sign = median(ratios) <= f.target, "≤"
	}
	r := row{id: f.id, name: f.name, unit: f.unit, ours: number(median(ours)), yardstick: number(median(theirs)), ratio: fmt.Sprintf("%.2f", median(ratios)),
		spread: fmt.Sprintf("%.2f–%.2f", ratios[0], ratios[len(ratios)-1]), target: fmt.Sprintf("%s %.2f", sign, f.target)}
	r.judge(good)
	if s := median(shares); s > busyShare {
		r.notes = append(r.notes, fmt.Sprintf("too busy to judge: others used %.1f of %d CPUs", s, runtime.NumCPU()))
	}
	if ratios[0] > 0 && ratios[len(ratios)-1]/ratios[0] > busySpread {
		r.notes = append(r.notes, "too uneven to judge: see the spread")
	}
	t.add(r)
	return nil
}

// limit adds a figure that has no yardstick but a limit.
func (t *table) limit(id, name, unit string, values []float64, limit float64) {
	v := median(values)
	r := row{id: id, name: name, unit: unit, ours: number(v), spread: number(slices.Min(values)) + "–" + number(slices.Max(values)), target: "≤ " + number(limit)}
	r.judge(v <= limit)
	t.add(r)
}

func (r *row) judge(good bool) {
	r.verdict = "met"
	if !good {
		r.verdict, r.missed = "MISSED", true
	}
}

// skip adds a figure that could not be measured here.
func (t *table) skip(id, name, why string) {
	t.add(row{id: id, name: name, verdict: "skipped", notes: []string{why}})
}

// add shows a row as soon as it is known.
func (t *table) add(r row) {
	t.rows = append(t.rows, r)
	fmt.Fprintf(t.o.out, "measured %-4s %s: %s\n", r.id, r.name, strings.TrimSpace(r.verdict+" "+r.ratio))
}

func (t *table) print(took time.Duration) {
	w := t.o.out
	fmt.Fprintf(w, "\n%-4s %-31s %-8s %8s %9s %6s %-13s %-7s %s\n", "", "figure", "", "ours", "yardstick", "ratio", "spread", "target", "")
	missed := 0
	for _, want := range []bool{true, false} {
		for _, r := range t.rows {
			if r.missed != want {
				continue
			}
			if r.missed {
				missed++
			}
			fmt.Fprintf(w, "%-4s %-31s %-8s %8s %9s %6s %-13s %-7s %s\n", r.id, r.name, r.unit, r.ours, r.yardstick, r.ratio, r.spread, r.target, r.verdict)
			for _, n := range r.notes {
				fmt.Fprintf(w, "     %s\n", n)
			}
		}
	}
	scale := "a tenth of the size for P3 and P9 to P11; all of it with BENCH=full"
	if t.o.full {
		scale = "full size"
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("unknown")
	}
	fmt.Fprintf(w, "\n%d figures, %d missed. %s. %d runs of each, %d CPUs, %s; load %s\n", len(t.rows), missed, strings.ToUpper(scale[:1])+scale[1:], t.o.runs,
		runtime.NumCPU(), took.Round(time.Second), strings.TrimSpace(string(load)))
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// number shows three or four digits with a unit of thousands.
func number(v float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e4, "k"}} {
		if v >= u.of {
			if u.name == "k" {
				return strconv.FormatFloat(v/1e3, 'f', 0, 64) + " k"
			}
			return strconv.FormatFloat(v/u.of, 'f', 1, 64) + " " + u.name
		}
	}
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
