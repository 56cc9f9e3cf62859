// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

func imported(name string, macs []string, more ...func(*proto.NodePatch)) proto.InventoryNode {
	n := proto.InventoryNode{Name: name}
	if macs != nil {
		n.Patch.MACs = &macs
	}
	for _, f := range more {
		f(&n.Patch)
	}
	return n
}

func TestImport(t *testing.T) {
	s := registrytest.New(t)
	mac := registrytest.MAC
	s.Add("n1", 1)
	s.Add("n2", 2)
	s.Add("n9", 9)
	h := registrytest.HelloOf(s.Script("x"), registrytest.Boot(1))
	h.Node, h.Install, h.Claim, h.JoinKey, h.MACs = "", "", "", registrytest.JoinKey, []string{mac(0x77), mac(0x78)}
	s.Hello(ctx, "", h)
	if got, err := s.Select("%discovered", true); err != nil || len(got) != 1 {
		t.Fatalf("discovered = %v, %v", got, err)
	}
	groups := func(g ...string) func(*proto.NodePatch) { return func(p *proto.NodePatch) { p.Groups = &g } }
	profile := func(v string) func(*proto.NodePatch) { return func(p *proto.NodePatch) { p.Profile = &v } }
	before := s.Nodes(nil)

	bad := proto.Inventory{DryRun: true, Nodes: []proto.InventoryNode{
		imported("n1", nil, groups("a")),
		imported("n3", nil),
		imported("N4", []string{mac(4)}),
		imported("n5", []string{mac(9)}),
		imported("n6", []string{mac(6)}, profile("none")),
		imported("n1", nil),
		imported("n7", []string{mac(7)}),
		imported("n8", []string{mac(7)}, groups("a b")),
		imported("n10", []string{mac(7)}),
	}}
	a, err := s.Import(ctx, bad)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range a.Problems {
		got = append(got, fmt.Sprintf("%d %s: %s", p.Index, p.Name, p.Detail))
	}
	for i, want := range []string{`1 n3: node "n3" has no MAC`, `2 N4: node name "N4"`, `4 n6: there is no profile "none"`, `5 n1: node n1 stands twice: it is also number 1`, `7 n8: group "a b"`,
		`3 n5: MAC 52:54:00:00:00:09 belongs to node n9`, `8 n10: MAC 52:54:00:00:00:07 belongs to node n7`} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("problems of Import =\n%s\nwant number %d to begin with %s", strings.Join(got, "\n"), i, want)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d problems, want 7:\n%s", len(got), strings.Join(got, "\n"))
	}
	bad.DryRun = false
	if _, err := s.Import(ctx, bad); code(err) != proto.CodeConflict || !strings.Contains(err.Error(), "n3") {
		t.Errorf("Import with problems = %v, want conflict for n3", err)
	}
	same := func(what string) {
		t.Helper()
		after := s.Nodes(nil)
		for _, l := range [][]proto.Node{before, after} {
			slices.SortFunc(l, func(a, b proto.Node) int { return strings.Compare(a.Name, b.Name) })
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s changed nodes:\n%s", what, diff)
		}
	}
	same("an import that was refused")

	// Two nodes exchange their addresses, a discovered machine becomes a node, and what is not mentioned stays.
	serial := "S"
	good := proto.Inventory{DryRun: true, Nodes: []proto.InventoryNode{
		imported("n1", []string{mac(2)}), imported("n2", []string{mac(1)}, groups("a", "b"), profile("")), imported("n9", nil),
		imported("n7", []string{mac(0x78), "525400000007"}, profile("compute"), func(p *proto.NodePatch) {
			p.Serial, p.Attrs = &serial, map[string]*string{"k": &serial, "gone": nil}
		})}}
	want := []proto.NodeChange{
		{Name: "n1", Fields: []proto.FieldChange{{Field: "macs", Old: mac(1), New: mac(2)}}},
		{Name: "n2", Fields: []proto.FieldChange{{Field: "macs", Old: mac(2), New: mac(1)}, {Field: "profile", Old: "compute"}, {Field: "groups", New: "a,b"}}},
		{Name: "n7", New: true, Fields: []proto.FieldChange{{Field: "macs", New: mac(0x78) + "," + mac(7)}, {Field: "serial", New: "S"}, {Field: "profile", New: "compute"},
			{Field: "attr.k", New: "S"}}},
	}
	for _, dry := range []bool{true, false} {
		good.DryRun = dry
		a, err := s.Import(ctx, good)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&proto.InventoryAnswer{Schema: 1, DryRun: dry, Changes: want}, a); diff != "" {
			t.Errorf("Import, dry run %v (-want +got):\n%s", dry, diff)
		}
		if dry {
			same("a dry run")
		}
	}
	for range 2 {
		if d := s.Script(mac(1)); d.Node != "n2" {
			t.Errorf("MAC 1 is node %q, want n2", d.Node)
		}
		if d := s.Script(mac(0x78)); d.Node != "n7" {
			t.Errorf("the discovered MAC is node %q, want n7", d.Node)
		}
		if got, err := s.Select("%discovered", true); err != nil || len(got) != 0 {
			t.Errorf("discovered after the import = %v, %v", got, err)
		}
		s.Restart()
	}
	if a, err := s.Import(ctx, good); err != nil || len(a.Changes) != 0 {
		t.Errorf("the same import again = %+v, %v, want no change", a, err)
	}
}

func TestProtected(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	s.Add("n2", 2)
	set := func(name string, v bool) error {
		return s.PatchNodes(ctx, []string{name}, proto.NodePatch{Protected: &v})
	}
	s.Ordered("n1")
	if err := set("n1", true); code(err) != proto.CodeConflict {
		t.Errorf("protecting a node that is about to be installed = %v, want conflict", err)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	if err := set("n1", true); err != nil {
		t.Fatal(err)
	}
	yes := true
	if a, err := s.Import(ctx, proto.Inventory{DryRun: true, Nodes: []proto.InventoryNode{{Name: "n2", Patch: proto.NodePatch{Protected: &yes}}}}); err != nil || len(a.Problems) != 0 {
		t.Errorf("importing protected = %+v, %v", a, err)
	}
	s.Restart()
	both := []string{"n2", "n1"}
	for what, order := range map[string]func() error{
		"install": func() error { return s.Order(ctx, both, proto.InstallOrder{}, "op") },
		"boot":    func() error { return s.SetBootAction(ctx, both, proto.BootInstall, "op", "") },
		"rm":      func() error { return s.RemoveNodes(ctx, both, "") },
	} {
		err := order()
		p, _ := err.(*proto.Problem)
		if p == nil || p.Code != proto.CodeConflict || !strings.HasSuffix(p.Detail, "protected: n1") || !strings.Contains(p.Hint, "provost node set 'n1' --unprotect") {
			t.Errorf("%s of a protected node = %v, want a refusal that says how to unprotect", what, err)
		}
	}
	if n := s.Seen("n2"); n.Install != "" || n.BootAction != proto.BootDisk {
		t.Errorf("a refused order was carried out on n2: %+v", n)
	}
	if err := s.SetBootAction(ctx, []string{"n1"}, proto.BootDisk, "op", ""); err != nil {
		t.Errorf("boot disk of a protected node = %v", err)
	}
	if d := s.Script(mac); d.Action != proto.BootDisk {
		t.Errorf("a protected node boots %s", d.Action)
	}
	if err := set("n1", false); err != nil {
		t.Fatal(err)
	}
	if err := s.Order(ctx, both, proto.InstallOrder{}, "op"); err != nil {
		t.Errorf("install after unprotect = %v", err)
	}
}

func TestRename(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	s.Add("n2", 2)
	rename := func(old, name string) string {
		_, err := s.RenameNode(context.Background(), old, name)
		return code(err)
	}
	if got := rename("n1", "m1"); got != proto.CodeConflict {
		t.Errorf("renaming while an install is under way = %q, want conflict", got)
	}
	if err := s.Command(ctx, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	orders := beat(t, s, id)
	send(t, s, id, event(7, proto.KindOrder, 1, func(e *proto.Event) { e.Order, e.OrderID = "abort", orders[0].ID }))
	for _, tt := range []struct{ old, name, want string }{{"n9", "m1", proto.CodeUnknownNode}, {"n1", "n2", proto.CodeExists}, {"n1", "M1", proto.CodeBadRequest}, {"n1", "n1", ""}, {"n1", "m1", ""}} {
		if got := rename(tt.old, tt.name); got != tt.want {
			t.Errorf("rename %s %s = %q, want %q", tt.old, tt.name, got, tt.want)
		}
	}
	// An agent that was off says later what happened then: it is the renamed node's.
	send(t, s, id, event(8, proto.KindNote, 1, func(e *proto.Event) { e.Message, e.Warning = "late", true }))
	for range 2 {
		n := s.Seen("m1")
		if n.Install != id || !slices.Contains(n.Warnings, "late") || n.Ordinal != 1 {
			t.Errorf("the renamed node is %+v", n)
		}
		if _, err := s.Node("n1"); code(err) != proto.CodeUnknownNode {
			t.Errorf("the old name = %v, want unknown-node", err)
		}
		if list, err := s.InstallEvents("m1", "latest"); err != nil || len(list.Events) < 9 {
			t.Errorf("events of the renamed node: %d, %v", len(list.Events), err)
		}
		if d := s.Script(registrytest.MAC(1)); d.Node != "m1" {
			t.Errorf("its MAC is node %q's", d.Node)
		}
		s.Restart()
	}
	if s.Ordered("m1"); s.Seen("m1").Ordinal != 2 {
		t.Errorf("the next install's ordinal = %d, want 2", s.Seen("m1").Ordinal)
	}
}
