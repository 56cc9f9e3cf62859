// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/answer"
	"provost/collector/internal/profile"
)

func TestAnswer(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "rootpw")
	if err := os.WriteFile(secret, []byte("$6$salt$hash\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := profile.Load(site(t, map[string]string{
		"profiles/web.yaml":             "kernel: images/k\nanswer: kickstart-web.tmpl\nvars: {rootpw-hash: \"file:" + secret + "\", c: profile}\n",
		"profiles/none.yaml":            "kernel: images/k\n",
		"profiles/external.yaml":        "boot: external\nanswer: preseed-debian.tmpl\n",
		"templates/kickstart-web.tmpl":  `{{ template "own" . }} {{ var "a" | ks }} {{ var "b" | ks }} {{ var "c" | ks }} {{ var "rootpw-hash" | ks }}`,
		"templates/kickstart.tmpl":      `{{ define "own" }}the site's own{{ end }}`,
		"templates/.kickstart-old.tmpl": "an editor's",
		"templates/README":              "not looked at",
		"vars.yaml":                     "site: {a: site, b: site, c: site}\ngroups: {rack1: {b: rack1}, rack2: {b: rack2}}\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := set.Profile("web")
	r, err := set.Answer(p, []string{"rack1", "unknown"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]map[string]string{"rack1": {"b": "rack1"}}, r.Groups); diff != "" {
		t.Errorf("groups: -want +got\n%s", diff)
	}
	d := answer.Data{Node: answer.Node{Name: "n1", Groups: []string{"rack1"}}}
	files, err := r.Render(d)
	if got, want := string(files["ks.cfg"]), "the site's own site rack1 profile \"$6$salt$hash\""; err != nil || got != want {
		t.Errorf("ks.cfg = %q, %v, want %q", got, err, want)
	}
	// An edit of the secret is for the next order.
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Render(d); err != nil {
		t.Error(err)
	}
	if _, err := set.Answer(p, nil); err == nil || !strings.Contains(err.Error(), "answer of profile web: var rootpw-hash: ") || strings.Contains(err.Error(), "$6$") {
		t.Errorf("without the secret's file: %v", err)
	}
	if p, _ := set.Profile("none"); p != nil {
		if r, err := set.Answer(p, nil); r != nil || err != nil {
			t.Errorf("answer of a profile without one = %v, %v", r, err)
		}
	}
	p, _ = set.Profile("external")
	if r, err := set.Answer(p, nil); err != nil || !r.External {
		t.Errorf("answer of an external profile = %+v, %v", r, err)
	}
}

func TestTemplateAndVarProblems(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"templates/kickstart-x.tmpl", "a\n{{ .Node }}\n", "profiles/p.yaml:2: answer: template: kickstart-x.tmpl:2:3: {{.Node}} puts a value out as it is"},
		{"templates/kickstart-x.tmpl", "{{ if }}\n", "profiles/p.yaml:2: answer: template: kickstart-x.tmpl:1: missing value for if"},
		{"templates/own.tmpl", "", `templates/own.tmpl: template "own.tmpl": its name tells what it is for`},
		{"vars.yaml", "site: {timezone: 5 o'clock}\n", "vars.yaml:1: var timezone"},
		{"vars.yaml", "site: {}\nnodes: {}\n", `vars.yaml:2: unknown key "nodes": there are site, groups`},
		{"vars.yaml", "groups: {../x: {a: b}}\n", `vars.yaml:1: group "../x"`},
		{"vars.yaml", "groups: {rack1: {disk: sda}}\n", `vars.yaml:1: var disk = "sda": use a path`},
	} {
		files := map[string]string{"profiles/p.yaml": "kernel: images/k\nanswer: kickstart-x.tmpl\n", c.file: c.text}
		if c.file != "templates/kickstart-x.tmpl" {
			files["profiles/p.yaml"] = "kernel: images/k\n"
		}
		_, err := profile.Load(site(t, files))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %q", c.file, c.text, err, c.want)
		}
	}
}

// TestVarsWithoutAPlace: a variable that the shipped templates know and this one does not ask for is refused, since nothing
// would come of it. A site's own variables, and those in the kernel arguments, may stand there.
func TestVarsWithoutAPlace(t *testing.T) {
	for _, c := range []struct{ answer, vars, args, want string }{
		{"esxi-ks.tmpl", "{source: \"http://h/x\", own: x}", "", "profiles/p.yaml:3: vars: esxi-ks.tmpl has no place for source: leave it out"},
		{"esxi-ks.tmpl", "{join-key: x}", "", "no place for join-key"}, // no agent runs there
		{"kickstart-el9.tmpl", "{keymap: german}", "", "no place for keymap"},
		{"kickstart-el9.tmpl", "{keymap: german}", "vconsole.keymap={{ .Vars.keymap }}", ""},
		{"autoyast-sles12.tmpl", "{source: \"http://h/x\"}", "", "no place for source"},
		{"autoyast-sles15.tmpl", "{source: \"http://h/x\", modules: Basesystem, product: SLES, keymap: german, agent-sha256: " + strings.Repeat("0", 64) + "}", "", ""},
		{"kickstart-own.tmpl", "{timezone: UTC, disk: /dev/sda}", "", "no place for disk"},
		{"kickstart-any.tmpl", "{disk: /dev/sda}", "", ""},
	} {
		_, err := profile.Load(site(t, map[string]string{
			"profiles/p.yaml":              "kernel: images/k\nanswer: " + c.answer + "\nvars: " + c.vars + "\nargs: \"" + c.args + "\"\n",
			"templates/kickstart-own.tmpl": `{{ template "a" . }}{{ define "a" }}{{ with .Node }}{{ else }}{{ range list "timezone" }}{{ . | ks }}{{ end }}{{ end }}{{ end }}{{ define "never" }}{{ var "disk" | ks }}{{ end }}`,
			"templates/kickstart-any.tmpl": `{{ range list "timezone" }}{{ var . | ks }}{{ end }}`,
		}))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v, want %q", c.answer, c.vars, err, c.want)
		}
	}
}

func TestKernelArgsHaveNoSecrets(t *testing.T) {
	set, err := profile.Load(site(t, map[string]string{
		"profiles/p.yaml": "kernel: images/k\nargs: \"inst.ks={{ .Answer }} {{ .Vars.own }}{{ with index .Vars \\\"pw\\\" }} pw={{ . }}{{ end }}\"\nvars: {own: x, pw: \"file:/etc/pw\"}\n"}))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := set.Profile("p")
	got, err := p.KernelArgs(profile.ArgData{Answer: "http://h/boot/answer/i/t/ks.cfg"})
	if want := "inst.ks=http://h/boot/answer/i/t/ks.cfg x"; err != nil || got != want {
		t.Errorf("KernelArgs = %q, %v, want %q", got, err, want)
	}
}
