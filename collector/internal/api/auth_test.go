// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/auth"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// ask makes a request and gives its status and, of a refusal, its problem.
func ask(t *testing.T, c *http.Client, method, url, token, body string) (int, proto.Problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil && resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(err)
	}
	var p proto.Problem
	if resp.StatusCode >= 400 {
		if json.Unmarshal(b, &p) != nil || !proto.KnownCode(p.Code) || p.Status != resp.StatusCode || p.Detail == "" || resp.Header.Get("Content-Type") != proto.ProblemType {
			t.Errorf("%s %s = %d %s %q, want a whole problem", method, url, resp.StatusCode, resp.Header.Get("Content-Type"), b)
		}
	}
	return resp.StatusCode, p
}

// agentOf gives the token and the install of a node's agent.
func agentOf(t *testing.T, site *registrytest.Site, mac string, boot byte) (token, install string) {
	t.Helper()
	a, err := site.Hello(t.Context(), "", registrytest.HelloOf(site.Script(mac), registrytest.Boot(boot)))
	if err != nil {
		t.Fatal(err)
	}
	return a.Token, a.Install
}

// TestMatrix shows every credential to every route. What a credential is not for is refused, and nothing has changed
// afterwards; without credentials only the routes of the allow-list answer.
func TestMatrix(t *testing.T) {
	site, a, srv := newSite(t)
	expiredMAC := site.Add("n3", 3)
	site.Ordered("n3")
	expired, _ := agentOf(t, site, expiredMAC, 4)
	site.Clock.Advance(registry.TokenLife + time.Hour)
	mac := site.Add("n1", 1)
	site.Ordered("n1")
	old, oldInstall := agentOf(t, site, mac, 1)
	install := site.Ordered("n1")
	agent, _ := agentOf(t, site, mac, 2)
	otherMAC := site.Add("n2", 2)
	site.Ordered("n2")
	other, _ := agentOf(t, site, otherMAC, 3)
	tokens := map[string]string{"none": "", "malformed": "x", "unknown agent": auth.NewToken(auth.UseAgent), "unknown operator": auth.NewToken(auth.UseOperator),
		"unknown join key": auth.NewToken(auth.UseJoin), "join key": registrytest.JoinKey, "other node": other, "superseded": old, "expired": expired}
	for _, role := range []auth.Role{auth.RoleRead, auth.RoleOperate, auth.RoleJoin, auth.RoleAdmin} {
		token, err := site.AddToken(t.Context(), role, string(role))
		if err != nil {
			t.Fatal(err)
		}
		tokens[string(role)] = token
	}
	public := []string{"/v1/version", "/v1/ca", "/healthz", "/readyz"}
	// allowed says who gets past the credentials of a route.
	allowed := func(r api.Route, who string) bool {
		switch r.Scope {
		case auth.ScopePublic:
			return true
		case auth.ScopeJoin: // for their own installs
			return who == "other node" || who == "superseded"
		case auth.ScopeAgent: // scripts of their own plans; the rest of the request names an install that is none of theirs
			return r.Method == "GET" && (who == "other node" || who == "superseded")
		case auth.ScopeRead:
			return slices.Contains([]string{"read", "operate", "admin"}, who)
		case auth.ScopeOperate:
			return slices.Contains([]string{"operate", "admin"}, who)
		case auth.ScopeAdmin:
			return who == "admin"
		}
		return false
	}
	state := func() string {
		b, err := json.Marshal(site.Nodes([]string{"n1", "n2"}))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before, revision := state(), site.Revision()
	for _, r := range a.Routes() {
		path := strings.NewReplacer("{node}", "n1", "{nodes}", "n1", "{id}", "latest", "{install}", install, "{sha256}", strings.Repeat("0", 64)).Replace(r.Pattern)
		if strings.HasPrefix(path, "/v1/profiles/") {
			path = "/v1/profiles/compute"
		}
		path = strings.ReplaceAll(path, "{name}", "one.log")
		if r.Scope == auth.ScopePublic != slices.Contains(public, path) {
			t.Errorf("%s %s has scope %s: the allow-list is %v", r.Method, path, r.Scope, public)
		}
		if r.Pattern == "/v1/events" {
			path += "?from=999999" // refused after the credentials were looked at
		}
		for who, token := range tokens {
			body := `{"schema":1,"install":"` + install + `","journal":"00000000000000a1","clock":{"boot":"` + registrytest.Boot(9) + `","offset_ms":1,"time":"2026-01-01T00:00:00Z"},` +
				`"env":"installer","events":[{"kind":"sealed","seq":1,"boot":"` + registrytest.Boot(9) + `","time":"2026-01-01T00:00:00Z"}]}`
			if r.Scope != auth.ScopeAgent && r.Scope != auth.ScopeJoin && r.Method != "GET" {
				body = `{"nonsense":1}` // refused after the credentials were looked at
				if r.Method == "DELETE" && allowed(r, who) {
					continue
				}
			}
			status, p := ask(t, srv.Client(), r.Method, srv.URL+path, token, body)
			refused := status == 401 || status == 403
			if refused == allowed(r, who) {
				t.Errorf("%s %s with the credential %q = %d %s", r.Method, path, who, status, p.Code)
			}
		}
	}
	if after := state(); after != before {
		t.Errorf("refused requests changed the nodes:\n%s\n%s", before, after)
	}
	if got := site.Revision(); got != revision {
		t.Errorf("refused requests wrote %d events", got-revision)
	}
	// The superseded token may append to its own install, and nothing else.
	path := srv.URL + "/v1/agent/logs/" + oldInstall + "/a.log?offset=0"
	if status, _ := ask(t, srv.Client(), "PUT", path, old, "late"); status != 200 {
		t.Errorf("a late log of a superseded install = %d, want 200", status)
	}
	if status, _ := ask(t, srv.Client(), "PUT", srv.URL+"/v1/agent/logs/"+oldInstall+"/a.log?offset=0", agent, "late"); status != 401 {
		t.Errorf("a log of another install of the same node = %d, want 401", status)
	}
}

// TestRouteWithoutScope: a collector with a route of which nobody said who may use it does not start.
func TestRouteWithoutScope(t *testing.T) {
	for scope, want := range map[auth.Scope]bool{"": false, "everybody": false, auth.ScopeRead: true, auth.ScopePublic: true} {
		err := api.NewWith(api.Config{}, scope)
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "GET /v1/new") {
			t.Errorf("a route with the scope %q: %v, want it taken: %t", scope, err, want)
		}
	}
}

// TestSocket: the peer of the unix socket is an admin, known by its user; a token that it shows counts instead.
func TestSocket(t *testing.T) {
	site, a, _ := newSite(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(a)
	srv.Listener.Close()
	srv.Listener, srv.Config.ConnContext = l, api.ConnContext
	srv.Start()
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	site.Add("n1", 1)
	if status, p := ask(t, client, "POST", "http://x/v1/nodes/n1/install", "", ""); status != 200 {
		t.Fatalf("install over the socket = %d %s", status, p.Detail)
	}
	in, err := site.Install("n1", "latest")
	if err != nil || !strings.Contains(in.Actor, "uid ") {
		t.Errorf("actor = %q, %v, want the user with its uid", in.Actor, err)
	}
	if status, p := ask(t, client, "POST", "http://x/v1/agent/heartbeat", "", "{}"); status != 401 || p.Code != proto.CodeNoCredentials {
		t.Errorf("heartbeat as an admin = %d %s, want 401 no-credentials", status, p.Code)
	}
	read, err := site.AddToken(t.Context(), auth.RoleRead, "r")
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(t, client, "POST", "http://x/v1/nodes/n1/install", read, ""); status != 403 {
		t.Errorf("install over the socket with a read token = %d, want 403", status)
	}
}
