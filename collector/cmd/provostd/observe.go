// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"

	"provost/collector/internal/metrics"
	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
)

// A disk is nearly full below a twentieth of its size, or 1 GiB if that is less; the logs at four fifths of their quota.
const (
	tightPart  = 20
	tightBytes = 1 << 30
)

// currentWarnings are those of every list of nodes: what an operator should know before it bites.
func (s *Server) currentWarnings() []string {
	var w []string
	if err := s.store.Trouble(); err != nil {
		w = append(w, err.Error())
	}
	if free, all, err := store.Space(s.set.Dirs.Data); err != nil {
		w = append(w, err.Error())
	} else if tight(free, all) {
		w = append(w, fmt.Sprintf("the disk of %s is nearly full: %s of %s are free", s.set.Dirs.Data, size(free), size(all)))
	}
	switch u := s.logs.Usage(); {
	case u.Quota > 0 && u.Used >= u.Quota:
		w = append(w, fmt.Sprintf("the logs have used up their %s: no more are taken until old installs go; raise retention.log-quota", size(uint64(u.Quota))))
	case u.Quota > 0 && u.Used >= u.Quota/5*4:
		w = append(w, fmt.Sprintf("the logs have %s of their %s: at the end no more are taken; raise retention.log-quota", size(uint64(u.Used)), size(uint64(u.Quota))))
	}
	w = append(append(w, s.ownWarnings()...), s.read.foreign()...)
	if _, err := os.Stat(s.set.Overlay); err != nil {
		w = append(w, fmt.Sprintf("profiles with the initrd overlay cannot boot yet: %v; provost doctor says what to do", err))
	}
	return w
}

// ownWarnings are those of them that the doctor does not look at by itself.
func (s *Server) ownWarnings() []string {
	var w []string
	if s.store.Stats().Slow {
		w = append(w, fmt.Sprintf("the disk of %s is slow: commits of the last minute took longer than %s", s.set.Dirs.Data, store.SlowCommit))
	}
	if u := s.set.Unknown; u != registry.UnknownIgnore && u != registry.UnknownDiscover && !s.site.Has(u) {
		w = append(w, fmt.Sprintf("unknown-nodes: there is no profile %s: unknown machines boot from disk until there is one", u))
	} else if t := s.reg.UnknownTrouble(); t != "" {
		w = append(w, t)
	}
	for _, p := range s.site.problems() {
		w = append(w, "left out: "+p)
	}
	if s.plain == nil {
		for _, name := range s.site.Names() {
			if p, ok := s.site.Info(name); ok && p.Boot == profile.BootProvost {
				w = append(w, fmt.Sprintf("boot-listen is off, and profile %s wants its nodes booted from here: set boot-listen, or boot: external in the profile", name))
			}
		}
	}
	for _, aside := range store.Damaged(s.databasePath()) {
		w = append(w, fmt.Sprintf("a damaged database was put aside: look at %s, then move it away", aside))
	}
	return append(w, s.read.dropped()...)
}

func tight(free, all uint64) bool { return free < min(all/tightPart, tightBytes) }

// size shows bytes in the largest unit that they fill, with one decimal where it counts.
func size(n uint64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	decimals := 0
	if i > 0 && v < 100 {
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + " " + units[i]
}

// writeMetrics writes the figures of the process and its disk.
func (s *Server) writeMetrics(w io.Writer) {
	m := metrics.New(w)
	m.Labelled("provost_build_info", "gauge", "Always 1; the label has the version.", "version", []metrics.Sample{{Label: versionText(), Value: 1}})
	m.Gauge("provost_start_time_seconds", "When the collector started, since 1970.", float64(s.started.UnixMilli())/1000)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	m.Gauge("provost_memory_bytes", "Memory that the Go runtime got from the system.", float64(mem.Sys))
	m.Gauge("provost_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	if free, all, err := store.Space(s.set.Dirs.Data); err == nil {
		m.Gauge("provost_disk_free_bytes", "Free bytes on the disk of the data directory.", float64(free))
		m.Gauge("provost_disk_bytes", "Size of that disk.", float64(all))
	}
	s.read.writeMetrics(m)
	m.Gauge("provost_profile_problems", "Things wrong with profiles that were left out.", float64(len(s.site.problems())))
	m.Gauge("provost_warnings", "Warnings in the header of every status.", float64(len(s.currentWarnings())))
}

// withProfiling adds the profiles of the Go runtime to a handler, for the unix socket only: GET /debug/pprof/{name}, where
// cpu takes ?seconds= (1 to 60), as go tool pprof reads them.
func withProfiling(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET /debug/pprof/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		w.Header().Set("Content-Type", "application/octet-stream")
		if name == "cpu" {
			seconds, err := strconv.Atoi(r.URL.Query().Get("seconds"))
			if err != nil || seconds < 1 || seconds > 60 {
				seconds = 10
			}
			if err := pprof.StartCPUProfile(w); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-r.Context().Done():
			}
			pprof.StopCPUProfile()
			return
		}
		p := pprof.Lookup(name)
		if p == nil {
			http.Error(w, "there is no profile "+strconv.Quote(filepath.Base(name)), http.StatusNotFound)
			return
		}
		p.WriteTo(w, 0) // the client may have gone
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 13 && r.URL.Path[:13] == "/debug/pprof/" {
			mux.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
