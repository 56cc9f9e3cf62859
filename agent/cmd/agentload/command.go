// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"provost/agent/internal/load"
	"provost/agent/internal/report"
)

const help = `agentload: simulated agents against a collector, for its tests

  agentload order  --server SOCKET --agents N --profile P
  agentload run    --url URL --ca FILE --join-key-file FILE [--server SOCKET --profile P] [flags]
  agentload verify --server SOCKET --acknowledged FILE

order   adds the nodes load00001 … and orders an install of each
run     installs and boots all of them at once; with --server it orders them before and verifies everything afterwards
verify  checks that a collector has what was acknowledged, as run has said it

While it runs, run takes commands on its standard input, a line each, and answers each by one line of JSON:
  window         what was measured since the last window
  acknowledged   the last record of each journal and the length of each log that the collector has acknowledged
  drain          the seconds until all that exists now is acknowledged
At its end it says the whole run with the last window, and, when it has verified everything, the faults, in the same way.

Exit status: 0 good, 1 something is lost, doubled or wrong, 2 it could not be done, 64 usage.
`

// Exit statuses.
const (
	exitOK    = 0
	exitLost  = 1
	exitError = 2
	exitUsage = 64
)

var (
	errLost  = errors.New("the collector does not have what it acknowledged")
	errUsage = errors.New("see agentload --help")
)

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, args, stdin, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	}
	fmt.Fprintf(stderr, "agentload: error: %v\n", err)
	switch {
	case errors.Is(err, errLost):
		return exitLost
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitError
}

func dispatch(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("a command is missing: %w", errUsage)
	}
	o := &options{}
	fs := flag.NewFlagSet("agentload "+args[0], flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.server, "server", "", "the collector's unix socket")
	var command func() error
	switch args[0] {
	case "order":
		o.crowd(fs)
		command = func() error { return o.order(ctx) }
	case "run":
		o.crowd(fs)
		o.agents(fs)
		command = func() error { return o.run(ctx, stdin, stdout, stderr) }
	case "verify":
		fs.StringVar(&o.acknowledged, "acknowledged", "", "file with the answer to the command acknowledged")
		command = func() error { return o.verify(ctx, stdout, stderr) }
	case "-h", "-help", "--help", "help":
		fmt.Fprint(stdout, help)
		return nil
	default:
		return fmt.Errorf("there is no command %q: %w", args[0], errUsage)
	}
	if err := fs.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, help, "\nFlags of ", args[0], ":\n")
			fs.SetOutput(stdout)
			fs.PrintDefaults()
			return err
		}
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q: %w", args[0], fs.Arg(0), errUsage)
	}
	return command()
}

// options are the flags of all commands.
type options struct {
	server, profile, url, joinKey, acknowledged string
	verbose                                     bool
	limit                                       time.Duration
	c                                           load.Config
	timing                                      report.Timing
}

func (o *options) crowd(fs *flag.FlagSet) {
	fs.IntVar(&o.c.Agents, "agents", 500, "number of agents")
	fs.StringVar(&o.c.Prefix, "prefix", "load", "the nodes are called PREFIX00001 and so on")
	fs.IntVar(&o.c.Before, "before", 0, "nodes of that prefix that are other crowds': the first is the one after them")
	fs.StringVar(&o.profile, "profile", "load", "profile of the nodes")
}

func (o *options) agents(fs *flag.FlagSet) {
	fs.StringVar(&o.url, "url", "", "the collector for agents, https://ADDRESS:PORT; several with commas")
	fs.StringVar(&o.c.CA, "ca", "", "its CA: a PEM file, or sha256:HEX")
	fs.StringVar(&o.joinKey, "join-key-file", "", "file with the site's join key")
	fs.StringVar(&o.c.Dir, "dir", "", "for the agents' state directories; a new one in /dev/shm if empty")
	fs.IntVar(&o.c.Steps, "steps", 23, "steps of an install, which has 14 + 2 × steps events: 60")
	fs.IntVar(&o.c.Logs, "logs", 4, "steps that have a log")
	fs.IntVar(&o.c.Lines, "lines", 32, "lines of a log, 64 bytes each")
	fs.DurationVar(&o.c.Over, "over", time.Minute, "what the events of an install are spread over")
	fs.DurationVar(&o.c.Ramp, "ramp", 0, "what the begins of the installs are spread over; a tenth of --over if 0")
	fs.DurationVar(&o.timing.Cap, "cap", 0, "longest wait of an agent after a failure; 30s if 0")
	fs.DurationVar(&o.timing.Poll, "poll", 0, "how often an agent looks at its journal; 500ms if 0")
	fs.DurationVar(&o.limit, "limit", time.Hour, "for the whole run: agents alone never give up")
	fs.BoolVar(&o.verbose, "verbose", false, "show what the agents say")
}

func (o *options) operator() (*load.Operator, error) {
	if o.server == "" {
		return nil, fmt.Errorf("--server is missing: %w", errUsage)
	}
	return load.NewOperator(o.server), nil
}

func (o *options) order(ctx context.Context) error {
	op, err := o.operator()
	if err != nil {
		return err
	}
	return op.Order(ctx, o.c, o.profile)
}

func (o *options) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if o.url == "" || o.c.CA == "" || o.joinKey == "" {
		return fmt.Errorf("--url, --ca and --join-key-file are required: %w", errUsage)
	}
	key, err := os.ReadFile(o.joinKey)
	if err != nil {
		return fmt.Errorf("reading the join key: %w", err)
	}
	o.c.Fault = func(line string) { fmt.Fprintln(stderr, "agentload:", line) }
	o.c.URLs, o.c.JoinKey, o.c.Timing = strings.Split(o.url, ","), strings.TrimSpace(string(key)), o.timing
	if o.c.Ramp == 0 {
		o.c.Ramp = o.c.Over / 10
	}
	if o.verbose {
		o.c.Say = func(line string) { fmt.Fprintln(stderr, line) }
	}
	if o.c.Dir == "" {
		parent := "/dev/shm"
		if _, err := os.Stat(parent); err != nil {
			parent = ""
		}
		if o.c.Dir, err = os.MkdirTemp(parent, "agentload-"); err != nil {
			return fmt.Errorf("making the agents' directory: %w", err)
		}
		defer os.RemoveAll(o.c.Dir)
	}
	fleet, err := load.New(o.c)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if o.server != "" {
		if err := o.order(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(stderr, "agentload: %d agents, %d events\n", o.c.Agents, fleet.Events())
	return o.drive(ctx, fleet, stdin, stdout, stderr)
}

// end is the last line but one.
type end struct {
	Agents int         `json:"agents"`
	Events int         `json:"events"`
	Took   float64     `json:"seconds"`
	Last   load.Window `json:"window"`
}

// result is the last line.
type result struct {
	Faults []string `json:"faults"`
	Count  int      `json:"fault_count"`
}

func (o *options) drive(ctx context.Context, fleet *load.Fleet, stdin io.Reader, stdout, stderr io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	commands, answered := context.WithCancel(ctx)
	defer answered()
	ended := make(chan error, 1)
	go func() { ended <- listen(commands, fleet, stdin, stdout) }()
	start := time.Now()
	if err := fleet.Run(ctx); err != nil {
		if _, n := fleet.Faults(); n > 0 {
			err = fmt.Errorf("%w: %d faults; then: %w", errLost, n, err)
		}
		return err
	}
	e := end{Agents: o.c.Agents, Events: fleet.Events(), Took: time.Since(start).Seconds(), Last: fleet.Window()}
	answered()
	select {
	case err := <-ended:
		if err != nil {
			return err
		}
	case <-time.After(time.Second): // it waits for its input, which has no end
	}
	if err := json.NewEncoder(stdout).Encode(e); err != nil {
		return fmt.Errorf("writing the end: %w", err)
	}
	fmt.Fprintf(stderr, "agentload: %d events of %d agents in %.1f s, %.0f/s; last window: acknowledged p50 %.1f ms, p99 %.1f ms, max %.1f ms\n",
		e.Events, e.Agents, e.Took, float64(e.Events)/e.Took, e.Last.P50, e.Last.P99, e.Last.Max)
	var r result
	r.Faults, r.Count = fleet.Faults()
	said := len(r.Faults)
	if o.server != "" {
		faults, n, err := fleet.Verify(ctx, load.NewOperator(o.server))
		if err != nil {
			return err
		}
		r.Faults, r.Count = append(r.Faults, faults...), r.Count+n
	}
	return conclude(r, r.Faults[said:], r.Count, stdout, stderr)
}

// conclude says the outcome and makes an error of faults.
func conclude(answer any, faults []string, count int, stdout, stderr io.Writer) error {
	if err := json.NewEncoder(stdout).Encode(answer); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	for _, f := range faults {
		fmt.Fprintln(stderr, "agentload:", f)
	}
	if count > 0 {
		return fmt.Errorf("%w: %d faults", errLost, count)
	}
	return nil
}

// listen answers the commands of the standard input until its end.
func listen(ctx context.Context, fleet *load.Fleet, stdin io.Reader, stdout io.Writer) error {
	lines := bufio.NewScanner(stdin)
	for lines.Scan() && ctx.Err() == nil {
		var answer any
		switch lines.Text() {
		case "window":
			answer = fleet.Window()
		case "acknowledged":
			answer = fleet.Acknowledged()
		case "drain":
			took, err := fleet.Drain(ctx)
			if err != nil {
				return err
			}
			answer = map[string]float64{"drained": took.Seconds()}
		default:
			return fmt.Errorf("there is no command %q: %w", lines.Text(), errUsage)
		}
		if err := json.NewEncoder(stdout).Encode(answer); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
	return nil
}

func (o *options) verify(ctx context.Context, stdout, stderr io.Writer) error {
	op, err := o.operator()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(o.acknowledged)
	if err != nil {
		return fmt.Errorf("reading what was acknowledged: %w", err)
	}
	var a load.Acknowledged
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("reading what was acknowledged: %w", err)
	}
	faults, n, err := op.Verify(ctx, a)
	if err != nil {
		return err
	}
	return conclude(map[string]any{"journals": len(a.Journals), "logs": len(a.Logs), "faults": faults, "fault_count": n}, faults, n, stdout, stderr)
}
