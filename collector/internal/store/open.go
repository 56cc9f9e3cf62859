// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Open opens the database at path, makes it if there is none, and starts the writer. Its errors are ErrHeld, ErrSchema,
// ErrDamaged, or the file system's.
//
// A new database appears under its name only when it is whole. A damaged one is renamed to PATH.damaged-TIME, never
// deleted, and while it lies there no new one is made: an empty database would forget every node, and nobody be told.
func Open(path string, opt Options) (*Store, error) {
	if opt.Timeout == 0 {
		opt.Timeout = 2 * time.Second
	}
	if opt.Queue == 0 {
		opt.Queue = 8192
	}
	if opt.Group == 0 {
		opt.Group = 2048
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Retry == 0 {
		opt.Retry = time.Second
	}
	if opt.Point == nil {
		opt.Point = func(string) {}
	}
	removeLeft(path)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		if aside := Damaged(path); len(aside) > 0 {
			return nil, fmt.Errorf("%w: it was put aside as %s: %s", ErrDamaged, aside[len(aside)-1], afterDamage)
		}
		if err := create(path, opt); err != nil {
			return nil, fmt.Errorf("creating database %s: %w", path, err)
		}
	}
	if err := inspect(path, opt.Timeout); err != nil {
		return nil, err
	}
	db, err := openBolt(path, opt)
	if err != nil {
		return nil, err
	}
	if err := migrate(db, path); err != nil {
		db.Close()
		return nil, err
	}
	if err := checkSchema(db, path); err != nil {
		db.Close()
		return nil, err
	}
	s := &Store{path: path, opt: opt, wake: make(chan struct{}, 1), quit: make(chan struct{}), stopped: make(chan struct{})}
	s.db.Store(db)
	s.feed.changed = make(chan struct{})
	if s.id, err = idOf(db); err != nil {
		db.Close()
		return nil, putAside(path, err.Error())
	}
	if s.feed.first, s.feed.last, s.tx, err = revisions(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening database %s: %w", path, err)
	}
	writeHolder(path)
	go s.write()
	return s, nil
}

// boltOptions are those of a database that is written. The file grows by what is written behind its end (NoGrowSync), not by
// holes that are made and flushed before: fdatasync(2) flushes a length that is needed to read the data. Linux before 3.6 had
// file systems that did not.
func boltOptions(opt Options) *bolt.Options {
	return &bolt.Options{Timeout: opt.Timeout, FreelistType: bolt.FreelistMapType, NoFreelistSync: true, NoGrowSync: true, InitialMmapSize: mmapSize, PageSize: 4096}
}

// create makes an empty database. A power cut in the middle leaves only the temporary file; of two processes at once
// one wins, and both go on with its file.
func create(path string, opt Options) error {
	tmp := fmt.Sprintf("%s.new-%d", path, os.Getpid())
	os.Remove(tmp)
	defer os.Remove(tmp)
	db, err := bolt.Open(tmp, 0o600, boltOptions(opt))
	if err != nil {
		return err
	}
	err = db.Update(layout)
	if err := errors.Join(err, db.Sync(), db.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// removeLeft removes the temporary files of processes that ended in the middle of making, restoring or compacting the database.
func removeLeft(path string) {
	for _, what := range []string{".new-", ".compact-"} {
		for _, tmp := range beside(path, what) {
			pid, err := strconv.Atoi(tmp[strings.LastIndexByte(tmp, '-')+1:])
			if err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				continue // it may be at work, or another has its number now: the next start looks again
			}
			if err == nil {
				os.Remove(tmp)
			}
		}
	}
}

// beside gives the files whose names are path's and go on with something.
func beside(path, with string) []string {
	found, err := filepath.Glob(strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(path) + with + "*")
	if err != nil {
		return nil
	}
	return found
}

// lock locks an open file as flock(2), and waits for others until timeout: ErrHeld.
func lock(f *os.File, path string, how int, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("locking database %s: %w", path, err)
		}
		if time.Now().After(end) {
			return heldError(path)
		}
	}
}

// inspect looks at the file's meta pages and its tree, with the file locked, before bbolt maps it: a damaged page, or one
// beyond the end of a truncated file, would kill the process.
func inspect(path string, timeout time.Duration) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening database: %w", err)
	}
	defer f.Close()
	if err := lock(f, path, unix.LOCK_EX, timeout); err != nil {
		return err
	}
	if reason := damage(f); reason != "" {
		return putAside(path, reason)
	}
	return nil
}

const metaHead, metaSize = 16, 64

// metaDamage reads bbolt's meta pages: 16 bytes of page header, then magic, version, page size, flags (4 bytes each),
// root (16), freelist, high-water page, transaction (8 each), and the FNV-1a of all that.
func metaDamage(f *os.File) (newest meta, reason string) {
	const magic = 0xED0CDAED
	found := false
	for _, at := range []int64{0, 4096} {
		buf := make([]byte, metaHead+metaSize)
		if _, err := f.ReadAt(buf, at); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return newest, err.Error()
		}
		m := buf[metaHead:]
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		le := binary.LittleEndian
		if le.Uint32(m) != magic || le.Uint64(m[metaSize-8:]) != sum.Sum64() {
			continue
		}
		if tx := le.Uint64(m[48:]); !found || tx > newest.tx {
			found = true
			newest = meta{root: le.Uint64(m[16:]), freelist: le.Uint64(m[32:]), pages: le.Uint64(m[40:]), pageSize: uint64(le.Uint32(m[8:])), tx: tx}
		}
	}
	if !found {
		return newest, "neither of its two meta pages is sound"
	}
	return newest, ""
}

// damage says what the engine could not bear of a file, empty if there is nothing.
func damage(f *os.File) string {
	m, reason := metaDamage(f)
	if reason != "" {
		return reason
	}
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	return treeDamage(f, uint64(info.Size()), m)
}

// openBolt opens the file with every panic that damage causes as an error.
func openBolt(path string, opt Options) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, putAside(path, fmt.Sprint(p))
		}
	}()
	db, err = bolt.Open(path, 0o600, boltOptions(opt))
	switch {
	case errors.Is(err, boltErrors.ErrTimeout):
		return nil, heldError(path)
	case errors.Is(err, boltErrors.ErrInvalid), errors.Is(err, boltErrors.ErrChecksum), errors.Is(err, boltErrors.ErrVersionMismatch):
		return nil, putAside(path, err.Error())
	case err != nil:
		return nil, fmt.Errorf("opening database %s: %w", path, err)
	}
	return db, nil
}

func checkSchema(db *bolt.DB, path string) error {
	return db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil && tx.Bucket(eventsBucket) != nil {
			return putAside(path, fmt.Sprintf("bucket %s is missing", metaBucket))
		}
		if meta == nil {
			return fmt.Errorf("opening database %s: it is a bbolt database, but not provostd's: name another file", path)
		}
		v, err := strconv.Atoi(string(meta.Get(schemaKey)))
		if err != nil {
			return putAside(path, fmt.Sprintf("reading its schema: %v", err))
		}
		if v > Schema {
			return fmt.Errorf("%w: %s has schema %d, this provostd knows %d: install the provostd that wrote it, or restore a backup from before the upgrade",
				ErrSchema, path, v, Schema)
		}
		for _, b := range append([]Bucket{Bucket(eventsBucket)}, buckets...) {
			if tx.Bucket([]byte(b)) == nil {
				return putAside(path, fmt.Sprintf("bucket %s is missing", b))
			}
		}
		return nil
	})
}

// afterDamage is what to do then.
const afterDamage = "restore a backup (provostd db restore FILE), or move that file to another directory to begin with an empty database"

// putAside renames a damaged file and says so.
func putAside(path, reason string) error {
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("%w: %s: %s; putting it aside: %w", ErrDamaged, path, reason, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%w: %s: %s; putting it aside as %s: %w", ErrDamaged, path, reason, aside, err)
	}
	return fmt.Errorf("%w: %s: %s. It is kept as %s: %s", ErrDamaged, path, reason, aside, afterDamage)
}

// Damaged names the databases beside path that were put aside.
func Damaged(path string) []string { return beside(path, ".damaged-") }

func holderPath(path string) string { return path + ".holder" }

// writeHolder leaves a note for heldError. Nothing rests on it.
func writeHolder(path string) {
	note := fmt.Sprintf("pid %d, since %s", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if err := os.WriteFile(holderPath(path), []byte(note), 0o600); err != nil {
		os.Remove(holderPath(path))
	}
}

func heldError(path string) error {
	who := "another process"
	if note, err := os.ReadFile(holderPath(path)); err == nil && len(note) > 0 {
		who = "another provostd (" + string(note) + ")"
	}
	return fmt.Errorf("%w: %s is held by %s: stop it first, or use another --data", ErrHeld, path, who)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
