// SPDX-License-Identifier: Apache-2.0

package prototest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"provost/proto"
)

// heartbeatS is the pace that the fake asks for: faster than a real collector's, since tests wait for it.
const heartbeatS = 1

// ServeHTTP answers a request, or does what the fault says.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests = append(c.requests, r.Method+" "+r.URL.Path)
	hook := c.fault
	c.mu.Unlock()
	var f Fault
	if hook != nil {
		f = hook(r)
	}
	f.apply(w, r, http.HandlerFunc(c.route))
}

func (c *Collector) route(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/agent/hello", answer(c.hello))
	mux.HandleFunc("POST /v1/agent/events", answer(c.events))
	mux.HandleFunc("POST /v1/agent/heartbeat", answer(c.heartbeat))
	mux.HandleFunc("PUT /v1/agent/logs/{install}/{name}", answer(c.log))
	mux.HandleFunc("GET /v1/agent/files/{sha256}", answer(c.file))
	mux.ServeHTTP(w, r)
}

// answer makes a handler of a function that gives the JSON to send, raw bytes, or a *proto.Problem.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if p, ok := err.(*proto.Problem); ok {
			w.Header().Set("Content-Type", proto.ProblemType)
			w.WriteHeader(p.Status)
			json.NewEncoder(w).Encode(p)
			return
		}
		if b, ok := v.([]byte); ok {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Write(b)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

func problem(status int, code, format string, args ...any) *proto.Problem {
	return proto.NewProblem(status, code, fmt.Sprintf(format, args...), "")
}

func decode(r *http.Request, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, proto.MaxBody))
	if err != nil {
		return problem(413, proto.CodeTooLarge, "reading the body: %v", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return problem(400, proto.CodeBadRequest, "reading the body: %v", err)
	}
	return nil
}

// bearer finds the install of the request's token; it needs the lock.
func (c *Collector) bearer(r *http.Request) (*install, error) {
	h := r.Header.Get("Authorization")
	if h == "" {
		return nil, problem(401, proto.CodeNoCredentials, "no token")
	}
	token, _ := strings.CutPrefix(h, "Bearer ")
	in := c.installs[c.tokens[token]]
	if in == nil {
		return nil, problem(401, proto.CodeBadCredentials, "the token is unknown")
	}
	return in, nil
}

func (c *Collector) hello(r *http.Request) (any, error) {
	var h proto.Hello
	if err := decode(r, &h); err != nil {
		return nil, err
	}
	if err := h.Check(); err != nil {
		return nil, problem(400, proto.CodeBadRequest, "%v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in, fresh, err := c.identify(r, &h)
	if err != nil {
		return nil, err
	}
	in.hellos = append(in.hellos, h)
	a := proto.HelloAnswer{
		Schema: proto.Schema, Node: in.node, Install: in.id, Ordinal: in.ordinal, Attempt: 1, Plan: in.plan, BootAction: in.action,
		Next: in.wants(h.Journal), Time: c.now(), HeartbeatS: heartbeatS,
	}
	if h.Env == proto.EnvInstaller {
		a.Progress = in.progress(h.Clock.Boot)
	}
	a.Changes = &proto.Changes{Key: []byte(changeKey), Done: maps.Clone(c.nodes[in.node].changes)}
	if fresh {
		a.Token = proto.NewSecret()
		c.tokens[a.Token] = in.id
	}
	return a, nil
}

// identify finds the install that a hello proves to be of, and whether it gets a fresh token.
func (c *Collector) identify(r *http.Request, h *proto.Hello) (in *install, fresh bool, err error) {
	switch {
	case r.Header.Get("Authorization") != "":
		in, err = c.bearer(r)
		return in, false, err
	case h.Claim != "":
		for _, i := range c.installs {
			if i.claim == h.Claim {
				in = i
			}
		}
		if in == nil {
			return nil, false, problem(401, proto.CodeBadCredentials, "the claim is unknown")
		}
		if c.nodes[in.node].install != in.id {
			return nil, false, problem(409, proto.CodeNotOrdered, "install %s of %s is over", in.id, in.node)
		}
	case h.JoinKey != "":
		if h.JoinKey != c.JoinKey {
			return nil, false, problem(401, proto.CodeBadCredentials, "the join key is unknown")
		}
		for _, n := range c.nodes {
			if slices.ContainsFunc(n.spec.MACs, func(m string) bool { return slices.Contains(h.MACs, m) }) {
				if in = c.installs[n.install]; in == nil {
					return nil, false, problem(409, proto.CodeNotOrdered, "no install of %s is ordered", n.spec.Name)
				}
			}
		}
		if in == nil {
			return nil, false, problem(409, proto.CodeUnknownNode, "no node has one of these MAC addresses")
		}
	default:
		return nil, false, problem(401, proto.CodeNoCredentials, "a hello needs a token, a claim or a join key")
	}
	if in.bound != "" && in.bound != h.Clock.Boot {
		in.contested = true
		return nil, false, problem(409, proto.CodeContested, "the claim of %s belongs to another boot", in.id)
	}
	in.bound = h.Clock.Boot
	return in, true, nil
}

func (in *install) wants(journal string) uint64 { return max(in.next[journal], 1) }

func (c *Collector) events(r *http.Request) (any, error) {
	var q proto.EventsRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in, err := c.bearer(r)
	switch {
	case err != nil:
		return nil, err
	case q.Install != in.id:
		return nil, problem(401, proto.CodeBadCredentials, "the token is of install %s", in.id)
	case !proto.ValidJournal(q.Journal) || !proto.ValidBoot(q.Clock.Boot):
		return nil, problem(400, proto.CodeBadRequest, "journal or clock.boot is malformed")
	case len(q.Events) > proto.MaxEvents:
		return nil, problem(413, proto.CodeTooLarge, "%d events, at most %d", len(q.Events), proto.MaxEvents)
	}
	a := proto.EventsAnswer{Next: in.wants(q.Journal)}
	for _, raw := range q.Events {
		var e proto.Event
		bad := json.Unmarshal(raw, &e)
		if bad != nil && e.Seq == 0 {
			e.Seq = a.Next // it stands where the next one is wanted: nobody can say better
		}
		if e.Seq < a.Next {
			continue
		}
		if e.Seq > a.Next {
			break
		}
		if bad == nil {
			bad = e.CheckAgent()
		}
		if bad == nil && len(raw) > proto.MaxEventSize {
			bad = fmt.Errorf("event of %d bytes", len(raw))
		}
		if bad != nil {
			a.Refused = append(a.Refused, proto.Refusal{Seq: e.Seq, Code: proto.CodeBadRequest, Detail: bad.Error()})
		} else {
			e.Source, e.Install, e.Journal, e.Node = proto.SourceAgent, in.id, q.Journal, in.node
			in.events = append(in.events, e)
			in.carry(e)
			in.rebooted(e, q.Run)
			c.nodes[in.node].remember(e)
		}
		a.Next++
	}
	in.next[q.Journal] = a.Next
	a.BootAction = in.action
	return a, nil
}

// changeKey is the key of the fake's proto.Changes.
const changeKey = "0123456789abcdef0123456789abcdef"

// remember keeps by what an on-change step was last done well; it is forgotten when the step starts.
func (n *node) remember(e proto.Event) {
	k := proto.ChangeKey(e.Phase, e.Step)
	switch {
	case e.Kind == proto.KindStepStart:
		delete(n.changes, k)
	case e.Kind == proto.KindStepEnd && e.Outcome == proto.OutcomeOK && e.Change != "":
		n.changes[k] = e.Change
	}
}

func (in *install) carry(e proto.Event) {
	switch {
	case e.Kind == proto.KindSealed, e.Then == proto.BootDisk:
		in.action = proto.BootDisk
	case e.Kind == proto.KindOrder:
		in.orders = slices.DeleteFunc(in.orders, func(o proto.Order) bool { return o.ID == e.OrderID })
	}
}

func (c *Collector) heartbeat(r *http.Request) (any, error) {
	var h proto.Heartbeat
	if err := decode(r, &h); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in, err := c.bearer(r)
	if err != nil {
		return nil, err
	}
	if h.Install != in.id {
		return nil, problem(401, proto.CodeBadCredentials, "the token is of install %s", in.id)
	}
	in.beats = append(in.beats, h)
	a := proto.HeartbeatAnswer{Orders: slices.Clone(in.orders), BootAction: in.action, HeartbeatS: heartbeatS}
	return a, nil
}

func (c *Collector) log(r *http.Request) (any, error) {
	c.mu.Lock()
	in, err := c.bearer(r)
	c.mu.Unlock()
	name := r.PathValue("name")
	switch {
	case err != nil:
		return nil, err
	case r.PathValue("install") != in.id:
		return nil, problem(401, proto.CodeBadCredentials, "the token is of install %s", in.id)
	case proto.CheckName("log", name) != nil:
		return nil, problem(400, proto.CodeBadRequest, "bad name of a log")
	}
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		return nil, problem(400, proto.CodeBadRequest, "offset: a number of bytes")
	}
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, proto.MaxLogChunk))
	if err != nil {
		return nil, problem(413, proto.CodeTooLarge, "reading the chunk: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := int64(len(in.logs[name])); offset != have {
		p := problem(409, proto.CodeLogOffset, "%s is %d bytes long here", name, have)
		p.Offset = have
		return nil, p
	}
	in.logs[name] = append(in.logs[name], b...)
	return proto.LogAnswer{Offset: int64(len(in.logs[name]))}, nil
}

func (c *Collector) file(r *http.Request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in, err := c.bearer(r)
	if err != nil {
		return nil, err
	}
	d := r.PathValue("sha256")
	b, ok := c.files[d]
	if !ok || !slices.Contains(in.digests, d) {
		return nil, problem(404, proto.CodeNotFound, "no such file")
	}
	return b, nil
}
