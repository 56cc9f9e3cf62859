// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	steps "provost/agent/internal/run"
)

// Exit statuses, those above 63 after sysexits.h.
const (
	exitOK     = 0
	exitFailed = 1  // a step failed, or what was asked for did not come about
	exitUsage  = 64 // the command line is wrong
	exitBusy   = 75 // another process is at it
	exitConfig = 78 // a setting or a file is wrong or missing
)

// exitError is an error with the status that the program ends with.
type exitError struct {
	status int
	err    error
	hint   string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{status: exitUsage, err: fmt.Errorf(format, args...)}
}

func config(hint string, err error) error {
	return &exitError{status: exitConfig, err: err, hint: hint}
}

// command is one subcommand. Its setup adds flags and gives what is to be done with the arguments that remain.
type command struct {
	name, args, summary string
	help                string // what it does, then examples and exit status
	setup               func(*flag.FlagSet, *streams) func(context.Context, []string) error
}

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func commands() []command {
	list := []command{watchCommand(), runCommand(), reportCommand(), sealCommand(), lookCommand(), firstbootCommand(), statusCommand(), logCommand()}
	list = append(list, orderCommands()...)
	return append(list, rescueCommand(), sftpCommand(), versionCommand())
}

// dispatch finds the command and does it.
func dispatch(ctx context.Context, args []string, s *streams) error {
	all := commands()
	if len(args) == 0 {
		return usage("a command is missing; see provost-agent --help")
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		writeHelp(s.out, all)
		return nil
	case "-version", "--version":
		args = []string{"version"}
	}
	for _, c := range all {
		if c.name == args[0] {
			return c.do(ctx, args[1:], s)
		}
	}
	return usage("unknown command %q; see provost-agent --help", args[0])
}

func (c command) do(ctx context.Context, args []string, s *streams) error {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	action := c.setup(fs, s)
	rest, err := parse(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		c.writeHelp(s.out, fs)
		return nil
	}
	if err != nil {
		return usage("%s: %w; see provost-agent %s --help", c.name, err, c.name)
	}
	return action(ctx, rest)
}

// parse takes flags before, between and behind the arguments, up to a "--".
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		if at := len(args) - len(left); at > 0 && args[at-1] == "--" {
			return append(rest, left...), nil
		}
		if len(left) == 0 {
			return rest, nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

func (c command) writeHelp(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "usage: provost-agent %s\n\n%s\n\nOptions:\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	fs.VisitAll(func(f *flag.Flag) {
		name, text := flag.UnquoteUsage(f)
		dash := "--"
		if len(f.Name) == 1 {
			dash = "-"
		}
		fmt.Fprintf(w, "  %s\n        %s\n", strings.TrimSpace(dash+f.Name+" "+name), text)
	})
	fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.help))
}

func writeHelp(w io.Writer, all []command) {
	fmt.Fprint(w, "usage: provost-agent COMMAND [OPTIONS]\n\nRuns a node's postscripts, keeps the journal of its install, and reports to the collector.\n\nCommands:\n")
	for _, c := range all {
		fmt.Fprintf(w, "  %-34s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	}
	fmt.Fprint(w, `
provost-agent COMMAND --help shows a command's options.

Examples:
  provost-agent watch --detach                      in the initrd, once the network is up
  provost-agent run --phase post --root /target     before the reboot
  provost-agent seal --root /target                 last of all

Exit status: 0 good, 1 a step failed or what was asked for did not come about,
64 wrong usage, 75 another process is at it, 78 a setting is wrong or missing.
`)
}

// run is the program; it gives the exit status.
//
// SIGPIPE is caught: when an installer closes the pipe behind our stderr the steps go on. (Ignoring it would be inherited
// by them.) SIGHUP is caught for the same reason. Nor do they wait for whoever reads it: see said.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	quiet := make(chan os.Signal, 1)
	signal.Notify(quiet, syscall.SIGPIPE, syscall.SIGHUP)
	defer signal.Stop(quiet)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT) // and for good: one that comes at the very end changes no exit status
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()

	said := newSaid(stderr)
	defer said.end()
	err := dispatch(ctx, args, &streams{stdin, stdout, said})
	if err == nil {
		return exitOK
	}
	status, hint := exitFailed, ""
	var e *exitError
	switch {
	case errors.As(err, &e):
		status, hint = e.status, e.hint
	case errors.Is(err, steps.ErrBusy):
		status = exitBusy
	}
	fmt.Fprintf(said, "provost-agent: error: %v\n", err)
	if hint != "" {
		fmt.Fprintf(said, "hint: %s\n", hint)
	}
	return status
}
