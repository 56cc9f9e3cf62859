// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// TestPlansShareTheirSteps: what the database keeps of each install's plan does not grow with its steps, and an agent gets
// the whole of it, the same bytes each time.
func TestPlansShareTheirSteps(t *testing.T) {
	s := registrytest.New(t)
	var scripts []registrytest.Script
	for i := range 100 {
		scripts = append(scripts, registrytest.Script{Name: fmt.Sprintf("step-%d", i), Phase: proto.PhasePost, Body: "#!/bin/sh\n"})
	}
	p := registrytest.Prepared("compute", scripts...)
	p.Steps[7].SecretEnv = map[string]string{"PIN": "1234"}
	s.Profiles.Put("compute", p)
	var names []string
	for i := range byte(10) {
		names = append(names, fmt.Sprintf("n%d", i))
		s.Add(names[i], i)
	}
	if err := s.Order(ctx, names, proto.InstallOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	var files int
	err := s.Store.View(func(r *store.Reader) error {
		for _, name := range names {
			if n := len(r.Get(store.Plans, s.Seen(name).Install)); n == 0 || n > 200 {
				t.Errorf("of the plan of %s %d bytes are kept, want at most 200", name, n)
			}
		}
		r.Keys(store.Files, "", func(string) bool { files++; return true })
		return nil
	})
	if err != nil || files != 3 {
		t.Errorf("%d files, %v, want 3: a script, the recipe and the steps", files, err)
	}
	d := s.Script(registrytest.MAC(3))
	var first *proto.SignedPlan
	for restart := range 2 {
		a, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := proto.DecodePlan(a.Plan.Payload)
		if err != nil || len(got.Steps) != 100 || got.Steps[99].Name != "step-99" || got.Steps[7].SecretEnv["PIN"] != "1234" || got.Node != "n3" {
			t.Errorf("the plan of n3 = %+v, %v", got, err)
		}
		if a.Plan.Bare == nil || bytes.Contains(a.Plan.Bare.Payload, []byte("1234")) {
			t.Errorf("what a disk may keep of it = %+v", a.Plan.Bare)
		}
		if first == nil {
			first = a.Plan
		} else if !bytes.Equal(a.Plan.Payload, first.Payload) {
			t.Errorf("hello %d brings another plan:\n%s\n%s", restart, a.Plan.Payload, first.Payload)
		}
		s.Clock.Advance(time.Hour)
		s.Restart()
	}
}
