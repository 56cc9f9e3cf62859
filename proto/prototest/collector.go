// SPDX-License-Identifier: Apache-2.0

// Package prototest is the agent's collector in tests: a fake that speaks the agent's protocol over real HTTP and TLS,
// keeps everything in memory, and goes wrong on demand; and a suite of protocol cases (Run) that the fake and the
// real collector must both pass.
//
// It must never learn what the agent or the collector do beyond the protocol, and it imports neither.
package prototest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/proto"
)

// Script is one step of an install's plan with the bytes of its script.
type Script struct {
	Step proto.Step
	Body string
}

// Collector is the fake. Its methods may be called from several goroutines.
type Collector struct {
	Authority *Authority
	JoinKey   string

	t    testing.TB
	addr string

	mu       sync.Mutex
	srv      *httptest.Server
	cert     tls.Certificate
	nodes    map[string]*node
	installs map[string]*install
	tokens   map[string]string // token → install
	files    map[string][]byte
	fault    func(*http.Request) Fault
	requests []string
	ordinal  uint64
	ahead    time.Duration // of its clock
}

type node struct {
	spec    proto.NodeSpec
	install string            // the one that is ordered; empty if none
	changes map[string]string // what its on-change steps with effects outside of its root last did
}

type install struct {
	id, node, claim string
	ordinal         uint64
	bound           string // kernel boot id
	contested       bool
	plan            *proto.SignedPlan
	digests         []string
	action          proto.BootAction
	next            map[string]uint64 // of each journal
	events          []proto.Event
	beats           []proto.Heartbeat
	hellos          []proto.Hello
	orders          []proto.Order
	logs            map[string][]byte
	reboots         int    // announced
	run             []byte // PROVOST_RUN, as the last of them brought it
}

// New starts a fake collector on a free port of a local address that nobody else listens at: a port that it has left (Stop) is not
// another test's then. It ends with the test.
func New(t testing.TB) *Collector {
	t.Helper()
	c := NewHandler(t)
	c.Start()
	t.Cleanup(c.Stop)
	return c
}

// NewHandler makes a fake collector that listens nowhere: ServeHTTP is all of it, and so it may live in a bubble of synctest.
func NewHandler(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{
		Authority: NewAuthority(t), JoinKey: proto.NewSecret(), t: t, addr: ownAddress(),
		nodes: map[string]*node{}, installs: map[string]*install{}, tokens: map[string]string{}, files: map[string][]byte{},
	}
	c.cert = c.Authority.server
	return c
}

// ownAddress is one of the loopback's 16 million addresses (RFC 1122, 3.2.1.3), with any port.
func ownAddress() string {
	return fmt.Sprintf("127.%d.%d.%d:0", 1+rand.N(254), rand.N(256), 1+rand.N(254))
}

// Start begins to listen; after a Stop on the same port as before, with everything that it knew.
func (c *Collector) Start() {
	l, err := net.Listen("tcp", c.addr)
	for i := 0; err != nil && i < 600; i++ { // 60 s: the port may linger
		time.Sleep(100 * time.Millisecond)
		l, err = net.Listen("tcp", c.addr)
	}
	if err != nil {
		c.t.Errorf("starting the fake collector: %v", err)
		return
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: c, ErrorLog: log.New(io.Discard, "", 0)}}
	srv.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return &c.cert, nil
	}}
	srv.StartTLS()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr = l.Addr().String()
	c.srv = srv
}

// Stop refuses every connection from now on and cuts those that there are.
func (c *Collector) Stop() {
	c.mu.Lock()
	srv := c.srv
	c.srv = nil
	c.mu.Unlock()
	if srv != nil {
		srv.Listener.Close()
		srv.CloseClientConnections()
		srv.Close()
	}
}

// URL is where it listens, in the form of provost.url.
func (c *Collector) URL() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return "https://" + c.addr
}

// Client is an HTTP client that trusts the fake.
func (c *Collector) Client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(c.Authority.cert)
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: pool, ServerName: proto.ServerName, Time: func() time.Time { return c.Authority.cert.NotBefore },
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// SetFault sets what happens to each request from now on; nil ends it. The hook runs on the request's goroutine.
func (c *Collector) SetFault(f func(*http.Request) Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// SetCertificate makes the collector show another certificate to those who connect from now on.
func (c *Collector) SetCertificate(cert tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert = cert
}

// Define adds a node.
func (c *Collector) Define(spec proto.NodeSpec) {
	c.t.Helper()
	if err := spec.Check(); err != nil {
		c.t.Fatalf("defining a node: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[spec.Name] = &node{spec: spec, changes: map[string]string{}}
}

// Install orders a node's install with a plan of these steps, superseding an earlier one, and gives its id and claim.
func (c *Collector) Install(name string, scripts []Script) (id, claim string) {
	c.t.Helper()
	return c.InstallPlan(name, scripts, nil)
}

// InstallPlan is Install with a chance to alter the plan before it is signed.
func (c *Collector) InstallPlan(name string, scripts []Script, alter func(*proto.Plan)) (id, claim string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[name]
	if n == nil {
		c.t.Fatalf("installing %s: no such node", name)
	}
	c.ordinal++
	in := &install{
		id: proto.NewID(time.Now()), node: name, claim: proto.NewSecret(), ordinal: c.ordinal, action: proto.BootInstall,
		next: map[string]uint64{}, logs: map[string][]byte{},
	}
	c.setPlan(in, 1, scripts, alter)
	c.installs[in.id] = in
	n.install = in.id
	return in.id, in.claim
}

// setPlan needs the lock.
func (c *Collector) setPlan(in *install, revision int, scripts []Script, alter func(*proto.Plan)) {
	now := c.now()
	p := &proto.Plan{
		Schema: proto.Schema, Node: in.node, Install: in.id, Revision: revision, Issued: now, Expires: now.Add(proto.PlanLife),
		Profile: "test", OnFailure: proto.OnFailureExit, HoldLimit: proto.Duration(proto.DefaultHoldLimit), SealWait: proto.Duration(2 * time.Minute),
	}
	for _, s := range scripts {
		st := s.Step
		st.Digest, st.Size = proto.Digest([]byte(s.Body)), int64(len(s.Body))
		c.files[st.Digest] = []byte(s.Body)
		in.digests = append(in.digests, st.Digest)
		p.Steps = append(p.Steps, st)
	}
	if alter != nil {
		alter(p)
	}
	in.plan = c.Authority.Sign(c.t, p)
}

// SetClock puts the collector's clock ahead of the machine's, or behind it.
func (c *Collector) SetClock(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = ahead
}

func (c *Collector) now() time.Time { return time.Now().UTC().Add(c.ahead) }

// Forget loses the last n events of an install, as a collector that was put back to a backup. It wants them again.
func (c *Collector) Forget(id string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.installs[id]
	for ; n > 0 && len(in.events) > 0; n-- {
		last := in.events[len(in.events)-1]
		in.events = in.events[:len(in.events)-1]
		in.next[last.Journal] = last.Seq
	}
}

// End takes a node's order back: it is installed, or was given up.
func (c *Collector) End(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[name].install = ""
}

// SetPlan replaces the signed plan that hello gives out, as it is: for plans that must be refused.
func (c *Collector) SetPlan(id string, p *proto.SignedPlan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.installs[id].plan = p
}

// SetFile replaces what is served under a digest.
func (c *Collector) SetFile(digest string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[digest] = body
}

// Plan is the signed plan of an install.
func (c *Collector) Plan(id string) *proto.SignedPlan {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.installs[id].plan
}

// Token makes a token of an install, as a hello from boot would have got it.
func (c *Collector) Token(id, boot string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := proto.NewSecret()
	c.tokens[t] = id
	c.installs[id].bound = boot
	return t
}

// Order gives an install an order, which each heartbeat's answer carries until the journal acknowledges it. With
// scripts it brings a new plan made of them.
func (c *Collector) Order(id string, verb proto.Verb, step string, scripts []Script) proto.Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.installs[id]
	o := proto.Order{ID: proto.NewID(time.Now()), Verb: verb, Step: step, Actor: "test", Reason: "because"}
	if scripts != nil {
		c.setPlan(in, 2, scripts, nil)
		o.Plan = in.plan
	}
	in.orders = append(in.orders, o)
	return o
}

// Events lists the agent's events of an install, in the order in which they were taken.
func (c *Collector) Events(id string) []proto.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.installs[id].events)
}

// Log is what came of a log.
func (c *Collector) Log(id, name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.installs[id].logs[name])
}

// Logs lists the names of an install's logs, sorted.
func (c *Collector) Logs(id string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.installs[id].logs))
}

// Heartbeats lists the heartbeats of an install.
func (c *Collector) Heartbeats(id string) []proto.Heartbeat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.installs[id].beats)
}

// Hellos lists the hellos of an install that were answered well.
func (c *Collector) Hellos(id string) []proto.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.installs[id].hellos)
}

// Contested reports whether a second machine showed the install's claim.
func (c *Collector) Contested(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.installs[id].contested
}

// Requests lists every request that got as far as HTTP, as "METHOD /path".
func (c *Collector) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// WaitEvents waits until the install has an event that is wanted, at most for the time given, and returns all.
func (c *Collector) WaitEvents(id string, limit time.Duration, want func(proto.Event) bool) []proto.Event {
	c.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		events := c.Events(id)
		if slices.ContainsFunc(events, want) {
			return events
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the event did not come in %s; there are:\n%s", limit, Describe(events))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Describe writes events one per line, for messages of failed tests.
func Describe(events []proto.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%4d %-11s", e.Seq, e.Kind)
		for _, s := range []string{string(e.Phase), e.Step, e.Stage, string(e.Outcome), string(e.Cause), e.Message} {
			if s != "" {
				fmt.Fprintf(&b, " %s", s)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
