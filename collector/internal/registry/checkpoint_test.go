// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// onceContext is over after its first look: what is cut off there stands for a crash.
type onceContext struct {
	context.Context
	looks int
}

func (c *onceContext) Err() error {
	if c.looks++; c.looks > 1 {
		return context.Canceled
	}
	return nil
}

// TestCheckpointCutOff: with some of the checkpoints written, a start still reads every event that is in none of them.
func TestCheckpointCutOff(t *testing.T) {
	s := registrytest.New(t)
	const n = 100 // more than one commit takes
	var names []string
	for i := range byte(n) {
		name := fmt.Sprintf("n%d", i)
		s.Add(name, i)
		names = append(names, name)
	}
	if err := s.Order(ctx, names, proto.InstallOrder{Label: "x"}, "op"); err != nil {
		t.Fatal(err)
	}
	for i := range byte(n) {
		s.Script(registrytest.MAC(i))
	}
	want := s.Nodes(names)
	s.Checkpoint(&onceContext{Context: ctx})
	s.Restart()
	if diff := cmp.Diff(want, s.Nodes(names)); diff != "" {
		t.Errorf("after a cut (-want +got):\n%.2000s", diff)
	}
	s.Checkpoint(ctx)
	s.Script(registrytest.MAC(3)) // nothing new
	s.Restart()
	if diff := cmp.Diff(want, s.Nodes(names)); diff != "" {
		t.Errorf("after all checkpoints (-want +got):\n%.2000s", diff)
	}
	id := want[3].Install
	if got := kinds(t, s, "n3", id); !cmp.Equal(got, []string{"ordered", "attempt:bootscript-sent"}) {
		t.Errorf("the events of a checkpointed install = %v", got)
	}
}

// TestTrimWaitsForCheckpoints: the feed keeps what is in no checkpoint, however old it is, since a start reads on from there.
func TestTrimWaitsForCheckpoints(t *testing.T) {
	s := registrytest.New(t)
	for i := range byte(3) {
		s.Add(fmt.Sprintf("n%d", i), i)
		s.Ordered(fmt.Sprintf("n%d", i))
		s.Script(registrytest.MAC(i))
	}
	retain(t, s, 1) // marks the time
	s.Clock.Advance(registry.DefaultFeed + time.Hour)
	s.Ordered("n0") // there is a newer event
	retain(t, s, 3)
	if first := s.FirstRevision(); first != 1 {
		t.Errorf("without a checkpoint the feed begins with revision %d, want 1", first)
	}
	installs := func() map[string]any { // the week without a word counts as a downtime, which moves deadlines
		all := everything(t, s)
		maps.DeleteFunc(all, func(k string, _ any) bool { return !strings.Contains(k, "/") })
		return all
	}
	want := installs()
	s.Checkpoint(ctx)
	retain(t, s, 3)
	if first := s.FirstRevision(); first <= 1 {
		t.Errorf("with all in checkpoints the feed begins with revision %d: nothing was trimmed, this test shows nothing", first)
	}
	s.Restart()
	if diff := cmp.Diff(want, installs()); diff != "" {
		t.Errorf("after the trim and a restart (-want +got):\n%.2000s", diff)
	}
}

// TestCheckpointWhileEventsCome: what is committed while the checkpoints are being written is in none of them, and is read
// again at the next start.
func TestCheckpointWhileEventsCome(t *testing.T) {
	s := registrytest.New(t)
	for i := range byte(2) {
		s.Add(fmt.Sprintf("n%d", i), i)
		s.Ordered(fmt.Sprintf("n%d", i))
	}
	s.Checkpoint(ctx)
	s.Script(registrytest.MAC(0)) // this one waits for a checkpoint
	once := sync.OnceFunc(func() { s.Script(registrytest.MAC(1)) })
	s.Checkpoint(busyContext{ctx, once})
	want := s.Nodes([]string{"n0", "n1"})
	if want[1].Attempt != 1 {
		t.Fatal("the event in the middle did not come: the test cannot fail")
	}
	s.Restart()
	if diff := cmp.Diff(want, s.Nodes([]string{"n0", "n1"})); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}
