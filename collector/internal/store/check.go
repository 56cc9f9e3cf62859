// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Report is what Check found.
type Report struct {
	Path        string
	Schema      int
	Bytes       int64
	Events      int
	First, Last uint64 // revisions; 0 without events
	Counts      []Count
	Problems    []string // empty: the database is sound
}

// Count is how many keys a bucket has.
type Count struct {
	Bucket Bucket
	Keys   int
	Bytes  int64 // of keys and values
}

// maxProblems bounds a report of a file that is damaged all over.
const maxProblems = 20

// Check reads the whole database at path, which nobody may have open for writing (ErrHeld), and changes nothing. What is
// wrong with the contents is in the report; the error is of a file that cannot be read at all, or has a newer schema.
func Check(path string) (r *Report, err error) {
	db, err := openReadOnly(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checking database: %w", err)
	}
	r = &Report{Path: path, Bytes: info.Size()}
	if r.Schema, err = schemaOf(db); err != nil {
		return nil, fmt.Errorf("checking database %s: %w", path, err)
	}
	if r.Schema > Schema {
		return nil, fmt.Errorf("%w: %s has schema %d, this provostd knows %d: use the provostd that wrote it", ErrSchema, path, r.Schema, Schema)
	}
	if p := r.walk(db); p != "" {
		r.Problems = append(r.Problems, p)
		return r, nil // the engine's own check would end the process
	}
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			if len(r.Problems) < maxProblems {
				r.Problems = append(r.Problems, err.Error())
			}
		}
		return nil
	})
	return r, err
}

// walk reads every key and value in the caller's goroutine, where damage can be caught.
func (r *Report) walk(db *bolt.DB) (problem string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			problem = fmt.Sprintf("reading it: %v", p)
		}
	}()
	err := db.View(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			bucket := tx.Bucket([]byte(b))
			if bucket == nil {
				if (b == Packed || b == History) && r.Schema < 2 {
					continue
				}
				return fmt.Errorf("bucket %s is missing", b)
			}
			c := Count{Bucket: b}
			err := bucket.ForEach(func(k, v []byte) error {
				c.Keys++
				c.Bytes += int64(len(k) + len(v))
				return nil
			})
			if err != nil {
				return err
			}
			r.Counts = append(r.Counts, c)
		}
		return r.walkEvents(tx.Bucket(eventsBucket))
	})
	if err != nil {
		return err.Error()
	}
	return ""
}

func (r *Report) walkEvents(bucket *bolt.Bucket) error {
	if bucket == nil {
		return fmt.Errorf("bucket %s is missing", eventsBucket)
	}
	return bucket.ForEach(func(k, v []byte) error {
		e, err := readRun(k, v)
		switch {
		case err != nil:
			return err
		case r.Events == 0:
			r.First = e.first
		case e.first != r.Last+1:
			return fmt.Errorf("event %d follows event %d: those in between are missing, or there twice", e.first, r.Last)
		}
		r.Events += e.n
		r.Last = e.last()
		return nil
	})
}

// openReadOnly opens a database for reading, with what damage causes as errors, and never puts it aside.
func openReadOnly(path string) (db *bolt.DB, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening database: %w", err)
	}
	defer f.Close()
	if err := lock(f, path, unix.LOCK_SH, time.Second); err != nil {
		return nil, err // before anything is read: pages that a writer is about to replace look like damage
	}
	if reason := damage(f); reason != "" {
		return nil, fmt.Errorf("%w: %s: %s", ErrDamaged, path, reason)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%w: %s: %v", ErrDamaged, path, p)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, boltErrors.ErrTimeout):
		return nil, heldError(path)
	case err != nil:
		return nil, fmt.Errorf("opening database %s: %w", path, err)
	}
	return db, nil
}

// sound is Check with every problem as an error.
func sound(path string) (*Report, error) {
	r, err := Check(path)
	if err != nil {
		return nil, err
	}
	if len(r.Problems) > 0 {
		return nil, fmt.Errorf("%w: %s: %s", ErrDamaged, path, r.Problems[0])
	}
	return r, nil
}

// Restore makes the database at path from a backup, which is checked first, with an ID of its own. A database that is there is
// an error: it may be the only one that has what was taken since.
func Restore(backup, path string) (*Report, error) {
	r, err := sound(backup)
	if err != nil {
		return nil, err
	}
	err = makeFile(path, func(tmp string) error {
		in, err := os.Open(backup)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
		db, err := openBolt(tmp, Options{Timeout: time.Second})
		if err != nil {
			return err
		}
		return errors.Join(db.Update(newID), db.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("restoring %s: %w", path, err)
	}
	return r, nil
}

// Compact replaces the database at path by a copy without the pages that nobody uses, and gives its size before and
// after. Nobody may have it open (ErrHeld). A crash leaves the old file or the new one; a damaged file is left as it is.
func Compact(path string) (before, after int64, err error) {
	if _, err := sound(path); err != nil {
		return 0, 0, err
	}
	src, err := openReadOnly(path) // and keeps every writer out until the new file has the name
	if err != nil {
		return 0, 0, err
	}
	defer src.Close()
	tmp := fmt.Sprintf("%s.compact-%d", path, os.Getpid())
	os.Remove(tmp)
	defer os.Remove(tmp)
	if err := compactInto(tmp, src); err != nil {
		return 0, 0, fmt.Errorf("compacting %s: %w", path, err)
	}
	for p, size := range map[string]*int64{path: &before, tmp: &after} {
		info, err := os.Stat(p)
		if err != nil {
			return 0, 0, fmt.Errorf("compacting %s: %w", path, err)
		}
		*size = info.Size()
	}
	if err := os.Rename(tmp, path); err != nil {
		return 0, 0, fmt.Errorf("compacting %s: %w", path, err)
	}
	return before, after, syncDir(filepath.Dir(path))
}

// compactInto writes a new file and looks whether it is sound.
func compactInto(tmp string, src *bolt.DB) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	dst, err := bolt.Open(tmp, 0o600, &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType, PageSize: 4096, NoFreelistSync: true})
	if err != nil {
		return err
	}
	if err := errors.Join(bolt.Compact(dst, src, 16<<20), dst.Sync(), dst.Close()); err != nil {
		return err
	}
	_, err = sound(tmp)
	return err
}
