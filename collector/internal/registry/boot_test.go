// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/boot"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

var ctx = context.Background()

// code gives the code of a refusal, "" for success, "?" for any other error.
func code(err error) string {
	var p *proto.Problem
	switch {
	case err == nil:
		return ""
	case errors.As(err, &p):
		return p.Code
	}
	return "?" + err.Error()
}

// kinds lists an install's events as KIND or KIND:STAGE.
func kinds(t *testing.T, s *registrytest.Site, node, id string) (out []string) {
	t.Helper()
	list, err := s.InstallEvents(node, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Events {
		k := string(e.Kind)
		if e.Stage != "" && e.Stage != k {
			k += ":" + e.Stage
		}
		out = append(out, k)
	}
	return out
}

// TestBoot walks a node through its attempts; each step is one thing that its firmware, loader or agent does.
func TestBoot(t *testing.T) {
	type step struct {
		do     string // script, head, kernel, initrd, partial, hello, seal
		action proto.BootAction
		tries  int
	}
	for _, tt := range []struct {
		name     string
		attempts int
		steps    []step
		summary  string
	}{
		{"scripts may be fetched again before the kernel", 1, []step{{"script", "install", 1}, {"script", "install", 1}, {"script", "install", 1}}, "pxe-booting"},
		{"HEAD does nothing", 1, []step{{"head", "install", 0}, {"script", "install", 1}, {"kernel", "install", 1}, {"head", "install", 1}}, "pxe-booting"},
		{"a kernel that was cut off is none", 1, []step{{"script", "install", 1}, {"partial", "install", 1}, {"script", "install", 1}}, "pxe-booting"},
		{"an initrd alone is no progress", 1, []step{{"script", "install", 1}, {"initrd", "install", 1}, {"script", "install", 1}}, "pxe-booting"},
		{"after the kernel the next script is one too many", 1, []step{{"script", "install", 1}, {"kernel", "install", 1}, {"script", "block", 1}, {"script", "block", 1}}, "failed(loop=2)"},
		{"after hello, too", 1, []step{{"script", "install", 1}, {"hello", "install", 1}, {"script", "block", 1}}, "failed(loop=2)"},
		{"two attempts", 2, []step{{"script", "install", 1}, {"kernel", "install", 1}, {"script", "install", 2}, {"hello", "install", 2}, {"script", "block", 2}}, "failed(loop=3)"},
		{"sealed", 1, []step{{"script", "install", 1}, {"kernel", "install", 1}, {"hello", "install", 1}, {"seal", "disk", 1}, {"script", "disk", 1}, {"script", "disk", 1}}, "rebooting"},
		{"a seal that comes late mends a block", 1, []step{{"script", "install", 1}, {"hello", "install", 1}, {"script", "block", 1}, {"seal", "disk", 1}, {"script", "disk", 1}}, "failed(loop=2)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.New(t)
			p := registrytest.Prepared("compute")
			p.Recipe.Attempts = tt.attempts
			s.Profiles.Put("compute", p)
			mac := s.Add("n1", 1)
			s.Ordered("n1")
			var d boot.Decision
			var token string
			for i, st := range tt.steps {
				switch st.do {
				case "script":
					d = s.Script(mac)
				case "head":
					got, err := s.Boot(ctx, boot.Request{MAC: mac, Method: "HEAD", Host: "h"})
					if err != nil || got.Action != st.action {
						t.Fatalf("step %d: HEAD = %v, %v", i, got.Action, err)
					}
				case "kernel":
					s.Sent(ctx, d.Ticket, "images/vmlinuz", true)
					s.Sent(ctx, d.Ticket, "images/vmlinuz", true)
				case "partial":
					s.Sent(ctx, d.Ticket, "images/vmlinuz", false)
				case "initrd":
					s.Sent(ctx, d.Ticket, "overlay", true)
				case "hello":
					a, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(byte(i))))
					if err != nil {
						t.Fatalf("step %d: hello: %v", i, err)
					}
					token = a.Token
				case "seal":
					id, err := s.Agent(token)
					if err != nil {
						t.Fatal(err)
					}
					a := send(t, s, id, event(1, proto.KindSealed, 1, func(e *proto.Event) { e.Stage = "sealed" }))
					if a.BootAction != st.action {
						t.Errorf("step %d: boot action after the seal = %s", i, a.BootAction)
					}
				}
				n := s.Seen("n1")
				if n.BootAction != st.action || n.Attempt != st.tries {
					t.Fatalf("step %d, %s: boot action %s, attempt %d, want %s, %d", i, st.do, n.BootAction, n.Attempt, st.action, st.tries)
				}
				if st.do == "script" && d.Action != st.action {
					t.Fatalf("step %d: the script is for %s, want %s", i, d.Action, st.action)
				}
			}
			if n := s.Seen("n1"); n.Summary != tt.summary {
				t.Errorf("summary = %s, want %s", n.Summary, tt.summary)
			}
		})
	}
}

func TestBootEvents(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	s.Script(mac)
	for range 3 {
		for _, f := range []string{"images/vmlinuz", "images/initrd", "overlay"} {
			s.Sent(ctx, d.Ticket, f, true)
		}
	}
	s.Sent(ctx, strings.Replace(d.Ticket, "-1-", "-2-", 1), "images/vmlinuz", true) // a made-up ticket
	s.Sent(ctx, "x", "images/vmlinuz", true)
	s.Script(mac)
	want := []string{"ordered", "attempt:bootscript-sent", "stage:kernel-sent", "stage:initrd-sent", "loop", "boot-action"}
	if diff := cmp.Diff(want, kinds(t, s, "n1", id)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if d := s.Script(mac); len(d.Reason) == 0 || !strings.Contains(strings.Join(d.Hint, "\n"), "provost install n1") {
		t.Errorf("the block says %q and %q, want the reason and what to type", d.Reason, d.Hint)
	}
}

func TestBootOthers(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	if d := s.Script(registrytest.MAC(9)); !d.UnknownMAC {
		t.Errorf("an unknown MAC gets %+v", d)
	}
	if d := s.Script(mac); d.Action != proto.BootDisk || d.Claim != "" {
		t.Errorf("a node without an order gets %+v, want the disk", d)
	}
	s.Ordered("n1")
	d := s.Script(mac)
	if d.Args != "quiet" || d.Pin != s.CA.Pin() || d.Kernel != "images/vmlinuz" || !slices.Equal(d.Initrds, []string{"images/initrd", "overlay"}) || len(d.Claim) != 64 {
		t.Errorf("boot script = %+v", d)
	}
	// Profile edits do not touch what is ordered.
	p := registrytest.Prepared("compute")
	p.Recipe.Args, p.Recipe.Kernel = "other", "images/other"
	s.Profiles.Put("compute", p)
	if again := s.Script(mac); !cmp.Equal(again, d) {
		t.Errorf("the second script differs:\n%s", cmp.Diff(d, again))
	}
	s.Restart()
	if again := s.Script(mac); !cmp.Equal(again, d) {
		t.Errorf("the script after a restart differs:\n%s", cmp.Diff(d, again))
	}
	s.Ordered("n1")
	if next := s.Script(mac); next.Args != "other" || next.Claim == d.Claim || next.Ticket == d.Ticket {
		t.Errorf("the next install's script = %+v, want the new profile and fresh secrets", next)
	}
}

func TestSetBootAction(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	set := func(a proto.BootAction) string { return code(s.SetBootAction(ctx, []string{"n1"}, a, "op", "because")) }
	if got := set(proto.BootInstall); got != proto.CodeConflict {
		t.Errorf("boot install without an order = %q, want conflict", got)
	}
	for _, a := range []proto.BootAction{"", "x"} {
		if got := set(a); got != proto.CodeBadRequest {
			t.Errorf("boot %q = %q, want bad-request", a, got)
		}
	}
	s.Ordered("n1")
	d := s.Script(mac)
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	if d := s.Script(mac); d.Action != proto.BootBlock {
		t.Fatalf("action = %s, want block", d.Action)
	}
	if got := set(proto.BootInstall); got != "" {
		t.Fatalf("boot install = %q", got)
	}
	if d := s.Script(mac); d.Action != proto.BootInstall || d.Attempt != 2 {
		t.Errorf("one more attempt = %+v", d)
	}
	if n := s.Seen("n1"); n.Status != proto.StatusPXEBooting {
		t.Errorf("status of the allowed attempt = %s, want pxe-booting", n.Summary)
	}
	if got := set(proto.BootDisk); got != "" {
		t.Fatal(got)
	}
	if d := s.Script(mac); d.Action != proto.BootDisk {
		t.Errorf("action = %s, want disk", d.Action)
	}
	if got := code(s.SetBootAction(ctx, []string{"n1", "n2"}, proto.BootBlock, "op", "")); got != proto.CodeUnknownNode {
		t.Errorf("an order with an unknown node = %q", got)
	}
	if n := s.Seen("n1"); n.BootAction != proto.BootDisk {
		t.Errorf("a refused order changed the boot action to %s", n.BootAction)
	}
}
