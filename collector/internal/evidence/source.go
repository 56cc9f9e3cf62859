// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Batch is what a source has read since the batch before.
type Batch struct {
	Source   string
	Facts    []Fact   // completed by a Joiner, in the order of the log
	Counts   Counts   // of the lines since the batch before
	Programs []string // whose lines were among those; sorted
	Position []byte   // where to go on after this batch: to be committed in one transaction with what came of Facts; nil keeps the last

	// Trouble is why the source cannot read at present; nil while it can. A change of it is delivered at once, also
	// without facts: a status that hides it would show silence as health.
	Trouble error
}

// Deliver commits a batch. An error ends the source: nothing after the batch before counts as read, so that starting
// again from the last committed position repeats it. Batch.Facts belongs to the receiver.
type Deliver func(Batch) error

// Source is a stream of log lines that goes on until its context ends.
type Source interface {
	Name() string
	// Run reads from a position that a Batch carried, or with nil from where the source starts, until ctx ends (then
	// it returns nil) or deliver fails. It may be run again afterwards.
	Run(ctx context.Context, position []byte, deliver Deliver) error
}

// The bounds of one batch, and of the time until lines that are no facts have their position committed.
const (
	maxBatchFacts = 2000
	maxBatchBytes = 4 << 20
	maxBatchAge   = 5 * time.Second
)

// intake turns lines into a batch.
type intake struct {
	name     string
	location *time.Location
	parser   *Parser
	joiner   *Joiner

	facts   []Fact
	seen    map[string]bool // programs whose lines were among those
	counts  Counts
	bytes   int
	since   time.Time // of the first line in this batch
	trouble error
	told    error // the trouble that the receiver knows of
}

func newIntake(name string, location *time.Location) *intake {
	return &intake{name: name, location: location, joiner: NewJoiner(), parser: NewParser(time.Now(), location)}
}

// clock sets the reference for stamps without a year.
func (in *intake) clock(now time.Time) { in.parser = NewParser(now, in.location) }

// line takes one line. from is who sent it, if it came over the network.
func (in *intake) line(b []byte, from netip.Addr) {
	f, v := in.parser.Parse(b)
	in.count(v, len(b))
	if f.Program != "" && !in.seen[f.Program] {
		if in.seen == nil {
			in.seen = map[string]bool{}
		}
		in.seen[f.Program] = true
	}
	if v != Known {
		return
	}
	if f.From = from; from.IsValid() {
		f.Time = in.parser.zoned(b, f.Time)
		if f.Sender == "" {
			f.Sender = from.String()
		}
	}
	f, ok := in.joiner.Add(f)
	if !ok {
		return
	}
	if f.Retracts {
		in.retract(f)
	}
	in.facts = append(in.facts, f)
}

// retract takes back the request that f denies, if it is in the same batch: then nobody learns of it.
func (in *intake) retract(f Fact) {
	for i := len(in.facts) - 1; i >= 0; i-- {
		if g := &in.facts[i]; g.Asked && g.Program == f.Program && g.IP == f.IP && g.File == f.File && g.Sender == f.Sender {
			in.facts = append(in.facts[:i], in.facts[i+1:]...)
			return
		}
		if len(in.facts)-i > maxOpen {
			return
		}
	}
}

func (in *intake) count(v Verdict, n int) {
	if in.counts.Lines == 0 {
		in.since = time.Now()
	}
	in.counts.Add(v)
	in.bytes += n + 1
}

func (in *intake) full() bool { return len(in.facts) >= maxBatchFacts || in.bytes >= maxBatchBytes }

// due reports whether what was taken in is to be delivered although more may come.
func (in *intake) due(now time.Time) bool {
	return in.full() || len(in.facts) > 0 || in.counts.Lines > 0 && now.Sub(in.since) >= maxBatchAge || !sameTrouble(in.trouble, in.told)
}

func sameTrouble(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

// hand delivers what was taken in.
func (in *intake) hand(position []byte, deliver Deliver) error {
	b := Batch{Source: in.name, Facts: in.facts, Counts: in.counts, Programs: slices.Sorted(maps.Keys(in.seen)), Position: position, Trouble: in.trouble}
	in.facts, in.seen, in.counts, in.bytes, in.told = nil, nil, Counts{}, 0, in.trouble
	return deliver(b)
}
