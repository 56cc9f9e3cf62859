// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"provost/collector/internal/store"
)

// eventOf is the event of a revision, in the tests of large commits.
func eventOf(revision uint64) []byte {
	return append(strconv.AppendUint(nil, revision, 10), bytes.Repeat([]byte("."), 300+int(revision%7)*50)...)
}

// largeCommits appends in pieces and singly, moves a value between two buckets, and trims, until it passes a place for the n-th
// time: there it kills itself. It prints what was acknowledged, and before a trim what that may take. Arguments: place, n, database.
func largeCommits(args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(n)
	s, err := store.Open(args[2], store.Options{Point: func(at string) {
		if at == args[0] && left.Add(-1) == 0 {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for round := 0; ; round++ {
		events := []int{1, 400, 3, 150}[round%4]
		last := uint64(0)
		err := s.Update(ctx, func(tx *store.Tx) error {
			from, to := store.States, store.Packed
			if round%2 == 1 {
				from, to = to, from
			}
			tx.Delete(from, "moved")
			tx.Put(to, "moved", []byte("x"))
			for range events {
				last = tx.Append(eventOf(tx.NextRevision()))
			}
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Println("ACK", last)
		if upTo := last - min(last, 333); round%3 == 2 && upTo > 0 {
			fmt.Println("TRIM", upTo)
			if _, err := s.Trim(ctx, upTo, 250); err != nil {
				return err
			}
		}
	}
}

// TestKilledAtPoints kills a writer of large commits at every named place: what was acknowledged and not trimmed is there, whole.
func TestKilledAtPoints(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	times := []int{1, 7}
	if os.Getenv("PROVOST_SOAK") == "1" {
		times = []int{1, 2, 3, 4, 5, 6, 7, 8, 20, 50, 100, 200}
	}
	p := path(t)
	acked, trimmed := uint64(0), uint64(0)
	writer, _ := store.Points()
	for _, point := range writer {
		for _, n := range times {
			cmd := exec.Command(self, point, fmt.Sprint(n), p)
			cmd.Env = append(os.Environ(), helperEnv+"=large")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			giveUp := time.AfterFunc(2*time.Minute, func() { cmd.Process.Signal(unix.SIGTERM) })
			for lines := bufio.NewScanner(out); lines.Scan(); {
				f := strings.Fields(lines.Text())
				if len(f) != 2 || f[0] != "ACK" && f[0] != "TRIM" {
					t.Fatalf("%s %d: the writer says %q", point, n, lines.Text())
				}
				rev, err := strconv.ParseUint(f[1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				if f[0] == "ACK" {
					acked = rev
				} else {
					trimmed = rev
				}
			}
			giveUp.Stop()
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.String() != "signal: killed" {
				t.Fatalf("%s %d: the writer ended with %v, want by its own hand", point, n, err)
			}
			acked = look(t, fmt.Sprintf("%s %d", point, n), p, acked, trimmed)
		}
	}
	if trimmed == 0 {
		t.Error("nothing was trimmed: the test shows little")
	}
}

// look wants the events from behind trimmed, or before, to acked, or the one commit after it, and one value in two buckets. It gives
// the last revision.
func look(t *testing.T, what, path string, acked, trimmed uint64) uint64 {
	t.Helper()
	check(t, path)
	r, err := store.Check(path)
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("%s: %+v, %v", what, r, err)
	}
	s, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	if s.First() > trimmed+1 || s.Revision() < acked || s.Revision() > acked+400 {
		t.Errorf("%s: the log has %d to %d, want from %d at most to %d, or one commit more", what, s.First(), s.Revision(), trimmed+1, acked)
	}
	for after := s.First() - 1; after < s.Revision(); {
		entries, err := s.Events(after, 1000)
		if err != nil || len(entries) == 0 {
			t.Fatalf("%s: events after %d: %d, %v", what, after, len(entries), err)
		}
		for _, e := range entries {
			if after++; e.Revision != after || !bytes.Equal(e.Value, eventOf(after)) {
				t.Fatalf("%s: event %d is %d, %.20q", what, after, e.Revision, e.Value)
			}
		}
	}
	var values int
	err = s.View(func(r *store.Reader) error {
		for _, b := range []store.Bucket{store.States, store.Packed} {
			if r.Get(b, "moved") != nil {
				values++
			}
		}
		return nil
	})
	if err != nil || values > 1 || values == 0 && acked > 0 {
		t.Errorf("%s: the value that is moved is there %d times, %v", what, values, err)
	}
	return s.Revision()
}

// TestLogKilledAtPoints: what of a log was acknowledged is there, whole, whatever of the next chunk is.
func TestLogKilledAtPoints(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, logs := store.Points()
	for _, point := range logs {
		for _, n := range []int{1, 5} {
			dir := t.TempDir()
			cmd := exec.Command(self, point, fmt.Sprint(n), dir)
			cmd.Env = append(os.Environ(), helperEnv+"=logs")
			out, err := cmd.Output()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.String() != "signal: killed" {
				t.Fatalf("%s %d: the writer ended with %v\n%s", point, n, err, out)
			}
			sizes := map[string]int64{}
			for line := range strings.Lines(string(out)) {
				f := strings.Fields(line)
				if sizes[f[0]], err = strconv.ParseInt(f[1], 10, 64); err != nil {
					t.Fatal(err)
				}
			}
			l, err := store.OpenLogs(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			list, err := l.List("install")
			if err != nil {
				t.Fatal(err)
			}
			for _, log := range list {
				if log.Size < sizes[log.Name] || log.Size > sizes[log.Name]+100 {
					t.Errorf("%s %d: %s has %d bytes, %d were acknowledged", point, n, log.Name, log.Size, sizes[log.Name])
				}
				if _, err := l.Append("install", log.Name, log.Size, []byte("x")); err != nil {
					t.Errorf("%s %d: going on with %s: %v", point, n, log.Name, err)
				}
				delete(sizes, log.Name)
			}
			if len(sizes) > 0 {
				t.Errorf("%s %d: acknowledged and not there: %v", point, n, sizes)
			}
		}
	}
}

// logChunks appends to logs until it passes a place for the n-th time, and prints what was acknowledged.
func logChunks(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	l, err := store.OpenLogs(args[2])
	if err != nil {
		return err
	}
	l.SetPoint(func(at string) {
		if at == args[0] {
			if n--; n == 0 {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}
	})
	for i := 0; ; i++ {
		name := fmt.Sprintf("log%d", i)
		for size := int64(0); size < 300; {
			if size, err = l.Append("install", name, size, make([]byte, 100)); err != nil {
				return err
			}
			fmt.Println(name, size)
		}
	}
}
