// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"slices"
	"testing"

	"provost/collector/internal/answer"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestRescue: a rescue has nothing in it that installs or that speaks for an install, and changes none.
func TestRescue(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Args = "console=ttyS0 inst.ks={{ .Answer }} inst.repo={{ .Images }}/el9 autoinstall ds=nocloud;s={{ .Answer }} preseed/url=http://site/p url=http://site/p.cfg auto=true FAI_ACTION=install title={{ .Install }}"
	p.Recipe.Answer = &answer.Recipe{Name: "kickstart-el9.tmpl"}
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	if got := code(s.SetBootAction(ctx, []string{"n1"}, proto.BootRescue, "op", "look at its disk")); got != "" {
		t.Fatalf("rescue of a node without an install = %q", got)
	}
	check := func(when string) {
		t.Helper()
		d := s.Script(mac)
		if d.Action != proto.BootRescue || d.Kernel != "images/vmlinuz" || !slices.Equal(d.Initrds, []string{"images/initrd", "overlay"}) || d.Pin != s.CA.Pin() {
			t.Errorf("%s: decision = %+v, want the profile's kernel", when, d)
		}
		if d.Args != "console=ttyS0 inst.repo=http://10.0.0.1:8480/images/el9" {
			t.Errorf("%s: args = %q", when, d.Args)
		}
		if d.Install != "" || d.Claim != "" || d.Ticket != "" || d.Attempt != 0 {
			t.Errorf("%s: a rescue carries what belongs to an install: %+v", when, d)
		}
	}
	check("without an install")
	p = registrytest.Prepared("compute")
	p.Recipe.Args = "console=ttyS0 inst.ks={{ .Images }}/ks.cfg inst.repo={{ .Images }}/el9"
	s.Profiles.Put("compute", p)
	id := s.Ordered("n1")
	if got := code(s.SetBootAction(ctx, []string{"n1"}, proto.BootRescue, "op", "")); got != "" {
		t.Fatal(got)
	}
	check("with an install")
	check("again")
	if n := s.Seen("n1"); n.Attempt != 0 || n.Install != id || n.Status != proto.StatusOrdered {
		t.Errorf("a rescue counts for the install: %+v", n)
	}
	p = registrytest.Prepared("compute")
	p.Recipe.Kernel, p.Recipe.Boot = "", "external"
	s.Profiles.Put("site", p)
	if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n2", MACs: []string{registrytest.MAC(2)}, Profile: "site"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n3", MACs: []string{registrytest.MAC(3)}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n2", "n3"} {
		if got := code(s.SetBootAction(ctx, []string{"n1", name}, proto.BootRescue, "op", "")); got != proto.CodeBadProfile {
			t.Errorf("rescue of %s, which has no kernel = %q, want bad-profile", name, got)
		}
	}
}

// TestRescueKeepsTheMedium: casper's url= is what it boots, and no answer file; cloud-init must not fetch it, too, and gets
// no other file either.
func TestRescueKeepsTheMedium(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	if got := code(s.SetBootAction(ctx, []string{"n1"}, proto.BootRescue, "op", "")); got != "" {
		t.Fatal(got)
	}
	const kept = "ip=dhcp url=http://10.0.0.1:8480/images/ubuntu/server.iso"
	for given, want := range map[string]string{
		"cloud-config-url=/dev/null":              kept + " cloud-config-url=/dev/null",
		"cloud-config-url={{ .Answer }}":          kept,
		"cloud-config-url=http://site/cloud.conf": kept,
		"cloud-config-url=/dev/nullify":           kept,
	} {
		p := registrytest.Prepared("compute")
		p.Recipe.Args = "ip=dhcp url={{ .Images }}/ubuntu/server.iso " + given + " autoinstall ds=nocloud-net;s={{ .Answer }}"
		s.Profiles.Put("compute", p)
		if d := s.Script(mac); d.Args != want {
			t.Errorf("with %s: args = %q, want %q", given, d.Args, want)
		}
	}
}

// TestInitrdSent: the stage is that of the last initrd, whole; one that is fetched elsewhere is not waited for.
func TestInitrdSent(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Initrds = []string{"images/a", "http://elsewhere/b", "overlay"}
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	for _, st := range []struct {
		file     string
		complete bool
		want     string
	}{
		{d.Kernel, true, "stage:kernel-sent"},
		{"images/a", true, "stage:kernel-sent"},
		{"images/a", true, "stage:kernel-sent"},
		{"overlay", false, "stage:kernel-sent"},
		{"images/root.img", true, "stage:image-sent"},
		{"overlay", true, "stage:initrd-sent"},
		{"overlay", true, "stage:initrd-sent"},
	} {
		s.Sent(ctx, d.Ticket, st.file, st.complete)
		if got := kinds(t, s, "n1", id); got[len(got)-1] != st.want {
			t.Errorf("after %s (whole: %t) the events are %v, want %s last", st.file, st.complete, got, st.want)
		}
	}
}
