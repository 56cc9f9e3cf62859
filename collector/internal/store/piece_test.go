// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
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

// keysOfLog gives how many keys and how many events the log of a closed database has.
func keysOfLog(t *testing.T, path string) (keys, events int) {
	t.Helper()
	r, err := store.Check(path)
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("Check = %+v, %v", r, err)
	}
	for k := range contents(t, path) {
		if strings.HasPrefix(k, "events/") {
			keys++
		}
	}
	return keys, r.Events
}

// TestPieces: whatever is appended and trimmed, in commits of any size, the log is what a list would be, for every reader, also
// after it was opened again, and in a backup.
func TestPieces(t *testing.T) {
	few(t, 25)
	inPieces := 0
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		p := filepath.Join(dir, "provost.db")
		ctx := context.Background()
		s, err := store.Open(p, store.Options{LongView: func(time.Duration) {}})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		var want []string // of revision i+1; those before first were trimmed
		first := uint64(1)
		look := func(rt *rapid.T) {
			if s.First() != first || s.Revision() != uint64(len(want)) {
				rt.Fatalf("the log has %d to %d, want %d to %d", s.First(), s.Revision(), first, len(want))
			}
			after := first - 1 + uint64(rapid.IntRange(0, len(want)-int(first)+1).Draw(rt, "after"))
			got, err := s.Events(after, rapid.SampledFrom([]int{1, 7, 256, 1 << 20}).Draw(rt, "max"))
			if err != nil || len(got) == 0 && after < uint64(len(want)) {
				rt.Fatalf("Events after %d = %d, %v", after, len(got), err)
			}
			for i, e := range got {
				if rev := after + 1 + uint64(i); e.Revision != rev || string(e.Value) != want[rev-1] {
					rt.Fatalf("Events after %d: number %d is %d", after, i, e.Revision)
				}
			}
			at := uint64(rapid.IntRange(0, len(want)+1).Draw(rt, "revision"))
			err = s.View(func(r *store.Reader) error {
				b := r.Event(at)
				if there := at >= first && at <= uint64(len(want)); there != (b != nil) || there && string(b) != want[at-1] {
					rt.Fatalf("event %d of %d to %d = %.20q", at, first, len(want), b)
				}
				return nil
			})
			if err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": look,
			"append": func(rt *rapid.T) {
				n := rapid.SampledFrom([]int{1, 3, 5, 100, 700}).Draw(rt, "events")
				size := rapid.SampledFrom([]int{1, 40, 500, 9000, 70_000}).Draw(rt, "bytes")
				n = min(n, 1<<20/size)
				err := s.Update(ctx, func(tx *store.Tx) error {
					for i := range n {
						v := bytes.Repeat([]byte{byte('a' + len(want)%26)}, 1+(size*(i%3+1))/3)
						if rev := tx.Append(v); rev != uint64(len(want)+1) || string(tx.Event(rev)) != string(v) {
							return fmt.Errorf("Append = %d with %d events", rev, len(want))
						}
						want = append(want, string(v))
					}
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
			"trim": func(rt *rapid.T) {
				upTo := uint64(rapid.IntRange(0, len(want)+1).Draw(rt, "up to"))
				max := rapid.SampledFrom([]int{1, 50, 1000}).Draw(rt, "max")
				n := 0
				if end := min(upTo, uint64(len(want))-min(uint64(len(want)), 1)); end >= first {
					n = min(max, int(end-first+1))
				}
				got, err := s.Trim(ctx, upTo, max)
				if err != nil || got != n {
					rt.Fatalf("Trim(%d, %d) of %d to %d = %d, %v, want %d", upTo, max, first, len(want), got, err, n)
				}
				first += uint64(n)
			},
			"open again": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				keys, events := keysOfLog(t, p)
				if want := len(want) - int(first) + 1; events != want {
					rt.Fatalf("Check counts %d events, want %d", events, want)
				}
				if keys < events {
					inPieces++
				}
				if s, err = store.Open(p, store.Options{LongView: func(time.Duration) {}}); err != nil {
					rt.Fatal(err)
				}
			},
			"backup": func(rt *rapid.T) {
				name := filepath.Join(dir, "backup")
				defer os.Remove(name)
				rev, err := s.Backup(ctx, name)
				if err != nil || rev != uint64(len(want)) {
					rt.Fatalf("Backup = %d, %v, want %d", rev, err, len(want))
				}
				if _, events := keysOfLog(t, name); events != len(want)-int(first)+1 {
					rt.Fatalf("the backup has %d events, want %d", events, len(want)-int(first)+1)
				}
			},
		})
	})
	if inPieces == 0 {
		t.Error("no database had a piece")
	}
}

// TestPiecesAreFew: a large commit is a key for many events, and a small one fills its page.
func TestPiecesAreFew(t *testing.T) {
	p := path(t)
	s := open(t, p, store.Options{})
	add := func(events, size int) {
		t.Helper()
		err := s.Update(context.Background(), func(tx *store.Tx) error {
			for range events {
				tx.Append(bytes.Repeat([]byte("e"), size))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add(2000, 500)
	before, err := s.Size()
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		add(1, 500)
	}
	after, err := s.Size()
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown > 1_000_000 {
		t.Errorf("1000 commits of one event of 500 bytes took %d bytes", grown)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if keys, events := keysOfLog(t, p); events != 3000 || keys > 1000+2000/100+10 {
		t.Errorf("%d events have %d keys", events, keys)
	}
}

// TestDamagedPiece: a piece that does not hold together is told by Check, and readers get an error, not a wrong event.
func TestDamagedPiece(t *testing.T) {
	be := binary.BigEndian
	sound := []byte{1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 'a', 'b', 'c'}
	for name, damage := range map[string]func(b []byte) []byte{
		"":                 func(b []byte) []byte { return b },
		"unknown form":     func(b []byte) []byte { b[0] = 2; return b },
		"cut in its head":  func(b []byte) []byte { return b[:4] },
		"no events":        func(b []byte) []byte { be.PutUint32(b[1:], 0); return b },
		"too many events":  func(b []byte) []byte { be.PutUint32(b[1:], 1<<30); return b },
		"an end too far":   func(b []byte) []byte { be.PutUint32(b[9:], 4); return b },
		"an empty event":   func(b []byte) []byte { be.PutUint32(b[5:], 0); return b },
		"ends backwards":   func(b []byte) []byte { be.PutUint32(b[5:], 3); be.PutUint32(b[9:], 2); return b },
		"bytes at its end": func(b []byte) []byte { return append(b, 'x') },
		"a gap behind it":  func(b []byte) []byte { be.PutUint32(b[1:], 1); return append(b[:5], 0, 0, 0, 1, 'a') },
	} {
		t.Run(name, func(t *testing.T) {
			p := path(t)
			s, err := store.Open(p, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			appendN(t, s, 1)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := bolt.Open(p, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bolt.Tx) error {
				b := tx.Bucket([]byte("events"))
				if err := b.Put(be.AppendUint64(nil, 2), damage(bytes.Clone(sound))); err != nil {
					return err
				}
				return b.Put(be.AppendUint64(nil, 4), []byte("d"))
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := store.Check(p)
			if err != nil || (len(r.Problems) > 0) != (name != "") {
				t.Errorf("Check = %+v, %v", r, err)
			}
			if s, err = store.Open(p, store.Options{}); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got, err := s.Events(0, 10)
			if name == "" && (err != nil || fmt.Sprint(values(got)) != "[1:event 1 2:a 3:bc 4:d]") {
				t.Errorf("Events = %v, %v", values(got), err)
			}
			for i, e := range got {
				if want := []string{"event 1", "a", "bc", "d"}; e.Revision > 4 || string(e.Value) != want[e.Revision-1] {
					t.Errorf("event %d is number %d with %q", e.Revision, i, e.Value)
				}
			}
			if name != "" && name != "a gap behind it" && err == nil {
				t.Error("Events told nothing")
			}
		})
	}
}
