// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/inventory"
	"provost/proto"
)

func p(s string) *string { return &s }
func l(s ...string) *[]string {
	if s == nil {
		s = []string{}
	}
	return &s
}

func entry(line int, name string, patch proto.NodePatch) inventory.Entry {
	return inventory.Entry{Line: line, InventoryNode: proto.InventoryNode{Name: name, Patch: patch}}
}

func TestParse(t *testing.T) {
	yes := true
	for _, tt := range []struct {
		name, format, in string
		want             inventory.File
	}{
		{"yaml", "yaml", "\ufeffschema: 1\nnodes:\n  - name: n1\n    macs: [\"52:54:00:00:00:01\", 525400000002]\n    serial: 0123\n    attrs: {role: login, old: null, empty: ''}\n    protected: true\n" +
			"  - {name: n2, groups: , profile: ''}\n",
			inventory.File{Nodes: []inventory.Entry{
				entry(3, "n1", proto.NodePatch{MACs: l("52:54:00:00:00:01", "525400000002"), Serial: p("0123"), Protected: &yes,
					Attrs: map[string]*string{"role": p("login"), "old": nil, "empty": p("")}}),
				entry(8, "n2", proto.NodePatch{Groups: l(), Profile: p("")}),
			}}},
		{"yaml without a node", "yaml", "nodes:\n", inventory.File{}},
		{"csv", "csv", "# rack 1\nName, mac,groups,attr.role,protected\nn1,52:54:00:00:00:01 52:54:00:00:00:02,\"a,b\",login,yes\nn2,,,,\n",
			inventory.File{Nodes: []inventory.Entry{
				entry(3, "n1", proto.NodePatch{MACs: l("52:54:00:00:00:01", "52:54:00:00:00:02"), Groups: l("a", "b"), Attrs: map[string]*string{"role": p("login")}, Protected: &yes}),
				entry(4, "n2", proto.NodePatch{MACs: l(), Groups: l(), Attrs: map[string]*string{"role": nil}, Protected: new(bool)}),
			}}},
		{"xcat", "xcat", "# <xCAT data object stanza file>\r\n\r\nn1:\r\n    objtype=node\r\n    arch=x86_64\r\n    groups=compute,all\r\n    ip=10.0.0.1\r\n    mac=52:54:00:00:00:01!n1|52:54:00:00:00:02!*NOIP*\r\n" +
			"    netboot=xnba\r\n    os=rhels9.4\r\n    postscripts=syslog,remoteshell\r\n    provmethod=\r\n\r\nimg:\n    objtype=osimage\n    imagetype=linux\n",
			inventory.File{Nodes: []inventory.Entry{
				entry(3, "n1", proto.NodePatch{MACs: l("52:54:00:00:00:01", "52:54:00:00:00:02"), IP: p("10.0.0.1"), Groups: l("compute"),
					Attrs: map[string]*string{"arch": p("x86_64"), "os": p("rhels9.4"), "xcat-postscripts": p("syslog,remoteshell"), "xcat-provmethod": nil}}),
			}, Notes: []string{"objects that are no nodes were left out: 1", "attributes of xCAT that have no place here were left out: netboot"}}},
		{"xcat with defaults", "xcat", "default-node:\n  groups=a\n  arch=ppc64\ndefault-osimage:\n  x=y\nn1:\n  objtype=node\n  MAC=525400000001\n  arch=x86_64\ndefault-node:\n  groups=b\nn2:\n  objtype=node\n",
			inventory.File{Nodes: []inventory.Entry{
				entry(6, "n1", proto.NodePatch{MACs: l("525400000001"), Groups: l("a"), Attrs: map[string]*string{"arch": p("x86_64")}}),
				entry(12, "n2", proto.NodePatch{Groups: l("b"), Attrs: map[string]*string{"arch": p("ppc64")}}),
			}}},
	} {
		if diff := cmp.Diff(tt.want, inventory.Parse(tt.format, []byte(tt.in))); diff != "" {
			t.Errorf("%s: Parse (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestProblems: every problem has its line, and those behind it are found too.
func TestProblems(t *testing.T) {
	for _, tt := range []struct{ name, format, in, want string }{
		{"empty yaml", "yaml", "", "1: the file is empty"},
		{"no yaml", "yaml", "nodes:\n  - name: n1\n  bad\n", "3: could not find"},
		{"a list", "yaml", "- name: n1\n", "1: the file is no map"},
		{"no nodes", "yaml", "schema: 1\n", "1: there is no key nodes"},
		{"nodes is no list", "yaml", "nodes: {a: b}\n", "1: nodes is no list"},
		{"second document", "yaml", "nodes: []\n---\nnodes: []\n", "2: a second document"},
		{"broken second document", "yaml", "nodes: []\n---\n\t[\n", "3: found"},
		{"all of them", "yaml", "nodes:\n  - name: n1\n    mac: x\n    ip: [a]\n  - macs: 52\n  - {}\n  - name: n3\n  - name: n3\nhosts: []\n",
			`3: key "mac" is unknown|4: ip is no plain|5: macs is no list|6: the node has no name|8: node "n3" stands twice: it is on line 7|9: key "hosts"`},
		{"alias", "yaml", "nodes:\n  - name: &a n1\n  - name: *a\n    name: x\n", "3: name is no plain|4: key \"name\" stands twice"},
		{"protected", "yaml", "nodes:\n  - name: n1\n    protected: maybe\n", `3: protected "maybe"`},
		{"complex key", "yaml", "nodes:\n  - [a]: b\n", "2: the node is no map|2: a key"},
		{"empty csv", "csv", "\n", "1: the file is empty"},
		{"csv header", "csv", "n1,52:54\n", `1: column "n1" is unknown|1: column "52:54"|1: there is no column name`},
		{"csv columns twice", "csv", "name,mac,macs\n", `1: column "macs" stands twice`},
		{"csv rows", "csv", "name,ip\nn1\nn2,1,2\n,3\nn4,4\nn4,5\n", `2: 1 fields, and|3: 3 fields|4: the node has no name|6: node "n4" stands twice`},
		{"csv quote", "csv", "name\nn1\na\"b\nn2\n", "3: bare \""},
		{"csv protected", "csv", "name,protected\nn1,x\n", `2: protected "x"`},
		{"empty xcat", "xcat", "# nothing\n", "1: there is no node"},
		{"xcat", "xcat", "    mac=1\nn1:\nmac=2\n    x\n    ip=1\n    IP=2\nn2:\n:\n", `1: an attribute stands before|4: "x" is no line|6: attribute "ip" of n1 stands twice|8: ":" is no line`},
		{"format", "xml", "<a>", "1: format"},
	} {
		f := inventory.Parse(tt.format, []byte(tt.in))
		var got []string
		for _, p := range f.Problems {
			got = append(got, fmt.Sprintf("%d: %s", p.Line, p.Text))
		}
		want := strings.Split(tt.want, "|")
		if tt.name == "complex key" { // one of the two, as the library reads it
			want = want[1:]
		}
		ok := len(got) == len(want)
		for i := range want {
			ok = ok && strings.HasPrefix(got[i], want[i])
		}
		if !ok {
			t.Errorf("%s: problems of Parse =\n%s\nwant\n%s", tt.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestGuess(t *testing.T) {
	for path, want := range map[string]string{"a.yaml": "yaml", "b/c.YML": "yaml", "x.csv": "csv", "n.stanza": "xcat", "nodes": "", "-": ""} {
		if got := inventory.Guess(path); got != want {
			t.Errorf("Guess(%q) = %q, want %q", path, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"nodes:\n  - name: n1\n    macs: [a]\n    attrs: {a: b}\n", "name,mac\nn1,x\n", "n1:\n    mac=1!a|2\n", "nodes: &a\n  - *a\n", "nodes:\n- ? [a]\n  : b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, format := range inventory.Formats {
			out := inventory.Parse(format, []byte(in))
			seen := map[string]bool{}
			for _, e := range out.Nodes {
				if e.Line < 1 || e.Line > strings.Count(in, "\n")+1 || seen[e.Name] {
					t.Errorf("Parse(%s, %q): line %d of %q", format, in, e.Line, e.Name)
				}
				seen[e.Name] = true
			}
			for _, p := range out.Problems {
				if p.Line < 1 || p.Line > strings.Count(in, "\n")+2 {
					t.Errorf("Parse(%s, %q): problem on line %d: %s", format, in, p.Line, p.Text)
				}
			}
		}
	})
}
