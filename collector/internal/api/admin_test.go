// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"provost/collector/internal/auth"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// request sends one request and gives the answer and its body.
func request(t *testing.T, method, url, token string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func codeOf(t *testing.T, b []byte) string {
	t.Helper()
	var p proto.Problem
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return p.Code
}

// TestLogQuota: at the quota a log is refused in a way that makes an agent go on slowly, its events are taken, and nothing
// of the log is lost when there is room again.
func TestLogQuota(t *testing.T) {
	site, _, srv := newSite(t)
	mac := site.Add("n1", 1)
	id := site.Ordered("n1")
	answer, err := site.Hello(context.Background(), "", registrytest.HelloOf(site.Script(mac), registrytest.Boot(1)))
	if err != nil {
		t.Fatal(err)
	}
	put := func(offset int) (*http.Response, []byte) {
		return request(t, "PUT", srv.URL+"/v1/agent/logs/"+id+"/a.log?offset="+strconv.Itoa(offset), answer.Token, []byte("0123456789"))
	}
	site.Logs.SetQuota(15)
	if resp, b := put(0); resp.StatusCode != 200 {
		t.Fatalf("within the quota: %d %s", resp.StatusCode, b)
	}
	resp, b := put(10)
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != 413 || codeOf(t, b) != proto.CodeLogQuota || err != nil || after < 60 || after > 300 {
		t.Errorf("over the quota: %d %s, Retry-After %q, want 413 log-quota and some minutes", resp.StatusCode, b, resp.Header.Get("Retry-After"))
	}
	q, err := json.Marshal(proto.EventsRequest{Schema: proto.Schema, Install: id, Journal: registrytest.Journal,
		Clock: proto.Clock{Boot: registrytest.Boot(1), OffsetMS: 1000}, Events: []json.RawMessage{json.RawMessage(
			`{"kind":"note","seq":1,"time":"2026-11-20T12:00:00Z","boot":"` + registrytest.Boot(1) + `","offset_ms":1,"message":"x"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	if resp, b := request(t, "POST", srv.URL+"/v1/agent/events", answer.Token, q); resp.StatusCode != 200 {
		t.Errorf("events at the quota: %d %s", resp.StatusCode, b)
	}
	site.Logs.SetQuota(20)
	if resp, b := put(10); resp.StatusCode != 200 {
		t.Errorf("with room again: %d %s", resp.StatusCode, b)
	}
}

// TestFeedGone: who resumes from before the feed's window, from after its end, or with the cursor of another database, is told
// so, by its code, before the stream begins. A revision alone is this database's.
func TestFeedGone(t *testing.T) {
	site, _, srv := newSite(t)
	site.Add("n1", 1)
	for range 4 {
		site.Ordered("n1")
	}
	token, err := site.AddToken(context.Background(), auth.RoleRead, "r")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := site.Store.Trim(context.Background(), 3, 100); n != 3 || err != nil {
		t.Fatalf("Trim = %d, %v", n, err)
	}
	for from, want := range map[string]string{"0": "gone", "2": "gone", "3": "", "99": "gone", site.Store.ID() + ":2": "gone", site.Store.ID() + ":3": "",
		site.Store.ID() + ":4": "", site.Store.ID() + ":99": "gone", "OTHER:3": "gone", "OTHER:4": "gone"} {
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/v1/events?from="+from, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if resp.StatusCode != 200 {
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got = codeOf(t, b); resp.StatusCode != 410 {
				t.Errorf("from %s: %d", from, resp.StatusCode)
			}
		}
		cancel()
		resp.Body.Close()
		if got != want {
			t.Errorf("from %s = %q, want %q", from, got, want)
		}
	}
}

// TestTokens: they are listed by name without anything of themselves, and one that is revoked is good for nothing, also
// after a restart.
func TestTokens(t *testing.T) {
	site, _, srv := newSite(t)
	ctx := context.Background()
	admin, err := site.AddToken(ctx, auth.RoleAdmin, "boss")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := site.AddToken(ctx, auth.RoleRead, "dashboard")
	if err != nil {
		t.Fatal(err)
	}
	resp, b := request(t, "GET", srv.URL+"/v1/tokens", admin, nil)
	if resp.StatusCode != 200 || !strings.Contains(string(b), `"name":"dashboard","role":"read"`) || strings.Contains(string(b), reader[4:]) || strings.Contains(string(b), auth.Hash(reader)) {
		t.Errorf("tokens = %d %s", resp.StatusCode, b)
	}
	for path, method := range map[string]string{"/v1/tokens": "GET", "/v1/tokens/boss": "DELETE", "/v1/reload": "POST", "/v1/backup": "GET"} {
		if resp, _ := request(t, method, srv.URL+path, reader, nil); resp.StatusCode != 403 {
			t.Errorf("%s %s by a reader = %d, want 403", method, path, resp.StatusCode)
		}
	}
	if resp, _ := request(t, "GET", srv.URL+"/metrics", "", nil); resp.StatusCode != 401 {
		t.Errorf("/metrics of nobody = %d, want 401", resp.StatusCode)
	}
	if resp, _ := request(t, "DELETE", srv.URL+"/v1/tokens/dashboard", admin, nil); resp.StatusCode != 204 {
		t.Errorf("revoke = %d", resp.StatusCode)
	}
	if resp, _ := request(t, "GET", srv.URL+"/v1/status", reader, nil); resp.StatusCode != 401 {
		t.Errorf("a revoked token = %d, want 401", resp.StatusCode)
	}
	site.Restart()
	if _, _, ok := site.Operator(reader); ok {
		t.Error("after a restart the revoked token is good again")
	}
	if got := site.Tokens(); len(got) != 1 || got[0].Name != "boss" {
		t.Errorf("tokens = %+v", got)
	}
}

// TestMetrics: figures have names of one form, and nothing in them names a node.
func TestMetrics(t *testing.T) {
	site, _, srv := newSite(t)
	site.Add("secretname", 1)
	site.Ordered("secretname")
	token, err := site.AddToken(context.Background(), auth.RoleRead, "r")
	if err != nil {
		t.Fatal(err)
	}
	request(t, "GET", srv.URL+"/v1/nodes/none", token, nil)
	_, b := request(t, "GET", srv.URL+"/metrics", token, nil)
	text := string(b)
	for _, want := range []string{`provost_nodes{status="ordered"} 1`, "provost_store_commit_seconds_bucket{le=\"+Inf\"}", "provost_store_events_total 1\n",
		`provost_requests_refused_total{code="unknown-node"} 1`, "provost_feed_watchers 0", "provost_nodes_deadline 1", "provost_logs_bytes 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "secretname") {
		t.Error("a node is named")
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "provost_") {
			t.Errorf("line %q", line)
		}
	}
}
