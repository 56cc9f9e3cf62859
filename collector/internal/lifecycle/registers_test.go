// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/collector/internal/lifecycle"
	"provost/proto"
)

// TestRegisters: they hold and write what a map would, and read what it wrote.
func TestRegisters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]int{}
		var got lifecycle.Registers[int]
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			key, v := rapid.SampledFrom([]string{"", "a", "b", "pre/a", "post/a", "<é>\u2028", "\"\n", "\xff"}).Draw(t, "key"), rapid.Int().Draw(t, "value")
			want[key] = v
			got.Put(key, v)
		}
		for key, v := range want {
			if g, ok := got.Get(key); !ok || g != v {
				t.Fatalf("%q = %d, %v, want %d", key, g, ok, v)
			}
		}
		if _, ok := got.Get("nobody"); ok || len(got) != len(want) {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		delete(want, "\xff") // no JSON can tell it
		got = nil
		for key, v := range want {
			got.Put(key, v)
		}
		a, errA := json.Marshal(map[string]any{"x": got})
		b, errB := json.Marshal(map[string]any{"x": want})
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Fatalf("JSON %s, %v; of a map %s, %v", a, errA, b, errB)
		}
		var back struct {
			X lifecycle.Registers[int] `json:"x"`
		}
		if err := json.Unmarshal(b, &back); err != nil || len(back.X) != len(got) || len(got) > 0 && cmp.Diff(got, back.X) != "" {
			t.Fatalf("read back: %v, %v, want %v", back.X, err, got)
		}
	})
}

// TestPosOfCheckpoints: a place is read as every version has written it, and is none if there was none.
func TestPosOfCheckpoints(t *testing.T) {
	const text = `{"at":"2026-11-29T01:02:03.004Z","source":"agent","journal":"00000000000000a1","seq":7}`
	var p lifecycle.Pos
	if err := json.Unmarshal([]byte(text), &p); err != nil || !p.At().Equal(time.Date(2026, 11, 29, 1, 2, 3, 4e6, time.UTC)) || p.Source() != proto.SourceAgent {
		t.Errorf("%s = %v %s, %v", text, p.At(), p.Source(), err)
	}
	if b, err := json.Marshal(p); err != nil || string(b) != text {
		t.Errorf("written again: %s, %v, want %s", b, err, text)
	}
	var none lifecycle.Pos
	if b, err := json.Marshal(none); err != nil || json.Unmarshal(b, &p) != nil || p.Compare(none) != 0 || !p.At().IsZero() || p.Source() != "" {
		t.Errorf("none = %s, %v; read back %v", b, err, p)
	}
}

// TestFoldsAreSmall: ten thousand installs that are under way have their folds in memory.
func TestFoldsAreSmall(t *testing.T) {
	const n, most = 500, 5 << 10 // bytes each, for 14 stages and 23 steps
	folds := make([]lifecycle.State, n)
	size := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	words := map[string]string{}
	word := func(format string, a ...any) string { // of each there is one copy, as of what the registry applies
		w := fmt.Sprintf(format, a...)
		if words[w] == "" {
			words[w] = w
		}
		return words[w]
	}
	apply := func(s *lifecycle.State, i int) {
		for j := range 60 {
			e := proto.Event{Kind: proto.KindStage, Source: proto.SourceAgent, Journal: word("%016x", i), Seq: uint64(j + 1), At: time.UnixMilli(int64(1e12 + j)),
				Boot: word("%08x-0000-4000-8000-000000000001", i)}
			if j < 14 {
				e.Stage = proto.Stages[j]
			} else {
				e.Kind, e.Phase, e.Step, e.Try, e.Outcome = proto.KindStepEnd, proto.PhasePost, word("step-%d", j/2%23), 1, proto.OutcomeOK
			}
			s.Apply(&e)
		}
	}
	for i := range n { // the words
		apply(new(lifecycle.State), i)
	}
	before := size()
	for i := range folds {
		apply(&folds[i], i)
	}
	each := (size() - before) / n
	t.Logf("%d bytes each", each)
	if each > most {
		t.Errorf("a fold takes %d bytes, want at most %d", each, most)
	}
	runtime.KeepAlive(folds)
}
