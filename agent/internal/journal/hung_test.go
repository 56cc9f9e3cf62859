// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/journal"
	"provost/proto"
)

// TestHungDisk: the journal's own disk stops to answer in the middle of an append. Who appends waits for that once, and a
// bounded time; when the disk answers again nothing is missing, and nothing is out of order.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		answer := make(chan struct{})
		var told said
		dir := t.TempDir()
		j, err := journal.Open(dir, stampNow, journal.Options{Warn: told.warn, Crash: func(point string) {
			if point == "append-written" && hangs.CompareAndSwap(true, false) {
				<-answer
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		note := func(text string) (time.Duration, error) {
			begin := time.Now()
			_, err := j.Append(proto.Event{Kind: proto.KindNote, Message: text})
			return time.Since(begin), err
		}
		if _, err := note("0"); err != nil {
			t.Fatal(err)
		}
		hangs.Store(true)
		if took, err := note("1"); !errors.Is(err, journal.ErrHung) || took != 30*time.Second {
			t.Errorf("Append to a hung disk = %v after %s, want ErrHung after 30s", err, took)
		}
		for i := 2; i < 100; i++ {
			if took, err := note(fmt.Sprint(i)); !errors.Is(err, journal.ErrHung) || took != 0 {
				t.Errorf("Append number %d to a hung disk = %v after %s, want ErrHung at once", i, err, took)
			}
		}
		begin := time.Now()
		if last, err := j.Last(); last != 1 || !errors.Is(err, journal.ErrHung) || time.Since(begin) != 0 {
			t.Errorf("Last of a hung disk = %d, %v after %s, want 1 and ErrHung at once", last, err, time.Since(begin))
		}
		if _, err := j.Read(1, 10, 1<<20); !errors.Is(err, journal.ErrHung) {
			t.Errorf("Read of a hung disk = %v, want ErrHung", err)
		}
		if n := told.count("does not answer"); n != 1 {
			t.Errorf("it was said %d times, want once", n)
		}
		close(answer)
		synctest.Wait()
		if took, err := note("100"); err != nil || took != 0 {
			t.Errorf("Append to a disk that answers again = %v after %s", err, took)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		var got, want []string
		for r, err := range journal.Scan(dir + "/journal") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%d %s", r.Seq, r.Event.Message))
		}
		for i := range 101 {
			want = append(want, fmt.Sprintf("%d %d", i+1, i))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("records (-want +got):\n%s", d)
		}
	})
}

// TestHungDiskAtEnd: a disk that never answers keeps nobody from ending.
func TestHungDiskAtEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		j, err := journal.Open(t.TempDir(), stampNow, journal.Options{Crash: func(point string) {
			if point == "append-written" {
				<-answer
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := j.Append(proto.Event{Kind: proto.KindNote, Message: "1"}); !errors.Is(err, journal.ErrHung) {
			t.Errorf("Append = %v, want ErrHung", err)
		}
		if err := j.Close(); !errors.Is(err, journal.ErrHung) {
			t.Errorf("Close = %v, want ErrHung", err)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("both took %s, want 1 min at most", took)
		}
		close(answer)
		synctest.Wait()
	})
}
