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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"provost/collector/internal/evidence"
)

// ledger is a receiver that commits facts and position together, as a store does it.
type ledger struct {
	mu       sync.Mutex
	position []byte
	seen     []string // the transaction number of each fact
	counts   evidence.Counts
	troubles []string
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
	if b.Trouble != nil {
		l.troubles = append(l.troubles, b.Trouble.Error())
	}
	return nil
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

// await waits at most ten seconds until so many facts are in, and a little longer for ones too many.
func (l *ledger) await(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); l.len() < n && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if got := l.len(); got != n {
		t.Fatalf("%d facts, want %d; troubles %q", got, n, l.troubles)
	}
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

// TestRotationUnderLoad writes 5,000 lines a second over three rotations, each with the old file written to for another
// 200 ms, while the follower is restarted from the committed position and a part of the commits fails.
func TestRotationUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	l := &ledger{}
	tries := 0
	l.refuse = func() bool { tries++; return tries%7 == 3 }
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // the collector: killed every 90 ms, and started again
		defer close(done)
		for last := false; !last; {
			select {
			case <-stop:
				last = true
			default:
			}
			d := 90 * time.Millisecond
			if last {
				d = 1500 * time.Millisecond
				l.mu.Lock()
				l.refuse = nil
				l.mu.Unlock()
			}
			ctx, cancel := context.WithTimeout(context.Background(), d)
			if err := file(path).Run(ctx, l.position, l.deliver); err != nil && !errors.Is(err, errCommit) {
				t.Error(err)
				last = true
			}
			cancel()
		}
	}()
	const perTick, tick = 25, 5 * time.Millisecond // 5,000 a second
	f := open()
	var old *os.File
	n, ticks := 0, 0
	pace := time.NewTicker(tick)
	defer pace.Stop()
	for ; ticks < 280; ticks++ {
		<-pace.C
		switch ticks % 80 {
		case 40:
			for k := 3; k > 0; k-- {
				os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1))
			}
			rename(t, path, path+".1")
			old = f
			f = open()
		case 0: // 40 ticks, 200 ms, later
			if old != nil {
				old.Close()
				old = nil
			}
		}
		w := f
		for i := range perTick {
			if old != nil && i%2 == 0 {
				w = old
			} else {
				w = f
			}
			if _, err := w.WriteString(row(n)); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	close(stop)
	<-done
	f.Close()
	if old != nil {
		old.Close()
	}
	if err := l.once(n); err != nil {
		t.Error(err)
	}
	if l.counts.Lines != int64(n) || l.counts.Known != int64(n) {
		t.Errorf("counts %+v of %d lines", l.counts, n)
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
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
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
	time.Sleep(30 * time.Millisecond)
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
	if len(l.troubles) == 0 || !strings.Contains(l.troubles[0], "no such file") {
		t.Errorf("troubles %q, want that the file was not there", l.troubles)
	}
	if err := l.once(2); err != nil {
		t.Error(err)
	}

	dir := &ledger{}
	stop = start(file(filepath.Dir(path)), dir)
	time.Sleep(30 * time.Millisecond)
	stop()
	if len(dir.troubles) != 1 || !strings.Contains(dir.troubles[0], "no regular file") {
		t.Errorf("following a directory: troubles %q, want one", dir.troubles)
	}
}

func TestFromEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	write(t, path, rows(5, 9))
	l := &ledger{}
	s := file(path)
	s.FromStart = false
	stop := start(s, l)
	time.Sleep(40 * time.Millisecond)
	write(t, path, rows(0, 2))
	l.await(t, 2)
	stop()
	if err := l.once(2); err != nil {
		t.Error(err)
	}
}
