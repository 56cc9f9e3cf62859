// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
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

// eventually waits 15 s at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
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
	if d.local("GET", "/v1/nodes/n1", nil, nil) != 200 {
		t.Error("the collector does not answer")
	}
}

func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
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
