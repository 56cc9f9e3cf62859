// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

type logOptions struct {
	install, output string
	follow, raw     bool
}

func (o *logOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.install, "install", client.Latest, "`ID` or number of an older install")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until the install has ended, or Ctrl-C")
	f.BoolVar(&o.raw, "raw", false, "the node's own bytes, for a file; never on a terminal")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text; json lists the logs")
}

func logCommand(s *session) *cobra.Command {
	var o logOptions
	cmd := &cobra.Command{
		Use:   "log NODE [STEP]",
		Short: "the log of a step",
		Long: `Log prints what a step wrote, from the frontend's copy. Without STEP it prints
the log of the failed step; with -f that of the running one; if there is none,
it lists the logs that there are. agent is the agent's own log.

Control characters are shown as \r, \x1b, \u202e and so on. --raw leaves all
bytes as they are, for a file or a pipe.`,
		Args: arguments(1, 2, "say which node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneNode(cmd, args[0]); err != nil {
				return err
			}
			step := ""
			if len(args) > 1 {
				step = args[1]
				if err := proto.CheckName("step", step); err != nil {
					return usage(cmd, "%v", err)
				}
			}
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			switch {
			case o.output == "json" && (step != "" || o.follow || o.raw):
				return usage(cmd, "-o json lists the logs: leave out STEP, -f and --raw")
			case o.raw && s.screen(s.Stdout).terminal:
				return &usageError{text: "--raw would let the node's bytes drive your terminal", hint: "redirect it into a file or a pipe", cmd: cmd}
			}
			return runLog(cmd.Context(), s, cmd, o, args[0], step)
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "text", "json")
	help(cmd, `provost log n007
provost log n007 otherpkgs | less
provost log n007 -f
provost log n007 agent --install 3 --raw > agent.log`, exitUsual)
	return cmd
}

func runLog(ctx context.Context, s *session, cmd *cobra.Command, o logOptions, node, step string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	id, err := installID(ctx, cl, cmd, node, o.install)
	if err != nil {
		return err
	}
	in, err := cl.Install(ctx, node, id)
	if err != nil {
		return err
	}
	if o.output == "json" {
		logs := in.Logs
		if logs == nil {
			logs = []proto.LogInfo{}
		}
		return writeJSON(s.Stdout, proto.LogList{Schema: proto.Schema, Logs: logs})
	}
	name, err := chooseLog(in, step, o.follow)
	if err != nil {
		return err
	}
	if name == "" {
		return listLogs(s, o, in)
	}
	if step == "" {
		s.say("provost: ", fmt.Sprintf("%s of install %d of %s", name, in.Ordinal, node))
	}
	return copyLog(ctx, s, cl, o, in, name)
}

// chooseLog gives the name of the log that is meant, or "" when the list is to be shown.
func chooseLog(in *proto.Install, step string, follow bool) (string, error) {
	has := func(name string) bool {
		for _, l := range in.Logs {
			if l.Name == name {
				return true
			}
		}
		return false
	}
	if step == "" {
		if follow {
			for i := len(in.Steps) - 1; i >= 0; i-- {
				if st := in.Steps[i]; st.Try > 0 && st.Outcome == "" {
					if last := lastStepLog(in, st.Name); last != "" {
						return last, nil
					}
				}
			}
		}
		if in.Cause != nil && has(in.Cause.Log) {
			return in.Cause.Log, nil
		}
		return "", nil
	}
	if has(step) {
		return step, nil
	}
	if last := lastStepLog(in, step); last != "" {
		return last, nil
	}
	all := make([]string, len(in.Logs))
	for i, l := range in.Logs {
		all[i] = l.Name
	}
	if last := proto.LastBootLog(all, step); last != "" { // of the last boot; the list has those before
		return last, nil
	}
	e := &usageError{text: fmt.Sprintf("%s has no log of %q in install %d", in.Node, step, in.Ordinal)}
	for _, st := range in.Steps {
		if st.Name == step && st.Try == 0 {
			e.hint = "that step has not run"
			return "", e
		}
	}
	var names []string
	for _, l := range in.Logs {
		names = append(names, strings.TrimSuffix(l.Name, ".log"))
	}
	e.hint = "there is none yet"
	if len(names) > 0 {
		e.hint = "there are: " + strings.Join(names, ", ")
	}
	return "", e
}

// lastStepLog gives the newest log of a step, "" if there is none: STEP.log is of the first boot, and later ones have the
// attempt and the restart in their names, as in STEP-a2-r1.log.
func lastStepLog(in *proto.Install, step string) string {
	of := regexp.MustCompile("^" + regexp.QuoteMeta(step) + `(?:-a([0-9]{1,4}))?(?:-r([0-9]{1,4}))?\.log$`)
	last, attempt, restart := "", 0, 0
	for _, l := range in.Logs {
		m := of.FindStringSubmatch(l.Name)
		if m == nil || slices.ContainsFunc(in.Steps, func(s proto.StepInfo) bool { return s.Name != step && s.Name+".log" == l.Name }) {
			continue
		}
		a, _ := strconv.Atoi(m[1]) // 0 where there is none
		r, _ := strconv.Atoi(m[2])
		if last == "" || a > attempt || a == attempt && r > restart {
			last, attempt, restart = l.Name, a, r
		}
	}
	return last
}

func listLogs(s *session, o logOptions, in *proto.Install) error {
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	if len(in.Logs) == 0 {
		fmt.Fprintf(out, "install %d of %s has no log yet\n", in.Ordinal, clean(in.Node))
		return flush(out)
	}
	older := ""
	if o.install != client.Latest {
		older = " --install " + o.install
	}
	cols := []column{{title: "LOG"}, {title: "SIZE"}, {title: "COMMAND"}} // commands are copied: never cut
	writeTable(out, sc, 0, cols, len(in.Logs), func(i int, cs []cell) []string {
		l := in.Logs[i]
		name := clean(strings.TrimSuffix(l.Name, ".log"))
		cs[0], cs[1], cs[2] = cell{text: name}, cell{text: size(l.Size)}, cell{text: "provost log " + clean(in.Node) + " " + name + older}
		return nil
	})
	return flush(out)
}

// copyLog writes a log, and with follow what is added to it until its install has ended.
func copyLog(ctx context.Context, s *session, cl *client.Client, o logOptions, in *proto.Install, name string) error {
	end := &lineEndWriter{w: s.Stdout, ended: true}
	esc := &escapeWriter{w: end}
	to := io.Writer(esc)
	if o.raw {
		to = s.Stdout
	}
	finish := func() error {
		if o.raw {
			return nil
		}
		err := esc.Flush()
		if err == nil {
			err = end.newline()
		}
		if err != nil {
			return fmt.Errorf("writing output: %w", err)
		}
		return nil
	}
	var at int64
	lost := false
	for {
		began := time.Now()
		over := !o.follow
		if o.follow { // asked before the log is read: what came before the end is then in it
			n, err := cl.Node(ctx, in.Node)
			if err == nil {
				over = n.Install != in.ID || ended(n.Status) && !n.Waiting
			} else if !passing(err) {
				return orInterrupted(ctx, err, finish)
			}
		}
		n, err := readLog(ctx, cl, to, in, name, at)
		at += n
		switch {
		case err != nil && !(o.follow && passing(err)):
			return orInterrupted(ctx, err, finish)
		case err != nil && !lost:
			s.say("provost: ", err.Error()+"; still following")
			lost = true
		case err == nil && over:
			return finish()
		case err == nil:
			lost = false
		}
		if !s.pause(ctx, time.Since(began)) {
			return finish()
		}
	}
}

// orInterrupted is the end of a log that could not be read on; Ctrl-C is a good end.
func orInterrupted(ctx context.Context, err error, finish func() error) error {
	if ferr := finish(); ferr != nil || ctx.Err() != nil {
		return ferr
	}
	return err
}

func readLog(ctx context.Context, cl *client.Client, to io.Writer, in *proto.Install, name string, at int64) (int64, error) {
	body, err := cl.Log(ctx, in.Node, in.ID, name, at)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.Copy(to, body)
	if err != nil {
		return n, fmt.Errorf("copying log: %w", err)
	}
	return n, nil
}

// lineEndWriter knows whether the last line was ended.
type lineEndWriter struct {
	w     io.Writer
	ended bool
}

func (l *lineEndWriter) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.ended = p[len(p)-1] == '\n'
	}
	return l.w.Write(p)
}

func (l *lineEndWriter) newline() error {
	if l.ended {
		return nil
	}
	_, err := io.WriteString(l, "\n")
	return err
}
