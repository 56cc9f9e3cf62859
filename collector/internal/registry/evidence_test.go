// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/evidence"
	"provost/collector/internal/evidence/evidencetest"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// logSequence has the stages of DHCP and TFTP, too.
var logSequence = lifecycle.Sequence{Family: "generic", Stages: []lifecycle.Stage{
	{Name: "ordered"}, {Name: "dhcp-discover", Within: proto.Duration(time.Minute)}, {Name: "dhcp-offer", Within: proto.Duration(time.Minute)},
	{Name: "dhcp-request", Within: proto.Duration(time.Minute)}, {Name: "dhcp-ack", Within: proto.Duration(time.Minute)},
	{Name: "bootloader-sent", Within: proto.Duration(time.Minute)}, {Name: "kernel-sent", Within: proto.Duration(time.Minute)},
	{Name: "initrd-sent", Within: proto.Duration(time.Minute)}, {Name: "answer-sent", Within: proto.Duration(time.Minute)},
	{Name: "agent-started", Within: proto.Duration(time.Minute)}, {Name: "sealed", Within: proto.Duration(time.Minute)}, {Name: "booted"}}}

// logSite is a site whose nodes are booted by others, with a profile that trusts the sources that are named.
func logSite(t testing.TB, trust ...proto.Source) *registrytest.Site {
	s := registrytest.At(t, t.TempDir())
	p := registrytest.Prepared("compute")
	p.Recipe.Boot, p.Recipe.Sequence = "external", logSequence
	p.Recipe.Trust = append(slices.Clone(p.Recipe.Trust), trust...)
	s.Profiles.Put("compute", p)
	s.Evidence = registry.Evidence{Ours: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	s.Open()
	t.Cleanup(func() {
		if err := s.Store.Close(); err != nil {
			t.Error(err)
		}
		s.Logs.Close()
	})
	return s
}

// says gives lines to the registry as one source does, in one batch.
func says(t testing.TB, s *registrytest.Site, source string, lines ...string) {
	t.Helper()
	if err := s.Observe(ctx, batch(s, source, lines...)); err != nil {
		t.Fatal(err)
	}
}

// batch parses lines; each has the stamp of the site's clock unless it begins with one of its own.
func batch(s *registrytest.Site, source string, lines ...string) evidence.Batch {
	p, j := evidence.NewParser(s.Clock.Now(), time.UTC), evidence.NewJoiner()
	b := evidence.Batch{Source: source, Position: []byte("x")}
	for _, l := range lines {
		if !strings.HasPrefix(l, "2026-") && !strings.Contains(l, `"GET `) {
			l = s.Clock.Now().Format(time.RFC3339Nano) + " front " + l
		}
		f, v := p.Parse([]byte(l))
		b.Counts.Add(v)
		if v == evidence.Known {
			if f, ok := j.Add(f); ok {
				b.Facts = append(b.Facts, f)
			}
		}
	}
	return b
}

// letPass lets time go by, with everything that waits for it.
func letPass(t testing.TB, s *registrytest.Site, d time.Duration) {
	t.Helper()
	s.Clock.Advance(d)
	if err := s.ObserveDue(ctx); err != nil {
		t.Fatal(err)
	}
}

// told lists what the logs said of a node's install: "source stage" or "source! message".
func told(t testing.TB, s *registrytest.Site, node string) []string {
	t.Helper()
	list, err := s.InstallEvents(node, "latest")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list.Events {
		if !strings.HasPrefix(string(e.Source), "log:") {
			continue
		}
		switch {
		case e.Kind == proto.KindAttempt || e.Kind == proto.KindNote && !e.Warning:
		case e.Kind == proto.KindStage && !e.Failed:
			out = append(out, string(e.Source)+" "+e.Stage)
		default:
			out = append(out, string(e.Source)+"! "+e.Message)
		}
	}
	return out
}

func lease(ip, mac string) []string {
	return []string{"dnsmasq-dhcp[1]: DHCPDISCOVER(br0) " + mac, "dnsmasq-dhcp[1]: DHCPOFFER(br0) " + ip + " " + mac,
		"dnsmasq-dhcp[1]: DHCPREQUEST(br0) " + ip + " " + mac, "dnsmasq-dhcp[1]: DHCPACK(br0) " + ip + " " + mac + " n1"}
}

func TestEvidenceAdvances(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	s.Ordered("n1")
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	says(t, s, "/var/log/syslog", lease("10.0.0.6", registrytest.MAC(2))...) // no install: nothing but that it was heard of
	s.Clock.Advance(time.Second)
	s.Restart() // leases outlive it
	says(t, s, "/var/log/syslog", "dnsmasq-tftp[1]: sent /srv/tftp/undionly.kpxe to 10.0.0.5", "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5",
		"dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5", "some[1]: noise", "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.77")
	want := []string{"log:dnsmasq dhcp-discover", "log:dnsmasq dhcp-offer", "log:dnsmasq dhcp-request", "log:dnsmasq dhcp-ack", "log:dnsmasq bootloader-sent", "log:dnsmasq kernel-sent"}
	if diff := cmp.Diff(want, told(t, s, "n1")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	n := s.Seen("n1")
	if n.Status != proto.StatusPXEBooting || n.Stage != "kernel-sent" || n.Deadline == nil || n.Deadline.Stage != "initrd-sent" {
		t.Errorf("n1 = %s at %s, deadline %+v, want pxe-booting at kernel-sent, initrd-sent due", n.Status, n.Stage, n.Deadline)
	}
	if n := s.Seen("n2"); n.Status != proto.StatusDefined || !n.LastSeen.IsZero() { // that was before the restart
		t.Errorf("n2 = %s, last seen %s", n.Status, n.LastSeen)
	}
	says(t, s, "/var/log/syslog", lease("10.0.0.6", registrytest.MAC(2))...)
	if n := s.Seen("n2"); n.Status != proto.StatusDefined || !n.LastSeen.Equal(s.Clock.Now()) {
		t.Errorf("n2 = %s, last seen %s, want defined and %s", n.Status, n.LastSeen, s.Clock.Now())
	}
}

// TestEvidenceRepeats: a machine that asks for an address for ever does not put off its deadline.
func TestEvidenceRepeats(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	for range 20 {
		s.Clock.Advance(10 * time.Second)
		says(t, s, "/var/log/syslog", "dnsmasq-dhcp[1]: DHCPDISCOVER(br0) "+mac+" no address available")
		if _, err := s.Expire(ctx); err != nil {
			t.Fatal(err)
		}
	}
	n := s.Seen("n1")
	if n.Summary != "failed(stage-deadline)" || n.Cause.Name != "dhcp-offer" {
		t.Errorf("n1 = %s (%+v), want failed at dhcp-offer", n.Summary, n.Cause)
	}
	want := []string{"the DHCP server has no address for " + mac + " (dhcp-offer missed): no address available (log of front)"}
	if diff := cmp.Diff(want, n.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if got := len(told(t, s, "n1")); got != 2 {
		t.Errorf("%d events of 20 lines, want the stage and the warning", got)
	}
	// Late evidence ends what a clock concluded; older lines do not.
	old := s.Clock.Now().Add(-150 * time.Second).Format(time.RFC3339Nano)
	says(t, s, "/var/log/syslog.1", old+" front dnsmasq-dhcp[1]: DHCPACK(br0) 10.0.0.5 "+mac)
	if n := s.Seen("n1"); n.Status != proto.StatusFailed {
		t.Errorf("after an old line: %s", n.Summary)
	}
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	if n := s.Seen("n1"); n.Status != proto.StatusPXEBooting {
		t.Errorf("after the address came: %s, want pxe-booting", n.Summary)
	}
}

// TestEvidenceOfOtherTimes: a line belongs to the install that was current when it was written.
func TestEvidenceOfOtherTimes(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	s.Clock.Advance(10 * time.Minute)
	before := s.Clock.Now()
	s.Clock.Advance(10 * time.Minute)
	first := s.Seen("n1").Install
	second := s.Ordered("n1")
	line := func(at time.Time, format string) string {
		return at.Format(format) + " front dhcpd[1]: DHCPDISCOVER from " + mac + " via br0"
	}
	says(t, s, "/var/log/messages", line(before, time.RFC3339Nano))
	for _, id := range []string{first, second} {
		list, err := s.InstallEvents("n1", id)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(list.Events, func(e proto.Event) bool { return e.Source == "log:dhcpd" }) {
			t.Errorf("install %s learnt from a line that is older than the present order", id)
		}
	}
	// A stamp in whole seconds may be up to a second early; one in the future is now.
	s.Clock.Advance(400 * time.Millisecond)
	s.Ordered("n1")
	says(t, s, "/var/log/messages", line(s.Clock.Now().Truncate(time.Second), time.RFC3339))
	if got := told(t, s, "n1"); !slices.Equal(got, []string{"log:dhcpd dhcp-discover"}) {
		t.Errorf("stamped before its order, in the same second: %v", got)
	}
	s.Ordered("n1")
	says(t, s, "/var/log/messages", line(s.Clock.Now().Add(3*time.Hour), time.RFC3339))
	list, err := s.InstallEvents("n1", "latest")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Events {
		if e.At.After(s.Clock.Now()) {
			t.Errorf("%s at %s, which is to come", e.Stage, e.At)
		}
	}
}

// TestEvidenceTrust is the trust matrix: what the logs say of errors decides only where the profile trusts the source.
func TestEvidenceTrust(t *testing.T) {
	for _, tt := range []struct {
		name   string
		trust  []proto.Source
		line   string
		failed bool
	}{
		{"nobody", nil, "dnsmasq-tftp[1]: file /srv/tftp/vmlinuz not found for 10.0.0.5", false},
		{"another source", []proto.Source{"log:dhcpd"}, "dnsmasq-tftp[1]: file /srv/tftp/vmlinuz not found for 10.0.0.5", false},
		{"the source", []proto.Source{"log:dnsmasq"}, "dnsmasq-tftp[1]: file /srv/tftp/vmlinuz not found for 10.0.0.5", true},
		{"the source, of a file that clients do without", []proto.Source{"log:dnsmasq"}, "dnsmasq-tftp[1]: file /srv/tftp/pxelinux.cfg/default not found for 10.0.0.5", false},
		{"the source, of a transfer that may be tried again", []proto.Source{"log:dnsmasq"}, "dnsmasq-tftp[1]: failed sending /srv/tftp/vmlinuz to 10.0.0.5", false},
		{"the source, that all is well", []proto.Source{"log:dnsmasq"}, "dnsmasq-tftp[1]: sent /srv/tftp/vmlinuz to 10.0.0.5", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := logSite(t, tt.trust...)
			mac := s.Add("n1", 1)
			s.Ordered("n1")
			says(t, s, "/var/log/syslog", append(lease("10.0.0.5", mac), tt.line)...)
			n := s.Seen("n1")
			if got := n.Status == proto.StatusFailed; got != tt.failed {
				t.Errorf("status %s (%+v), failed want %v", n.Status, n.Cause, tt.failed)
			}
			if tt.failed && (n.Summary != "failed(foreign)" || n.Cause.Name != "kernel-sent" || !strings.Contains(n.Cause.Message, "vmlinuz is not on the TFTP server")) {
				t.Errorf("cause %+v", n.Cause)
			}
		})
	}
	// Whatever is trusted, no line of a log makes a node booted, or ends an install that has ended.
	s := logSite(t, "log:dnsmasq", "log:apache", "log:dhcpd", "log:installer")
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	lines := lease("10.0.0.5", mac)
	for _, stage := range proto.Stages {
		lines = append(lines, "dnsmasq-tftp[1]: sent /srv/tftp/"+stage+" to 10.0.0.5", "preseed[1]: successfully loaded preseed file from http://x/"+stage)
	}
	says(t, s, "/var/log/syslog", lines...)
	if n := s.Seen("n1"); n.Status != proto.StatusInstalling {
		t.Errorf("status %s, want installing: an answer file was fetched", n.Status)
	}
}

// TestEvidenceTakenBack: a server that wrote down a request and denied it afterwards has not sent the file, also when a
// batch, or a restart, came between the two.
func TestEvidenceTakenBack(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	s.Clock.Advance(time.Second)
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	says(t, s, "/var/log/syslog", "in.tftpd[7]: RRQ from 10.0.0.5 filename pxelinux.0")
	letPass(t, s, 4*time.Second)
	s.Clock.Advance(6 * time.Second) // so that the next batch is committed, although nothing came of it yet
	says(t, s, "/var/log/syslog", "in.tftpd[8]: RRQ from 10.0.0.5 filename images/vmlinuz")
	s.Restart()
	says(t, s, "/var/log/syslog", "in.tftpd[8]: sending NAK (1, File not found) to 10.0.0.5")
	letPass(t, s, 4*time.Second)
	got := told(t, s, "n1")
	want := []string{"log:tftpd bootloader-sent", "log:tftpd! images/vmlinuz is not on the TFTP server (kernel-sent missed) (log of front)"}
	if diff := cmp.Diff(want, got[4:]); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestEvidenceOfTwoLogs: what the access log calls an error is explained by the error log, whichever is read first.
func TestEvidenceOfTwoLogs(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		s := logSite(t)
		mac := s.Add("n1", 1)
		s.Ordered("n1")
		says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
		now := s.Clock.Now()
		logs := []struct{ path, line string }{
			{"/var/log/nginx/access.log", now.Format(`10.0.0.5 - - [02/Jan/2006:15:04:05 -0700] "GET /ks/n1.ks HTTP/1.1" 403 153 "-" "anaconda/34"`)},
			{"/var/log/nginx/error.log", now.Format(`2006/01/02 15:04:05`) + ` [error] 9#9: *1 open() "/nowhere/html/ks/n1.ks" failed (13: Permission denied), client: 10.0.0.5, server: _, request: "GET /ks/n1.ks HTTP/1.1", host: "10.0.0.1"`},
		}
		for _, i := range order {
			says(t, s, logs[i].path, logs[i].line)
		}
		letPass(t, s, 4*time.Second)
		got := s.Seen("n1").Warnings
		if len(got) != 1 || !strings.Contains(got[0], "/ks/n1.ks may not be read by the web server (answer-sent missed)") {
			t.Errorf("order %v: warnings %q, want one", order, got)
		}
	}
}

// TestEvidenceSizes: how large a file is outlives a restart, so that the first transfer after it may be known to be broken off.
func TestEvidenceSizes(t *testing.T) {
	s := logSite(t)
	first, second := s.Add("n1", 1), s.Add("n2", 2)
	s.Ordered("n1")
	s.Ordered("n2")
	get := func(ip string, bytes int) {
		t.Helper()
		says(t, s, "/var/log/nginx/access.log", fmt.Sprintf(`%s - - [%s] "GET /vmlinuz HTTP/1.1" 200 %d "-" "iPXE/1.21"`, ip, s.Clock.Now().Format("02/Jan/2006:15:04:05 -0700"), bytes))
		letPass(t, s, 4*time.Second)
	}
	says(t, s, "/var/log/syslog", append(lease("10.0.0.5", first), lease("10.0.0.6", second)...)...)
	get("10.0.0.5", 14_000_000)
	s.Restart()
	get("10.0.0.6", 3_000_000)
	if n := s.Seen("n2"); len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], "only 3000000 of 14000000 bytes were sent") || n.Stage == "kernel-sent" {
		t.Errorf("after a restart: stage %s, warnings %q, want the transfer broken off", n.Stage, n.Warnings)
	}
	s.Restart()
	get("10.0.0.6", 14_000_000)
	if n := s.Seen("n2"); len(n.Warnings) != 0 || n.Stage != "kernel-sent" {
		t.Errorf("sent whole after another restart: stage %s, warnings %q", n.Stage, n.Warnings)
	}
}

// TestEvidenceBounded: invented file names cost a node a bounded number of events.
func TestEvidenceBounded(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	says(t, s, "/var/log/syslog", lease("10.0.0.5", mac)...)
	var lines []string
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("dnsmasq-tftp[1]: file /srv/tftp/evil%d.0 not found for 10.0.0.5", i))
	}
	says(t, s, "/var/log/syslog", lines...)
	if got := len(told(t, s, "n1")); got > 4+16 {
		t.Errorf("%d events of 1,000 lines, want at most 20", got)
	}
}

var errKilled = errors.New("killed")

// TestEvidenceOnce writes 5,000 lines a second of many nodes over rotations, each with the old file written to for another
// 200 ms, while the collector is stopped in the middle and opened again. Every line is counted once, and every node has each
// of its stages once.
func TestEvidenceOnce(t *testing.T) {
	const nodes, stagesOf = 400, 10
	dir := t.TempDir()
	s := registrytest.At(t, dir)
	p := registrytest.Prepared("compute")
	p.Recipe.Boot, p.Recipe.Sequence = "external", logSequence
	s.Profiles.Put("compute", p)
	s.Open()
	names := make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%03d", i)
		if _, err := s.AddNode(ctx, proto.NodeSpec{Name: names[i], MACs: []string{macOf(i)}, Profile: "compute"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Order(ctx, names, proto.InstallOrder{}, "test"); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(time.Hour)
	var lines []string
	for k := range stagesOf {
		for i := range nodes {
			lines = append(lines, s.Clock.Now().Format(time.RFC3339Nano)+" front "+lineOf(k, i)+"\n")
		}
	}
	path := filepath.Join(dir, "messages")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // the collector: killed every 150 ms
		defer close(done)
		for last := false; !last; {
			select {
			case <-stop:
				last = true
			default:
			}
			until := func() bool {
				src := s.EvidenceSources()
				return len(src) > 0 && src[0].Counts.Lines >= int64(len(lines))
			}
			if !last {
				until = func() bool { return false }
			}
			follow(s, path, until, last)
			if !last {
				if err := s.Store.Close(); err != nil {
					t.Error(err)
				}
				s.Logs.Close()
				s.Open()
			}
		}
	}()
	evidencetest.Rotate(t, path, len(lines), func(i int) string { return lines[i] })
	close(stop)
	<-done
	defer s.Logs.Close()
	defer s.Store.Close()
	if src := s.EvidenceSources(); len(src) != 1 || src[0].Counts.Lines != int64(len(lines)) || src[0].Counts.Known != int64(len(lines)) {
		t.Errorf("counted %+v, want %d lines, all known", src, len(lines))
	}
	bad := 0
	for _, name := range names {
		if got := told(t, s, name); len(got) != stagesOf || len(slices.Compact(slices.Sorted(slices.Values(got)))) != stagesOf {
			if bad++; bad < 5 {
				t.Errorf("%s: %q, want each of %d stages once", name, got, stagesOf)
			}
		}
	}
}

// follow reads a log for 150 ms, or the last time until it has enough, 5 minutes at most. Unless it is the last time, it ends as
// a kill does: a batch that is under way is in the store or not, and what was only in memory is gone.
func follow(s *registrytest.Site, path string, enough func() bool, last bool) {
	if enough() {
		return // no batch would come that could tell
	}
	d := 150 * time.Millisecond
	if last {
		d = 5 * time.Minute
	}
	run, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var mu sync.Mutex
	dead := false
	f := &evidence.File{Path: path, FromStart: true, Poll: 5 * time.Millisecond, Settle: time.Second}
	go func() {
		<-run.Done()
		mu.Lock()
		defer mu.Unlock()
		dead = !last
	}()
	f.Run(run, s.EvidencePosition(path), func(b evidence.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if dead {
			return errKilled
		}
		err := s.Observe(context.Background(), b)
		if enough() {
			cancel()
		}
		return err
	})
}

func macOf(i int) string { return fmt.Sprintf("52:54:00:01:%02x:%02x", i>>8, i&255) }

func lineOf(stage, i int) string {
	mac, ip := macOf(i), fmt.Sprintf("10.1.%d.%d", i>>8, i&255)
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
	file := []string{"undionly.kpxe", "boot.ipxe", "vmlinuz", "initrd.img", "ks.cfg", "install.img"}[stage-4]
	return "dnsmasq-tftp[1]: sent /srv/tftp/" + file + " to " + ip
}

// TestEvidenceFailedCommit: a batch whose commit fails has not happened, and may come again.
func TestEvidenceFailedCommit(t *testing.T) {
	s := logSite(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	b := batch(s, "/var/log/syslog", append(lease("10.0.0.5", mac), "in.tftpd[7]: RRQ from 10.0.0.5 filename pxelinux.0")...)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Observe(gone, b); !errors.Is(err, context.Canceled) {
		t.Fatalf("Observe = %v, want canceled", err)
	}
	if s.EvidencePosition("/var/log/syslog") != nil || len(told(t, s, "n1")) != 0 {
		t.Error("a batch that was not committed left traces")
	}
	if err := s.Observe(ctx, b); err != nil {
		t.Fatal(err)
	}
	letPass(t, s, 4*time.Second)
	if got := told(t, s, "n1"); len(got) != 5 {
		t.Errorf("events %q, want five", got)
	}
	if src := s.EvidenceSources(); src[0].Counts.Lines != 5 {
		t.Errorf("counts %+v, want five lines", src[0].Counts)
	}
}
