// SPDX-License-Identifier: Apache-2.0

// Package api is the collector's HTTP interface: what agents and operators may ask, and of whom it is taken.
//
// It knows HTTP and proto's types; what is asked is decided by package registry. It must never serve a route whose
// scope is not declared, answer 2xx before the commit, or send a refusal that is not problem+json.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"provost/collector/internal/auth"
	"provost/collector/internal/registry"
	"provost/proto"
)

// Profiles is what the API shows of the site's profiles.
type Profiles interface {
	Names() []string
	Info(name string) (proto.ProfileInfo, bool)
}

// Config is what the API serves.
type Config struct {
	Registry *registry.Registry
	Profiles Profiles
	CA       func() []byte // PEM
	Version  string
	Warnings func() []string                                // of the frontend itself, for every list of nodes; may be nil
	Blind    func() []string                                // the logs that cannot be read now, for every list of nodes; may be nil
	Reach    func(host string) (boot string, urls []string) // the boot server's HOST:PORT and the agents' URLs, as a node reaches them; localhost's if nil
	Ready    func() error                                   // why the collector cannot take anything; may be nil
	// Doctor looks at the frontend; may be nil.
	Doctor func(context.Context, Profiles) []proto.Check
	Log    *slog.Logger
	Admin  Admin
}

// Route is one route with what it asks of its caller.
type Route struct {
	Method  string
	Pattern string // as http.ServeMux takes it
	Scope   auth.Scope
	limit   int64 // bytes of the request's body
	handle  func(*API, *call) error
}

// The bounds of a request.
const (
	maxOrder    = 1 << 20          // bytes of an operator's body
	requestTime = 30 * time.Second // from the header's end to the begin of the answer
	answerTime  = 2 * time.Minute  // for the whole answer
	nodeTime    = time.Millisecond // more of both for each node of an order or a change; two slow processors need a half of it
	maxInFlight = 96 << 20         // bytes of all bodies in memory: twelve of the largest
	maxInHand   = 512              // agents' requests that are decoded and decided at once; a body takes some five times its bytes then
)

// API is the handler of every route.
type API struct {
	cfg      Config
	routes   []Route
	mux      *http.ServeMux
	inFlight atomic.Int64
	inHand   chan struct{} // holds a token for each request from the end of its body to its answer
	counters counters

	compressors compressors
	feedWrite   time.Duration // feedWrite; shorter in tests

	perInstall, perAddress *limiter
	stop                   chan struct{}
}

// New makes the handler. A route without a scope is an error: the collector must not start.
func New(cfg Config) (*API, error) { return newWith(cfg, routes()) }

func newWith(cfg Config, routes []Route) (*API, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Reach == nil {
		cfg.Reach = func(host string) (string, []string) { return "localhost:8480", []string{"https://localhost:8440"} }
	}
	a := &API{cfg: cfg, routes: routes, mux: http.NewServeMux(), stop: make(chan struct{}), inHand: make(chan struct{}, maxInHand), feedWrite: feedWrite,
		perInstall: newLimiter(installRate, installBurst), perAddress: newLimiter(helloRate, helloBurst)}
	for _, r := range a.routes {
		if err := checkScope(r.Scope); err != nil {
			return nil, fmt.Errorf("route %s %s: %w", r.Method, r.Pattern, err)
		}
		a.mux.Handle(r.Method+" "+r.Pattern, a.handler(r))
	}
	a.mux.HandleFunc("/", a.unknown)
	return a, nil
}

// checkScope refuses a scope that nobody declared.
func checkScope(s auth.Scope) error {
	if !slices.Contains(auth.Scopes, s) {
		return fmt.Errorf("scope %q is not declared: nobody could say who may use it", s)
	}
	return nil
}

// Routes lists every route.
func (a *API) Routes() []Route { return slices.Clone(a.routes) }

// Stop ends the answers that have no end of their own, for the server's Shutdown to wait for the others only.
func (a *API) Stop() { close(a.stop) }

func routes() []Route {
	const node, nodes, inst = "/v1/nodes/{node}", "/v1/nodes/{nodes}", "/v1/nodes/{node}/installs/{id}"
	all := []Route{
		{"POST", "/v1/agent/hello", auth.ScopeJoin, maxOrder, (*API).hello},
		{"POST", "/v1/agent/events", auth.ScopeAgent, proto.MaxBody, (*API).events},
		{"POST", "/v1/agent/heartbeat", auth.ScopeAgent, maxOrder, (*API).heartbeat},
		{"PUT", "/v1/agent/logs/{install}/{name}", auth.ScopeAgent, proto.MaxLogChunk, (*API).putLog},
		{"GET", "/v1/agent/files/{sha256}", auth.ScopeAgent, 0, (*API).file},

		{"GET", "/v1/status", auth.ScopeRead, 0, (*API).status},
		{"POST", "/v1/status", auth.ScopeRead, maxOrder, (*API).postStatus},
		{"GET", "/v1/events", auth.ScopeRead, 0, (*API).feed},
		{"GET", "/v1/nodes", auth.ScopeRead, 0, (*API).status},
		{"POST", "/v1/nodes", auth.ScopeOperate, maxOrder, (*API).addNode},
		{"GET", node, auth.ScopeRead, 0, (*API).node},
		{"GET", node + "/render", auth.ScopeRead, 0, (*API).render},
		{"PATCH", nodes, auth.ScopeOperate, maxOrder, (*API).patchNodes},
		{"DELETE", nodes, auth.ScopeOperate, maxOrder, (*API).removeNodes},
		{"POST", node + "/rename", auth.ScopeOperate, maxOrder, (*API).renameNode},
		{"POST", "/v1/inventory", auth.ScopeOperate, maxInventory, (*API).inventory},
		{"POST", nodes + "/install", auth.ScopeOperate, maxOrder, (*API).install},
		{"POST", nodes + "/boot", auth.ScopeOperate, maxOrder, (*API).boot},
		{"GET", node + "/history", auth.ScopeRead, 0, (*API).history},
		{"GET", "/v1/nodes/{node}/installs", auth.ScopeRead, 0, (*API).installs},
		{"GET", inst, auth.ScopeRead, 0, (*API).oneInstall},
		{"GET", inst + "/events", auth.ScopeRead, 0, (*API).installEvents},
		{"GET", inst + "/logs", auth.ScopeRead, 0, (*API).logs},
		{"GET", inst + "/logs/{name}", auth.ScopeRead, 0, (*API).log},
		{"GET", "/v1/profiles", auth.ScopeRead, 0, (*API).profiles},
		{"GET", "/v1/profiles/{name}", auth.ScopeRead, 0, (*API).profile},

		{"POST", "/v1/tokens", auth.ScopeAdmin, maxOrder, (*API).addToken},

		{"GET", "/v1/doctor", auth.ScopeRead, 0, (*API).doctor},
		{"GET", "/v1/version", auth.ScopePublic, 0, (*API).version},
		{"GET", "/v1/ca", auth.ScopePublic, 0, (*API).ca},
		{"GET", "/healthz", auth.ScopePublic, 0, (*API).healthz},
		{"GET", "/readyz", auth.ScopePublic, 0, (*API).readyz},
	}
	all = append(all, adminRoutes()...)
	for _, v := range proto.Verbs {
		all = append(all, Route{"POST", nodes + "/" + string(v), auth.ScopeOperate, maxOrder, func(a *API, c *call) error { return a.command(c, v) }})
	}
	return all
}

// call is one request on its way.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	whole context.Context // the request's own, which requestTime does not end
	who   principal
	ctl   *http.ResponseController

	limit int64         // bytes of the request's body
	turns chan struct{} // of an agent: where to wait for a turn when its body is there
	turn  bool          // it has one
}

func (c *call) ctx() context.Context { return registry.By(c.r.Context(), c.by()) }

// patient gives a request for n nodes the time that it may need, from now on, until the function that it gives is called.
func (c *call) patient(n int) context.CancelFunc {
	more, now := time.Duration(n)*nodeTime, time.Now()
	c.ctl.SetReadDeadline(now.Add(requestTime + more)) // else a read in the background would end the request
	c.ctl.SetWriteDeadline(now.Add(answerTime + more))
	ctx, cancel := context.WithTimeout(c.whole, requestTime+more)
	c.r = c.r.WithContext(ctx)
	return cancel
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := r.URL.EscapedPath(); path.Clean(p) != p { // the mux would redirect, which nobody here follows
		a.refuse(w, r, problem(404, proto.CodeNotFound, "paths have no double or trailing slashes and no dots", "there is no %s", proto.Clip(p, 200)))
		return
	}
	a.mux.ServeHTTP(w, r)
}

// handler does what every route needs: limits, deadlines, credentials, and the one place where errors become answers.
func (a *API) handler(route Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{w: w, r: r, whole: r.Context(), ctl: http.NewResponseController(w), limit: route.limit}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				a.refuse(w, r, fmt.Errorf("the handler of %s %s panicked: %v", route.Method, route.Pattern, p))
			}
		}()
		now := time.Now()
		c.ctl.SetReadDeadline(now.Add(requestTime)) // an error means a server without deadlines, as in a test
		c.ctl.SetWriteDeadline(now.Add(answerTime))
		if route.Pattern != "/v1/events" && route.Pattern != backupPattern {
			ctx, cancel := context.WithTimeout(r.Context(), requestTime)
			defer cancel()
			c.r = r.WithContext(ctx)
		}
		var z *compressed
		if encoding := encodingFor(route, r); encoding != "" {
			z = &compressed{ResponseWriter: w, pool: &a.compressors, encoding: encoding}
			c.w = z
		}
		if err := a.serve(route, c); err != nil {
			a.refuse(w, c.r, err)
		} else if z != nil {
			z.finish()
		}
	})
}

func (a *API) serve(route Route, c *call) error {
	var err error
	if c.who, err = a.identify(c.r); err != nil && route.Scope != auth.ScopePublic {
		return err
	}
	if err := c.who.may(route.Scope); err != nil {
		return err
	}
	if route.Scope == auth.ScopeAgent || route.Scope == auth.ScopeJoin {
		if err := a.bounded(c); err != nil {
			return err
		}
		c.turns = a.inHand
		defer c.done()
	}
	if route.limit > 0 {
		n := c.r.ContentLength
		if n < 0 || n > route.limit {
			n = route.limit
		}
		if a.inFlight.Add(n) > maxInFlight {
			a.inFlight.Add(-n)
			return problem(503, proto.CodeBusy, "come again after Retry-After", "the collector has too much in hand")
		}
		defer a.inFlight.Add(-n)
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, route.limit)
	return route.handle(a, c)
}

// unknown answers what no route takes.
func (a *API) unknown(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := a.mux.Handler(probe); pattern != "/" && pattern != "" {
			allow = append(allow, m)
		}
	}
	if len(allow) == 0 {
		a.refuse(w, r, problem(404, proto.CodeNotFound, "proto/openapi.yaml lists every route", "there is no %s", proto.Clip(r.URL.Path, 200)))
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	a.refuse(w, r, problem(405, proto.CodeBadMethod, "use "+strings.Join(allow, " or "), "%s does not go with %s", proto.Clip(r.Method, 20), proto.Clip(r.URL.Path, 200)))
}
