// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"provost/proto"
)

// limitFiles bounds every file that this process writes, which is what a full disk is to it.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = min(bytes, l.Max)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: with a full disk nothing gets a 2xx that is not written, the refusal names the cause, every status and the
// readiness say it, and with room again all goes on without a restart.
func TestFullDisk(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	t.Setenv("PROVOSTD_DIRS_CONFIG", t.TempDir())
	data := t.TempDir()
	d := start(t, data)
	n := 0
	add := func() (int, proto.Problem) {
		n++
		attrs := map[string]string{}
		for i := range 200 {
			attrs[fmt.Sprintf("a%d", i)] = strings.Repeat("x", 4000)
		}
		var raw json.RawMessage
		code := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: fmt.Sprintf("n%d", n), MACs: []string{fmt.Sprintf("52:54:00:00:01:%02x", n)}, Attrs: attrs}, &raw)
		var p proto.Problem
		if code >= 400 {
			if err := json.Unmarshal(raw, &p); err != nil {
				t.Fatal(err)
			}
		}
		return code, p
	}
	if code, p := add(); code != 201 {
		t.Fatalf("the first node = %d %+v", code, p)
	}
	info, err := os.Stat(filepath.Join(data, "provost.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer limitFiles(t, unix.RLIM_INFINITY)
	limitFiles(t, uint64(info.Size()))
	code, p := 201, proto.Problem{}
	for code == 201 && n < 100 {
		code, p = add()
	}
	if code != 503 || p.Code != proto.CodeStorage || !strings.Contains(p.Detail, "full") || p.Incident == "" {
		t.Fatalf("node %d on a full disk = %d %+v, want 503 storage that says full", n, code, p)
	}
	// A commit of the collector's own that still fits ends the warning until the next refusal, and may set pages free that a node then
	// fits into: each look comes right after a refusal, and asks for little.
	refused := func() {
		t.Helper()
		n--
		for code, p = add(); code == 201 && n < 100; {
			code, p = add()
		}
		if code != 503 {
			t.Fatalf("node %d on a full disk, again = %d %+v, want 503", n, code, p)
		}
	}
	ready, said := 200, false
	for try := 0; try < 50 && ready != 503; try++ {
		refused()
		ready = d.local("GET", "/readyz", nil, nil)
	}
	var list proto.NodeList
	for try := 0; try < 50 && !said; try++ {
		refused()
		list = proto.NodeList{}
		d.local("GET", "/v1/status?nodes=n1", nil, &list)
		said = strings.Contains(strings.Join(list.Warnings, "\n"), "the disk is full")
	}
	if !said {
		t.Errorf("warnings of the status = %q, want that the disk is full", list.Warnings)
	}
	if ready != 503 {
		t.Errorf("readyz on a full disk = %d, want 503", ready)
	}
	list = proto.NodeList{}
	if code := d.local("GET", "/v1/status", nil, &list); code != 200 || len(list.Nodes) != n-1 {
		t.Errorf("status on a full disk = %d with %d nodes, want 200 and %d", code, len(list.Nodes), n-1)
	}
	limitFiles(t, unix.RLIM_INFINITY)
	n--
	if code, p := add(); code != 201 {
		t.Fatalf("with room again = %d %+v", code, p)
	}
	list = proto.NodeList{}
	d.local("GET", "/v1/status", nil, &list)
	if strings.Contains(strings.Join(list.Warnings, "\n"), "the disk is full") || len(list.Nodes) != n || d.local("GET", "/readyz", nil, nil) != 200 {
		t.Errorf("with room again: %d nodes, want %d with n%d, which was refused; warnings %q", len(list.Nodes), n, n, list.Warnings)
	}
	if d.stop() != 0 {
		t.Error("the collector did not end well")
	}
	if code, out, errs := provostd("db", "check", "--data", data); code != 0 {
		t.Errorf("db check = %d %s%s", code, out, errs)
	}
}
