// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"provost/proto"
)

// TestCanaries puts a secret into every field that takes one, runs an install with them, and looks for each in whatever the
// collector shows, logs or leaves behind beside its database and its keys.
func TestCanaries(t *testing.T) {
	const env, ans = "Kanarienvogel-env", "$6$salt$KanarienvogelAnswer"
	dir, data := t.TempDir(), t.TempDir()
	writeTree(t, dir, map[string]string{
		"env-secret":    env + "\n",
		"answer-secret": ans + "\n",
		"config/profiles/web.yaml": "kernel: images/vmlinuz\nargs: \"inst.ks={{ .Answer }}\"\nanswer: kickstart-el9.tmpl\nvars: {rootpw-hash: \"file:" + dir + "/answer-secret\"}\n" +
			"steps:\n  - {name: one, phase: post, secret-env: {PASSWORD: \"file:" + dir + "/env-secret\"}}\n",
		"config/vars.yaml":       "site: {timezone: Europe/Berlin}\n",
		"config/postscripts/one": "#!/bin/sh\necho one\n",
		"images/vmlinuz":         "kernel",
		"provostd.yaml":          "dirs: {config: " + dir + "/config, images: " + dir + "/images}\n",
	})
	for _, name := range []string{"env-secret", "answer-secret"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := start(t, data, "--config", filepath.Join(dir, "provostd.yaml"))
	const mac = "52:54:00:00:0d:03"
	if code := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n1", MACs: []string{mac}, Profile: "web"}, nil); code != 201 {
		t.Fatalf("adding = %d", code)
	}
	var refused proto.Problem
	if code := d.local("POST", "/v1/nodes/n1/install", proto.InstallOrder{Reason: "canaries"}, &refused); code != 200 {
		t.Fatalf("ordering = %d %s", code, refused.Detail)
	}
	resp, err := http.Get("http://" + d.rec.BootListen + "/boot/" + mac)
	if err != nil {
		t.Fatal(err)
	}
	script, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	word := func(re string) string {
		t.Helper()
		m := regexp.MustCompile(re).FindSubmatch(script)
		if m == nil {
			t.Fatalf("the boot script has no %s:\n%s", re, script)
		}
		return string(m[1])
	}
	claim, install, answerURL := word(`provost\.claim=(\S+)`), word(`provost\.install=(\S+)`), word(`inst\.ks=(\S+)`)
	ticket := word(`\?t=(\S+)`)
	if resp, err := http.Get(answerURL); err != nil || resp.StatusCode != 200 {
		t.Fatalf("the answer file = %v, %v", resp, err)
	}
	join, err := os.ReadFile(filepath.Join(data, "join-key"))
	if err != nil {
		t.Fatal(err)
	}
	code, operator, errs := provostd("token", "add", "--role", "operate", "--data", data, "me")
	if code != 0 {
		t.Fatalf("token add = %d %s", code, errs)
	}
	operator = strings.TrimSpace(operator)
	client := d.client(t)
	ask := func(method, path, token, body string, out any) int {
		t.Helper()
		req, err := http.NewRequest(method, "https://"+d.rec.Listen+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if out != nil {
			if err := json.Unmarshal(b, out); err != nil {
				t.Fatalf("%s %s: %q", method, path, b)
			}
		}
		return resp.StatusCode
	}
	const boot, other = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
	hello := func(boot, proof string) string {
		return `{"schema":1,"env":"installer","clock":{"boot":"` + boot + `"},"journal":"00000000000000a1","macs":["` + mac + `"],"install":"` + install + `",` + proof + `}`
	}
	var a proto.HelloAnswer
	if code := ask("POST", "/v1/agent/hello", "", hello(boot, `"claim":"`+claim+`"`), &a); code != 200 || a.Plan == nil || !bytes.Contains(a.Plan.Payload, []byte(env)) {
		t.Fatalf("hello = %d, want a plan with the secret: otherwise this test cannot fail", code)
	}
	// Refusals and alarms, each of which is logged or written.
	ask("POST", "/v1/agent/hello", "", hello(other, `"claim":"`+claim+`"`), nil)
	ask("POST", "/v1/agent/hello", "", hello(other, `"join_key":"`+strings.TrimSpace(string(join))+`"`), nil)
	ask("POST", "/v1/agent/hello", "", hello(other, `"join_key":"`+claim+`"`), nil)
	ask("POST", "/v1/agent/heartbeat", operator, "{}", nil)
	ask("GET", "/v1/status", a.Token, "", nil)
	ask("GET", "/v1/status?"+a.Token, operator+"x", "", nil)
	events := `{"schema":1,"install":"` + install + `","journal":"00000000000000a1","clock":{"boot":"` + boot + `","offset_ms":0,"time":"2026-01-01T00:00:00Z"},"events":[` +
		`{"kind":"agent-start","stage":"agent-started","seq":1,"boot":"` + boot + `","time":"2026-01-01T00:00:00Z"},` +
		`{"kind":"run-end","phase":"post","outcome":"failed","step":"one","exit":4,"seq":2,"boot":"` + boot + `","time":"2026-01-01T00:00:00Z"},` +
		`{"kind":"hold","failed":true,"message":"m","seq":3,"boot":"` + boot + `","time":"2026-01-01T00:00:00Z"}]}`
	if code := ask("POST", "/v1/agent/events", a.Token, events, nil); code != 200 {
		t.Fatalf("events = %d", code)
	}
	if code := ask("PUT", "/v1/agent/logs/"+install+"/one.log?offset=0", a.Token, "one\n", nil); code != 200 {
		t.Fatalf("log = %d", code)
	}
	if code := d.local("POST", "/v1/nodes/n1/retry", proto.NodeOrder{Reason: "again"}, nil); code != 200 {
		var n proto.Node
		d.local("GET", "/v1/nodes/n1", nil, &n)
		t.Fatalf("retry = %d: %+v", code, n)
	}
	if code := d.local("POST", "/v1/reload", nil, nil); code != 200 {
		t.Fatalf("reload = %d", code)
	}

	canaries := map[string]string{"secret-env": env, "answer file's secret": ans, "claim": claim, "ticket": ticket, "agent's token": a.Token,
		"operator's token": operator, "join key": strings.TrimSpace(string(join))}
	look := func(where string, b []byte) {
		t.Helper()
		for what, canary := range canaries {
			if bytes.Contains(b, []byte(canary)) {
				t.Errorf("%s has the %s", where, what)
			}
		}
	}
	for _, path := range []string{"/v1/status", "/v1/nodes", "/v1/nodes/n1", "/v1/nodes/n1/render", "/v1/nodes/n1/history?plan=true", "/v1/nodes/n1/installs",
		"/v1/nodes/n1/installs/latest", "/v1/nodes/n1/installs/latest/events", "/v1/nodes/n1/installs/latest/logs", "/v1/nodes/n1/installs/latest/logs/one.log",
		"/v1/profiles", "/v1/profiles/web", "/v1/tokens", "/v1/doctor", "/v1/version", "/v1/ca", "/metrics", "/debug/pprof/goroutine?debug=2"} {
		b, code := d.text(t, path)
		if code != 200 || len(b) == 0 {
			t.Errorf("GET %s = %d with %d bytes", path, code, len(b))
		}
		look("GET "+path, b)
	}
	look("the feed", d.feed(t))
	backup := filepath.Join(dir, "backup.db")
	if code, out, errs := provostd("db", "backup", "--data", data, backup); code != 0 {
		t.Errorf("db backup = %d %s", code, errs)
	} else {
		look("what db backup prints", []byte(out+errs))
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup, which has the secrets, has mode %v, %v", info.Mode(), err)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	look("the log", []byte(d.err.String()))
	look("the output", []byte(d.out.String()))
	err = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		name := e.Name()
		if err != nil || e.IsDir() || name == "provost.db" || name == "join-key" || name == "provostd.sock" {
			return err
		}
		b, err := os.ReadFile(path)
		look(path, b)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(d.err.String(), "contested") && !strings.Contains(d.err.String(), "boot script") {
		t.Errorf("the log is empty of what happened: the test shows nothing\n%s", d.err)
	}
}

// unix is a client of the daemon's socket.
func (d *daemon) unix(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.rec.Socket)
	}}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// text asks over the unix socket for what may be no JSON.
func (d *daemon) text(t *testing.T, path string) ([]byte, int) {
	t.Helper()
	resp, err := d.unix(t).Get("http://provostd" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b, resp.StatusCode
}

// feed gives every event that there is.
func (d *daemon) feed(t *testing.T) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var list proto.NodeList
	d.local("GET", "/v1/status", nil, &list)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://provostd/v1/events?from=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.unix(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all []byte
	last := fmt.Sprintf("id: %s\n", list.Cursor)
	for r := bufio.NewReader(resp.Body); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the feed ends before revision %d: %v\n%s", list.Revision, err, all)
		}
		all = append(all, line...)
		if string(line) == last {
			line, err := r.ReadBytes('\n')
			if err != nil {
				t.Fatal(err)
			}
			return append(all, line...)
		}
	}
}
