// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// LogUsage is how much room the logs take.
type LogUsage struct {
	Used  int64  // bytes of all logs, as far as they were counted
	Quota int64  // bytes that they may have; 0 is without a limit
	Taken uint64 // bytes appended since the start
	Full  uint64 // chunks refused with ErrLogsFull since the start
}

// SetQuota bounds all logs together, in bytes; 0 takes the bound away.
func (l *Logs) SetQuota(bytes int64) { l.quota.Store(bytes) }

// Usage gives the counters. Until the first Measure is done, what was there before the start is not among them.
func (l *Logs) Usage() LogUsage {
	return LogUsage{Used: l.used.Load(), Quota: l.quota.Load(), Taken: l.taken.Load(), Full: l.full.Load()}
}

// room refuses a chunk for which there is none. Of several at the same time each may still fit: the quota is exceeded by
// no more than their sum.
func (l *Logs) room(chunk int64) error {
	quota := l.quota.Load()
	if quota == 0 || chunk == 0 || l.used.Load()+chunk <= quota {
		return nil
	}
	l.full.Add(1)
	return fmt.Errorf("%w: %d of %d bytes", ErrLogsFull, l.used.Load(), quota)
}

func (l *Logs) grew(n int64) {
	l.used.Add(n)
	l.since.Add(n)
}

// Measure counts all logs anew. What is appended meanwhile may count twice until the next time, never less than once. It
// must not run twice at the same time.
func (l *Logs) Measure(ctx context.Context) error {
	l.since.Store(0)
	sum := int64(0)
	err := l.Each(ctx, func(install string, _ time.Time) error {
		logs, err := l.List(install)
		for _, log := range logs {
			sum += log.Size
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("measuring the logs: %w", err)
	}
	l.used.Store(sum + max(l.since.Load(), 0))
	return nil
}

// Each calls fn with every install that has logs, in no order, and when one of its logs was last made or removed.
func (l *Logs) Each(ctx context.Context, fn func(install string, changed time.Time) error) error {
	dir, err := l.root.Open(".")
	if err != nil {
		return storageError(err)
	}
	defer dir.Close()
	for ctx.Err() == nil {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() || checkNames(e.Name()) != nil {
				continue
			}
			if err != nil {
				return storageError(err)
			}
			if err := fn(e.Name(), info.ModTime()); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return storageError(err)
		}
	}
	return ctx.Err()
}

// Space gives the bytes that are free for this process on the file system of a path, and its size.
func Space(path string) (free, all uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("looking for room on %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// reserve is what a copy leaves free on a disk: 64 MiB, or a twentieth of a small one.
func reserve(all uint64) uint64 { return min(64<<20, all/20) }

// RoomForCopy refuses to begin a copy of size bytes below dir when it would fill the disk: ErrFull.
func RoomForCopy(dir string, size int64) error {
	free, all, err := Space(dir)
	if err != nil {
		return err
	}
	if want := uint64(size) + reserve(all); free < want {
		return fmt.Errorf("%w: a copy may take %d bytes and leaves %d free, %s has %d: make room, or copy to another disk", ErrFull, size, reserve(all), dir, free)
	}
	return nil
}
