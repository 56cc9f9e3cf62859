// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

type eventsOptions struct {
	output string
	since  string
}

func (o *eventsOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table, or json: one document a line")
	f.StringVar(&o.since, "since-revision", "", "begin with what follows revision `N`, not with what comes next")
}

func eventsCommand(s *session) *cobra.Command {
	var o eventsOptions
	cmd := &cobra.Command{
		Use:   "events [NODES]",
		Short: "every event of every node, as it comes",
		Long: `Events shows what happens as it happens, one line an event, until Ctrl-C: the
node, the local time, whose word it is, and what happened. "!" marks a warning,
"X" a failure. When the collector goes away, events waits for it and goes on
where it was: nothing is left out, nothing comes twice.

Every event has a revision; -o json shows it. The collector keeps those of some
days. After a backup was restored the same revisions are those of other events:
in the place of N, .cursor of provost status -o json is refused then, and a
number, which nobody can compare, is not. NODES is looked up once, at the begin.`,
		Args: arguments(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "table", "json"); err != nil {
				return err
			}
			var at client.Cursor
			if o.since != "" {
				if _, err := proto.ParseCursor(o.since); err != nil {
					return usage(cmd, "--since-revision: %v", err)
				}
				at = client.Cursor(o.since)
			}
			return runEvents(cmd.Context(), s, o, strings.Join(args, ""), at)
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "table", "json")
	help(cmd, `provost events
provost events @rack1
provost events --since-revision 4711 -o json | jq 'select(.warning)'`, `0   ended by Ctrl-C
1   the events after the revision are not kept any more
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

func runEvents(ctx context.Context, s *session, o eventsOptions, expr string, at client.Cursor) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var wanted map[string]bool
	if expr != "" {
		list, err := cl.Nodes(ctx, client.Query{Nodes: expr})
		if err != nil {
			return err
		}
		if len(list.Nodes) == 0 {
			return &usageError{text: expr + " is no node at the moment: nothing would ever be shown"}
		}
		wanted = map[string]bool{}
		for _, n := range list.Nodes {
			wanted[n.Name] = true
		}
		if at == "" { // nothing is lost between the two requests
			at = client.Cursor(list.Cursor)
		}
	}
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	line := eventLine{sc: sc, location: s.Now().Location(), names: 6, sources: 8}
	return follow(ctx, s, cl, at, func(e *proto.Event, more bool) error {
		if wanted == nil || wanted[e.Node] {
			if o.output == "json" {
				if err := writeJSON(out, e); err != nil {
					return err
				}
			} else {
				line.write(out, e)
			}
		}
		if more {
			return nil
		}
		return flush(out)
	})
}

// eventLine writes events with the node in front, one a line; on a terminal a long one is folded. Its columns grow with what
// they hold.
type eventLine struct {
	sc             screen
	location       *time.Location
	names, sources int
	day            string
}

func (l *eventLine) write(w *bufio.Writer, e *proto.Event) {
	t := when(e).In(l.location)
	if d := t.Format(time.DateOnly); d != l.day {
		fmt.Fprintf(w, "%s\n", l.sc.paint(dim, t.Format("Mon 2006-01-02 MST")))
		l.day = d
	}
	node, source := clean(e.Node), clean(string(e.Source))
	l.names = max(l.names, min(cells(node), maxName))
	l.sources = max(l.sources, min(cells(source), 14))
	text, weight := describe(e)
	sign, colour := weight.mark()
	text = clean(text)
	head := pad(node, l.names) + "  " + t.Format(time.TimeOnly) + "  " + pad(cut(source, l.sources), l.sources) + "  "
	lines := []string{text}
	if l.sc.terminal {
		lines = wrap(text, max(l.sc.width-cells(head)-2, 20))
	}
	fmt.Fprintf(w, "%s%s %s\n", head, l.sc.paint(colour, sign), l.sc.paint(colour, lines[0]))
	for _, more := range lines[1:] {
		fmt.Fprintf(w, "%s%s\n", pad("", cells(head)+2), l.sc.paint(colour, more))
	}
}

// The waits between two attempts to open the feed again: half a second, doubled each time, each cut at random to between
// half of it and all of it so that many followers do not come at once, at most 30 s. There is no last attempt: who follows
// waits until Ctrl-C.
const (
	followFirst = 500 * time.Millisecond
	followLast  = 30 * time.Second
)

// follow reads the feed until ctx ends, which is its good end. A collector that goes away is waited for, once it was there.
func follow(ctx context.Context, s *session, cl *client.Client, at client.Cursor, visit func(e *proto.Event, more bool) error) error {
	first, wait := followFirst, time.Duration(0)
	if s.Poll > 0 {
		first = s.Poll
	}
	opened, lost := false, 0
	for {
		err := cl.Feed(ctx, &at, func(e *proto.Event, more bool) error {
			if lost > 0 {
				s.say("provost: ", fmt.Sprintf("the collector answers again, after %s without an answer", count(lost, "request")))
			}
			opened, lost, wait = true, 0, 0
			if e == nil {
				return nil
			}
			return visit(e, more)
		})
		var p *proto.Problem
		gone := errors.As(err, &p) && p.Status == 410
		switch {
		case ctx.Err() != nil:
			return nil
		case gone && opened:
			s.say("provost: ", err.Error()+"; some events were missed; going on with what comes next")
			at, opened = "", false // a second such answer makes no sense
			continue
		case gone:
			return &hintError{fmt.Errorf("the feed cannot go on: %v", err),
				"`provost timeline NODE` shows an install's events, `provost events` what comes next"}
		case !opened || !passing(err):
			return err
		}
		if lost++; lost == 1 {
			s.say("provost: ", err.Error()+"; waiting for it")
		}
		wait = min(max(first, 2*wait), followLast)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
	}
}
