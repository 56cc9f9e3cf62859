// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// resting is how many installs are at rest.
func resting(t testing.TB, s *registrytest.Site) string {
	t.Helper()
	var b bytes.Buffer
	s.WriteMetrics(&b)
	m := regexp.MustCompile(`(?m)^provost_installs_resting (\d+)$`).FindStringSubmatch(b.String())
	if m == nil {
		t.Fatalf("no number of installs at rest in %s", b.String())
	}
	return m[1]
}

// TestRest: of an install that has ended only its status stays in memory, and nobody sees a difference; a late event finds
// everything that was there, and so does a record that was sent twice.
func TestRest(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	old := installed(t, s, "n1", mac, 1)
	installed(t, s, "n1", mac, 1)
	want := everything(t, s)
	same := func(when, count string) {
		t.Helper()
		if got := resting(t, s); got != count {
			t.Errorf("%s: %s installs are at rest, want %s", when, got, count)
		}
		if diff := cmp.Diff(want, everything(t, s)); diff != "" {
			t.Errorf("%s (-want +got):\n%.2000s", when, diff)
		}
	}
	retain(t, s, 4)
	same("with events that are in no checkpoint", "0")
	s.Checkpoint(ctx)
	retain(t, s, 2)
	same("checkpointed", "1")
	s.Restart()
	same("after a restart", "2")
	if a := send(t, s, old, event(3, proto.KindSealed, 1)); a.Next != 4 {
		t.Errorf("a record that is there: next = %d, want 4", a.Next)
	}
	same("after a record that is there", "1")
	retain(t, s, 3)
	same("once more", "2")
	if a := send(t, s, old, event(4, proto.KindNote, 1)); a.Next != 5 {
		t.Errorf("a late event: next = %d, want 5", a.Next)
	}
	late := kinds(t, s, "n1", old)
	s.Restart() // the event is in no checkpoint
	if got := kinds(t, s, "n1", old); !cmp.Equal(got, late) {
		t.Errorf("after a restart = %v, want %v", got, late)
	}
	if a := send(t, s, old, event(5, proto.KindNote, 1)); a.Next != 6 {
		t.Errorf("the next one: next = %d, want 6", a.Next)
	}
}

// TestOtherRules: what another version has concluded is not believed. Its checkpoints are written anew, once.
func TestOtherRules(t *testing.T) {
	s := registrytest.New(t)
	s.Script(s.Add("n1", 1))
	id := s.Ordered("n1")
	want := s.Seen("n1")
	s.Checkpoint(ctx)
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		b := string(tx.Get(store.States, id))
		other := strings.Replace(b, `"revision":`, `"by":"another","revision":`, 1)
		if b = strings.Replace(other, `"status":"ordered"`, `"status":"booted"`, 1); b == other {
			return fmt.Errorf("the checkpoint has no status: %s", b)
		}
		tx.Put(store.States, id, []byte(b))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Restart()
	if diff := cmp.Diff(want, s.Seen("n1")); diff != "" {
		t.Errorf("by another's checkpoint (-want +got):\n%s", diff)
	}
	if got := resting(t, s); got != "0" {
		t.Errorf("%s installs are at rest, want none", got)
	}
	s.Checkpoint(ctx)
	s.Restart()
	if got := resting(t, s); got != "1" {
		t.Errorf("%s installs are at rest after a checkpoint of our own, want 1", got)
	}
	s.Clock.Advance(time.Minute)
	if diff := cmp.Diff(want, s.Seen("n1")); diff != "" {
		t.Errorf("by a checkpoint of our own (-want +got):\n%s", diff)
	}
}

// TestSharedSteps: the steps of an install are kept once for all of the same plan, the scripts of a plan that was replaced can
// still be fetched, and all that after a restart.
func TestSharedSteps(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Add("n2", 2)
	a, b := s.Ordered("n1"), s.Ordered("n2")
	digest := s.Profiles.All["compute"].Steps[0].Digest
	err := s.Store.View(func(r *store.Reader) error {
		for _, id := range []string{a, b} {
			if v := r.Get(store.Installs, id); bytes.Contains(v, []byte(digest)) {
				t.Errorf("install %s has its steps in its record: %s", id, v)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range []string{a, b} {
			if got, err := s.File(id, digest); err != nil || string(got) != "#!/bin/sh\necho one\n" {
				t.Errorf("File(%s) = %q, %v", id, got, err)
			}
		}
		in, err := s.Install("n2", b)
		if err != nil || len(in.Steps) != 1 || in.Steps[0].Name != "one" {
			t.Errorf("steps = %+v, %v, want one", in.Steps, err)
		}
		retain(t, s, 1) // which removes what nobody names
		s.Restart()
	}
}
