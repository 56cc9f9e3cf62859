// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
	"time"

	"provost/collector/internal/answer"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// secrets is a profile with a canary in each place that may hold a secret.
func secrets(canary string) *registry.Prepared {
	p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho " + canary[:4] + "\n"})
	p.Steps[0].SecretEnv = map[string]string{"PASSWORD": canary + "-env"}
	p.Recipe.Answer = &answer.Recipe{Name: "kickstart-el9.tmpl", Text: "text\n", Profile: "compute", Secrets: map[string]string{"file:/x": canary + "-answer"}}
	return p
}

// raw is the database's file as it is after a compaction, with the site closed.
func raw(t *testing.T, s *registrytest.Site) []byte {
	t.Helper()
	if err := s.Store.Close(); err != nil {
		t.Fatal(err)
	}
	s.Logs.Close()
	path := filepath.Join(s.Dir, "provost.db")
	if _, _, err := store.Compact(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Open()
	return b
}

// TestSecretsAreErased: while an install is under way the database has what its agent may ask for; once it is over, none
// of its secrets, and still everything that tells what was ordered.
func TestSecretsAreErased(t *testing.T) {
	const canary = "Kanarienvogel"
	end := func(f func(s *registrytest.Site, id string)) func(*registrytest.Site, string) { return f }
	boots := func(s *registrytest.Site, id string) {
		send(t, s, id, event(1, proto.KindAgentStart, 1), event(2, proto.KindSealed, 1),
			event(3, proto.KindRunEnd, 2, func(e *proto.Event) { e.Phase, e.Outcome = proto.PhaseFirstboot, proto.OutcomeOK }))
	}
	fails := func(s *registrytest.Site, id string) {
		send(t, s, id, event(1, proto.KindAgentStart, 1),
			event(2, proto.KindRunEnd, 1, func(e *proto.Event) {
				e.Phase, e.Outcome, e.Exit, e.Step = proto.PhasePost, proto.OutcomeFailed, 4, "one"
			}))
	}
	for _, tt := range []struct {
		name   string
		end    func(*registrytest.Site, string)
		wait   time.Duration
		erased bool
	}{
		{"under way", end(func(*registrytest.Site, string) {}), 0, false},
		{"booted", end(boots), 0, true},
		{"aborted", end(func(s *registrytest.Site, id string) {
			if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
				t.Fatal(err)
			}
		}), 0, true},
		{"superseded", end(func(s *registrytest.Site, id string) {
			s.Profiles.Put("compute", registrytest.Prepared("compute"))
			s.Ordered("n1")
		}), 0, true},
		{"failed, and it may boot again", end(fails), 2 * registry.FailedSecrets, false},
		{"failed a moment ago", end(func(s *registrytest.Site, id string) {
			fails(s, id)
			block(t, s)
		}), time.Hour, false},
		{"failed a day ago", end(func(s *registrytest.Site, id string) {
			fails(s, id)
			block(t, s)
		}), registry.FailedSecrets + time.Minute, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.At(t, t.TempDir())
			s.Profiles.Put("compute", secrets(canary))
			s.Open()
			defer func() { s.Store.Close(); s.Logs.Close() }()
			mac := s.Add("n1", 1)
			id := s.Ordered("n1")
			token, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(1)))
			if err != nil || token.Plan == nil {
				t.Fatalf("hello = %+v, %v, want a plan", token, err)
			}
			if !bytes.Contains(raw(t, s), []byte(canary+"-answer")) {
				t.Fatal("the database of an install that is under way has no canary: the test cannot fail")
			}
			tt.end(s, id)
			s.Clock.Advance(tt.wait)
			before := everything(t, s)
			retain(t, s, 2)
			for _, secret := range []string{canary + "-env", canary + "-answer"} {
				b := raw(t, s)
				// the plan's own JSON is one base64 string in the SignedPlan
				if got := bytes.Contains(b, []byte(secret)) || containsBase64(b, secret); got == tt.erased {
					t.Errorf("the compacted database has %s = %v", secret, got)
				}
			}
			if after := everything(t, s); len(after) != len(before) {
				t.Errorf("%d nodes and installs are seen, %d before", len(after), len(before))
			}
			in, err := s.Install("n1", id)
			if err != nil || len(in.Steps) != 1 {
				t.Errorf("the install = %+v, %v, want its step still", in, err)
			}
			a, err := s.Hello(ctx, id, &proto.Hello{Schema: 1, Env: proto.EnvInstalled, Clock: proto.Clock{Boot: registrytest.Boot(3), OffsetMS: 1}})
			if err != nil || (a.Plan == nil) != tt.erased {
				t.Errorf("its agent's next hello = %+v, %v, want a plan: %v", a, err, !tt.erased)
			}
			if tt.name == "failed a day ago" {
				if err := s.SetBootAction(ctx, []string{"n1"}, proto.BootInstall, "op", ""); code(err) != proto.CodeConflict {
					t.Errorf("booting the installer of an erased plan = %v, want a conflict", err)
				}
			}
		})
	}
}

// block gives a node no installer any more.
func block(t *testing.T, s *registrytest.Site) {
	t.Helper()
	if err := s.SetBootAction(ctx, []string{"n1"}, proto.BootBlock, "op", ""); err != nil {
		t.Fatal(err)
	}
}

// containsBase64 finds a text within what was encoded as base64 whole: at each of three shifts.
func containsBase64(b []byte, text string) bool {
	for shift := range 3 {
		s := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		if bytes.Contains(b, []byte(s[4:len(s)-4])) {
			return true
		}
	}
	return false
}

// TestUnusedFilesGo: a script that no install names any more is removed; one that another install names, or that an order
// names again, is not.
func TestUnusedFilesGo(t *testing.T) {
	s := registrytest.At(t, t.TempDir())
	s.Retention.Installs = 1
	s.Open()
	t.Cleanup(func() { s.Store.Close(); s.Logs.Close() })
	files := func() (n int, has func(string) bool) {
		keys := map[string]bool{}
		err := s.Store.View(func(r *store.Reader) error {
			r.Keys(store.Files, "", func(k string) bool { keys[k] = true; return true })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(keys), func(body string) bool { return keys[proto.Digest([]byte(body))] }
	}
	shared := registrytest.Script{Name: "shared", Phase: proto.PhasePost, Body: "#!/bin/sh\n# shared\n"}
	order := func(name, body string) {
		s.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: body}, shared))
		s.Ordered(name)
	}
	s.Add("n1", 1)
	s.Add("n2", 2)
	order("n1", "#!/bin/sh\n# first\n")
	order("n2", "#!/bin/sh\n# second\n")
	order("n1", "#!/bin/sh\n# third\n")
	if _, has := files(); !has("#!/bin/sh\n# first\n") {
		t.Fatal("the first script is not there: the test cannot fail")
	}
	retain(t, s, 2)
	n, has := files()
	for body, want := range map[string]bool{"#!/bin/sh\n# first\n": false, "#!/bin/sh\n# second\n": true, "#!/bin/sh\n# third\n": true, shared.Body: true} {
		if has(body) != want {
			t.Errorf("after the first install went, the database has %q = %v, want %v", body, has(body), want)
		}
	}
	order("n1", "#!/bin/sh\n# first\n")
	retain(t, s, 2)
	s.Restart()
	if m, has := files(); !has("#!/bin/sh\n# first\n") || has("#!/bin/sh\n# third\n") || m != n {
		t.Errorf("%d files after the script was ordered again, %d before", m, n)
	}
	if _, err := s.File(s.Seen("n1").Install, proto.Digest([]byte("#!/bin/sh\n# first\n"))); err != nil {
		t.Errorf("the script of the present install = %v", err)
	}
}

// busyContext lets somebody else go first each time that something is about to be decided.
type busyContext struct {
	context.Context
	first func()
}

func (c busyContext) Err() error {
	c.first()
	return nil
}

// TestSweepLeavesWhatIsOrdered: scripts that are unused when a round begins, and are ordered in its middle, stay.
func TestSweepLeavesWhatIsOrdered(t *testing.T) {
	s := registrytest.At(t, t.TempDir())
	s.Retention.Installs = 1
	s.Open()
	t.Cleanup(func() { s.Store.Close(); s.Logs.Close() })
	s.Add("n1", 1)
	n := 0
	order := func() {
		n++
		body := "#!/bin/sh\n# " + string("ab"[n%2]) + "\n"
		s.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: body}))
		id := s.Ordered("n1")
		if _, err := s.File(id, proto.Digest([]byte(body))); err != nil {
			t.Errorf("order %d: its script = %v", n, err)
		}
	}
	for at := range 12 { // a round decides some six times
		order()
		order()
		retain(t, s, 2)
		order() // the script of the one before is named by an install that is about to go
		calls := 0
		busy := busyContext{ctx, func() {
			if calls++; calls == at {
				order()
			}
		}}
		if err := s.Retain(busy); err != nil {
			t.Fatal(err)
		}
		body := "#!/bin/sh\n# " + string("ab"[n%2]) + "\n"
		if _, err := s.File(s.Seen("n1").Install, proto.Digest([]byte(body))); err != nil {
			t.Errorf("ordered before decision %d of a round: its script = %v", at, err)
		}
	}
}
