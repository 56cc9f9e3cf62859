// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"provost/collector/internal/client"
	"provost/proto"
)

// follower knows the newest install of each node as a watcher does: from a list, then from the feed behind it.
type follower struct {
	t        *testing.T
	cl       *client.Client
	at       client.Cursor
	revision uint64 // the last that was seen
	installs map[string]string
}

func (f *follower) list() {
	f.t.Helper()
	l, err := f.cl.Nodes(f.t.Context(), client.Query{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.at, f.revision, f.installs = client.Cursor(l.Cursor), l.Revision, map[string]string{}
	for _, n := range l.Nodes {
		f.installs[n.Name] = n.Install
	}
}

// follow reads the feed up to a revision, or until it is refused. Each event must be the one after the last.
func (f *follower) follow(upTo uint64) error {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	enough := errors.New("enough")
	err := f.cl.Feed(ctx, &f.at, func(e *proto.Event, _ bool) error {
		if e != nil {
			if e.Revision != f.revision+1 {
				return fmt.Errorf("revision %d follows %d", e.Revision, f.revision)
			}
			f.revision = e.Revision
			if e.Kind == proto.KindOrdered {
				f.installs[e.Node] = e.Install
			}
		}
		if f.revision >= upTo {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// TestRestoreUnderAWatcher: who watched a collector whose database was made from an older backup since, and has come further than
// the watcher was, is not given the events of other installs as the next ones: it takes a new list, and from there on it has
// all of them once.
func TestRestoreUnderAWatcher(t *testing.T) {
	dir := t.TempDir()
	config, data, backup := filepath.Join(dir, "etc"), filepath.Join(dir, "data"), filepath.Join(dir, "backup.db")
	t.Setenv("PROVOSTD_DIRS_CONFIG", config)
	writeTree(t, config, map[string]string{"profiles/fast.yaml": "kernel: images/vmlinuz\ninitrds: [overlay]\nsteps:\n  - {name: one, phase: post}\n", "postscripts/one": "#!/bin/sh\n"})
	d := start(t, data)
	order := func(node string) {
		t.Helper()
		if got := d.local("POST", "/v1/nodes/"+node+"/install", nil, nil); got != 200 {
			t.Fatalf("ordering an install of %s = %d", node, got)
		}
	}
	state := func() (uint64, map[string]string) {
		t.Helper()
		var l proto.NodeList
		if got := d.local("GET", "/v1/status", nil, &l); got != 200 {
			t.Fatalf("status = %d", got)
		}
		installs := map[string]string{}
		for _, n := range l.Nodes {
			installs[n.Name] = n.Install
		}
		return l.Revision, installs
	}
	for i, node := range []string{"n1", "n2"} {
		if got := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: node, MACs: []string{fmt.Sprintf("52:54:00:00:00:%02x", i)}, Profile: "fast"}, nil); got != 201 {
			t.Fatalf("adding %s = %d", node, got)
		}
	}
	order("n1")
	if code, out, errOut := provostd("db", "backup", "--data", data, backup); code != 0 {
		t.Fatalf("backup = %d\n%s%s", code, out, errOut)
	}
	cl, err := client.New(client.Config{Server: "unix://" + d.rec.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	f := &follower{t: t, cl: cl}
	f.list()
	order("n2") // which the backup does not have
	order("n1")
	was, want := state()
	if err := f.follow(was); err != nil || !maps.Equal(f.installs, want) {
		t.Fatalf("before: %v, the watcher has %v, want %v", err, f.installs, want)
	}
	if err := d.stop(); err != 0 {
		t.Fatalf("exit status %d\n%s", err, d.err)
	}
	if err := os.Rename(filepath.Join(data, "provost.db"), filepath.Join(dir, "before.db")); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := provostd("db", "restore", "--data", data, backup); code != 0 {
		t.Fatalf("restore = %d\n%s%s", code, out, errOut)
	}
	d = start(t, data)
	if now, _ := state(); now >= was {
		t.Fatalf("the restored database is at revision %d, the one before was at %d: this test shows nothing", now, was)
	}
	for now, _ := state(); now <= was+2; now, _ = state() {
		order("n1")
	}

	now, want := state()
	var p *proto.Problem
	if err := f.follow(now); !errors.As(err, &p) || p.Code != proto.CodeGone || p.Status != 410 {
		t.Fatalf("going on from %s = %v, want 410 gone; the watcher has %v, the nodes %v", f.at, err, f.installs, want)
	}
	f.list()
	if !maps.Equal(f.installs, want) || want["n2"] != "" {
		t.Errorf("the new list has %v, want %v", f.installs, want)
	}
	order("n2")
	now, want = state()
	if err := f.follow(now); err != nil || !maps.Equal(f.installs, want) {
		t.Errorf("afterwards: %v, the watcher has %v, want %v", err, f.installs, want)
	}
}
