// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"provost/collector/internal/registry"
	"provost/proto"
)

// TestFrozen: an order to many nodes reads a script once, holds it once, and gives all of them the same, whatever somebody saves
// meanwhile. The next order has what was saved.
func TestFrozen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "postscripts", "tune")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "profiles", "web.yaml"), "boot: external\nsteps:\n  - {name: tune, phase: post}\n")
	write(script, "#!/bin/sh\necho one\n")
	s, err := openSite(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	prepare := func(from registry.Profiles, node string) (digest string, body []byte) {
		t.Helper()
		p, err := from.Prepare("web", proto.NodeSpec{Name: node, MACs: []string{"52:54:00:00:00:01"}})
		if err != nil {
			t.Fatal(err)
		}
		digest = p.Steps[0].Digest
		return digest, p.Scripts[digest]
	}
	order := s.Frozen()
	first, body := prepare(order, "n1")
	write(script, "#!/bin/sh\necho two\n")
	if second, same := prepare(order, "n2"); second != first || &same[0] != &body[0] {
		t.Errorf("one order has the script %s for n1 and %s for n2, in one place: %v", first, second, &same[0] == &body[0])
	}
	if next, _ := prepare(s.Frozen(), "n1"); next == first {
		t.Error("the next order has the script as it was before it was saved")
	}
	if single, _ := prepare(s, "n1"); single == first {
		t.Error("what is read for one node is as it was before the script was saved")
	}
}

// BenchmarkPrepare is what each node of a large order costs: its answer file is made to see whether it can be.
func BenchmarkPrepare(b *testing.B) {
	dir := b.TempDir()
	text := "kernel: images/vmlinuz\nargs: \"inst.ks={{ .Answer }}\"\nanswer: kickstart-el9.tmpl\nsteps:\n"
	for _, name := range []string{"hostname", "remote-syslog"} {
		text += "  - {name: " + name + ", phase: post}\n"
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "profiles"), 0o755), os.WriteFile(filepath.Join(dir, "profiles", "web.yaml"), []byte(text), 0o644)); err != nil {
		b.Fatal(err)
	}
	s, err := openSite(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	order := s.Frozen()
	for b.Loop() {
		if _, err := order.Prepare("web", proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}}); err != nil {
			b.Fatal(err)
		}
	}
}
