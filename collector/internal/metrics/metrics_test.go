// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/metrics"
)

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	m := metrics.New(&b)
	m.Counter("provost_events_total", "Events.", 12345678)
	m.Gauge("provost_queue", "A \\ and a\nline.", 0.5)
	m.Labelled("provost_nodes", "gauge", "Nodes.", "status", []metrics.Sample{{"failed", 2}, {"a\"b\\c\n", 1}})
	m.Histogram("provost_commit_seconds", "Commits.", []float64{0.001, 10}, []uint64{1, 2, 3}, 4.25)
	want := `# HELP provost_events_total Events.
# TYPE provost_events_total counter
provost_events_total 1.2345678e+07
# HELP provost_queue A \\ and a\nline.
# TYPE provost_queue gauge
provost_queue 0.5
# HELP provost_nodes Nodes.
# TYPE provost_nodes gauge
provost_nodes{status="failed"} 2
provost_nodes{status="a\"b\\c\n"} 1
# HELP provost_commit_seconds Commits.
# TYPE provost_commit_seconds histogram
provost_commit_seconds_bucket{le="0.001"} 1
provost_commit_seconds_bucket{le="10"} 3
provost_commit_seconds_bucket{le="+Inf"} 6
provost_commit_seconds_sum 4.25
provost_commit_seconds_count 6
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
