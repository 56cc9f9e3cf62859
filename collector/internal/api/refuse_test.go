// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"log/slog"

	"provost/collector/internal/api"
	"provost/collector/internal/auth"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

func TestRefusals(t *testing.T) {
	site, _, srv := newSite(t)
	mac := site.Add("n1", 1)
	site.Ordered("n1")
	agent, install := agentOf(t, site, mac, 1)
	admin, err := site.AddToken(t.Context(), auth.RoleAdmin, "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path, token, body string
		status                    int
		code                      string
	}{
		{"GET", "/", "", "", 404, proto.CodeNotFound},
		{"GET", "/v1/none", admin, "", 404, proto.CodeNotFound},
		{"GET", "//v1/status", admin, "", 404, proto.CodeNotFound},
		{"GET", "/v1/status/", admin, "", 404, proto.CodeNotFound},
		{"GET", "/v1/../v1/status", admin, "", 404, proto.CodeNotFound},
		{"GET", "/boot/52:54:00:00:00:01", "", "", 404, proto.CodeNotFound},
		{"DELETE", "/v1/status", admin, "", 405, proto.CodeBadMethod},
		{"GET", "/v1/agent/hello", "", "", 405, proto.CodeBadMethod},
		{"BREW", "/v1/nodes", admin, "", 405, proto.CodeBadMethod},
		{"POST", "/v1/nodes", admin, "", 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes", admin, "[]", 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes", admin, `{"name":"n5","macs":["52:54:00:00:00:05"]}{}`, 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes", admin, `{"name":"n5","mac":"52:54:00:00:00:05"}`, 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes", admin, `{"name":"` + strings.Repeat("n", 2<<20) + `"}`, 413, proto.CodeTooLarge},
		{"POST", "/v1/agent/events", agent, `{"schema":1,"install":"` + strings.Repeat("n", 9<<20) + `"}`, 413, proto.CodeTooLarge},
		{"PUT", "/v1/agent/logs/" + install + "/a.log", agent, "x", 400, proto.CodeBadRequest},
		{"PUT", "/v1/agent/logs/" + install + "/a.log?offset=-1", agent, "x", 400, proto.CodeBadRequest},
		{"PUT", "/v1/agent/logs/" + install + "/%2e%2e%2fx?offset=0", agent, "x", 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes/n1,n9/install", admin, "", 404, proto.CodeUnknownNode},
		{"POST", "/v1/nodes/%25failed/retry", admin, "", 409, proto.CodeConflict},
		{"POST", "/v1/nodes/n%5B1/install", admin, "", 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes/n1/boot", admin, `{"action":"netboot"}`, 409, proto.CodeConflict},
		{"POST", "/v1/nodes/n1/boot", admin, `{"action":"disk","step":"x"}`, 400, proto.CodeBadRequest},
		{"POST", "/v1/nodes/n1/install", admin, `{"within":"15"}`, 400, proto.CodeBadRequest},
		{"GET", "/v1/nodes/n1/installs/latest/logs/..%2f..%2fprovost.db", admin, "", 404, proto.CodeNotFound},
		{"GET", "/v1/events?from=x", admin, "", 400, proto.CodeBadRequest},
		{"GET", "/v1/events?from=:1", admin, "", 400, proto.CodeBadRequest},
		{"GET", "/v1/events?from=a:b:1", admin, "", 400, proto.CodeBadRequest},
		{"GET", "/v1/events?from=999", admin, "", 410, proto.CodeGone},
		{"POST", "/v1/tokens", admin, `{"name":"x","role":"root"}`, 400, proto.CodeBadRequest},
	} {
		if status, p := ask(t, srv.Client(), tt.method, srv.URL+tt.path, tt.token, tt.body); status != tt.status || p.Code != tt.code {
			t.Errorf("%s %.60s %.60s = %d %s (%s), want %d %s", tt.method, tt.path, tt.body, status, p.Code, p.Detail, tt.status, tt.code)
		}
	}
	if n := site.Seen("n1"); n.Ordinal != 1 {
		t.Errorf("a refused order made install number %d", n.Ordinal)
	}
}

// TestFaults: the collector's own faults say nothing of their cause to the caller, and their incident finds it in the log.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  func() error
		status int
		code   string
		again  bool // with Retry-After
	}{
		{"busy", func() error { return fmt.Errorf("%w: 8192 wait", store.ErrBusy) }, 503, proto.CodeBusy, true},
		{"disk", func() error { return fmt.Errorf("%w: secret cause", store.ErrStorage) }, 503, proto.CodeStorage, true},
		{"closing", func() error { return store.ErrClosed }, 503, proto.CodeBusy, true},
		{"late", func() error { return context.DeadlineExceeded }, 503, proto.CodeBusy, true},
		{"unforeseen", func() error { return errors.New("secret cause") }, 500, proto.CodeInternal, false},
		{"panic", func() error { panic("secret cause") }, 500, proto.CodeInternal, false},
	} {
		var text strings.Builder
		site := registrytest.New(t)
		a, err := api.New(api.Config{Registry: site.Registry, Profiles: site.Profiles, Ready: tt.fault, Log: slog.New(slog.NewTextHandler(&text, nil))})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		var p proto.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s: %q", tt.name, w.Body)
			continue
		}
		after, _ := strconv.Atoi(w.Header().Get("Retry-After"))
		if w.Code != tt.status || p.Code != tt.code || (after >= 2 && after <= 10) != tt.again {
			t.Errorf("%s: %d %s, Retry-After %q, want %d %s", tt.name, w.Code, p.Code, w.Header().Get("Retry-After"), tt.status, tt.code)
		}
		if strings.Contains(w.Body.String(), "secret") || p.Incident == "" || !strings.Contains(text.String(), p.Incident) {
			t.Errorf("%s: answer %s, log %s: want no cause in the answer, and the incident in both", tt.name, w.Body, text.String())
		}
	}
}

func TestFeed(t *testing.T) {
	site, a, srv := newSite(t)
	token, err := site.AddToken(t.Context(), auth.RoleRead, "r")
	if err != nil {
		t.Fatal(err)
	}
	open := func(header, query string) *bufio.Scanner {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/v1/events"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if header != "" {
			req.Header.Set("Last-Event-ID", header)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
			t.Fatalf("feed = %d %s", resp.StatusCode, got)
		}
		return bufio.NewScanner(resp.Body)
	}
	next := func(s *bufio.Scanner) (id string, e proto.Event) {
		t.Helper()
		for s.Scan() {
			line := s.Text()
			if v, ok := strings.CutPrefix(line, "id: "); ok {
				id = v
			}
			if v, ok := strings.CutPrefix(line, "data: "); ok {
				if err := json.Unmarshal([]byte(v), &e); err != nil {
					t.Fatal(err)
				}
				return id, e
			}
		}
		t.Fatalf("the feed ended: %v", s.Err())
		return "", e
	}
	site.Add("n1", 1)
	site.Ordered("n1") // revision 1
	live, all := open("", ""), open("", "?from=0")
	at := func(revision int) string { return fmt.Sprintf("%s:%d", site.Store.ID(), revision) }
	if id, e := next(all); id != at(1) || e.Kind != proto.KindOrdered || e.Node != "n1" {
		t.Errorf("the first event = %s %+v", id, e)
	}
	site.Script(registrytest.MAC(1)) // revision 2
	for name, s := range map[string]*bufio.Scanner{"live": live, "from the start": all, "resumed": open(at(1), "?from=0"), "by a number": open("1", "")} {
		if id, e := next(s); id != at(2) || e.Kind != proto.KindAttempt || e.Revision != 2 {
			t.Errorf("%s: the next event = %s %+v, want 2 attempt", name, id, e)
		}
	}
	a.Stop()
	said := false
	for live.Scan() { // until it ends; a feed that does not is cut off by its context, which is an error
		said = said || live.Text() == ": the collector stops; come again with the last id"
		if text := live.Text(); text != "" && !strings.HasPrefix(text, ":") {
			t.Errorf("after the stop the feed says %q", text)
		}
	}
	if err := live.Err(); err != nil {
		t.Errorf("the feed did not end by itself: %v", err)
	}
	if !said {
		t.Error("the feed did not say why it ends")
	}
}
