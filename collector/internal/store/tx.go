// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// MaxKey and MaxValue are the longest key and value, in bytes.
const (
	MaxKey   = 1024
	MaxValue = 64 << 20
)

// Reader reads one snapshot of the store, and dies with its transaction. What it returns are copies.
type Reader struct{ tx *bolt.Tx }

// Get gives the value of a key, nil if there is none.
func (r *Reader) Get(b Bucket, key string) []byte {
	v := r.tx.Bucket([]byte(b)).Get([]byte(key))
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// Range calls fn with the pairs from ≤ key < to in order, until fn returns false. An empty to has no end.
func (r *Reader) Range(b Bucket, from, to string, fn func(key string, value []byte) bool) {
	c := r.tx.Bucket([]byte(b)).Cursor()
	for k, v := c.Seek([]byte(from)); k != nil && (to == "" || string(k) < to); k, v = c.Next() {
		if !fn(string(k), append(make([]byte, 0, len(v)), v...)) {
			return
		}
	}
}

// Keys calls fn with the keys from ≤ key in order, until fn returns false.
func (r *Reader) Keys(b Bucket, from string, fn func(key string) bool) {
	c := r.tx.Bucket([]byte(b)).Cursor()
	for k, _ := c.Seek([]byte(from)); k != nil && fn(string(k)); k, _ = c.Next() {
	}
}

// Event gives the event of a revision, nil if there is none.
func (r *Reader) Event(revision uint64) []byte {
	e, err := readRuns(r.tx).seek(revision)
	if err != nil || e.n == 0 || e.first > revision {
		return nil
	}
	i := int(revision - e.first)
	return e.copyTo(nil, i, i+1)[0].Value
}

// events are those of a group, in the order of its calls.
type events struct {
	before  uint64 // the last revision on the disk
	entries []Entry
}

func (e *events) last() uint64 { return e.before + uint64(len(e.entries)) }

// Tx is one call's view of the store and what it writes. What it writes is seen by itself at once, by the calls after
// it when its function returned nil, and by readers after the commit. It dies when its function returns.
type Tx struct {
	Reader
	over map[Bucket]map[string][]byte // nil value: deleted
	log  *events                      // of the group; those from mark on are this call's
	mark int
	err  error // of a Put that no commit could take

	trimTo  uint64 // events up to here are to be deleted, at most trimMax of them
	trimMax int
	trimmed *int
	cut     cut
	first   uint64 // the oldest event after the trim; 0 without one
}

// Get gives the value of a key, nil if there is none.
func (t *Tx) Get(b Bucket, key string) []byte {
	if v, ok := t.over[b][key]; ok {
		return bytes.Clone(v)
	}
	return t.Reader.Get(b, key)
}

// Put sets a key. The value is not copied and must not be changed afterwards. A key or value that is empty or too long
// makes the whole call fail.
func (t *Tx) Put(b Bucket, key string, value []byte) {
	if key == "" || len(key) > MaxKey || len(value) == 0 || len(value) > MaxValue {
		t.err = fmt.Errorf("writing %s: key of %d bytes, value of %d bytes", b, len(key), len(value))
		return
	}
	t.set(b, key, value)
}

// Delete removes a key, if it is there.
func (t *Tx) Delete(b Bucket, key string) { t.set(b, key, nil) }

func (t *Tx) set(b Bucket, key string, value []byte) {
	if t.over == nil {
		t.over = map[Bucket]map[string][]byte{}
	}
	m := t.over[b]
	if m == nil {
		m = map[string][]byte{}
		t.over[b] = m
	}
	m[key] = value
}

// Append adds an event to the log and gives its revision, which stands if the commit does. An event is text: it begins with
// no control character.
func (t *Tx) Append(value []byte) uint64 {
	if len(value) == 0 || len(value) > MaxValue || value[0] < firstByte {
		t.err = fmt.Errorf("appending an event of %d bytes that begins with %.1q", len(value), value[:min(1, len(value))])
	}
	t.log.entries = append(t.log.entries, Entry{t.NextRevision(), value})
	return t.log.last()
}

// NextRevision is what the next Append will give.
func (t *Tx) NextRevision() uint64 { return t.log.last() + 1 }

// Event gives the event of a revision, nil if there is none. What the calls before in the group appended is there.
func (t *Tx) Event(revision uint64) []byte {
	if revision > t.log.before && revision <= t.log.last() {
		return bytes.Clone(t.log.entries[revision-t.log.before-1].Value)
	}
	return t.Reader.Event(revision)
}

// Range calls fn with the pairs from ≤ key < to in order, this call's own writes included, until fn returns false. fn
// must not write to the bucket.
func (t *Tx) Range(b Bucket, from, to string, fn func(key string, value []byte) bool) {
	over := t.over[b]
	own := make([]string, 0, len(over))
	for k := range over {
		if k >= from && (to == "" || k < to) {
			own = append(own, k)
		}
	}
	slices.Sort(own)
	stopped := false
	emit := func(k string) bool { // the next of our own keys
		if v := over[k]; v != nil && !fn(k, bytes.Clone(v)) {
			stopped = true
		}
		return !stopped
	}
	t.Reader.Range(b, from, to, func(k string, v []byte) bool {
		for len(own) > 0 && own[0] < k {
			if !emit(own[0]) {
				return false
			}
			own = own[1:]
		}
		if len(own) > 0 && own[0] == k {
			own = own[1:]
			return emit(k)
		}
		stopped = !fn(k, v)
		return !stopped
	})
	for !stopped && len(own) > 0 && emit(own[0]) {
		own = own[1:]
	}
}

// PrefixEnd is the first key after all that start with prefix: Range(b, p, PrefixEnd(p), …).
func PrefixEnd(prefix string) string {
	p := []byte(prefix)
	for len(p) > 0 {
		if p[len(p)-1] < 0xff {
			p[len(p)-1]++
			return string(p)
		}
		p = p[:len(p)-1]
	}
	return strings.Repeat("\xff", MaxKey)
}

// Err is what makes the call fail although its function returns nil: a Put or Append that no commit could take.
func (t *Tx) Err() error { return t.err }

// wrote reports whether there is anything to commit.
func (t *Tx) wrote() bool { return len(t.over) > 0 || len(t.log.entries) > t.mark || t.trimTo > 0 }

// merge moves what was written into bbolt's transaction, but for the events, which a group writes together. An error of it is
// the disk's, or a bug. Keys come in order: bbolt splits a page only when it writes it, and puts a key into the list of a page's
// keys by moving those behind it, so that a hundred thousand new ones in any order would take minutes.
func (t *Tx) merge(point func(string)) error {
	var keys []string
	for b, m := range t.over {
		bucket := t.tx.Bucket([]byte(b))
		keys = slices.AppendSeq(keys[:0], maps.Keys(m))
		slices.Sort(keys)
		for _, k := range keys {
			var err error
			if v := m[k]; v == nil {
				err = bucket.Delete([]byte(k))
			} else {
				err = bucket.Put([]byte(k), v)
			}
			if err != nil {
				return fmt.Errorf("bucket %s, key %q: %w", b, k, err)
			}
		}
	}
	return t.cutOff(point)
}

// size is how many bytes were written.
func (t *Tx) size() (n int) {
	for _, m := range t.over {
		for k, v := range m {
			n += len(k) + len(v)
		}
	}
	for _, e := range t.log.entries[t.mark:] {
		n += len(e.Value)
	}
	return n
}
