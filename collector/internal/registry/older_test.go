// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// TestOlderDatabases: databases of earlier versions open, show what they held, and go on. Each fixture was written by the last
// provostd with its schema, by the same installs.
func TestOlderDatabases(t *testing.T) {
	for schema := 1; schema < store.Schema; schema++ {
		file := fmt.Sprintf("testdata/schema%d.db.gz", schema)
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := registrytest.New(t)
			if err := s.Store.Close(); err != nil {
				t.Fatal(err)
			}
			gunzip(t, file, filepath.Join(s.Dir, "provost.db"))
			if r, err := store.Check(filepath.Join(s.Dir, "provost.db")); err != nil || r.Schema != schema || len(r.Problems) > 0 {
				t.Fatalf("the fixture is %+v, %v", r, err)
			}
			s.Clock.Advance(10 * time.Minute)
			s.Open()
			look := func() {
				t.Helper()
				for name, want := range map[string]string{"n1": "failed(one=127) 1 9", "n2": "rebooting 2 10", "n3": "rebooting 3 10", "n4": "ordered 1 1"} {
					n := s.Seen(name)
					list, err := s.InstallEvents(name, "latest")
					if got := fmt.Sprintf("%s %d %d", n.Summary, n.Ordinal, len(list.Events)); err != nil || got != want {
						t.Errorf("%s = %s, %v, want %s", name, got, err, want)
					}
				}
			}
			look()
			if s.Store.Revision() != 63 {
				t.Errorf("revision %d, want 63", s.Store.Revision())
			}
			s.Checkpoint(ctx)
			retain(t, s, 2)
			s.Restart()
			look()
			a, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(registrytest.MAC(4)), registrytest.Boot(0x40)))
			if err != nil || a.Plan == nil {
				t.Fatalf("the hello of n4 = %+v, %v, want the plan that was signed when it was ordered", a, err)
			}
			if p, err := proto.DecodePlan(a.Plan.Payload); err != nil || p.Node != "n4" || len(p.Steps) != 1 || p.Steps[0].Name != "one" {
				t.Errorf("its plan is %+v, %v", p, err)
			}
			if changed, err := s.Retry(ctx, []string{"n1"}, proto.NodeOrder{}, "test"); err != nil || len(changed) != 0 {
				t.Errorf("a retry of n1, of the same profile = %+v, %v, want no new plan", changed, err)
			}
			s.Ordered("n4")
			if n := s.Seen("n4"); n.Ordinal != 2 {
				t.Errorf("a new install has the ordinal %d", n.Ordinal)
			}
		})
	}
}

func gunzip(t testing.TB, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
