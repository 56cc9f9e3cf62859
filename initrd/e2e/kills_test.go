// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"provost/initrd/e2e/lab"
	"provost/proto"
)

// TestKills kills the collector at random moments while 500 agents install, PROVOST_KILLS times, 20 if it is not set.
// Each time the database is sound. In the end everything that was acknowledged is there, once and in order, nothing else
// was lost either, and a reader of the feed has seen every event once.
func TestKills(t *testing.T) {
	const agents = 500
	kills := count(t, "PROVOST_KILLS", 20)
	over := time.Duration(kills) * 2500 * time.Millisecond
	ctx := within(t, 5*over+10*time.Minute)
	l := crowdSite(t, ctx)
	c := startCrowd(t, ctx, l, l.URL(), "--server", l.Server(), "--agents", fmt.Sprint(agents), "--over", over.String(), "--ramp", "3s", "--cap", "1s")
	w := watch(t, ctx, l.Lab)
	for i := range kills {
		sleep(t, ctx, 500*time.Millisecond+rand.N(2*time.Second))
		if i == 0 {
			c.ask("drain", &struct{}{}) // the nodes are there
		}
		l.KillCollector()
		l.checkDatabase(t, ctx)
		if err := l.StartCollector(ctx); err != nil {
			t.Fatal(err)
		}
	}
	got := c.result(agents * 60)
	t.Logf("%d kills; after the last window: %+v", kills, got)
	w.complete()
}

// watcher reads the feed, comes back when it breaks off, and keeps the identity of each event.
type watcher struct {
	t      *testing.T
	ctx    context.Context
	lab    *lab.Lab
	client *http.Client
	stop   context.CancelFunc
	done   chan error
	seen   []string // of revision 1, 2, …; read's alone until done
	count  atomic.Int64
	breaks int
}

// watch begins to read the feed from its first event.
func watch(t *testing.T, ctx context.Context, l *lab.Lab) *watcher {
	reading, stop := context.WithCancel(ctx)
	w := &watcher{t: t, ctx: ctx, lab: l, client: socketClient(l), stop: stop, done: make(chan error, 1)}
	t.Cleanup(stop)
	go func() { w.done <- w.read(reading) }()
	return w
}

func socketClient(l *lab.Lab) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(l.Server(), "unix://"))
	}}}
}

// read ends with the context, or with what a feed must not do.
func (w *watcher) read(ctx context.Context) error {
	for ; ctx.Err() == nil; w.breaks++ {
		err := feed(ctx, w.client, uint64(len(w.seen)), func(revision uint64, what string) (bool, error) {
			if want := uint64(len(w.seen)) + 1; revision != want {
				return false, fmt.Errorf("the feed gives revision %d, want %d", revision, want)
			}
			w.seen = append(w.seen, what)
			w.count.Store(int64(len(w.seen)))
			return true, nil
		})
		if err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// feed reads events after a revision until take has enough or the connection ends.
func feed(ctx context.Context, client *http.Client, after uint64, take func(revision uint64, what string) (more bool, err error)) error {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://provostd/v1/events?from=0", nil)
	if err != nil {
		return err
	}
	if after > 0 {
		r.Header.Set("Last-Event-ID", strconv.FormatUint(after, 10))
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil // it is down
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusServiceUnavailable {
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the feed after revision %d: %s", after, resp.Status)
	}
	lines := bufio.NewReader(resp.Body)
	id := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil // a line that was cut off counts for nothing
		}
		line = strings.TrimSuffix(line, "\n")
		if v, ok := strings.CutPrefix(line, "id: "); ok {
			id = v
		}
		if v, ok := strings.CutPrefix(line, "data: "); ok {
			var e proto.Event
			if err := json.Unmarshal([]byte(v), &e); err != nil {
				return fmt.Errorf("the feed's event %s: %w", id, err)
			}
			if at, err := proto.ParseCursor(id); err != nil || at.Revision != e.Revision {
				return fmt.Errorf("the feed calls revision %d %s", e.Revision, id)
			}
			if more, err := take(e.Revision, fmt.Sprintf("%s %s %s/%s/%d %s", e.Node, e.Kind, e.Install, e.Journal, e.Seq, e.At)); err != nil || !more {
				return err
			}
		}
	}
}

// complete waits, 5 minutes at most, until the watcher has seen the last event, and compares all that it saw with what the
// collector has now.
func (w *watcher) complete() {
	w.t.Helper()
	var list proto.NodeList
	out, err := w.lab.Provost(w.ctx, "status", "-o", "json")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		w.t.Fatal(err)
	}
	var all []string
	now, cancel := context.WithTimeout(w.ctx, 5*time.Minute)
	defer cancel()
	err = feed(now, w.client, 0, func(revision uint64, what string) (bool, error) {
		all = append(all, what)
		return revision < list.Revision, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for w.count.Load() < int64(len(all)) && now.Err() == nil {
		select {
		case err := <-w.done:
			w.t.Fatalf("the watcher ended: %v", err)
		case <-now.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("the watcher saw %d events and was cut off %d times", len(w.seen), w.breaks-1)
	if uint64(len(all)) != list.Revision || len(w.seen) < len(all) {
		w.t.Fatalf("revision %d: the feed has %d events, the watcher saw %d", list.Revision, len(all), len(w.seen))
	}
	for i, what := range all {
		if w.seen[i] != what {
			w.t.Fatalf("revision %d: the watcher saw %q, now it is %q", i+1, w.seen[i], what)
		}
	}
}
