// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
	"provost/collector/internal/store"
)

// grown is a database with pages of every kind: branches, leaves, long values, free pages; compacted, or as a Close leaves it,
// with the list of the free ones.
func grown(t *testing.T, compacted bool) (whole []byte) {
	t.Helper()
	p := path(t)
	s, err := store.Open(p, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		err := s.Update(context.Background(), func(tx *store.Tx) error {
			for j := range 200 {
				tx.Put(store.Nodes, fmt.Sprintf("node-%d-%d", i, j), bytes.Repeat([]byte("v"), 50+j))
			}
			tx.Put(store.Files, fmt.Sprint(i), bytes.Repeat([]byte("f"), 20000*i+1))
			tx.Append(bytes.Repeat([]byte("e"), 300))
			if i > 3 {
				tx.Delete(store.Files, fmt.Sprint(i-3))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if compacted {
		if _, _, err := store.Compact(p); err != nil {
			t.Fatal(err)
		}
	}
	if whole, err = os.ReadFile(p); err != nil {
		t.Fatal(err)
	}
	_, pages := listOf(t, whole)
	return whole[:min(uint64(len(whole)), pages*4096)] // a compacted one is longer than its pages
}

// listOf gives the page with the list of the free ones, 0 without one, and the number of pages: what bbolt's newest meta page says.
func listOf(t testing.TB, whole []byte) (list, pages uint64) {
	t.Helper()
	tx := uint64(0)
	for _, at := range []int{0, 4096} {
		m := whole[at+16:]
		if n := binary.LittleEndian.Uint64(m[48:]); n >= tx {
			tx, list, pages = n, binary.LittleEndian.Uint64(m[32:]), binary.LittleEndian.Uint64(m[40:])
		}
	}
	if list == 1<<64-1 {
		list = 0
	}
	return list, pages
}

// TestFreeList: a Close leaves a list of the free pages, the first commit after it takes it away, and the file is sound at each
// of these moments.
func TestFreeList(t *testing.T) {
	whole := grown(t, false)
	list, _ := listOf(t, whole)
	if list == 0 {
		t.Fatal("a Close leaves no list of the free pages")
	}
	p := path(t)
	if err := os.WriteFile(p, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, p, store.Options{})
	if b, err := os.ReadFile(p); err != nil {
		t.Fatal(err)
	} else if again, _ := listOf(t, b); again != list {
		t.Errorf("after an open the list is page %d, it was %d", again, list)
	}
	for i := range 3 {
		err := s.Update(context.Background(), func(tx *store.Tx) error {
			tx.Put(store.Files, fmt.Sprint(i), bytes.Repeat([]byte("g"), 100_000)) // into free pages, too
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if list, _ := listOf(t, b); list != 0 {
			t.Errorf("after commit %d there is a list, which nobody keeps up", i)
		}
		crashed := filepath.Join(t.TempDir(), "crashed")
		if err := os.WriteFile(crashed, b, 0o600); err != nil {
			t.Fatal(err)
		}
		open(t, crashed, store.Options{})
	}
}

// TestCutOff: pages that lie behind the end of the file are no harm while they are free, since a file grows by what is written
// alone. One that is in use is.
func TestCutOff(t *testing.T) {
	p := path(t)
	if err := os.WriteFile(p, grown(t, true), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(p, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("g"), 500_000)
	for _, fn := range []func(*store.Tx) error{
		func(tx *store.Tx) error { tx.Put(store.Files, "large", large); return nil },
		func(tx *store.Tx) error { tx.Delete(store.Files, "large"); return nil },
		put("a", "1"),
	} {
		if err := s.Update(context.Background(), fn); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(p, 0o600, &bolt.Options{Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	used := 0 // pages up to the last one that is in use
	err = db.View(func(tx *bolt.Tx) error {
		for i := 0; ; i++ {
			info, err := tx.Page(i)
			if err != nil || info == nil {
				return err
			}
			if info.Type != "free" { // the header of one that is says nothing
				i += info.OverflowCount
				used = i + 1
			}
		}
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, pages := listOf(t, whole); used*4096 >= len(whole) || used >= int(pages) {
		t.Fatalf("%d of %d pages are in use, the file has %d bytes: this proves nothing", used, pages, len(whole))
	}
	for _, tt := range []struct {
		size int
		want error
	}{{used * 4096, nil}, {used*4096 - 1, store.ErrDamaged}, {(used - 1) * 4096, store.ErrDamaged}} {
		p := path(t)
		if err := os.WriteFile(p, whole[:tt.size], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(p, store.Options{})
		if !errors.Is(err, tt.want) {
			t.Errorf("%d bytes, of which %d are in use: Open = %v, want %v", tt.size, used*4096, err, tt.want)
		}
		if err != nil {
			continue
		}
		if err := s.Update(context.Background(), func(tx *store.Tx) error { tx.Put(store.Files, "large", large); return nil }); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		check(t, p)
	}
}

// TestDamagedFreeList: a list that names a page that is in use, or one twice, would have it written over.
func TestDamagedFreeList(t *testing.T) {
	whole := grown(t, false)
	list, pages := listOf(t, whole)
	at := list * 4096
	le := binary.LittleEndian
	count := int(le.Uint16(whole[at+10:]))
	if count < 3 || count == 0xffff {
		t.Fatalf("the list has %d pages", count)
	}
	for name, damage := range map[string]func(b []byte){
		"a page in use": func(b []byte) { le.PutUint64(b[16:], list) },
		"a meta page":   func(b []byte) { le.PutUint64(b[16:], 1) },
		"one twice":     func(b []byte) { copy(b[24:32], b[16:24]) },
		"beyond":        func(b []byte) { le.PutUint64(b[16:], pages) },
		"too many":      func(b []byte) { le.PutUint16(b[10:], 0xfffe) },
		"far too many":  func(b []byte) { le.PutUint16(b[10:], 0xffff); le.PutUint64(b[16:], 1<<61) },
		"another page":  func(b []byte) { le.PutUint64(b, list+1) },
		"no list":       func(b []byte) { le.PutUint16(b[8:], 2) },
	} {
		p := path(t)
		bad := bytes.Clone(whole)
		damage(bad[at:])
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := store.Open(p, store.Options{}); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s: Open = %v, want ErrDamaged", name, err)
			if err == nil {
				s.Close()
			}
		}
	}
}

// TestOpenDamagedTree damages any page in any way. This process must live, and the file be either put aside whole and named,
// or open and answer.
func TestOpenDamagedTree(t *testing.T) {
	files := [][]byte{grown(t, true), grown(t, false)}
	few(t, 40)
	opened, aside := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		whole := files[rapid.IntRange(0, len(files)-1).Draw(rt, "file")] // its number, not its bytes, is told of a failure
		pages := len(whole) / 4096
		if pages < 100 {
			t.Fatalf("%d pages are too few to mean anything", pages)
		}
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		p := filepath.Join(dir, "provost.db")
		bad := bytes.Clone(whole)
		for range rapid.IntRange(1, 3).Draw(rt, "places") {
			page := rapid.IntRange(2, pages-1).Draw(rt, "page")
			// mostly in the header and the first elements, where it hurts
			at := page*4096 + rapid.OneOf(rapid.IntRange(0, 15), rapid.IntRange(16, 200), rapid.IntRange(0, 4080)).Draw(rt, "at")
			switch rapid.IntRange(0, 2).Draw(rt, "how") {
			case 0:
				bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			case 1:
				for i := range rapid.IntRange(1, 15).Draw(rt, "bytes") {
					bad[at+i] = rapid.Byte().Draw(rt, "byte")
				}
			case 2:
				other := rapid.IntRange(2, pages-1).Draw(rt, "other")
				copy(bad[page*4096:(page+1)*4096], whole[other*4096:]) // a page at the wrong place
			}
		}
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			rt.Fatal(err)
		}
		s, err := store.Open(p, store.Options{})
		if err == nil {
			opened++
			for _, b := range []store.Bucket{store.Nodes, store.Files} {
				if err := s.Scan(b, func(string, []byte) error { return nil }); err != nil {
					rt.Errorf("scanning %s: %v", b, err)
				}
			}
			if err := s.Update(context.Background(), put("a", "1")); err != nil {
				rt.Errorf("writing: %v", err)
			}
			s.Close()
			return
		}
		aside++
		names := store.Damaged(p)
		if !errors.Is(err, store.ErrDamaged) || len(names) != 1 || !strings.Contains(err.Error(), names[0]) {
			rt.Fatalf("Open = %v, put aside: %q: want ErrDamaged with the name", err, names)
		}
		if kept, err := os.ReadFile(names[0]); err != nil || !bytes.Equal(kept, bad) {
			rt.Errorf("the damaged file was changed: %v", err)
		}
		if strings.Contains(err.Error(), "goroutine") || len(err.Error()) > 1000 {
			rt.Errorf("the error is no message: %s", err)
		}
	})
	if aside == 0 || opened == 0 {
		t.Errorf("%d files opened and %d put aside: want both", opened, aside)
	}
}
