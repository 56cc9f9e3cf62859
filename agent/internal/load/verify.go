// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"provost/proto"
)

// Verify compares what a collector has of the acknowledged journals and logs with what they were, and gives the faults,
// at most 20 of them, and their number. A journal may have more than was acknowledged: what the collector took while
// its answer was lost. Whatever it has is there once, in the order of the journal, and unchanged.
//
// The error is the inability to ask.
func (o *Operator) Verify(ctx context.Context, a Acknowledged) ([]string, int, error) {
	return o.verify(ctx, a, func(proto.EventList) []string { return nil })
}

// Verify does the same for a crowd that has come to its end: everything is there, of no other journals, and every node
// has booted.
func (f *Fleet) Verify(ctx context.Context, o *Operator) ([]string, int, error) {
	want := f.journey.events()
	return o.verify(ctx, f.Acknowledged(), func(l proto.EventList) []string {
		var faults []string
		n := 0
		for _, e := range l.Events {
			if e.Source == proto.SourceAgent {
				n++
			}
		}
		if n != want {
			faults = append(faults, fmt.Sprintf("%d events of the agent, want %d", n, want))
		}
		if l.Install.Status != proto.StatusBooted {
			faults = append(faults, fmt.Sprintf("status %s, want booted", l.Install.Summary))
		}
		return faults
	})
}

func (o *Operator) verify(ctx context.Context, a Acknowledged, more func(proto.EventList) []string) ([]string, int, error) {
	journals, logs := map[string]map[string]uint64{}, map[string]map[string]int64{}
	for key, last := range a.Journals {
		group(journals, key, last)
	}
	for key, size := range a.Logs {
		group(logs, key, size)
	}
	var nodes []string
	for name := range journals {
		nodes = append(nodes, name)
	}
	slices.Sort(nodes)
	var mu sync.Mutex
	var faults []string
	count := 0
	err := each(ctx, nodes, func(ctx context.Context, i int) error {
		node := nodes[i]
		var l proto.EventList
		if err := o.get(ctx, "/v1/nodes/"+node+"/installs/latest/events", &l); err != nil {
			return fmt.Errorf("events of %s: %w", node, err)
		}
		found := append(verifyEvents(l.Events, journals[node]), more(l)...)
		for name, size := range logs[node] {
			b, err := o.do(ctx, "GET", "/v1/nodes/"+node+"/installs/latest/logs/"+name, nil)
			if isCode(err, proto.CodeNotFound) {
				b, err = nil, nil
			}
			if err != nil {
				return fmt.Errorf("log %s of %s: %w", name, node, err)
			}
			if int64(len(b)) < size {
				found = append(found, fmt.Sprintf("log %s has %d bytes, %d were acknowledged", name, len(b), size))
			}
			if !bytes.Equal(b, logText(node, name, int64(len(b)))) {
				found = append(found, fmt.Sprintf("log %s is not what was sent", name))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, text := range found {
			if count++; len(faults) < maxFaults {
				faults = append(faults, node+": "+text)
			}
		}
		return nil
	})
	return faults, count, err
}

// group puts a value under NODE/REST.
func group[V any](to map[string]map[string]V, key string, v V) {
	node, rest, _ := strings.Cut(key, "/")
	if to[node] == nil {
		to[node] = map[string]V{}
	}
	to[node][rest] = v
}

// verifyEvents compares the events of one install with its journals, each of which is acknowledged up to a record.
func verifyEvents(events []proto.Event, acked map[string]uint64) []string {
	var faults []string
	bad := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b proto.Event) int { return cmp.Compare(a.Revision, b.Revision) })
	last := map[string]uint64{}
	for i, e := range events {
		if i > 0 && e.Revision == events[i-1].Revision {
			bad("revision %d is there twice", e.Revision)
		}
		switch {
		case e.Journal == "":
			continue
		case e.Source != proto.SourceAgent:
			bad("record %d of journal %s was refused: %s", e.Seq, e.Journal, e.Message)
		case e.Message != message(e.Journal, e.Seq):
			bad("record %d of journal %s is not what was sent: %q", e.Seq, e.Journal, proto.Clip(e.Message, 60))
		}
		if e.Seq != last[e.Journal]+1 {
			bad("record %d of journal %s follows on %d", e.Seq, e.Journal, last[e.Journal])
		}
		last[e.Journal] = e.Seq
	}
	for journal, want := range acked {
		if last[journal] < want {
			bad("journal %s ends with record %d, all up to %d were acknowledged", journal, last[journal], want)
		}
	}
	return faults
}
