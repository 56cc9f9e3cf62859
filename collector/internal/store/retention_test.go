// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
	"provost/collector/internal/store"
)

func appendN(t *testing.T, s *store.Store, n int) {
	t.Helper()
	err := s.Update(context.Background(), func(tx *store.Tx) error {
		for range n {
			tx.Append(fmt.Appendf(nil, "event %d", tx.NextRevision()))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTrim: the feed loses its old end and nothing else; who resumes from before it is told; the newest event stays.
func TestTrim(t *testing.T) {
	ctx := context.Background()
	p := path(t)
	s := open(t, p, store.Options{})
	if n, err := s.Trim(ctx, 100, 10); n != 0 || err != nil || s.First() != 1 {
		t.Errorf("Trim of nothing = %d, %v, first %d", n, err, s.First())
	}
	appendN(t, s, 20)
	behind := s.Watch(0)
	for _, tt := range []struct {
		upTo  uint64
		max   int
		n     int
		first uint64
	}{{5, 3, 3, 4}, {5, 3, 2, 6}, {5, 3, 0, 6}, {100, 100, 14, 20}, {100, 100, 0, 20}} {
		n, err := s.Trim(ctx, tt.upTo, tt.max)
		if err != nil || n != tt.n || s.First() != tt.first || s.Revision() != 20 {
			t.Errorf("Trim(%d, %d) = %d, %v, first %d, last %d, want %d, first %d", tt.upTo, tt.max, n, err, s.First(), s.Revision(), tt.n, tt.first)
		}
	}
	if got, err := behind.Next(ctx); err != nil || len(got) != 20 {
		t.Errorf("a watcher that is in the ring gets %d, %v", len(got), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, p, store.Options{})
	if s.First() != 20 || s.Revision() != 20 {
		t.Errorf("after opening it again: %d to %d, want 20 to 20", s.First(), s.Revision())
	}
	appendN(t, s, 1)
	if _, err := s.Watch(3).Next(ctx); !errors.Is(err, store.ErrGone) {
		t.Errorf("a watcher of what was trimmed = %v, want ErrGone", err)
	}
	if got, err := s.Watch(19).Next(ctx); err != nil || len(got) != 2 || got[0].Revision != 20 {
		t.Errorf("a watcher of the rest = %v, %v", got, err)
	}
}

// contents is everything of a database that is closed, but for its ID.
func contents(t testing.TB, path string) map[string]string {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Minute, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string]string{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				all[fmt.Sprintf("%s/%x", name, k)] = string(v)
				return nil
			})
		})
	})
	delete(all, fmt.Sprintf("meta/%x", "id"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestBackupOfOneMoment: while writers move a sum between keys and tell of it by events, every backup holds the sum, and
// exactly the events up to its revision.
func TestBackupOfOneMoment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "provost.db"), store.Options{})
	ctx, stop := context.WithCancel(context.Background())
	const keys = 3000
	err := s.Update(ctx, func(tx *store.Tx) error {
		for i := range keys {
			tx.Put(store.Nodes, fmt.Sprintf("k%05d", i), []byte{100})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; ctx.Err() == nil; i += 7 {
				from, to := fmt.Sprintf("k%05d", i*13%keys), fmt.Sprintf("k%05d", (i*17+1)%keys)
				s.Update(ctx, func(tx *store.Tx) error { // its error is that of the end
					a := tx.Get(store.Nodes, from)[0]
					if a == 1 || from == to {
						return errors.New("no")
					}
					tx.Put(store.Nodes, from, []byte{a - 1})
					b := tx.Get(store.Nodes, to)[0]
					if b == 255 {
						return errors.New("full")
					}
					tx.Put(store.Nodes, to, []byte{b + 1})
					tx.Put(store.Settings, "moves", fmt.Appendf(nil, "%d", tx.Append([]byte("moved"))))
					return nil
				})
			}
		})
	}
	for i := range 3 {
		name := filepath.Join(dir, fmt.Sprintf("backup%d", i))
		rev, err := s.Backup(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		sum, last := 0, ""
		for k, v := range contents(t, name) {
			if len(k) > 6 && k[:6] == "nodes/" {
				sum += int([]byte(v)[0])
			}
			if k == fmt.Sprintf("settings/%x", "moves") {
				last = v
			}
		}
		r, err := store.Check(name)
		if err != nil || len(r.Problems) > 0 || sum != 100*keys || r.Last != rev || last != fmt.Sprint(rev) && rev != 0 {
			t.Errorf("backup at %d: sum %d, last move %s, report %+v, %v, want a sum of %d", rev, sum, last, r, err, 100*keys)
		}
		if _, err := s.Backup(ctx, name); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Backup over a file = %v, want ErrExist", err)
		}
	}
	stop()
	wg.Wait()
	if left, err := filepath.Glob(filepath.Join(dir, "*.new-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRestoreAndCompact: what was backed up comes back byte for byte, over nothing that is there; a compacted file has the
// same contents and less air.
func TestRestoreAndCompact(t *testing.T) {
	dir := t.TempDir()
	db, copied := filepath.Join(dir, "provost.db"), filepath.Join(dir, "backup")
	s, err := store.Open(db, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, 5000)
	err = s.Update(context.Background(), func(tx *store.Tx) error {
		tx.Put(store.Plans, "p", bytes.Repeat([]byte("x"), 8<<20))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), func(tx *store.Tx) error { tx.Delete(store.Plans, "p"); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Trim(context.Background(), 4000, 10000); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Check(db); !errors.Is(err, store.ErrHeld) {
		t.Errorf("Check of an open database = %v, want ErrHeld", err)
	}
	if _, _, err := store.Compact(db); !errors.Is(err, store.ErrHeld) {
		t.Errorf("Compact of an open database = %v, want ErrHeld", err)
	}
	if _, err := s.Backup(context.Background(), copied); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := contents(t, db)
	if diff := cmp.Diff(want, contents(t, copied)); diff != "" {
		t.Errorf("the backup (-want +got):\n%.1000s", diff)
	}
	before, after, err := store.Compact(db)
	if err != nil || after >= before {
		t.Errorf("Compact = %d, %d, %v", before, after, err)
	}
	if diff := cmp.Diff(want, contents(t, db)); diff != "" {
		t.Errorf("compacted (-want +got):\n%.1000s", diff)
	}
	if _, err := store.Restore(copied, db); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Restore over a database = %v, want ErrExist", err)
	}
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Restore(copied, db); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, contents(t, db)); diff != "" {
		t.Errorf("restored (-want +got):\n%.1000s", diff)
	}
	s = open(t, db, store.Options{})
	if s.First() != 4001 || s.Revision() != 5000 {
		t.Errorf("restored: %d to %d", s.First(), s.Revision())
	}
	b, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut")
	if err := os.WriteFile(cut, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Restore(cut, filepath.Join(dir, "new")); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("Restore of half a backup = %v, want ErrDamaged", err)
	}
}

// TestID: a database keeps its ID when it is opened again or compacted; a copy and what is restored of it have others, so that
// nobody takes their revisions for those of before.
func TestID(t *testing.T) {
	dir := t.TempDir()
	db, backup, restored := filepath.Join(dir, "provost.db"), filepath.Join(dir, "backup"), filepath.Join(dir, "restored")
	id := func(path string) string {
		t.Helper()
		s, err := store.Open(path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if path == db {
			if _, err := s.Backup(context.Background(), backup); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return s.ID()
	}
	first := id(db)
	if _, _, err := store.Compact(db); err != nil {
		t.Fatal(err)
	}
	if again := id(db); again != first || len(first) < 16 {
		t.Errorf("opened again and compacted, %q has become %q", first, again)
	}
	if _, err := store.Restore(backup, restored); err != nil {
		t.Fatal(err)
	}
	if copied, back := id(backup), id(restored); copied == first || back == first || back == copied || back != id(restored) {
		t.Errorf("the database is %q, its copy %q, what was restored %q: want three", first, copied, back)
	}
}

// TestCheckOfALiveDatabase: whatever its writer does, it is in use, and never called damaged.
func TestCheckOfALiveDatabase(t *testing.T) {
	p := path(t)
	s := open(t, p, store.Options{})
	ctx, stop := context.WithCancel(context.Background())
	var writers, checks sync.WaitGroup
	writers.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			s.Update(ctx, func(tx *store.Tx) error { // its error is that of the end
				for j := range 200 {
					tx.Put(store.Nodes, fmt.Sprint(i*7919%4001+j), bytes.Repeat([]byte("v"), 1+i%3000))
				}
				return nil
			})
		}
	})
	for range 16 {
		checks.Go(func() {
			for range 3 {
				if r, err := store.Check(p); !errors.Is(err, store.ErrHeld) {
					t.Errorf("Check of a database that is written to = %+v, %v, want ErrHeld", r, err)
				}
			}
		})
	}
	checks.Wait()
	stop()
	writers.Wait()
}

// TestLeftFiles: what a process left that ended in the middle is removed, and what another may be making is not.
func TestLeftFiles(t *testing.T) {
	p := path(t)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dead, alive := ended.Process.Pid, os.Getpid()
	files := map[string]bool{ // whether it stays
		fmt.Sprintf("%s.new-%d", p, dead): false, fmt.Sprintf("%s.compact-%d", p, dead): false,
		fmt.Sprintf("%s.compact-%d", p, alive): true, p + ".new-one": true, p + ".news": true,
	}
	for name := range files {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, p, store.Options{})
	for name, stays := range files {
		if _, err := os.Stat(name); (err == nil) != stays {
			t.Errorf("%s: %v, want that it stays: %v", filepath.Base(name), err, stays)
		}
	}
}

// TestRoomForCopy: a copy is not begun where it would fill the disk.
func TestRoomForCopy(t *testing.T) {
	dir := t.TempDir()
	_, all, err := store.Space(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.RoomForCopy(dir, int64(all)); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a copy as large as the disk = %v, want ErrFull with the directory", err)
	}
	if err := store.RoomForCopy(dir, 1); err != nil {
		t.Errorf("a copy of one byte = %v", err)
	}
}

// TestCheckDamage: a database with any page overwritten is told from a sound one, or has the same contents, and Check
// never changes the file or ends the process.
func TestCheckDamage(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "provost.db")
	s, err := store.Open(name, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, 2000)
	copied := filepath.Join(dir, "copy") // small: an open one is extended to 16 MiB
	if _, err := s.Backup(context.Background(), copied); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := store.Check(copied); err != nil || len(r.Problems) > 0 || r.Events != 2000 || r.First != 1 || r.Last != 2000 || r.Schema != store.Schema {
		t.Fatalf("Check = %+v, %v", r, err)
	}
	whole, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	want := contents(t, copied)
	few(t, 40)
	found := 0
	rapid.Check(t, func(rt *rapid.T) {
		page := rapid.IntRange(2, len(whole)/4096-1).Draw(rt, "page")
		fill := rapid.Byte().Draw(rt, "byte")
		b := bytes.Clone(whole)
		for i := range 16 { // the page's header
			b[page*4096+i] = fill
		}
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			rt.Fatal(err)
		}
		r, err := store.Check(bad)
		if err != nil || len(r.Problems) > 0 {
			found++
			return
		}
		if diff := cmp.Diff(want, contents(t, bad)); diff != "" {
			rt.Errorf("page %d filled with %#x is called sound", page, fill)
		}
	})
	if found == 0 {
		t.Error("no damage was found at all")
	}
}

// TestLogQuota: at the quota nothing more is taken, what is removed makes room, and counting anew gives the same.
func TestLogQuota(t *testing.T) {
	l, err := store.OpenLogs(filepath.Join(t.TempDir(), "logs"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	put := func(install string, offset int64, n int) error {
		_, err := l.Append(install, "x.log", offset, make([]byte, n))
		return err
	}
	used := func(want int64) {
		t.Helper()
		if got := l.Usage().Used; got != want {
			t.Errorf("used = %d, want %d", got, want)
		}
		if err := l.Measure(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := l.Usage().Used; got != want {
			t.Errorf("measured = %d, want %d", got, want)
		}
	}
	l.SetQuota(1000)
	for _, tt := range []struct {
		install string
		offset  int64
		n       int
		err     error
	}{{"a", 0, 600, nil}, {"b", 0, 400, nil}, {"b", 400, 1, store.ErrLogsFull}, {"c", 0, 1, store.ErrLogsFull}, {"b", 399, 1, store.ErrOffset}, {"b", 400, 0, nil}} {
		if err := put(tt.install, tt.offset, tt.n); !errors.Is(err, tt.err) {
			t.Errorf("append of %d at %d to %s = %v, want %v", tt.n, tt.offset, tt.install, err, tt.err)
		}
	}
	used(1000)
	if err := l.Remove("a"); err != nil {
		t.Fatal(err)
	}
	used(400)
	if err := put("c", 0, 600); err != nil {
		t.Errorf("with room again: %v", err)
	}
	used(1000)
	if u := l.Usage(); u.Full != 2 || u.Taken != 1600 || u.Quota != 1000 {
		t.Errorf("usage = %+v", u)
	}
}
