// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"provost/collector/internal/auth"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

const document = "../../../proto/openapi.yaml"

func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(document)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

var variable = regexp.MustCompile(`\{[^}]*\}`)

// TestOpenAPIRoutes: the document has every route with its scope, and no other; of the API's, those that agents ask
// may answer 429.
func TestOpenAPIRoutes(t *testing.T) {
	_, a, _ := newSite(t)
	doc := load(t)
	want := map[string]string{"GET /boot/{}": "public", "GET /boot/answer/{}": "public", "GET /boot/answer/{}/{}/{}": "public", "GET /images/{}": "public",
		"GET /boot/esxi/{}/{}/boot.cfg": "public", "GET /boot/callback/{}/{}/{}": "public", "POST /boot/callback/{}/{}/{}": "public"} // the boot server's
	for _, r := range a.Routes() {
		want[r.Method+" "+variable.ReplaceAllString(r.Pattern, "{}")] = string(r.Scope)
	}
	got := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			scope, _ := op.Extensions["x-scope"].(string)
			got[method+" "+variable.ReplaceAllString(path, "{}")] = scope
			if has, want := op.Responses.Value("429") != nil, scope == string(auth.ScopeAgent) || scope == string(auth.ScopeJoin); has != want && !strings.HasPrefix(path, "/boot/") {
				t.Errorf("%s %s has an answer 429: %t, want %t", method, path, has, want)
			}
		}
	}
	for k, scope := range want {
		if got[k] != scope {
			t.Errorf("%s has x-scope %q in the document, want %q", k, got[k], scope)
		}
		delete(got, k)
	}
	for k := range got {
		t.Errorf("%s is in the document, but is no route", k)
	}
}

// TestOpenAPITypes: each schema has the fields of its Go type, and no other.
func TestOpenAPITypes(t *testing.T) {
	doc := load(t)
	for _, v := range []any{proto.Hello{}, proto.HelloAnswer{}, proto.Clock{}, proto.Hardware{}, proto.SignedPlan{}, proto.EventsRequest{}, proto.EventsAnswer{},
		proto.Refusal{}, proto.Heartbeat{}, proto.HeartbeatAnswer{}, proto.Order{}, proto.LogAnswer{}, proto.Event{}, proto.Problem{}, proto.NodeSpec{},
		proto.NodePatch{}, proto.Node{}, proto.Deadline{}, proto.Cause{}, proto.NodeList{}, proto.InstallOrder{}, proto.NodeOrder{}, proto.Install{},
		proto.StepInfo{}, proto.LogInfo{}, proto.InstallList{}, proto.LogList{}, proto.EventList{}, proto.ProfileInfo{}, proto.ProfileList{}, proto.Step{},
		proto.Reboot{}, proto.VersionInfo{}, proto.TokenOrder{}, proto.TokenAnswer{}, proto.TokenList{}, proto.TokenInfo{}, proto.ReloadAnswer{}, proto.RenderedNode{}, proto.RenderedFile{}, proto.Pending{},
		proto.Rename{}, proto.Inventory{}, proto.InventoryNode{}, proto.InventoryAnswer{}, proto.InventoryProblem{}, proto.NodeChange{}, proto.FieldChange{}, proto.History{}, proto.HistoryEntry{}, proto.HistoryStep{}, proto.Changes{}, proto.Doctor{}, proto.Check{},
		proto.Removal{}, proto.Selection{}, proto.PlanChange{}} {
		rt := reflect.TypeOf(v)
		ref := doc.Components.Schemas[rt.Name()]
		if ref == nil {
			t.Errorf("the document has no schema %s", rt.Name())
			continue
		}
		var want, required []string
		for i := range rt.NumField() {
			name, opt, _ := strings.Cut(rt.Field(i).Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			want = append(want, name)
			if !strings.Contains(opt, "omit") {
				required = append(required, name)
			}
		}
		var got []string
		for name := range ref.Value.Properties {
			got = append(got, name)
		}
		gotRequired := slices.Clone(ref.Value.Required)
		for _, s := range [][]string{want, got, required, gotRequired} {
			slices.Sort(s)
		}
		if !slices.Equal(got, want) {
			t.Errorf("schema %s has %v, the Go type %v", rt.Name(), got, want)
		}
		if !slices.Equal(gotRequired, required) {
			t.Errorf("schema %s requires %v, the Go type %v", rt.Name(), gotRequired, required)
		}
	}
}

// TestOpenAPIAnswers makes real requests of every kind and holds their answers against the document.
func TestOpenAPIAnswers(t *testing.T) {
	site, a, srv := newSite(t)
	doc := load(t)
	doc.Servers = nil
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := site.AddToken(t.Context(), "admin", "a")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	do := func(method, path, token string, body any, want int) []byte {
		t.Helper()
		b, raw := body.([]byte)
		kind := "application/octet-stream"
		if !raw && body != nil {
			b, err = json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			kind = "application/json"
		}
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if body != nil {
			req.Header.Set("Content-Type", kind)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%s %s = %d %s, want %d", method, path, resp.StatusCode, answer, want)
		}
		local := req.Clone(t.Context())
		local.URL = &url.URL{Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}
		route, params, err := router.FindRoute(local)
		if err != nil {
			t.Fatalf("%s %s is not in the document: %v", method, path, err)
		}
		seen[method+" "+variable.ReplaceAllString(route.Path, "{}")] = true
		in := &openapi3filter.RequestValidationInput{Request: local, PathParams: params, Route: route,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
		if want < 400 {
			local.Body = io.NopCloser(bytes.NewReader(b))
			if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
				t.Errorf("%s %s: the request is not the document's: %v", method, path, err)
			}
		}
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Options: &openapi3filter.Options{IncludeResponseStatus: true}}
		out.SetBodyBytes(answer)
		if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
			t.Errorf("%s %s: the answer %s is not the document's: %v", method, path, answer, err)
		}
		return answer
	}
	openapi3filter.RegisterBodyDecoder("application/problem+json", openapi3filter.RegisteredBodyDecoder("application/json"))
	text := func(b io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		all, err := io.ReadAll(b)
		return string(all), err
	}
	openapi3filter.RegisterBodyDecoder("application/x-pem-file", text)

	spec := proto.NodeSpec{Name: "n1", MACs: []string{registrytest.MAC(1)}, Profile: "compute", IP: "127.0.0.1", Serial: "S", Groups: []string{"g"}, Attrs: map[string]string{"a": "b"}}
	do("POST", "/v1/nodes", admin, spec, 201)
	do("POST", "/v1/nodes", admin, spec, 409)
	do("POST", "/v1/nodes", "", spec, 401)
	do("POST", "/v1/nodes", admin, map[string]any{"name": "n1", "mac": "x"}, 400)
	do("PATCH", "/v1/nodes/n1", admin, map[string]any{"add_groups": []string{"h"}, "attrs": map[string]any{"a": nil}}, 200)
	do("POST", "/v1/nodes/n1/install", admin, proto.InstallOrder{Label: "x", Reason: "y"}, 200)
	d := site.Script(registrytest.MAC(1))
	var hello proto.HelloAnswer
	if err := json.Unmarshal(do("POST", "/v1/agent/hello", "", registrytest.HelloOf(d, registrytest.Boot(1)), 200), &hello); err != nil {
		t.Fatal(err)
	}
	do("POST", "/v1/agent/hello", "", registrytest.HelloOf(d, registrytest.Boot(2)), 409)
	agent := hello.Token
	site.Clock.Advance(100 * time.Second)
	clock := proto.Clock{Boot: registrytest.Boot(1), OffsetMS: 60_000}
	event := func(v proto.Event) json.RawMessage {
		v.Boot, v.OffsetMS = registrytest.Boot(1), int64(v.Seq)
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	step := proto.Event{Phase: proto.PhasePost, Step: "one", Try: 1}
	start, end, hold := step, step, proto.Event{Kind: proto.KindHold, Seq: 4, Message: "m", Failed: true}
	start.Kind, start.Seq = proto.KindStepStart, 1
	end.Kind, end.Seq, end.Outcome, end.Exit, end.Tail, end.Message = proto.KindStepEnd, 2, proto.OutcomeFailed, 3, []string{"bad"}, "m"
	do("POST", "/v1/agent/events", agent, proto.EventsRequest{Schema: 1, Install: d.Install, Journal: registrytest.Journal, Clock: clock,
		Events: []json.RawMessage{event(start), event(end), json.RawMessage(`{}`), event(hold)}}, 200)
	do("PUT", "/v1/agent/logs/"+d.Install+"/one.log?offset=0", agent, []byte("text"), 200)
	do("PUT", "/v1/agent/logs/"+d.Install+"/one.log?offset=0", agent, []byte("text"), 409)
	do("GET", "/v1/agent/files/"+site.Profiles.All["compute"].Steps[0].Digest, agent, nil, 200)
	do("GET", "/v1/agent/files/x", agent, nil, 404)
	for _, path := range []string{"/v1/doctor", "/v1/nodes/n1/history?plan=true&since=2020-01-01T00:00:00Z", "/v1/status", "/v1/status?nodes=%25failed&label=x", "/v1/nodes", "/v1/nodes/n1", "/v1/nodes/n1/installs", "/v1/nodes/n1/installs/latest",
		"/v1/nodes/n1/installs/" + d.Install, "/v1/nodes/n1/installs/latest/events", "/v1/nodes/n1/installs/latest/logs", "/v1/nodes/n1/installs/latest/logs/one.log?offset=2",
		"/v1/profiles", "/v1/profiles/compute", "/v1/nodes/n1/render"} {
		do("GET", path, admin, nil, 200)
		do("GET", path, "", nil, 401)
		do("GET", path, agent, nil, 403)
	}
	do("GET", "/v1/nodes/n1/installs/latest/logs/one.log?offset=99", admin, nil, 416)
	for _, path := range []string{"/v1/nodes/n9", "/v1/nodes/n1/installs/x", "/v1/nodes/n1/installs/latest/logs/none", "/v1/profiles/none", "/v1/status?nodes=n9"} {
		do("GET", path, admin, nil, 404)
	}
	do("GET", "/v1/nodes/n1/history?since=yesterday", admin, nil, 400)
	do("POST", "/v1/status", admin, proto.Selection{Nodes: "n1,%failed", Label: "x"}, 200)
	do("POST", "/v1/status", admin, nil, 200)
	do("POST", "/v1/status", "", nil, 401)
	do("POST", "/v1/status", agent, nil, 403)
	do("POST", "/v1/status", admin, proto.Selection{Nodes: "n9"}, 404)
	site.Profiles.Put("compute", registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho mended\n"}))
	do("POST", "/v1/nodes/n1/retry", admin, proto.NodeOrder{SamePlan: true}, 200)
	if b := do("POST", "/v1/nodes/-/retry", admin, proto.NodeOrder{Nodes: "n1"}, 200); !strings.Contains(string(b), `"plan_changes":[{"nodes":["n1"],"changed":["one"]`) {
		t.Errorf("the answer to a retry does not say what is new: %.200s", b)
	}
	do("POST", "/v1/nodes/-/retry", admin, nil, 400)
	do("POST", "/v1/nodes/n1/retry", admin, proto.NodeOrder{Nodes: "n1"}, 400)
	do("POST", "/v1/nodes/n1/skip", admin, proto.NodeOrder{SamePlan: true}, 400)
	for _, verb := range []string{"retry", "skip", "release", "hold"} {
		do("POST", "/v1/nodes/n1/"+verb, admin, proto.NodeOrder{Reason: "r"}, 200)
	}
	do("POST", "/v1/nodes/n1/force", admin, proto.NodeOrder{Step: "all"}, 200)
	do("POST", "/v1/agent/heartbeat", agent, proto.Heartbeat{Schema: 1, Install: d.Install, Clock: clock, Waiting: true}, 200)
	do("POST", "/v1/nodes/n1/boot", admin, proto.NodeOrder{Action: proto.BootDisk}, 200)
	do("POST", "/v1/nodes/n1/abort", admin, nil, 200)
	do("POST", "/v1/nodes/n1/release", admin, proto.NodeOrder{Step: "x"}, 400)
	do("POST", "/v1/tokens", admin, proto.TokenOrder{Name: "r", Role: "read"}, 201)
	do("GET", "/v1/tokens", admin, nil, 200)
	do("DELETE", "/v1/tokens/r", admin, nil, 204)
	do("DELETE", "/v1/tokens/r", admin, nil, 404)
	do("POST", "/v1/reload", admin, nil, 404) // the program around it is not here
	do("GET", "/v1/backup", admin, nil, 404)
	do("GET", "/metrics", admin, nil, 200)
	do("POST", "/v1/nodes/n1/install", admin, nil, 200)
	do("POST", "/v1/nodes/n1/rename", admin, proto.Rename{Name: "n2"}, 409)
	do("POST", "/v1/nodes/n1/abort", admin, nil, 200)
	do("POST", "/v1/nodes/n1/rename", admin, proto.Rename{Name: "n2"}, 200)
	do("POST", "/v1/nodes/n1/rename", admin, proto.Rename{Name: "n2"}, 404)
	do("POST", "/v1/nodes/n2/rename", admin, proto.Rename{Name: "n1"}, 200)
	inv := proto.Inventory{DryRun: true, Nodes: []proto.InventoryNode{{Name: "n3", Patch: proto.NodePatch{MACs: &[]string{registrytest.MAC(3)}}}, {Name: "n4"}}}
	do("POST", "/v1/inventory", admin, inv, 200)
	inv.DryRun = false
	do("POST", "/v1/inventory", admin, inv, 409)
	inv.Nodes = inv.Nodes[:1]
	do("POST", "/v1/inventory", admin, inv, 200)
	do("PATCH", "/v1/nodes/n1", admin, map[string]any{"protected": true}, 200)
	do("DELETE", "/v1/nodes/n1", admin, nil, 409)
	do("PATCH", "/v1/nodes/n1", admin, map[string]any{"protected": false}, 200)
	do("DELETE", "/v1/nodes/-", admin, proto.Removal{Reason: "sold", Nodes: "n1"}, 204)
	do("DELETE", "/v1/nodes/n1", admin, nil, 404)
	if b := do("GET", "/v1/nodes/n1/history", admin, nil, 200); !strings.Contains(string(b), `"reason":"sold"`) {
		t.Errorf("the history of a removed node = %s", b)
	}
	for _, path := range []string{"/v1/version", "/v1/ca", "/healthz", "/readyz"} {
		do("GET", path, "", nil, 200)
	}
	for _, r := range a.Routes() {
		k := r.Method + " " + variable.ReplaceAllString(r.Pattern, "{}")
		if !seen[k] && r.Pattern != "/v1/events" { // a stream without end has a test of its own
			t.Errorf("%s was not tried", k)
		}
	}
}
