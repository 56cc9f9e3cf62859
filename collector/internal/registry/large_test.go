// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// many adds n nodes and gives their names.
func many(t testing.TB, s *registrytest.Site, n int) []string {
	t.Helper()
	var inv proto.Inventory
	names := make([]string, n)
	profile := "compute"
	for i := range names {
		names[i] = fmt.Sprintf("n%06d", i)
		macs := []string{fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)}
		inv.Nodes = append(inv.Nodes, proto.InventoryNode{Name: names[i], Patch: proto.NodePatch{MACs: &macs, Profile: &profile}})
	}
	if _, err := s.Import(ctx, inv); err != nil {
		t.Fatal(err)
	}
	return names
}

// others runs do, and gives the longest time that somebody else waited for the writer meanwhile, and how often he wrote.
func others(t testing.TB, s *registrytest.Site, do func()) (longest time.Duration, times int) {
	t.Helper()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			begin := time.Now()
			if err := s.Store.Update(ctx, func(tx *store.Tx) error { tx.Put(store.Settings, "other", []byte("x")); return nil }); err != nil {
				t.Error(err)
			}
			longest = max(longest, time.Since(begin))
			times++
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	do()
	close(stop)
	wait.Wait()
	return longest, times
}

// TestReadOnce: orders to many nodes read profiles, with their scripts, once for all of them.
func TestReadOnce(t *testing.T) {
	t.Parallel()
	s := registrytest.New(t)
	names := many(t, s, 3)
	for _, order := range []struct {
		what string
		give func() error
	}{
		{"rescue", func() error { return s.SetBootAction(ctx, names, proto.BootRescue, "op", "") }},
		{"install", func() error { return s.Order(ctx, names, proto.InstallOrder{}, "op") }},
		{"retry", func() error {
			if err := s.Command(ctx, names, proto.VerbRetry, proto.NodeOrder{}, "op"); code(err) != proto.CodeConflict { // nothing waits
				return err
			}
			return nil
		}},
	} {
		if err := order.give(); err != nil {
			t.Errorf("%s: %v", order.what, err)
		}
		if s.Profiles.Live > 0 {
			t.Errorf("%s read a profile %d times for single nodes", order.what, s.Profiles.Live)
			s.Profiles.Live = 0
		}
	}
}

// TestRefusalsAreShort: a refusal names the nodes that it is for, and fits a terminal and every bound of an answer, however many
// they are.
func TestRefusalsAreShort(t *testing.T) {
	t.Parallel()
	s := registrytest.New(t)
	var names []string
	for i, name := range many(t, s, 4000) {
		if i%97 > i%89 { // nothing that could be folded well
			names = append(names, name)
		}
	}
	refused := func(what string, err error) {
		t.Helper()
		var p *proto.Problem
		if !errors.As(err, &p) {
			t.Fatalf("%s = %v, want a refusal", what, err)
		}
		if !strings.Contains(p.Detail, fmt.Sprintf("%d nodes, n", len(names))) || len(p.Detail) > 700 || len(p.Hint) > 200 {
			t.Errorf("%s says in %d and %d bytes: %.700q, hint %.200q", what, len(p.Detail), len(p.Hint), p.Detail, p.Hint)
		}
	}
	refused("abort", s.Command(ctx, names, proto.VerbAbort, proto.NodeOrder{}, "op"))
	if err := s.Order(ctx, names, proto.InstallOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	refused("rm", s.RemoveNodes(ctx, names, ""))
	if err := errors.Join(s.Command(ctx, names, proto.VerbAbort, proto.NodeOrder{}, "op"), s.SetBootAction(ctx, names, proto.BootDisk, "op", "")); err != nil {
		t.Fatal(err)
	}
	yes := true
	if err := s.PatchNodes(ctx, names, proto.NodePatch{Protected: &yes}); err != nil {
		t.Fatal(err)
	}
	refused("install", s.Order(ctx, names, proto.InstallOrder{}, "op"))
}

// BenchmarkLarge is how long orders to 10,000 nodes take, what becomes of them when their time is over, and how long others
// wait for the writer meanwhile.
func BenchmarkLarge(b *testing.B) {
	const nodes = 10_000
	s := registrytest.New(b)
	var names []string
	step := func(what string, do func() error) {
		begin := time.Now()
		longest, times := others(b, s, func() {
			if err := do(); err != nil {
				b.Fatal(err)
			}
		})
		b.Logf("%-28s %6d ms, others wait %6d ms at most, %d times", what, time.Since(begin).Milliseconds(), longest.Milliseconds(), times)
	}
	step("import", func() error { names = many(b, s, nodes); return nil })
	step("boot", func() error { return s.SetBootAction(ctx, names, proto.BootDisk, "op", "") })
	step("install", func() error { return s.Order(ctx, names, proto.InstallOrder{}, "op") })
	step("install again", func() error { return s.Order(ctx, names, proto.InstallOrder{}, "op") })
	step("hold", func() error { return s.Command(ctx, names, proto.VerbHold, proto.NodeOrder{}, "op") })
	s.Clock.Advance(16 * time.Minute)
	step("expire", func() error {
		n, err := s.Expire(ctx)
		if n != nodes {
			b.Errorf("%d expired, want %d", n, nodes)
		}
		return err
	})
	step("abort", func() error { return s.Command(ctx, names, proto.VerbAbort, proto.NodeOrder{}, "op") })
}
