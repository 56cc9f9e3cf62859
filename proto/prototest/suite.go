// SPDX-License-Identifier: Apache-2.0

package prototest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/proto"
)

// Target is a collector under the suite. Its functions do what an operator does and fail the test themselves.
type Target struct {
	URL     string
	Client  *http.Client // trusts the collector, follows no redirect
	JoinKey string

	Define  func(proto.NodeSpec)
	Install func(node string, scripts []Script) (id, claim string)
	Command func(node string, verb proto.Verb, step string) // gives the node's install an order
	Events  func(node, id string) []proto.Event             // those of source agent, in order of their sequence
	Log     func(node, id, name string) []byte
}

// Run runs every case of the agent's protocol, each against a target of its own.
func Run(t *testing.T, target func(*testing.T) Target) {
	for _, c := range []struct {
		name string
		run  func(*session)
	}{
		{"hello with a claim", helloClaim},
		{"a claim is one boot's", contested},
		{"two machines race for a claim", race},
		{"hello with a join key", helloJoin},
		{"hello from the installed system", helloToken},
		{"credentials", credentials},
		{"events in order, once", eventsOnce},
		{"a bad event is refused alone", eventsRefused},
		{"two journals", twoJournals},
		{"a bad batch takes nothing", badBatch},
		{"a superseded install", superseded},
		{"logs by offset", logs},
		{"files by digest", files},
		{"orders", orders},
		{"an announced reboot", reboot},
		{"what on-change steps did", changes},
		{"sealed flips the boot action", sealed},
		{"so does a failure after which the disk boots", failedToDisk},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newSession(t, target(t))) })
	}
}

// Two boots of machines, as the kernel names them.
const (
	Boot1 = "11111111-1111-4111-8111-111111111111"
	Boot2 = "22222222-2222-4222-8222-222222222222"
)

const journal1 = "00000000000000a1"

// session is one node with one install, and what a client does with it.
type session struct {
	*testing.T
	Target
	node, id, claim, token string
	script                 Script
}

func newSession(t *testing.T, target Target) *session {
	s := &session{T: t, Target: target, node: "n1"}
	s.script = Script{proto.Step{Name: "one", Phase: proto.PhasePost}, "#!/bin/sh\necho one\n"}
	s.Define(proto.NodeSpec{Name: s.node, MACs: []string{"52:54:00:00:00:01"}})
	s.id, s.claim = s.Install(s.node, []Script{s.script})
	return s
}

// call sends v (raw when it is bytes) and decodes a 200 into out. It gives the status, and the problem of a refusal.
func (s *session) call(method, path, token string, v, out any) (int, proto.Problem) {
	s.Helper()
	body, ok := v.([]byte)
	if !ok && v != nil {
		body, _ = json.Marshal(v)
	}
	r, err := http.NewRequestWithContext(s.Context(), method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := s.Client.Do(r)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	var p proto.Problem
	switch raw, isRaw := out.(*[]byte); {
	case resp.StatusCode != http.StatusOK:
		if got := resp.Header.Get("Content-Type"); got != proto.ProblemType {
			s.Errorf("%s %s = %d with Content-Type %q, want %q", method, path, resp.StatusCode, got, proto.ProblemType)
		}
		if err := json.Unmarshal(b, &p); err != nil || !proto.KnownCode(p.Code) {
			s.Errorf("%s %s = %d with body %q, want a problem with a known code", method, path, resp.StatusCode, b)
		}
	case isRaw:
		*raw = b
	case out != nil:
		if err := json.Unmarshal(b, out); err != nil {
			s.Fatalf("%s %s: %v in %q", method, path, err, b)
		}
	}
	return resp.StatusCode, p
}

func (s *session) refused(status int, code string) func(int, proto.Problem) {
	s.Helper()
	return func(got int, p proto.Problem) {
		s.Helper()
		if got != status || p.Code != code {
			s.Errorf("answer = %d %s (%s), want %d %s", got, p.Code, p.Detail, status, code)
		}
	}
}

func (s *session) taken(got int, p proto.Problem) {
	s.Helper()
	if got != http.StatusOK {
		s.Fatalf("answer = %d %s (%s), want 200", got, p.Code, p.Detail)
	}
}

func (s *session) helloOf(boot string) proto.Hello {
	return proto.Hello{
		Schema: proto.Schema, Version: "test", Env: proto.EnvInstaller, Clock: clock(boot), Node: s.node, Install: s.id, Claim: s.claim,
		Journal: journal1,
	}
}

func clock(boot string) proto.Clock {
	return proto.Clock{Boot: boot, OffsetMS: 60_000, Time: time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC)}
}

// join says hello with the claim and keeps the token.
func (s *session) join() proto.HelloAnswer {
	s.Helper()
	var a proto.HelloAnswer
	s.taken(s.call("POST", "/v1/agent/hello", "", s.helloOf(Boot1), &a))
	if len(a.Token) < 32 {
		s.Fatalf("hello's token = %q, want at least 32 characters", a.Token)
	}
	s.token = a.Token
	return a
}

func event(seq uint64, kind proto.Kind, boot string) proto.Event {
	e := proto.Event{Kind: kind, Seq: seq, Time: clock(boot).Time, Boot: boot, OffsetMS: int64(seq)}
	if kind == proto.KindNote {
		e.Message = fmt.Sprintf("note %d", seq)
	}
	return e
}

func notes(from, to uint64) []proto.Event {
	var out []proto.Event
	for i := from; i <= to; i++ {
		out = append(out, event(i, proto.KindNote, Boot1))
	}
	return out
}

func (s *session) request(journal string, events ...proto.Event) proto.EventsRequest {
	q := proto.EventsRequest{Schema: proto.Schema, Install: s.id, Journal: journal, Clock: clock(Boot1)}
	for _, e := range events {
		raw, _ := json.Marshal(e)
		q.Events = append(q.Events, raw)
	}
	return q
}

// deliver sends events, wants them to be answered well, and gives the answer.
func (s *session) deliver(wantNext uint64, events ...proto.Event) proto.EventsAnswer {
	s.Helper()
	var a proto.EventsAnswer
	s.taken(s.call("POST", "/v1/agent/events", s.token, s.request(journal1, events...), &a))
	if a.Next != wantNext {
		s.Errorf("next = %d, want %d", a.Next, wantNext)
	}
	return a
}

func (s *session) wantSeqs(want ...uint64) {
	s.Helper()
	var got []uint64
	for _, e := range s.Events(s.node, s.id) {
		got = append(got, e.Seq)
	}
	if !slices.Equal(got, want) {
		s.Errorf("events taken = %v, want %v", got, want)
	}
}

func helloClaim(s *session) {
	a := s.join()
	if a.Node != s.node || a.Install != s.id || a.Ordinal == 0 || a.Next != 1 || a.BootAction != proto.BootInstall || a.HeartbeatS <= 0 {
		s.Errorf("hello = %+v, want node %s, install %s, an ordinal, next 1, boot action install", a, s.node, s.id)
	}
	if d := time.Since(a.Time); d < -time.Minute || d > time.Minute {
		s.Errorf("hello's time = %s, want the collector's", a.Time)
	}
	if a.Plan == nil {
		s.Fatal("hello has no plan")
	}
	p, err := proto.DecodePlan(a.Plan.Payload)
	if err != nil {
		s.Fatal(err)
	}
	if len(p.Steps) != 1 || p.Steps[0].Name != "one" || p.Steps[0].Digest != proto.Digest([]byte(s.script.Body)) || p.Install != s.id || p.Node != s.node {
		s.Errorf("plan = %+v, want step one of %s", p, s.id)
	}
	first := s.token
	s.join() // a repeat from the same boot: the answer may have been lost
	if s.token == "" {
		s.Errorf("the second hello of the same boot gave no token")
	}
	s.token = first
	s.deliver(1) // an empty batch asks what is wanted
}

func contested(s *session) {
	s.join()
	s.refused(409, proto.CodeContested)(s.call("POST", "/v1/agent/hello", "", s.helloOf(Boot2), nil))
	s.deliver(2, notes(1, 1)...) // the first machine goes on
}

func race(s *session) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	status := map[int]int{}
	for i := range 8 {
		wg.Go(func() {
			boot := strings.Replace(Boot1, "11111111", fmt.Sprintf("%08d", i), 1)
			got, _ := s.call("POST", "/v1/agent/hello", "", s.helloOf(boot), nil)
			mu.Lock()
			defer mu.Unlock()
			status[got]++
		})
	}
	wg.Wait()
	if status[200] != 1 || status[409] != 7 {
		s.Errorf("8 machines with one claim got %v, want one 200 and seven 409", status)
	}
}

func helloJoin(s *session) {
	h := proto.Hello{
		Schema: proto.Schema, Version: "test", Env: proto.EnvInstaller, Clock: clock(Boot1), JoinKey: s.JoinKey,
		MACs: []string{"02:00:00:00:00:99", "52-54-00-00-00-01"}, Journal: journal1,
	}
	var a proto.HelloAnswer
	s.taken(s.call("POST", "/v1/agent/hello", "", h, &a))
	if a.Node != s.node || a.Install != s.id || a.Token == "" || a.Plan == nil {
		s.Errorf("hello with a join key = %+v, want node %s, a token and a plan", a, s.node)
	}
	other := h
	other.JoinKey = proto.NewSecret()
	s.refused(401, proto.CodeBadCredentials)(s.call("POST", "/v1/agent/hello", "", other, nil))
	other = h
	other.MACs = []string{"52:54:00:00:00:77"}
	s.refused(409, proto.CodeUnknownNode)(s.call("POST", "/v1/agent/hello", "", other, nil))
	s.Define(proto.NodeSpec{Name: "n2", MACs: []string{"52:54:00:00:00:02"}})
	other.MACs = []string{"52:54:00:00:00:02"}
	s.refused(409, proto.CodeNotOrdered)(s.call("POST", "/v1/agent/hello", "", other, nil))
}

func helloToken(s *session) {
	s.join()
	s.deliver(4, notes(1, 3)...)
	h := s.helloOf(Boot2)
	h.Env, h.Claim = proto.EnvInstalled, ""
	var a proto.HelloAnswer
	s.taken(s.call("POST", "/v1/agent/hello", s.token, h, &a))
	if a.Install != s.id || a.Next != 4 || a.Token != "" {
		s.Errorf("hello with a token = %+v, want install %s, next 4 and no token", a, s.id)
	}
	s.deliver(5, event(4, proto.KindNote, Boot2))
}

func credentials(s *session) {
	s.join()
	s.Define(proto.NodeSpec{Name: "n2", MACs: []string{"52:54:00:00:00:02"}})
	otherID, _ := s.Install("n2", []Script{s.script})
	mine, theirs := s.request(journal1, notes(1, 1)...), s.request(journal1, notes(1, 1)...)
	theirs.Install = otherID
	beat := proto.Heartbeat{Schema: proto.Schema, Install: otherID, Clock: clock(Boot1)}
	file := "/v1/agent/files/" + proto.Digest([]byte(s.script.Body))
	for _, token := range []string{"", "x", proto.NewSecret(), s.claim, s.JoinKey} {
		code := proto.CodeBadCredentials
		if token == "" {
			code = proto.CodeNoCredentials
		}
		no := s.refused(401, code)
		no(s.call("POST", "/v1/agent/events", token, mine, nil))
		no(s.call("POST", "/v1/agent/heartbeat", token, beat, nil))
		no(s.call("PUT", "/v1/agent/logs/"+s.id+"/a.log?offset=0", token, []byte("x"), nil))
		no(s.call("GET", file, token, nil, nil))
	}
	no := s.refused(401, proto.CodeBadCredentials) // another install's token is no token
	no(s.call("POST", "/v1/agent/events", s.token, theirs, nil))
	no(s.call("POST", "/v1/agent/heartbeat", s.token, beat, nil))
	no(s.call("PUT", "/v1/agent/logs/"+otherID+"/a.log?offset=0", s.token, []byte("x"), nil))
	h := s.helloOf(Boot1)
	h.Claim = proto.NewSecret()
	s.refused(401, proto.CodeBadCredentials)(s.call("POST", "/v1/agent/hello", "", h, nil))
	h.Claim = ""
	s.refused(401, proto.CodeNoCredentials)(s.call("POST", "/v1/agent/hello", "", h, nil))
	h.Clock.Boot = "x"
	s.refused(400, proto.CodeBadRequest)(s.call("POST", "/v1/agent/hello", s.token, h, nil))
	s.wantSeqs()
}

func eventsOnce(s *session) {
	s.join()
	s.deliver(1, notes(3, 4)...) // a gap: nothing of it is taken
	s.deliver(3, notes(1, 2)...)
	s.deliver(3, notes(1, 2)...) // a repeat
	s.deliver(6, notes(2, 5)...) // half a repeat
	s.deliver(7, event(6, proto.KindNote, Boot1), event(8, proto.KindNote, Boot1))
	s.wantSeqs(1, 2, 3, 4, 5, 6)
	for _, e := range s.Events(s.node, s.id) {
		if e.Message != fmt.Sprintf("note %d", e.Seq) || e.Journal != journal1 || e.Install != s.id || e.Source != proto.SourceAgent {
			s.Errorf("event %d = %+v, want its own message, journal and install", e.Seq, e)
		}
	}
}

func eventsRefused(s *session) {
	s.join()
	bad := event(2, proto.KindOrdered, Boot1) // only a collector may say so
	a := s.deliver(4, event(1, proto.KindNote, Boot1), bad, event(3, proto.KindNote, Boot1))
	if len(a.Refused) != 1 || a.Refused[0].Seq != 2 || a.Refused[0].Code == "" || a.Refused[0].Detail == "" {
		s.Errorf("refused = %+v, want number 2 with a reason", a.Refused)
	}
	q := s.request(journal1, notes(4, 5)...)
	q.Events[0] = json.RawMessage(`{"seq":4,"kind":7}`)
	s.taken(s.call("POST", "/v1/agent/events", s.token, q, &a))
	if a.Next != 6 || len(a.Refused) != 1 || a.Refused[0].Seq != 4 {
		s.Errorf("answer = %+v, want next 6 and number 4 refused", a)
	}
	s.wantSeqs(1, 3, 5)
}

func twoJournals(s *session) {
	s.join()
	s.deliver(3, notes(1, 2)...)
	var a proto.EventsAnswer
	s.taken(s.call("POST", "/v1/agent/events", s.token, s.request("00000000000000b2", notes(1, 1)...), &a))
	if a.Next != 2 {
		s.Errorf("next of the second journal = %d, want 2", a.Next)
	}
	s.deliver(3)
}

func badBatch(s *session) {
	s.join()
	no := s.refused(400, proto.CodeBadRequest)
	no(s.call("POST", "/v1/agent/events", s.token, []byte("{"), nil))
	no(s.call("POST", "/v1/agent/events", s.token, s.request("no journal", notes(1, 1)...), nil))
	big := s.request(journal1, notes(1, proto.MaxEvents+1)...)
	s.refused(413, proto.CodeTooLarge)(s.call("POST", "/v1/agent/events", s.token, big, nil))
	s.wantSeqs()
}

func superseded(s *session) {
	s.join()
	first, claim := s.id, s.claim
	second, _ := s.Install(s.node, []Script{s.script})
	s.deliver(2, notes(1, 1)...) // a late event is the old install's history
	if got := s.Events(s.node, second); len(got) != 0 {
		s.Errorf("the new install has events of the old one:\n%s", Describe(got))
	}
	s.wantSeqs(1)
	h := s.helloOf(Boot1)
	h.Claim, h.Install = claim, first
	s.refused(409, proto.CodeNotOrdered)(s.call("POST", "/v1/agent/hello", "", h, nil))
}

func logs(s *session) {
	s.join()
	at := func(offset int) string { return fmt.Sprintf("/v1/agent/logs/%s/one.log?offset=%d", s.id, offset) }
	var a proto.LogAnswer
	s.taken(s.call("PUT", at(0), s.token, []byte("first\n"), &a))
	s.taken(s.call("PUT", at(6), s.token, []byte("second\x00\xff\n"), &a))
	if a.Offset != 15 {
		s.Errorf("offset = %d, want 15", a.Offset)
	}
	for _, offset := range []int{0, 6, 16} {
		status, p := s.call("PUT", at(offset), s.token, []byte("again"), nil)
		s.refused(409, proto.CodeLogOffset)(status, p)
		if p.Offset != 15 {
			s.Errorf("refusal's offset = %d, want 15", p.Offset)
		}
	}
	if got, want := string(s.Log(s.node, s.id, "one.log")), "first\nsecond\x00\xff\n"; got != want {
		s.Errorf("log = %q, want %q", got, want)
	}
	s.refused(413, proto.CodeTooLarge)(s.call("PUT", at(15), s.token, make([]byte, proto.MaxLogChunk+1), nil))
	for _, name := range []string{"..%2f..%2fx", ".x", "a%20b"} {
		if status, _ := s.call("PUT", "/v1/agent/logs/"+s.id+"/"+name+"?offset=0", s.token, []byte("x"), nil); status < 400 || status > 499 {
			s.Errorf("log named %q = %d, want a refusal", name, status)
		}
	}
}

func files(s *session) {
	s.join()
	var got []byte
	s.taken(s.call("GET", "/v1/agent/files/"+proto.Digest([]byte(s.script.Body)), s.token, nil, &got))
	if string(got) != s.script.Body {
		s.Errorf("file = %q, want %q", got, s.script.Body)
	}
	s.Define(proto.NodeSpec{Name: "n2", MACs: []string{"52:54:00:00:00:02"}})
	other := Script{proto.Step{Name: "two", Phase: proto.PhasePost}, "#!/bin/sh\necho secret of n2\n"}
	s.Install("n2", []Script{other})
	for _, digest := range []string{proto.Digest([]byte(other.Body)), proto.Digest(nil), "x"} {
		if status, _ := s.call("GET", "/v1/agent/files/"+digest, s.token, nil, nil); status < 400 || status > 499 {
			s.Errorf("file %s = %d, want a refusal: it is not of this node's plan", digest, status)
		}
	}
}

func orders(s *session) {
	s.join()
	s.deliver(2, event(1, proto.KindAgentStart, Boot1))
	beat := func(waiting bool) proto.HeartbeatAnswer {
		var a proto.HeartbeatAnswer
		h := proto.Heartbeat{Schema: proto.Schema, Install: s.id, Clock: clock(Boot1), Phase: proto.PhasePost, Step: "one", Waiting: waiting}
		s.taken(s.call("POST", "/v1/agent/heartbeat", s.token, h, &a))
		return a
	}
	if a := beat(false); len(a.Orders) != 0 || a.HeartbeatS <= 0 {
		s.Errorf("heartbeat = %+v, want no order and a pace", a)
	}
	s.Command(s.node, proto.VerbHold, "")
	for range 2 { // until it is acknowledged
		if a := beat(true); len(a.Orders) != 1 || a.Orders[0].Verb != proto.VerbHold || !proto.ValidID(a.Orders[0].ID) {
			s.Fatalf("heartbeat's orders = %+v, want one hold with an id", a.Orders)
		}
	}
	done := event(2, proto.KindOrder, Boot1)
	done.Order, done.OrderID = string(proto.VerbHold), beat(true).Orders[0].ID
	s.deliver(3, done)
	if a := beat(false); len(a.Orders) != 0 {
		s.Errorf("orders after the acknowledgement = %+v, want none", a.Orders)
	}
}

func sealed(s *session) {
	s.join()
	a := s.deliver(3, event(1, proto.KindAgentStart, Boot1), event(2, proto.KindSealed, Boot1))
	if a.BootAction != proto.BootDisk {
		s.Errorf("boot action after sealed = %q, want disk", a.BootAction)
	}
}

func failedToDisk(s *session) {
	s.join()
	bad := event(2, proto.KindStage, Boot1)
	bad.Stage, bad.Then = "partitioned", proto.BootDisk // only a run-end may say so
	end := event(3, proto.KindRunEnd, Boot1)
	end.Phase, end.Outcome = proto.PhasePre, proto.OutcomeFailed
	if a := s.deliver(4, event(1, proto.KindAgentStart, Boot1), bad, end); len(a.Refused) != 1 || a.BootAction == proto.BootDisk {
		s.Errorf("refused = %+v, boot action after a failure = %q; want record 2, and not disk", a.Refused, a.BootAction)
	}
	end.Seq, end.Then = 4, proto.BootDisk
	if a := s.deliver(5, end); a.BootAction != proto.BootDisk {
		s.Errorf("boot action after a failure with on-failure: disk = %q, want disk", a.BootAction)
	}
}
