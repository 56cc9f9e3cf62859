// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// entry is one write of a made log: byte at sector, or a flush.
type entry struct {
	sector, flags uint64
	fill          byte
}

func makeLog(t *testing.T, entries []entry, count int) string {
	t.Helper()
	var b bytes.Buffer
	put := func(sector []uint64, extra ...byte) {
		raw := make([]byte, 0, 512)
		for _, v := range sector {
			raw = binary.LittleEndian.AppendUint64(raw, v)
		}
		raw = append(raw, extra...)
		b.Write(append(raw, make([]byte, 512-len(raw))...))
	}
	put([]uint64{logMagic, logVersion, uint64(count)}, 0, 2, 0, 0)
	for _, e := range entries {
		if e.fill == 0 {
			put([]uint64{e.sector, 0, e.flags, 0})
			continue
		}
		put([]uint64{e.sector, 1, e.flags, 0})
		b.Write(bytes.Repeat([]byte{e.fill}, 512))
	}
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReplay(t *testing.T) {
	entries := []entry{{0, 0, 'a'}, {1, 0, 'b'}, {0, flagFlush, 0}, {0, 0, 'c'}, {2, 0, 'd'}, {3, flagFUA, 'e'}, {0, flagFlush, 0}, {1, 0, 'f'}, {9, 0, 'x'}}
	l, err := ReadWriteLog(makeLog(t, entries, 8)) // the last one is not complete
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Len() != 8 || l.LastFlush(8) != 7 || l.LastFlush(6) != 3 || l.LastFlush(2) != 0 || l.NextFlush(3) != 6 || l.NextFlush(7) != 8 {
		t.Errorf("Len, LastFlush(8), (6), (2), NextFlush(3), (7) = %d, %d, %d, %d, %d, %d, want 8, 7, 3, 0, 6, 8",
			l.Len(), l.LastFlush(8), l.LastFlush(6), l.LastFlush(2), l.NextFlush(3), l.NextFlush(7))
	}
	for _, tt := range []struct {
		n    int
		keep func(int) bool
		want string
	}{
		{0, nil, "...."},
		{3, nil, "ab.."},
		{7, nil, "cbde"},
		{8, nil, "cfde"},
		{3, func(i int) bool { return i == 4 }, "abde"}, // what is written through is there in any case
		{3, func(i int) bool { return false }, "ab.e"},
		{7, func(i int) bool { return true }, "cfde"},
	} {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(disk, bytes.Repeat([]byte{'.'}, 4*512), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := l.Replay(disk, tt.n, tt.keep); err != nil {
			t.Errorf("Replay(%d) = %v", tt.n, err)
			continue
		}
		b, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if got := string([]byte{b[0], b[512], b[1024], b[1536]}); got != tt.want || len(b) != 4*512 {
			t.Errorf("Replay(%d) = %q in %d bytes, want %q", tt.n, got, len(b), tt.want)
		}
	}
}

func TestReadWriteLogRefuses(t *testing.T) {
	for name, path := range map[string]string{
		"unknown flags": makeLog(t, []entry{{0, 1 << 7, 0}}, 1),
		"cut off":       makeLog(t, []entry{{0, 0, 'a'}}, 3),
	} {
		if l, err := ReadWriteLog(path); err == nil {
			l.Close()
			t.Errorf("%s: ReadWriteLog = nil, want an error", name)
		}
	}
}
