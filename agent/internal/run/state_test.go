// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"provost/agent/internal/run"
	"provost/proto"
)

// TestStateIsNeverTorn: whoever reads the state while it is written gets one that was, and none of two halves.
func TestStateIsNeverTorn(t *testing.T) {
	dir := t.TempDir()
	f := run.NewStateFile(dir, proto.PhasePre, boot1)
	quit := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				s, err := run.ReadState(dir)
				if err != nil || s.Step != strings.Repeat("s", s.Try) || s.Message != strings.Repeat("m", 10*s.Try) {
					t.Errorf("ReadState = %+v, %v: not what was written", s, err)
					return
				}
			}
		})
	}
	for i := range 20000 {
		f.Set(func(s *run.State) {
			s.Try = i % 50
			s.Step, s.Message = strings.Repeat("s", s.Try), strings.Repeat("m", 10*s.Try)
		})
	}
	close(quit)
	readers.Wait()
}

// TestStateComesBack: a step that removes the agent's files hides the run for no longer than until the next word of it.
func TestStateComesBack(t *testing.T) {
	dir := t.TempDir()
	f := run.NewStateFile(dir, proto.PhasePre, boot1)
	path := filepath.Join(dir, "run.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.Set(func(s *run.State) { s.Step = "a long name" })
	f.Set(func(s *run.State) { s.Step = "b" })
	if s, err := run.ReadState(dir); err != nil || s.Step != "b" {
		t.Errorf("ReadState = %+v, %v, want step b", s, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[3] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := run.ReadState(dir); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("ReadState of a damaged file = %+v, %v", s, err)
	}
}
