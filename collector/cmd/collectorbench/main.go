// SPDX-License-Identifier: Apache-2.0

// Collectorbench measures what the collector costs beside what one would compare it with: a plain file, the same handler
// without a store, other stores, cat. A figure and its yardstick are measured in turn, in one run on one machine; what counts
// is their ratio, and no ratio makes it fail. It is shipped to nobody, and it must never touch a collector that it did not
// start itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const help = `collectorbench: the collector's figures beside their yardsticks

  collectorbench [-only P4,P9] [-full] [-runs N] [-bin DIR] [-dir DIR]

Without -full the sizes of P3, P9, P10 and P11 are a tenth, which the table says. The peers of P6 and P7 are started, on
loopback, when they are installed: etcd, postgres, nats-server, rsyslogd with imrelp, redis-server.

Exit status: 0 measured, whatever came out, 1 it could not be measured, 64 usage.
`

// options say how much is measured, and with what.
type options struct {
	runs    int
	full    bool
	only    map[string]bool
	dir     string // scratch, on the disk that is measured
	bin     string // programs that make build made
	profile string // where to write CPU profiles of our own side
	keep    string // fixture of P9 to P11, made there if it is not there yet
	length  time.Duration
	out     io.Writer
}

// scaled gives a size, or a tenth of it.
func (o *options) scaled(n int) int {
	if o.full {
		return n
	}
	return n / 10
}

func (o *options) wants(ids ...string) bool {
	if len(o.only) == 0 {
		return true
	}
	for _, id := range ids {
		if o.only[id] {
			return true
		}
	}
	return false
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && strings.HasPrefix(args[0], childPrefix) {
		return child(args, stdout, stderr)
	}
	o := options{out: stdout, only: map[string]bool{}}
	var only string
	f := flag.NewFlagSet("collectorbench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, help); f.PrintDefaults() }
	f.IntVar(&o.runs, "runs", 5, "`N` measurements of each figure and of its yardstick")
	f.BoolVar(&o.full, "full", false, "all sizes as PERFORMANCE.md has them: an hour")
	f.StringVar(&only, "only", "", "`FIGURES`, as P4,P9")
	f.StringVar(&o.dir, "dir", "", "scratch `DIR`; a new one in the system's if empty")
	f.StringVar(&o.bin, "bin", "bin", "`DIR` with provostd and provost")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of the server below `DIR`")
	f.StringVar(&o.keep, "fixture", "", "keep the large site of P9 to P11 in `DIR`, or use the one that is there")
	f.DurationVar(&o.length, "length", 2*time.Second, "of each measurement of a rate")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 64
	}
	if f.NArg() > 0 || o.runs < 1 || o.length < 100*time.Millisecond {
		fmt.Fprintln(stderr, "collectorbench: error: runs is 1 or more, length 100ms or more, and there is no further argument")
		return 64
	}
	for _, id := range strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' }) {
		o.only[strings.ToUpper(id)] = true
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp(o.dir, "collectorbench-")
	if err == nil {
		defer os.RemoveAll(dir)
		o.dir, err = filepath.Abs(dir)
	}
	if err == nil {
		err = bench(ctx, &o)
	}
	if err != nil {
		fmt.Fprintf(stderr, "collectorbench: error: %v\n", err)
		return 1
	}
	return 0
}

// bench measures one group of figures after the other and shows them together at the end, what was missed first.
func bench(ctx context.Context, o *options) error {
	t := &table{o: o}
	groups := []struct {
		ids     []string
		measure func(context.Context, *options, *table) error
	}{
		{[]string{"P1", "P2", "P3"}, storeFigures},
		{[]string{"P4", "P5"}, httpFigures},
		{[]string{"P6", "P7"}, peerFigures},
		{[]string{"P9", "P10", "P11"}, siteFigures},
		{[]string{"P16"}, parserFigures},
	}
	begin := time.Now()
	for _, g := range groups {
		if !o.wants(g.ids...) {
			continue
		}
		if err := g.measure(ctx, o, t); err != nil {
			return fmt.Errorf("measuring %s: %w", strings.Join(g.ids, ", "), err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	t.print(time.Since(begin))
	return nil
}

// profiled runs fn, with a CPU profile of this process if one is wanted.
func (o *options) profiled(name string, fn func() error) error {
	if o.profile == "" {
		return fn()
	}
	f, err := os.Create(filepath.Join(o.profile, name+".cpu"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return fn()
}
