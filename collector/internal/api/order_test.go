// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/auth"
	"provost/collector/internal/client"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// lossy serves a site's API on a unix socket, and loses answers: what was asked is done, and the connection ends.
type lossy struct {
	t       *testing.T
	site    *registrytest.Site
	handler atomic.Pointer[api.API]
	lose    atomic.Int32
	restart atomic.Bool // the collector is started again after an answer that was lost
}

func newLossy(t *testing.T) (*lossy, *client.Client) {
	t.Helper()
	l := &lossy{t: t, site: registrytest.New(t)}
	l.open()
	dir, err := os.MkdirTemp("", "provost")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: listener, Config: &http.Server{Handler: l, ConnContext: api.ConnContext}}
	srv.Start()
	cl, err := client.New(client.Config{Server: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close(); srv.Close(); os.RemoveAll(dir) })
	return l, cl
}

func (l *lossy) open() {
	l.t.Helper()
	a, err := api.New(api.Config{Registry: l.site.Registry, Profiles: l.site.Profiles, CA: l.site.CA.PEM, Version: "test", Ready: l.site.Store.Err})
	if err != nil {
		l.t.Fatal(err)
	}
	l.handler.Store(a)
}

func (l *lossy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || l.lose.Add(-1) < 0 {
		l.handler.Load().ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	l.handler.Load().ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		l.t.Errorf("%s = %d %s", r.URL, rec.Code, rec.Body)
	}
	if l.restart.Load() {
		l.site.Restart()
		l.open()
	}
	panic(http.ErrAbortHandler)
}

// TestLostAnswer: an order whose answer was lost after its commit, also because the collector was started again then, is given
// again by the client, and is carried out once.
func TestLostAnswer(t *testing.T) {
	l, cl := newLossy(t)
	l.site.Add("n1", 1)
	l.site.Add("n2", 2)
	orders := func(name string) (all []string) {
		t.Helper()
		h, err := l.site.History(name, time.Time{}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range slices.Backward(h.Entries) {
			all = append(all, e.Order)
		}
		return all[1:] // but for its begin
	}
	l.restart.Store(true)
	l.lose.Store(1)
	list, err := cl.OrderInstall(t.Context(), "%defined", proto.InstallOrder{}) // which is nobody after it
	if err != nil || len(list.Nodes) != 2 || list.Nodes[0].Ordinal != 1 || list.Nodes[1].Ordinal != 1 {
		t.Errorf("install without an answer = %+v, %v, want the first one of two nodes", list, err)
	}
	l.restart.Store(false)
	l.lose.Store(2)
	list, err = cl.Order(t.Context(), "n1", proto.VerbAbort, proto.NodeOrder{}) // which cannot be ordered twice
	if err != nil || len(list.Nodes) != 1 || list.Nodes[0].Summary != "failed(abort)" {
		t.Errorf("abort without an answer = %+v, %v, want n1 failed(abort)", list, err)
	}
	l.lose.Store(1)
	if list, err = cl.SetBoot(t.Context(), "n2", proto.NodeOrder{Action: proto.BootDisk}); err != nil || len(list.Nodes) != 1 {
		t.Errorf("boot without an answer = %+v, %v", list, err)
	}
	for name, want := range map[string]string{"n1": "install abort", "n2": "install boot"} {
		if got := strings.Join(orders(name), " "); got != want {
			t.Errorf("the orders of %s are %s, want %s", name, got, want)
		}
	}
}

// TestKeys: a key is one string, for one order.
func TestKeys(t *testing.T) {
	site, _, srv := newSite(t)
	site.Add("n1", 1)
	site.Add("n2", 2)
	token, err := site.AddToken(t.Context(), auth.RoleOperate, "o")
	if err != nil {
		t.Fatal(err)
	}
	order := func(path, body string, keys ...string) (int, proto.Problem, proto.NodeList) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/v1/nodes/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		for _, k := range keys {
			req.Header.Add("Idempotency-Key", k)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var p proto.Problem
		var list proto.NodeList
		if err := json.Unmarshal(b, map[bool]any{true: &list, false: &p}[resp.StatusCode == 200]); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		return resp.StatusCode, p, list
	}
	for _, bad := range [][]string{{""}, {`""`}, {`"a`}, {`a"b`}, {`"a\b"`}, {"a, b"}, {"a;b"}, {"ä"}, {strings.Repeat("k", 129)}, {"a", "b"}} {
		if status, p, _ := order("n1/install", "", bad...); status != 400 || p.Code != proto.CodeBadRequest {
			t.Errorf("key %q = %d %s, want 400", bad, status, p.Code)
		}
	}
	for _, tt := range []struct {
		name, path, body, key string
		status                int
		ordinal               uint64
	}{
		{"first", "n1/install", `{"label":"a"}`, `"k 1"`, 200, 1},
		{"again", "n1/install", `{"label":"a"}`, `"k 1"`, 200, 1},
		{"without quotes", "n1/install", `{ "label": "a" }`, `k 1`, 200, 1},
		{"another body", "n1/install", `{"label":"b"}`, `"k 1"`, 422, 1},
		{"another node", "n2/install", `{"label":"a"}`, `"k 1"`, 422, 1},
		{"another order", "n1/abort", ``, `"k 1"`, 422, 1},
		{"another key", "n1/install", `{"label":"a"}`, `"k2"`, 200, 2},
	} {
		status, p, list := order(tt.path, tt.body, tt.key)
		if status != tt.status || status == 422 && p.Code != proto.CodeKeyReused || status == 200 && (len(list.Nodes) != 1 || list.Nodes[0].Ordinal != tt.ordinal) {
			t.Errorf("%s: %d %+v %+v, want %d", tt.name, status, p, list, tt.status)
		}
		if n := site.Seen("n1"); n.Ordinal != tt.ordinal || n.Summary != "ordered" {
			t.Errorf("%s: n1 has install number %d and is %s, want %d", tt.name, n.Ordinal, n.Summary, tt.ordinal)
		}
	}
	if n := site.Seen("n2"); n.Ordinal != 0 {
		t.Errorf("a refused order made install number %d", n.Ordinal)
	}
	for range 2 { // without a key each is one
		order("n1/install", "")
	}
	if n := site.Seen("n1"); n.Ordinal != 4 {
		t.Errorf("two orders without a key made install number %d, want 4", n.Ordinal)
	}
}
