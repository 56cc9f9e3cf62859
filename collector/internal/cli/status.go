// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

type statusOptions struct {
	label   string
	by      string
	output  string
	watch   bool
	wait    bool
	timeout time.Duration
}

func (o *statusOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.label, "label", "", "only nodes whose newest install has this `LABEL`")
	f.StringVar(&o.by, "by", "", "group: `cause` gives one line per cause, with its nodes")
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table, wide, json, yaml, csv or name")
	f.BoolVar(&o.watch, "watch", false, "draw again at each change until Ctrl-C; needs a terminal")
	f.BoolVar(&o.wait, "wait", false, "return when every install has ended")
	f.DurationVar(&o.timeout, "timeout", defaultWait, "with --wait: give up after `D`")
	f.Lookup("timeout").DefValue = "24h"
}

func statusCommand(s *session) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [NODES]",
		Short: "how the nodes are doing, failures first",
		Long: `Status shows one row per node, the failed and stalled ones first, with the
command that shows the log of each. With many failures, these are grouped by
cause above the rows.

SINCE is how long the status has been what it is; NEXT is the stage that the
node must reach, and how much of its time has gone: "packages 12:40 of 30:00",
or an order that the agent has not carried out yet. A node is silent when its
agent, which speaks every 30 s, has not been heard of for 5 minutes.

--wait returns when no selected node is on its way any more: every one is
booted or failed, or has no install. A failed node that was ordered to retry or
skip is waited for, and so is a stalled one, which may still come back; its
deadlines end it.`,
		Args: arguments(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := client.Query{Label: o.label}
			if len(args) > 0 {
				q.Nodes = args[0]
			}
			if err := o.check(cmd); err != nil {
				return err
			}
			return runStatus(cmd.Context(), s, o, q)
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", statusOutputs...)
	complete(cmd, "by", "cause")
	help(cmd, `provost status
provost status n[001-100] --by cause
provost status %failed -o name
provost status @rack1 --watch
provost status --label nightly --wait --timeout 2h
provost status -o json | jq '.nodes[] | select(.waiting)'`,
		`0   good: no selected node is failed or stalled
1   a selected node failed or stalled
2   with --wait: not finished within --timeout
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

var statusOutputs = []string{"table", "wide", "json", "yaml", "csv", "name"}

func (o *statusOptions) check(cmd *cobra.Command) error {
	switch {
	case !slices.Contains(statusOutputs, o.output):
		return usage(cmd, "-o %q: use %s", o.output, strings.Join(statusOutputs, ", "))
	case o.by != "" && o.by != "cause":
		return usage(cmd, "--by %q: use cause", o.by)
	case o.by != "" && o.output != "table" && o.output != "wide":
		return usage(cmd, "--by cause is for people: leave out -o %s, or group its nodes by .summary", o.output)
	case o.watch && o.wait:
		return usage(cmd, "--watch ends by Ctrl-C and --wait by itself: use one of them")
	case o.watch && o.output != "table":
		return usage(cmd, "--watch draws the table: leave out -o %s", o.output)
	case o.timeout <= 0:
		return usage(cmd, "--timeout %s: use a duration above zero, like 90m", o.timeout)
	case cmd.Flags().Changed("timeout") && !o.wait:
		return usage(cmd, "--timeout bounds --wait: add --wait")
	}
	return nil
}

func runStatus(ctx context.Context, s *session, o statusOptions, q client.Query) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if o.watch {
		return watch(ctx, s, cl, o, q, s.screen(s.Stdout))
	}
	return statusOf(ctx, s, cl, o, q)
}

// statusOf shows the status once, after a wait if one is wanted, and ends as it says.
func statusOf(ctx context.Context, s *session, cl *client.Client, o statusOptions, q client.Query) error {
	finished, err := true, error(nil)
	if o.wait {
		if finished, err = wait(ctx, s, cl, q, o.timeout); err != nil {
			return err
		}
	}
	v, err := showStatus(ctx, s, cl, o, q, s.screen(s.Stdout))
	switch {
	case err != nil:
		return err
	case !finished:
		return &exitError{exitUnfinished}
	case v.bad() > 0:
		return &exitError{exitFailed}
	}
	return nil
}

// showStatus writes the status once. The view that it gives has the counts, and the rows if the output needed them.
func showStatus(ctx context.Context, s *session, cl *client.Client, o statusOptions, q client.Query, sc screen) (*statusView, error) {
	body, err := cl.Status(ctx, q)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	v := newStatusView(s.Now())
	out := bufio.NewWriterSize(s.Stdout, 64<<10)
	switch o.output {
	case "json":
		end := &lineEndWriter{w: out}
		copied := io.TeeReader(body, &jsonWriter{w: end})
		if _, err = client.DecodeNodes(copied, v.count); err == nil {
			_, err = io.Copy(io.Discard, copied) // what stands behind the document
		}
		if err == nil {
			err = end.newline()
		}
	case "yaml":
		err = statusYAML(out, body, v)
	case "csv":
		c := newStatusCSV(out)
		_, err = client.DecodeNodes(body, func(n *proto.Node) {
			v.count(&statusNode{Status: n.Status, Waiting: n.Waiting, LastSeen: n.LastSeen, Orders: n.Orders})
			c.row(n)
		})
		c.w.Flush()
	case "name":
		_, err = client.DecodeNodes(body, func(n *statusNode) {
			v.count(n)
			out.WriteString(clean(n.Name))
			out.WriteByte('\n')
		})
	default:
		var list *proto.NodeList
		if list, err = client.DecodeNodes(body, v.add); err == nil {
			v.finish(list.Warnings, list.Blind)
			v.everything = q == client.Query{}
			v.write(out, sc, o)
		}
	}
	if err != nil {
		out.Flush()
		return nil, err
	}
	return v, flush(out)
}

// statusYAML writes the document and counts its nodes, in one pass.
func statusYAML(out io.Writer, body io.Reader, v *statusView) error {
	r, w := io.Pipe()
	counted := make(chan error)
	go func() {
		_, err := client.DecodeNodes(r, v.count)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // what stands behind the document
		}
		r.CloseWithError(err)
		counted <- err
	}()
	err := writeYAML(out, io.TeeReader(body, w))
	w.CloseWithError(err) // nil is the end of the document
	if cerr := <-counted; cerr != nil {
		return cerr
	}
	return err
}

func flush(w *bufio.Writer) error {
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing output: %w", err)
	}
	return nil
}

type statusCSV struct{ w *csv.Writer }

func newStatusCSV(out io.Writer) statusCSV {
	c := statusCSV{csv.NewWriter(out)}
	c.w.Write([]string{"node", "status", "waiting", "summary", "stage", "step", "since", "last_seen", "deadline_stage", "deadline_at",
		"cause_kind", "cause_name", "exit", "install", "ordinal", "attempt", "label", "profile", "groups", "boot_action"})
	return c
}

// row writes one node. An error of the writer stays in it until the last flush.
func (c statusCSV) row(n *proto.Node) {
	stage, at, kind, name, exit := "", "", "", "", ""
	if n.Deadline != nil {
		stage, at = n.Deadline.Stage, stamp(n.Deadline.At)
	}
	if n.Cause != nil {
		kind, name, exit = string(n.Cause.Kind), n.Cause.Name, strconv.Itoa(n.Cause.Exit)
	}
	rec := []string{n.Name, string(n.Status), strconv.FormatBool(n.Waiting), n.Summary, n.Stage, n.Step, stamp(n.Since), stamp(n.LastSeen), stage, at,
		kind, name, exit, n.Install, strconv.FormatUint(n.Ordinal, 10), strconv.Itoa(n.Attempt), n.Label, n.Profile, strings.Join(n.Groups, " "), string(n.BootAction)}
	for i := range rec {
		rec[i] = clean(rec[i])
	}
	c.w.Write(rec)
}

// stamp writes a time for programs (RFC 3339, UTC).
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
