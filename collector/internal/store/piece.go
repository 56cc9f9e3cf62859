// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// The log's bucket has events in two forms, in any mixture:
//
//	revision → the event's bytes
//	revision of the first → a piece (since schema 4): many events with consecutive revisions
//
// A piece is its form, 1 byte with pieceForm; how many events it has, 4 bytes; for each where it ends, 4 bytes, counted from
// the begin of the first; the events. Numbers are big endian. No event begins with a byte below firstByte, so that the two
// cannot be mistaken for each other.
const (
	pieceForm = 1
	firstByte = ' '
	pieceHead = 1 + 4

	// Events of less than pieceMin bytes in one commit lie singly: several in one page of 4 KiB, which a piece would not
	// fill.
	pieceMin = 32 << 10
	// pieceSize is the most bytes of a piece of more than one event. The engine writes two pieces with one call.
	pieceSize = 64<<10 - 64
	// The last events of a commit lie singly, too: the engine keeps up to four keys in the last leaf, and writes that anew in
	// the next commit. So these are a page, not four pieces.
	pieceTail = 4
)

// run is the events of one key.
type run struct {
	first uint64 // revision
	n     int
	ends  []byte // of a piece; nil: it is a single event
	data  []byte
}

func (r run) last() uint64 { return r.first + uint64(r.n) - 1 }

// end is where the i-th event ends, 0 for i = -1.
func (r run) end(i int) int {
	if i < 0 {
		return 0
	}
	if r.ends == nil {
		return len(r.data)
	}
	return int(binary.BigEndian.Uint32(r.ends[4*i:]))
}

// copyTo appends copies of the events from the i-th to before the j-th.
func (r run) copyTo(out []Entry, i, j int) []Entry {
	begin := r.end(i - 1)
	b := bytes.Clone(r.data[begin:r.end(j-1)])
	for ; i < j; i++ {
		from, to := r.end(i-1)-begin, r.end(i)-begin
		out = append(out, Entry{r.first + uint64(i), b[from:to:to]})
	}
	return out
}

// readRun reads what a key holds, and shares its bytes.
func readRun(k, v []byte) (r run, err error) {
	if len(k) != 8 || len(v) == 0 {
		return r, fmt.Errorf("event with a key of %d bytes and a value of %d", len(k), len(v))
	}
	r = run{first: binary.BigEndian.Uint64(k), n: 1, data: v}
	if v[0] >= firstByte {
		return r, nil
	}
	if v[0] != pieceForm || len(v) < pieceHead {
		return r, fmt.Errorf("event %d has %d bytes of the unknown form %d", r.first, len(v), v[0])
	}
	n := uint64(binary.BigEndian.Uint32(v[1:]))
	if n == 0 || n > uint64(len(v)-pieceHead)/4 {
		return r, fmt.Errorf("event %d begins a piece of %d bytes that says that it has %d events", r.first, len(v), n)
	}
	r.n, r.ends, r.data = int(n), v[pieceHead:pieceHead+4*n], v[pieceHead+4*n:]
	at := 0
	for i := range r.n {
		end := r.end(i)
		if end <= at || end > len(r.data) {
			return r, fmt.Errorf("event %d ends at %d of the %d bytes of its piece", r.first+uint64(i), end, len(r.data))
		}
		at = end
	}
	if at != len(r.data) {
		return r, fmt.Errorf("event %d ends a piece %d bytes before its end", r.last(), len(r.data)-at)
	}
	return r, nil
}

// runs reads the log's bucket, in order.
type runs struct{ c *bolt.Cursor }

func readRuns(tx *bolt.Tx) runs { return runs{tx.Bucket(eventsBucket).Cursor()} }

// seek gives the run that has an event or, if there is none, begins behind it. One of no events is the end.
func (l runs) seek(revision uint64) (run, error) {
	k, v := l.c.Seek(eventKey(revision))
	if k != nil && binary.BigEndian.Uint64(k) == revision {
		return readRun(k, v)
	}
	past := k == nil
	if past {
		k, v = l.c.Last() // the engine says nothing about Prev behind the end
	} else {
		k, v = l.c.Prev()
	}
	if k != nil {
		if r, err := readRun(k, v); err != nil || r.last() >= revision {
			return r, err
		}
	}
	if past {
		return run{}, nil
	}
	if k == nil {
		return l.first()
	}
	return l.next()
}

func (l runs) first() (run, error) { return l.step(l.c.First()) }
func (l runs) last() (run, error)  { return l.step(l.c.Last()) }
func (l runs) next() (run, error)  { return l.step(l.c.Next()) }

func (l runs) step(k, v []byte) (run, error) {
	if k == nil {
		return run{}, nil
	}
	return readRun(k, v)
}

// putEvents writes events behind the last one, as pieces where they are many. The bytes of buf are used until the commit and
// are given back, perhaps longer; they belong to the transaction as long.
func putEvents(b *bolt.Bucket, entries []Entry, buf []byte) ([]byte, error) {
	b.FillPercent = fill
	size := 0
	for _, e := range entries {
		size += len(e.Value)
	}
	buf = buf[:0]
	if size >= pieceMin {
		if need := size + len(entries)*4 + (size/pieceSize+1)*2*pieceHead; cap(buf) < need {
			buf = make([]byte, 0, need)
		}
		for len(entries) > pieceTail {
			n, bytes := 0, pieceHead
			for ; n < len(entries)-pieceTail; n++ {
				if bytes += 4 + len(entries[n].Value); n > 0 && bytes > pieceSize {
					break
				}
			}
			value := entries[0].Value
			if n > 1 {
				at := len(buf)
				buf = appendPiece(buf, entries[:n])
				value = buf[at:len(buf):len(buf)]
			}
			if err := b.Put(eventKey(entries[0].Revision), value); err != nil {
				return buf, fmt.Errorf("event %d: %w", entries[0].Revision, err)
			}
			entries = entries[n:]
		}
	}
	for _, e := range entries {
		if err := b.Put(eventKey(e.Revision), e.Value); err != nil {
			return buf, fmt.Errorf("event %d: %w", e.Revision, err)
		}
	}
	return buf, nil
}

func appendPiece(b []byte, entries []Entry) []byte {
	b = append(b, pieceForm)
	b = binary.BigEndian.AppendUint32(b, uint32(len(entries)))
	end := 0
	for _, e := range entries {
		end += len(e.Value)
		b = binary.BigEndian.AppendUint32(b, uint32(end))
	}
	for _, e := range entries {
		b = append(b, e.Value...)
	}
	return b
}
