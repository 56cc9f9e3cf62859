// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/doctor"
	"provost/proto"
)

// doctor looks at everything that this collector works with.
func (s *Server) doctor(ctx context.Context, p api.Profiles) []proto.Check {
	return doctor.Check(ctx, doctor.Site{
		Data: s.set.Dirs.Data, Images: s.set.Dirs.Images, Overlay: s.set.Overlay, Profiles: p, Warnings: s.currentWarnings, Database: s.store.Err,
		Logs: func() (used, quota int64) { u := s.logs.Usage(); return u.Used, u.Quota },
		TLS:  s.ca.TLSConfig(), Now: time.Now(),
		Listeners: []doctor.Listener{{Name: "agents and operators", Addr: s.tls.Addr()}, {Name: "boot scripts", Addr: s.plain.Addr()},
			{Name: "socket", Addr: s.socket.Addr()}},
	})
}
