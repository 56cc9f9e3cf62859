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

// TestReplacedStepsGo: once a retry has brought a new plan, the database has no secret of the one before.
func TestReplacedStepsGo(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	plan := func(secret string) {
		p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\n"})
		p.Steps[0].SecretEnv = map[string]string{"PIN": secret}
		s.Profiles.Put("compute", p)
	}
	plan("the-old-secret")
	id := s.Ordered("n1")
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(1))); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(2 * time.Minute)
	send(t, s, id, event(1, proto.KindAgentStart, 1), event(2, proto.KindHold, 1, func(e *proto.Event) { e.Failed, e.Message = true, "step one failed" }))
	retain(t, s, 1) // nothing else that was noted before is why it looks
	plan("the-new-secret")
	if changed, err := s.Retry(ctx, []string{"n1"}, proto.NodeOrder{}, "op"); err != nil || len(changed) != 1 {
		t.Fatalf("the retry = %+v, %v, want a new plan", changed, err)
	}
	retain(t, s, 1)
	if b := raw(t, s); bytes.Contains(b, []byte("the-old-secret")) || !bytes.Contains(b, []byte("the-new-secret")) {
		t.Errorf("the compacted database has the old secret: %v, the new one: %v", bytes.Contains(b, []byte("the-old-secret")), bytes.Contains(b, []byte("the-new-secret")))
	}
}
