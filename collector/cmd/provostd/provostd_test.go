// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"provost/collector/internal/auth"
	"provost/proto"
)

// output is what a program writes while somebody reads it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// daemon is a collector that runs as a user would start it.
type daemon struct {
	t      *testing.T
	data   string
	rec    Record
	out    *output
	err    *output
	cancel context.CancelFunc
	exit   chan int
}

func start(t *testing.T, data string, args ...string) *daemon {
	t.Helper()
	os.Remove(filepath.Join(data, "listeners.json"))
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{t: t, data: data, out: &output{}, err: &output{}, cancel: cancel, exit: make(chan int, 1)}
	args = append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--boot-listen", "127.0.0.1:0"}, args...)
	go func() { d.exit <- run(ctx, args, d.out, d.err) }()
	t.Cleanup(func() { d.stop() })
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if b, err := os.ReadFile(filepath.Join(data, "listeners.json")); err == nil && strings.Contains(d.out.String(), "ready") {
			if err := json.Unmarshal(b, &d.rec); err != nil {
				t.Fatal(err)
			}
			return d
		}
		select {
		case code := <-d.exit:
			t.Fatalf("serve = %d\n%s", code, d.err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("the collector did not become ready\n%s", d.err)
	return nil
}

// stop ends the collector and gives its exit status, -1 if that was taken already.
func (d *daemon) stop() int {
	d.cancel()
	select {
	case code, ok := <-d.exit:
		if !ok {
			return -1
		}
		close(d.exit)
		return code
	case <-time.After(time.Minute):
		d.t.Error("the collector did not stop within a minute")
		return -1
	}
}

// local asks over the unix socket.
func (d *daemon) local(method, path string, in, out any) int {
	d.t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.rec.Socket)
	}}}
	defer c.CloseIdleConnections()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			d.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://provostd"+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			d.t.Fatalf("%s: %q", path, b)
		}
	}
	return resp.StatusCode
}

// TestServe starts a collector with no setting but its directory, and uses each of its doors.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "etc")
	for path, text := range map[string]string{
		"profiles/fast.yaml": "kernel: images/vmlinuz\ninitrds: [overlay]\nargs: \"images={{ .Images }}\"\nsteps:\n  - {name: one, phase: post}\n",
		"profiles/bad.yaml":  "kernel: images/vmlinuz\nnonsense: 1\n",
		"postscripts/one":    "#!/bin/sh\necho one\n",
	} {
		path = filepath.Join(config, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PROVOSTD_DIRS_CONFIG", config)
	overlay := filepath.Join(dir, "overlay")
	t.Setenv("PROVOSTD_OVERLAY", overlay)
	if err := os.WriteFile(overlay, []byte("cpio"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	d := start(t, data)
	for _, want := range []string{d.rec.Listen, d.rec.BootListen, "PROVOST_SERVER=unix://" + d.rec.Socket, d.rec.Pin, "bad.yaml"} {
		if !strings.Contains(d.out.String(), want) {
			t.Errorf("the start-up block lacks %q:\n%s", want, d.out)
		}
	}
	if _, port, _ := net.SplitHostPort(d.rec.Listen); port == "0" {
		t.Errorf("the recorded address is %s", d.rec.Listen)
	}
	for path, mode := range map[string]os.FileMode{"join-key": 0o600, "provost.db": 0o600, "provostd.sock": 0o660, "ca/ca-key.pem": 0o600} {
		info, err := os.Stat(filepath.Join(data, path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", path, info.Mode(), err, mode)
		}
	}
	var n proto.Node
	if got := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}, Profile: "fast"}, &n); got != 201 {
		t.Fatalf("adding a node = %d", got)
	}
	if got := d.local("POST", "/v1/nodes/n1/install", nil, nil); got != 200 {
		t.Fatalf("ordering an install = %d", got)
	}
	resp, err := http.Get("http://" + d.rec.BootListen + "/boot/52-54-00-00-00-01")
	if err != nil {
		t.Fatal(err)
	}
	script, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(d.rec.Listen)
	for _, want := range []string{"provost.url=https://127.0.0.1:" + port, "provost.node=n1", "provost.ca=" + d.rec.Pin, "images=http://" + d.rec.BootListen + "/images", "/images/overlay?t="} {
		if !strings.Contains(string(script), want) {
			t.Errorf("the boot script lacks %q:\n%s", want, script)
		}
	}
	if resp, err := http.Get("http://" + d.rec.BootListen + "/v1/status"); err != nil || resp.StatusCode != 404 {
		t.Errorf("/v1/status on the plain listener = %v, %v, want 404", resp.StatusCode, err)
	}
	d.secure(t, script)
	if code := d.stop(); code != 0 {
		t.Errorf("exit status = %d\n%s", code, d.err)
	}
	d = start(t, data)
	if d.local("GET", "/v1/nodes/n1", nil, &n); n.Status != proto.StatusInstalling && n.Status != proto.StatusPXEBooting {
		t.Errorf("after a restart n1 is %s", n.Summary)
	}
}

// client verifies the collector by its CA's file.
func (d *daemon) client(t *testing.T) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(d.data, "ca", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: proto.ServerName}, ForceAttemptHTTP2: true}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// secure says hello over TLS, as the boot script told, and asks for the status with a token.
func (d *daemon) secure(t *testing.T, script []byte) {
	t.Helper()
	c := d.client(t)
	words := map[string]string{}
	for _, w := range strings.Fields(string(script)) {
		if k, v, ok := strings.Cut(w, "="); ok {
			words[k] = v
		}
	}
	h := proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: "00000000-0000-4000-8000-000000000001"}, Node: words["provost.node"],
		Install: words["provost.install"], Claim: words["provost.claim"]}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Post("https://"+d.rec.Listen+"/v1/agent/hello", "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var a proto.HelloAnswer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || a.Token == "" || a.Plan == nil {
		t.Errorf("hello = %d %+v, %v", resp.StatusCode, a, err)
	}
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"token", "add", "--role", "read", "--data", d.data, "me"}, &out, &errOut); code != 0 {
		t.Fatalf("token add = %d %s", code, &errOut)
	}
	req, err := http.NewRequest("GET", "https://"+d.rec.Listen+"/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"": 401, strings.TrimSpace(out.String()): 200} {
		if req.Header.Del("Authorization"); token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("status over TLS with token %q = %d, want %d", token, resp.StatusCode, want)
		}
	}
}

func TestTwoCollectors(t *testing.T) {
	data := t.TempDir()
	d := start(t, data)
	var out, errOut bytes.Buffer
	args := []string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--boot-listen", "127.0.0.1:0"}
	if code := run(t.Context(), args, &out, &errOut); code != 1 || !strings.Contains(errOut.String(), "is held by another provostd (pid") {
		t.Errorf("a second collector = %d %s", code, &errOut)
	}
	other := t.TempDir()
	args = []string{"serve", "--data", other, "--listen", "127.0.0.1:0", "--boot-listen", "127.0.0.1:0", "--socket", d.rec.Socket}
	errOut.Reset()
	if code := run(t.Context(), args, &out, &errOut); code != exitConfig || !strings.Contains(errOut.String(), "another collector answers") {
		t.Errorf("a second collector on the same socket = %d %s", code, &errOut)
	}
	if d.local("GET", "/v1/version", nil, nil) != 200 {
		t.Error("the first collector does not answer any more")
	}
}

// TestTokenWithoutCollector: token add writes the database when nobody has it open.
func TestTokenWithoutCollector(t *testing.T) {
	data := t.TempDir()
	var out, errOut bytes.Buffer
	add := func(args ...string) int {
		out.Reset()
		errOut.Reset()
		return run(t.Context(), append([]string{"token", "add", "--data", data}, args...), &out, &errOut)
	}
	if code := add("--role", "read", "x"); code != 1 || !strings.Contains(errOut.String(), "no collector answers") {
		t.Errorf("token add without anything = %d %s", code, &errOut)
	}
	start(t, data).stop()
	if code := add("--role", "join", "x"); code != 0 {
		t.Fatalf("token add = %d %s", code, &errOut)
	}
	if use, err := auth.ParseToken(strings.TrimSpace(out.String())); err != nil || use != auth.UseJoin {
		t.Errorf("token add printed %q", &out)
	}
	if code := add("--role", "read", "x"); code != 1 || !strings.Contains(errOut.String(), "already") {
		t.Errorf("the same name again = %d %s", code, &errOut)
	}
}

func TestUsage(t *testing.T) {
	t.Setenv("PROVOSTD_CONFIG", filepath.Join(t.TempDir(), "none.yaml"))
	for _, tt := range []struct {
		args string
		code int
		text string
	}{
		{"", 64, "say what to do"},
		{"srve", 64, "no command"},
		{"serve x", 64, "takes no argument"},
		{"serve --nonsense", 64, "unknown flag"},
		{"token", 64, "token add"},
		{"token add --role king x", 64, "role"},
		{"token add --role read", 64, "one name"},
		{"serve", 78, "none.yaml"},
		{"version", 0, ""},
	} {
		var out, errOut bytes.Buffer
		if code := run(t.Context(), strings.Fields(tt.args), &out, &errOut); code != tt.code || !strings.Contains(errOut.String(), tt.text) {
			t.Errorf("provostd %s = %d %s, want %d with %q", tt.args, code, &errOut, tt.code, tt.text)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		env, flags []string
		want, bad  string // of listen; part of the error
	}{
		{name: "defaults", want: ":8440"},
		{name: "file", file: "listen: \":1\"\ndirs: {data: /x}\nadvertise: [10.0.0.1]\n", want: ":1"},
		{name: "environment over file", file: "listen: \":1\"\n", env: []string{"PROVOSTD_LISTEN=:2"}, want: ":2"},
		{name: "flag over environment", file: "listen: \":1\"\n", env: []string{"PROVOSTD_LISTEN=:2"}, flags: []string{"--listen", ":3"}, want: ":3"},
		{name: "unknown key", file: "listn: \":1\"\n", bad: "listn"},
		{name: "unknown key below", file: "dirs: {dat: /x}\n", bad: "dat"},
		{name: "unknown nodes", file: "unknown-nodes: discover\nlisten: \":1\"\n", want: ":1"},
		{name: "no profile", file: "unknown-nodes: ../x\n", bad: "unknown-nodes"},
		{name: "dotted key", file: "dirs.data: /x\n", bad: "dirs.data"},
		{name: "wrong type", file: "listen: [1, 2]\n", bad: "listen"},
		{name: "not YAML", file: "listen: \"\n", bad: "provostd.yaml"},
		{name: "unknown variable", env: []string{"PROVOSTD_LISTN=:2"}, bad: "PROVOSTD_LISTN"},
		{name: "no address", file: "listen: \"8440\"\n", bad: "HOST:PORT"},
		{name: "a URL to advertise", file: "advertise: [\"https://x\"]\n", bad: "advertise"},
		{name: "a long socket", flags: []string{"--socket", "/" + strings.Repeat("s", 120)}, bad: "107"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "provostd.yaml")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, e := range tt.env {
				k, v, _ := strings.Cut(e, "=")
				t.Setenv(k, v)
			}
			flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
			settingsFlags(flags)
			flags.String("listen", "", "")
			if err := flags.Parse(append([]string{"--config", path}, tt.flags...)); err != nil {
				t.Fatal(err)
			}
			s, err := readSettings(flags, tt.env)
			switch {
			case tt.bad != "":
				if err == nil || !strings.Contains(err.Error(), tt.bad) {
					t.Errorf("readSettings = %v, want an error with %q", err, tt.bad)
				}
			case err != nil:
				t.Errorf("readSettings = %v", err)
			case s.Listen != tt.want:
				t.Errorf("listen = %q, want %q", s.Listen, tt.want)
			}
		})
	}
}

func TestAdvertise(t *testing.T) {
	s := &settings{Advertise: []string{"10.0.0.1", "10.0.0.2:9000", "fd00::1", "[fd00::2]:9000", "frontend"}}
	want := "https://10.0.0.1:8440 https://10.0.0.2:9000 https://[fd00::1]:8440 https://[fd00::2]:9000 https://frontend:8440"
	if got := strings.Join(s.agentURLs("8440"), " "); got != want {
		t.Errorf("agentURLs = %s, want %s", got, want)
	}
}
