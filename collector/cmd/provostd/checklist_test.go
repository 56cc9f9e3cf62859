// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// TestChecklistPosition: events without a line are not looked at again by the next collector, and what a full disk did not
// take is written when there is room.
func TestChecklistPosition(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	path := filepath.Join(t.TempDir(), "checklist.log")
	quiet := slog.New(slog.DiscardHandler)
	text := func() string {
		b, _ := os.ReadFile(path) // not there yet
		return string(b)
	}
	run := func(until func() bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			runChecklist(ctx, path, s.Registry, quiet)
		}()
		eventually(t, "the checklist", until)
		cancel()
		<-done
	}
	run(func() bool { _, err := os.Stat(path); return err == nil }) // nothing is told of what was before
	id := s.Ordered("n1")
	run(func() bool { return strings.Contains(text(), " n1 ordered operator") })

	if err := s.Command(t.Context(), []string{"n1"}, proto.VerbHold, proto.NodeOrder{}, "op"); err != nil { // a note, which has no line
		t.Fatal(err)
	}
	at := func() (p checklistPosition) {
		b, err := os.ReadFile(path + ".position")
		if err == nil {
			err = json.Unmarshal(b, &p)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if before := at().Revision; before >= s.Revision() {
		t.Fatalf("position %d, revision %d: the test shows nothing", before, s.Revision())
	}
	for range 60 { // it may be stopped before it has seen the event
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		runChecklist(ctx, path, s.Registry, quiet)
		cancel()
		if at().Revision == s.Revision() {
			break
		}
	}
	if got := at().Revision; got != s.Revision() {
		t.Errorf("position %d after the end, want %d", got, s.Revision())
	}

	c := &checklist{path: path, reg: s.Registry, log: quiet, status: map[string]string{}, changed: map[string]bool{}}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	was := c.at
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.file.Close()
	c.file = full
	b, err := json.Marshal(proto.Event{Kind: proto.KindStage, Stage: "dhcp-ack", Node: "n1", Install: id, Source: "log:dhcpd"})
	if err != nil {
		t.Fatal(err)
	}
	entries := []store.Entry{{Revision: was.Revision + 1, Value: b}}
	if err := c.take(entries); err == nil || c.at != was {
		t.Fatalf("take = %v, position %+v, want an error and %+v", err, c.at, was)
	}
	if err := c.take(entries); err != nil || c.at.Revision != was.Revision+1 || strings.Count(text(), "dhcp-ack") != 1 {
		t.Errorf("take = %v, position %+v, checklist\n%s", err, c.at, text())
	}
	c.file.Close()
}

// TestChecklistOfAnotherDatabase: where a backup was restored, what follows the position are other events: none of them has a
// line, and what comes next has.
func TestChecklistOfAnotherDatabase(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Ordered("n1")
	s.Ordered("n1")
	path := filepath.Join(t.TempDir(), "checklist.log")
	for database, want := range map[string]uint64{s.Store.ID(): 1, "": 1, "OTHER": s.Revision()} {
		b, err := json.Marshal(checklistPosition{Database: database, Revision: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".position", b, 0o600); err != nil {
			t.Fatal(err)
		}
		c := &checklist{path: path, reg: s.Registry, log: slog.New(slog.DiscardHandler)}
		if err := c.open(); err != nil {
			t.Fatal(err)
		}
		c.file.Close()
		if c.at.Revision != want || c.at.Database != s.Store.ID() {
			t.Errorf("of database %q the checklist goes on at %+v, want revision %d", database, c.at, want)
		}
	}
}
