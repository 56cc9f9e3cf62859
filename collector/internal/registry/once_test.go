// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// under gives a context whose orders have a key.
func under(actor, key, order string) context.Context {
	return registry.By(ctx, registry.Caller{Actor: actor, Key: &registry.Key{Name: key, Order: order}})
}

// TestOrderOnce: an order under a key is given once, to the nodes of the first time, also when it comes again at the same time
// or after a restart; another order under it is refused; another's key is another key.
func TestOrderOnce(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Add("n2", 2)
	install := func(ctx context.Context, names ...string) error {
		return s.Order(ctx, names, proto.InstallOrder{}, "op")
	}
	var given *registry.GivenError
	again := func(name string, err error, nodes ...string) {
		t.Helper()
		if !errors.As(err, &given) || !cmp.Equal(given.Nodes, nodes) {
			t.Errorf("%s: %v, %v, want that it was given before to %v", name, err, given, nodes)
		}
	}
	ordinals := func(name string, n1, n2 uint64) {
		t.Helper()
		if a, b := s.Seen("n1").Ordinal, s.Seen("n2").Ordinal; a != n1 || b != n2 {
			t.Errorf("%s: installs number %d and %d, want %d and %d", name, a, b, n1, n2)
		}
	}
	one := under("op", "k1", "a")
	if err := s.Given(one); err != nil {
		t.Fatalf("Given before = %v, want nil", err)
	}
	if err := install(one, "n1", "n9"); code(err) != proto.CodeUnknownNode {
		t.Fatalf("install of an unknown node = %v", err)
	}
	var wait sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs { // what was refused is judged anew
		wait.Go(func() { errs[i] = install(one, "n1", "n2") })
	}
	wait.Wait()
	first := 0
	for _, err := range errs {
		if err == nil {
			first++
			continue
		}
		again("at the same time", err, "n1", "n2")
	}
	if first != 1 {
		t.Errorf("of %d at the same time %d were given, want 1", len(errs), first)
	}
	ordinals("at the same time", 1, 1)
	again("after it", s.Given(one), "n1", "n2")
	again("with other nodes by now", install(one, "n1"), "n1", "n2")
	s.Restart()
	again("after a restart", s.Given(one), "n1", "n2")
	again("after a restart", install(one, "n1", "n2"), "n1", "n2")
	other := under("op", "k1", "b")
	for _, err := range []error{s.Given(other), install(other, "n1"), s.SetBootAction(other, []string{"n1"}, proto.BootDisk, "op", "")} {
		if code(err) != proto.CodeKeyReused {
			t.Errorf("another order under the key = %v, want %s", err, proto.CodeKeyReused)
		}
	}
	ordinals("after the repeats", 1, 1)
	if err := install(under("op2", "k1", "a"), "n1"); err != nil {
		t.Errorf("another's order under a key of the same name = %v", err)
	}
	ordinals("another's", 2, 1)
	s.Clock.Advance(24 * time.Hour)
	if err := install(other, "n2"); err != nil {
		t.Errorf("another order under a key of yesterday = %v", err)
	}
	ordinals("the next day", 2, 2)
	again("the next day", install(other, "n2"), "n2")
	if h, err := s.History("n2", time.Time{}, false); err != nil || len(h.Entries) != 2+1 { // with its own begin
		t.Errorf("history of n2 = %+v, %v, want two orders", h, err)
	}
}

// TestRetryOnce: the repeat of a retry that its agent carried out since is no second one, and has the same news of the plan.
func TestRetryOnce(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	s.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho mended\n"}))
	key := under("op", "k1", "a")
	changes, err := s.Retry(key, []string{"n1"}, proto.NodeOrder{}, "op")
	if err != nil || len(changes) != 1 {
		t.Fatalf("Retry = %v, %v, want news", changes, err)
	}
	send(t, s, id, event(7, proto.KindOrder, 1, func(e *proto.Event) { e.Order, e.OrderID, e.Step = "retry", beat(t, s, id)[0].ID, "one" }))
	if s.Seen("n1").Waiting {
		t.Fatal("the node still waits: this test shows nothing")
	}
	var given *registry.GivenError
	if _, err := s.Retry(key, []string{"n1"}, proto.NodeOrder{}, "op"); !errors.As(err, &given) || !cmp.Equal(given.PlanChanges, changes) {
		t.Errorf("the repeat = %v, %+v, want that it was given, with %+v", err, given, changes)
	}
	if left := beat(t, s, id); len(left) != 0 {
		t.Errorf("after the repeat the agent gets %+v", left)
	}
}

// TestKeysAreBounded: by number, by bytes and by age, the oldest go first, and nothing of them stays.
func TestKeysAreBounded(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	kept := func(key string) bool {
		t.Helper()
		err := s.Given(under("op", key, "a"))
		var given *registry.GivenError
		if err != nil && !errors.As(err, &given) {
			t.Fatal(err)
		}
		return err != nil
	}
	give := func(key string) {
		t.Helper()
		if err := s.SetBootAction(under("op", key, "a"), []string{"n1"}, proto.BootDisk, "op", ""); err != nil {
			t.Fatal(err)
		}
	}
	records := func() (keys, numbers, bytes int) {
		t.Helper()
		err := s.Store.Scan(store.History, func(key string, v []byte) error {
			if strings.HasPrefix(key, "k/") {
				keys++
				bytes += len(v)
			}
			if strings.HasPrefix(key, "i/") {
				numbers++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return keys, numbers, bytes
	}
	s.SetKeyBounds(5, 1<<20)
	for i := range 9 {
		give(fmt.Sprint(i))
	}
	for i := range 9 {
		if got, want := kept(fmt.Sprint(i)), i >= 4; got != want {
			t.Errorf("of nine orders number %d is kept: %t, want %t", i, got, want)
		}
	}
	keys, numbers, size := records()
	if keys != 5 || numbers != 5 {
		t.Errorf("%d and %d records, want 5", keys, numbers)
	}
	s.SetKeyBounds(5, size/2)
	give("9")
	if keys, numbers, now := records(); keys != 2 || numbers != 2 || now > size/2 || !kept("9") || !kept("8") {
		t.Errorf("half the bytes: %d and %d records of %d bytes, want 2", keys, numbers, now)
	}
	s.SetKeyBounds(5, 1)
	give("10")
	if keys, numbers, _ := records(); keys != 1 || numbers != 1 || !kept("10") {
		t.Errorf("one byte: %d and %d records, want the newest alone", keys, numbers)
	}
	s.SetKeyBounds(5, 1<<20)
	s.Clock.Advance(12 * time.Hour)
	give("11")
	s.Clock.Advance(12 * time.Hour)
	if kept("10") || !kept("11") {
		t.Error("an order of a day ago counts, or one of half a day ago does not")
	}
	give("10") // again, and it is a new one
	if keys, numbers, _ := records(); keys != 2 || numbers != 2 || !kept("10") || !kept("11") {
		t.Errorf("a day later: %d and %d records, want 2", keys, numbers)
	}
	s.Clock.Advance(12 * time.Hour)
	give("12")
	if keys, numbers, _ := records(); keys != 2 || numbers != 2 || !kept("10") || kept("11") {
		t.Errorf("half a day later: %d and %d records, want 2", keys, numbers)
	}
}
