// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/evidence"
)

// observe gives a log to an Observer line by line, then lets everything settle.
func observe(t *testing.T, path string) []evidence.Observation {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := evidence.NewObserver(evidence.NewMapper(everybody{}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, j := parser(), evidence.NewJoiner()
	var out []evidence.Observation
	for line := range strings.Lines(string(b)) {
		f, v := p.Parse([]byte(line))
		if v != evidence.Known {
			continue
		}
		if f, ok := j.Add(f); ok {
			out = append(out, o.Add(path, f, reference)...)
		}
	}
	return append(out, o.Due(reference.Add(time.Minute))...)
}

// TestObserveCorpus gives real logs to an Observer. Every observation names a node and says something. In three of the logs a
// client took the offer of a server that was none of those that wrote them; no other server is taken for a rogue.
func TestObserveCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d logs, %v", len(files), err)
	}
	rogues := map[string]string{"dnsmasq-plain.log": "unknown", "isc-dhcpd-all.log": "10.78.0.99", "kea-debug.log": "unknown"}
	stages, problems := 0, 0
	for _, path := range files {
		for _, b := range observe(t, path) {
			switch {
			case b.Who.Name == "" || b.Source == "":
				t.Errorf("%s: %+v names nobody", path, b)
			case b.Problem == evidence.Rogue:
				name := filepath.Base(path)
				if want := rogues[name]; b.Rogue != want {
					t.Errorf("%s: %s is taken for a rogue, want %q", path, b.Rogue, want)
				}
				delete(rogues, name)
			case b.Problem != "":
				problems++
				if s := b.Sentence(""); s == "" || strings.Contains(s, "a file ") && b.Fact.File != "" {
					t.Errorf("%s: %+v says %q", path, b, s)
				}
			case !b.Stage.Stage():
				t.Errorf("%s: %+v is no stage", path, b)
			default:
				stages++
			}
		}
	}
	if len(rogues) > 0 {
		t.Errorf("not found: %v", rogues)
	}
	if stages < 100 || problems < 10 {
		t.Errorf("%d stages, %d problems", stages, problems)
	}
}

// TestObserverSettles: of a request and the error that denies it only the error is left, in whatever pieces they come.
func TestObserverSettles(t *testing.T) {
	const log = "testdata/logs/tftpd-hpa-errors.log"
	reached := map[string]bool{}
	for _, b := range observe(t, log) {
		if b.Problem == "" {
			reached[b.Detail] = true
		}
	}
	for _, b := range observe(t, log) {
		if (b.Problem == evidence.NotFound || b.Problem == evidence.Forbidden) && reached[b.Detail] {
			t.Errorf("%s was sent, and is missing: %+v", b.Detail, b)
		}
	}
}
