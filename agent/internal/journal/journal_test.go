// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"provost/agent/internal/journal"
	"provost/proto"
)

const (
	boot1 = "11111111-1111-1111-1111-111111111111"
	boot2 = "22222222-2222-2222-2222-222222222222"
)

// TestMain lets this program be another agent process: PROVOST_TEST_APPEND is "DIR NAME COUNT", a count of 0 is for ever.
func TestMain(m *testing.M) {
	if job := os.Getenv("PROVOST_TEST_APPEND"); job != "" {
		f := strings.Fields(job)
		n, _ := strconv.Atoi(f[2])
		if err := appendMany(f[0], f[1], n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// appendMany appends records and prints the number of each as soon as it is acknowledged.
func appendMany(dir, name string, n int) error {
	j, err := journal.Open(dir, stampOf(boot1), journal.Options{})
	if err != nil {
		return err
	}
	for i := 1; n == 0 || i <= n; i++ {
		e, err := j.Append(note(fmt.Sprintf("%s %d", name, i)))
		if err != nil {
			return err
		}
		fmt.Println(e.Seq, e.Message)
	}
	return j.Close()
}

func another(t *testing.T, dir, name string, n int) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("PROVOST_TEST_APPEND=%s %s %d", dir, name, n))
	cmd.Stderr = os.Stderr
	return cmd
}

func stampOf(boot string) journal.Stamp {
	begin := time.Now()
	return func() (time.Time, string, time.Duration) { return time.Now(), boot, time.Since(begin) }
}

func note(msg string) proto.Event { return proto.Event{Kind: proto.KindNote, Message: msg} }

func open(t *testing.T, dir string, opts journal.Options) *journal.Journal {
	t.Helper()
	return openBoot(t, dir, boot1, opts)
}

func openBoot(t *testing.T, dir, boot string, opts journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir, stampOf(boot), opts)
	if err != nil {
		t.Fatalf("Open(%s): %v", dir, err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return j
}

func add(t *testing.T, j *journal.Journal, msgs ...string) {
	t.Helper()
	for _, m := range msgs {
		if _, err := j.Append(note(m)); err != nil {
			t.Fatalf("Append(%q): %v", m, err)
		}
	}
}

type reader interface {
	Read(uint64, int, int) ([]journal.Record, error)
}

// messages reads a journal from its first record, and checks that the numbers have no gap.
func messages(t *testing.T, j reader) []string {
	t.Helper()
	rs, err := j.Read(1, 1<<20, 1<<30)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	var out []string
	for i, r := range rs {
		if r.Seq != uint64(i+1) || r.Event.Seq != r.Seq {
			t.Fatalf("record %d has number %d, and %d inside", i+1, r.Seq, r.Event.Seq)
		}
		out = append(out, r.Event.Message)
	}
	return out
}

func lines(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("record %d", i+1))
	}
	return out
}

func firstSegment(dir string) string {
	return filepath.Join(dir, "journal", fmt.Sprintf("%020d.log", 1))
}

func TestAppendAndRead(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{Install: "01J00000000000000000000000"})
	if last, err := j.Last(); last != 0 || err != nil {
		t.Errorf("Last of an empty journal = %d, %v, want 0", last, err)
	}
	e, err := j.Append(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "s", Try: 1, Outcome: proto.OutcomeFailed, Exit: 3, Tail: []string{"a\x1b[0m", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if e.Seq != 1 || e.Journal != j.ID() || e.Boot != boot1 || e.Time.IsZero() || e.Install == "" || e.Source != proto.SourceAgent {
		t.Errorf("Append gave %+v", e)
	}
	if err := e.CheckAgent(); err != nil {
		t.Errorf("the collector would refuse it: %v", err)
	}
	rs, err := j.Read(1, 10, 1<<20)
	if err != nil || len(rs) != 1 {
		t.Fatalf("Read = %d records, %v", len(rs), err)
	}
	if d := cmp.Diff(e, rs[0].Event); d != "" {
		t.Errorf("read (-appended +read):\n%s", d)
	}
	again := open(t, dir, journal.Options{})
	if again.ID() != j.ID() {
		t.Errorf("the id changed from %s to %s", j.ID(), again.ID())
	}
	add(t, again, "second")
	if last, _ := j.Last(); last != 2 {
		t.Errorf("Last = %d after another handle's append, want 2", last)
	}
}

func TestReadLimits(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	add(t, j, lines(10)...)
	for _, tt := range []struct {
		from          uint64
		events, bytes int
		want          int
	}{{1, 3, 1 << 20, 3}, {9, 100, 1 << 20, 2}, {11, 100, 1 << 20, 0}, {500, 1, 1, 0}, {1, 100, 1, 1}, {0, 2, 1 << 20, 2}} {
		rs, err := j.Read(tt.from, tt.events, tt.bytes)
		if err != nil || len(rs) != tt.want {
			t.Errorf("Read(%d, %d, %d) = %d records, %v, want %d", tt.from, tt.events, tt.bytes, len(rs), err, tt.want)
		}
	}
}

// TestLimitsOfProtocol: whatever a script prints, the collector takes the record.
func TestLimitsOfProtocol(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	tail := make([]string, 40)
	for i := range tail {
		tail[i] = strings.Repeat("\x01", 5000)
	}
	e, err := j.Append(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "s", Try: 1, Outcome: proto.OutcomeFailed,
		Message: strings.Repeat("\xffé", 4000), Tail: tail})
	if err != nil {
		t.Fatal(err)
	}
	rs, err := j.Read(1, 1, 1)
	if err != nil || len(rs) != 1 {
		t.Fatal(rs, err)
	}
	if len(rs[0].Raw) > proto.MaxEventSize || len(e.Tail) == 0 || rs[0].Event.CheckAgent() != nil {
		t.Errorf("record of %d bytes with %d lines of tail: %v", len(rs[0].Raw), len(e.Tail), rs[0].Event.CheckAgent())
	}
}

func TestSegments(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{MaxBytes: 64 << 20})
	long := strings.Repeat("x", 2000)
	const n = 1200 // some 2.6 MB
	for i := range n {
		if _, err := j.Append(proto.Event{Kind: proto.KindStepStart, Phase: proto.PhasePost, Step: "s", Try: i + 1, Message: long}); err != nil {
			t.Fatal(err)
		}
	}
	segs, _ := filepath.Glob(filepath.Join(dir, "journal", "*.log"))
	if len(segs) != 3 {
		t.Errorf("%d segments, want 3", len(segs))
	}
	if got := len(messages(t, j)); got != n {
		t.Errorf("%d records, want %d", got, n)
	}
	for _, from := range []uint64{1, 460, 470, 900, 1199, 1200} {
		rs, err := j.Read(from, 2, 1<<20)
		if err != nil || rs[0].Seq != from {
			t.Errorf("Read(%d) begins with %v, %v", from, rs, err)
		}
	}
	// A segment in the middle vanishes: every record of it is stated as lost.
	if err := os.Remove(segs[1]); err != nil {
		t.Fatal(err)
	}
	got := messages(t, j)
	lost := 0
	for _, m := range got {
		if strings.Contains(m, "is lost") {
			lost++
		}
	}
	if len(got) != n || lost < 300 {
		t.Errorf("without its middle: %d records, %d stated as lost", len(got), lost)
	}
}

// TestTornTail cuts the last record at every byte: it is gone, the others are there, and the next one takes its number.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	add(t, j, "one", "two", "three")
	whole, err := os.ReadFile(firstSegment(dir))
	if err != nil {
		t.Fatal(err)
	}
	id := j.ID()
	keep := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := 0; cut < len(whole); cut++ {
		if err := os.WriteFile(firstSegment(dir), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(dir, stampOf(boot1), journal.Options{})
		if err != nil {
			t.Fatalf("cut at %d: Open: %v", cut, err)
		}
		if len(j.Damage()) != 0 {
			t.Fatalf("cut at %d: a torn tail counts as damage: %v", cut, j.Damage())
		}
		add(t, j, "new")
		got := messages(t, j)
		want := []string{"one", "two", "three"}[:bytes.Count(whole[:max(cut, 1)], []byte{'\n'})-min(1, bytes.Count(whole[:cut], []byte{'\n'}))]
		if d := cmp.Diff(append(slices.Clone(want), "new"), got); d != "" {
			t.Fatalf("cut at %d (-want +got):\n%s", cut, d)
		}
		if cut >= keep && j.ID() != id {
			t.Fatalf("cut at %d: the id changed", cut)
		}
		j.Close()
	}
}

// TestDamage is the table of what can happen to the middle of a journal.
func TestDamage(t *testing.T) {
	lineAt := func(b []byte, n int) (int, int) { // line n, from 0 for the header
		start := 0
		for range n {
			start += bytes.IndexByte(b[start:], '\n') + 1
		}
		return start, start + bytes.IndexByte(b[start:], '\n')
	}
	for _, tt := range []struct {
		name   string
		break_ func(b []byte) []byte
		lost   []int // record numbers that are notes now
		damage int   // what Open reports
	}{
		{"nothing", func(b []byte) []byte { return b }, nil, 0},
		{"a flipped bit in a text", func(b []byte) []byte { s, e := lineAt(b, 3); b[(s+e)/2] ^= 1; return b }, []int{3}, 1},
		{"a flipped bit in a checksum", func(b []byte) []byte { s, _ := lineAt(b, 2); b[s] ^= 1; return b }, []int{2}, 1},
		{"a checksum in capitals", func(b []byte) []byte { s, _ := lineAt(b, 2); copy(b[s:], "ABCDEF01"); return b }, []int{2}, 1},
		{"a newline became a blank", func(b []byte) []byte { _, e := lineAt(b, 2); b[e] = ' '; return b }, []int{2, 3}, 1},
		{"a blank became a newline", func(b []byte) []byte { s, _ := lineAt(b, 4); b[s+8] = '\n'; return b }, []int{4}, 2},
		{"a line twice", func(b []byte) []byte {
			s, e := lineAt(b, 2)
			return slices.Concat(b[:e+1], b[s:e+1], b[e+1:])
		}, nil, 1},
		{"a line is gone", func(b []byte) []byte { s, e := lineAt(b, 2); return slices.Concat(b[:s], b[e+1:]) }, []int{2}, 0},
		{"a hole of zeros", func(b []byte) []byte { s, _ := lineAt(b, 2); _, e := lineAt(b, 4); clear(b[s:e]); return b }, []int{2, 3, 4}, 1},
		{"garbage between", func(b []byte) []byte {
			_, e := lineAt(b, 3)
			return slices.Concat(b[:e+1], []byte("garbage\n\n\xff\x00\n"), b[e+1:])
		}, nil, 3},
		{"the header", func(b []byte) []byte { b[3] ^= 1; return b }, nil, 1},
		{"the last line", func(b []byte) []byte { s, _ := lineAt(b, 6); b[s+20] ^= 1; return b }, []int{6}, 1},
		{"an empty line at the end", func(b []byte) []byte { return append(b, '\n') }, []int{7}, 1},
		{"all records", func(b []byte) []byte {
			for i := 1; i <= 6; i++ {
				s, _ := lineAt(b, i)
				b[s] = 'x'
			}
			return b
		}, []int{1, 2, 3, 4, 5, 6}, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, journal.Options{})
			add(t, j, lines(6)...)
			b, err := os.ReadFile(firstSegment(dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(firstSegment(dir), tt.break_(b), 0o600); err != nil {
				t.Fatal(err)
			}
			j2 := open(t, dir, journal.Options{})
			if got := len(j2.Damage()); got != tt.damage {
				t.Errorf("%d damages, want %d: %v", got, tt.damage, j2.Damage())
			}
			for _, d := range j2.Damage() {
				var ce *journal.CorruptionErr
				if !errors.As(d, &ce) || ce.File != firstSegment(dir) || ce.Offset < 0 || ce.Offset > int64(len(b)) {
					t.Errorf("damage %#v has no place", d)
				}
			}
			before := messages(t, j2)
			for range 2 { // what is read does not change when records follow
				got := messages(t, j2)
				if len(got) < len(before) || !slices.Equal(before, got[:len(before)]) {
					t.Fatalf("reading again gave %q, first %q", got, before)
				}
				for i, m := range got {
					lost := slices.Contains(tt.lost, i+1)
					if lost != strings.Contains(m, "is lost") {
						t.Errorf("record %d is %q, lost = %v wanted", i+1, m, lost)
					}
				}
				add(t, j2, "after")
			}
			if j2.ID() != j.ID() {
				t.Errorf("id changed")
			}
			rs, _ := j2.Read(1, 100, 1<<20)
			for _, r := range rs {
				if err := r.Event.CheckAgent(); err != nil && tt.name != "all records" {
					t.Errorf("the collector would refuse record %d: %v", r.Seq, err)
				}
			}
		})
	}
}

func TestNothingLegible(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "journal"), 0o700)
	if err := os.WriteFile(firstSegment(dir), []byte("what is\nthis\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir, journal.Options{})
	add(t, j, "first")
	if d := cmp.Diff([]string{"first"}, messages(t, j)); d != "" {
		t.Error(d)
	}
	kept, _ := filepath.Glob(filepath.Join(dir, "journal.damaged-*", "*.log"))
	if len(kept) != 1 || len(j.Damage()) == 0 {
		t.Errorf("kept %v, damage %v", kept, j.Damage())
	}
}

func TestNewerVersion(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "journal"), 0o700)
	line := journal.Frame(`{"journal":"0123456789abcdef","first":1,"version":2}`)
	if err := os.WriteFile(firstSegment(dir), line, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(dir, stampOf(boot1), journal.Options{}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("Open = %v, want a word on the newer version", err)
	}
}

// TestSeveralWriters: four processes append at once; every record is there once, in one row.
func TestSeveralWriters(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	const writers, each = 4, 40
	var cmds []*exec.Cmd
	for w := range writers {
		cmd := another(t, dir, fmt.Sprintf("w%d", w), each)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for i := range each {
		add(t, j, fmt.Sprintf("me %d", i+1))
	}
	for _, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	next := map[string]int{}
	got := messages(t, j)
	for _, m := range got {
		name, num, _ := strings.Cut(m, " ")
		next[name]++
		if strconv.Itoa(next[name]) != num {
			t.Errorf("%s where %d is due", m, next[name])
		}
	}
	if len(got) != (writers+1)*each {
		t.Errorf("%d records, want %d", len(got), (writers+1)*each)
	}
	if last, err := j.Last(); err != nil || last != uint64(len(got)) {
		t.Errorf("Last = %d, %v, want %d", last, err, len(got))
	}
}

// TestKill kills a writer at any moment: what it acknowledged is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	var acknowledged []string
	for i := range 15 {
		cmd := another(t, dir, fmt.Sprintf("k%d", i), 0)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killing := false
		for sc := bufio.NewScanner(out); sc.Scan(); { // from its first word on, so that a slow machine sees the same
			if acknowledged = append(acknowledged, sc.Text()); !killing {
				killing = true
				time.AfterFunc(time.Duration(3*i)*time.Millisecond, func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		add(t, j, "between")
	}
	got := messages(t, j)
	for _, a := range acknowledged {
		num, msg, _ := strings.Cut(a, " ")
		n, err := strconv.Atoi(num)
		if err != nil {
			continue // the printing itself was cut
		}
		if n < 1 || n > len(got) || !strings.HasPrefix(got[n-1], msg) {
			t.Fatalf("acknowledged record %q is not there", a)
		}
	}
	if len(acknowledged) < 15 {
		t.Errorf("15 writers acknowledged %d records", len(acknowledged))
	}
	if again := open(t, dir, journal.Options{}); len(again.Damage()) != 0 {
		t.Errorf("kills damaged the journal: %v", again.Damage())
	}
}

func TestBudget(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{MaxBytes: 4 << 20})
	long := strings.Repeat("y", proto.MaxMessage)
	var err error
	for i := 0; i < 2000 && err == nil; i++ {
		_, err = j.Append(note(long))
	}
	if !errors.Is(err, journal.ErrBudget) {
		t.Fatalf("a flood of notes ended with %v, want ErrBudget", err)
	}
	if _, err := j.Append(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "s", Try: 1, Outcome: proto.OutcomeOK}); err != nil {
		t.Errorf("a step's end beyond the budget: %v", err)
	}
}
