// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"provost/collector/internal/store"
)

// open opens a store in a temporary directory; at the end of the test it is closed and checked by bbolt's own check. A read
// transaction may live forty times as long as it should: the machine may have much to do.
func open(t *testing.T, path string, opt store.Options) *store.Store {
	t.Helper()
	opt.LongView = func(d time.Duration) {
		if d > 40*store.MaxView {
			t.Errorf("a read transaction lived for %v", d)
		}
	}
	s, err := store.Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		check(t, path)
	})
	return s
}

func check(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("database check: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// few lets a property be tried less often than the default, unless PROVOST_SOAK=1 or -rapid.checks wants more: each try waits for
// the disk.
func few(t *testing.T, checks int) {
	t.Helper()
	if os.Getenv("PROVOST_SOAK") == "1" || flag.Lookup("rapid.checks").Value.String() != "100" {
		return
	}
	if err := flag.Set("rapid.checks", strconv.Itoa(checks)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.Set("rapid.checks", "100") })
}

func path(t *testing.T) string { return filepath.Join(t.TempDir(), "provost.db") }

func get(t *testing.T, s *store.Store, key string) string {
	t.Helper()
	var v []byte
	if err := s.View(func(r *store.Reader) error { v = r.Get(store.Nodes, key); return nil }); err != nil {
		t.Fatal(err)
	}
	return string(v)
}

func put(key, value string) func(*store.Tx) error {
	return func(tx *store.Tx) error { tx.Put(store.Nodes, key, []byte(value)); return nil }
}

func values(entries []store.Entry) (out []string) {
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%d:%s", e.Revision, e.Value))
	}
	return out
}

func TestUpdate(t *testing.T) {
	p := path(t)
	ctx := context.Background()
	s := open(t, p, store.Options{})
	if err := s.Update(ctx, put("a", "1")); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	err := s.Update(ctx, func(tx *store.Tx) error {
		tx.Put(store.Nodes, "a", []byte("2"))
		tx.Put(store.Nodes, "b", []byte("2"))
		if rev := tx.Append([]byte("x")); rev != 1 {
			t.Errorf("Append = %d, want 1", rev)
		}
		if got := string(tx.Get(store.Nodes, "a")); got != "2" {
			t.Errorf("a call sees %q of its own write, want 2", got)
		}
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("Update = %v, want the function's error", err)
	}
	if got := get(t, s, "a") + get(t, s, "b"); got != "1" {
		t.Errorf("a refused call left %q, want 1", got)
	}
	if got := s.Revision(); got != 0 {
		t.Errorf("Revision = %d after a refused call, want 0", got)
	}
	if err := s.Update(ctx, func(tx *store.Tx) error { tx.Append([]byte("one")); tx.Append([]byte("two")); return nil }); err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1:one", "2:two"}, values(events)); diff != "" {
		t.Errorf("Events (-want +got):\n%s", diff)
	}
	for name, fn := range map[string]func(*store.Tx) error{
		"panic":     func(*store.Tx) error { panic("oh") },
		"empty key": put("", "x"), "long key": put(strings.Repeat("k", store.MaxKey+1), "x"), "empty value": put("k", ""),
	} {
		if err := s.Update(ctx, fn); err == nil || errors.Is(err, store.ErrStorage) {
			t.Errorf("%s: Update = %v, want an error that is not the disk's", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(ctx, put("a", "3")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Update after Close = %v, want ErrClosed", err)
	}
	again := open(t, p, store.Options{})
	if got := get(t, again, "a"); got != "1" || again.Revision() != 2 {
		t.Errorf("reopened: a = %q at revision %d, want 1 at 2", got, again.Revision())
	}
}

// TestGroup blocks the writer in one call, lets others gather, and looks at how the group treats each of them.
func TestGroup(t *testing.T) {
	s := open(t, path(t), store.Options{})
	var committed [][]string
	s.SetHooks(store.Hooks{Committed: func(e []store.Entry) { committed = append(committed, values(e)) }})
	ctx := context.Background()
	inside, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	start := func(fn func(*store.Tx) error, check func(error)) {
		wg.Add(1)
		go func() { defer wg.Done(); check(s.Update(ctx, fn)) }()
	}
	nilError := func(err error) {
		if err != nil {
			t.Errorf("Update = %v", err)
		}
	}
	start(func(*store.Tx) error { close(inside); <-release; return nil }, nilError)
	<-inside
	const n = 50
	for i := range n {
		start(func(tx *store.Tx) error {
			tx.Append(fmt.Appendf(nil, "e%d", i))
			if i%5 == 0 {
				tx.Put(store.Nodes, "refused", []byte("x"))
				return errors.New("no")
			}
			tx.Put(store.Nodes, "count", append(tx.Get(store.Nodes, "count"), 'x'))
			return nil
		}, func(err error) {
			if (err != nil) != (i%5 == 0) {
				t.Errorf("call %d: Update = %v", i, err)
			}
		})
	}
	given, cancel := context.WithCancel(ctx)
	ran := false
	gave := make(chan error, 1)
	go func() { gave <- s.Update(given, func(*store.Tx) error { ran = true; return nil }) }()
	waitFor(t, "all to wait", func() bool { return s.Stats().Waiting == n+1 })
	cancel()
	if err := <-gave; !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up = %v, want context.Canceled", err)
	}
	close(release)
	wg.Wait()
	if ran {
		t.Error("a call that was given up ran")
	}
	if got := len(get(t, s, "count")); got != n-n/5 {
		t.Errorf("%d calls counted, want %d: a call must see what those before it in the group wrote", got, n-n/5)
	}
	if got := get(t, s, "refused"); got != "" {
		t.Errorf("a refused call left %q in its group's commit", got)
	}
	if s.Revision() != n-n/5 {
		t.Errorf("Revision = %d, want %d: refused calls take no revision", s.Revision(), n-n/5)
	}
	if len(committed) > 3 {
		t.Errorf("%d commits for %d calls that waited together", len(committed), n)
	}
}

// waitFor gives something a minute.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: a minute is over", what)
		}
	}
}

func TestBusy(t *testing.T) {
	s := open(t, path(t), store.Options{Queue: 3})
	ctx := context.Background()
	inside, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() { first <- s.Update(ctx, func(*store.Tx) error { close(inside); <-release; return nil }) }()
	<-inside
	const n = 10
	results := make(chan error, n)
	for range n {
		go func() { results <- s.Update(ctx, put("k", "v")) }()
	}
	for range n - 3 {
		if err := <-results; !errors.Is(err, store.ErrBusy) {
			t.Errorf("Update beyond the queue = %v, want ErrBusy", err)
		}
	}
	close(release)
	for range 3 {
		if err := <-results; err != nil {
			t.Errorf("Update in the queue = %v", err)
		}
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestRange(t *testing.T) {
	s := open(t, path(t), store.Options{})
	ctx := context.Background()
	for _, k := range []string{"a", "c", "e", "g"} {
		if err := s.Update(ctx, put(k, k)); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(tx *store.Tx, from, to string, max int) (got []string) {
		tx.Range(store.Nodes, from, to, func(k string, v []byte) bool {
			got = append(got, k+string(v))
			return len(got) < max
		})
		return got
	}
	err := s.Update(ctx, func(tx *store.Tx) error {
		tx.Put(store.Nodes, "b", []byte("b"))
		tx.Put(store.Nodes, "c", []byte("C"))
		tx.Delete(store.Nodes, "e")
		tx.Put(store.Nodes, "h", []byte("h"))
		for _, tt := range []struct {
			from, to string
			max      int
			want     []string
		}{
			{"", "", 99, []string{"aa", "bb", "cC", "gg", "hh"}},
			{"b", "g", 99, []string{"bb", "cC"}},
			{"", "", 2, []string{"aa", "bb"}},
			{"", "", 3, []string{"aa", "bb", "cC"}},
			{"h", "", 99, []string{"hh"}},
			{"x", "", 99, nil},
		} {
			if diff := cmp.Diff(tt.want, collect(tx, tt.from, tt.to, tt.max)); diff != "" {
				t.Errorf("Range(%q, %q) (-want +got):\n%s", tt.from, tt.to, diff)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	if err := s.Scan(store.Nodes, func(k string, v []byte) error { all = append(all, k+string(v)); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"aa", "bb", "cC", "gg", "hh"}, all); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
	if got, want := store.PrefixEnd("ab\xff"), "ac"; got != want {
		t.Errorf("PrefixEnd = %q, want %q", got, want)
	}
}

func TestScanManyPieces(t *testing.T) {
	s := open(t, path(t), store.Options{})
	const n = 1500
	err := s.Update(context.Background(), func(tx *store.Tx) error {
		for i := range n {
			tx.Put(store.Nodes, fmt.Sprintf("%05d", i), []byte("v"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	err = s.Scan(store.Nodes, func(k string, v []byte) error {
		if want := fmt.Sprintf("%05d", i); k != want {
			t.Fatalf("Scan gives %s, want %s", k, want)
		}
		i++
		return nil
	})
	if err != nil || i != n {
		t.Errorf("Scan = %v after %d pairs, want %d", err, i, n)
	}
}

func TestWatch(t *testing.T) {
	s := open(t, path(t), store.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	const n = 20_000 // more than twice the ring
	appendAll := func(from, to int) {
		for i := from; i < to; i += 100 {
			err := s.Update(ctx, func(tx *store.Tx) error {
				for j := i; j < i+100; j++ {
					tx.Append(fmt.Appendf(nil, "%d", j+1))
				}
				return nil
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	}
	appendAll(0, n/2)
	var wg sync.WaitGroup
	for _, from := range []uint64{0, 1, n/2 - 3, n / 2} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := s.Watch(from)
			for want := from + 1; want <= n; {
				entries, err := w.Next(ctx)
				if err != nil {
					t.Errorf("Next after %d = %v", want-1, err)
					return
				}
				for _, e := range entries {
					if e.Revision != want || string(e.Value) != fmt.Sprint(want) {
						t.Errorf("watch from %d gives %d:%s, want %d", from, e.Revision, e.Value, want)
						return
					}
					want++
				}
			}
		}()
	}
	appendAll(n/2, n)
	wg.Wait()
	if _, err := s.Watch(n + 1).Next(ctx); !errors.Is(err, store.ErrGone) {
		t.Errorf("Next from the future = %v, want ErrGone", err)
	}
	w := s.Watch(n)
	time.AfterFunc(10*time.Millisecond, func() { s.Close() })
	if _, err := w.Next(ctx); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Next at Close = %v, want ErrClosed", err)
	}
}

// TestWatchAfterOpen: the ring is empty then, and the disk has it all.
// TestHooksBeforeWatchers: whoever is told of an event finds what Committed made of it.
func TestHooksBeforeWatchers(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "x.db"), store.Options{})
	calls := 0
	s.SetHooks(store.Hooks{Committed: func(entries []store.Entry) {
		calls++
		if got := s.Revision(); got >= entries[0].Revision {
			t.Errorf("watchers are at revision %d while the hook is told of %d", got, entries[0].Revision)
		}
	}})
	if err := s.Update(t.Context(), func(tx *store.Tx) error { tx.Append([]byte("{}")); return nil }); err != nil {
		t.Fatal(err)
	}
	if calls != 1 || s.Revision() != 1 {
		t.Errorf("%d calls of the hook, revision %d; want 1 and 1", calls, s.Revision())
	}
}

func TestWatchAfterOpen(t *testing.T) {
	p := path(t)
	s, err := store.Open(p, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	add := func(s *store.Store, text string) {
		if err := s.Update(ctx, func(tx *store.Tx) error { tx.Append([]byte(text)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"a", "b", "c"} {
		add(s, text)
	}
	s.Close()
	s = open(t, p, store.Options{})
	add(s, "d")
	for after, want := range map[uint64]string{0: "[1:a 2:b 3:c 4:d]", 2: "[3:c 4:d]", 3: "[4:d]"} {
		got, err := s.Watch(after).Next(ctx)
		if err != nil || fmt.Sprint(values(got)) != want {
			t.Errorf("Next after %d = %v, %v, want %s", after, values(got), err, want)
		}
	}
}

func TestOpenHeld(t *testing.T) {
	p := path(t)
	open(t, p, store.Options{})
	_, err := store.Open(p, store.Options{Timeout: 50 * time.Millisecond})
	if !errors.Is(err, store.ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(err.Error(), p) {
		t.Errorf("second Open = %v, want ErrHeld with the holder's pid and the file", err)
	}
}

func TestOpenNewerSchema(t *testing.T) {
	p := path(t)
	s, err := store.Open(p, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	db, err := bolt.Open(p, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte(strconv.Itoa(store.Schema+1)))
	}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := store.Open(p, store.Options{}); !errors.Is(err, store.ErrSchema) {
		t.Errorf("Open = %v, want ErrSchema", err)
	}
	if len(store.Damaged(p)) != 0 {
		t.Error("a newer database was put aside")
	}
}

func TestOpenDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":             func(b []byte) []byte { return nil },
		"text":              func(b []byte) []byte { return []byte(strings.Repeat("not a database\n", 1000)) },
		"one page":          func(b []byte) []byte { return b[:4096] },
		"cut off":           func(b []byte) []byte { return b[:3*4096] },
		"metas overwritten": func(b []byte) []byte { clear(b[:2*4096]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			p := path(t)
			s, err := store.Open(p, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				if err := s.Update(context.Background(), put(fmt.Sprint(i), strings.Repeat("v", 1000))); err != nil {
					t.Fatal(err)
				}
			}
			s.Close()
			whole, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			bad := damage(whole)
			if err := os.WriteFile(p, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = store.Open(p, store.Options{})
			if !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("Open = %v, want ErrDamaged", err)
			}
			aside := store.Damaged(p)
			if len(aside) != 1 || !strings.Contains(err.Error(), aside[0]) {
				t.Fatalf("put aside: %q, which the error must name: %v", aside, err)
			}
			kept, err := os.ReadFile(aside[0])
			if err != nil || string(kept) != string(bad) {
				t.Errorf("the damaged file was changed: %v", err)
			}
			if _, err := store.Open(p, store.Options{}); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), aside[0]) {
				t.Errorf("Open beside a damaged file = %v, want ErrDamaged with its name: an empty database would forget every node", err)
			}
			if err := os.Rename(aside[0], filepath.Join(t.TempDir(), "looked at")); err != nil {
				t.Fatal(err)
			}
			open(t, p, store.Options{})
		})
	}
}

// TestOpenOneMetaLost: bbolt has two meta pages so that a torn write of one is no damage.
func TestOpenOneMetaLost(t *testing.T) {
	for page := range int64(2) {
		p := path(t)
		s, err := store.Open(p, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(context.Background(), put("a", "1")); err != nil {
			t.Fatal(err)
		}
		s.Close()
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt(make([]byte, 100), page*4096)
		f.Close()
		open(t, p, store.Options{})
	}
}
