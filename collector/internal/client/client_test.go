// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"provost/collector/internal/client"
	"provost/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// overSocket serves a handler on a unix socket and gives a client of it.
func overSocket(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "provost")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	cl, err := client.New(client.Config{Server: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close(); srv.Close(); os.RemoveAll(dir) })
	return cl
}

func TestRoutes(t *testing.T) {
	var got string
	cl := overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = strings.TrimSpace(r.Method + " " + r.URL.EscapedPath() + " " + r.URL.RawQuery + " " + string(body))
		io.WriteString(w, `{"schema":1}`)
	})
	ctx, long := t.Context(), strings.Repeat("a,", proto.MaxSetInPath/2)+"b"
	for _, tt := range []struct {
		want string
		call func() error
	}{
		{"GET /v1/status", func() error { _, err := cl.Nodes(ctx, client.Query{}); return err }},
		{"GET /v1/status label=a&nodes=n%5B1-3%5D%2C%25failed%21%40r", func() error {
			_, err := cl.Nodes(ctx, client.Query{Nodes: "n[1-3],%failed!@r", Label: "a"})
			return err
		}},
		{"GET /v1/nodes/n1/history plan=true&since=2026-03-14T11%3A00%3A00Z", func() error {
			_, err := cl.History(ctx, "n1", time.Date(2026, 3, 14, 12, 0, 0, 0, time.FixedZone("CET", 3600)), true)
			return err
		}},
		{`POST /v1/nodes/n1/rename  {"name":"n2"}`, func() error { _, err := cl.RenameNode(ctx, "n1", "n2"); return err }},
		{`POST /v1/inventory  {"dry_run":true,"nodes":null}`, func() error { _, err := cl.Import(ctx, proto.Inventory{DryRun: true}); return err }},
		{"GET /v1/nodes/n1", func() error { _, err := cl.Node(ctx, "n1"); return err }},
		{"GET /v1/nodes/n1/installs", func() error { _, err := cl.Installs(ctx, "n1"); return err }},
		{"GET /v1/nodes/n1/installs/latest", func() error { _, err := cl.Install(ctx, "n1", client.Latest); return err }},
		{"GET /v1/nodes/n1/installs/X/events", func() error { _, err := cl.Events(ctx, "n1", "X"); return err }},
		{"GET /v1/nodes/n1/installs/X/logs/a%2Fb offset=7", func() error {
			b, err := cl.Log(ctx, "n1", "X", "a/b", 7)
			if err == nil {
				b.Close()
			}
			return err
		}},
		{`POST /v1/nodes  {"name":"n1"}`, func() error { _, err := cl.AddNode(ctx, proto.NodeSpec{Name: "n1"}); return err }},
		{`PATCH /v1/nodes/n%5B1-2%5D  {"add_groups":["a"]}`, func() error {
			_, err := cl.PatchNodes(ctx, "n[1-2]", proto.NodePatch{AddGroups: []string{"a"}})
			return err
		}},
		{`DELETE /v1/nodes/n%5B1-2%5D  {"reason":"sold"}`, func() error { return cl.RemoveNodes(ctx, "n[1-2]", proto.Removal{Reason: "sold"}) }},
		// A set that is too long for a path or query goes into the body.
		{`DELETE /v1/nodes/-  {"nodes":"` + long + `"}`, func() error { return cl.RemoveNodes(ctx, long, proto.Removal{}) }},
		{`PATCH /v1/nodes/-  {"profile":"p","nodes":"` + long + `"}`, func() error { p := "p"; _, err := cl.PatchNodes(ctx, long, proto.NodePatch{Profile: &p}); return err }},
		{`POST /v1/nodes/-/install  {"nodes":"` + long + `"}`, func() error { _, err := cl.OrderInstall(ctx, long, proto.InstallOrder{}); return err }},
		{`POST /v1/nodes/-/skip  {"nodes":"` + long + `"}`, func() error { _, err := cl.Order(ctx, long, proto.VerbSkip, proto.NodeOrder{}); return err }},
		{`POST /v1/nodes/-/boot  {"action":"disk","nodes":"` + long + `"}`, func() error { _, err := cl.SetBoot(ctx, long, proto.NodeOrder{Action: proto.BootDisk}); return err }},
		{`POST /v1/status  {"nodes":"` + long + `","label":"l"}`, func() error { _, err := cl.Nodes(ctx, client.Query{Nodes: long, Label: "l"}); return err }},
		{`POST /v1/nodes/n1/install  {"label":"l"}`, func() error { _, err := cl.OrderInstall(ctx, "n1", proto.InstallOrder{Label: "l"}); return err }},
		{`POST /v1/nodes/n1/retry  {"step":"s"}`, func() error { _, err := cl.Order(ctx, "n1", proto.VerbRetry, proto.NodeOrder{Step: "s"}); return err }},
		{`POST /v1/nodes/n1/boot  {"action":"disk"}`, func() error { _, err := cl.SetBoot(ctx, "n1", proto.NodeOrder{Action: proto.BootDisk}); return err }},
		{"GET /v1/profiles", func() error { _, err := cl.Profiles(ctx); return err }},
		{"GET /v1/profiles/p", func() error { _, err := cl.Profile(ctx, "p"); return err }},
		{"GET /v1/version", func() error { _, err := cl.Version(ctx); return err }},
	} {
		got = ""
		if err := tt.call(); err != nil || got != tt.want {
			t.Errorf("request %q, %v, want %q", got, err, tt.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   proto.Problem
	}{
		{"problem", 409, `{"status":200,"code":"conflict","detail":"d","hint":"h"}`, proto.Problem{Status: 409, Code: "conflict", Detail: "d", Hint: "h"}},
		{"page of a proxy", 502, "<html>Bad gateway</html>\nmore", proto.Problem{Status: 502, Detail: "the server answered 502 Bad Gateway <html>Bad gateway</html>",
			Hint: "is this address a provostd of the same version, with nothing in between?"}},
		{"empty", 404, "", proto.Problem{Status: 404, Detail: "the server answered 404 Not Found",
			Hint: "is this address a provostd of the same version, with nothing in between?"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cl := overSocket(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tt.status); io.WriteString(w, tt.body) })
			_, err := cl.Node(t.Context(), "n1")
			var p *proto.Problem
			if !errors.As(err, &p) {
				t.Fatalf("Node() = %v, want a problem", err)
			}
			if d := cmp.Diff(tt.want, *p); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A redirect could lead a token, or an order, anywhere.
func TestRedirectIsNotFollowed(t *testing.T) {
	n := 0
	cl := overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, "/v1/nodes/other", http.StatusTemporaryRedirect)
	})
	_, err := cl.Order(t.Context(), "n1", proto.VerbAbort, proto.NodeOrder{})
	var p *proto.Problem
	if !errors.As(err, &p) || p.Status != 307 || n != 1 {
		t.Errorf("Order() through a redirect = %v after %d requests, want a refusal after 1", err, n)
	}
}

func TestNewerSchema(t *testing.T) {
	cl := overSocket(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"schema":2,"nodes":[]}`) })
	var s *client.SchemaError
	if _, err := cl.Nodes(t.Context(), client.Query{}); !errors.As(err, &s) || s.Got != 2 {
		t.Errorf("Nodes() = %v, want SchemaError 2", err)
	}
	if _, err := cl.Node(t.Context(), "n1"); !errors.As(err, &s) {
		t.Errorf("Node() = %v, want SchemaError", err)
	}
}

func TestDecodeNodes(t *testing.T) {
	want := []proto.Node{{Schema: 1, Name: "n1", Status: proto.StatusFailed, Cause: &proto.Cause{Kind: proto.CauseStep, Tail: []string{"x"}}, Warnings: []string{"w"}},
		{Schema: 1, Name: "n2", Status: proto.StatusBooted}}
	doc, err := json.Marshal(proto.NodeList{Schema: 1, Revision: 7, Warnings: []string{"f"}, Nodes: want})
	if err != nil {
		t.Fatal(err)
	}
	var got []proto.Node
	list, err := client.DecodeNodes(strings.NewReader(string(doc)), func(n *proto.Node) { got = append(got, *n) })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" || list.Revision != 7 || len(list.Warnings) != 1 {
		t.Errorf("DecodeNodes = %+v (-want +got):\n%s", list, d)
	}
	// Cut anywhere, it is an error and never a shorter list.
	for i := range doc {
		if _, err := client.DecodeNodes(strings.NewReader(string(doc[:i])), func(*proto.Node) {}); err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("DecodeNodes of the first %d of %d bytes = %v", i, len(doc), err)
		}
	}
	for _, ok := range []string{`{}`, `{"schema":1,"nodes":null}`, `{"new":{"a":[1]},"nodes":[]}`} {
		if _, err := client.DecodeNodes(strings.NewReader(ok), func(*proto.Node) {}); err != nil {
			t.Errorf("DecodeNodes(%s) = %v", ok, err)
		}
	}
	for _, bad := range []string{``, `[]`, `null`, `{"nodes":{}}`, `{"nodes":[1]}`, `{"schema":"1"}`} {
		if _, err := client.DecodeNodes(strings.NewReader(bad), func(*proto.Node) {}); err == nil {
			t.Errorf("DecodeNodes(%s) = nil, want an error", bad)
		}
	}
}

func TestUnreachable(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "s")
	cl, err := client.New(client.Config{Server: "unix://" + gone})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var u *client.UnreachableError
	_, err = cl.Node(t.Context(), "n1")
	if !errors.As(err, &u) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), gone) || strings.Contains(err.Error(), "http://") {
		t.Errorf("Node() without a collector = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cl.Node(ctx, "n1"); !errors.Is(err, context.Canceled) || errors.As(err, &u) {
		t.Errorf("Node() after Ctrl-C = %v, want context.Canceled", err)
	}
}

// An answer that stops in the middle ends within the bounds.
func TestSilence(t *testing.T) {
	release := make(chan struct{})
	cl := overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"schema":1,`)
		w.(http.Flusher).Flush()
		<-release
	})
	t.Cleanup(func() { close(release) })
	cl.SetLimits(50*time.Millisecond, 50*time.Millisecond)
	var u *client.UnreachableError
	if _, err := cl.Node(t.Context(), "n1"); !errors.As(err, &u) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Node() of a silent collector = %v", err)
	}
	if _, err := cl.Nodes(t.Context(), client.Query{}); !errors.As(err, &u) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Nodes() of a silent collector = %v", err)
	}
}

// A reader that pauses for longer than the server may be silent is left alone. The bound has room for a slow machine.
func TestPause(t *testing.T) {
	t.Parallel()
	const silent = 4 * time.Second
	cl := overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("more than any buffer holds ", 1<<16)+"the rest")
	})
	cl.SetLimits(time.Minute, silent)
	body, err := cl.Log(t.Context(), "n1", "X", "whole", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(silent + silent/4) // somebody reads a page
	if b, err := io.ReadAll(body); err != nil || !strings.HasSuffix(string(b), "the rest") {
		t.Errorf("after a pause of the reader: %d bytes, %v", len(b), err)
	}
}

func TestConfig(t *testing.T) {
	pin := "sha256:" + strings.Repeat("0", 64)
	file := func(text string) string {
		p := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		c       client.Config
		setting string // "" is good
	}{
		{client.Config{}, ""}, {client.Config{Server: "unix:///run/x"}, ""}, {client.Config{Server: "https://[::1]:8440", CA: pin}, ""}, {client.Config{Server: "https://h", CA: pin}, ""},
		{client.Config{Server: "https://h/", CA: pin, TokenFile: file("pvo_0123\n")}, ""},
		{client.Config{Server: "http://h"}, "server"}, {client.Config{Server: "h:8440"}, "server"}, {client.Config{Server: "/run/x"}, "server"}, {client.Config{Server: "unix://run/x"}, "server"},
		{client.Config{Server: "unix:run"}, "server"}, {client.Config{Server: "https://", CA: pin}, "server"}, {client.Config{Server: "https://u:p@h", CA: pin}, "server"},
		{client.Config{Server: "https://h/v1", CA: pin}, "server"}, {client.Config{Server: "https://h?x=1", CA: pin}, "server"}, {client.Config{Server: "https://h\x7f", CA: pin}, "server"},
		{client.Config{Server: "https://h"}, "ca"}, {client.Config{Server: "https://h", CA: "sha256:00"}, "ca"}, {client.Config{Server: "https://h", CA: "sha256:" + strings.Repeat("x", 64)}, "ca"},
		{client.Config{Server: "https://h", CA: file("")}, "ca"}, {client.Config{Server: "https://h", CA: "/nonexistent"}, "ca"},
		{client.Config{TokenFile: "/nonexistent"}, "token-file"}, {client.Config{TokenFile: file("")}, "token-file"}, {client.Config{TokenFile: file("a\nb")}, "token-file"},
		{client.Config{TokenFile: file("a b")}, "token-file"}, {client.Config{TokenFile: file("a\x1b")}, "token-file"}, {client.Config{TokenFile: file(strings.Repeat("a", 2000))}, "token-file"},
	} {
		_, err := client.New(tt.c)
		var ce *client.ConfigError
		switch {
		case tt.setting == "" && err != nil:
			t.Errorf("New(%+v) = %v, want nil", tt.c, err)
		case tt.setting != "" && (!errors.As(err, &ce) || ce.Setting != tt.setting || ce.Hint == ""):
			t.Errorf("New(%+v) = %v, want a ConfigError of %s with a hint", tt.c, err, tt.setting)
		}
	}
}
