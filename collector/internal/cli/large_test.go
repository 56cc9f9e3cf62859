// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/cli"
	"provost/proto"
)

// largeServer serves the status of a large cluster, encoded once.
func largeServer(t testing.TB, nodes int) (address string) {
	list := proto.NodeList{Schema: 1, Revision: 6_000_000, Nodes: make([]proto.Node, nodes)}
	for i := range list.Nodes {
		n := &list.Nodes[i]
		*n = proto.Node{Schema: 1, Name: fmt.Sprintf("n%06d", i+1), Status: proto.StatusInstalling, Summary: "installing", Stage: "packages-started", Install: proto.NewID(now),
			Ordinal: uint64(i), Attempt: 1, Label: "nightly", Since: before("12m"), LastSeen: before("9s"), Deadline: dead("packages-done", "17m"), BootAction: proto.BootInstall,
			MACs: []string{fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16&255, i>>8&255, i&255)}, Profile: "compute", Groups: []string{fmt.Sprintf("rack%d", i/64)}, Revision: uint64(i)}
		if i%1000 == 7 {
			n.Status, n.Summary, n.Step, n.Waiting = proto.StatusFailed, "failed(otherpkgs=127)", "otherpkgs", true
			n.Cause = &proto.Cause{Kind: proto.CauseStep, Name: "otherpkgs", Exit: 127, Log: "otherpkgs.log", Tail: []string{"dnf: command not found"}}
		}
	}
	doc, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "provost")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(doc) })}}
	srv.Start()
	t.Cleanup(func() { srv.Close(); os.RemoveAll(dir) })
	return "unix://" + filepath.Join(dir, "s")
}

func statusOf(t testing.TB, address string, out io.Writer) {
	p := cli.Program{Stdin: strings.NewReader(""), Stdout: out, Stderr: io.Discard, Now: func() time.Time { return now },
		Getenv: func(k string) string { return map[string]string{"PROVOST_SERVER": address}[k] }}
	if code := p.Run(t.Context(), []string{"status"}); code != 1 {
		t.Fatalf("status of a large cluster with failures: exit status %d, want 1", code)
	}
}

// Every node has its row, the failed ones first, and no row is wider than 80 columns.
func TestLargeStatus(t *testing.T) {
	const nodes = 5_000
	r, w := io.Pipe()
	go func() { statusOf(t, largeServer(t, nodes), w); w.Close() }()
	rows, last := 0, ""
	for sc := bufio.NewScanner(r); sc.Scan(); {
		l := sc.Text()
		if len(l) > 90 || cli.Cells(l) > 80 {
			t.Fatalf("%d columns: %s", cli.Cells(l), l)
		}
		if !strings.HasPrefix(l, "n0") {
			continue
		}
		if rows++; rows == 5 && !strings.Contains(l, "failed(otherpkgs=127)") || rows == 6 && !strings.Contains(l, "installing") {
			t.Errorf("row %d: %s", rows, l)
		}
		last = l
	}
	if rows != nodes || !strings.HasPrefix(last, "n005000 ") {
		t.Errorf("%d rows, the last %q, want %d", rows, last, nodes)
	}
}

// BenchmarkStatus is `provost status` of 100,000 nodes over a unix socket: the target is 1 s and 200 MB on 2 cores with the
// server's part in it. live-MB is the heap that was in use at the end, with nothing collected since the last cycle.
func BenchmarkStatus(b *testing.B) {
	address := largeServer(b, 100_000)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		statusOf(b, address, io.Discard)
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapSys-before.HeapSys)/1e6, "heap-MB-more")
}
