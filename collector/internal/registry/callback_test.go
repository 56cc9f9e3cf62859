// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/boot"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// called tells a stage of an attempt by callback. A stage with ! before it has failed.
func called(s *registrytest.Site, d boot.Decision, stage string) error {
	name, failed := strings.CutPrefix(stage, "!")
	return s.Callback(ctx, boot.Request{RemoteAddr: "10.0.0.9:1234"}, boot.Callback{Install: d.Install, Ticket: d.Ticket, Stage: name, Failed: failed, Message: "no \x1b disk"})
}

// withTrust puts a profile whose status callbacks decide, or not.
func withTrust(s *registrytest.Site, callback bool) {
	p := registrytest.Prepared("compute")
	if callback {
		p.Recipe.Trust = append(p.Recipe.Trust, proto.SourceCallback)
	}
	s.Profiles.Put("compute", p)
}

// TestCallback: what a system without an agent says of itself, with and without the profile's trust.
func TestCallback(t *testing.T) {
	for _, tt := range []struct {
		stages            string
		trusted, doubtful string // summaries
		action            proto.BootAction
	}{
		{"installer-started", "installing", "installing", "install"},
		{"post-started", "postinstall", "postinstall", "install"},
		{"post-started sealed", "rebooting", "rebooting", "disk"},
		{"post-started sealed sealed disk-booted", "firstboot", "firstboot", "disk"},
		{"post-started sealed disk-booted booted", "booted", "firstboot", "disk"},
		{"booted", "booted", "firstboot", "disk"}, // what came before was lost
		{"post-started !sealed", "failed(foreign)", "postinstall", "install"},
		{"my-own-stage", "pxe-booting", "pxe-booting", "install"},
	} {
		for _, trust := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s trust %t", tt.stages, trust), func(t *testing.T) {
				s := registrytest.New(t)
				withTrust(s, trust)
				mac := s.Add("n1", 1)
				s.Ordered("n1")
				d := s.Script(mac)
				for _, stage := range strings.Fields(tt.stages) {
					for range 2 {
						if err := called(s, d, stage); err != nil {
							t.Fatalf("%s: %v", stage, err)
						}
					}
				}
				want := tt.doubtful
				if trust {
					want = tt.trusted
				}
				n := s.Seen("n1")
				if n.Summary != want || n.BootAction != tt.action {
					t.Errorf("%s, boot action %s; want %s, %s", n.Summary, n.BootAction, want, tt.action)
				}
				if warned := strings.Contains(fmt.Sprint(n.Warnings), "a callback says that sealed failed: no \x1b disk"); warned != (strings.Contains(tt.stages, "!") && !trust) {
					t.Errorf("warnings = %q", n.Warnings)
				}
				before := kinds(t, s, "n1", d.Install)
				s.Restart()
				for _, stage := range strings.Fields(tt.stages) {
					if err := called(s, d, stage); err != nil {
						t.Errorf("%s once more: %v", stage, err)
					}
				}
				if diff := cmp.Diff(before, kinds(t, s, "n1", d.Install)); diff != "" {
					t.Errorf("repeats changed something: -want +got\n%s", diff)
				}
				if got := s.Seen("n1").Summary; got != want {
					t.Errorf("after a restart: %s, want %s", got, want)
				}
			})
		}
	}
}

// TestCallbackRefused: nobody else's word is taken, and it changes nothing.
func TestCallbackRefused(t *testing.T) {
	s := registrytest.New(t)
	withTrust(s, true)
	mac, other := s.Add("n1", 1), s.Add("n2", 2)
	s.Ordered("n2")
	d2 := s.Script(other)
	s.Ordered("n1")
	old := s.Script(mac)
	id := s.Ordered("n1")
	d := s.Script(mac)
	ip := "10.0.0.1"
	if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{IP: &ip}); err != nil {
		t.Fatal(err)
	}
	try := func(install, ticket, stage, from string) string {
		return code(s.Callback(ctx, boot.Request{RemoteAddr: from}, boot.Callback{Install: install, Ticket: ticket, Stage: stage}))
	}
	const home = "10.0.0.1:99"
	before := kinds(t, s, "n1", id)
	for name, tt := range map[string]struct{ install, ticket, stage, from, code string }{
		"no ticket":           {id, "x", "sealed", home, proto.CodeNotFound},
		"empty ticket":        {id, "", "sealed", home, proto.CodeNotFound},
		"cut ticket":          {id, d.Ticket[:len(d.Ticket)-1], "sealed", home, proto.CodeNotFound},
		"other node's ticket": {id, d2.Ticket, "sealed", home, proto.CodeNotFound},
		"other's install":     {d2.Install, d.Ticket, "sealed", home, proto.CodeNotFound},
		"made-up attempt":     {id, strings.Replace(d.Ticket, "-1-", "-2-", 1), "sealed", home, proto.CodeNotFound},
		"superseded install":  {old.Install, old.Ticket, "sealed", home, proto.CodeNotFound},
		"the claim":           {id, d.Claim, "sealed", home, proto.CodeNotFound},
		"another address":     {id, d.Ticket, "sealed", "10.0.0.2:99", proto.CodeForbidden},
		"no stage":            {id, d.Ticket, "", home, proto.CodeBadRequest},
		"no name":             {id, d.Ticket, "<b>", home, proto.CodeBadRequest},
		"long name":           {id, d.Ticket, strings.Repeat("a", 200), home, proto.CodeBadRequest},
	} {
		if got := try(tt.install, tt.ticket, tt.stage, tt.from); got != tt.code {
			t.Errorf("%s: %q, want %s", name, got, tt.code)
		}
	}
	if diff := cmp.Diff(before, kinds(t, s, "n1", id)); diff != "" {
		t.Errorf("refused callbacks left a trace: -want +got\n%s", diff)
	}

	last := ""
	for i := range 100 {
		last = try(id, d.Ticket, fmt.Sprintf("stage-%d", i), home)
	}
	if last != proto.CodeTooMany || len(kinds(t, s, "n1", id)) > 80 {
		t.Errorf("the 100th stage: %q, with %d events", last, len(kinds(t, s, "n1", id)))
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{Reason: "no"}, "test"); err != nil {
		t.Fatal(err)
	}
	if got := try(id, d.Ticket, "sealed", home); got != proto.CodeNotFound {
		t.Errorf("after an abort: %q, want %s", got, proto.CodeNotFound)
	}
	if n := s.Seen("n1"); n.Summary != "failed(abort)" {
		t.Errorf("%s, want failed(abort)", n.Summary)
	}
}

// TestCallbackAttempts: a callback is progress, for the loop guard, and one of an earlier attempt is late.
func TestCallbackAttempts(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Attempts = 2
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	first := s.Script(mac)
	if err := called(s, first, "installer-started"); err != nil {
		t.Fatal(err)
	}
	second := s.Script(mac)
	if second.Attempt != 2 || second.Ticket == first.Ticket {
		t.Fatalf("attempt %d", second.Attempt)
	}
	if got := code(called(s, first, "sealed")); got != proto.CodeConflict {
		t.Errorf("the first attempt's callback: %q, want %s", got, proto.CodeConflict)
	}
	if err := called(s, second, "sealed"); err != nil {
		t.Fatal(err)
	}
	if d := s.Script(mac); d.Action != proto.BootDisk {
		t.Errorf("after sealed: %s, want disk", d.Action)
	}
}

// TestCallbackURL: an answer file has the URL by which its system calls back, and eyes do not see the ticket.
func TestCallbackURL(t *testing.T) {
	s := registrytest.New(t)
	withAnswer(s, `{{ .Callback | sh }}`)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	q := boot.Request{Host: "10.0.0.1:8480"}
	b, err := s.Answer(ctx, q, id, d.Ticket, "ks.cfg")
	if want := q.Callbacks(id, d.Ticket); err != nil || string(b) != want {
		t.Errorf("answer file = %s, %v; want %s", b, err, want)
	}
	r, err := s.Render("n1", "10.0.0.1:8480", nil)
	if err != nil || len(r.Files) != 1 || !strings.Contains(r.Files[0].Text, id+"/********") || strings.Contains(r.Files[0].Text, d.Ticket) {
		t.Errorf("rendered = %+v, %v", r, err)
	}
}

// TestLoading: ESXi's boot loader is told again what its attempt boots, and what it fetches by the ticket in its URLs counts.
func TestLoading(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Loader, p.Recipe.Kernel, p.Recipe.Initrds, p.Recipe.Args = "esxi", "images/esxi8/boot.cfg", nil, "ks={{ .Images }}/ks.cfg"
	s.Profiles.Put("compute", p)
	mac, other := s.Add("n1", 1), s.Add("n2", 2)
	id := s.Ordered("n1")
	s.Ordered("n2")
	d, d2 := s.Script(mac), s.Script(other)
	q := boot.Request{Host: "10.0.0.1:8480"}
	if want := "ks=http://10.0.0.1:8480/images/~" + d.Ticket + "/ks.cfg"; d.Loader != "esxi" || d.Args != want {
		t.Errorf("loader %s, arguments %s; want %s", d.Loader, d.Args, want)
	}
	again, err := s.Loading(ctx, q, id, d.Ticket)
	if diff := cmp.Diff(d, again); diff != "" || err != nil {
		t.Errorf("once more: %v -want +got\n%s", err, diff)
	}
	for name, tt := range map[string][2]string{"other's ticket": {id, d2.Ticket}, "other's install": {d2.Install, d.Ticket}, "none": {id, "x"}} {
		if _, err := s.Loading(ctx, q, tt[0], tt[1]); code(err) != proto.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Sent(ctx, d.Ticket, "images/esxi8/boot.cfg", true)
	s.Sent(ctx, d.Ticket, "images/esxi8/b.b00", true)
	if got, want := strings.Join(kinds(t, s, "n1", id), " "), "stage:kernel-sent stage:image-sent"; !strings.HasSuffix(got, want) {
		t.Errorf("events = %s, want %s at the end", got, want)
	}
	if err := called(s, d, "sealed"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Loading(ctx, q, id, d.Ticket); code(err) != proto.CodeNotFound {
		t.Errorf("after the end: %v", err)
	}
}
