// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of the logs, so that one node cannot fill the frontend's disk.
const (
	MaxLog  = 256 << 20 // bytes of one log
	MaxLogs = 1200      // logs of one install: one for each step of the longest plan, and the agent's own
)

// Logs keeps the bytes of the nodes' logs: DIR/INSTALL/NAME. What Append returned nil for is on the disk.
type Logs struct {
	root   *os.Root
	shards [64]shard // by install
	seed   maphash.Seed
	point  func(name string) // see Options.Point

	quota atomic.Int64 // bytes of all logs; 0 is none
	used  atomic.Int64
	since atomic.Int64 // appended less removed, since the measuring that is under way began
	taken atomic.Uint64
	full  atomic.Uint64
}

// shard is some of the installs: appends to the logs of one come one after the other.
type shard struct {
	sync.Mutex
	counts map[string]int // install → its logs, where all their names are on the disk; at most maxCounts
}

const maxCounts = 256

// counted notes how many logs an install has.
func (s *shard) counted(install string, n int) {
	if s.counts == nil || len(s.counts) >= maxCounts {
		s.counts = map[string]int{} // the directories are looked at again
	}
	s.counts[install] = n
}

// Log is one log's name and length in bytes.
type Log struct {
	Name string
	Size int64
}

// OpenLogs opens the directory, and makes it if there is none.
func OpenLogs(dir string) (*Logs, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the log directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the log directory: %w", err)
	}
	return &Logs{root: root, seed: maphash.MakeSeed(), point: func(string) {}}, nil
}

// SetPoint sets who is told of the places in an append, for tests. It must be called before the first.
func (l *Logs) SetPoint(point func(name string)) { l.point = point }

func (l *Logs) shard(install string) *shard {
	return &l.shards[maphash.String(l.seed, install)%uint64(len(l.shards))]
}

// Close releases the directory.
func (l *Logs) Close() error { return l.root.Close() }

// Append adds chunk to a log that is offset bytes long, and gives the new length. When the log has another length it
// gives that, with ErrOffset, and nothing is written. The other errors are ErrQuota, ErrLogsFull and ErrStorage.
func (l *Logs) Append(install, name string, offset int64, chunk []byte) (int64, error) {
	if err := checkNames(install, name); err != nil {
		return 0, err
	}
	sh := l.shard(install)
	sh.Lock()
	defer sh.Unlock()
	count, known := sh.counts[install]
	if !known {
		logs, err := l.List(install)
		if err != nil {
			return 0, err
		}
		count = len(logs)
	}
	f, made, err := l.open(install, name, count)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if made {
		if count++; known {
			sh.counts[install] = count
		}
		l.point(pointLogMade)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("%w: log %s of %s: %w", ErrStorage, name, install, err)
	}
	size := info.Size()
	if size != offset {
		return size, ErrOffset
	}
	if err := l.room(int64(len(chunk))); err != nil {
		return size, err
	}
	if size+int64(len(chunk)) > MaxLog {
		return size, fmt.Errorf("%w: %s has %d bytes, at most %d are kept", ErrQuota, name, size, MaxLog)
	}
	_, err = f.WriteAt(chunk, offset)
	l.point(pointLogWritten)
	if err == nil {
		err = f.Sync()
	}
	l.point(pointLogFlushed)
	if err == nil && (!known || size == 0) { // its name may not be on the disk: who made it may have failed, or ended, before
		err = l.syncDir(install)
	}
	if err == nil && !known {
		if err = l.syncDir("."); err == nil {
			sh.counted(install, count)
		}
	}
	if err != nil {
		return size, fmt.Errorf("%w: log %s of %s: %w", ErrStorage, name, install, errors.Join(err, f.Truncate(offset)))
	}
	l.grew(int64(len(chunk)))
	l.taken.Add(uint64(len(chunk)))
	return offset + int64(len(chunk)), nil
}

// open opens a log for writing, of an install that has count of them, and reports whether it is new.
func (l *Logs) open(install, name string, count int) (f *os.File, made bool, err error) {
	path := install + "/" + name
	f, err = l.root.OpenFile(path, os.O_RDWR, 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, false, storageError(err)
	}
	if count >= MaxLogs {
		return nil, false, fmt.Errorf("%w: the install has %d logs already", ErrQuota, count)
	}
	if err := l.root.Mkdir(install, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, storageError(err)
	}
	f, err = l.root.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	return f, true, storageError(err)
}

// Open opens a log for reading; it may grow meanwhile. ErrNoLog if there is none.
func (l *Logs) Open(install, name string) (*os.File, error) {
	if err := checkNames(install, name); err != nil {
		return nil, err
	}
	f, err := l.root.Open(install + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoLog, name)
	}
	return f, err
}

// List gives the logs of an install by name, none when it has none.
func (l *Logs) List(install string) ([]Log, error) {
	if err := checkNames(install, "x"); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(l.root.FS(), install)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, storageError(err)
	}
	logs := make([]Log, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, storageError(err)
		}
		if info.Mode().IsRegular() {
			logs = append(logs, Log{e.Name(), info.Size()})
		}
	}
	return logs, nil
}

// Remove deletes the logs of an install.
func (l *Logs) Remove(install string) error {
	if err := checkNames(install, "x"); err != nil {
		return err
	}
	sh := l.shard(install)
	sh.Lock()
	defer sh.Unlock()
	delete(sh.counts, install)
	logs, err := l.List(install)
	if err != nil {
		return err
	}
	if err := l.root.RemoveAll(install); err != nil {
		return storageError(err)
	}
	for _, log := range logs {
		l.grew(-log.Size)
	}
	return nil
}

func (l *Logs) syncDir(dir string) error {
	d, err := l.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkNames refuses what is more than one plain file name. The root would not let it out of its directory either.
func checkNames(names ...string) error {
	for _, n := range names {
		if n == "" || len(n) > 128 || n[0] == '.' || strings.ContainsAny(n, "/\x00") {
			return fmt.Errorf("%w: %q is no log's name", ErrNoLog, n)
		}
	}
	return nil
}

func storageError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}
