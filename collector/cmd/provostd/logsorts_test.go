// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"provost/collector/internal/evidence"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/sequence"
	"provost/proto"
)

// TestLogSorts: what can be awaited follows from the logs that are read: by their kind, by the programs that were heard in
// them, and not from one that cannot be read.
func TestLogSorts(t *testing.T) {
	s := registrytest.New(t)
	set := &evidenceSettings{Files: []logFile{{"/var/log/messages", "syslog"}, {"/var/log/dnsmasq.log", "dnsmasq"}, {"/var/log/httpd/access_log", "access"}, {"/var/log/httpd/error_log", "error"}}}
	l, err := openLogs(t.Context(), set, s.Registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	observe := func(source string, trouble error, programs ...string) {
		t.Helper()
		if err := s.Observe(t.Context(), evidence.Batch{Source: source, Programs: programs, Trouble: trouble}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want ...string) {
		t.Helper()
		if got := l.sorts(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	check("at first", sequence.LogDHCP, sequence.LogWeb)
	observe("/var/log/messages", nil, evidence.ProgTFTPDHPA, evidence.ProgApache)
	check("in.tftpd was heard", sequence.LogDHCP, sequence.LogTFTP, sequence.LogWeb)
	observe("/var/log/httpd/access_log", errors.New("permission denied"))
	check("without the access log", sequence.LogDHCP, sequence.LogTFTP)
	s.Restart()
	l.reg = s.Registry
	check("after a restart", sequence.LogDHCP, sequence.LogTFTP, sequence.LogWeb)

	observe("/var/log/httpd/error_log", errors.New("permission denied"))
	observe("/var/log/dnsmasq.log", errors.New("permission denied"))
	shown := map[string][]string{}
	for _, src := range s.EvidenceSources() {
		for _, stage := range []string{"dhcp-offer", "kernel-sent", "answer-sent", "post-done"} {
			if name := l.shows(src, stage); name != "" {
				shown[stage] = append(shown[stage], name)
			}
		}
	}
	for stage, want := range map[string][]string{"dhcp-offer": {"dnsmasq"}, "kernel-sent": {"httpd", "messages"}, "answer-sent": {"httpd"}, "post-done": nil} {
		if !slices.Equal(shown[stage], want) {
			t.Errorf("%s is shown by %q, want %q", stage, shown[stage], want)
		}
	}
}

// TestLogsOfDHCPAlone: with no other log than the DHCP server's, an order awaits no file to be sent, and with one that cannot be
// read nothing of a log.
func TestLogsOfDHCPAlone(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "dhcpd.log")
	writeTree(t, dir, map[string]string{
		"config/profiles/site.yaml": "name: site\nboot: external\n",
		"provostd.yaml":             fmt.Sprintf("dirs: {config: %s}\nevidence:\n  files: [{path: %s, kind: dhcpd}]\n  syslog: {from: [10.0.0.2, \"fd00::/64\"]}\n", filepath.Join(dir, "config"), log),
	})
	d := start(t, filepath.Join(dir, "data"), "--config", filepath.Join(dir, "provostd.yaml"))
	d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}, Profile: "site"}, nil)
	awaited := func(name string) string {
		var list proto.NodeList
		d.local("GET", "/v1/status", nil, &list)
		for _, n := range list.Nodes {
			if n.Name == name && n.Deadline != nil {
				return n.Deadline.Stage
			}
		}
		return ""
	}
	blind := func() int {
		var list proto.NodeList
		d.local("GET", "/v1/status", nil, &list)
		return len(list.Blind)
	}
	line := func(mac, text string) string {
		return time.Now().Format(time.RFC3339Nano) + " f dhcpd[1]: " + fmt.Sprintf(text, mac) + " via br0\n"
	}
	eventually(t, "the log is missing", func() bool { return blind() == 1 })
	order := func(name string) {
		if code := d.local("POST", "/v1/nodes/"+name+"/install", proto.InstallOrder{}, nil); code != 200 {
			t.Fatalf("install = %d\n%s", code, d.err)
		}
	}
	order("n1")
	appendTo(t, log, "")
	eventually(t, "the log is read", func() bool { return blind() == 0 })
	d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n2", MACs: []string{"52:54:00:00:00:02"}, Profile: "site"}, nil)
	order("n2")
	for mac, name := range map[string]string{"52:54:00:00:00:01": "n1", "52:54:00:00:00:02": "n2"} {
		appendTo(t, log, line(mac, "DHCPDISCOVER from %s"))
		want := map[string]string{"n1": "agent-started", "n2": "dhcp-offer"}[name]
		eventually(t, name+" awaits "+want, func() bool { return awaited(name) == want })
		appendTo(t, log, line(mac, "DHCPREQUEST for 10.0.0.5 from %s")+line(mac, "DHCPACK on 10.0.0.5 to %s"))
		eventually(t, name+" awaits its agent", func() bool { return awaited(name) == "agent-started" })
	}
}

func TestSyslogFrom(t *testing.T) {
	var e evidenceSettings
	e.Syslog.From = []string{"10.0.0.2", "fd00::/64", "::ffff:10.0.0.3"}
	if err := e.check(); err != nil {
		t.Fatal(err)
	}
	r := e.registry(nil)
	for addr, want := range map[string]bool{"10.0.0.2": true, "10.0.0.3": true, "10.0.0.4": false, "fd00::7": true, "fd01::7": false} {
		if got := evidence.Within(r.Listed, netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is listed: %v, want %v", addr, got, want)
		}
	}
	if host, err := os.Hostname(); err == nil && r.Self != host {
		t.Errorf("this machine is %q, want %q", r.Self, host)
	}
}
