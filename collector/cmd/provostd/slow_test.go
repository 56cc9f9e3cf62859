// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"provost/collector/internal/store"
)

// TestSlowDiskIsSaid: when more than one commit in a hundred takes too long, every status says so.
func TestSlowDiskIsSaid(t *testing.T) {
	t.Setenv("PROVOSTD_DIRS_CONFIG", t.TempDir())
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	settingsFlags(flags)
	for _, arg := range []string{"listen", "boot-listen"} {
		flags.String(arg, "", "")
		if err := flags.Set(arg, "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	if err := flags.Set("data", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	set, err := readSettings(flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), set, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	slow := func() bool { return strings.Contains(strings.Join(s.currentWarnings(), "\n"), "is slow: commits") }
	commit := func(lasts time.Duration) {
		t.Helper()
		err := s.store.Update(t.Context(), func(tx *store.Tx) error {
			time.Sleep(lasts) // within the commit, as the disk's part
			tx.Put(store.Settings, "test", []byte("x"))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	commit(0)
	if n := overSlow(s.store.Stats()); n == 0 && slow() {
		t.Errorf("no commit was slow, and the warnings are %q", s.currentWarnings())
	}
	commit(store.SlowCommit + 50*time.Millisecond)
	if !slow() {
		t.Errorf("after a slow commit the warnings are %q", s.currentWarnings())
	}
	if !strings.Contains(strings.Join(s.currentWarnings(), "\n"), set.Dirs.Data) {
		t.Errorf("the warning does not name the directory: %q", s.currentWarnings())
	}
}

// overSlow counts the commits that took longer than SlowCommit.
func overSlow(s store.Stats) (n uint64) {
	for i, c := range s.Commits {
		if i == len(store.CommitBounds) || store.CommitBounds[i] > store.SlowCommit.Seconds() {
			n += c
		}
	}
	return n
}
