// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"provost/collector/internal/evidence"
	"provost/collector/internal/metrics"
	"provost/collector/internal/registry"
)

// evidenceSettings say which logs of this frontend are read.
type evidenceSettings struct {
	Files    []logFile `mapstructure:"files"`
	Journald bool      `mapstructure:"journald"`
	Syslog   struct {
		UDP string `mapstructure:"udp"` // HOST:PORT or :PORT; empty: not received
		TCP string `mapstructure:"tcp"`
		// From are the senders whose word on a file that could not be sent may end an install: addresses or prefixes.
		From []string `mapstructure:"from"`
	} `mapstructure:"syslog"`
	DHCPServers []string `mapstructure:"dhcp-servers"` // addresses of ours, beside this machine's; others are learnt
	TFTPRoots   []string `mapstructure:"tftp-roots"`   // where to look why a file could not be sent
	WebRoots    []string `mapstructure:"web-roots"`
}

// logFile is one file that is followed. Lines tell by themselves what they are; Kind says what to expect of the file.
type logFile struct {
	Path string `mapstructure:"path"`
	Kind string `mapstructure:"kind"`
}

// logKinds are the kinds of a logFile.
var logKinds = []string{"syslog", "access", "error", "dhcpd", "dnsmasq", "kea", "tftpd"}

// What is read of a log at the first start: its last part, since an install may be under way and since a lease says who
// asks for files. Lines from before an install's order never count for it, nor do old ones for an install that has ended.
const (
	firstBytes = 1 << 20
	firstTime  = 15 * time.Minute // of the journal
)

// The waits between two tries to follow a log: 1 s, doubled up to 30 s, each shortened by up to half at random. It is tried
// for ever: logs come back.
const (
	followFirst = time.Second
	followMost  = 30 * time.Second
)

// A batch that came by syslog cannot be asked for again: it is tried receiveTries times, a second apart, then counted as
// lost. Meanwhile senders by TCP wait, and the queue's end is 256 lines.
const receiveTries = 10

func (e *evidenceSettings) check() error {
	seen := map[string]bool{}
	for i, f := range e.Files {
		switch {
		case !filepath.IsAbs(f.Path):
			return fmt.Errorf("evidence.files, number %d: path %q: name a file from / on", i+1, f.Path)
		case seen[filepath.Clean(f.Path)]:
			return fmt.Errorf("evidence.files: %s stands twice", f.Path)
		case f.Kind != "" && !slices.Contains(logKinds, f.Kind):
			return fmt.Errorf("evidence.files: %s: kind %q: use one of %s", f.Path, f.Kind, strings.Join(logKinds, " "))
		}
		e.Files[i].Path = filepath.Clean(f.Path)
		seen[e.Files[i].Path] = true
	}
	for key, addr := range map[string]string{"udp": e.Syslog.UDP, "tcp": e.Syslog.TCP} {
		if addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("evidence.syslog.%s %q: use HOST:PORT or :PORT", key, addr)
		}
	}
	for _, a := range e.DHCPServers {
		if _, err := netip.ParseAddr(a); err != nil {
			return fmt.Errorf("evidence.dhcp-servers %q: use IP addresses", a)
		}
	}
	for _, a := range e.Syslog.From {
		if _, err := prefix(a); err != nil {
			return fmt.Errorf("evidence.syslog.from %q: use IP addresses, or prefixes like 10.0.0.0/24", a)
		}
	}
	for key, roots := range map[string][]string{"tftp-roots": e.TFTPRoots, "web-roots": e.WebRoots} {
		for _, r := range roots {
			if !filepath.IsAbs(r) {
				return fmt.Errorf("evidence.%s %q: name directories from / on", key, r)
			}
		}
	}
	return nil
}

// prefix reads an address or a prefix.
func prefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// ours are the DHCP servers that need not be learnt: this machine's addresses, and the ones that are set.
func (e *evidenceSettings) ours() []netip.Addr {
	var out []netip.Addr
	for _, a := range e.DHCPServers {
		out = append(out, netip.MustParseAddr(a).Unmap()) // check has read them
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return out // then they are learnt
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

func (e *evidenceSettings) registry(shows func(registry.SourceInfo, string) string) registry.Evidence {
	out := registry.Evidence{Ours: e.ours(), Shows: shows, Look: func(o *evidence.Observation) string { return o.Look(e.TFTPRoots, e.WebRoots) }}
	out.Self, _ = os.Hostname() // without one no line is known to be this machine's own
	for _, a := range e.Syslog.From {
		p, _ := prefix(a) // check has read them
		out.Listed = append(out.Listed, p)
	}
	return out
}

// logs follows every source of evidence.
type logs struct {
	reg      *registry.Registry
	log      *slog.Logger
	follow   []followed
	receiver *evidence.Receiver // nil: no syslog is received
	lost     atomic.Int64       // lines that came by syslog and could not be kept

	nodes nodeSyslog

	mu   sync.Mutex
	gone map[string]gone // logs of which lines may have been lost since the start
}

// gone is why, and what to do about it.
type gone struct{ why, hint string }

func (l *logs) lose(name string, g gone) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone[name] = g
}

// followed is one source that is read on from a position.
type followed struct {
	name, label, kind string
	source            func(first bool) evidence.Source
}

// openLogs opens the ports of syslog; files are opened when they are followed.
func openLogs(ctx context.Context, set *evidenceSettings, reg *registry.Registry, log *slog.Logger) (*logs, error) {
	l := &logs{reg: reg, log: log, gone: map[string]gone{}}
	for _, f := range set.Files {
		l.follow = append(l.follow, followed{f.Path, labelOf(f), f.Kind, func(first bool) evidence.Source {
			return &evidence.File{Path: f.Path, FromStart: !first, Back: firstBytes, Location: time.Local}
		}})
	}
	if set.Journald {
		l.follow = append(l.follow, followed{"journald", "journal", "", func(bool) evidence.Source { return &evidence.Journald{Back: firstTime} }})
	}
	if set.Syslog.UDP == "" && set.Syslog.TCP == "" {
		return l, nil
	}
	var err error
	if l.receiver, err = evidence.Listen(ctx, set.Syslog.UDP, set.Syslog.TCP); err != nil {
		return nil, err
	}
	l.receiver.Location, l.receiver.Raw = time.Local, l.nodes.add
	return l, nil
}

// labelOf is a log's short name: that of the web server's directory, else its own.
func labelOf(f logFile) string {
	base := strings.TrimSuffix(filepath.Base(f.Path), ".log")
	dir := filepath.Base(filepath.Dir(f.Path))
	if (f.Kind == "access" || f.Kind == "error") && dir != "log" && dir != "/" {
		return dir
	}
	return base
}

// close is for logs that were never run.
func (l *logs) close() {
	if l == nil || l.receiver == nil {
		return
	}
	for _, c := range []io.Closer{l.receiver.UDP, l.receiver.TCP} {
		if c != nil {
			c.Close() // mostly closed already
		}
	}
}

// run reads until ctx ends.
func (l *logs) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, f := range l.follow {
		wg.Go(func() { l.keepFollowing(ctx, f) })
	}
	if l.receiver != nil {
		wg.Go(func() { l.receiver.Run(ctx, nil, func(b evidence.Batch) error { l.receive(ctx, b); return nil }) })
	}
	wg.Go(func() { l.due(ctx) })
	wg.Wait()
}

// keepFollowing follows one source over everything that ends it.
func (l *logs) keepFollowing(ctx context.Context, f followed) {
	wait, first := followFirst, true
	told := ""
	deliver := func(b evidence.Batch) error {
		if err := l.reg.Observe(ctx, b); err != nil {
			return err
		}
		var lost *evidence.LostError
		if errors.As(b.Trouble, &lost) {
			l.lose(f.name, gone{"it was rotated away while provostd did not run", "keep rotated logs for longer than that: `rotate` in /etc/logrotate.d"})
		}
		text := ""
		if b.Trouble != nil {
			text = b.Trouble.Error()
		}
		switch {
		case text == told:
		case text != "":
			l.log.Warn("a log cannot be read: what it says of nodes is missing", "log", f.name, "error", text)
		default:
			l.log.Info("the log is read again", "log", f.name)
		}
		told = text
		if b.Trouble == nil {
			wait = followFirst
		}
		return nil
	}
	for {
		err := f.source(first).Run(ctx, l.reg.EvidencePosition(f.name), deliver)
		if ctx.Err() != nil || err == nil {
			return
		}
		var cut *evidence.TruncatedError
		if errors.As(err, &cut) {
			l.lose(f.name, gone{"it was cut in place", cut.Hint()})
			l.reg.ForgetPosition(f.name)
			first = false
			l.log.Warn("a log was cut in place: lines may be lost", "log", f.name, "error", err, "hint", cut.Hint())
		} else {
			l.log.Error("following a log; it is tried again", "log", f.name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, followMost)
	}
}

// receive keeps a batch that cannot be asked for again.
func (l *logs) receive(ctx context.Context, b evidence.Batch) {
	var err error
	for try := range receiveTries {
		if try > 0 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		// After the end of ctx what came before it is still kept: one last try.
		if err = l.reg.Observe(context.WithoutCancel(ctx), b); err == nil {
			return
		}
		if ctx.Err() != nil {
			break
		}
	}
	l.lost.Add(b.Counts.Lines)
	l.log.Error("lines that came by syslog are lost", "lines", b.Counts.Lines, "error", err)
}

// due says each second what log lines mean that had to wait for others.
func (l *logs) due(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			l.nodes.flush(l.reg, l.log, true)
			return
		case <-tick.C:
		}
		err := l.reg.ObserveDue(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			l.log.Error("what the logs say is not kept; trying again each second", "error", err)
		}
		failed = err != nil
		l.nodes.flush(l.reg, l.log, false)
	}
}

// blind are the short names of the logs that cannot be read now.
func (l *logs) blind() []string {
	var out []string
	for _, s := range l.reg.EvidenceSources() {
		i := slices.IndexFunc(l.follow, func(f followed) bool { return f.name == s.Name })
		if i >= 0 && s.Trouble != nil && !slices.Contains(out, l.follow[i].label) {
			out = append(out, l.follow[i].label)
		}
	}
	return out
}

// dropped says what came by syslog and was not taken.
func (l *logs) dropped() []string {
	var w []string
	if l.receiver != nil {
		if n := l.receiver.Dropped() + l.lost.Load() + l.nodes.dropped.Load(); n > 0 {
			w = append(w, fmt.Sprintf("%d lines that came by syslog were dropped since the start: there are too many; send DHCP's, TFTP's and the web server's only", n))
		}
		if n := l.receiver.Refused(); n > 0 {
			w = append(w, fmt.Sprintf("%d connections for syslog were refused since the start: too many are open", n))
		}
	}
	return w
}

// foreign names the DHCP servers that are not ours.
func (l *logs) foreign() (w []string) {
	for _, r := range l.reg.Rogues() {
		if r.Server != "unknown" {
			w = append(w, fmt.Sprintf("a DHCP server that is not ours answers nodes: %s, last %s: provost doctor", r.Server, r.Node))
		}
	}
	return w
}

func (l *logs) writeMetrics(m metrics.Writer) {
	var lines, known, unknown, broken, blind []metrics.Sample
	for _, s := range l.reg.EvidenceSources() {
		add := func(to *[]metrics.Sample, v int64) {
			*to = append(*to, metrics.Sample{Label: s.Name, Value: float64(v)})
		}
		add(&lines, s.Counts.Lines)
		add(&known, s.Counts.Known)
		add(&unknown, s.Counts.Unknown)
		add(&broken, s.Counts.Broken)
		if s.Trouble != nil {
			add(&blind, 1)
		} else {
			add(&blind, 0)
		}
	}
	m.Labelled("provost_evidence_lines_total", "counter", "Lines read of each log, ever.", "log", lines)
	m.Labelled("provost_evidence_known_total", "counter", "Lines that said something of a node's boot.", "log", known)
	m.Labelled("provost_evidence_unknown_total", "counter", "Lines that were not understood.", "log", unknown)
	m.Labelled("provost_evidence_broken_total", "counter", "Lines that were torn, too long, or made no sense.", "log", broken)
	m.Labelled("provost_evidence_blind", "gauge", "1 for a log that cannot be read now.", "log", blind)
	dropped := int64(0)
	if l.receiver != nil {
		dropped = l.receiver.Dropped() + l.lost.Load() + l.nodes.dropped.Load()
	}
	m.Counter("provost_evidence_dropped_total", "Lines that came by syslog and found no place, since the start.", float64(dropped))
	m.Gauge("provost_dhcp_rogues", "DHCP servers that are not ours and that nodes took addresses from, since the start.", float64(len(l.reg.Rogues())))
}
