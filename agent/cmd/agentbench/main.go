// SPDX-License-Identifier: Apache-2.0

// Agentbench measures what the agent costs its node: the time of a step beside a plain shell loop and beside a loop with a
// curl for each step, and the throughput of captured output beside tee. Each figure and its yardstick are measured in turn, in
// one run on one machine; what counts is their ratio. The real program's size and memory stand for themselves. It is not shipped.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// options say how much is measured.
type options struct {
	runs, steps, mb int
	disk, memory    string // directories for what must last, and of a tmpfs
	agent           string // the real program
	only            string
}

// figure is one line of the result: how long ours takes and how long theirs, and the ratio that is wanted.
type figure struct {
	name     string
	ratio    string  // what is divided by what
	target   float64 // of the ratio
	most     bool    // the ratio is to be at most the target, not at least
	ours     func(context.Context) (time.Duration, error)
	theirs   func(context.Context) (time.Duration, error)
	inverted bool // the ratio is theirs by ours
}

// busySpread is how much the slowest yardstick may take longer than the fastest: on an idle machine it is some 1.2.
const busySpread = 1.5

func run(args []string, stdout, stderr io.Writer) int {
	o := options{}
	f := flag.NewFlagSet("agentbench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.runs, "runs", 5, "`N` measurements of each figure and of its yardstick")
	f.IntVar(&o.steps, "steps", 100, "`N` steps of a plan")
	f.IntVar(&o.mb, "mb", 256, "`MB` of output")
	f.StringVar(&o.disk, "disk", os.TempDir(), "`DIR` on a disk")
	f.StringVar(&o.memory, "memory", "/dev/shm", "`DIR` on a tmpfs")
	f.StringVar(&o.agent, "agent", "bin/provost-agent", "the real program's `FILE`, for its size and memory")
	f.StringVar(&o.only, "only", "", "only the figures whose names begin with `NAME`, like P13")
	if err := f.Parse(args); err != nil {
		return 64
	}
	if f.NArg() > 0 || o.runs < 1 || o.steps < 1 || o.mb < 1 {
		fmt.Fprintln(stderr, "agentbench: error: runs, steps and mb are 1 or more, and there is no further argument")
		return 64
	}
	if err := bench(context.Background(), o, stdout); err != nil {
		fmt.Fprintf(stderr, "agentbench: error: %v\n", err)
		return 1
	}
	return 0
}

func bench(ctx context.Context, o options, out io.Writer) error {
	figures, end, err := figures(o)
	defer end()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%-4s %-46s %10s %10s %8s  %-14s %s\n", "", "figure", "ours", "yardstick", "ratio", "spread", "target")
	for _, f := range figures {
		if !strings.HasPrefix(f.name, o.only) {
			continue
		}
		if err := f.measure(ctx, o, out); err != nil {
			return fmt.Errorf("measuring %s: %w", f.name, err)
		}
	}
	if !strings.HasPrefix("P15", o.only) {
		return nil
	}
	if err := sizes(ctx, o.agent, out); err != nil {
		return fmt.Errorf("measuring P15: %w", err)
	}
	return nil
}

// measure takes ours and theirs in turn, after one of each that does not count.
func (f figure) measure(ctx context.Context, o options, out io.Writer) error {
	var ours, theirs []time.Duration
	var ratios []float64
	for i := range o.runs + 1 {
		a, err := f.ours(ctx)
		if err != nil {
			return err
		}
		b, err := f.theirs(ctx)
		if err != nil {
			return fmt.Errorf("yardstick: %w", err)
		}
		if i == 0 {
			continue
		}
		ours, theirs = append(ours, a), append(theirs, b)
		ratio := a.Seconds() / b.Seconds()
		if f.inverted {
			ratio = 1 / ratio
		}
		ratios = append(ratios, ratio)
	}
	slices.Sort(ratios)
	sign, good := ">=", median(ratios) >= f.target
	if f.most {
		sign, good = "<=", median(ratios) <= f.target
	}
	verdict := "MISSED"
	if good {
		verdict = "met"
	}
	if spread := slices.Max(theirs).Seconds() / slices.Min(theirs).Seconds(); spread > busySpread { // the yardstick is the same work each time: what differs is the machine
		verdict = fmt.Sprintf("%s, but too busy to judge: the yardstick alone varies by %.1f", strings.ToLower(verdict), spread)
	}
	name, rest := f.name[:4], f.name[4:]
	_, err := fmt.Fprintf(out, "%-4s %-46s %10s %10s %8.2f  %-14s %s %.1f %s\n", name, rest+" ("+f.ratio+")", median(ours).Round(time.Millisecond), median(theirs).Round(time.Millisecond),
		median(ratios), fmt.Sprintf("%.2f..%.2f", ratios[0], ratios[len(ratios)-1]), sign, f.target, verdict)
	return err
}

func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
