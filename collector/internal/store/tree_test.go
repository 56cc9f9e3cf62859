// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"provost/collector/internal/store"
)

// grown is a database with pages of every kind: branches, leaves, long values, free pages.
func grown(t *testing.T) (whole []byte) {
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
	copied := filepath.Join(t.TempDir(), "copy") // small: an open one is extended to 16 MiB
	if _, _, err := store.Compact(p); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p, copied); err != nil {
		t.Fatal(err)
	}
	if whole, err = os.ReadFile(copied); err != nil {
		t.Fatal(err)
	}
	return whole
}

// TestOpenDamagedTree damages any page in any way. This process must live, and the file be either put aside whole and named,
// or open and answer.
func TestOpenDamagedTree(t *testing.T) {
	whole := grown(t)
	pages := len(whole) / 4096
	if pages < 100 {
		t.Fatalf("%d pages are too few to mean anything", pages)
	}
	opened, aside := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
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
