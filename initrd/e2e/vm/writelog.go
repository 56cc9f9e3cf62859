// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// writeLogSize is what a log may hold: QEMU does not make the file longer. It is sparse.
const writeLogSize = 64 << 30

// The format is that of the kernel's dm-log-writes target (drivers/md/dm-log-writes.c), which QEMU's blklogwrites driver
// writes too. The first sector holds: magic, version, number of entries (8 bytes each, little endian), sector size (4).
// Each entry is a sector with the number of the first sector written, that of the sectors, flags, and the length of
// further data (8 each), and then the sectors themselves.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1

	flagFlush   = 1 << 0 // before the write, if there is one, everything earlier is on the disk
	flagFUA     = 1 << 1 // and so is the write itself when it is done
	flagDiscard = 1 << 2
)

// WriteLog is the log of what a machine wrote to its disk. It may be read while the machine runs.
type WriteLog struct {
	file    *os.File
	sector  int64
	entries []logEntry
}

type logEntry struct {
	first, sectors int64
	flags          uint64
	data           int64 // place in the log
}

// ReadWriteLog reads the entries of a log that are complete. The caller closes it.
func ReadWriteLog(path string) (*WriteLog, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the write log: %w", err)
	}
	l := &WriteLog{file: f}
	if err := l.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("reading the write log %s: %w", path, err)
	}
	return l, nil
}

// WriteLogLen gives the number of entries that a log has now. Whatever the guest was told to be flushed before the call
// is among them.
func WriteLogLen(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("reading the write log: %w", err)
	}
	defer f.Close()
	head, err := readHead(f)
	return int(head.Entries), err
}

// Close closes the log's file.
func (l *WriteLog) Close() error { return l.file.Close() }

type logHead struct {
	Magic, Version, Entries uint64
	Sector                  uint32
}

func readHead(f *os.File) (logHead, error) {
	var head logHead
	if err := readAt(f, 0, &head); err != nil {
		return head, fmt.Errorf("reading the head of the write log: %w", err)
	}
	if head.Magic != logMagic || head.Version != logVersion || head.Sector < 512 {
		return head, errors.New("it is no log of dm-log-writes, version 1")
	}
	return head, nil
}

func (l *WriteLog) read() error {
	head, err := readHead(l.file)
	if err != nil {
		return err
	}
	l.sector = int64(head.Sector)
	at := l.sector
	for range head.Entries {
		var e struct{ First, Sectors, Flags, Data uint64 }
		if err := readAt(l.file, at, &e); err != nil {
			return err
		}
		const known = flagFlush | flagFUA | flagDiscard
		if e.Flags&^known != 0 || e.First > math.MaxInt64/uint64(l.sector) || e.Sectors > math.MaxUint32 {
			return fmt.Errorf("entry %d at byte %d makes no sense", len(l.entries), at)
		}
		at += l.sector
		l.entries = append(l.entries, logEntry{int64(e.First), int64(e.Sectors), e.Flags, at})
		if e.Flags&flagDiscard == 0 {
			at += int64(e.Sectors) * l.sector
		}
	}
	return nil
}

func readAt(f *os.File, at int64, v any) error {
	b := make([]byte, binary.Size(v))
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	return binary.Read(bytes.NewReader(b), binary.LittleEndian, v)
}

// Len is the number of entries.
func (l *WriteLog) Len() int { return len(l.entries) }

// LastFlush gives the number of entries up to and with the last flush among the first n, 0 if there is none. What was
// flushed when n entries were written is in them.
func (l *WriteLog) LastFlush(n int) int {
	for i := min(n, len(l.entries)); i > 0; i-- {
		if l.entries[i-1].flags&flagFlush != 0 {
			return i
		}
	}
	return 0
}

// NextFlush gives the number of entries before the first flush after n of them, or all.
func (l *WriteLog) NextFlush(n int) int {
	for i := n; i < len(l.entries); i++ {
		if l.entries[i].flags&flagFlush != 0 {
			return i
		}
	}
	return len(l.entries)
}

// Replay writes the first n entries onto disk, which holds what the machine's disk held when the log began. Of the
// entries after that, up to the next flush, keep says which have reached the platter as well: a disk's cache may write
// what was not flushed in any order, or never. A nil keep keeps none.
func (l *WriteLog) Replay(disk string, n int, keep func(entry int) bool) error {
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("replaying writes: %w", err)
	}
	end := n
	if keep != nil {
		end = l.NextFlush(n)
	}
	for i, e := range l.entries[:end] {
		if e.flags&flagDiscard != 0 || i >= n && e.flags&flagFUA == 0 && !keep(i) {
			continue
		}
		data := io.NewSectionReader(l.file, e.data, e.sectors*l.sector)
		if _, err := io.Copy(io.NewOffsetWriter(f, e.first*l.sector), data); err != nil {
			return errors.Join(fmt.Errorf("replaying write %d: %w", i, err), f.Close())
		}
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("replaying writes: %w", err)
	}
	return nil
}
