// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"provost/proto"
)

// provostd runs a command to its end.
func provostd(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(context.Background(), args, &o, &e)
	return code, o.String(), e.String()
}

// writeTree writes files below dir.
func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDB: a backup of a running collector is what it had, comes back where nothing is, and an open database is left alone.
func TestDB(t *testing.T) {
	t.Setenv("PROVOSTD_DIRS_CONFIG", t.TempDir())
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	d := start(t, data)
	if got := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}}, nil); got != 201 {
		t.Fatalf("adding a node = %d", got)
	}
	file := filepath.Join(dir, "backup.db")
	steps := []struct {
		args []string
		code int
		text string
	}{
		{[]string{"db", "check", "--data", data}, 1, "is held by"},
		{[]string{"db", "compact", "--data", data}, 1, "is held by"},
		{[]string{"db", "backup", "--data", data, file}, 0, "bytes, up to revision"},
		{[]string{"db", "backup", "--data", data, file}, 1, "is there already"},
		{[]string{"db", "check", "--data", data, file}, 0, "sound"},
		{[]string{"db", "restore", "--data", data, file}, 1, "exist"},
		{[]string{"db"}, 64, "say what to do"},
		{[]string{"db", "backup"}, 64, "use: provostd db backup FILE"},
		{[]string{"token", "add", "--role", "read", "--data", data, "dash"}, 0, "pvo_"},
		{[]string{"token", "list", "--data", data}, 0, "dash                     read"},
		{[]string{"token", "revoke", "--data", data, "none"}, 1, "there is no token"},
		{[]string{"token", "revoke", "--data", data, "dash"}, 0, ""},
		{[]string{"ca", "show", "--data", data}, 0, d.rec.Pin},
		{[]string{"ca", "rotate", "--now", "--data", data}, 64, "say --yes"},
		{[]string{"ca", "rotate", "--now", "--yes", "--data", data}, 1, "stop it first"},
		{[]string{"ca", "rotate", "--finish", "--data", data}, 1, "no rotation to finish"},
		{[]string{"ca", "rotate", "--overlap", "1s", "--data", data}, 64, "use 1m to"},
	}
	check := func() {
		t.Helper()
		for _, s := range steps {
			code, out, errOut := provostd(s.args...)
			if code != s.code || !strings.Contains(out+errOut, s.text) {
				t.Errorf("provostd %s = %d\n%s%s, want %d and %q", strings.Join(s.args, " "), code, out, errOut, s.code, s.text)
			}
		}
	}
	check()
	if left, err := filepath.Glob(filepath.Join(data, "backup-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit status %d\n%s", code, d.err)
	}
	again := filepath.Join(dir, "again")
	steps = append(steps[:0], []struct {
		args []string
		code int
		text string
	}{
		{[]string{"db", "check", "--data", data}, 0, "nodes      1"},
		{[]string{"db", "compact", "--data", data}, 0, "bytes before"},
		{[]string{"db", "backup", "--data", data, file + "2"}, 0, "bytes, up to revision"},
		{[]string{"db", "restore", "--data", again, file}, 0, "bytes, up to revision"},
		{[]string{"token", "list", "--data", data}, 0, ""},
		{[]string{"ca", "issue", "--data", data}, 0, d.rec.Pin},
	}...)
	check()
	pin := d.rec.Pin
	d = start(t, again)
	var n proto.Node
	if got := d.local("GET", "/v1/nodes/n1", nil, &n); got != 200 || n.Name != "n1" {
		t.Errorf("the restored node: %d, %+v", got, n)
	}
	d.stop()
	if code, out, errOut := provostd("ca", "rotate", "--now", "--yes", "--data", data); code != 0 || strings.Contains(out, pin) {
		t.Errorf("ca rotate = %d\n%s%s, want another pin than %s", code, out, errOut, pin)
	}
	start(t, data)
}

// TestReload: what is new in the profiles is shown and holds from then on; what is wrong changes nothing, and is told. What was
// mended is warned of no more, without a restart.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "etc")
	t.Setenv("PROVOSTD_DIRS_CONFIG", config)
	t.Setenv("PROVOSTD_UNKNOWN_NODES", "c")
	const one = "kernel: images/vmlinuz\ninitrds: [images/initrd]\nsteps:\n  - {name: one, phase: post}\n"
	writeTree(t, config, map[string]string{"profiles/a.yaml": one, "profiles/b.yaml": one, "profiles/bad.yaml": "nonsense: 1\n", "postscripts/one": "#!/bin/sh\n"})
	d := start(t, filepath.Join(dir, "data"))
	names := func() (names, problems []string, dir string) {
		t.Helper()
		var l proto.ProfileList
		if got := d.local("GET", "/v1/profiles", nil, &l); got != 200 {
			t.Fatalf("profiles = %d", got)
		}
		for _, p := range l.Profiles {
			if len(p.Name) == 1 {
				names = append(names, p.Name)
			}
		}
		return names, l.Problems, l.ConfigDir
	}
	if got, problems, where := names(); !cmp.Equal(got, []string{"a", "b"}) || !strings.Contains(strings.Join(problems, "\n"), "bad.yaml") || where != config {
		t.Errorf("profiles %v, problems %q in %s", got, problems, where)
	}
	warned := func(what string) bool {
		t.Helper()
		var l proto.NodeList
		if got := d.local("GET", "/v1/status", nil, &l); got != 200 {
			t.Fatalf("status = %d", got)
		}
		return strings.Contains(strings.Join(l.Warnings, "\n"), what)
	}
	aside := filepath.Join(dir, "data/provost.db.damaged-20261120T120000.000Z")
	if err := os.WriteFile(aside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !warned("unknown-nodes: there is no profile c") || !warned("bad.yaml") || !warned(aside) {
		t.Error("the status does not warn of the profile that is not there, of bad.yaml, or of the damaged database")
	}
	if err := os.Remove(aside); err != nil {
		t.Fatal(err)
	}
	var p proto.Problem
	if got := d.local("POST", "/v1/reload", nil, &p); got != 422 || p.Code != proto.CodeBadProfile || !strings.Contains(p.Detail, "bad.yaml") {
		t.Errorf("reload of a wrong profile = %d, %+v", got, p)
	}
	if err := os.Remove(filepath.Join(config, "profiles/bad.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(config, "profiles/b.yaml")); err != nil {
		t.Fatal(err)
	}
	writeTree(t, config, map[string]string{"profiles/a.yaml": one + "attempts: 2\n", "profiles/c.yaml": one})
	var a proto.ReloadAnswer
	if got := d.local("POST", "/v1/reload", nil, &a); got != 200 || !cmp.Equal(a.Added, []string{"c"}) || !cmp.Equal(a.Changed, []string{"a"}) || !cmp.Equal(a.Removed, []string{"b"}) {
		t.Errorf("reload = %d, %+v", got, a)
	}
	if got, problems, _ := names(); !cmp.Equal(got, []string{"a", "c"}) || len(problems) != 0 {
		t.Errorf("profiles %v, problems %q", got, problems)
	}
	if warned("unknown-nodes") || warned("bad.yaml") || warned("damaged") {
		t.Error("the status warns of what was mended")
	}
	if got := d.local("POST", "/v1/reload", nil, &a); got != 200 || len(a.Added)+len(a.Changed)+len(a.Removed) != 0 {
		t.Errorf("reload of the same = %d, %+v", got, a)
	}
	writeTree(t, config, map[string]string{"profiles/d.yaml": one})
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if got, _, _ := names(); len(got) == 3 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("SIGHUP did not reload within a minute\n%s", d.err)
}

// TestObservation: figures and profiles of the runtime are on the socket; profiles are nowhere else.
func TestObservation(t *testing.T) {
	t.Setenv("PROVOSTD_DIRS_CONFIG", t.TempDir())
	t.Setenv("PROVOSTD_RETENTION_LOG_QUOTA", "1KiB")
	data := filepath.Join(t.TempDir(), "data")
	writeTree(t, data, map[string]string{"logs/01ARZ3NDEKTSV4RRFFQ69G5FAV/x.log": strings.Repeat("x", 1000)})
	d := start(t, data)
	get := func(path string) (int, string) {
		c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.rec.Socket)
		}}}
		defer c.CloseIdleConnections()
		resp, err := c.Get("http://provostd" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, text := get("/metrics"); code != 200 || !strings.Contains(text, "provost_disk_free_bytes ") || !strings.Contains(text, "provost_build_info{version=") {
		t.Errorf("/metrics = %d\n%s", code, text)
	}
	for path, want := range map[string]int{"/debug/pprof/goroutine": 200, "/debug/pprof/heap": 200, "/debug/pprof/none": 404} {
		if code, _ := get(path); code != want {
			t.Errorf("%s = %d, want %d", path, code, want)
		}
	}
	resp, err := http.Get("http://" + d.rec.BootListen + "/debug/pprof/heap")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("pprof on the plain listener = %d, want 404", resp.StatusCode)
	}
	var l proto.NodeList
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // the logs are counted in the background
		if d.local("GET", "/v1/status", nil, &l); strings.Contains(strings.Join(l.Warnings, "\n"), "the logs have 1000 bytes of their 1.0 KiB") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("no warning of the logs' quota: %q", l.Warnings)
}

func TestRetentionSettings(t *testing.T) {
	for _, tt := range []struct {
		r     retention
		quota int64
		ok    bool
	}{
		{retention{"168h", 10, "20GiB"}, 20 << 30, true},
		{retention{"1h", 1, "0"}, 0, true},
		{retention{"7", 10, "20GiB"}, 0, false},
		{retention{"1m", 10, "20GiB"}, 0, false},
		{retention{"168h", 0, "20GiB"}, 0, false},
		{retention{"168h", 10, "20"}, 0, false},
		{retention{"168h", 10, "20GB"}, 0, false},
		{retention{"168h", 10, "-1GiB"}, 0, false},
		{retention{"168h", 10, "9999999999TiB"}, 0, false},
	} {
		_, quota, err := tt.r.parse()
		if quota != tt.quota || (err == nil) != tt.ok {
			t.Errorf("%+v = %d, %v, want %d", tt.r, quota, err, tt.quota)
		}
	}
	for _, tt := range []struct {
		free, all uint64
		want      bool
	}{{5 << 30, 100 << 30, false}, {999 << 20, 100 << 30, true}, {600 << 20, 10 << 30, false}, {500 << 20, 10 << 30, true}} {
		if got := tight(tt.free, tt.all); got != tt.want {
			t.Errorf("tight(%d, %d) = %v, want %v", tt.free, tt.all, got, tt.want)
		}
	}
}
