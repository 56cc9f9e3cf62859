// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"provost/collector/internal/store"
)

// takeAway makes every write to a file fail that this process has open for writing, as a disk that fails would: behind its
// descriptor there is one for reading from then on.
func takeAway(path string) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if target, linkErr := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || linkErr != nil || target != path {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC)
	}
	return errors.New("nobody has " + path + " open for writing")
}

func appendTo(s *store.Store, text string) error {
	return s.Update(context.Background(), func(tx *store.Tx) error {
		tx.Append([]byte(text))
		tx.Put(store.Nodes, "last", []byte(text))
		return nil
	})
}

// until gives something a minute.
func until(what string, ok func() bool) error {
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waiting for %s: a minute is over", what)
		}
	}
	return nil
}

// past makes a database at path that has only the first of some commits, and gives the bytes of the file after all of them.
func past(t *testing.T, path, first string, others ...string) (after []byte) {
	t.Helper()
	s, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := appendTo(s, first); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range others {
		if err := appendTo(s, text); err != nil {
			t.Fatal(err)
		}
	}
	if after, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), os.Remove(path), os.WriteFile(path, before, 0o600)); err != nil {
		t.Fatal(err)
	}
	return after
}

// breakIt makes the disk of a store fail, until mend is called, and lets it find out.
func breakIt(t *testing.T, s *store.Store) (mend func()) {
	t.Helper()
	gate := fmt.Sprintf("%s.new-%d", s.Path(), os.Getpid()) // where the store tries whether the disk takes anything
	if err := os.Mkdir(gate, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := takeAway(s.Path()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := appendTo(s, "refused"); !errors.Is(err, store.ErrStorage) || errors.Is(err, store.ErrFull) {
			t.Errorf("a write that the disk refuses = %v, want ErrStorage and not ErrFull", err)
		}
	}
	return func() {
		if err := os.Remove(gate); err != nil {
			t.Fatal(err)
		}
	}
}

// overwrite gives a file other bytes in the same place.
func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestRecover: after a failure the store takes nothing until the disk does; then it goes on from the last commit that was
// confirmed, also when the refused one came to the disk all the same.
func TestRecover(t *testing.T) {
	for _, leftBehind := range []bool{false, true} {
		t.Run(fmt.Sprintf("left behind %v", leftBehind), func(t *testing.T) {
			p := path(t)
			after := past(t, p, "a", "refused")
			s := open(t, p, store.Options{Retry: 5 * time.Millisecond})
			lost := 0
			s.SetHooks(store.Hooks{Lost: func() { lost++ }})
			mend := breakIt(t, s)
			if lost != 1 || s.Err() == nil || s.Trouble() == nil || get(t, s, "last") != "a" {
				t.Errorf("broken: lost %d times, %v, %v, last %q", lost, s.Err(), s.Trouble(), get(t, s, "last"))
			}
			if leftBehind { // as if the flush of the refused commit had failed, and all of it had come to the disk
				overwrite(t, p, after)
			}
			mend()
			waitFor(t, "the store to recover", func() bool { return s.Err() == nil && s.Trouble() == nil })
			if got := get(t, s, "last"); got != "a" || s.Revision() != 1 {
				t.Errorf("recovered: last %q, revision %d, want a and 1", got, s.Revision())
			}
			if err := appendTo(s, "b"); err != nil {
				t.Fatal(err)
			}
			events, err := s.Events(0, 10)
			if err != nil || fmt.Sprint(values(events)) != "[1:a 2:b]" || lost != 1 {
				t.Errorf("events = %v, %v, lost %d times", values(events), err, lost)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, p, store.Options{})
			if s.Revision() != 2 || get(t, s, "last") != "b" {
				t.Errorf("opened again: revision %d, last %q", s.Revision(), get(t, s, "last"))
			}
		})
	}
}

// TestRecoverChanged: a file that is not what memory has, by more than the refused commit, is left alone. Nothing is taken then.
func TestRecoverChanged(t *testing.T) {
	p := path(t)
	after := past(t, p, "a", "refused", "foreign")
	var tries atomic.Int64
	s, err := store.Open(p, store.Options{Retry: 5 * time.Millisecond, Log: slog.New(counting{slog.DiscardHandler, &tries})})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mend := breakIt(t, s)
	overwrite(t, p, after)
	mend()
	seen := tries.Load()
	waitFor(t, "some tries more", func() bool { return tries.Load() > seen+2 })
	if err := appendTo(s, "b"); !errors.Is(err, store.ErrStorage) {
		t.Errorf("Update = %v, want ErrStorage", err)
	}
}

// counting counts the attempts that failed.
type counting struct {
	slog.Handler
	n *atomic.Int64
}

func (c counting) Enabled(context.Context, slog.Level) bool { return true }

func (c counting) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "opening the database again" {
		c.n.Add(1)
	}
	return nil
}

// TestMounts: a file system that is full, then one that is read-only, and each time all goes on without a restart.
func TestMounts(t *testing.T) {
	cmd := helper(t, "mounts", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Start()
	if errors.Is(err, unix.EPERM) {
		t.Skip("this machine lets nobody but root mount, not even in a namespace of its own")
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil || !strings.HasSuffix(out.String(), "DONE\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// mounts is TestMounts, in a namespace of its own.
func mounts(dir string) error {
	mount := func(flags uintptr, size int) error {
		return unix.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%dm,mode=700", size))
	}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), mount(0, 8)); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	var tries atomic.Int64
	db := filepath.Join(dir, "provost.db")
	s, err := store.Open(db, store.Options{Retry: 5 * time.Millisecond, Log: slog.New(counting{slog.DiscardHandler, &tries})})
	if err != nil {
		return err
	}
	acked := 0
	write := func() error {
		err := appendTo(s, fmt.Sprintf("%d %s", acked+1, strings.Repeat("x", 50_000)))
		if err == nil {
			acked++
		}
		return err
	}
	all := func(when string) error {
		if s.Revision() != uint64(acked) {
			return fmt.Errorf("%s: revision %d, %d were acknowledged", when, s.Revision(), acked)
		}
		for after := 0; after < acked; {
			entries, err := s.Events(uint64(after), 50)
			if err != nil || len(entries) == 0 {
				return fmt.Errorf("%s: %d events after %d, %w", when, len(entries), after, err)
			}
			for _, e := range entries {
				after++
				if !strings.HasPrefix(string(e.Value), fmt.Sprint(after, " ")) {
					return fmt.Errorf("%s: event %d is %.10q", when, after, e.Value)
				}
			}
		}
		return nil
	}

	for err == nil && acked < 1000 {
		err = write()
	}
	for i := range 20 {
		if !errors.Is(err, store.ErrFull) || !errors.Is(s.Trouble(), store.ErrFull) || s.Err() != nil {
			return fmt.Errorf("full, refusal %d: %w, trouble %w, %w, want ErrFull and nothing worse", i, err, s.Trouble(), s.Err())
		}
		if i > 0 && !strings.Contains(err.Error(), "no room") {
			return fmt.Errorf("full, refusal %d: %w: the engine was asked again", i, err)
		}
		if err := s.Update(context.Background(), func(*store.Tx) error { return nil }); err != nil {
			return fmt.Errorf("a call that writes nothing, while full: %w", err)
		}
		err = write()
	}
	if err := all("full"); err != nil {
		return err
	}
	if err := mount(unix.MS_REMOUNT, 16); err != nil {
		return fmt.Errorf("making room: %w", err)
	}
	if err := write(); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := all("with room again"); err != nil {
		return err
	}

	// The kernel makes a file system that failed read-only while files are open for writing, and mount(2) does not: the database's
	// descriptor is taken away, and over the directory comes the same one, read-only.
	if err := takeAway(db); err != nil {
		return err
	}
	over := func(flags uintptr) error { return unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "") }
	if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), over(unix.MS_RDONLY)); err != nil {
		return fmt.Errorf("mounting read-only: %w", err)
	}
	for range 3 {
		if err := write(); !errors.Is(err, store.ErrStorage) || errors.Is(err, store.ErrFull) {
			return fmt.Errorf("read-only: %w, want ErrStorage and not ErrFull", err)
		}
	}
	if err := until("some tries", func() bool { return tries.Load() > 3 }); err != nil {
		return err
	}
	if err := all("read-only"); err != nil {
		return err
	}
	if s.Err() == nil {
		return errors.New("read-only, and nothing is told of it")
	}
	if err := over(0); err != nil {
		return fmt.Errorf("remounting for writing: %w", err)
	}
	if err := until("the store to recover", func() bool { return s.Err() == nil }); err != nil {
		return err
	}
	if err := write(); err != nil {
		return fmt.Errorf("for writing again: %w", err)
	}
	if err := all("for writing again"); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	r, err := store.Check(db)
	if err != nil || len(r.Problems) > 0 || r.Events != acked {
		return fmt.Errorf("in the end: %+v, %w", r, err)
	}
	fmt.Println("DONE")
	return nil
}
