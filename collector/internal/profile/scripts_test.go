// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/profile"
	"provost/postscripts"
	"provost/proto"
)

func TestSnapshot(t *testing.T) {
	const own = "#!/bin/sh\necho own\n"
	set, err := profile.Load(site(t, map[string]string{
		"profiles/p.yaml": `
kernel: images/k
steps:
  - {name: hostname, phase: post}
  - {name: again, script: hostname, phase: post, timeout: 1m}
  - {name: site, script: 20-site, phase: firstboot}
  - {name: remote-syslog, phase: post}
`,
		"postscripts/20-site":       own,
		"postscripts/remote-syslog": own,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	p, _ := set.Profile("p")
	steps, files, err := p.Snapshot(set.Scripts())
	if err != nil {
		t.Fatal(err)
	}
	stock, err := postscripts.Stock.ReadFile("stock/hostname")
	if err != nil {
		t.Fatal(err)
	}
	// the site's remote-syslog stands in for the shipped one
	want := map[string]string{"hostname": string(stock), "again": string(stock), "site": own, "remote-syslog": own}
	for _, s := range steps {
		if got := string(files[s.Digest]); got != want[s.Name] || s.Digest != proto.Digest([]byte(got)) || s.Size != int64(len(got)) {
			t.Errorf("step %s has digest %s, size %d and script %.40q", s.Name, s.Digest, s.Size, got)
		}
		if diff := cmp.Diff(s.WithDefaults(), s); diff != "" {
			t.Errorf("step %s: -with defaults +got\n%s", s.Name, diff)
		}
	}
	if len(steps) != 4 || len(files) != 2 {
		t.Errorf("%d steps and %d files, want 4 and 2", len(steps), len(files))
	}
	plan := proto.Plan{Schema: 1, Node: "n1", Install: "01J0000000000000000000000A", OnFailure: p.OnFailure, Steps: steps}
	if err := plan.Check(); err != nil {
		t.Errorf("a plan of the steps: %v", err)
	}

	// an edit counts for the next install, without a reload
	if err := os.WriteFile(filepath.Join(siteDir(t, set), "20-site"), []byte("#!/bin/sh\necho new\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, _, err := p.Snapshot(set.Scripts())
	if err != nil || again[2].Digest == steps[2].Digest || again[0].Digest != steps[0].Digest {
		t.Errorf("after an edit: %v, digests %s and %s", err, again[2].Digest, steps[2].Digest)
	}
}

// siteDir finds the postscripts directory by the path that messages have.
func siteDir(t *testing.T, set *profile.Set) string {
	t.Helper()
	_, path, err := set.Scripts().Script("20-site")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}

func TestPreflight(t *testing.T) {
	big := "#!/bin/sh\n" + strings.Repeat("#", proto.MaxScript)
	for _, c := range []struct{ script, want string }{
		{"#!/bin/sh\n", ""},
		{"#!/bin/sh", ""},
		{"#! /usr/bin/env bash\necho\r\n", ""},
		{"\x7fELF\x02", ""},
		{big[:proto.MaxScript], ""},
		{"", "first line is not #!"},
		{"echo hello\n", "first line is not #!"},
		{"\n#!/bin/sh\n", "first line is not #!"},
		{"#!/bin/sh\r\necho\r\n", "ends as on Windows"},
		{"#!/bin/sh\r", "ends as on Windows"},
		{"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"},
		{"#!\n", "names no interpreter"},
		{"#!sh\n", "names no interpreter"},
		{"#!/" + strings.Repeat("x", 300) + "\n", "longer than 255 bytes"},
		{big, "larger than 16777216 bytes"},
	} {
		dir := site(t, map[string]string{"profiles/p.yaml": "kernel: images/k\nsteps: [{name: one, script: s, phase: post}]\n", "postscripts/s": c.script})
		set, err := profile.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = set.Check()
		if c.want == "" {
			if err != nil {
				t.Errorf("Check of %.40q = %v", c.script, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "profile p, step one: script "+dir+"/postscripts/s: ") {
			t.Errorf("Check of %.40q = %v, want %q with profile, step and file", c.script, err, c.want)
		}
	}
}

func TestMissingScripts(t *testing.T) {
	dir := site(t, map[string]string{
		"profiles/p.yaml":     "kernel: images/k\nsteps: [{name: a, phase: post}, {name: b, phase: post}, {name: c, phase: post}, {name: d, phase: post}]\n",
		"postscripts/d/inner": "",
	})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "postscripts", "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../profiles/p.yaml", filepath.Join(dir, "postscripts", "c")); err != nil {
		t.Fatal(err)
	}
	set, err := profile.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = set.Check()
	if err == nil {
		t.Fatal("Check is no error")
	}
	for _, want := range []string{
		`profile p, step a: script "a" is not there: looked in ` + dir + "/postscripts and among the shipped ones (firstboot-unit, hostname, remote-syslog)",
		"profile p, step b: script " + dir + "/postscripts/b: ", // leads out of the directory
		"profile p, step c: script " + dir + "/postscripts/c: ",
		"profile p, step d: script " + dir + "/postscripts/d: no regular file",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 4 {
		t.Errorf("%d problems, want 4:\n%v", n, err)
	}
}

func TestStockScriptsPassPreflight(t *testing.T) {
	entries, err := postscripts.Stock.ReadDir("stock")
	if err != nil || len(entries) == 0 {
		t.Fatal(err, len(entries))
	}
	text := "kernel: images/k\nsteps:\n"
	for _, e := range entries {
		text += "- {name: " + e.Name() + ", phase: post}\n"
	}
	set, err := profile.Load(site(t, map[string]string{"profiles/p.yaml": text}))
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Check(); err != nil {
		t.Error(err)
	}
}

// TestSnapshotReadsSecrets: the values go into the plan's steps, and nowhere else.
func TestSnapshotReadsSecrets(t *testing.T) {
	const canary = "kanarienvogel-4711"
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	load := func(env string) *profile.Set {
		t.Helper()
		set, err := profile.Load(site(t, map[string]string{"profiles/p.yaml": "kernel: images/k\nsteps:\n  - {name: hostname, phase: post, secret-env: {" + env + "}}\n"}))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	set := load("A: file:" + put("a", canary+"\n") + ", B: file:" + put("b", "two\nlines\n"))
	p, _ := set.Profile("p")
	steps, files, err := p.Snapshot(set.Scripts())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"A": canary, "B": "two\nlines"}, steps[0].SecretEnv); diff != "" {
		t.Errorf("secret-env of the snapshot (-want +got):\n%s", diff)
	}
	shown := fmt.Sprintf("%v %+v %v", p.Info(), *p, files)
	if strings.Contains(shown, canary) {
		t.Errorf("a secret is shown: %s", shown)
	}
	for _, tt := range []struct{ file, want string }{
		{filepath.Join(dir, "none"), "profile p, step hostname: secret-env A: the collector cannot read it: stat " + dir + "/none: no such file or directory"},
		{dir, "secret-env A: " + dir + " is no regular file"},
		{put("empty", "\n"), "empty: it is empty"},
		{put("nul", canary+"\x00"), "nul: it has a NUL byte, which no environment variable can hold"},
		{put("long", strings.Repeat(canary, 1000)), "long: it has more than 16384 bytes"},
	} {
		err := load("A: file:" + tt.file).Check()
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), canary) {
			t.Errorf("Check = %v, want %q", err, tt.want)
		}
	}
}
