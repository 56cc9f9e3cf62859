// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/collector/internal/nodeset"
	"provost/proto"
)

// now is the time of every test, in the zone of its operator.
var now = time.Date(2026, 3, 14, 12, 0, 0, 0, time.FixedZone("CET", 3600))

func before(d string) time.Time {
	v, err := time.ParseDuration(d)
	if err != nil {
		panic(err)
	}
	return now.Add(-v)
}

// fake is a collector with canned answers, over real HTTP on a unix socket.
type fake struct {
	mu       sync.Mutex
	list     proto.NodeList
	installs map[string][]proto.EventList // by node, the newest first
	logs     map[string]string            // by node/id/name
	profiles []proto.ProfileInfo
	history  []proto.HistoryEntry // of every node
	checks   []proto.Check
	refuse   *proto.Problem // of every request
	// onStatus, if there, may change the world at the n-th request for the status or for one node, from 1.
	onStatus func(f *fake, n int)
	asked    int
	feed     func(n int, from string) (body string, wait bool, p *proto.Problem)
	fed      int
	push     chan string        // what an open feed sends then
	requests []string           // every request that is no GET: METHOD PATH BODY
	changes  []proto.PlanChange // that a retry brings

	dir string
	srv *httptest.Server
}

func (f *fake) server() string { return "unix://" + filepath.Join(f.dir, "s") }

// serve starts the fake; stop ends it.
func (f *fake) serve() (stop func(), err error) {
	if f.dir, err = os.MkdirTemp("", "provost"); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", filepath.Join(f.dir, "s"))
	if err != nil {
		return nil, err
	}
	f.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: f.handler()}}
	f.srv.Start()
	return func() { f.srv.Close(); os.RemoveAll(f.dir) }, nil
}

func start(t testing.TB, f *fake) *fake {
	t.Helper()
	stop, err := f.serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return f
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, h func(r *http.Request) (any, *proto.Problem)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if r.Method != http.MethodGet {
				body, _ := io.ReadAll(r.Body)
				f.requests = append(f.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
			}
			v, p := any(nil), f.refuse
			if p == nil {
				v, p = h(r)
			}
			switch {
			case p != nil:
				w.Header().Set("Content-Type", proto.ProblemType)
				w.WriteHeader(p.Status)
				json.NewEncoder(w).Encode(p)
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				if s, ok := v.(string); ok {
					io.WriteString(w, s)
					return
				}
				json.NewEncoder(w).Encode(v)
			}
		})
	}
	route("GET /v1/status", func(r *http.Request) (any, *proto.Problem) {
		f.tick()
		return f.select_(r.URL.Query().Get("nodes"), r.URL.Query().Get("label"))
	})
	route("GET /v1/nodes/{node}", func(r *http.Request) (any, *proto.Problem) {
		f.tick()
		l, p := f.select_(r.PathValue("node"), "")
		if p != nil {
			return nil, p
		}
		return l.Nodes[0], nil
	})
	route("GET /v1/nodes/{node}/render", func(r *http.Request) (any, *proto.Problem) {
		l, p := f.select_(r.PathValue("node"), "")
		if p != nil {
			return nil, p
		}
		out := proto.RenderedNode{Schema: 1, Node: l.Nodes[0].Name, Profile: "compute", Args: "inst.ks=http://10.0.0.1:8480/boot/answer/I/********/ks.cfg",
			Files:   []proto.RenderedFile{{Name: "ks.cfg", Text: "text\nrootpw --iscrypted ********\n# \x1b[2J\n"}},
			Scripts: []proto.RenderedFile{{Name: "boot.grub", Text: "echo 'Provost: installing n1, attempt 1'\n"}}}
		if out.Node == "n2" {
			out.Install, out.Args, out.Files, out.Scripts = l.Nodes[0].Install, "", nil, nil
		}
		return out, nil
	})
	route("POST /v1/nodes", func(*http.Request) (any, *proto.Problem) {
		var spec proto.NodeSpec
		body := f.requests[len(f.requests)-1]
		if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "POST /v1/nodes ")), &spec); err != nil {
			return nil, proto.NewProblem(400, proto.CodeBadRequest, err.Error(), "")
		}
		if f.node(spec.Name) != nil {
			return nil, proto.NewProblem(409, proto.CodeExists, "node "+spec.Name+" is there already", "provost node set changes it")
		}
		return proto.Node{Schema: 1, Name: spec.Name, MACs: spec.MACs, Profile: spec.Profile, Status: proto.StatusDefined}, nil
	})
	route("POST /v1/nodes/{node}/rename", func(r *http.Request) (any, *proto.Problem) {
		var o proto.Rename
		if err := f.body(&o); err != nil {
			return nil, proto.NewProblem(400, proto.CodeBadRequest, err.Error(), "")
		}
		n := f.node(r.PathValue("node"))
		if n == nil {
			return nil, proto.NewProblem(404, proto.CodeUnknownNode, "node "+r.PathValue("node")+" is unknown", "")
		}
		n.Name = o.Name
		return *n, nil
	})
	route("GET /v1/nodes/{node}/history", func(r *http.Request) (any, *proto.Problem) {
		out := proto.History{Schema: 1, Node: r.PathValue("node"), Entries: []proto.HistoryEntry{}}
		since, _ := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
		for _, e := range f.history {
			if r.URL.Query().Get("plan") == "" {
				e.Steps = nil
			}
			if !e.At.Before(since) {
				out.Entries = append(out.Entries, e)
			}
		}
		return out, nil
	})
	route("POST /v1/inventory", func(*http.Request) (any, *proto.Problem) {
		var inv proto.Inventory
		if err := f.body(&inv); err != nil {
			return nil, proto.NewProblem(400, proto.CodeBadRequest, err.Error(), "")
		}
		return f.inventory(inv), nil
	})
	orders := func(r *http.Request) (any, *proto.Problem) {
		l, p := f.select_(r.PathValue("nodes"), "")
		if p != nil {
			return nil, p
		}
		verb := r.PathValue("verb")
		for i := range l.Nodes {
			n := &l.Nodes[i]
			if verb == "install" {
				n.Ordinal++
				n.Install = fmt.Sprintf("01JPA%021d", i+1)
				n.Status, n.Summary = proto.StatusOrdered, "ordered"
			} else if _, err := proto.ParseVerb(verb); err == nil && verb != "hold" && verb != "abort" && verb != "force" && !n.Waiting {
				return nil, proto.NewProblem(409, proto.CodeConflict, n.Name+" does not wait for an order", "provost explain "+n.Name+" says what it does")
			}
		}
		var o proto.NodeOrder
		if verb == "retry" && f.body(&o) == nil && !o.SamePlan {
			for _, c := range f.changes {
				c.Nodes = slices.DeleteFunc(slices.Clone(c.Nodes), func(name string) bool {
					return !slices.ContainsFunc(l.Nodes, func(n proto.Node) bool { return n.Name == name })
				})
				if len(c.Nodes) > 0 {
					l.PlanChanges = append(l.PlanChanges, c)
				}
			}
		}
		if verb == "retry" {
			for _, n := range l.Nodes {
				f.node(n.Name).Orders = []proto.Pending{{Verb: proto.VerbRetry, Since: now}}
			}
		}
		return l, nil
	}
	route("POST /v1/nodes/{nodes}/{verb}", orders)
	route("PATCH /v1/nodes/{nodes}", orders)
	route("DELETE /v1/nodes/{nodes}", func(r *http.Request) (any, *proto.Problem) {
		_, p := f.select_(r.PathValue("nodes"), "")
		return nil, p
	})
	route("GET /v1/nodes/{node}/installs", func(r *http.Request) (any, *proto.Problem) {
		out := proto.InstallList{Schema: 1}
		for _, l := range f.installs[r.PathValue("node")] {
			out.Installs = append(out.Installs, l.Install)
		}
		return out, nil
	})
	route("GET /v1/nodes/{node}/installs/{id}", func(r *http.Request) (any, *proto.Problem) {
		l, p := f.install(r)
		if p != nil {
			return nil, p
		}
		return l.Install, nil
	})
	route("GET /v1/nodes/{node}/installs/{id}/events", func(r *http.Request) (any, *proto.Problem) {
		l, p := f.install(r)
		if p != nil {
			return nil, p
		}
		return l, nil
	})
	route("GET /v1/nodes/{node}/installs/{id}/logs/{name}", func(r *http.Request) (any, *proto.Problem) {
		l, p := f.install(r)
		if p != nil {
			return nil, p
		}
		text, ok := f.logs[l.Install.Node+"/"+l.Install.ID+"/"+r.PathValue("name")]
		from, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		if !ok || from > len(text) {
			return nil, proto.NewProblem(404, proto.CodeNotFound, "no such log", "")
		}
		return text[from:], nil
	})
	route("GET /v1/profiles", func(*http.Request) (any, *proto.Problem) {
		l := proto.ProfileList{Schema: 1, Profiles: f.profiles, ConfigDir: "/srv/etc"}
		if len(f.profiles) == 0 {
			l.Problems = []string{"/srv/etc/profiles/bad.yaml:1: unknown key \"\x1bx\""}
		}
		return l, nil
	})
	route("POST /v1/reload", func(*http.Request) (any, *proto.Problem) {
		if len(f.profiles) == 0 {
			return nil, proto.NewProblem(422, proto.CodeBadProfile, "bad.yaml:1: unknown key", "nothing was changed")
		}
		return proto.ReloadAnswer{Schema: 1, ConfigDir: "/srv/etc", Profiles: 3, Added: []string{"new"}, Changed: []string{"compute"}, Removed: []string{"old"}}, nil
	})
	route("GET /v1/profiles/{name}", func(r *http.Request) (any, *proto.Problem) {
		for _, p := range f.profiles {
			if p.Name == r.PathValue("name") {
				return p, nil
			}
		}
		return nil, proto.NewProblem(404, proto.CodeUnknownProfile, "profile "+r.PathValue("name")+" is unknown", "")
	})
	route("GET /v1/version", func(*http.Request) (any, *proto.Problem) {
		return proto.VersionInfo{Schema: 1, Version: "v0.2.0"}, nil
	})
	route("GET /v1/doctor", func(*http.Request) (any, *proto.Problem) {
		return proto.Doctor{Schema: 1, Version: "v0.2.0", Checks: f.checks}, nil
	})
	mux.HandleFunc("GET /v1/events", f.events)
	return mux
}

// events sends what feed gives for the n-th connection, from 1, and then breaks off; with wait set it stays open.
func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.fed++
	feed := f.feed
	if feed == nil {
		feed = f.once
	}
	body, wait, p := feed(f.fed, r.URL.Query().Get("from"))
	if f.refuse != nil {
		p = f.refuse
	}
	f.mu.Unlock()
	if p != nil {
		w.Header().Set("Content-Type", proto.ProblemType)
		w.WriteHeader(p.Status)
		json.NewEncoder(w).Encode(p)
		return
	}
	io.WriteString(w, body)
	http.NewResponseController(w).Flush()
	for wait {
		select {
		case body := <-f.push:
			io.WriteString(w, body)
			http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// once sends every event of the installs of n2 and n4 and then knows none of them, which ends a follower at its third
// connection; the next one sees the same.
func (f *fake) once(n int, from string) (string, bool, *proto.Problem) {
	if n%3 != 1 {
		return "", false, proto.NewProblem(410, proto.CodeNotFound, "nothing follows revision "+from, "")
	}
	body, rev := ": provost\nid: 4000\n\n", 4000
	for _, node := range []string{"n2", "n4"} {
		for _, l := range f.installs[node] {
			for _, e := range l.Events {
				rev++
				e.Node, e.Revision = node, uint64(rev)
				body += frame(e)
			}
		}
	}
	return body, false, nil
}

func frame(e proto.Event) string {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("id: %d\ndata: %s\n\n", e.Revision, b)
}

// body decodes that of the request at hand.
func (f *fake) body(v any) error {
	return json.Unmarshal([]byte(strings.SplitN(f.requests[len(f.requests)-1], " ", 3)[2]), v)
}

// inventory takes an import as the collector does, but for MACs that are another node's.
func (f *fake) inventory(inv proto.Inventory) proto.InventoryAnswer {
	a := proto.InventoryAnswer{Schema: 1, DryRun: inv.DryRun, Changes: []proto.NodeChange{}}
	for i, in := range inv.Nodes {
		old, n := proto.NodeSpec{Name: in.Name}, f.node(in.Name)
		if n != nil {
			old = proto.NodeSpec{Name: n.Name, MACs: n.MACs, IP: n.IP, Serial: n.Serial, Profile: n.Profile, Groups: n.Groups, Attrs: n.Attrs, Protected: n.Protected}
		}
		spec := in.Patch.Apply(old)
		if err := spec.Check(); err != nil {
			a.Problems = append(a.Problems, proto.InventoryProblem{Index: i, Name: in.Name, Detail: err.Error()})
		} else if d := proto.Diff(old, spec); len(d) > 0 {
			a.Changes = append(a.Changes, proto.NodeChange{Name: in.Name, New: n == nil, Fields: d})
		}
	}
	return a
}

func (f *fake) tick() {
	f.asked++
	if f.onStatus != nil {
		f.onStatus(f, f.asked)
	}
}

func (f *fake) node(name string) *proto.Node {
	for i := range f.list.Nodes {
		if f.list.Nodes[i].Name == name {
			return &f.list.Nodes[i]
		}
	}
	return nil
}

func (f *fake) install(r *http.Request) (*proto.EventList, *proto.Problem) {
	all := f.installs[r.PathValue("node")]
	for i := range all {
		if id := r.PathValue("id"); id == "latest" || id == all[i].Install.ID {
			return &all[i], nil
		}
	}
	return nil, proto.NewProblem(404, proto.CodeNotFound, r.PathValue("node")+" has no such install", "provost install "+r.PathValue("node")+" orders one")
}

func (f *fake) select_(expr, label string) (*proto.NodeList, *proto.Problem) {
	out := f.list
	out.Schema = max(out.Schema, 1)
	if expr != "" {
		names, err := nodeset.Eval(expr, resolver{f})
		if err != nil {
			return nil, proto.NewProblem(400, proto.CodeBadRequest, err.Error(), "")
		}
		out.Nodes = []proto.Node{}
		for _, name := range names {
			n := f.node(name)
			if n == nil {
				return nil, proto.NewProblem(404, proto.CodeUnknownNode, "node "+name+" is unknown", "")
			}
			out.Nodes = append(out.Nodes, *n)
		}
	}
	out.Nodes = slices.DeleteFunc(slices.Clone(out.Nodes), func(n proto.Node) bool { return label != "" && n.Label != label })
	return &out, nil
}

type resolver struct{ f *fake }

func (r resolver) pick(ok func(*proto.Node) bool) (out []string) {
	for i := range r.f.list.Nodes {
		if ok(&r.f.list.Nodes[i]) {
			out = append(out, r.f.list.Nodes[i].Name)
		}
	}
	return out
}

func (r resolver) All() []string { return r.pick(func(*proto.Node) bool { return true }) }
func (r resolver) Group(g string) ([]string, bool) {
	return r.pick(func(n *proto.Node) bool { return slices.Contains(n.Groups, g) }), true
}
func (r resolver) Status(w string) ([]string, bool) {
	return r.pick(func(n *proto.Node) bool { return string(n.Status) == w || w == "waiting" && n.Waiting }), true
}
