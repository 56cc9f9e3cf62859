// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"provost/collector/internal/client"
	"provost/proto"
)

const (
	// defaultWait bounds --wait. Installs end by their own deadlines long before; those ordered for the next boot do not.
	defaultWait = 24 * time.Hour
	// defaultPoll is the time between two looks; a look that takes long makes it longer, so that looking never takes more
	// than about a tenth of the collector's time.
	defaultPoll = 2 * time.Second
)

// pause waits for the next look, and reports whether there is to be one.
func (s *session) pause(ctx context.Context, lookTook time.Duration) bool {
	poll := s.Poll
	if poll <= 0 {
		poll = defaultPoll
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(max(poll, 10*lookTook)):
		return true
	}
}

// passing reports whether an error of the collector may pass by itself, as when it is being restarted.
func passing(err error) bool {
	var p *proto.Problem
	if errors.As(err, &p) {
		return p.Status >= 500 || p.Status == 429
	}
	var u *client.UnreachableError
	if !errors.As(err, &u) {
		return false
	}
	code, _ := judgeUnreachable(u)
	return code == exitUnavailable
}

// look asks for the status and gives its view.
func look(ctx context.Context, s *session, cl *client.Client, q client.Query, rows bool) (*statusView, error) {
	body, err := cl.Status(ctx, q)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	v := newStatusView(s.Now())
	visit := v.count
	if rows {
		visit = v.add
	}
	list, err := client.DecodeNodes(body, visit)
	if err != nil {
		return nil, err
	}
	v.finish(list.Warnings, list.Blind)
	return v, nil
}

// underWay is the number of nodes whose install has not ended. One that failed and has an order to go on is among them.
func (v *statusView) underWay() int {
	n := v.total + v.resuming
	for _, st := range []proto.Status{proto.StatusBooted, proto.StatusFailed, proto.StatusDefined, proto.StatusDiscovered} {
		n -= v.counts[st]
	}
	return n
}

// wait returns when no selected node's install is under way, or after the timeout with false. It says on stderr how
// things go, whenever that changes. A collector that goes away in the meantime is waited for as well.
func wait(ctx context.Context, s *session, cl *client.Client, q client.Query, timeout time.Duration) (finished bool, err error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	said, lost, first := "", 0, true
	for {
		began := time.Now()
		v, err := look(ctx, s, cl, q, false)
		switch {
		case outer.Err() != nil:
			return false, outer.Err()
		case ctx.Err() != nil:
			return false, nil
		case err != nil && (first || !passing(err)):
			return false, err
		case err != nil:
			if lost++; lost == 1 {
				s.say("provost: ", err.Error()+"; still waiting")
			}
		default:
			first = false
			if lost > 0 {
				s.say("provost: ", fmt.Sprintf("the collector answers again, after %s without an answer", count(lost, "request")))
				lost = 0
			}
			if v.total == 0 {
				return false, &usageError{text: "no node is selected: there is nothing to wait for"}
			}
			if line := v.line(); line != said {
				s.say("provost: ", line)
				said = line
			}
			if v.underWay() == 0 {
				return true, nil
			}
		}
		if !s.pause(ctx, time.Since(began)) && outer.Err() != nil {
			return false, outer.Err()
		}
	}
}

// line is the headline without colour.
func (v *statusView) line() string {
	var parts []string
	for _, p := range v.headline() {
		parts = append(parts, p.text)
	}
	return strings.Join(parts, " · ")
}

// Sequences of ECMA-48 and DEC that draw a frame over the one before, without lines that wrap.
const (
	frameBegin = "\x1b[?7l\x1b[H"
	lineEnd    = "\x1b[K\n"
	frameEnd   = "\x1b[J\x1b[?7h"
)

// stillEvery is how often a status is drawn again when the collector has no news: ages grow, and silence is no event.
const stillEvery = 15 * time.Second

// news tells that something has happened at the collector, as its feed says, until ctx ends. While there is no feed it tells
// so at every poll: whoever draws then sees what is the matter.
func (s *session) news(ctx context.Context, cl *client.Client) <-chan struct{} {
	news := make(chan struct{}, 1)
	tell := func() {
		select {
		case news <- struct{}{}:
		default: // it has not been taken note of yet
		}
	}
	go func() {
		var at client.Cursor
		for ctx.Err() == nil {
			err := cl.Feed(ctx, &at, func(*proto.Event, bool) error { tell(); return nil })
			var p *proto.Problem
			if errors.As(err, &p) && p.Code == proto.CodeGone {
				at = "" // what has become of the nodes is in the list that is drawn next
			}
			if tell(); !s.pause(ctx, 0) {
				return
			}
		}
	}()
	return news
}

// await waits for news or until it is time to draw again, and never less than a pause. It reports whether there is to be
// another look.
func (s *session) await(ctx context.Context, news <-chan struct{}, lookTook time.Duration) bool {
	if !s.pause(ctx, lookTook) {
		return false
	}
	still := s.Still
	if still <= 0 {
		still = stillEvery
	}
	select {
	case <-news:
	case <-time.After(still):
	case <-ctx.Done():
		return false
	}
	return true
}

// watch draws the status until it is interrupted, which is its good end: again when the collector has news, at most every
// 2 s. Never more than the screen holds: the header and the failures stay in sight.
func watch(ctx context.Context, s *session, cl *client.Client, o statusOptions, q client.Query, sc screen) error {
	if !sc.terminal {
		return &usageError{text: "--watch draws on a terminal, and the output goes elsewhere", hint: "use --wait, or a loop around `provost status`"}
	}
	io.WriteString(s.Stdout, "\x1b[2J")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	news := s.news(ctx, cl)
	shown := false
	for {
		began := time.Now()
		sc = s.screen(s.Stdout)
		v, err := look(ctx, s, cl, q, true)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (!shown || !passing(err)):
			return err
		case err != nil:
			note := sc.paint(red, cut(clean(err.Error()), sc.width-1))
			_, err = fmt.Fprintf(s.Stdout, "\x1b[H%s\x1b[K\x1b[%d;1H", note, sc.height)
		default:
			shown = true
			_, err = io.WriteString(s.Stdout, v.frame(sc, o))
		}
		if err != nil {
			return fmt.Errorf("drawing: %w", err)
		}
		if !s.await(ctx, news, time.Since(began)) {
			io.WriteString(s.Stdout, "\n")
			return nil
		}
	}
}

// frame is the status cut to what the screen holds.
func (v *statusView) frame(sc screen, o statusOptions) string {
	all := len(v.rows)
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	w.WriteString(v.top(sc, o))
	if v.total > 0 && o.by == "" {
		w.WriteByte('\n')
		v.rows = v.rows[:min(all, sc.height)]
		v.table(w, sc, o)
	}
	w.Flush()
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	clock := v.now.Format("15:04:05")
	if room := sc.height - 1; len(lines) > room {
		lines = lines[:room]
		clock += fmt.Sprintf("  the screen ends here; %s in all: give a node set, or --by cause", count(all, "node"))
	}
	lines = append(lines, sc.paint(dim, clock+"  Ctrl-C ends"))
	return frameBegin + strings.Join(lines, lineEnd) + frameEnd
}
