// SPDX-License-Identifier: Apache-2.0

package nodeset_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/collector/internal/nodeset"
)

// site is a cluster of six nodes.
type site struct{}

func (site) All() []string { return []string{"n1", "n2", "n3", "n10", "login", "n1-ib"} }

func (site) Group(name string) ([]string, bool) {
	groups := map[string][]string{"rack1": {"n1", "n2"}, "rack2": {"n3", "n10"}, "empty": {}}
	g, ok := groups[name]
	return g, ok
}

func (site) Status(word string) ([]string, bool) {
	words := map[string][]string{"failed": {"n2", "n3"}, "waiting": {"n3"}, "pxe-booting": {}}
	w, ok := words[word]
	return w, ok
}

func TestEval(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{"n1", "n1"},
		{"n[001-003]", "n001 n002 n003"},
		{"n[1-3,12]-ib", "n1-ib n2-ib n3-ib n12-ib"},
		{"n[9-11]", "n9 n10 n11"},
		{"n[08-11]", "n08 n09 n10 n11"},
		{"n[98-101]", "n98 n99 n100 n101"},
		{"n[098-101]", "n098 n099 n100 n101"},
		{"n[99-101],n[099-101]", "n99 n099 n100 n101"},
		{"n[0-6/3]", "n0 n3 n6"},
		{"r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"},
		{"n[5]", "n5"},
		{"[1-2]a", "1a 2a"},
		{"n3,n1,n1", "n1 n3"},
		{" n2 , n1 ", "n1 n2"},
		{"@rack1", "n1 n2"},
		{"@rack[1-2]", "n1 n2 n3 n10"},
		{"@empty", ""},
		{"@all", "login n1 n1-ib n2 n3 n10"},
		{"@all!@rack1", "login n1-ib n3 n10"},
		{"%failed", "n2 n3"},
		{"%failed&%waiting", "n3"},
		{"%pxe-booting", ""},
		{"@rack2&%failed", "n3"},
		// left to right: ClusterShell has no precedence
		{"n1,n2&n2,n3", "n2 n3"},
		{"n1!n1,n1", "n1"},
		{"n1,n1!n1", ""},
		{"n[1-5]!n[2-3]&n[1-4]", "n1 n4"},
		{"n1.cluster.example", "n1.cluster.example"},
	} {
		got, err := nodeset.Eval(c.expr, site{})
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("Eval(%q) = %q, %v, want %q", c.expr, strings.Join(got, " "), err, c.want)
		}
	}
}

func TestEvalErrors(t *testing.T) {
	for _, c := range []struct {
		expr string
		pos  int
		text string
	}{
		{"", 0, "is wanted here"},
		{"   ", 3, "is wanted here"},
		{"n1,", 3, "is wanted here"},
		{"n1,,n2", 3, "is wanted here"},
		{"!n1", 0, "is wanted here"},
		{"n[1-3", 1, "not closed"},
		{"n1]", 2, "not opened"},
		{"n[1-[2]]", 4, "inside of brackets"},
		{"n[]", 2, "is no number"},
		{"n[1,,2]", 4, "is no number"},
		{"n[a-b]", 2, "is no number"},
		{"n[1-2-3]", 2, "is no number"},
		{"n[-3]", 2, "is no number"},
		{"n[3-1]", 2, "backwards"},
		{"n[1-010]", 2, "padded differently"},
		{"n[010-9]", 2, "backwards"},
		{"n[010-99]", 2, "padded differently"},
		{"n[1-9/0]", 2, "step"},
		{"n[1/2]", 2, "step"},
		{"n[1-1234567890123456789]", 2, "is no number"},
		{"a^b", 1, "'^' is not known"},
		{"n1 n2", 0, "node name"},
		{"N1", 0, "node name"},
		{"10.0.0.1", 0, "address"},
		{"n1,../etc", 3, "node name"},
		{"10.0.0.[1-300]", 0, "address"},
		{"10.0.0.[254-300]", 0, "address"},
		{"[250-300].0.0.1", 0, "address"},
		{"[1-2]_a", 0, "node name"},
		{strings.Repeat("a", 62) + "[8-101]", 0, "node name"},
		{"@nobody", 0, `no group "nobody"`},
		{"n1,@nobody", 3, `no group "nobody"`},
		{"@", 0, "group"},
		{"%broken", 0, `no status or flag "broken"`},
		{"n[1-200001]", 1, "more than 200000"},
		{"n[1-200000],m[1-2]", 12, "more than 200000"},
		{"n[1-200000],m", 12, "more than 200000"},
		{"n[1-500][1-500]", 8, "more than 200000"},
		{"n[0-999999999999999999]", 1, "more than 200000"},
		{strings.Repeat("a", 65), 0, "node name"},
		{"n" + strings.Repeat("[1]", 1000), 193, "more than 64 characters"},
	} {
		_, err := nodeset.Eval(c.expr, site{})
		var e *nodeset.Error
		if !errors.As(err, &e) || e.Pos != c.pos || !strings.Contains(e.Text, c.text) {
			t.Errorf("Eval(%q) = %v (%+v), want position %d and %q", c.expr, err, e, c.pos, c.text)
		}
	}
	_, err := nodeset.Eval("n[1-3", site{})
	if want := `node set "n[1-3", character 2: this bracket is not closed`; err == nil || err.Error() != want {
		t.Errorf("Eval(\"n[1-3\") = %v, want %s", err, want)
	}
}

func TestMaxNames(t *testing.T) {
	got, err := nodeset.Eval("n[1-200000]", site{})
	if err != nil || len(got) != nodeset.MaxNames {
		t.Errorf("Eval(n[1-200000]) = %d names, %v, want all", len(got), err)
	}
}

func TestFold(t *testing.T) {
	for _, c := range []struct{ names, want string }{
		{"", ""},
		{"n1", "n1"},
		{"login", "login"},
		{"n3 n1 n2 n2", "n[1-3]"},
		{"n1 n3", "n[1,3]"},
		{"n001 n002 n003 n100", "n[001-003,100]"},
		{"n098 n099 n100 n101", "n[098-101]"},
		{"n999 n1000 n001", "n[001,999,1000]"},
		{"n1 n01 n001", "n[1,01,001]"},
		{"n9 n10 n11", "n[9-11]"},
		{"n1-ib0 n2-ib0 n3-ib0", "n[1-3]-ib0"},
		{"r1n1 r1n2 r2n1 r2n2", "r[1-2]n[1-2]"},
		{"r1n1 r1n2 r2n1", "r1n[1-2],r2n1"},
		{"n2 login n1 n1-ib", "login,n[1-2],n1-ib"},
		{"n1234567890123456789", "n1234567890123456789"},
		{"n0 n00", "n[0,00]"},
	} {
		if got := nodeset.Fold(strings.Fields(c.names)); got != c.want {
			t.Errorf("Fold(%s) = %s, want %s", c.names, got, c.want)
		}
	}
}

func TestFoldLarge(t *testing.T) {
	var names []string
	for i := range 100_000 {
		names = append(names, fmt.Sprintf("n%06d", (i*7919)%100_000))
	}
	if got, want := nodeset.Fold(names), "n[000000-099999]"; got != want {
		t.Errorf("Fold(100,000 names) = %.100s, want %s", got, want)
	}
}

func names() *rapid.Generator[[]string] {
	name := rapid.Custom(func(t *rapid.T) string {
		number := rapid.OneOf(rapid.StringMatching(`[0-9]{1,3}`), rapid.Map(rapid.IntRange(0, 12), func(i int) string { return fmt.Sprint(i) }))
		s := rapid.SampledFrom([]string{"n", "r", "x-"}).Draw(t, "prefix") + number.Draw(t, "number")
		if rapid.Bool().Draw(t, "second") {
			s += rapid.SampledFrom([]string{"n", "-ib", "."}).Draw(t, "middle") + number.Draw(t, "number 2")
		}
		return s
	})
	return rapid.SliceOfN(name, 0, 60)
}

func TestFoldAndEvalAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := names().Draw(t, "names")
		if len(in) == 0 {
			return
		}
		folded := nodeset.Fold(in)
		got, err := nodeset.Eval(folded, site{})
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(in)
		slices.SortFunc(want, nodeset.Compare)
		want = slices.Compact(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Eval(Fold(names) = %q): -want +got\n%s", folded, diff)
		}
		if again := nodeset.Fold(got); again != folded {
			t.Errorf("Fold(Eval(%q)) = %q", folded, again)
		}
	})
}

func TestOperatorsAreThoseOfSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]bool{}
		expr := ""
		for range rapid.IntRange(1, 6).Draw(t, "terms") {
			op := ","
			if expr != "" {
				op = rapid.SampledFrom([]string{",", "!", "&"}).Draw(t, "op")
			}
			first := rapid.IntRange(0, 20).Draw(t, "first")
			last := rapid.IntRange(first, 20).Draw(t, "last")
			if expr != "" {
				expr += op
			}
			expr += fmt.Sprintf("n[%d-%d]", first, last)
			for i := range 21 {
				in, n := first <= i && i <= last, fmt.Sprintf("n%d", i)
				switch {
				case op == "," && in:
					want[n] = true
				case op == "!" && in, op == "&" && !in:
					delete(want, n)
				}
			}
		}
		got, err := nodeset.Eval(expr, site{})
		if err != nil || len(got) != len(want) {
			t.Fatalf("Eval(%s) = %v, %v, want %v", expr, got, err, want)
		}
		for _, n := range got {
			if !want[n] {
				t.Errorf("Eval(%s) has %s", expr, n)
			}
		}
	})
}

func TestCompareIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.StringMatching(`[a0-2.]{0,5}`)
		a, b, c := one.Draw(t, "a"), one.Draw(t, "b"), one.Draw(t, "c")
		if (nodeset.Compare(a, b) == 0) != (a == b) {
			t.Errorf("Compare(%q, %q) = %d", a, b, nodeset.Compare(a, b))
		}
		if nodeset.Compare(a, b)*nodeset.Compare(b, a) > 0 {
			t.Errorf("Compare(%q, %q) and its reverse have one sign", a, b)
		}
		if nodeset.Compare(a, b) < 0 && nodeset.Compare(b, c) < 0 && nodeset.Compare(a, c) >= 0 {
			t.Errorf("Compare is not transitive: %q < %q < %q", a, b, c)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"n1", "n[001-100]", "n[1-9,12]-ib", "@all!%failed", "r[1-2]n[0-30/2]&@rack1", "n[1-", "]", ",", "n[99999999999999999999]", "\xff[\x00]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		got, err := nodeset.Eval(expr, site{})
		if err != nil {
			var e *nodeset.Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(expr) {
				t.Fatalf("Eval(%q) = %#v, want an *Error within the expression", expr, err)
			}
			return
		}
		if len(got) == 0 {
			return
		}
		again, err := nodeset.Eval(nodeset.Fold(got), site{})
		if err != nil || !slices.Equal(got, again) {
			t.Fatalf("Eval(Fold(Eval(%q))) = %v, %v, want %v", expr, again, err, got)
		}
	})
}
