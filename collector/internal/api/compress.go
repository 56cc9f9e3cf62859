// SPDX-License-Identifier: Apache-2.0

package api

import (
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"provost/collector/internal/auth"
)

// minCompressed is the length of a document below which compressing it costs more than it saves.
const minCompressed = 4 << 10

// compressors are kept: a new one takes more memory than most answers. The zero value is ready.
type compressors struct {
	zstd, gzip sync.Pool
}

type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

func (c *compressors) get(encoding string, w io.Writer) (compressor, error) {
	pool := &c.gzip
	if encoding == "zstd" {
		pool = &c.zstd
	}
	if z, ok := pool.Get().(compressor); ok {
		z.Reset(w)
		return z, nil
	}
	if encoding == "zstd" {
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	}
	return gzip.NewWriterLevel(w, gzip.BestSpeed)
}

func (c *compressors) put(encoding string, z compressor) {
	if encoding == "zstd" {
		c.zstd.Put(z)
		return
	}
	c.gzip.Put(z)
}

// encodingFor is how the answer to a request may be sent: zstd, gzip, or empty for as it is. Documents that somebody reads
// over a network are compressed; the feed, logs and backups are not, and what stays on this machine is not either.
func encodingFor(route Route, r *http.Request) string {
	if route.Method != http.MethodGet || route.Scope != auth.ScopeRead || route.Pattern == "/v1/events" {
		return ""
	}
	if _, local := r.Context().Value(peerKey{}).(peer); local {
		return ""
	}
	best := ""
	for _, header := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(header, ",") {
			name, params, _ := strings.Cut(part, ";")
			if q := strings.ReplaceAll(params, " ", ""); q == "q=0" || strings.HasPrefix(q, "q=0.0") && strings.Trim(q, "q=0.") == "" {
				continue
			}
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "zstd":
				return "zstd"
			case "gzip":
				best = "gzip"
			}
		}
	}
	return best
}

// compressed is a ResponseWriter that compresses a JSON document once it is long enough, as it comes.
type compressed struct {
	http.ResponseWriter
	pool     *compressors
	encoding string
	status   int
	short    []byte // until it is long enough
	z        compressor
	plain    bool
}

func (w *compressed) WriteHeader(status int) {
	w.status = status
	if w.Header().Get("Content-Type") != "application/json" || status != http.StatusOK {
		w.plain = true
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.Header().Add("Vary", "Accept-Encoding")
}

func (w *compressed) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.plain:
		return w.ResponseWriter.Write(b)
	case w.z != nil:
		return w.z.Write(b)
	case len(w.short)+len(b) < minCompressed:
		w.short = append(w.short, b...)
		return len(b), nil
	}
	z, err := w.pool.get(w.encoding, w.ResponseWriter)
	if err != nil {
		return 0, err
	}
	w.z = z
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Encoding", w.encoding)
	w.ResponseWriter.WriteHeader(w.status)
	if _, err := z.Write(w.short); err != nil {
		return 0, err
	}
	return z.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *compressed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// finish sends the rest of an answer that is whole. One that was broken off must not be finished: its reader would take it
// for whole.
func (w *compressed) finish() {
	switch {
	case w.z != nil:
		if w.z.Close() == nil {
			w.pool.put(w.encoding, w.z)
		}
	case w.status != 0 && !w.plain:
		w.ResponseWriter.WriteHeader(w.status)
		w.ResponseWriter.Write(w.short)
	}
}
