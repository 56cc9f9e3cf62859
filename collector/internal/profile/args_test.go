// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"strings"
	"testing"

	"provost/collector/internal/profile"
)

func withArgs(t *testing.T, args string) *profile.Profile {
	t.Helper()
	text := "kernel: images/k\nvars: {timezone: Europe/Berlin, title: two words}\nargs: |\n"
	for line := range strings.SplitSeq(args, "\n") {
		text += "  " + line + "\n"
	}
	set, err := profile.Load(site(t, map[string]string{"profiles/p.yaml": text}))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := set.Profile("p")
	return p
}

func data(attrs map[string]string) profile.ArgData {
	return profile.ArgData{Images: "http://10.0.0.1:8480/images", Node: "n1", Install: "01J0000000000000000000000A", Attempt: 2,
		MAC: "52:54:00:00:00:01", Groups: []string{"rack1"}, Attrs: attrs}
}

func TestKernelArgs(t *testing.T) {
	attrs := map[string]string{"console": "ttyS1,115200", "note": "second shelf", "quote": `"`}
	for _, c := range []struct{ args, want string }{
		{"", ""},
		{"quiet", "quiet"},
		{"inst.repo={{ .Images }}/el9 n={{ .Node }} i={{ .Install }} a={{ .Attempt }} m={{ .MAC }} p={{ .Profile }}",
			"inst.repo=http://10.0.0.1:8480/images/el9 n=n1 i=01J0000000000000000000000A a=2 m=52:54:00:00:00:01 p=p"},
		{"a\nb\n{{ if true }}\nc\n{{ end }}", "a b  c"},
		{"console={{ .Attrs.console }} tz={{ .Vars.timezone }}", "console=ttyS1,115200 tz=Europe/Berlin"},
		{`{{ with index .Attrs "console" }}console={{ . }}{{ end }}{{ with index .Attrs "nothing" }}x={{ . }}{{ end }}`, "console=ttyS1,115200"},
		{`{{ if eq (index .Groups 0) "rack1" }}rack{{ end }}`, "rack"},
		{`title="{{ .Vars.title }}"`, `title="two words"`},
		{`{{ define "c" }}console={{ . }}{{ end }}{{ template "c" .Attrs.console }}`, "console=ttyS1,115200"},
	} {
		got, err := withArgs(t, c.args).KernelArgs(data(attrs))
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(c.want), " ") || err != nil {
			t.Errorf("KernelArgs of %q = %q, %v, want %q", c.args, got, err, c.want)
		}
	}
}

// An attribute comes from an inventory that others may write: it must stay one word, however the template takes it.
func TestAttributesCannotInject(t *testing.T) {
	ways := []string{
		"console={{ .Attrs.console }}",
		"console={{ $.Attrs.console }}",
		`console={{ index .Attrs "console" }}`,
		`console={{ index $.Attrs "console" }}`,
		`{{ $k := "console" }}console={{ index .Attrs $k }}`,
		`{{ with .Attrs }}console={{ .console }}{{ end }}`,
		`{{ with . }}console={{ .Attrs.console }}{{ end }}`,
		`{{ $a := .Attrs }}console={{ $a.console }}`,
		`{{ $d := . }}console={{ $d.Attrs.console }}`,
		`{{ range .Attrs }}{{ . }}{{ end }}`,
		`{{ range $k, $v := .Attrs }}{{ $v }}{{ end }}`,
		`{{ define "t" }}{{ .Attrs.console }}{{ end }}{{ template "t" . }}`,
		`{{ define "t" }}{{ .console }}{{ end }}{{ template "t" .Attrs }}`,
		`{{ block "t" .Attrs.console }}{{ . }}{{ end }}`,
		`{{ printf "%.9s" .Attrs.console }}`,
		`{{ slice .Attrs.console 0 3 }}`,
		`{{ (.).Attrs.console }}`,
		`{{ (index .Attrs "console") }}`,
		`{{ if true }}{{ else }}{{ .Attrs.console }}{{ end }}{{ printf "%v" . }}`,
		`{{ .Attrs.console | printf "%s" }}`,
		`{{ . }}`,
		"console={{ .Vars.console }}",
		`console={{ index .Vars "console" }}`,
		`{{ range .Vars }}{{ . }}{{ end }}`,
	}
	bad := []string{"a b", "a\tb", "a\u00a0b", "a\u2028b", `a"b`, "a'b", "a`b", `a\`, "${net0/mac}", "x${", "a\x1bb", "a\u0085b", "a\xff"}
	for _, way := range ways {
		p := withArgs(t, way)
		for _, v := range bad {
			got, err := p.KernelArgs(data(map[string]string{"console": v}))
			if err == nil || !strings.Contains(err.Error(), "attribute console") || !strings.Contains(err.Error(), "provost node set") {
				t.Errorf("args %s with console=%q = %q, %v, want that attribute console is refused", way, v, got, err)
			}
		}
	}
	for _, way := range ways[:2] {
		if _, err := withArgs(t, way).KernelArgs(data(map[string]string{"console": "ttyS0", "note": bad[0]})); err != nil {
			t.Errorf("args %s: an attribute that is not named is refused: %v", way, err)
		}
	}
}

// TestArgVars: the node's attributes go before its groups' variables, these before the profile's, and these before the
// site's. Secrets are in none of them.
func TestArgVars(t *testing.T) {
	set, err := profile.Load(site(t, map[string]string{
		"profiles/p.yaml": "kernel: images/k\nvars: {b: profile, c: profile, d: profile, rootpw-hash: \"$6$x$y\", f: \"file:/etc/x\"}\nargs: '{{ range $k, $v := .Vars }}{{ $k }}={{ $v }} {{ end }}'\n",
		"vars.yaml":       "site: {a: site, b: site, c: site, d: site}\ngroups:\n  g1: {c: one, d: one}\n  g2: {c: two}\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := set.Profile("p")
	with, err := profile.Recall("p", p.Args, set.ArgVars(p, []string{"g2", "g1", "g3"}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := with.KernelArgs(data(map[string]string{"d": "node", "e": "node"}))
	if want := "a=site b=profile c=two d=node e=node"; got != want || err != nil {
		t.Errorf("args = %q, %v, want %q", got, err, want)
	}
	if _, err := with.KernelArgs(data(map[string]string{"d": "two words"})); err == nil || !strings.Contains(err.Error(), "attribute d") {
		t.Errorf("an attribute of two words, by .Vars: %v, want that it is refused", err)
	}
}

func TestKernelArgsErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"{{ .Attrs.nothing }}", "nothing"},
		{"{{ .Vars.nothing }}", "nothing"},
		{"{{ .Secrets }}", "Secrets"},
		{"{{ call .Node }}", "call"},
		{"${net0/mac}", `"${" would be expanded`},
		{"{{ \"$\" }}{net0/mac}", `"${" would be expanded`},
		{"a=ü", "printable ASCII"},
		{`a={{ "\x1b" }}`, "printable ASCII"},
		{"{{ range $i, $e := .Groups }}{{ end }}" + strings.Repeat("x", profile.MaxArgs+1), "longer than"},
		{`{{ define "t" }}x{{ template "t" . }}{{ end }}{{ template "t" . }}`, "longer than"},
		{"{{ range 1000000000 }}x{{ end }}", "longer than"},
	} {
		got, err := withArgs(t, c.args).KernelArgs(data(nil))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "profile p for n1") {
			t.Errorf("KernelArgs of %.60q = %q, %v, want %q", c.args, got, err, c.want)
		}
	}
}

func FuzzKernelArgs(f *testing.F) {
	for _, s := range []string{"ttyS0", "a b", "${x}", "a\nb", "\\", "'", "#", ";", "||", "\u202e"} {
		f.Add(s)
	}
	set, err := profile.Load(site(f, map[string]string{"profiles/p.yaml": "kernel: images/k\nargs: 'a={{ .Attrs.x }} b={{ index .Attrs \"x\" }} c'\n"}))
	if err != nil {
		f.Fatal(err)
	}
	p, _ := set.Profile("p")
	f.Fuzz(func(t *testing.T, value string) {
		got, err := p.KernelArgs(data(map[string]string{"x": value}))
		if err != nil {
			return
		}
		words := strings.Split(got, " ")
		if len(words) != 3 || words[0] != "a="+value || words[1] != "b="+value || words[2] != "c" {
			t.Errorf("with x=%q the arguments are %q", value, got)
		}
	})
}
