// SPDX-License-Identifier: Apache-2.0

// Package cli is the operator's program, provost: what people type, what they read, and how it ends. One file holds one
// subcommand: its options, its help, and runX.
//
// It must never touch the collector's files or database, only its HTTP API; never let a byte that came from a node
// reach a terminal unescaped (but for `log --raw` into a file); and never carry out an order on more nodes than the
// operator was told of.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/sys/unix"

	"provost/collector/internal/client"
)

// Program is the surroundings of one call of provost.
type Program struct {
	Version        string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time // its location is the one that local times are shown in
	Poll           time.Duration    // between two looks of --wait, --watch and -f; 2 s if zero
	Still          time.Duration    // after which --watch draws again without news; 15 s if zero
}

// Run is the whole of provost on this machine: it gives the exit status. The first SIGINT or SIGTERM ends what is under
// way, a second one the process.
func Run(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	p := Program{Version: version, Stdin: stdin, Stdout: stdout, Stderr: stderr, Getenv: os.Getenv, Now: time.Now}
	return p.Run(ctx, args)
}

// Run carries out one command line and gives the exit status.
func (p Program) Run(ctx context.Context, args []string) int {
	s := &session{Program: p, settings: viper.New()}
	root := rootCommand(s)
	root.SetArgs(args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !s.started {
		err = asUsage(err, cmd)
	}
	return s.report(err)
}

// session is what the commands of one call share.
type session struct {
	Program
	settings *viper.Viper
	started  bool // the command line was understood; errors from now on are not about it
	saying   sync.Mutex
}

func rootCommand(s *session) *cobra.Command {
	root := &cobra.Command{
		Use:   "provost",
		Short: "see and steer installs of bare-metal nodes",
		Long: `Provost shows how the installs of your nodes are doing and why one failed, and
takes your orders. It asks the collector, provostd.

NODES is a node set: n01, n[001-100], n[1-9,12]-ib, @group, @all, %failed,
%waiting; with "," for union, "!" for difference, "&" for intersection.`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			s.started = true
		},
	}
	help(root, `provost status
provost install n[001-100] --label nightly
provost explain n007`, exitUsual)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd) })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return asUsage(err, cmd) })

	f := root.PersistentFlags()
	f.String("server", client.DefaultServer, "the collector's `ADDRESS`: unix:///PATH or https://HOST:8440 (PROVOST_SERVER)")
	f.String("token-file", "", "`FILE` with the token for https (PROVOST_TOKEN_FILE)")
	f.String("ca", "", "for https, sha256:HEX of the collector's CA or its PEM `FILE` (PROVOST_CA)")
	// Flags over environment over defaults. There is no settings file: the three may stand in a shell profile.
	f.VisitAll(func(fl *pflag.Flag) {
		if v := s.Getenv("PROVOST_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))); v != "" {
			s.settings.SetDefault(fl.Name, v)
		}
		s.settings.BindPFlag(fl.Name, fl)
	})

	root.AddGroup(&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "order", Title: "Order:"}, &cobra.Group{ID: "define", Title: "Define:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("look", statusCommand(s), explainCommand(s), timelineCommand(s), logCommand(s), historyCommand(s), eventsCommand(s), doctorCommand(s))
	add("look", probeCommand(s))
	add("order", installCommand(s), bootCommand(s), sshCommand(s))
	for _, v := range verbs {
		add("order", verbCommand(s, v))
	}
	add("define", nodeCommand(s), profileCommand(s), checkCommand(s), reloadCommand(s))
	root.AddCommand(versionCommand(s), completionCommand(s))
	root.SetHelpCommand(helpCommand())
	return root
}

// client connects to the collector that the settings name.
func (s *session) client() (*client.Client, error) {
	return client.New(client.Config{Server: s.settings.GetString("server"), TokenFile: s.settings.GetString("token-file"), CA: s.settings.GetString("ca"),
		Program: "provost/" + s.Version})
}

// group makes a command that is only there to hold others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return &usageError{text: "say what to do: " + strings.Join(names(cmd), ", "), cmd: cmd}
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

func names(cmd *cobra.Command) []string {
	var out []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c.Name())
		}
	}
	return out
}

func unknownCommand(cmd *cobra.Command, got string) error {
	e := &usageError{text: fmt.Sprintf("%s has no command %q", cmd.CommandPath(), got), cmd: cmd}
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(got); len(like) > 0 {
		e.hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return e
}

// arguments checks the number of a command's arguments.
func arguments(min, max int, missing string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return &usageError{text: missing, cmd: cmd}
		case len(args) > max:
			e := &usageError{text: fmt.Sprintf("%q is one argument too many", args[max]), cmd: cmd}
			if max > 0 && strings.Contains(cmd.Use, "NODES") {
				e.hint = "several nodes are one argument: " + strings.Join(args, ",") + " or n[001-100]"
			}
			return e
		}
		return nil
	}
}

// screen is what is known of the terminal behind a writer.
type screen struct {
	terminal      bool
	width, height int // of a terminal; else 80 and 0
	colour        bool
}

// defaultWidth is for output that goes to no terminal, and the most that a table row takes anywhere.
const defaultWidth = 80

func (s *session) screen(w any) screen {
	f, ok := w.(*os.File)
	if !ok {
		return screen{width: defaultWidth}
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return screen{width: defaultWidth}
	}
	sc := screen{terminal: true, width: int(ws.Col), height: int(ws.Row)}
	if sc.width == 0 { // a serial console does not know
		sc.width = defaultWidth
	}
	if sc.height == 0 {
		sc.height = 24
	}
	sc.width = max(sc.width, 40)
	sc.colour = s.Getenv("NO_COLOR") == "" && s.Getenv("TERM") != "dumb" && s.Getenv("TERM") != ""
	return sc
}

// The colours, as parameters of SGR (ECMA-48).
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	purple = "35"
	bold   = "1"
	dim    = "2"
)

func (sc screen) paint(colour, s string) string {
	if !sc.colour || colour == "" || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}
