// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"provost/proto"
)

const (
	// segmentSize is where a segment ends. A reader holds one in memory.
	segmentSize = 1 << 20
	// maxRead is the most that is read of one segment. Only a file that others wrote to is longer.
	maxRead = 8 * segmentSize
	// maxGap is the longest run of lost records that is believed. A line that jumps further is damaged.
	maxGap = 1 << 14
	// maxHole is the same between two segments: a lost segment had some 7000 records at most, so this is over a hundred.
	maxHole = 1 << 20
)

// Record is one line of a journal. A damaged one comes as a KindNote that says so.
type Record struct {
	Seq   uint64
	Raw   json.RawMessage // the event's JSON as it was written
	Event proto.Event
}

// CorruptionErr is damage to a journal's file.
type CorruptionErr struct {
	File   string
	Offset int64 // in bytes, of the damaged line
	Err    error
}

func (e *CorruptionErr) Error() string {
	return fmt.Sprintf("journal damaged in %s at byte %d: %v", e.File, e.Offset, e.Err)
}

// Unwrap gives what is wrong with the line.
func (e *CorruptionErr) Unwrap() error { return e.Err }

type segment struct {
	path  string
	first uint64
	size  int64
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d.log", first) }

// segments lists a journal's segments in order. Files with other names are none of them.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing journal: %w", err)
	}
	var segs []segment
	for _, e := range entries { // sorted by their names, which have the number with zeros in front
		stem, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok || len(stem) != 20 || !e.Type().IsRegular() {
			continue
		}
		first, err := strconv.ParseUint(stem, 10, 64)
		if err != nil || first == 0 {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing journal: %w", err)
		}
		segs = append(segs, segment{filepath.Join(dir, e.Name()), first, info.Size()})
	}
	return segs, nil
}

// cursor walks the lines of a journal and knows which sequence number is due. It decides in one place, for readers and
// writers alike, which number a damaged line had.
type cursor struct {
	next uint64           // due
	bad  []*CorruptionErr // damaged lines since the last good one; at most maxBad are kept, lost counts all
	lost uint64
	near proto.Event // the last good event: a note in place of a lost one has its time
	id   string
	// damage, if set, is called once for each damaged line.
	damage func(*CorruptionErr)
}

const maxBad = 16

// header takes a segment's first line.
func (c *cursor) header(file string, line []byte) error {
	h, err := decodeHeader(line)
	switch {
	case err != nil:
	case c.id == "":
		c.id = h.Journal
		return nil
	case h.Journal != c.id:
		err = fmt.Errorf("segment of journal %s", h.Journal)
	default:
		return nil
	}
	if c.damage != nil {
		c.damage(&CorruptionErr{file, 0, err})
	}
	return err
}

// line takes one line and gives the records that are certain now: notes for lost ones before it, and its own.
func (c *cursor) line(file string, off int64, line []byte, emit func(Record) bool) bool {
	raw, e, err := decodeEvent(line)
	if err == nil && (e.Seq < c.next || e.Seq-c.next > maxGap) {
		err = fmt.Errorf("record %d where %d is due", e.Seq, c.next)
	}
	if err != nil {
		ce := &CorruptionErr{file, off, err}
		c.lost++
		if len(c.bad) < maxBad {
			c.bad = append(c.bad, ce)
		}
		if c.damage != nil {
			c.damage(ce)
		}
		return true
	}
	if c.near.Boot == "" {
		c.near = e
	}
	if !c.fill(e.Seq, emit) {
		return false
	}
	c.near, c.next = e, e.Seq+1
	return emit(Record{e.Seq, raw, e})
}

// fill emits a note for each record from the one due up to the one before to.
func (c *cursor) fill(to uint64, emit func(Record) bool) bool {
	for ; c.next < to; c.next++ {
		msg := fmt.Sprintf("record %d of this journal is lost", c.next)
		if len(c.bad) > 0 {
			msg += ": " + c.bad[0].Error()
			c.bad = c.bad[1:]
		}
		e := proto.Event{Kind: proto.KindNote, Install: c.near.Install, Journal: c.id, Seq: c.next, Time: c.near.Time, Boot: c.near.Boot,
			OffsetMS: c.near.OffsetMS, Warning: true, Message: proto.Clip(msg, proto.MaxMessage)}
		raw, err := json.Marshal(&e)
		if err != nil {
			return false // an event of plain strings can be encoded
		}
		if !emit(Record{e.Seq, raw, e}) {
			return false
		}
	}
	c.bad, c.lost = nil, 0
	return true
}

// end is called where no line follows: each damaged line there was one record.
func (c *cursor) end(emit func(Record) bool) bool { return c.fill(c.next+min(c.lost, maxGap), emit) }

// due is the number that the next record to be appended gets.
func (c *cursor) due() uint64 { return c.next + min(c.lost, maxGap) }

// wrote follows a record that a writer appended with the number that was due.
func (c *cursor) wrote(e proto.Event) {
	c.near, c.next, c.bad, c.lost = e, e.Seq+1, nil, 0
}

// lines feeds the complete lines of b, which stands at off in the file, and gives the offset after the last of them.
func (c *cursor) lines(file string, off int64, b []byte, emit func(Record) bool) (end int64, more bool) {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return off, true
		}
		if off == 0 {
			c.header(file, b[:i]) // reported by c.damage; the file's name says what the header would
		} else if !c.line(file, off, b[:i], emit) {
			return off, false
		}
		off += int64(i) + 1
		b = b[i+1:]
	}
}

// readAll reads a segment from off on, at most maxRead bytes. With sync the file is on disk before its bytes count.
func readAll(path string, off int64, sync bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading journal: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, off, maxRead))
	if err != nil {
		return nil, fmt.Errorf("reading journal: %w", err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("syncing journal: %w", err)
		}
	}
	return b, nil
}

// walk emits the records of the journal in dir from sequence number from on.
func walk(dir, id string, from uint64, sync bool, damage func(*CorruptionErr), emit func(Record) bool) error {
	segs, err := segments(dir)
	if err != nil {
		return err
	}
	from = max(from, 1)
	start := 0
	for i, s := range segs {
		if s.first <= from {
			start = i
		}
	}
	segs = segs[start:]
	if len(segs) == 0 {
		return nil
	}
	want := func(r Record) bool { return r.Seq < from || emit(r) }
	c := cursor{next: segs[0].first, id: id, damage: damage}
	if from < c.next && c.next-from <= maxHole {
		c.next = from
	}
	for _, s := range segs {
		b, err := readAll(s.path, 0, sync)
		if err != nil {
			return err
		}
		if c.near.Boot == "" {
			c.near = firstEvent(b)
		}
		switch {
		case s.first <= c.next:
		case s.first-c.next <= maxHole:
			if !c.fill(s.first, want) {
				return nil
			}
		default:
			return &CorruptionErr{s.path, 0, fmt.Errorf("segment begins at record %d, but %d is due", s.first, c.next)}
		}
		if _, more := c.lines(s.path, 0, b, want); !more {
			return nil
		}
	}
	c.end(want)
	return nil
}

// firstEvent gives the first good event of a segment, for the time of notes that stand before it.
func firstEvent(b []byte) proto.Event {
	for n := 0; n < 100; n++ {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		if _, e, err := decodeEvent(b[:i]); err == nil && e.Boot != "" {
			return e
		}
		b = b[i+1:]
	}
	return proto.Event{}
}

// Scan gives the records of the journal directory dir as they are: it takes no lock, repairs nothing and writes nothing,
// so it may look at any disk that is mounted read-only. A damaged record comes as a note in its place.
func Scan(dir string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := walk(dir, "", 1, false, nil, func(r Record) bool { return yield(r, nil) }); err != nil {
			yield(Record{}, err)
		}
	}
}

// readSome gives at most maxEvents records and maxBytes bytes of them, but at least one if there is one.
func readSome(dir, id string, from uint64, maxEvents, maxBytes int) ([]Record, error) {
	var out []Record
	size := 0
	err := walk(dir, id, from, true, nil, func(r Record) bool {
		size += len(r.Raw)
		if len(out) > 0 && (len(out) >= maxEvents || size > maxBytes) {
			return false
		}
		out = append(out, r)
		return true
	})
	return out, err
}
