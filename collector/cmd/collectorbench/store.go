// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"provost/collector/internal/store"
)

// eventSize is that of an event of these figures, as PERFORMANCE.md has it.
const eventSize = 500

// rate lets callers work, each on one thing after the other, and gives what they did a second: events of each call. The first
// fifth of the time does not count.
func rate(ctx context.Context, calls []func() error, events int, length time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, length+length/5)
	defer cancel()
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for _, call := range calls {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := call(); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				count.Add(int64(events))
			}
		})
	}
	time.Sleep(length / 5)
	before, begin := count.Load(), time.Now()
	<-ctx.Done()
	n, took := count.Load()-before, time.Since(begin)
	wg.Wait()
	if e := failed.Load(); e != nil {
		return 0, *e
	}
	return float64(n) / took.Seconds(), nil
}

// appenders are callers that append one event after the other.
func appenders(callers int, add func(event []byte) error) []func() error {
	calls := make([]func() error, callers)
	for i := range calls {
		event := []byte(strings.Repeat("e", eventSize))
		calls[i] = func() error { return add(event) }
	}
	return calls
}

// storeFigures are P1 to P3.
func storeFigures(ctx context.Context, o *options, t *table) error {
	for _, f := range []struct {
		id      string
		callers int
		target  float64
	}{{"P1", 2000, 0.70}, {"P2", 256, 0.60}} {
		if !o.wants(f.id) {
			continue
		}
		err := t.measure(ctx, figure{id: f.id, name: fmt.Sprintf("store, %d callers / plain file", f.callers), unit: "events/s", target: f.target,
			ours:   func(ctx context.Context) (float64, error) { return o.emptyStore(ctx, f.id, f.callers) },
			theirs: func(ctx context.Context) (float64, error) { return o.plainFile(ctx, f.callers) }})
		if err != nil {
			return err
		}
	}
	if o.wants("P3") {
		return o.growth(ctx, t)
	}
	return nil
}

func openStore(dir string) (*store.Store, error) {
	return store.Open(filepath.Join(dir, "provost.db"), store.Options{Log: slog.New(slog.DiscardHandler)})
}

func (o *options) scratch() (string, error) { return os.MkdirTemp(o.dir, "") }

func (o *options) emptyStore(ctx context.Context, id string, callers int) (float64, error) {
	dir, err := o.scratch()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	s, err := openStore(dir)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	runtime.GC()
	v := 0.0
	err = o.profiled(id, func() (err error) { v, err = rate(ctx, appenders(callers, adder(s)), 1, o.length); return err })
	return v, err
}

func adder(s *store.Store) func([]byte) error {
	return func(event []byte) error {
		return s.Update(context.Background(), func(tx *store.Tx) error { tx.Append(event); return nil })
	}
}

// growth compares the rate of a store with many events with that of an empty one.
func (o *options) growth(ctx context.Context, t *table) error {
	dir, err := o.scratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	events := o.scaled(2_000_000)
	s, err := openStore(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	event := []byte(strings.Repeat("e", eventSize))
	for n := 0; n < events; n += 10_000 {
		if err := s.Update(ctx, func(tx *store.Tx) error {
			for range 10_000 {
				tx.Append(event)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("filling a store: %w", err)
		}
	}
	return t.measure(ctx, figure{id: "P3", name: fmt.Sprintf("store with %s events / empty", number(float64(events))), unit: "events/s", target: 0.95,
		ours: func(ctx context.Context) (float64, error) {
			runtime.GC()
			return rate(ctx, appenders(2000, adder(s)), 1, o.length)
		},
		theirs: func(ctx context.Context) (float64, error) { return o.emptyStore(ctx, "P3", 2000) }})
}

// plainFile is what no store can beat: a file that only grows, written by one goroutine, one write and one fdatasync for all
// that wait.
func (o *options) plainFile(ctx context.Context, callers int) (float64, error) {
	f, err := os.CreateTemp(o.dir, "file-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	runtime.GC()
	g := &groupFile{f: f, wake: make(chan struct{}, 1), quit: make(chan struct{}), next: &fileGroup{done: make(chan struct{})}}
	var wg sync.WaitGroup
	wg.Go(g.write)
	v, err := rate(ctx, appenders(callers, g.append), 1, o.length)
	close(g.quit)
	wg.Wait()
	return v, err
}

// groupFile writes what its callers append, in groups.
type groupFile struct {
	f    *os.File
	wake chan struct{}
	quit chan struct{}
	mu   sync.Mutex
	next *fileGroup
}

type fileGroup struct {
	events [][]byte
	done   chan struct{}
	err    error
}

func (g *groupFile) append(event []byte) error {
	g.mu.Lock()
	b := g.next
	b.events = append(b.events, event)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	<-b.done
	return b.err
}

func (g *groupFile) write() {
	var buf []byte
	for {
		select {
		case <-g.wake:
		case <-g.quit:
			return
		}
		runtime.Gosched()
		g.mu.Lock()
		b := g.next
		g.next = &fileGroup{done: make(chan struct{}), events: make([][]byte, 0, len(b.events))}
		g.mu.Unlock()
		buf = buf[:0]
		for _, e := range b.events {
			buf = append(buf, e...)
		}
		if len(buf) > 0 {
			_, err := g.f.Write(buf)
			b.err = errors.Join(err, unix.Fdatasync(int(g.f.Fd())))
		}
		close(b.done)
	}
}
