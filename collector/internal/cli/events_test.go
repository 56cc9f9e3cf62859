// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/proto"
)

// shared is what a program writes while a test reads it.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *shared) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !strings.Contains(s.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in 60 s: %q", text, s.String())
		}
	}
}

// TestEventsResume: a collector that goes away and comes back leaves nothing out and repeats nothing.
func TestEventsResume(t *testing.T) {
	f := small()
	var asked []string
	note := func(rev uint64) string {
		return frame(proto.Event{Kind: proto.KindNote, Source: proto.SourceAgent, Seq: rev, Node: "n2", Revision: rev, Message: fmt.Sprintf("note %d", rev), At: before("1m")})
	}
	f.feed = func(n int, from string) (string, bool, *proto.Problem) {
		asked = append(asked, from)
		switch n {
		case 1:
			return "id: 10\n\n", false, nil
		case 2:
			return note(11) + note(12) + note(13)[:20], false, nil
		case 3, 4:
			return "", false, proto.NewProblem(503, proto.CodeBusy, "later", "")
		case 5:
			return "id: 12\n\n" + note(13), false, nil
		case 6:
			return "", false, proto.NewProblem(410, proto.CodeGone, "13 is of another database", "")
		}
		return "id: 20\n\n" + note(21), true, nil
	}
	start(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs shared
	p := program(nil, nil, "PROVOST_SERVER="+f.server())
	p.Stdout, p.Stderr = &out, &errs
	code := make(chan int)
	go func() { code <- p.Run(ctx, []string{"events"}) }()
	out.await(t, "note 21")
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("events, interrupted: exit status %d, want 0", got)
	}
	if want := []string{"", "10", "12", "12", "12", "13", ""}; !slices.Equal(asked, want) {
		t.Errorf("the feed was asked for from %q, want %q", asked, want)
	}
	for _, rev := range []int{11, 12, 13, 21} {
		if n := strings.Count(out.String(), fmt.Sprintf("note %d\n", rev)); n != 1 {
			t.Errorf("note %d stands %d times in\n%s", rev, n, out.String())
		}
	}
	for _, want := range []string{"waiting for it", "answers again, after 3 requests", "13 is of another database; some events were missed; going on"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("stderr lacks %q:\n%s", want, errs.String())
		}
	}
}
