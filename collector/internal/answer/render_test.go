// SPDX-License-Identifier: Apache-2.0

package answer_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/answer"
)

// TestScripts: every script that an installer would run of the shipped files is one for each shell that it may have.
func TestScripts(t *testing.T) {
	for _, name := range families {
		r := full(t, name)
		r.External = true
		r.Vars["join-key"], r.Vars["agent-sha256"] = joinKey, strings.Repeat("ab", 32)
		for _, vars := range append(slices.Collect(maps.Values(r.Groups)), r.Vars) {
			delete(vars, "disk") // there is a script for that in preseed files
		}
		files, err := r.Render(data())
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for file, b := range files {
			for _, script := range checkStructure(t, file, b).scripts {
				n[file]++
				for _, check := range []string{"dash -n", "bash -n", "busybox sh -n", "shellcheck -s sh -e SC2320 -"} {
					words := strings.Fields(check)
					cmd := exec.Command(words[0], words[1:]...)
					cmd.Stdin = strings.NewReader(script)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("%s, %s: %v\n%s\n%s", name, check, err, out, script)
					}
				}
			}
		}
		kind, _, _ := strings.Cut(name, "-")
		want := map[string]map[string]int{"kickstart": {"ks.cfg": 3}, "autoyast": {"autoinst.xml": 2}, "preseed": {"preseed.cfg": 3}, "autoinstall": {"user-data": 4},
			"esxi": {"esxi.cfg": 3}, "winpe": {}}[kind]
		if name == "kickstart-el7" {
			want["ks.cfg"]++ // it knows no command sshkey
		}
		if diff := cmp.Diff(want, n); diff != "" {
			t.Errorf("%s: numbers of scripts: -want +got\n%s", name, diff)
		}
	}
}

// custom is a template of a site's own.
func custom(name, text string) *answer.Recipe {
	return &answer.Recipe{Name: name, Text: text, Profile: "compute"}
}

func TestPrecedence(t *testing.T) {
	r := custom("kickstart-x.tmpl", `{{ range list "names" }}{{ var . | ks }} {{ end }}`)
	r.Site = map[string]string{"names": "a b c d e timezone", "a": "site", "b": "site", "c": "site", "d": "site", "e": "site"}
	r.Vars = map[string]string{"b": "profile", "c": "profile", "d": "profile"}
	r.Groups = map[string]map[string]string{"first": {"c": "first", "d": "first"}, "second": {"c": "second"}, "other": {"a": "other"}}
	d := data()
	d.Node.Groups = []string{"first", "second"}
	d.Node.Attrs = map[string]string{"d": "node"}
	files, err := r.Render(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("site profile first node site UTC ", string(files["ks.cfg"])); diff != "" {
		t.Errorf("a b c d e timezone: -want +got\n%s", diff)
	}
}

// TestTemplatesThatAreRefused: a template that could put out a value as it is, or is not what its name says.
func TestTemplatesThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"kickstart-x.tmpl", "a\n{{ .Node }}", "kickstart-x.tmpl:2:3: {{.Node}} puts a value out as it is: end it with | ks or | sh"},
		{"kickstart-x.tmpl", `{{ var "disk" }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ .Node | ks | printf "%s" }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ if true }}{{ with .Node }}{{ range list "ntp" }}{{ . }}{{ end }}{{ end }}{{ end }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ if true }}{{ else }}{{ .Node }}{{ end }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ define "x" }}{{ .Node }}{{ end }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ block "x" . }}{{ .Node }}{{ end }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ .Node | xml }}`, "as it is"},
		{"autoyast-x.tmpl", `{{ .Node | sh }}`, "end it with | xml"},
		{"autoinstall-x.tmpl", `{{ .Node | ks }}`, "end it with | yaml"},
		{"preseed-x.tmpl", `{{ .Node | sh }}`, "end it with | preseed"},
		{"kickstart-x.tmpl", `{{ provost }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ provost.late }}`, "there is no hook provost.late: use provost.pre, provost.post, provost.onerror"},
		{"kickstart-x.tmpl", `{{ index provost "pre" }}`, "as it is"},
		{"kickstart-x.tmpl", `{{ .Node | ks`, "unclosed action"},
		{"kickstart-x.tmpl", `{{ readFile "/etc/shadow" | ks }}`, `function "readFile" not defined`},
		{"x.tmpl", ``, "its name tells what it is for: use kickstart-NAME.tmpl, autoyast-NAME.tmpl"},
		{"kickstart-../x.tmpl", ``, "its name tells"},
		{"kickstart.tmpl", ``, "is the part that others of its kind share"},
		{"kickstart-x.tmpl", `{{ var "nothing" | ks }}`, `there is no var "nothing": set it in the profile`},
		{"kickstart-x.tmpl", `{{ .Nothing | ks }}`, "can't evaluate field Nothing"},
		{"kickstart-x.tmpl", `{{ template "nothing" . }}`, `"nothing" not defined`},
		{"kickstart-x.tmpl", `{{ define "x" }}` + strings.Repeat("x", 1000) + `{{ template "x" . }}{{ end }}{{ template "x" . }}`, "larger than"},
	} {
		_, err := custom(c.name, c.text).Render(data())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Render(%s %q) = %v, want %q", c.name, c.text, err, c.want)
		}
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		key, value, want string
	}{
		{"timezone", "Europe/Berlin\n%end", "control character U+000A"},
		{"timezone", "--utc", "use a zone like Europe/Berlin"},
		{"keyboard", "us --x", "use a layout"},
		{"disk", "sda", "use a path like /dev/sda"},
		{"disk", "/dev/../etc", "use a path"},
		{"packages", "vim, %end", "use names of packages"},
		{"ntp", "10.0.0.1 a_b", "use addresses or names"},
		{"proxy", "file:/etc/passwd", "a node's attribute names no file"},
		{"proxy", "ftp://x", "use a URL of http, https"},
		{"source", "http://h/'x", "use a URL"},
		{"kernel-args", "a $(reboot)", "without quotes"},
		{"rootpw-hash", "secretCANARY", "its value, which is not shown"},
		{"join-key", "secret CANARY", "its value, which is not shown"},
		{"own", "tab\there", "control character U+0009"},
		{"own", "bad\xff", "not UTF-8"},
		{"own", "nel\u0085", "control character U+0085"},
	} {
		for _, name := range families {
			r, d := shipped(t, name), data()
			d.Node.Attrs = map[string]string{c.key: c.value}
			for _, render := range []func(answer.Data) (map[string][]byte, error){r.Render, r.RenderMasked} {
				_, err := render(d)
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANARY") {
					t.Errorf("%s with %s=%q: %v, want %q", name, c.key, c.value, err, c.want)
				}
			}
		}
	}
}

func TestQuotesOfTheirPlaces(t *testing.T) {
	const nasty = `a "b" 'c' \d ${e} $(f) %end ]]> </x> & #cloud-config: {g} | h`
	for _, c := range []struct{ name, text, file, want string }{
		{"kickstart-x.tmpl", `{{ var "own" | ks }}`, "ks.cfg", `"a \"b\" 'c' \\d ${e} $(f) %end ]]> </x> & #cloud-config: {g} | h"`},
		{"kickstart-x.tmpl", `{{ var "own" | sh }}`, "ks.cfg", `'a "b" '\''c'\'' \d ${e} $(f) %end ]]> </x> & #cloud-config: {g} | h'`},
		{"kickstart-x.tmpl", `{{ "%end" | ks }}{{ "%end" | sh }}{{ "" | ks }}{{ "" | sh }}`, "ks.cfg", `"%end"'%end'""''`},
		{"autoyast-x.tmpl", `{{ var "own" | xml }}`, "autoinst.xml", `a &#34;b&#34; &#39;c&#39; \d ${e} $(f) %end ]]&gt; &lt;/x&gt; &amp; #cloud-config: {g} | h`},
		{"preseed-x.tmpl", `{{ var "own" | preseed }}`, "preseed.cfg", nasty},
		{"autoinstall-x.tmpl", `{{ define "meta-data" }}{}{{ end }}{{ var "own" | yaml }}`, "user-data", `"a \"b\" 'c' \\d ${e} $(f) %end ]]> </x> & #cloud-config: {g} | h"`},
	} {
		r := custom(c.name, c.text)
		r.Vars = map[string]string{"own": nasty}
		files, err := r.Render(data())
		if got := string(files[c.file]); err != nil || got != c.want {
			t.Errorf("%s = %s, %v, want %s", c.text, got, err, c.want)
		}
	}
	for _, value := range []string{`ends with \`, " blank"} {
		r := custom("preseed-x.tmpl", `{{ var "own" | preseed }}`)
		r.Vars = map[string]string{"own": value}
		if _, err := r.Render(data()); err == nil {
			t.Errorf("preseed takes %q", value)
		}
	}
	// What a shell makes of a quoted value is the value.
	out, err := exec.Command("sh", "-c", "printf %s "+`'`+strings.ReplaceAll(nasty, `'`, `'\''`)+`'`).Output()
	if err != nil || string(out) != nasty {
		t.Errorf("sh gives %q, %v", out, err)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	r := custom("kickstart-x.tmpl", `{{ var "rootpw-hash" | ks }} {{ var "licence" | sh }} {{ printf "%s" (var "licence") | ks }} {{ var "plain" | ks }}`)
	r.Vars = map[string]string{"rootpw-hash": rootpw, "licence": "file:/etc/provost/licence", "plain": "plain"}
	r.Secrets = map[string]string{"file:/etc/provost/licence": "CANARY"}
	files, err := r.RenderMasked(data())
	const want = `"********" '********' "********" plain`
	if err != nil || string(files["ks.cfg"]) != want {
		t.Errorf("masked = %q, %v, want %q", files["ks.cfg"], err, want)
	}
	r.Secrets = nil
	if _, err := r.Render(data()); err == nil || !strings.Contains(err.Error(), "var licence") {
		t.Errorf("without the file's content: %v", err)
	}
}

func TestExternalNeedsAnAddress(t *testing.T) {
	r := shipped(t, "kickstart-el9")
	r.External, r.Vars = true, map[string]string{"join-key": joinKey}
	d := data()
	d.URLs = nil
	if _, err := r.Render(d); err == nil || !strings.Contains(err.Error(), "set advertise in provostd.yaml") {
		t.Errorf("error = %v", err)
	}
}

func TestCheckVar(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"rootpw-hash", "file:/etc/provost/rootpw", ""},
		{"rootpw-hash", "file:rootpw", "name the file by its whole path"},
		{"timezone", "Mars Base", "use a zone"},
		{"own", "anything at all", ""},
		{"timezone", "", ""},
	} {
		err := answer.CheckVar(c.name, c.value)
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("CheckVar(%s, %q) = %v, want %q", c.name, c.value, err, c.want)
		}
	}
}

// mayChange are the parts of files, as their shapes have them, that a variable is meant to add or to take away.
var mayChange = map[string]*regexp.Regexp{
	"firewall": regexp.MustCompile(`^firewall (--enabled --ssh|--disabled)$`),
	"modules":  regexp.MustCompile(`^profile/add-on(/|\d|$)|^comment$`),
	"ntp": regexp.MustCompile(`^timesource --ntp-server$|^timezone VALUE --utc( --ntpservers)?$|^profile/ntp-client(/|\d)|` +
		`^d-i clock-setup/ntp(-server)? \w+$|^\.autoinstall\.user-data\.ntp[. ]`),
	"packages": regexp.MustCompile(`^\d+ packages$|^profile/software/packages(/|\d)|^\.autoinstall\.packages(\[\])? `),
	"proxy":    regexp.MustCompile(`^url --url( --proxy)?$`),
	"selinux":  regexp.MustCompile(`^selinux --(enforcing|permissive|disabled)$`),
	"source":   regexp.MustCompile(`^url --url --proxy$|^d-i mirror/https?/(hostname|directory|proxy) string$`),
}

// differing gives what one list has more often than the other.
func differing(a, b []string) (out []string) {
	count := map[string]int{}
	for _, s := range a {
		count[s]++
	}
	for _, s := range b {
		count[s]--
	}
	for s, n := range count {
		if n != 0 {
			out = append(out, s)
		}
	}
	if len(out) == 0 && !slices.Equal(a, b) {
		out = append(out, "another order")
	}
	return out
}

// TestMeantChanges: a variable that is meant to change the structure does nothing else, whatever stands in it.
func TestMeantChanges(t *testing.T) {
	if got := differing([]string{"a", "b", "b"}, []string{"a", "b"}); len(got) != 1 || got[0] != "b" {
		t.Errorf("differing = %q", got)
	}
	if got := differing([]string{"a", "b"}, []string{"b", "a"}); len(got) != 1 {
		t.Errorf("another order = %q", got)
	}
	for key, may := range mayChange {
		for _, line := range []string{"rootpw --lock", "%post --nochroot", "reboot", "profile/scripts/pre-scripts/script0", "d-i preseed/early_command string", ".autoinstall.late-commands 2 !!seq", "another order"} {
			if may.MatchString(line) {
				t.Errorf("%s may change %q", key, line)
			}
		}
	}
}

// TestSources: each installer takes packages by the schemes that it knows, and gets a proxy only where it has a place.
func TestSources(t *testing.T) {
	for _, c := range []struct{ name, source, proxy, want, err string }{
		{"kickstart-el9", "", "", "text\nreboot\nlang", ""},
		{"kickstart-el9", "https://h/os", "http://p:1", "\nreboot\nurl --url=https://h/os --proxy=http://p:1\nlang", ""},
		{"kickstart-el7", "ftp://h/os", "", "\nurl --url=ftp://h/os\nlang", ""},
		{"kickstart-el10", "nfs://h/srv/os/", "", "\nnfs --server=h --dir=/srv/os\nlang", ""},
		{"kickstart-el10", "nfs://h/srv/os", "http://p:1", "", "goes through no proxy"},
		{"kickstart-el8", "", "http://p:1", "", "give inst.proxy=URL in the profile's args"},
		{"preseed-debian", "", "http://p:1", "\nd-i mirror/http/proxy string http://p:1\n", ""},
		{"preseed-debian", "http://h/debian/", "", "\nd-i mirror/protocol string http\nd-i mirror/http/hostname string h\nd-i mirror/http/directory string /debian\nd-i mirror/http/proxy string\n", ""},
		{"preseed-ubuntu2004", "https://h:8/ubuntu", "http://p:1", "\nd-i mirror/protocol string https\nd-i mirror/https/hostname string h:8\nd-i mirror/https/directory string /ubuntu\nd-i mirror/https/proxy string http://p:1\n", ""},
		{"preseed-debian", "nfs://h/debian", "", "", "var source is a URL of nfs: this installer takes packages by http, https"},
		{"preseed-debian", "ftp://h/debian", "", "", "a URL of ftp"},
		{"autoinstall-ubuntu", "https://h/ubuntu", "", "uri: \"https://h/ubuntu\"", ""},
		{"autoinstall-ubuntu", "nfs://h/ubuntu", "", "", "a URL of nfs"},
		{"autoyast-sles15", "nfs://h/sles", "", "<media_url>nfs://h/sles</media_url>\n        <product>sle-module-basesystem</product>\n        <product_dir>/Module-Basesystem</product_dir>", ""},
		{"autoyast-sles15", "", "", "<media_url>relurl://</media_url>", ""},
	} {
		r, d := shipped(t, c.name), data()
		r.Vars = map[string]string{"source": c.source, "proxy": c.proxy}
		files, err := r.Render(d)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s with source %q, proxy %q: %v, want %q", c.name, c.source, c.proxy, err, c.err)
			}
			continue
		}
		text := ""
		for _, b := range files {
			text += string(b)
		}
		if err != nil || !strings.Contains(text, c.want) {
			t.Errorf("%s with source %q, proxy %q: %v, want %q in\n%s", c.name, c.source, c.proxy, err, c.want, text)
		}
	}
}

// TestModules: one add-on product for each, named as the medium names it; none where the list is empty.
func TestModules(t *testing.T) {
	for list, want := range map[string]int{"": 0, "Basesystem": 1, "Basesystem, Server-Applications": 2} {
		r := shipped(t, "autoyast-sles15")
		r.Vars = map[string]string{"modules": list}
		files, err := r.Render(data())
		if err != nil {
			t.Fatal(err)
		}
		text := string(files["autoinst.xml"])
		if got := strings.Count(text, "<product_dir>/Module-"); got != want || want == 2 && !strings.Contains(text, "<product>sle-module-server-applications</product>") {
			t.Errorf("modules %q give %d:\n%s", list, got, text)
		}
	}
}

// TestFirstDisk: where no disk is set and there are several, debian-installer is told the first one.
func TestFirstDisk(t *testing.T) {
	r := shipped(t, "preseed-debian")
	files, err := r.Render(data())
	if err != nil {
		t.Fatal(err)
	}
	script := checkStructure(t, "preseed.cfg", files["preseed.cfg"]).scripts[0]
	bin := t.TempDir()
	for name, text := range map[string]string{"list-devices": `[ "$1" = disk ] && printf "$DISKS"`, "debconf-set": `echo "$@"`} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for disks, want := range map[string]string{"/dev/sda\n/dev/sdb\n": "partman-auto/disk /dev/sda\n", "/dev/nvme0n1\n": "partman-auto/disk /dev/nvme0n1\n", "": ""} {
		for _, shell := range []string{"dash", "busybox sh"} {
			words := append(strings.Fields(shell), "-c", script)
			cmd := exec.Command(words[0], words[1:]...)
			cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "DISKS=" + disks}
			out, err := cmd.Output()
			if err != nil || string(out) != want {
				t.Errorf("%s of the disks %q: %q, %v, want %q", shell, disks, out, err, want)
			}
		}
	}
	r.Vars = map[string]string{"disk": "/dev/sdb"}
	if files, err = r.Render(data()); err != nil || strings.Contains(string(files["preseed.cfg"]), "list-devices") {
		t.Errorf("with a disk that is set: %v\n%s", err, files["preseed.cfg"])
	}
}

// FuzzStructure: whatever a node's attributes are, a file that is made of them has the structure that it has without.
func FuzzStructure(f *testing.F) {
	for _, s := range []string{"x", "a\nb", `"`, `'`, "%end", "${x}", "]]>", "#cloud-config", "\x00", "\x1b[2J", "\r\n%include /etc/shadow", "$(reboot)", "`reboot`",
		`a\`, "- b: c", "&amp;", "<script>", "--erroronfail", " ", "\u2028", "\ufeff", "*a", "a: b # c", "http://h/ x", "d-i a/b string c"} {
		for i := range len(families) {
			f.Add(s, uint(i))
		}
	}
	// Where the shipped templates name no variable of a site's own, these do.
	own := map[string]string{
		"kickstart":   "rootpw {{ var \"own\" | ks }}\nlang {{ .Serial | ks }}\n%packages\n@core\n%end\n%pre\necho {{ var \"own\" | sh }}\n%end\n{{ provost.post }}\n",
		"autoyast":    "<profile a=\"{{ var \"own\" | xml }}\"><x>{{ var \"own\" | xml }}{{ .Serial | xml }}</x>{{ provost.pre }}</profile>",
		"preseed":     "d-i a/b string {{ var \"own\" | preseed }}\nd-i a/s string {{ .Serial | preseed }}\nd-i preseed/early_command string echo {{ var \"own\" | sh | preseed }}; {{ provost.early }}\n",
		"esxi":        "rootpw {{ var \"own\" | ks }}\nkeyboard {{ .Serial | ks }}\n%pre --interpreter=busybox\necho {{ var \"own\" | sh }}\n%post\ntrue\n",
		"winpe":       "echo {{ var \"own\" | cmd }}\necho \"{{ .Serial | cmd }}\"\n{{ define \"unattend\" }}<x a=\"{{ .Serial | xml }}\">{{ var \"own\" | xml }}</x>{{ end }}",
		"autoinstall": "#cloud-config\na: {{ var \"own\" | yaml }}\ns: {{ .Serial | yaml }}\nb: {c: {{ var \"own\" | yaml }}}\nlate-commands:\n  - {{ sh (var \"own\") | yaml }}\n{{ define \"meta-data\" }}{a: {{ var \"own\" | yaml }}}{{ end }}",
	}
	f.Fuzz(func(t *testing.T, value string, which uint) {
		name := families[which%uint(len(families))]
		kind, _, _ := strings.Cut(name, "-")
		for _, r := range []*answer.Recipe{full(t, name), custom(kind+"-x.tmpl", own[kind])} {
			const serial = "the machine's own word"
			keys := []string{"own", serial}
			for _, v := range answer.Variables() {
				keys = append(keys, v.Name)
			}
			r.External = true
			if r.Vars == nil {
				r.Vars = map[string]string{}
			}
			r.Vars["own"], r.Vars["join-key"], r.Vars["agent-sha256"] = "value", joinKey, strings.Repeat("0", 64)
			d := data()
			d.Node.Attrs = nil
			base, err := r.Render(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				d.Node.Attrs = map[string]string{key: value}
				if d.Node.Serial = data().Node.Serial; key == serial {
					d.Node.Attrs, d.Node.Serial = nil, value
				}
				files, err := r.Render(d)
				if err != nil || value == "" {
					continue
				}
				for file, b := range files {
					want, got := checkStructure(t, file, base[file]), checkStructure(t, file, b)
					for _, part := range differing(want.parts, got.parts) {
						if may := mayChange[key]; may == nil || !may.MatchString(part) {
							t.Errorf("%s, %s: %s=%q changes the structure by %q: -without +with\n%s", r.Name, file, key, value, part, cmp.Diff(want.parts, got.parts))
						}
					}
					if len(want.scripts) != len(got.scripts) {
						t.Errorf("%s, %s: %s=%q gives %d scripts, not %d", r.Name, file, key, value, len(got.scripts), len(want.scripts))
					}
				}
			}
		}
	})
}

// TestHooksKeepTheirPlace: not even the collector's own address, which a site writes down, can end a hook's script.
func TestHooksKeepTheirPlace(t *testing.T) {
	for _, name := range families {
		r := shipped(t, name)
		r.External, r.Vars = true, map[string]string{"join-key": joinKey}
		d := data()
		base, err := r.Render(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"]]>", "%end", "'", `"`, "$(reboot)", "a\\", ": #", "</script>"} {
			d.URLs, d.Images = []string{"https://h/" + text}, "http://h/"+text
			files, err := r.Render(d)
			if err != nil {
				t.Fatal(err)
			}
			for file, b := range files {
				want, got := checkStructure(t, file, base[file]), checkStructure(t, file, b)
				if diff := cmp.Diff(want.parts, got.parts); diff != "" || len(want.scripts) != len(got.scripts) {
					t.Errorf("%s with %q: -without +with\n%s", name, text, diff)
				}
			}
		}
		d.URLs, d.Callback = []string{"https://h\n%end"}, "http://h\n%end"
		if _, err := r.Render(d); err == nil {
			t.Errorf("%s takes an address of two lines", name)
		}
	}
}
