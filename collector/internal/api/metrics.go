// SPDX-License-Identifier: Apache-2.0

package api

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"provost/collector/internal/metrics"
)

// counters are what the API itself counts.
type counters struct {
	watchers atomic.Int64
	dropped  atomic.Uint64 // readers of the feed
	mu       sync.Mutex
	refused  map[string]uint64 // by code: these are few, and the collector's own
}

func (n *counters) refuse(code string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refused == nil {
		n.refused = map[string]uint64{}
	}
	n.refused[code]++
}

func (a *API) writeMetrics(w io.Writer) {
	m := metrics.New(w)
	m.Gauge("provost_feed_watchers", "Readers of the event stream.", float64(a.counters.watchers.Load()))
	m.Counter("provost_feed_dropped_total", "Readers of the event stream that were dropped: they took nothing, or were too far behind.", float64(a.counters.dropped.Load()))
	m.Gauge("provost_request_body_bytes", "Bytes of request bodies in memory.", float64(a.inFlight.Load()))
	a.counters.mu.Lock()
	var refused []metrics.Sample
	for code, n := range a.counters.refused {
		refused = append(refused, metrics.Sample{Label: code, Value: float64(n)})
	}
	a.counters.mu.Unlock()
	slices.SortFunc(refused, func(a, b metrics.Sample) int {
		if a.Label < b.Label {
			return -1
		}
		return 1
	})
	m.Labelled("provost_requests_refused_total", "counter", "Refused requests by code.", "code", refused)
	a.cfg.Registry.WriteMetrics(w)
}
