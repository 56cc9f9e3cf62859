// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/auth"
	"provost/collector/internal/boot"
	"provost/collector/internal/deadline"
	"provost/collector/internal/doctor"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
)

// shutdownTime is for requests that are under way when the collector is told to stop; what comes after takes less than
// 4 s, so that 10 s are enough for all.
const shutdownTime = 6 * time.Second

// agentIdle is how long a connection over TLS may do nothing: one costs some 30 KB, and agents close theirs after 15 s, too.
const agentIdle = 15 * time.Second

// Server is the collector with all its parts.
type Server struct {
	set     *settings
	log     *slog.Logger
	started time.Time

	store *store.Store
	logs  *store.Logs
	ca    *auth.CA
	site  *site
	reg   *registry.Registry
	api   *api.API
	read  *logs // of the frontend
	looks doctor.Looks

	tls, plain, socket net.Listener
	servers            []server
}

// server answers on a listener.
type server struct {
	*http.Server
	serve func() error
}

// Record is where a running collector can be reached: DATA/listeners.json, for programs that start one.
type Record struct {
	Listen     string `json:"listen"`                // HOST:PORT
	BootListen string `json:"boot_listen,omitempty"` // HOST:PORT
	Socket     string `json:"socket"`
	Pin        string `json:"pin"`
	PID        int    `json:"pid"`
}

// Open makes or opens everything and listens, but answers nobody yet: that is Run's. Close ends it in any case.
func Open(ctx context.Context, set *settings, log *slog.Logger) (*Server, error) {
	s := &Server{set: set, log: log, started: time.Now()}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	data := s.set.Dirs.Data
	if err := os.MkdirAll(data, 0o750); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	var err error
	if s.store, err = store.Open(s.databasePath(), store.Options{Log: s.log}); err != nil {
		return err
	}
	s.log.Info("database is open", "path", s.databasePath(), "after", time.Since(s.started).Round(time.Millisecond))
	if s.logs, err = store.OpenLogs(filepath.Join(data, "logs")); err != nil {
		return err
	}
	if s.ca, err = auth.OpenCA(filepath.Join(data, "ca"), s.set.hosts()...); err != nil {
		return err
	}
	joinKey, err := s.openJoinKey()
	if err != nil {
		return err
	}
	if s.site, err = openSite(s.set.Dirs.Config, func() []string { return s.read.sorts() }); err != nil {
		return configError{err}
	}
	keep, quota, err := s.set.Retention.parse()
	if err != nil {
		return configError{err}
	}
	s.logs.SetQuota(quota)
	s.removeOldBackups()
	if err := s.listen(); err != nil {
		return err
	}
	tlsPort := port(s.tls)
	s.reg, err = registry.Open(ctx, registry.Options{Store: s.store, Unknown: s.set.Unknown, Logs: s.logs, Profiles: s.site, Retention: keep, Signer: s.ca, JoinKey: joinKey,
		Pin: s.ca.Pin, URLs: s.set.agentURLs(tlsPort), Version: versionText(), AnyAddress: !s.set.CheckAddress, Log: s.log,
		Evidence: s.set.Evidence.registry(func(src registry.SourceInfo, stage string) string { return s.read.shows(src, stage) })})
	if err != nil {
		return err
	}
	s.log.Info("nodes are read", "after", time.Since(s.started).Round(time.Millisecond))
	if s.read, err = openLogs(ctx, &s.set.Evidence, s.reg, s.log); err != nil {
		return err
	}
	s.api, err = api.New(api.Config{Registry: s.reg, Profiles: s.site, CA: s.ca.PEM, Version: versionText(), Warnings: s.currentWarnings, Blind: s.read.blind, Doctor: s.doctor, Reach: s.reach,
		Ready: s.store.Trouble, Log: s.log, Admin: api.Admin{Reload: s.site.reload, Backup: s.backup, Metrics: s.writeMetrics, ConfigDir: s.set.Dirs.Config,
			Problems: s.site.problems}})
	if err != nil {
		return err
	}
	agentPort, err := strconv.Atoi(tlsPort)
	if err != nil {
		return fmt.Errorf("reading the listener's port: %w", err)
	}
	s.serve(boot.NewServer(s.reg, boot.Options{ImagesDir: s.set.Dirs.Images, Overlay: s.set.Overlay, AgentPort: agentPort, Log: s.log}))
	return s.writeRecord()
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String()) // a listener's address has one
	return p
}

// serve makes the servers.
func (s *Server) serve(bootHandler http.Handler) {
	errorLog := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug) // of clients that break off, mostly
	common := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 32 << 10, ErrorLog: errorLog}
	}
	secure := common(s.api)
	secure.IdleTimeout = agentIdle
	secure.TLSConfig = s.ca.TLSConfig()
	newHandshakes().bound(secure.TLSConfig)
	local := common(withProfiling(s.api))
	local.ConnContext = api.ConnContext
	s.servers = []server{{secure, func() error { return secure.ServeTLS(s.tls, "", "") }}, {local, func() error { return local.Serve(s.socket) }}}
	if s.plain != nil {
		plain := common(bootHandler) // it bounds its own writes
		s.servers = append(s.servers, server{plain, func() error { return plain.Serve(s.plain) }})
	}
}

// Run answers until ctx ends or a listener breaks, then lets requests that are under way finish.
func (s *Server) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.reg.Run(background) })
	wg.Go(func() { s.reg.RunRetention(background) })
	wg.Go(func() { s.refreshCA(background) })
	wg.Go(func() { s.read.run(background) })
	wg.Go(func() { runChecklist(background, filepath.Join(s.set.Dirs.Data, "checklist.log"), s.reg, s.log) })
	wg.Go(func() { deadline.Run(background, s.reg, s.log) })
	wg.Go(func() { s.site.reloadOnHangup(background, s.log) })
	failed := make(chan error, len(s.servers))
	for _, h := range s.servers {
		wg.Go(func() {
			if err := h.serve(); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case err = <-failed:
		err = fmt.Errorf("listening: %w", err)
	}
	begin := time.Now()
	s.shutdown()
	answered := time.Since(begin)
	stop()
	wg.Wait()
	s.log.Info("stopped", "took", time.Since(begin).Round(time.Millisecond), "requests", answered.Round(time.Millisecond))
	return err
}

func (s *Server) shutdown() {
	s.api.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range s.servers {
		wg.Go(func() {
			if h.Shutdown(ctx) != nil {
				h.Close()
			}
		})
	}
	wg.Wait()
}

// Close gives everything back. It may be called at any time, also after a failed Open.
func (s *Server) Close() error {
	var errs []error
	for _, l := range []net.Listener{s.tls, s.plain, s.socket} {
		if l != nil {
			l.Close() // mostly closed already
		}
	}
	s.read.close()
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) databasePath() string { return filepath.Join(s.set.Dirs.Data, "provost.db") }

func (s *Server) joinKeyPath() string { return filepath.Join(s.set.Dirs.Data, "join-key") }

// openJoinKey reads the site's join key, and makes it at the first start.
func (s *Server) openJoinKey() (string, error) {
	path := s.joinKeyPath()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := auth.NewToken(auth.UseJoin)
		return key, writeWhole(path, []byte(key+"\n"), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("reading the join key: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if use, err := auth.ParseToken(key); err != nil || use != auth.UseJoin {
		return "", configError{fmt.Errorf("%s holds no join key: bring it back, or remove it for a new one", path)}
	}
	return key, nil
}

// Record is where the collector can be reached now.
func (s *Server) Record() Record {
	r := Record{Listen: s.tls.Addr().String(), Socket: s.set.Socket, Pin: s.ca.Pin(), PID: os.Getpid()}
	if s.plain != nil {
		r.BootListen = s.plain.Addr().String()
	}
	return r
}

func (s *Server) writeRecord() error {
	b, err := json.MarshalIndent(s.Record(), "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the listeners: %w", err)
	}
	return writeWhole(filepath.Join(s.set.Dirs.Data, "listeners.json"), append(b, '\n'), 0o644)
}

// writeWhole replaces a file: after a power cut there is the old one or the new one.
func writeWhole(path string, b []byte, mode fs.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
