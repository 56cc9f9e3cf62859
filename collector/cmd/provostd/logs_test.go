// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"provost/proto"
)

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits a minute at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// TestLogs follows a log and receives syslog in a running collector, over a restart, and says which log it cannot read.
func TestLogs(t *testing.T) {
	dir := t.TempDir()
	log, udp := filepath.Join(dir, "messages"), freeUDP(t)
	writeTree(t, dir, map[string]string{
		"config/profiles/site.yaml": "name: site\nboot: external\n",
		"provostd.yaml": fmt.Sprintf("dirs: {config: %s}\nevidence:\n  files: [{path: %s, kind: syslog}, {path: %s, kind: access}]\n  syslog: {udp: %q, tcp: \"127.0.0.1:0\"}\n",
			filepath.Join(dir, "config"), log, filepath.Join(dir, "httpd", "access_log"), udp),
	})
	appendTo(t, log, time.Now().Add(-time.Hour).Format(time.RFC3339)+" f dhcpd[1]: DHCPACK on 10.0.0.5 to 52:54:00:00:00:01 via br0\n")
	args := []string{"--config", filepath.Join(dir, "provostd.yaml")}
	d := start(t, filepath.Join(dir, "data"), args...)
	d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}, Profile: "site"}, nil)
	if code := d.local("POST", "/v1/nodes/n1/install", proto.InstallOrder{}, nil); code != 200 {
		t.Fatalf("install = %d\n%s", code, d.err)
	}
	status := func() (n proto.NodeList) {
		d.local("GET", "/v1/status", nil, &n)
		return n
	}
	eventually(t, "blind: httpd", func() bool { return slices.Equal(status().Blind, []string{"httpd"}) })
	if n := status().Nodes[0]; n.Status != proto.StatusOrdered {
		t.Errorf("n1 = %s after an old line, want ordered", n.Status)
	}
	line := func(text string) string { return time.Now().Format(time.RFC3339Nano) + " f " + text + "\n" }
	appendTo(t, log, line("dnsmasq-tftp[1]: sent /srv/tftp/pxelinux.0 to 10.0.0.5")) // the lease is from before
	stage := func(s string) func() bool {
		return func() bool {
			var list proto.EventList
			d.local("GET", "/v1/nodes/n1/installs/latest/events", nil, &list)
			return slices.ContainsFunc(list.Events, func(e proto.Event) bool { return e.Stage == s && strings.HasPrefix(string(e.Source), "log:") })
		}
	}
	eventually(t, "bootloader-sent", stage("bootloader-sent"))
	checklist := func() string {
		b, _ := os.ReadFile(filepath.Join(dir, "data", "checklist.log")) // not there yet
		return string(b)
	}
	eventually(t, "bootloader-sent in the checklist", func() bool { return strings.Contains(checklist(), "bootloader-sent") })
	first := d.err // what the status is has been told before that
	if code := d.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	appendTo(t, log, line("dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5")) // while it is down
	if err := os.Mkdir(filepath.Join(dir, "httpd"), 0o755); err != nil {
		t.Fatal(err)
	}
	appendTo(t, filepath.Join(dir, "httpd", "access_log"), "")
	d = start(t, filepath.Join(dir, "data"), args...)
	eventually(t, "kernel-sent", stage("kernel-sent"))
	eventually(t, "nothing blind", func() bool { return len(status().Blind) == 0 })
	c, err := net.Dial("udp", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "<30>%s", line("dnsmasq-tftp[1]: sent /srv/tftp/initrd.img to 10.0.0.5"))
	eventually(t, "initrd-sent", stage("initrd-sent"))
	metrics := socketText(t, d, "/metrics")
	for _, want := range []string{`provost_evidence_lines_total{log="` + log + `"} 3`, `provost_evidence_known_total{log="syslog"} 1`, `provost_evidence_blind{log="` + log + `"} 0`, "provost_evidence_dropped_total 0"} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("/metrics has no %s", want)
		}
	}
	// A log that is cut in place is read on, and said.
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, line("dnsmasq-tftp[1]: sent /srv/tftp/ks.cfg to 10.0.0.5"))
	eventually(t, "answer-sent", stage("answer-sent"))
	if text := socketText(t, d, "/v1/doctor"); !strings.Contains(text, "lines may have been lost: it was cut in place") || !strings.Contains(text, "copytruncate") {
		t.Errorf("the doctor does not say that a log was cut: %s", text)
	}
	// The checklist has a line for each, once, over the restart; the log a line for each status.
	eventually(t, "initrd-sent in the checklist", func() bool { return strings.Contains(checklist(), "initrd-sent") })
	for _, want := range []string{" n1 ordered operator\n", " n1 bootloader-sent log:dnsmasq /srv/tftp/pxelinux.0\n", " n1 kernel-sent log:dnsmasq /srv/tftp/vmlinuz\n", " n1 initrd-sent log:dnsmasq "} {
		if got := strings.Count(checklist(), want); got != 1 {
			t.Errorf("%q stands %d times in the checklist, want once:\n%s", want, got, checklist())
		}
	}
	told := first.String() + d.err.String()
	for _, want := range []string{`msg="a log cannot be read`, `msg="node is pxe-booting" node=n1 status=pxe-booting`} {
		if got := strings.Count(told, want); got != 1 {
			t.Errorf("%s stands %d times in the collectors' logs, want once:\n%s", want, got, told)
		}
	}
}

// TestChecklistLines: what a node says stays on its line.
func TestChecklistLines(t *testing.T) {
	at := time.Date(2026, 11, 20, 17, 46, 51, 123e6, time.UTC)
	for _, tt := range []struct {
		e    proto.Event
		want string
	}{
		{proto.Event{Kind: proto.KindStage, Stage: "dhcp-ack", Source: "log:dnsmasq", Message: "10.0.0.7"}, "dhcp-ack log:dnsmasq 10.0.0.7\n"},
		{proto.Event{Kind: proto.KindNote, Warning: true, Source: "log:nginx", Message: "a\nb\x1b[31m \"c\""}, `warning log:nginx a\nb\x1b[31m "c"` + "\n"},
		{proto.Event{Kind: proto.KindStalled, Stage: "dhcp-offer", Source: "deadline"}, "stalled(dhcp-offer) deadline\n"},
		{proto.Event{Kind: proto.KindStepEnd, Step: "x", Outcome: proto.OutcomeFailed, Source: "agent"}, "step-failed(x) agent\n"},
		{proto.Event{Kind: proto.KindStepEnd, Step: "x", Outcome: proto.OutcomeOK, Source: "agent"}, ""},
		{proto.Event{Kind: proto.KindNote, Source: "agent", Message: "x"}, ""},
	} {
		var b bytes.Buffer
		tt.e.At, tt.e.Node = at, "n07"
		line(&b, &tt.e)
		want := tt.want
		if want != "" {
			want = "2026-11-20T17:46:51.123Z n07 " + want
		}
		if b.String() != want {
			t.Errorf("line(%+v) = %q, want %q", tt.e, b.String(), want)
		}
	}
}

// freeUDP gives a free port of a local address that no other test uses, so that nobody takes it meanwhile.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.N(254), rand.N(256), 1+rand.N(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

func TestLogSettings(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"evidence: {files: [{path: /var/log/messages, kind: syslog}, {path: /var/log/httpd/access_log, kind: access}], journald: true, syslog: {udp: \":5140\", tcp: \":5140\"}}", ""},
		{"evidence: {files: [{path: messages}]}", "name a file from / on"},
		{"evidence: {files: [{path: /var/log/x, kind: sislog}]}", "kind \"sislog\": use one of syslog"},
		{"evidence: {files: [{path: /a/b}, {path: /a//b}]}", "stands twice"},
		{"evidence: {files: [{file: /a/b}]}", "file"},
		{"evidence: {syslog: {udp: 5140}}", "use HOST:PORT or :PORT"},
		{"evidence: {sislog: {udp: \":1\"}}", "sislog"},
		{"evidence: {dhcp-servers: [front1]}", "use IP addresses"},
		{"evidence: {syslog: {from: [10.0.0.0/24, front1]}}", "evidence.syslog.from \"front1\": use IP addresses, or prefixes"},
		{"evidence: {web-roots: [html]}", "from / on"},
	} {
		path := filepath.Join(t.TempDir(), "provostd.yaml")
		appendTo(t, path, tt.file)
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		settingsFlags(flags)
		if err := flags.Parse([]string{"--config", path}); err != nil {
			t.Fatal(err)
		}
		s, err := readSettings(flags, nil)
		switch {
		case tt.want == "" && (err != nil || len(s.Evidence.Files) != 2 || !s.Evidence.Journald || s.Evidence.Syslog.TCP != ":5140" || len(s.Evidence.WebRoots) == 0):
			t.Errorf("%s: %+v, %v", tt.file, s, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q in it", tt.file, err, tt.want)
		}
	}
}

// TestNodeSyslogBounds: senders that flood cost a bounded memory, and it is said.
func TestNodeSyslogBounds(t *testing.T) {
	var n nodeSyslog
	line := bytes.Repeat([]byte("x"), 1000)
	for i := range 10_000 {
		n.add(netip.AddrFrom4([4]byte{10, 0, byte(i % 200), 1}), line)
	}
	if n.bytes > sendersMost || len(n.senders) > maxSenders {
		t.Errorf("%d bytes of %d senders, at most %d and %d", n.bytes, len(n.senders), sendersMost, maxSenders)
	}
	if kept := int64(n.bytes / 1001); kept+n.dropped.Load() != 10_000 || n.dropped.Load() == 0 {
		t.Errorf("%d lines kept and %d dropped of 10,000", kept, n.dropped.Load())
	}
}

func socketText(t *testing.T, d *daemon, path string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.rec.Socket)
	}}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://provostd" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
