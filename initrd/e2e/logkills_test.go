// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/lab"
	"provost/proto"
)

// TestLogKills kills the collector with SIGKILL again and again while a frontend's log is written, 5,000 lines a second, and
// rotated with the old file written to for another 200 ms. No line is lost, and none counts twice. It boots no machine.
func TestLogKills(t *testing.T) {
	const nodes, stages = 100, 10
	ctx := within(t, 10*time.Minute)
	l, err := lab.New(ctx, fstest.MapFS{"profiles/site.yaml": {Mode: 0o644, Data: []byte("name: site\nboot: external\n")}}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			t.Logf("the log, the collector's log and its data are in %s", l.Dir)
		} else {
			os.RemoveAll(l.Dir)
		}
	})
	path := filepath.Join(l.Dir, "messages")
	if err := l.AddSettings(fmt.Sprintf("evidence: {files: [{path: %q, kind: syslog}]}\n", path)); err != nil {
		t.Fatal(err)
	}
	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}
	provost := func(args ...string) string {
		out, err := l.Provost(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var csv strings.Builder
	csv.WriteString("name,mac,profile\n")
	for i := range nodes {
		fmt.Fprintf(&csv, "n%03d,52:54:00:01:00:%02x,site\n", i, i)
	}
	list := filepath.Join(l.Dir, "nodes.csv")
	if err := os.WriteFile(list, []byte(csv.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	provost("node", "import", list)
	provost("install", fmt.Sprintf("n[000-%03d]", nodes-1), "--yes")
	time.Sleep(time.Second) // the first stamp is after the order

	// Between a stage of all nodes and the next there is noise: about 30,000 lines in 6 s.
	written := make(chan int)
	go func() { written <- writeRotating(t, path, nodes, stages) }()
	kills, lines := 0, 0
	for lines == 0 {
		select {
		case lines = <-written:
		case <-time.After(400 * time.Millisecond):
			l.KillCollector()
			kills++
			if err := l.StartCollector(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	var doc proto.Doctor
	wantDetail := fmt.Sprintf("%s: %d lines: %d about boots", path, lines, nodes*stages)
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		if err := l.Doctor(ctx, &doc); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(doc.Checks, func(c proto.Check) bool { return c.Name == "log messages" && strings.HasPrefix(c.Detail, wantDetail) }) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after %d kills: %+v, want %q", kills, doc.Checks, wantDetail)
		}
	}
	for i := range nodes {
		name := fmt.Sprintf("n%03d", i)
		events, err := l.Events(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, e := range events.Events {
			switch {
			case e.Kind == proto.KindAttempt: // the first file that the boot loader got begins it
				seen["attempt"]++
			case strings.HasPrefix(string(e.Source), "log:"):
				seen[e.Stage]++
			}
		}
		for stage, n := range seen {
			if n != 1 {
				t.Errorf("%s: stage %s came %d times", name, stage, n)
			}
		}
		if len(seen) != stages+1 {
			t.Errorf("%s: stages %v, want %d and an attempt", name, seen, stages)
		}
	}
	t.Logf("%d lines, %d kills: none lost, none twice", lines, kills)
}

// writeRotating writes 5,000 lines a second, rotates each second, and gives the number of lines.
func writeRotating(t *testing.T, path string, nodes, stages int) int {
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	line := func(stage, i int) string {
		mac, ip := fmt.Sprintf("52:54:00:01:00:%02x", i), fmt.Sprintf("10.1.0.%d", i)
		switch stage {
		case 0:
			return "dhcpd[1]: DHCPDISCOVER from " + mac + " via br0"
		case 1:
			return "dhcpd[1]: DHCPOFFER on " + ip + " to " + mac + " via br0"
		case 2:
			return "dhcpd[1]: DHCPREQUEST for " + ip + " from " + mac + " via br0"
		case 3:
			return "dhcpd[1]: DHCPACK on " + ip + " to " + mac + " via br0"
		}
		return "dnsmasq-tftp[1]: sent /srv/tftp/" + []string{"undionly.kpxe", "boot.ipxe", "vmlinuz", "initrd.img", "ks.cfg", "install.img"}[stage-4] + " to " + ip
	}
	all := nodes * stages * 30
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	f := open()
	var old *os.File
	n := 0
	for ticks := 1; n < all; ticks++ {
		<-tick.C
		switch ticks % 200 {
		case 100:
			for k := 8; k > 0; k-- {
				os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1))
			}
			if err := os.Rename(path, path+".1"); err != nil {
				t.Error(err)
			}
			old, f = f, open()
		case 140: // 200 ms later
			if old != nil {
				old.Close()
				old = nil
			}
		}
		for i := 0; i < 25 && n < all; i++ {
			w, text := f, "cron[7]: noise"
			if old != nil && i%2 == 0 {
				w = old
			}
			if n%30 == 7 {
				text = line(n/30/nodes, n/30%nodes)
			}
			if _, err := w.WriteString(time.Now().Format(time.RFC3339Nano) + " front " + text + "\n"); err != nil {
				t.Error(err)
			}
			n++
		}
	}
	if old != nil {
		old.Close()
	}
	f.Close()
	return n
}
