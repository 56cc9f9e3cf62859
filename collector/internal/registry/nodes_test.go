// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

func spec(name string, macs ...string) proto.NodeSpec {
	return proto.NodeSpec{Name: name, MACs: macs, Profile: "compute"}
}

func TestAddNode(t *testing.T) {
	s := registrytest.New(t)
	for _, tt := range []struct {
		spec proto.NodeSpec
		code string
	}{
		{spec("n1", "52-54-00-00-00-01"), ""},
		{spec("n1", registrytest.MAC(2)), proto.CodeExists},
		{spec("n2", registrytest.MAC(2), registrytest.MAC(1)), proto.CodeExists},
		{spec("N2", registrytest.MAC(2)), proto.CodeBadRequest},
		{spec("n2"), proto.CodeBadRequest},
		{proto.NodeSpec{Name: "n2", MACs: []string{registrytest.MAC(2)}, Profile: "none"}, proto.CodeUnknownProfile},
		{spec("n2", registrytest.MAC(2)), ""},
	} {
		if _, err := s.AddNode(ctx, tt.spec); code(err) != tt.code {
			t.Errorf("AddNode(%+v) = %v, want %q", tt.spec, err, tt.code)
		}
	}
	n := s.Seen("n1")
	if n.Status != proto.StatusDefined || n.BootAction != proto.BootDisk || n.MACs[0] != registrytest.MAC(1) {
		t.Errorf("a new node = %+v, want defined, disk, its MAC normalised", n)
	}
	s.Restart()
	if diff := cmp.Diff(n, s.Seen("n1")); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}

func TestPatchNodes(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Add("n2", 2)
	text := func(v string) *string { return &v }
	macs := []string{registrytest.MAC(1)}
	for _, tt := range []struct {
		names string
		patch proto.NodePatch
		code  string
	}{
		{"n1,n2", proto.NodePatch{AddGroups: []string{"rack1", "gpu"}, Attrs: map[string]*string{"a": text("1"), "b": text("2")}}, ""},
		{"n1,n2", proto.NodePatch{AddGroups: []string{"rack1"}, RemoveGroups: []string{"gpu"}, Attrs: map[string]*string{"a": nil}}, ""},
		{"n1,n2", proto.NodePatch{Serial: text("x")}, proto.CodeBadRequest},
		{"n2", proto.NodePatch{MACs: &macs}, proto.CodeExists},
		{"n2", proto.NodePatch{Profile: text("none")}, proto.CodeUnknownProfile},
		{"n1,n3", proto.NodePatch{AddGroups: []string{"x"}}, proto.CodeUnknownNode},
		{"n1", proto.NodePatch{AddGroups: []string{"a b"}}, proto.CodeBadRequest},
		{"n1", proto.NodePatch{IP: text("10.0.0.300")}, proto.CodeBadRequest},
		{"n1", proto.NodePatch{IP: text("10.0.0.3")}, ""},
	} {
		if err := s.PatchNodes(ctx, strings.Split(tt.names, ","), tt.patch); code(err) != tt.code {
			t.Errorf("PatchNodes(%s, %+v) = %v, want %q", tt.names, tt.patch, err, tt.code)
		}
	}
	n := s.Seen("n1")
	if !cmp.Equal(n.Groups, []string{"rack1"}) || !cmp.Equal(n.Attrs, map[string]string{"b": "2"}) || n.IP != "10.0.0.3" {
		t.Errorf("n1 = %+v", n)
	}
	// A MAC that is given up is free, in the same breath.
	other := []string{registrytest.MAC(7)}
	if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{MACs: &other}); err != nil {
		t.Fatal(err)
	}
	if err := s.PatchNodes(ctx, []string{"n2"}, proto.NodePatch{MACs: &macs}); err != nil {
		t.Errorf("taking a MAC that was given up: %v", err)
	}
	s.Ordered("n2")
	if d := s.Script(registrytest.MAC(1)); d.Node != "n2" {
		t.Errorf("the MAC leads to %q, want n2", d.Node)
	}
}

func TestRemoveNodes(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	id := s.Ordered("n1")
	a, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendLog(id, "one.log", 0, []byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNodes(ctx, []string{"n1", "n2"}, "sold"); code(err) != proto.CodeConflict || !strings.Contains(err.Error(), "n1") {
		t.Errorf("removing a node that is being installed = %v, want conflict", err)
	}
	s.Seen("n2")
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNodes(ctx, []string{"n1", "n2"}, "sold"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Node("n1"); code(err) != proto.CodeUnknownNode {
			t.Errorf("Node of a removed node = %v", err)
		}
		if _, err := s.Agent(a.Token); code(err) != proto.CodeBadCredentials {
			t.Errorf("the token of a removed node = %v", err)
		}
		s.Restart()
	}
	if logs, err := s.Logs.List(id); err != nil || len(logs) != 0 {
		t.Errorf("logs of a removed node = %v, %v", logs, err)
	}
	s.Add("n1", 1)
	if s.Ordered("n1"); s.Seen("n1").Ordinal != 1 {
		t.Errorf("ordinal of a new node of the same name = %d, want 1", s.Seen("n1").Ordinal)
	}
}

func TestSelect(t *testing.T) {
	s := registrytest.New(t)
	for i, name := range []string{"n10", "n2", "n1"} {
		s.Add(name, byte(i+1))
	}
	if err := s.PatchNodes(ctx, []string{"n1", "n10"}, proto.NodePatch{AddGroups: []string{"rack1"}}); err != nil {
		t.Fatal(err)
	}
	h := registrytest.HelloOf(s.Script("x"), registrytest.Boot(1))
	h.Node, h.Install, h.Claim, h.JoinKey, h.MACs = "", "", "", registrytest.JoinKey, []string{registrytest.MAC(0x77)}
	if _, err := s.Hello(ctx, "", h); code(err) != proto.CodeUnknownNode {
		t.Fatalf("hello of an unknown machine = %v", err)
	}
	s.Ordered("n2")
	for _, tt := range []struct {
		expr       string
		discovered bool
		want, code string
	}{
		{"@all", false, "n1 n2 n10", ""},
		{"@all", true, "52-54-00-00-00-77 n1 n2 n10", ""},
		{"@rack1", false, "n1 n10", ""},
		{"%ordered", false, "n2", ""},
		{"%defined!n1", false, "n10", ""},
		{"%waiting", false, "", ""},
		{"n[1-2]", false, "n1 n2", ""},
		{"n[1-3]", false, "", proto.CodeUnknownNode},
		{"@none", false, "", proto.CodeBadRequest},
		{"%nonsense", false, "", proto.CodeBadRequest},
		{"n[1", false, "", proto.CodeBadRequest},
	} {
		got, err := s.Select(tt.expr, tt.discovered)
		if code(err) != tt.code || err == nil && strings.Join(got, " ") != tt.want {
			t.Errorf("Select(%q, %v) = %v, %v, want %q, %q", tt.expr, tt.discovered, got, err, tt.want, tt.code)
		}
	}
}

func TestDiscovered(t *testing.T) {
	s := registrytest.New(t)
	h := registrytest.HelloOf(s.Script("x"), registrytest.Boot(1))
	h.Node, h.Install, h.Claim, h.JoinKey, h.MACs, h.Serial = "", "", "", registrytest.JoinKey, []string{registrytest.MAC(1), registrytest.MAC(2)}, "S1"
	for range 2 {
		if _, err := s.Hello(ctx, "", h); code(err) != proto.CodeUnknownNode {
			t.Fatalf("hello = %v, want unknown-node", err)
		}
	}
	all := s.Nodes(nil)
	if len(all) != 1 || all[0].Status != proto.StatusDiscovered || all[0].Serial != "S1" {
		t.Fatalf("nodes = %+v, want one that is discovered", all)
	}
	name := all[0].Name
	for what, err := range map[string]error{
		"install": s.Order(ctx, []string{name}, proto.InstallOrder{}, ""), "patch": s.PatchNodes(ctx, []string{name}, proto.NodePatch{}),
		"boot": s.SetBootAction(ctx, []string{name}, proto.BootBlock, "", ""), "hold": s.Command(ctx, []string{name}, proto.VerbHold, proto.NodeOrder{}, ""),
	} {
		if code(err) != proto.CodeUnknownNode {
			t.Errorf("%s of a discovered machine = %v, want unknown-node", what, err)
		}
	}
	if _, err := s.AddNode(ctx, spec("n1", registrytest.MAC(2))); err != nil {
		t.Fatal(err)
	}
	if all := s.Nodes(nil); len(all) != 1 || all[0].Name != "n1" || all[0].Status != proto.StatusDefined {
		t.Errorf("nodes = %+v, want n1 in place of the discovered machine", all)
	}
	s.Ordered("n1")
	if a, err := s.Hello(ctx, "", h); err != nil || a.Node != "n1" {
		t.Errorf("hello of the added machine = %+v, %v", a, err)
	}
}

func TestOrder(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n3", MACs: []string{registrytest.MAC(3)}}); err != nil {
		t.Fatal(err)
	}
	short := proto.Duration(1)
	for _, tt := range []struct {
		names string
		order proto.InstallOrder
		code  string
	}{
		{"n1,nx", proto.InstallOrder{}, proto.CodeUnknownNode},
		{"n1,n3", proto.InstallOrder{}, proto.CodeBadProfile},
		{"n1", proto.InstallOrder{Profile: "none"}, proto.CodeUnknownProfile},
		{"n1", proto.InstallOrder{Label: "a b"}, proto.CodeBadRequest},
		{"n1", proto.InstallOrder{Within: &short}, proto.CodeBadRequest},
		{"n1", proto.InstallOrder{Within: &short, NextBoot: true}, proto.CodeBadRequest},
	} {
		if err := s.Order(ctx, strings.Split(tt.names, ","), tt.order, "op"); code(err) != tt.code {
			t.Errorf("Order(%s, %+v) = %v, want %q", tt.names, tt.order, err, tt.code)
		}
	}
	if n := s.Seen("n1"); n.Install != "" {
		t.Fatalf("a refused order left %+v", n)
	}
	if err := s.Order(ctx, []string{"n1", "n2", "n3"}, proto.InstallOrder{Profile: "compute", Label: "nightly", Reason: "why"}, "op"); err != nil {
		t.Fatal(err)
	}
	first := s.Seen("n1")
	if first.Status != proto.StatusOrdered || first.Ordinal != 1 || first.BootAction != proto.BootInstall || first.Label != "nightly" {
		t.Errorf("ordered node = %+v", first)
	}
	d := s.Script(mac)
	second := s.Ordered("n1")
	if n := s.Seen("n1"); n.Ordinal != 2 || n.Install == first.Install || n.Attempt != 0 || n.Status != proto.StatusOrdered {
		t.Errorf("ordered again = %+v", n)
	}
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); code(err) != proto.CodeNotOrdered {
		t.Errorf("the first install's claim = %v, want not-ordered", err)
	}
	list, err := s.Installs("n1")
	if err != nil || len(list) != 2 || list[0].ID != second || list[1].ID != first.Install || list[1].Actor != "op" || list[1].Reason != "why" {
		t.Errorf("Installs = %+v, %v: want the newest first", list, err)
	}
	if got := kinds(t, s, "n1", first.Install); !cmp.Equal(got, []string{"ordered", "attempt:bootscript-sent", "superseded"}) {
		t.Errorf("events of the first = %v", got)
	}
	in, err := s.Install("n1", "latest")
	if err != nil || in.ID != second || len(in.Steps) != 1 || in.Steps[0].Name != "one" || in.Steps[0].Try != 0 {
		t.Errorf("Install(latest) = %+v, %v: want the plan's step, not begun", in, err)
	}
	if _, err := s.Install("n2", second); code(err) != proto.CodeNotFound {
		t.Errorf("n1's install asked of n2 = %v, want not-found", err)
	}
}
