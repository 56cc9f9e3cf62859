// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"io"
	"slices"

	"provost/collector/internal/metrics"
	"provost/collector/internal/store"
	"provost/proto"
)

// WriteMetrics writes the figures of nodes, store and logs in Prometheus' text format. Nodes are counted, never named.
func (r *Registry) WriteMetrics(w io.Writer) {
	m := metrics.New(w)
	r.pub.RLock()
	nodes := make([]*node, 0, len(r.pub.nodes))
	for _, n := range r.pub.nodes {
		nodes = append(nodes, n)
	}
	installs, resting := len(r.pub.installs), 0
	for _, in := range r.pub.installs {
		if in.isResting() {
			resting++
		}
	}
	r.pub.RUnlock()
	byStatus := map[proto.Status]int{}
	waiting, due := 0, 0
	for _, n := range nodes {
		v := r.nodeView(n)
		byStatus[v.Status]++
		if v.Waiting {
			waiting++
		}
		if v.Deadline != nil {
			due++
		}
	}
	var samples []metrics.Sample
	for _, s := range proto.Statuses {
		samples = append(samples, metrics.Sample{Label: string(s), Value: float64(byStatus[s])})
	}
	m.Labelled("provost_nodes", "gauge", "Nodes by status.", "status", samples)
	m.Gauge("provost_nodes_waiting", "Nodes that wait for an order.", float64(waiting))
	m.Gauge("provost_nodes_deadline", "Nodes whose next stage has a deadline.", float64(due))
	m.Gauge("provost_installs", "Installs that are kept.", float64(installs))
	m.Gauge("provost_installs_resting", "Installs of which only the status is in memory.", float64(resting))
	m.Counter("provost_expired_total", "Deadlines that passed, since the start.", float64(r.expired.Load()))
	m.Counter("provost_events_refused_total", "Records of agents that were passed over one by one, since the start.", float64(r.refusedEvents.Load()))
	m.Counter("provost_unknown_machines_dropped_total", "Machines that nobody asked for, not listed or forgotten since there were too many, since the start.", float64(r.forgotten.Load()))

	s := r.st.Stats()
	m.Histogram("provost_store_commit_seconds", "Time that commits took.", slices.Clone(store.CommitBounds[:]), s.Commits[:], s.Seconds)
	m.Counter("provost_store_commits_failed_total", "Commits that the disk did not take.", float64(s.Failed))
	m.Counter("provost_store_events_total", "Events committed.", float64(s.Events))
	m.Gauge("provost_store_queue", "Requests that wait for a commit.", float64(s.Waiting))
	m.Gauge("provost_store_queue_limit", "Requests that may wait for a commit.", float64(s.Queue))
	m.Gauge("provost_store_revision", "Revision of the newest event.", float64(r.st.Revision()))
	m.Gauge("provost_store_first_revision", "Revision of the oldest event in the feed.", float64(r.st.First()))
	if r.opt.Logs == nil {
		return
	}
	u := r.opt.Logs.Usage()
	m.Gauge("provost_logs_bytes", "Bytes of all logs.", float64(u.Used))
	m.Gauge("provost_logs_quota_bytes", "Bytes that all logs may have; 0 is without a limit.", float64(u.Quota))
	m.Counter("provost_logs_received_bytes_total", "Bytes of logs taken.", float64(u.Taken))
	m.Counter("provost_logs_refused_total", "Chunks of logs refused for the quota.", float64(u.Full))
}
