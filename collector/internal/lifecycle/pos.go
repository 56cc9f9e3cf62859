// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"cmp"
	"encoding/json"
	"time"
	"unique"

	"provost/proto"
)

// Pos is the place of an event in an install: its computed time, with the event's identity behind it so that no two
// events share a place. The collector fixes the time when it commits an event, never earlier than that of the journal's
// record before it; hence records of one journal are in their sequence.
//
// A fold has some sixty of them, so they are small: the time is kept in microseconds since the year 1, 0 is none.
type Pos struct {
	us   int64
	seq  uint64
	from unique.Handle[origin]
}

// origin is where events come from.
type origin struct {
	source  proto.Source
	journal string
}

func posOf(e *proto.Event) Pos { return newPos(e.At, e.Seq, origin{e.Source, e.Journal}) }

func newPos(at time.Time, seq uint64, from origin) Pos {
	return Pos{us: at.UnixMicro() - yearOne, seq: seq, from: unique.Make(from)}
}

var yearOne = time.Time{}.UnixMicro()

// At is the place's time, in UTC.
func (p Pos) At() time.Time {
	if p.us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(p.us + yearOne).UTC()
}

// Source is who said what is there.
func (p Pos) Source() proto.Source { return p.origin().source }

func (p Pos) origin() origin {
	if p.from == (unique.Handle[origin]{}) {
		return origin{}
	}
	return p.from.Value()
}

// Compare orders places.
func (p Pos) Compare(q Pos) int {
	if c := cmp.Compare(p.us, q.us); c != 0 || p.from == q.from {
		return cmp.Or(c, cmp.Compare(p.seq, q.seq))
	}
	a, b := p.origin(), q.origin()
	return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.journal, b.journal), cmp.Compare(p.seq, q.seq))
}

func (p Pos) after(q Pos) bool { return p.Compare(q) > 0 }
func (p Pos) zero() bool       { return p.seq == 0 && p.us == 0 }

// closes reports whether an order or attempt at p ends what is at q. The records of one journal are in their sequence, and
// so is what one source of the collector's says; of two sources nobody knows which came first within a millisecond, and a
// failure that may have come last must not be lost.
func (p Pos) closes(q Pos) bool {
	if p.origin() == q.origin() {
		return p.after(q)
	}
	return p.us > q.us
}

// posJSON is a Pos in checkpoints.
type posJSON struct {
	At      time.Time    `json:"at"`
	Source  proto.Source `json:"source"`
	Journal string       `json:"journal,omitempty"`
	Seq     uint64       `json:"seq"`
}

// MarshalJSON writes it for a checkpoint.
func (p Pos) MarshalJSON() ([]byte, error) {
	o := p.origin()
	return json.Marshal(posJSON{p.At(), o.source, o.journal, p.seq})
}

// UnmarshalJSON reads it.
func (p *Pos) UnmarshalJSON(b []byte) error {
	var v posJSON
	err := json.Unmarshal(b, &v)
	*p = newPos(v.At, v.Seq, origin{v.Source, v.Journal})
	return err
}
