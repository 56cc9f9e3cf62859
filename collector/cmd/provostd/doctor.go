// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"strings"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/doctor"
	"provost/collector/internal/registry"
	"provost/collector/internal/servers"
	"provost/proto"
)

// doctor looks at everything that this collector works with.
func (s *Server) doctor(ctx context.Context, p api.Profiles) []proto.Check {
	tftp := servers.Installed(servers.TFTP()) // dnsmasq may be there for something else: the first one counts
	return doctor.Check(ctx, doctor.Site{
		Data: s.set.Dirs.Data, Images: s.set.Dirs.Images, Overlay: s.set.Overlay, Profiles: p, Warnings: s.ownWarnings, Database: s.store.Trouble,
		Logs:         func() (used, quota int64) { u := s.logs.Usage(); return u.Used, u.Quota },
		Certificates: s.ca.Certificates(), Now: time.Now(),
		Evidence: s.read.checks(), Syslog: s.set.Evidence.Syslog.TCP, Rogues: s.read.rogues(),
		Listeners: s.listeners(),
		Clock:     doctor.KernelClock, Signs: doctor.ClockSigns(), Addresses: net.InterfaceAddrs, Advertise: s.set.Advertise,
		Trees: []doctor.Tree{{Name: "TFTP", Roots: s.set.Evidence.TFTPRoots, Readers: tftp[:min(len(tftp), 1)]},
			{Name: "web", Roots: s.set.Evidence.WebRoots, Readers: servers.Installed(servers.Web())}},
		Sockets: doctor.Sockets, TFTPOptions: servers.OptionFiles(), Looks: &s.looks,
	})
}

func (s *Server) listeners() []doctor.Listener {
	out := []doctor.Listener{{Name: "agents and operators", Addr: s.tls.Addr()}, {Name: "socket", Addr: s.socket.Addr()}}
	if s.plain != nil {
		out = append(out, doctor.Listener{Name: "boot scripts", Addr: s.plain.Addr()})
	}
	return out
}

// checks gives every source of evidence to the doctor, also one of which nothing was read yet.
func (l *logs) checks() []doctor.Log {
	known := map[string]registry.SourceInfo{}
	for _, s := range l.reg.EvidenceSources() {
		known[s.Name] = s
	}
	var out []doctor.Log
	add := func(d doctor.Log, name string) {
		s := known[name]
		d.Trouble, d.Lines, d.Known, d.Unknown, d.Broken = s.Trouble, s.Counts.Lines, s.Counts.Known, s.Counts.Unknown, s.Counts.Broken
		out = append(out, d)
	}
	for _, f := range l.follow {
		d := doctor.Log{Name: f.label, Syslog: f.kind == "syslog"}
		if strings.HasPrefix(f.name, "/") {
			d.Path = f.name
		}
		l.mu.Lock()
		if gone, ok := l.gone[f.name]; ok {
			d.Lost, d.Hint = gone.why, gone.hint
		}
		l.mu.Unlock()
		add(d, f.name)
	}
	if l.receiver != nil {
		add(doctor.Log{Name: "syslog by network"}, l.receiver.Name())
	}
	return out
}

func (l *logs) rogues() []doctor.Rogue {
	var out []doctor.Rogue
	for _, r := range l.reg.Rogues() {
		out = append(out, doctor.Rogue{Server: r.Server, Node: r.Node, Count: r.Count})
	}
	return out
}
