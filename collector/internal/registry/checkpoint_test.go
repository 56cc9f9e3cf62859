// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
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
