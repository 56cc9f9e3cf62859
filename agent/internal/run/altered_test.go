// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"provost/agent/internal/proc"
	"provost/agent/internal/run"
	"provost/proto"
)

// TestAlteredScript: what runs is what the plan names. A script of which any byte was altered after it was fetched, or that has
// bytes more or fewer, is refused before any of it runs.
func TestAlteredScript(t *testing.T) {
	const text = "#!/bin/sh\n: > \"$MARK\"\n"
	try := func(altered []byte) (run.Result, bool) {
		b := newBench(t)
		mark, limit, no := filepath.Join(b.state, "ran"), proto.Duration(time.Minute), false
		s := b.script(proto.Step{Name: "a", Timeout: &limit, Chroot: &no, Env: map[string]string{"MARK": mark}}, text)
		b.plan.Steps = []proto.Step{s}
		if err := os.WriteFile(filepath.Join(b.state, "files", s.Digest), altered, 0o755); err != nil {
			t.Fatal(err)
		}
		j := b.journal()
		defer j.Close()
		d := b.deps(j)
		d.Exec = proc.Run
		r, err := run.Run(t.Context(), d, b.opts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(mark)
		return r, err == nil
	}
	if r, ran := try([]byte(text)); r.Outcome != proto.OutcomeOK || !ran {
		t.Fatalf("the script as it should be: %+v, ran %t", r, ran)
	}
	cases := [][]byte{[]byte(text + "#"), []byte(text[:len(text)-1]), nil}
	for i := range text {
		b := []byte(text)
		b[i] ^= 1 << (i % 8)
		cases = append(cases, b)
	}
	for _, b := range cases {
		if r, ran := try(b); r.Cause == nil || r.Cause.Outcome != proto.OutcomePreflight || ran {
			t.Errorf("the script %q: %+v, ran %t, want it refused", b, r.Cause, ran)
		}
	}
}
