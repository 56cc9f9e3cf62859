// SPDX-License-Identifier: Apache-2.0

package agentsuite

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// fault is one way in which the collector, or the network before it, goes wrong.
type fault struct {
	name    string
	prepare func(*trial)                       // before the agent starts
	answer  func(*trial, *http.Request) answer // to each request; nil for a fault of another kind
	network func(*trial) (lift func())         // instead
	check   func(*trial)                       // at the end
	late    bool                               // only after the plan is there
	never   bool                               // also for ever, before the plan is there
	sample  bool                               // that without SoakEnv, too
}

type answer = prototest.Fault

// begin lets the fault happen until lift is called.
func (f fault) begin(s *trial) (lift func()) {
	switch {
	case f.network != nil:
		return f.network(s)
	case f.answer == nil:
		return func() {}
	}
	s.met.set(0)
	s.c.SetFault(func(r *http.Request) answer {
		a := f.answer(s, r)
		if a.Kind != prototest.FaultNone {
			s.met.add()
		}
		return a
	})
	return func() {
		s.c.SetFault(nil)
		s.c.Stop() // what hangs, hangs no longer
		s.c.Start()
	}
}

// counter may be used by several goroutines.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add()      { c.mu.Lock(); c.n++; c.mu.Unlock() }
func (c *counter) set(n int) { c.mu.Lock(); c.n = n; c.mu.Unlock() }
func (c *counter) get() int  { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

// always answers every request in the same way.
func always(a answer) func(*trial, *http.Request) answer {
	return func(*trial, *http.Request) answer { return a }
}

// refused is a refusal as the protocol has it.
func refused(status int, code string) func(*trial, *http.Request) answer {
	b, err := json.Marshal(proto.NewProblem(status, code, "as the test wants", "wait for the test to end"))
	if err != nil {
		panic(err)
	}
	return always(answer{Kind: prototest.FaultStatus, Status: status, Body: string(b)})
}

// wait is 429 or 503 with a Retry-After.
func wait(status int, after string) func(*trial, *http.Request) answer {
	return always(answer{Kind: prototest.FaultStatus, Status: status, RetryText: after})
}

// once answers the first request of a method so, and no other.
func once(method string, a answer) func(*trial, *http.Request) answer {
	return func(s *trial, r *http.Request) answer {
		if r.Method == method && s.met.get() == 0 {
			return a
		}
		return answer{}
	}
}

// faults are all that are tried. Retry-After counts up to 5 minutes, so that a billion of seconds is tried only where the
// suite need not wait for it.
var faults = []fault{
	{name: "none", late: true},
	{name: "connection refused", network: down, never: true, sample: true},
	{name: "accepts and is silent", network: silent, never: true, sample: true},
	{name: "never answers", answer: always(answer{Kind: prototest.FaultHang, Delay: 5 * time.Minute}), never: true},
	{name: "reset", answer: always(answer{Kind: prototest.FaultReset}), never: true},
	{name: "answer lost", answer: always(answer{Kind: prototest.FaultLost})},
	{name: "closes half-way", answer: always(answer{Kind: prototest.FaultHalf})},
	{name: "drips", answer: always(answer{Kind: prototest.FaultSlow, Delay: 500 * time.Millisecond})},
	{name: "endless", answer: always(answer{Kind: prototest.FaultEndless}), never: true},
	{name: "redirects", prepare: elsewhere, answer: func(s *trial, _ *http.Request) answer {
		return answer{Kind: prototest.FaultRedirect, Body: s.read("elsewhere")}
	}, check: func(s *trial) {
		if s.read("followed") != "" {
			s.Errorf("a redirect was followed: %s", s.read("followed"))
		}
	}, never: true},
	{name: "garbage", answer: always(answer{Kind: prototest.FaultGarbage}), never: true},
	{name: "a login page", answer: always(answer{Kind: prototest.FaultHTML}), never: true},
	{name: "empty 200", answer: always(answer{Kind: prototest.FaultEmpty}), never: true, sample: true},
	{name: "no content type", answer: always(answer{Kind: prototest.FaultUntyped})},
	{name: "wants an older record", answer: always(answer{Kind: prototest.FaultRewind}), never: true},
	{name: "400", answer: refused(400, proto.CodeBadRequest), never: true},
	{name: "401", answer: refused(401, proto.CodeBadCredentials), never: true, sample: true},
	{name: "403", answer: refused(403, proto.CodeForbidden), never: true},
	{name: "404", answer: always(answer{Kind: prototest.FaultStatus, Status: 404, Body: "not found"}), never: true},
	{name: "409", answer: refused(409, proto.CodeConflict), never: true},
	{name: "413", answer: refused(413, proto.CodeTooLarge), never: true},
	{name: "500", answer: always(answer{Kind: prototest.FaultStatus, Status: 500}), never: true},
	{name: "429 without a word", answer: wait(429, ""), never: true},
	{name: "429, a billion seconds", answer: wait(429, "1000000000"), late: true, never: true},
	{name: "503, minus one second", answer: wait(503, "-1"), never: true},
	{name: "503, a billion seconds", answer: wait(503, "1000000000"), late: true, never: true},
	{name: "503, a date in the past", answer: wait(503, "Sun, 06 Nov 1994 08:49:37 GMT"), never: true},
	{name: "503, garbage", answer: wait(503, "soon"), never: true, sample: true},
	{name: "one 503 to a log", answer: once("PUT", answer{Kind: prototest.FaultStatus, Status: 503}), late: true},
	{name: "the collector's clock decades behind", prepare: func(s *trial) { s.c.SetClock(-40 * 365 * 24 * time.Hour) }},
	{name: "the collector's clock decades ahead", prepare: func(s *trial) { s.c.SetClock(40 * 365 * 24 * time.Hour) }},
	{name: "a certificate of the future", prepare: func(s *trial) { s.c.SetCertificate(certificate(s, time.Now().AddDate(30, 0, 0))) }},
	{name: "an expired certificate", prepare: func(s *trial) { s.c.SetCertificate(certificate(s, time.Now().AddDate(-30, 0, 0))) }},
	{name: "first address of another CA", prepare: impostor, check: func(s *trial) {
		if got := s.read("told"); got != "" {
			s.Errorf("a collector of another CA was told %s", got)
		}
	}},
	{name: "first address dead", prepare: func(s *trial) { s.urls = append([]string{"https://127.0.0.1:1"}, s.urls...) }},
	{name: "first address silent", prepare: func(s *trial) {
		l := listen(s, "127.0.0.1:0")
		s.Cleanup(mute(l))
		s.urls = append([]string{"https://" + l.Addr().String()}, s.urls...)
	}},
	{name: "a restart that forgets the last batch", network: forgets, late: true},
}

// down stops the collector.
func down(s *trial) func() {
	s.c.Stop()
	return s.c.Start
}

// silent puts a server in the collector's place that takes connections and says nothing.
func silent(s *trial) func() {
	u, err := url.Parse(s.c.URL())
	if err != nil {
		s.Fatal(err)
	}
	s.c.Stop()
	hush := mute(listen(s, u.Host))
	return func() { hush(); s.c.Start() }
}

func listen(s *trial, addr string) net.Listener {
	s.Helper()
	l, err := net.Listen("tcp", addr)
	for i := 0; err != nil && i < 600; i++ { // 60 s: the port may linger
		time.Sleep(100 * time.Millisecond)
		l, err = net.Listen("tcp", addr)
	}
	if err != nil {
		s.Fatal(err)
	}
	return l
}

// mute accepts connections and does nothing with them until the function that it gives is called.
func mute(l net.Listener) (end func()) {
	done := make(chan []net.Conn)
	go func() {
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				done <- all
				return
			}
			all = append(all, c)
		}
	}()
	return sync.OnceFunc(func() {
		l.Close()
		for _, c := range <-done {
			c.Close()
		}
	})
}

// elsewhere is where redirects lead: a good server, whose requests are written down.
func elsewhere(s *trial) {
	other := prototest.New(s.T)
	other.SetFault(func(r *http.Request) answer {
		s.write("followed", r.Method+" "+r.URL.Path)
		return answer{}
	})
	other.SetCertificate(s.c.Authority.Server(s.T, proto.ServerName)) // it could be trusted
	s.write("elsewhere", other.URL()+"/")
}

// impostor puts a server before the collector whose certificate another CA has signed.
func impostor(s *trial) {
	other := prototest.New(s.T)
	other.SetFault(func(r *http.Request) answer {
		s.write("told", r.Method+" "+r.URL.Path)
		return answer{}
	})
	s.urls = append([]string{other.URL()}, s.urls...)
}

// certificate is the collector's own with other dates.
func certificate(s *trial, from time.Time) tls.Certificate {
	s.Helper()
	der, key := s.c.Authority.Issue(s.T, &x509.Certificate{
		SerialNumber: big.NewInt(from.Unix()), Subject: pkix.Name{CommonName: proto.ServerName}, DNSNames: []string{proto.ServerName},
		NotBefore: from, NotAfter: from.AddDate(1, 0, 0), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return tls.Certificate{Certificate: [][]byte{der, s.c.Authority.CertDER}, PrivateKey: key}
}

// forgets restarts the collector again and again without the last events that it had acknowledged.
func forgets(s *trial) func() {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(300 * time.Millisecond):
			}
			s.c.Stop()
			s.c.Forget(s.id, 5)
			s.c.Start()
		}
	}()
	return func() { close(end); <-ended }
}
