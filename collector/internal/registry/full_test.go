// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// limitFiles bounds the size of every file that this process writes, which is what a full disk is to it.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = min(bytes, l.Max)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: while nothing can be written, nothing of what is refused is ever seen; with room again, all goes on.
func TestFullDisk(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(1))); err != nil {
		t.Fatal(err)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbForce, proto.NodeOrder{Step: "all"}, "op"); err != nil {
		t.Fatal(err)
	}
	orders := beat(t, s, id)
	info, err := os.Stat(filepath.Join(s.Dir, "provost.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer limitFiles(t, unix.RLIM_INFINITY)
	limitFiles(t, uint64(info.Size()))
	long := strings.Repeat("x", proto.MaxMessage)
	next, acknowledge := uint64(1), false
	batch := func() error {
		var events []proto.Event
		for i := range uint64(400) {
			events = append(events, event(next+i, proto.KindNote, 1, func(e *proto.Event) { e.Message = long }))
		}
		if acknowledge {
			events[0].Kind, events[0].Order, events[0].OrderID = proto.KindOrder, string(proto.VerbForce), orders[0].ID
		}
		a, err := s.Events(ctx, id, request(id, registrytest.Journal, events...))
		if err == nil {
			next = a.Next
		}
		return err
	}
	for err = nil; err == nil && next < 100_000; {
		err = batch()
	}
	if !errors.Is(err, store.ErrStorage) {
		t.Fatalf("at event %d: %v, want ErrStorage", next, err)
	}
	before := s.Seen("n1")
	big := strings.Repeat("y", 4000)
	attrs := map[string]string{}
	for i := range 500 {
		attrs["k"+strings.Repeat("a", i%60)+string(rune('a'+i%26))] = big
	}
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, store.ErrStorage) {
			t.Errorf("%s on a full disk = %v, want ErrStorage", what, err)
		}
	}
	acknowledge = true
	full("events", batch())
	acknowledge = false
	_, err = s.AddNode(ctx, proto.NodeSpec{Name: "n2", MACs: []string{registrytest.MAC(2)}, Attrs: attrs})
	full("a new node", err)
	if _, err := s.Node("n2"); code(err) != proto.CodeUnknownNode {
		t.Errorf("a node that was refused is seen: %v", err)
	}
	if diff := cmp.Diff(before, s.Seen("n1")); diff != "" {
		t.Errorf("what was refused changed the node (-before +after):\n%s", diff)
	}
	limitFiles(t, unix.RLIM_INFINITY)
	if err := batch(); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbHold, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	if got := beat(t, s, id); len(got) != 2 || got[0].ID != orders[0].ID {
		t.Errorf("orders = %+v, want force, whose acknowledgement was refused, and hold", got)
	}
	s.Add("n2", 2) // its MAC is free as well
	want := s.Seen("n1")
	s.Restart()
	if diff := cmp.Diff(want, s.Seen("n1")); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if a := send(t, s, id); a.Next != next {
		t.Errorf("next = %d, want %d", a.Next, next)
	}
}
