// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"provost/collector/internal/evidence"
	"provost/collector/internal/evidence/evidencetest"
)

// ledger is a receiver that commits facts and position together, as a store does it.
type ledger struct {
	mu       sync.Mutex
	position []byte
	seen     []string // the transaction number of each fact
	counts   evidence.Counts
	troubles []string
	blind    bool        // the last batch had a trouble
	refuse   func() bool // when a commit fails
}

var errCommit = errors.New("commit failed")

func (l *ledger) deliver(b evidence.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil && l.refuse() {
		return errCommit
	}
	for _, f := range b.Facts {
		l.seen = append(l.seen, f.XID)
	}
	l.counts = l.counts.Plus(b.Counts)
	if b.Position != nil {
		l.position = b.Position
	}
	if l.blind = b.Trouble != nil; l.blind {
		l.troubles = append(l.troubles, b.Trouble.Error())
	}
	return nil
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// eventually waits until something holds.
func (l *ledger) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		ok := holds()
		l.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: %d facts, troubles %q", what, l.len(), l.troubles)
		}
	}
}

// await waits until so many facts are in. Whether there are too many is seen after the source was stopped, by once.
func (l *ledger) await(t *testing.T, n int) {
	t.Helper()
	l.eventually(t, fmt.Sprintf("%d facts", n), func() bool { return len(l.seen) >= n })
}

// awaitTrouble waits until a trouble was told that has a text.
func (l *ledger) awaitTrouble(t *testing.T, text string) {
	t.Helper()
	l.eventually(t, text, func() bool {
		return slices.ContainsFunc(l.troubles, func(s string) bool { return strings.Contains(s, text) })
	})
}

// once says what is wrong if the facts are not 0 to n-1, each once. Two files of one log may be read side by side.
func (l *ledger) once(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := make([]int, n)
	for _, s := range l.seen {
		i, err := strconv.Atoi(s)
		if err != nil || i >= n {
			return fmt.Errorf("fact %q", s)
		}
		have[i]++
	}
	for i, k := range have {
		if k != 1 {
			return fmt.Errorf("line %d came %d times (%d of %d facts)", i, k, len(l.seen), n)
		}
	}
	return nil
}

func row(i int) string {
	return fmt.Sprintf("Nov 20 17:46:51 front dnsmasq-dhcp[1]: %d DHCPDISCOVER(br0) 52:54:00:77:00:01 \n", i)
}

func rows(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(row(i))
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// start runs a source until stop is called, which waits for its end and gives its error.
func start(s evidence.Source, l *ledger) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- s.Run(ctx, l.position, l.deliver) }()
	return func() error {
		cancel()
		return <-end
	}
}

func file(path string) *evidence.File {
	return &evidence.File{Path: path, FromStart: true, Poll: 5 * time.Millisecond, Settle: time.Second}
}

// TestRotationUnderLoad writes 5,000 lines a second over rotations, each with the old file written to for another 200 ms, while
// the follower is restarted from the committed position every 90 ms and a part of the commits fails.
func TestRotationUnderLoad(t *testing.T) {
	const n = 7000
	path := filepath.Join(t.TempDir(), "messages")
	l := &ledger{}
	tries := 0
	l.refuse = func() bool { tries++; return tries%7 == 3 }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			run, stop := context.WithTimeout(ctx, 90*time.Millisecond)
			if err := file(path).Run(run, l.position, l.deliver); err != nil && !errors.Is(err, errCommit) {
				t.Error(err)
			}
			stop()
		}
	}()
	evidencetest.Rotate(t, path, n, row)
	cancel()
	<-done
	l.refuse = nil
	stop := start(file(path), l)
	l.await(t, n)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := l.once(n); err != nil {
		t.Error(err)
	}
	if l.counts.Lines != n || l.counts.Known != n {
		t.Errorf("counts %+v of %d lines", l.counts, n)
	}
}

// TestLateChild rotates a log and lets a child of the daemon write to the old one long after, so that it is newer than the new
// one: while the follower holds it, while nobody reads, after the follower gave it up, and when it is compressed at last. Every
// line comes once.
func TestLateChild(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	old := path + ".1"
	l := &ledger{}
	source := func() *evidence.File {
		f := file(path)
		f.Settle, f.Linger = 20*time.Millisecond, 40*time.Millisecond
		return f
	}
	n := 0
	say := func(to string) {
		t.Helper()
		write(t, to, row(n))
		n++
	}
	halt := func(stop func() error) {
		t.Helper()
		l.await(t, n)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := l.once(n); err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, long, long); err != nil { // the new one is quiet
			t.Fatal(err)
		}
	}
	for range 50 {
		say(path)
	}
	patient := source()
	patient.Linger = time.Hour
	stop := start(patient, l)
	l.await(t, n)
	rename(t, path, old)
	say(path)
	l.await(t, n)
	say(old)
	halt(stop)
	say(old)
	stop = start(source(), l)
	l.await(t, n)
	for range 20 { // longer than it lingers; were it still held, that must do as well
		time.Sleep(10 * time.Millisecond)
		say(path)
		l.await(t, n)
	}
	halt(stop)
	if !strings.Contains(string(l.position), `"done":[{`) {
		t.Errorf("position %s knows nothing of the rotated file", l.position)
	}
	halt(start(source(), l))
	say(old)
	halt(start(source(), l))
	b, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(b)
	w.Close()
	write(t, old+".gz", packed.String()) // newer than all
	os.Remove(old)
	say(path)
	halt(start(source(), l))
	halt(start(source(), l))
	if len(l.troubles) > 0 {
		t.Errorf("troubles %q", l.troubles)
	}
}

// TestResume stops, rotates twice, compresses, and goes on: everything comes, once, and oldest first.
func TestResume(t *testing.T) {
	pack := map[string]func([]byte) []byte{
		"": nil,
		".gz": func(b []byte) []byte {
			var out bytes.Buffer
			w := gzip.NewWriter(&out)
			w.Write(b)
			w.Close()
			return out.Bytes()
		},
		".zst": func(b []byte) []byte {
			w, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			return w.EncodeAll(b, nil)
		},
	}
	if tool, err := exec.LookPath("xz"); err == nil {
		pack[".xz"] = func(b []byte) []byte {
			cmd := exec.Command(tool, "-c")
			cmd.Stdin = bytes.NewReader(b)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	for suffix, squeeze := range pack {
		for _, first := range []int{1, 100} { // below and above what the fingerprint covers
			t.Run(fmt.Sprintf("%d lines, rotated to .2%s", first, suffix), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "messages")
				l := &ledger{}
				write(t, path, rows(0, first))
				stop := start(file(path), l)
				l.await(t, first)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				write(t, path, rows(first, 200))
				rename(t, path, path+".1")
				write(t, path, rows(200, 300))
				rename(t, path+".1", path+".2")
				rename(t, path, path+".1")
				write(t, path, rows(300, 400))
				// Rotated files keep the time of their last line, in steps of a day.
				now := time.Now()
				if squeeze != nil {
					b, err := os.ReadFile(path + ".2")
					if err != nil {
						t.Fatal(err)
					}
					write(t, path+".2"+suffix, string(squeeze(b)))
					os.Remove(path + ".2")
				}
				os.Chtimes(path+".2"+suffix, now, now.Add(-48*time.Hour))
				os.Chtimes(path+".1", now, now.Add(-24*time.Hour))
				write(t, path+".3", rows(1000, 1001)) // older than all: read long ago
				os.Chtimes(path+".3", now, now.Add(-72*time.Hour))
				stop = start(file(path), l)
				l.await(t, 400)
				if err := stop(); err != nil {
					t.Error(err)
				}
				if err := l.once(400); err != nil {
					t.Error(err)
				}
				for i, s := range l.seen {
					if s != strconv.Itoa(i) {
						t.Fatalf("fact %d is %s: not in order", i, s)
					}
				}
				if len(l.troubles) > 0 {
					t.Errorf("troubles %q", l.troubles)
				}
				// And nothing twice after one more restart.
				stop = start(file(path), l)
				write(t, path, rows(400, 401))
				l.await(t, 401)
				stop()
			})
		}
	}
}

func TestLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	l := &ledger{}
	write(t, path, rows(0, 10))
	stop := start(file(path), l)
	l.await(t, 10)
	stop()
	os.Remove(path)
	write(t, path+".tmp", "") // so that the new file has another inode
	write(t, path, rows(10, 20))
	stop = start(file(path), l)
	l.await(t, 20)
	stop()
	if len(l.troubles) != 1 || !strings.Contains(l.troubles[0], "lines at its end may be lost") {
		t.Errorf("troubles %q, want one about lost lines", l.troubles)
	}
}

func TestCopyTruncate(t *testing.T) {
	for name, after := range map[string]string{"empty": "", "shorter, its begin the same": rows(0, 50), "longer by the time it is looked at": rows(500, 700)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "messages")
			l := &ledger{}
			write(t, path, rows(0, 100))
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			end := make(chan error, 1)
			go func() { end <- file(path).Run(ctx, nil, l.deliver) }()
			l.await(t, 100)
			var werr error
			if strings.HasPrefix(rows(0, 100), after) {
				werr = os.Truncate(path, int64(len(after)))
			} else {
				werr = os.WriteFile(path, []byte(after), 0o600) // O_TRUNC: the same inode
			}
			if werr != nil {
				t.Fatal(werr)
			}
			err := <-end
			var cut *evidence.TruncatedError
			if !errors.As(err, &cut) || !strings.Contains(cut.Hint(), "copytruncate") || cut.Path != path {
				t.Errorf("Run = %v, want a TruncatedError", err)
			}
			if l.len() != 100 {
				t.Errorf("%d facts, want the 100 of before", l.len())
			}
		})
	}
}

func TestFollowLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	l := &ledger{}
	stop := start(file(path), l) // not there yet
	l.awaitTrouble(t, "no such file")
	half := row(0)
	write(t, path, half[:20])
	time.Sleep(30 * time.Millisecond)
	if err := stop(); err != nil { // restarted in the middle of a line
		t.Fatal(err)
	}
	stop = start(file(path), l)
	time.Sleep(30 * time.Millisecond)
	write(t, path, half[20:])
	l.await(t, 1)
	// A line that never seems to end costs no memory and is one broken line, also over a restart.
	write(t, path, strings.Repeat("x", 3*evidence.MaxLine))
	time.Sleep(50 * time.Millisecond)
	stop()
	stop = start(file(path), l)
	write(t, path, strings.Repeat("y", evidence.MaxLine)+"\n"+row(1))
	l.await(t, 2)
	stop()
	if got := l.counts; got.Broken < 1 || got.Broken > 2 || got.Known != 2 || got.Unknown != 0 {
		t.Errorf("counts %+v, want two known and the long line broken", got)
	}
	if err := l.once(2); err != nil {
		t.Error(err)
	}

	dir := &ledger{}
	stop = start(file(filepath.Dir(path)), dir)
	dir.awaitTrouble(t, "no regular file")
	stop()
	if len(dir.troubles) != 1 || !strings.Contains(dir.troubles[0], "no regular file") {
		t.Errorf("following a directory: troubles %q, want one", dir.troubles)
	}
}

// TestFromEnd: what was there before is passed over, and nothing of what comes once the follower has begun.
func TestFromEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	write(t, path, rows(5000, 5004))
	l := &ledger{}
	s := file(path)
	s.FromStart = false
	stop := start(s, l)
	n := 0
	l.eventually(t, "a line", func() bool { // the first ones may come before it has begun
		write(t, path, row(n))
		n++
		return len(l.seen) > 0
	})
	l.eventually(t, "the last line", func() bool { return l.seen[len(l.seen)-1] == strconv.Itoa(n-1) })
	stop()
	first := n - len(l.seen)
	for i, s := range l.seen {
		if s != strconv.Itoa(first+i) {
			t.Fatalf("facts %q of lines 0 to %d, want the last ones", l.seen, n-1)
		}
	}
}
