// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
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
	return bytes.Clone(r.tx.Bucket(eventsBucket).Get(eventKey(revision)))
}

// Tx is one call's view of the store and what it writes. What it writes is seen by itself at once, by the calls after
// it when its function returned nil, and by readers after the commit. It dies when its function returns.
type Tx struct {
	Reader
	over   map[Bucket]map[string][]byte // nil value: deleted
	base   uint64                       // revision of the last event before this call
	events [][]byte
	err    error // of a Put that no commit could take

	trimTo  uint64 // events up to here are to be deleted, at most trimMax of them
	trimMax int
	trimmed int
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

// Append adds an event to the log and gives its revision, which stands if the commit does.
func (t *Tx) Append(value []byte) uint64 {
	if len(value) == 0 || len(value) > MaxValue {
		t.err = fmt.Errorf("appending an event of %d bytes", len(value))
	}
	t.events = append(t.events, value)
	return t.base + uint64(len(t.events))
}

// NextRevision is what the next Append will give.
func (t *Tx) NextRevision() uint64 { return t.base + uint64(len(t.events)) + 1 }

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
	sort.Strings(own)
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
func (t *Tx) wrote() bool { return len(t.over) > 0 || len(t.events) > 0 || t.trimTo > 0 }

// merge moves what was written into bbolt's transaction. An error of it is the disk's, or a bug.
func (t *Tx) merge() error {
	for _, b := range buckets {
		m := t.over[b]
		if len(m) == 0 {
			continue
		}
		bucket := t.tx.Bucket([]byte(b))
		for k, v := range m {
			var err error
			if v == nil {
				err = bucket.Delete([]byte(k))
			} else {
				err = bucket.Put([]byte(k), v)
			}
			if err != nil {
				return fmt.Errorf("bucket %s, key %q: %w", b, k, err)
			}
		}
	}
	if err := t.cutOff(); err != nil {
		return err
	}
	if len(t.events) == 0 {
		return nil
	}
	bucket := t.tx.Bucket(eventsBucket)
	bucket.FillPercent = fill
	keys := make([]byte, 8*len(t.events))
	for i, v := range t.events {
		k := keys[8*i : 8*i+8 : 8*i+8]
		binary.BigEndian.PutUint64(k, t.base+uint64(i)+1)
		if err := bucket.Put(k, v); err != nil {
			return fmt.Errorf("event %d: %w", t.base+uint64(i)+1, err)
		}
	}
	return nil
}
