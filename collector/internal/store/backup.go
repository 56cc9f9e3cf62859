// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	bolt "go.etcd.io/bbolt"
)

const (
	// backupLast is how many keys and events the last step of a backup may copy inside the writer, where all others wait:
	// a few milliseconds. backupRounds bounds the attempts to come down to it; what is left then is copied all the same.
	backupLast   = 512
	backupRounds = 16
)

// copied knows which keys were written since a backup began.
type copied struct {
	mu   sync.Mutex
	keys map[Bucket]map[string]bool // nil while no backup is made
}

func (c *copied) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys != nil {
		return fmt.Errorf("%w: another backup is being made", ErrBusy)
	}
	c.keys = map[Bucket]map[string]bool{}
	return nil
}

func (c *copied) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys = nil
}

func (c *copied) under() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys != nil
}

// note comes from the writer, before the commit: a key too many is copied once more and does no harm.
func (c *copied) note(tx *Tx) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		return
	}
	for b, m := range tx.over {
		if c.keys[b] == nil {
			c.keys[b] = map[string]bool{}
		}
		for k := range m {
			c.keys[b][k] = true
		}
	}
}

func (c *copied) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.keys {
		n += len(m)
	}
	return n
}

// place is one key of a bucket.
type place struct {
	bucket Bucket
	key    string
}

func (c *copied) take() (all []place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b, m := range c.keys {
		for k := range m {
			all = append(all, place{b, k})
		}
	}
	c.keys = map[Bucket]map[string]bool{}
	return all
}

// Backup writes the database, as it is at one revision, into a new file at path, while the store goes on. It gives that
// revision.
//
// It reads in short transactions: first everything in pieces, then, again and again, what was written meanwhile, and the
// last few keys in the writer itself, so that the copy is of one moment. The file appears under its name only when it is
// whole and on the disk; one that is there already is an error. Only one backup is made at a time (ErrBusy).
func (s *Store) Backup(ctx context.Context, path string) (revision uint64, err error) {
	if err := s.copied.begin(); err != nil {
		return 0, err
	}
	defer s.copied.end()
	err = makeFile(path, func(tmp string) error {
		dst, err := bolt.Open(tmp, 0o600, &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType, PageSize: 4096, NoFreelistSync: true})
		if err != nil {
			return err
		}
		revision, err = s.copyTo(ctx, dst)
		return errors.Join(err, dst.Sync(), dst.Close())
	})
	if err != nil {
		return 0, fmt.Errorf("making the backup %s: %w", path, err)
	}
	return revision, nil
}

func (s *Store) copyTo(ctx context.Context, dst *bolt.DB) (uint64, error) {
	if err := dst.Update(layout); err != nil {
		return 0, err
	}
	at, err := s.copyEvents(ctx, dst, s.First()-1)
	if err != nil {
		return 0, err
	}
	for _, b := range buckets {
		if err := s.copyBucket(ctx, dst, b); err != nil {
			return 0, err
		}
	}
	for range backupRounds {
		if at, err = s.copyEvents(ctx, dst, at); err != nil {
			return 0, err
		}
		if s.copied.count() <= backupLast && s.Revision()-at <= backupLast {
			break
		}
		if err := s.copyChanged(ctx, dst); err != nil {
			return 0, err
		}
	}
	return s.copyRest(ctx, dst, at)
}

// copyEvents copies the events after a revision, and gives how far it came: to the newest.
func (s *Store) copyEvents(ctx context.Context, dst *bolt.DB, after uint64) (uint64, error) {
	for ctx.Err() == nil {
		var values []value
		last := after
		err := s.View(func(r *Reader) (err error) {
			values, last, err = r.runs(after)
			return err
		})
		if err != nil || len(values) == 0 {
			return after, err
		}
		if err := putValues(dst, values); err != nil {
			return after, err
		}
		after = last
	}
	return after, ctx.Err()
}

// runs gives the events after a revision with which some key ends, as they lie there, some 4 MiB of them, and the last one's.
// Nothing is trimmed while a backup is made.
func (r *Reader) runs(after uint64) (values []value, last uint64, err error) {
	last = after
	l := readRuns(r.tx)
	size := 0
	k, v := l.c.Seek(eventKey(after + 1))
	for ; k != nil && size < 4<<20; k, v = l.c.Next() {
		e, err := readRun(k, v)
		if err != nil {
			return nil, after, err
		}
		values = append(values, value{place{Bucket(eventsBucket), string(k)}, bytes.Clone(v)})
		size += len(v)
		last = e.last()
	}
	return values, last, nil
}

// copyBucket copies a whole bucket, in commits of some 4 MiB.
func (s *Store) copyBucket(ctx context.Context, dst *bolt.DB, b Bucket) error {
	var values []value
	size := 0
	flush := func() error {
		err := putValues(dst, values)
		values, size = values[:0], 0
		return err
	}
	err := s.Scan(b, func(k string, v []byte) error {
		values = append(values, value{place{b, k}, v})
		if size += len(k) + len(v); size < 4<<20 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// value is what a key has; nil if it is gone.
type value struct {
	place
	bytes []byte
}

func putValues(dst *bolt.DB, values []value) error {
	return dst.Update(func(tx *bolt.Tx) error {
		for _, v := range values {
			b, err := tx.Bucket([]byte(v.bucket)), error(nil)
			if v.bucket == Bucket(eventsBucket) {
				b.FillPercent = fill
			}
			if v.bytes == nil {
				err = b.Delete([]byte(v.key))
			} else {
				err = b.Put([]byte(v.key), v.bytes)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// copyChanged copies what was written since the last time, in pieces.
func (s *Store) copyChanged(ctx context.Context, dst *bolt.DB) error {
	all := s.copied.take()
	for len(all) > 0 && ctx.Err() == nil {
		piece := all[:min(len(all), backupLast)]
		all = all[len(piece):]
		var values []value
		err := s.View(func(r *Reader) error {
			for _, p := range piece {
				values = append(values, value{p, r.Get(p.bucket, p.key)})
			}
			return nil
		})
		if err == nil {
			err = putValues(dst, values)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// copyRest copies the last of it in the writer: nobody writes meanwhile, and all who wrote before, in this commit too, are
// noted. If the commit fails the copy is worth nothing, and neither is the backup.
func (s *Store) copyRest(ctx context.Context, dst *bolt.DB, after uint64) (revision uint64, err error) {
	var values []value
	var entries []Entry
	err = s.Update(ctx, func(tx *Tx) error {
		for after < tx.log.before {
			more, last, err := tx.runs(after)
			if err == nil && last == after {
				err = errors.New("they are not there")
			}
			if err != nil {
				return fmt.Errorf("reading the events after %d: %w", after, err)
			}
			values, after = append(values, more...), last
		}
		for _, p := range s.copied.take() {
			values = append(values, value{p, tx.Reader.Get(p.bucket, p.key)})
		}
		revision, entries = tx.log.last(), slices.Clone(tx.log.entries)
		return nil
	})
	if err != nil {
		return 0, err
	}
	if err := putValues(dst, values); err != nil {
		return 0, err
	}
	return revision, dst.Update(func(tx *bolt.Tx) error {
		_, err := putEvents(tx.Bucket(eventsBucket), entries, nil)
		return err
	})
}

// layout makes an empty database.
func layout(tx *bolt.Tx) error {
	for _, b := range append([]Bucket{Bucket(eventsBucket)}, buckets...) {
		if _, err := tx.CreateBucket([]byte(b)); err != nil {
			return err
		}
	}
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	return errors.Join(meta.Put(schemaKey, []byte(strconv.Itoa(Schema))), newID(tx))
}

// newID gives a database its ID, in the place of the one that it has.
func newID(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(idKey, []byte(rand.Text())) }

// makeFile lets fill write a file under a temporary name beside path, and gives it its name, which must be free, when it
// is whole and on the disk.
func makeFile(path string, fill func(tmp string) error) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s is %w: name another file, or move it away", path, fs.ErrExist)
		}
		return err
	}
	tmp := fmt.Sprintf("%s.new-%d", path, os.Getpid())
	os.Remove(tmp)
	defer os.Remove(tmp)
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncFile(tmp); err != nil {
		return err
	}
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
