// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestClaimRace lets two machines race for each of 1,000 claims: each is one machine's, and the other raises an alarm.
func TestClaimRace(t *testing.T) {
	s := registrytest.New(t)
	const nodes, rounds = 20, 50 // side by side, and one after the other
	for i := range byte(nodes) {
		s.Add(fmt.Sprintf("n%d", i), i)
	}
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	for range rounds {
		if err := s.Order(ctx, names, proto.InstallOrder{}, "test"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range byte(nodes) {
			wg.Go(func() {
				d := s.Script(registrytest.MAC(i))
				var tokens, alarms atomic.Int32
				var racers sync.WaitGroup
				for boot := range byte(2) {
					racers.Go(func() {
						a, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(boot)))
						switch {
						case err == nil && a.Token != "":
							tokens.Add(1)
						case code(err) == proto.CodeContested:
							alarms.Add(1)
						}
					})
				}
				racers.Wait()
				written := strings.Count(strings.Join(kinds(t, s, d.Node, d.Install), " "), "contested")
				if tokens.Load() != 1 || alarms.Load() != 1 || written != 1 || !s.Seen(d.Node).Contested {
					t.Errorf("two machines with the claim of %s: %d tokens, %d refusals, %d alarms, want one of each", d.Node, tokens.Load(), alarms.Load(), written)
				}
			})
		}
		wg.Wait()
	}
}

// TestAddress: where it is known which address a node has, a machine elsewhere gets no token, whatever it knows, and its
// try is seen; a node that is in is not asked again.
func TestAddress(t *testing.T) {
	at := func(addr string) context.Context {
		return registry.By(ctx, registry.Caller{Addr: netip.MustParseAddr(addr)})
	}
	const own, other = "10.0.0.5", "10.0.0.9"
	for _, tt := range []struct {
		name, ip, from string
		any, join      bool
		want           string
	}{
		{"a claim from the node's address", own, own, false, false, ""},
		{"a claim from elsewhere", own, other, false, false, proto.CodeContested},
		{"a claim from elsewhere, over IPv6", own, "2001:db8::5", false, false, proto.CodeContested},
		{"a claim of a node without an address", "", other, false, false, ""},
		{"a claim from elsewhere, unchecked", own, other, true, false, ""},
		{"a join key from the node's address", own, own, false, true, ""},
		{"a join key from elsewhere", own, other, false, true, proto.CodeContested},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.At(t, t.TempDir())
			s.AnyAddress = tt.any
			s.Open()
			defer s.Store.Close()
			defer s.Logs.Close()
			mac := registrytest.MAC(1)
			if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n1", MACs: []string{mac}, Profile: "compute", IP: tt.ip}); err != nil {
				t.Fatal(err)
			}
			id := s.Ordered("n1")
			h := registrytest.HelloOf(s.Script(mac), registrytest.Boot(1))
			if tt.join {
				h.Claim, h.Install, h.JoinKey, h.MACs = "", "", registrytest.JoinKey, []string{mac}
			}
			a, err := s.Hello(at(tt.from), "", h)
			if code(err) != tt.want || (err == nil) != (a != nil && a.Token != "") {
				t.Fatalf("hello from %s = %+v, %v, want %q", tt.from, a, err, tt.want)
			}
			if got := s.Seen("n1").Contested; got != (tt.want != "") {
				t.Errorf("contested = %v after %v", got, err)
			}
			if err != nil {
				list, listErr := s.InstallEvents("n1", id)
				if last := list.Events[len(list.Events)-1]; listErr != nil || last.Kind != proto.KindContested || !strings.Contains(last.Message, tt.from) {
					t.Errorf("the alarm is %+v, %v, want the address %s", last, listErr, tt.from)
				}
				if _, err := s.Hello(at(own), "", h); err != nil {
					t.Errorf("hello from the node's own address after that = %v", err)
				}
				return
			}
			// A lease changes: the answer was lost, or the agent begins anew, in the same boot.
			if _, err := s.Hello(at("10.0.0.77"), "", h); err != nil {
				t.Errorf("the same boot from a new address = %v", err)
			}
			if _, err := s.Hello(at("10.0.0.77"), id, h); err != nil {
				t.Errorf("a token from a new address = %v", err)
			}
		})
	}
}

func TestContestedIsBounded(t *testing.T) {
	s := registrytest.New(t)
	d := s.Script(func() string { m := s.Add("n1", 1); s.Ordered("n1"); return m }())
	for i := range byte(100) {
		_, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(i)))
		if want := map[bool]string{true: "", false: proto.CodeContested}[i == 0]; code(err) != want {
			t.Fatalf("hello %d = %v, want %q", i, err, want)
		}
	}
	if n := strings.Count(strings.Join(kinds(t, s, "n1", d.Install), " "), "contested"); n == 0 || n > 20 {
		t.Errorf("%d alarms were written, want some, and not one for each of 99", n)
	}
}

func TestHelloTokens(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	h := registrytest.HelloOf(d, registrytest.Boot(1))
	tokens := map[string]bool{}
	var last string
	for range 20 {
		a, err := s.Hello(ctx, "", h)
		if err != nil || tokens[a.Token] || a.Install != id {
			t.Fatalf("hello = %+v, %v: want a fresh token", a, err)
		}
		tokens[a.Token], last = true, a.Token
	}
	good := 0
	for token := range tokens {
		if _, err := s.Agent(token); err == nil {
			good++
		}
	}
	if got, err := s.Agent(last); err != nil || got != id || good > 10 {
		t.Errorf("the last token = %q, %v; %d of 20 are good, want few", got, err, good)
	}
	s.Restart()
	if got, err := s.Agent(last); err != nil || got != id {
		t.Errorf("the token after a restart = %q, %v", got, err)
	}
	s.Clock.Advance(registry.TokenLife + time.Second)
	if _, err := s.Agent(last); code(err) != proto.CodeBadCredentials {
		t.Errorf("an expired token = %v", err)
	}
	for _, bad := range []string{"", "x", last + "0", strings.ToUpper(last)} {
		if _, err := s.Agent(bad); code(err) != proto.CodeBadCredentials {
			t.Errorf("Agent(%q) = %v, want bad-credentials", bad, err)
		}
	}
}

// TestJoin: on a site that boots its nodes by itself, each boot of the installer is an attempt; one too many is said,
// and cannot be prevented.
func TestJoin(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Boot, p.Recipe.Kernel, p.Recipe.Initrds, p.Recipe.Args = "external", "", nil, ""
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	hello := func(boot byte, env string) (*proto.HelloAnswer, error) {
		return s.Hello(ctx, "", &proto.Hello{Schema: 1, Env: env, Clock: proto.Clock{Boot: registrytest.Boot(boot)}, JoinKey: registrytest.JoinKey,
			MACs: []string{mac}, Journal: registrytest.Journal})
	}
	if _, err := hello(1, proto.EnvInstaller); code(err) != proto.CodeNotOrdered {
		t.Fatalf("hello without an order = %v", err)
	}
	id := s.Ordered("n1")
	if n := s.Seen("n1"); n.BootAction != proto.BootDisk {
		t.Errorf("boot action = %s, want disk: the site's own PXE decides", n.BootAction)
	}
	for i, tt := range []struct {
		boot    byte
		env     string
		attempt int
		summary string
	}{
		{1, proto.EnvInstaller, 1, "ordered"},
		{1, proto.EnvInstaller, 1, "ordered"}, // the answer was lost
		{2, proto.EnvInstalled, 1, "ordered"},
		{3, proto.EnvInstaller, 2, "failed(loop=2)"},
		{3, proto.EnvInstaller, 2, "failed(loop=2)"},
	} {
		a, err := hello(tt.boot, tt.env)
		if err != nil || a.Install != id || a.Token == "" || a.Attempt != tt.attempt {
			t.Fatalf("hello %d = %+v, %v, want attempt %d and a token", i, a, err, tt.attempt)
		}
		if n := s.Seen("n1"); n.Summary != tt.summary {
			t.Errorf("hello %d: %s, want %s", i, n.Summary, tt.summary)
		}
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
		t.Errorf("abort of an install whose failure was only concluded: %v", err)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); code(err) != proto.CodeConflict {
		t.Errorf("abort of an aborted install = %v, want conflict", err)
	}
	s.Ordered("n1")
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	if _, err := hello(5, proto.EnvInstaller); code(err) != proto.CodeNotOrdered {
		t.Errorf("hello after an abort = %v, want not-ordered", err)
	}
}

// TestJoinIsBounded: whoever has the join key can make up boots of an ordered node, but not without end; the boots that are
// known, and another node, are let in all the same, and so is the next install.
func TestJoinIsBounded(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Add("n2", 2)
	s.Ordered("n1")
	s.Ordered("n2")
	hello := func(n byte, boot int) error {
		_, err := s.Hello(ctx, "", &proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: fmt.Sprintf("00000000-0000-4000-8000-%012x", boot)},
			JoinKey: registrytest.JoinKey, MACs: []string{registrytest.MAC(n)}, Journal: registrytest.Journal})
		return err
	}
	const most = 32
	for i := range most + 10 {
		if err := hello(1, i); (err == nil) != (i < most) || err != nil && code(err) != proto.CodeNotOrdered {
			t.Fatalf("boot %d = %v", i, err)
		}
	}
	if n := s.Seen("n1"); n.Attempt != most {
		t.Errorf("%d attempts, want %d", n.Attempt, most)
	}
	for _, boot := range []int{0, most - 1} {
		if err := hello(1, boot); err != nil {
			t.Errorf("boot %d, which is known, = %v", boot, err)
		}
	}
	if err := hello(2, 99); err != nil {
		t.Errorf("another node = %v", err)
	}
	s.Ordered("n1")
	if err := hello(1, 99); err != nil {
		t.Errorf("the next install = %v", err)
	}
}

// TestJoinBeginsWithTheKernel: what the agent did before its hello belongs to the attempt that the hello shows.
func TestJoinBeginsWithTheKernel(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	s.Clock.Advance(100 * time.Second)
	h := &proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: registrytest.Boot(1), OffsetMS: 30_000}, JoinKey: registrytest.JoinKey,
		MACs: []string{mac}, Journal: registrytest.Journal}
	if _, err := s.Hello(ctx, "", h); err != nil {
		t.Fatal(err)
	}
	q := request(id, registrytest.Journal, event(1, proto.KindAgentStart, 1, func(e *proto.Event) { e.Stage = "agent-started" }))
	q.Clock.OffsetMS = 30_000
	if _, err := s.Events(ctx, id, q); err != nil {
		t.Fatal(err)
	}
	if n := s.Seen("n1"); n.Status != proto.StatusInstalling || n.Attempt != 1 {
		t.Errorf("the node is %s in attempt %d, want installing in 1", n.Summary, n.Attempt)
	}
}

func TestPlanIsSignedAgain(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	if err := s.Order(ctx, []string{"n1"}, proto.InstallOrder{NextBoot: true}, "op"); err != nil {
		t.Fatal(err)
	}
	plan := func(boot byte) *proto.Plan {
		a, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(boot)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := proto.DecodePlan(a.Plan.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Expires.After(a.Time) {
			t.Errorf("the plan expires at %v, it is %v", p.Expires, a.Time)
		}
		return p
	}
	s.Clock.Advance(30 * 24 * time.Hour) // it was switched on a month later
	first := plan(1)
	if len(first.Steps) != 1 || first.Steps[0].Timeout == nil || first.Revision != 1 || first.Node != "n1" {
		t.Errorf("plan = %+v", first)
	}
}
