// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
)

// Bucket is one ordered map of the store.
type Bucket string

// The buckets. Values are JSON unless said otherwise; who writes them gives them their meaning.
const (
	Nodes    Bucket = "nodes"    // node's name → what an operator said of it, its boot action, its current install
	Installs Bucket = "installs" // install's id → what was ordered
	Plans    Bucket = "plans"    // install's id → what its plan is made of
	Files    Bucket = "files"    // SHA-256 in hex → a script, or what is shared by installs: recipes, steps
	States   Bucket = "states"   // install's id → checkpoint of what its events say, up to a revision
	Tokens   Bucket = "tokens"   // SHA-256 of a token → whose it is
	Settings Bucket = "settings" // single values of the collector itself
	History  Bucket = "history"  // who ordered what of a node (since schema 2)
	Packed   Bucket = "packed"   // install's id → its events up to a revision, compressed (since schema 2)
)

var buckets = []Bucket{Nodes, Installs, Plans, Files, States, Tokens, Settings, History, Packed}

var (
	eventsBucket = []byte("events") // 8-byte big-endian revision → one event, or a piece: see run
	metaBucket   = []byte("meta")
	schemaKey    = []byte("schema") // decimal
	idKey        = []byte("id")     // random text (since schema 4)
)

// Schema is the layout that this package writes. A greater one in a file is refused, a smaller one is brought up to it.
const Schema = 5

const (
	// fill is how full bbolt leaves a page of events: keys only ever grow, so there is nothing to leave room for.
	fill = 0.95
	// mmapSize is address space, not memory: while the file is smaller than this, a reader never blocks the writer.
	mmapSize = 8 << 30
	// MaxView is how long a read transaction may live: while one is open, no page is used again and the file grows.
	MaxView = 250 * time.Millisecond
	// closeMost is how long Close waits for the engine, which waits for readers.
	closeMost = 30 * time.Second
)

// Options of Open. The zero value is good for use.
type Options struct {
	Timeout time.Duration // for the file's lock; 2 s if 0
	Queue   int           // callers of Update that may wait; 8192 if 0
	Group   int           // calls that one commit may hold; 2048 if 0
	Log     *slog.Logger  // slog.Default if nil
	// Retry is the first pause before a database that failed is opened again; it doubles up to 30 s. 1 s if 0.
	Retry time.Duration
	// Point is told of every named place that the writer passes (points.go), for tests that end the process there. Nil is nobody.
	Point func(name string)
	// LongView is told of every read transaction that lived longer than MaxView. Nil logs it.
	LongView func(lived time.Duration)
}

// Hooks are called by the writer, one at a time.
type Hooks struct {
	// Committed comes after a commit, with its events, before any caller of Update is released and any watcher sees them.
	Committed func(entries []Entry)
	// Lost comes when a commit did not happen after functions of its group had returned nil: whatever they changed in
	// memory is to be as it was at the last Committed. That the disk has, also when the store goes on after a failure.
	Lost func()
}

// Entry is one event of the log. Value belongs to everybody: it is never changed.
type Entry struct {
	Revision uint64
	Value    []byte
}

// Store is an open database.
type Store struct {
	db    atomic.Pointer[bolt.DB] // another one after a failure
	path  string
	id    string
	opt   Options
	hooks Hooks

	mu      sync.Mutex // guards what follows
	groups  []*group   // waiting, oldest first; only the last one takes more calls
	waiting int
	usual   int // calls of the last group, and some more
	closing bool

	// The writer's own.
	tx      uint64 // bbolt's number of the last commit
	full    bool   // the last commit did not happen for want of room
	entries int    // events of the last group, and some more
	buf     []byte // for pieces

	wake    chan struct{} // holds one token while groups is not empty
	quit    chan struct{}
	stopped chan struct{} // closed when the writer is done

	broken  atomic.Pointer[error] // why nothing can be trusted to reach the disk until it is opened again; nil while it can
	refused atomic.Pointer[error] // why the last commit did not happen; nil after one that did
	feed    feed
	stats   stats
	copied  copied
}

// Revision is that of the last committed event, 0 before the first.
func (s *Store) Revision() uint64 { return s.feed.revision() }

// Path is the database's file.
func (s *Store) Path() string { return s.path }

// ID is the database's own: random, and another one in a database that was restored, whose revisions are not those of before.
func (s *Store) ID() string { return s.id }

// SetHooks must be called before the first Update.
func (s *Store) SetHooks(h Hooks) { s.hooks = h }

// Err says why the store takes nothing, nil while it does. It tries to open the database again by itself.
func (s *Store) Err() error {
	if e := s.broken.Load(); e != nil {
		return *e
	}
	return nil
}

// Trouble says why the last commit did not happen, or why none will: nil after one that did, and after the database was opened
// again. A disk that was full takes the next commit when there is room again.
func (s *Store) Trouble() error {
	if err := s.Err(); err != nil {
		return err
	}
	if e := s.refused.Load(); e != nil {
		return *e
	}
	return nil
}

// View runs fn on a snapshot. It must be short (MaxView): copy out and return, and do no network I/O. Nothing that the
// Reader gives is shared with the database. ErrStorage while it is opened again after a failure.
func (s *Store) View(fn func(r *Reader) error) error {
	var start time.Time
	err := s.db.Load().View(func(tx *bolt.Tx) error { start = time.Now(); return fn(&Reader{tx: tx}) })
	if errors.Is(err, boltErrors.ErrDatabaseNotOpen) && s.Err() != nil {
		return s.Err()
	}
	if lived := time.Since(start); err == nil && lived > MaxView {
		if s.opt.LongView != nil {
			s.opt.LongView(lived)
		} else {
			s.opt.Log.Warn("read transaction lived too long", "lived", lived, "limit", MaxView)
		}
	}
	return err
}

// Scan calls fn with every pair of a bucket, in order of keys, outside of any transaction: each piece of at most 512 is
// read on its own, so that what is written meanwhile may be seen or not.
func (s *Store) Scan(b Bucket, fn func(key string, value []byte) error) error {
	return s.ScanParts(b, func(v []byte) []byte { return v }, fn)
}

// ScanParts is Scan with a part of each value alone: the rest is not even read from the disk.
func (s *Store) ScanParts(b Bucket, part func(value []byte) []byte, fn func(key string, value []byte) error) error {
	type pair struct {
		key   string
		value []byte
	}
	from := ""
	for {
		pairs := make([]pair, 0, 512)
		size := 0
		err := s.View(func(r *Reader) error {
			c := r.tx.Bucket([]byte(b)).Cursor()
			for k, v := c.Seek([]byte(from)); k != nil && len(pairs) < cap(pairs) && size < 4<<20; k, v = c.Next() {
				v = part(v)
				pairs = append(pairs, pair{string(k), append(make([]byte, 0, len(v)), v...)})
				size += len(v)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading bucket %s: %w", b, err)
		}
		if len(pairs) == 0 {
			return nil
		}
		for _, p := range pairs {
			if err := fn(p.key, p.value); err != nil {
				return err
			}
		}
		from = pairs[len(pairs)-1].key + "\x00"
	}
}

// Events gives at most max events with a revision greater than after, in order.
func (s *Store) Events(after uint64, max int) ([]Entry, error) {
	var out []Entry
	max = int(min(uint64(max), s.Revision()-min(after, s.Revision()))) // none that a failed commit may have left
	err := s.View(func(r *Reader) error {
		l := readRuns(r.tx)
		size := 0
		e, err := l.seek(after + 1)
		for ; err == nil && e.n > 0 && len(out) < max && size < 4<<20; e, err = l.next() {
			i := 0
			if after >= e.first {
				i = int(after - e.first + 1)
			}
			out = e.copyTo(out, i, min(e.n, i+max-len(out)))
			size += len(e.data)
		}
		return err
	})
	return out, err
}

// Close waits for the calls that wait, ends the writer and closes the file. Update gives ErrClosed from then on.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.stopped
		return nil
	}
	s.closing = true
	s.mu.Unlock()
	close(s.quit)
	<-s.stopped
	s.feed.close()
	err := s.closeDB()
	os.Remove(holderPath(s.path))
	if err != nil {
		return fmt.Errorf("closing %s: %w", s.path, err)
	}
	return nil
}

// closeDB leaves a list of the free pages, so that the next open need not look at every page for them. While the store is in
// use the file has none: a commit costs less then, and an open after a crash more. If there is none, nothing is lost.
func (s *Store) closeDB() error {
	db := s.db.Load()
	if s.Trouble() == nil {
		db.NoFreelistSync = false
		if err := s.transaction(func(*bolt.Tx) error { return nil }); err != nil {
			s.opt.Log.Warn("writing the list of free pages: the next start takes longer", "path", s.path, "error", err)
		}
	}
	return closeWithin(db, closeMost)
}

// Size is how many bytes of the file belong to the database, used or not; a copy has at most as many.
func (s *Store) Size() (n int64, err error) {
	err = s.View(func(r *Reader) error { n = r.tx.Size(); return nil })
	return n, err
}

func eventKey(revision uint64) []byte { return binary.BigEndian.AppendUint64(nil, revision) }

// revisions reads the least and the greatest revision on disk, 1 and 0 before the first event, and the number of the last
// commit.
func revisions(db *bolt.DB) (first, last, commit uint64, err error) {
	first = 1
	err = db.View(func(tx *bolt.Tx) error {
		commit = uint64(tx.ID())
		l := readRuns(tx)
		r, err := l.first()
		if err != nil || r.n == 0 {
			return err
		}
		first = r.first
		if r, err = l.last(); err == nil {
			last = r.last()
		}
		return err
	})
	return first, last, commit, err
}
