// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"provost/agent/internal/report"
)

// Config is a crowd. All fields but those that say so are required.
type Config struct {
	URLs    []string // of the collector
	CA      string   // its pin, as report takes it
	JoinKey string   // of the site
	Dir     string   // for the agents' state directories; in memory, or their fsyncs compete with the collector's
	Prefix  string   // the nodes are PREFIX00001 and so on, see Name
	Before  int      // nodes of that prefix that are not this crowd's: its first is the one after them; may be 0
	Agents  int
	Steps   int               // of an install, which has 14 + 2 × Steps events
	Logs    int               // of an install, at most Steps
	Lines   int               // of a log, 64 bytes each
	Over    time.Duration     // that the events of one install are spread over
	Ramp    time.Duration     // that the installs' begins are spread over
	Say     func(line string) // what the agents say; may be nil
	Fault   func(line string) // the first breaches of the collector's word, as they come; may be nil
	Timing  report.Timing     // the agents' pace; the zero value is the real one
}

// Check says what is wrong with the settings.
func (c *Config) Check() error {
	switch {
	case c.Before < 0 || c.Agents < 1 || c.Before+c.Agents > 1<<24:
		return errors.New("agents: 1 or more, with those before them 16777216 at most")
	case c.Steps < 1 || c.Steps > 500:
		return errors.New("steps: 1 to 500")
	case c.Logs < 0 || c.Logs > c.Steps:
		return errors.New("logs: 0 to the number of steps")
	case c.Lines < 1:
		return errors.New("lines: at least 1")
	case c.Over < time.Second:
		return errors.New("over: at least 1s")
	case c.Ramp <= 0:
		return errors.New("ramp: more than 0")
	}
	return nil
}

// Name is the name of a node by its index, from 0 on. All are of equal length.
func Name(prefix string, index int) string { return fmt.Sprintf("%s%05d", prefix, index+1) }

// Fleet is a crowd of agents.
type Fleet struct {
	cfg     Config
	journey *journey
	nodes   []*node

	mu     sync.Mutex
	window window
	faults []string
	failed int // faults, with those that are not kept
}

// window is what was measured since the last call of Window.
type window struct {
	since    time.Time
	requests []time.Duration // from the sending of a batch to its acknowledgement
	ages     []time.Duration // of events, from when they came about to their acknowledgement
}

// maxFaults are kept to be shown.
const maxFaults = 20

// New makes a crowd that does nothing yet.
func New(c Config) (*Fleet, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: c, journey: newJourney(c.Steps, c.Logs, c.Lines), window: window{since: time.Now()}}
	for i := c.Before; i < c.Before+c.Agents; i++ {
		f.nodes = append(f.nodes, &node{f: f, index: i, name: Name(c.Prefix, i), logs: map[string]int64{}})
	}
	return f, nil
}

// Run lets every agent live its life. It ends when all is delivered, or with the first error that keeps an agent from
// even trying.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	now := time.Now()
	f.mu.Lock()
	f.window.since = now
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range f.nodes {
		n.begin = now.Add(rand.N(f.cfg.Ramp))
		n.dir = report.Dir(filepath.Join(f.cfg.Dir, n.name))
		wg.Go(func() {
			if err := n.live(ctx); err != nil {
				cancel(fmt.Errorf("agent of %s: %w", n.name, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// Events is how many events all agents together will have.
func (f *Fleet) Events() int { return len(f.nodes) * f.journey.events() }

func (f *Fleet) acknowledged(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window.requests = append(f.window.requests, took)
}

func (f *Fleet) aged(age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window.ages = append(f.window.ages, age)
}

func (f *Fleet) say(line string) {
	if f.cfg.Say != nil {
		f.cfg.Say(line)
	}
}

// fault keeps what a collector must never do.
func (f *Fleet) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed++
	if len(f.faults) < maxFaults {
		line := fmt.Sprintf(format, args...)
		f.faults = append(f.faults, line)
		if f.cfg.Fault != nil {
			f.cfg.Fault(line)
		}
	}
}

// Faults are the collector's breaches of its word so far, at most 20 of them, and their number.
func (f *Fleet) Faults() ([]string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.faults), f.failed
}

// Window is what was measured in a stretch of time. Quantiles are in milliseconds, 0 where nothing was measured.
type Window struct {
	Seconds  float64 `json:"seconds"`
	Events   int     `json:"events"`   // acknowledged
	Requests int     `json:"requests"` // that delivered them
	Rate     float64 `json:"rate"`     // events a second
	P50      float64 `json:"p50_ms"`   // of a request, from its sending to the acknowledgement
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	AgeP50   float64 `json:"age_p50_ms"` // of an event, from when it came about to its acknowledgement
	AgeP99   float64 `json:"age_p99_ms"`
}

// Window gives what was measured since it was last called, or since the start.
func (f *Fleet) Window() Window {
	now := time.Now()
	f.mu.Lock()
	w := f.window
	f.window = window{since: now}
	f.mu.Unlock()
	slices.Sort(w.requests)
	slices.Sort(w.ages)
	s := now.Sub(w.since).Seconds()
	return Window{
		Seconds: s, Events: len(w.ages), Requests: len(w.requests), Rate: float64(len(w.ages)) / s,
		P50: quantile(w.requests, 0.5), P99: quantile(w.requests, 0.99), Max: quantile(w.requests, 1),
		AgeP50: quantile(w.ages, 0.5), AgeP99: quantile(w.ages, 0.99),
	}
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	d := sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
	return float64(d.Microseconds()) / 1000
}

// Acknowledged is what a collector has taken upon itself: the last record of each journal, as NODE/JOURNAL, and the
// bytes of each log, as NODE/LOG.
type Acknowledged struct {
	Journals map[string]uint64 `json:"journals"`
	Logs     map[string]int64  `json:"logs"`
}

// Acknowledged gives what was acknowledged up to now, at least.
func (f *Fleet) Acknowledged() Acknowledged {
	a := Acknowledged{map[string]uint64{}, map[string]int64{}}
	for _, n := range f.nodes {
		for _, b := range n.books() {
			a.Journals[n.name+"/"+b.id] = b.acked.Load()
		}
		n.mu.Lock()
		for name, size := range maps.All(n.logs) {
			a.Logs[n.name+"/"+name] = size
		}
		n.mu.Unlock()
	}
	return a
}

// Drain waits until everything that exists at this moment is acknowledged, and gives the time that it took.
func (f *Fleet) Drain(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	type backlog struct {
		b    *book
		last uint64
	}
	var waits []backlog
	for _, n := range f.nodes {
		for _, b := range n.books() {
			waits = append(waits, backlog{b, uint64(b.due(start))})
		}
	}
	for {
		waits = slices.DeleteFunc(waits, func(w backlog) bool { return w.b.acked.Load() >= w.last })
		if len(waits) == 0 {
			return time.Since(start), nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return time.Since(start), fmt.Errorf("waiting for %d journals: %w", len(waits), err)
		}
	}
}

// books are the node's journals so far.
func (n *node) books() []*book {
	var out []*book
	for _, b := range []*book{n.first.Load(), n.second.Load()} {
		if b != nil {
			out = append(out, b)
		}
	}
	return out
}
