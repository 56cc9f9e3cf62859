// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/answer"
	"provost/collector/internal/boot"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// withAnswer gives the profile compute an answer file.
func withAnswer(s *registrytest.Site, text string) {
	p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\n"})
	p.Recipe.Args = "inst.ks={{ .Answer }}"
	p.Recipe.Answer = &answer.Recipe{Name: "kickstart-x.tmpl", Text: text, Profile: "compute",
		Vars: map[string]string{"rootpw-hash": "file:/x"}, Secrets: map[string]string{"file:/x": "$6$CANARY"}}
	s.Profiles.Put("compute", p)
}

const answerText = `{{ .Node | ks }} {{ .MAC | ks }} {{ .Images | ks }} {{ var "colour" "none" | ks }} {{ var "rootpw-hash" | ks }}`

// TestAnswerFile: what was kept when the install was ordered is served until the installer is done, to nobody but whom the
// attempt's boot script told.
func TestAnswerFile(t *testing.T) {
	s := registrytest.New(t)
	withAnswer(s, answerText)
	mac := s.Add("n1", 1)
	colour := func(v string) {
		t.Helper()
		if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{Attrs: map[string]*string{"colour": &v}}); err != nil {
			t.Fatal(err)
		}
	}
	colour("red")
	id := s.Ordered("n1")
	withAnswer(s, "another template")
	colour("blue")
	s.Restart()

	d := s.Script(mac)
	q := boot.Request{Host: "10.0.0.1:8480"}
	if want := "inst.ks=" + q.Answer(id, d.Ticket, "ks.cfg"); d.Args != want {
		t.Errorf("kernel arguments = %s, want %s", d.Args, want)
	}
	get := func(install, ticket, file string) string {
		b, err := s.Answer(ctx, q, install, ticket, file)
		if p := new(proto.Problem); errors.As(err, &p) {
			return http.StatusText(p.Status)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := "n1 " + mac + ` http://10.0.0.1:8480/images red "$6$CANARY"`
	for range 2 {
		if got := get(id, d.Ticket, "ks.cfg"); got != want {
			t.Errorf("answer file = %s, want %s", got, want)
		}
	}
	other := s.Add("n2", 2)
	s.Ordered("n2")
	d2 := s.Script(other)
	for name, got := range map[string]string{
		"other file": get(id, d.Ticket, "shadow"), "other's ticket": get(id, d2.Ticket, "ks.cfg"), "other's install": get(d2.Install, d.Ticket, "ks.cfg"),
		"no ticket": get(id, "x", "ks.cfg"),
	} {
		if got != "Not Found" {
			t.Errorf("%s: %s, want Not Found", name, got)
		}
	}

	s.Sent(ctx, d.Ticket, "images/vmlinuz", true)
	s.Sent(ctx, d.Ticket, boot.AnswerPrefix+"ks.cfg", true)
	s.Sent(ctx, d.Ticket, boot.AnswerPrefix+"ks.cfg", true)
	list, err := s.InstallEvents("n1", id)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list.Events {
		if e.Stage == "answer-sent" && e.Source == proto.SourceBoot {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d events answer-sent, want 1", n)
	}

	r, err := s.Render("n1", "10.0.0.1:8480", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Install != id || len(r.Files) != 1 || r.Files[0].Text != strings.Replace(want, "$6$CANARY", "********", 1) ||
		r.Args != "inst.ks="+q.Answer(id, "********", "ks.cfg") {
		t.Errorf("rendered = %+v", r)
	}
	begins := map[string]string{"boot.ipxe": "#!ipxe\n", "boot.grub": "echo 'Provost: installing n1, attempt 1'\nif linux ", "boot.pxelinux": "SAY Provost: installing n1, attempt 1\n"}
	for _, f := range r.Scripts {
		if begins[f.Name] == "" || !strings.HasPrefix(f.Text, begins[f.Name]) || strings.Contains(f.Text, d.Claim) || strings.Contains(f.Text, d.Ticket) ||
			!strings.Contains(f.Text, "provost.claim=********") || !strings.Contains(f.Text, "/images/vmlinuz?t=********") {
			t.Errorf("%s = %s", f.Name, f.Text)
		}
	}
	if len(r.Scripts) != len(begins) {
		t.Errorf("%d scripts, want %d", len(r.Scripts), len(begins))
	}

	seal(t, s, d)
	if got := get(id, d.Ticket, "ks.cfg"); got != "Not Found" {
		t.Errorf("after the seal: %s", got)
	}
	r, err = s.Render("n1", "10.0.0.1:8480", nil)
	if err != nil || r.Install != "" || r.Files[0].Text != "another template" {
		t.Errorf("after the seal the next order would get %+v, %v", r, err)
	}
}

// TestAnswerNamesTheCard: an answer file names the card that asked last for its attempt's boot script, also after a restart; the
// node's first while none has, or if an operator took that card away.
func TestAnswerNamesTheCard(t *testing.T) {
	s := registrytest.New(t)
	withAnswer(s, "{{ .MAC | ks }}")
	first, second, third := registrytest.MAC(1), registrytest.MAC(2), registrytest.MAC(3)
	p := s.Profiles.All["compute"]
	p.Recipe.Args, p.Recipe.Attempts = "card={{ .MAC }}", 2
	if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n1", MACs: []string{first, second}, Profile: "compute"}); err != nil {
		t.Fatal(err)
	}
	id := s.Ordered("n1")
	var d boot.Decision
	check := func(when, want string) {
		t.Helper()
		r, err := s.Render("n1", "10.0.0.1:8480", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Files[0].Text != want || r.Args != "card="+want {
			t.Errorf("%s: rendered: %s, %s, want %s", when, r.Files[0].Text, r.Args, want)
		}
		if d.Ticket == "" {
			return
		}
		if b, err := s.Answer(ctx, boot.Request{Host: "h"}, id, d.Ticket, "ks.cfg"); err != nil || string(b) != want {
			t.Errorf("%s: answer file = %s, %v, want %s", when, b, err, want)
		}
		if l, err := s.Loading(ctx, boot.Request{Host: "h"}, id, d.Ticket); err != nil || l.Args != "card="+want {
			t.Errorf("%s: boot.cfg = %s, %v, want %s", when, l.Args, err, want)
		}
	}
	check("nothing has booted", first)
	d = s.Script(second)
	check("booted by the second", second)
	s.Restart()
	check("after a restart", second)
	d = s.Script(first)
	check("the first asks before a kernel was sent", first)
	d = s.Script(second)
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	if _, err := s.Boot(ctx, boot.Request{MAC: first, Method: http.MethodGet, Host: "h", Again: d.Attempt}); err != nil {
		t.Fatal(err)
	}
	check("the first asks as a loader that could not load all files", first)
	if _, err := s.Boot(ctx, boot.Request{MAC: second, Method: http.MethodHead, Host: "h"}); err != nil {
		t.Fatal(err)
	}
	check("a HEAD boots nothing", first)
	if d = s.Script(second); d.Attempt != 2 {
		t.Fatalf("attempt %d, want 2", d.Attempt)
	}
	check("the next attempt, by the second", second)
	macs := []string{first, third}
	if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{MACs: &macs}); err != nil {
		t.Fatal(err)
	}
	check("without the card", first)
	seal(t, s, d)
	d = boot.Decision{}
	check("the next order", first)
}

// TestAnswerNamesTheCardOfADisklessBoot: each of its boots is an install of its own.
func TestAnswerNamesTheCardOfADisklessBoot(t *testing.T) {
	s := registrytest.New(t)
	withAnswer(s, "{{ .MAC | ks }}")
	p := s.Profiles.All["compute"]
	p.Recipe.Kind, p.Recipe.Attempts = "diskless", 5
	first, second := registrytest.MAC(1), registrytest.MAC(2)
	if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n1", MACs: []string{first, second}, Profile: "compute"}); err != nil {
		t.Fatal(err)
	}
	s.Ordered("n1")
	for _, mac := range []string{second, first, second} {
		d := s.Script(mac)
		if b, err := s.Answer(ctx, boot.Request{Host: "h"}, d.Install, d.Ticket, "ks.cfg"); err != nil || string(b) != mac {
			t.Errorf("booted by %s: answer file = %s, %v", mac, b, err)
		}
		s.Sent(ctx, d.Ticket, d.Kernel, true)
		s.Clock.Advance(time.Minute)
	}
}

// seal lets the agent say that the installer is done.
func seal(t *testing.T, s *registrytest.Site, d boot.Decision) {
	t.Helper()
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(time.Minute)
	send(t, s, d.Install, event(1, proto.KindSealed, 1, func(e *proto.Event) { e.Stage = "sealed" }))
}

func TestAnswerFileOfASupersededInstall(t *testing.T) {
	s := registrytest.New(t)
	withAnswer(s, answerText)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	s.Ordered("n1")
	if _, err := s.Answer(ctx, boot.Request{Host: "h"}, id, d.Ticket, "ks.cfg"); code(err) != proto.CodeNotFound {
		t.Errorf("error = %v, want not found", err)
	}
}

func TestRenderRefuses(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	if _, err := s.Render("n9", "h:80", nil); code(err) != proto.CodeUnknownNode {
		t.Errorf("unknown node: %v", err)
	}
	if r, err := s.Render("n1", "h:80", nil); err != nil || len(r.Files) != 0 || r.Args != "quiet" {
		t.Errorf("a profile without an answer file: %+v, %v", r, err)
	}
	withAnswer(s, `{{ var "colour" | ks }}`)
	if _, err := s.Render("n1", "h:80", nil); code(err) != proto.CodeBadProfile || !strings.Contains(err.Error(), `there is no var "colour"`) {
		t.Errorf("a template that cannot be made: %v", err)
	}
}

// TestAnswerByMachine: where the site boots a node by itself, its installer says who it is, and gets the file of the install
// that is ordered, from the node's address alone.
func TestAnswerByMachine(t *testing.T) {
	s := registrytest.New(t)
	withAnswer(s, answerText)
	p := s.Profiles.All["compute"]
	p.Recipe.Boot, p.Recipe.Kernel, p.Recipe.Args = "external", "", ""
	mac := s.Add("n1", 1)
	other := s.Add("n2", 2)
	ip, serial := "10.0.0.7", "S1"
	if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{IP: &ip, Serial: &serial}); err != nil {
		t.Fatal(err)
	}
	get := func(remote, serial string, macs ...string) string {
		b, ticket, err := s.AnswerOf(ctx, boot.Request{Host: "10.0.0.1:8480", RemoteAddr: remote, MACs: macs, Serial: serial}, "ks.cfg")
		if p := new(proto.Problem); errors.As(err, &p) {
			return http.StatusText(p.Status)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Sent(ctx, ticket, "answer/ks.cfg", true)
		return string(b)
	}
	const from = "10.0.0.7:1234"
	if got := get(from, "", mac); got != "Not Found" {
		t.Errorf("without an order: %s", got)
	}
	id := s.Ordered("n1")
	s.Ordered("n2")
	for _, c := range []struct {
		name, remote, serial string
		macs                 []string
		want                 string
	}{
		{"MAC", from, "", []string{mac}, "n1 " + mac},
		{"among others", from, "", []string{"52:54:00:00:00:77", mac}, "n1 " + mac},
		{"serial", from, "S1", nil, "n1 " + mac},
		{"IPv4 in IPv6", "[::ffff:10.0.0.7]:1", "", []string{mac}, "n1 " + mac},
		{"no address known", "10.9.9.9:1", "", []string{other}, "n2 " + other},
		{"from elsewhere", "10.0.0.8:1234", "", []string{mac}, "Not Found"},
		{"from nowhere", "", "", []string{mac}, "Not Found"},
		{"two nodes", from, "", []string{mac, other}, "Conflict"},
		{"unknown", from, "", []string{"52:54:00:00:00:77"}, "Not Found"},
		{"an unknown card with a serial", from, "S1", []string{"52:54:00:00:00:77"}, "Not Found"},
		{"nobody", from, "", nil, "Not Found"},
	} {
		if got := get(c.remote, c.serial, c.macs...); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	cards := []string{mac, registrytest.MAC(8), registrytest.MAC(9)}
	if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{MACs: &cards}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ has, want string }{{cards[2] + " " + cards[1], cards[1]}, {cards[2], cards[2]}, {cards[1] + " " + mac, mac}} {
		if got := get(from, "", strings.Fields(c.has)...); !strings.HasPrefix(got, "n1 "+c.want) {
			t.Errorf("a machine with the cards %s: %s, want %s", c.has, got, c.want)
		}
	}
	if got := kinds(t, s, "n1", id); got[len(got)-1] != "stage:answer-sent" {
		t.Errorf("events = %v", got)
	}
	p = registrytest.Prepared("compute")
	p.Recipe.Answer = &answer.Recipe{Name: "kickstart-x.tmpl", Text: answerText, Vars: map[string]string{"rootpw-hash": "x"}}
	s.Profiles.Put("compute", p)
	s.Ordered("n1")
	if got := get(from, "", mac); got != "Not Found" {
		t.Errorf("of a node that our boot script starts: %s", got)
	}
}

// TestAnswerFromElsewhere: what a ticket opens is for the node's own address, where that is known and to be checked.
func TestAnswerFromElsewhere(t *testing.T) {
	for _, any := range []bool{false, true} {
		s := registrytest.New(t)
		s.AnyAddress = any
		s.Restart()
		withAnswer(s, answerText)
		p := s.Profiles.All["compute"]
		p.Recipe.Loader, p.Recipe.Kernel = "esxi", "images/esxi8/boot.cfg"
		mac, ip := s.Add("n1", 1), "10.0.0.7"
		if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{IP: &ip}); err != nil {
			t.Fatal(err)
		}
		id := s.Ordered("n1")
		d := s.Script(mac)
		for remote, want := range map[string]string{"10.0.0.7:99": "", "[::ffff:10.0.0.7]:99": "", "10.0.0.8:99": proto.CodeForbidden, "": proto.CodeForbidden} {
			if any {
				want = ""
			}
			q := boot.Request{Host: "10.0.0.1:8480", RemoteAddr: remote}
			if _, err := s.Answer(ctx, q, id, d.Ticket, "ks.cfg"); code(err) != want {
				t.Errorf("answer file for %q (any address: %t): %v, want %q", remote, any, err, want)
			}
			if _, err := s.Loading(ctx, q, id, d.Ticket); code(err) != want {
				t.Errorf("boot.cfg for %q (any address: %t): %v, want %q", remote, any, err, want)
			}
		}
	}
}

// TestAnswerTellsTheCollector: on a site that boots its nodes by itself, and where provostd.yaml advertises no address, the agent
// is told the one that its machine has reached.
func TestAnswerTellsTheCollector(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Boot, p.Recipe.Kernel, p.Recipe.Args = "external", "", ""
	p.Recipe.Answer = &answer.Recipe{Name: "kickstart-x.tmpl", Text: "{{ provost.pre }}\n", Profile: "compute", External: true, Vars: map[string]string{"join-key": "pvj_x"}}
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	for host, want := range map[string]string{"10.0.0.1:8480": " https://10.0.0.1:9443 ", "front": " https://front:9443 ", "[fd00::1]:8480": " 'https://[fd00::1]:9443' "} {
		b, _, err := s.AnswerOf(ctx, boot.Request{Host: host, AgentPort: 9443, MACs: []string{mac}}, "ks.cfg")
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("the file for %s: %v, has not %s:\n%s", host, err, want, b)
		}
	}
}
