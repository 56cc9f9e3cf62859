// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/agent/internal/journal"
	"provost/agent/internal/report"
	"provost/proto"
	"provost/proto/prototest"
)

// fast is a pace for tests: everything that takes seconds in an install takes milliseconds.
var fast = report.Timing{Gap: time.Millisecond,
	Poll: 5 * time.Millisecond, Dial: 30 * time.Second, Request: 30 * time.Second, File: 30 * time.Second, Initial: time.Millisecond,
	Cap: 20 * time.Millisecond, Slow: 20 * time.Millisecond, Ask: 20 * time.Millisecond, Beat: 20 * time.Millisecond, Waiting: 10 * time.Millisecond,
}

// bench is a machine under test: a state directory with a journal, and what its sender said.
type bench struct {
	*testing.T
	c     *prototest.Collector
	dir   report.Dir
	j     *journal.Journal
	id    string
	boot  string
	claim string

	mu     sync.Mutex
	said   []string
	orders []proto.Order
}

var scripts = []prototest.Script{
	{Step: proto.Step{Name: "one", Phase: proto.PhasePre}, Body: "#!/bin/sh\necho one\n"},
	{Step: proto.Step{Name: "two", Phase: proto.PhasePost}, Body: "#!/bin/sh\necho two\n"},
	{Step: proto.Step{Name: "two-again", Phase: proto.PhasePost}, Body: "#!/bin/sh\necho two\n"},
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, c: prototest.New(t), dir: report.Dir(filepath.Join(t.TempDir(), "state")), boot: prototest.Boot1}
	b.c.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}})
	b.id, b.claim = b.c.Install("n1", scripts)
	if err := b.dir.Make(); err != nil {
		t.Fatal(err)
	}
	b.j = b.open(b.boot)
	return b
}

func (b *bench) open(boot string) *journal.Journal {
	b.Helper()
	stamp := func() (time.Time, string, time.Duration) { return time.Unix(0, 0), boot, time.Minute }
	j, err := journal.Open(string(b.dir), stamp, journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { j.Close() })
	return j
}

func (b *bench) config() report.Config {
	return report.Config{
		Dir: b.dir, Journal: b.j, URLs: []string{b.c.URL()}, CA: "sha256:" + proto.Digest(b.c.Authority.CertDER), Node: "n1",
		Hello: func() proto.Hello {
			return proto.Hello{Version: "test", Env: proto.EnvInstaller, Node: "n1", Claim: b.claim, MACs: []string{"52:54:00:00:00:01"}}
		},
		Clock: func() proto.Clock { return proto.Clock{Boot: b.boot, OffsetMS: 60_000, Time: time.Unix(0, 0)} },
		Take: func(o proto.Order) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.orders = append(b.orders, o)
			return nil
		},
		Say: func(s string) { b.mu.Lock(); defer b.mu.Unlock(); b.said = append(b.said, s) },

		Timing: fast,
	}
}

// start runs a sender until the test ends or stop is called.
func (b *bench) start(c report.Config) (stop func()) {
	b.Helper()
	s, err := report.New(c)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				b.Errorf("Run = %v, want it to end with its context only", err)
			}
		case <-time.After(time.Minute):
			b.Errorf("Run did not end within a minute of its context")
		}
	})
	b.Cleanup(stop)
	return stop
}

func (b *bench) note(n int) {
	b.Helper()
	for i := range n {
		if _, err := b.j.Append(proto.Event{Kind: proto.KindNote, Message: fmt.Sprintf("note %d", i+1)}); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) log(name, text string) {
	b.Helper()
	w, err := b.j.Log(name)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) flush() {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := report.Flush(ctx, b.dir, b.j, nil, true); err != nil {
		b.Fatalf("Flush = %v; it was said:\n%s", err, strings.Join(b.lines(), "\n"))
	}
}

func (b *bench) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

// want checks that the collector has exactly the first n records, once and in order.
func (b *bench) want(n int) {
	b.Helper()
	var got []uint64
	for _, e := range b.c.Events(b.id) {
		got = append(got, e.Seq)
	}
	var want []uint64
	for i := range n {
		want = append(want, uint64(i+1))
	}
	if !slices.Equal(got, want) {
		b.Errorf("the collector has %v, want %v", got, want)
	}
}

// until waits at most a minute for a condition.
func (b *bench) until(what string, cond func() bool) {
	b.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if cond() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.Fatalf("%s did not happen within a minute; it was said:\n%s", what, strings.Join(b.lines(), "\n"))
}

func (b *bench) planned() bool {
	_, _, err := b.dir.Plan()
	return err == nil
}

func TestDelivers(t *testing.T) {
	b := newBench(t)
	b.note(3)
	b.log("one.log", "hello\n")
	b.start(b.config())
	b.until("the plan", b.planned)
	b.flush()
	b.want(3)
	if got := string(b.c.Log(b.id, "one.log")); got != "hello\n" {
		t.Errorf("log = %q, want hello", got)
	}
	b.note(2)
	b.log("one.log", "again\n")
	b.flush()
	b.want(5)
	if got := string(b.c.Log(b.id, "one.log")); got != "hello\nagain\n" {
		t.Errorf("log = %q, want hello, again", got)
	}
	id, err := b.dir.Identity()
	if err != nil || id.Node != "n1" || id.Install != b.id || !id.Known {
		t.Errorf("identity = %+v, %v, want n1 and %s", id, err, b.id)
	}
	for name, mode := range map[string]fs.FileMode{"token": 0o600, "plan.json": 0o600, "identity.json": 0o600, "files/" + proto.Digest([]byte(scripts[0].Body)): 0o755} {
		if info, err := os.Stat(b.dir.Path(name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", name, info, err, mode)
		}
	}
	if p, digest, err := b.dir.Plan(); err != nil || len(p.Steps) != 3 || digest != proto.Digest(b.c.Plan(b.id).Payload) {
		t.Errorf("plan = %+v, %s, %v, want three steps", p, digest, err)
	}
	if got := b.lines(); len(got) != 0 {
		t.Errorf("said %q, want nothing: all is well", got)
	}
	b.until("a heartbeat", func() bool { return len(b.c.Heartbeats(b.id)) > 0 })
}

// Each fault hits every other request for a while; nothing may be lost or doubled, and all must be there in the end. What takes
// longer than a request may hits fewer of them: the bound has to leave a slow machine the time for the good ones.
func TestFaults(t *testing.T) {
	const hangs = 2 * time.Second
	for _, f := range []prototest.Fault{
		{Kind: prototest.FaultReset}, {Kind: prototest.FaultHang, Delay: time.Hour}, {Kind: prototest.FaultLost}, {Kind: prototest.FaultHalf},
		{Kind: prototest.FaultSlow, Delay: hangs}, {Kind: prototest.FaultSlow, Delay: 10 * time.Millisecond},
		{Kind: prototest.FaultRedirect, Body: "https://127.0.0.1:1/"}, {Kind: prototest.FaultGarbage}, {Kind: prototest.FaultHTML},
		{Kind: prototest.FaultUntyped}, {Kind: prototest.FaultEndless},
		{Kind: prototest.FaultStatus, Status: 200, Body: "{}"}, {Kind: prototest.FaultStatus, Status: 204}, {Kind: prototest.FaultStatus, Status: 400},
		{Kind: prototest.FaultStatus, Status: 401, Body: `{"code":"bad-credentials"}`}, {Kind: prototest.FaultStatus, Status: 403},
		{Kind: prototest.FaultStatus, Status: 404}, {Kind: prototest.FaultStatus, Status: 408}, {Kind: prototest.FaultStatus, Status: 409, Body: `{"code":"conflict"}`},
		{Kind: prototest.FaultStatus, Status: 413}, {Kind: prototest.FaultStatus, Status: 425}, {Kind: prototest.FaultStatus, Status: 429},
		{Kind: prototest.FaultStatus, Status: 500, Body: `{"code":"internal","incident":"x"}`}, {Kind: prototest.FaultStatus, Status: 503},
	} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			cfg, most := b.config(), 12
			if f.Delay >= hangs || f.Kind == prototest.FaultEndless {
				cfg.Timing.Request, cfg.Timing.File, most = hangs, hangs, 5
			}
			var mu sync.Mutex
			n, bad := 0, 0
			b.c.SetFault(func(*http.Request) prototest.Fault {
				mu.Lock()
				defer mu.Unlock()
				if n++; n%2 == 1 && bad < most {
					bad++
					return f
				}
				return prototest.Fault{}
			})
			b.note(5)
			b.log("one.log", strings.Repeat("x", 1000))
			b.start(cfg)
			for range 5 {
				b.note(1)
				b.log("one.log", "y\n")
				time.Sleep(10 * time.Millisecond)
			}
			b.until("the plan", b.planned)
			b.flush()
			b.want(10)
			if got, want := string(b.c.Log(b.id, "one.log")), strings.Repeat("x", 1000)+strings.Repeat("y\n", 5); got != want {
				t.Errorf("log of %d bytes, want %d", len(got), len(want))
			}
		})
	}
}

func TestCollectorDownThenUp(t *testing.T) {
	b := newBench(t)
	b.c.Stop()
	b.note(3)
	b.start(b.config())
	b.until("a word about it", func() bool { return len(b.lines()) > 0 })
	b.until("that it is stuck at hello, and why", func() bool {
		got := b.dir.Sent()
		return got.Stuck == report.StuckHello && strings.Contains(got.Trouble, "connection refused")
	})
	time.Sleep(100 * time.Millisecond) // several tries more
	if got := b.lines(); len(got) != 1 || !strings.Contains(got[0], "connection refused") {
		t.Errorf("said %q, want one line: connection refused", got)
	}
	b.c.Start()
	b.flush()
	b.want(3)
	b.until("the recovery", func() bool { return len(b.lines()) > 1 })
	b.c.Stop()
	b.note(2)
	time.Sleep(50 * time.Millisecond)
	b.c.Start()
	b.flush()
	b.want(5)
	for _, l := range b.lines()[1:2] {
		if !strings.Contains(l, "works again after") {
			t.Errorf("said %q, want the recovery with its count", l)
		}
	}
}

func TestRestartedSenderGoesOn(t *testing.T) {
	b := newBench(t)
	b.note(3)
	stop := b.start(b.config())
	b.flush()
	stop()
	b.note(2)
	os.Remove(b.dir.Path("sent")) // only a hint
	b.log("one.log", "more\n")
	c := b.config()
	b.claim = "" // the boot script's claim may be used up by now
	b.start(c)
	b.flush()
	b.want(5)
	hellos := b.c.Hellos(b.id)
	if last := hellos[len(hellos)-1]; last.Claim != "" {
		t.Errorf("the second hello showed the claim, want the token")
	}
}

func TestLogsGoWhereTheCollectorIs(t *testing.T) {
	b := newBench(t)
	b.log("one.log", "0123456789")
	stop := b.start(b.config())
	b.flush()
	stop()
	os.Remove(b.dir.Path("sent"))
	b.log("one.log", "abc")
	b.start(b.config())
	b.flush()
	if got := string(b.c.Log(b.id, "one.log")); got != "0123456789abc" {
		t.Errorf("log = %q, want 0123456789abc", got)
	}
}

func TestLongLogAndManyEvents(t *testing.T) {
	b := newBench(t)
	long := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB
	b.log("long.log", long)
	b.log("short.log", "short\n")
	b.note(1200)
	b.start(b.config())
	b.flush()
	b.want(1200)
	if got := string(b.c.Log(b.id, "long.log")); got != long {
		t.Errorf("log of %d bytes, want %d", len(got), len(long))
	}
}

func TestWrongCANoPayload(t *testing.T) {
	b := newBench(t)
	other := prototest.NewAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, other.CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{file, "sha256:" + proto.Digest(other.CertDER)} {
		c := b.config()
		c.CA = ca
		n := len(b.lines())
		stop := b.start(c)
		b.until("a word about it", func() bool { return len(b.lines()) > n })
		time.Sleep(50 * time.Millisecond)
		stop()
		if got := b.lines()[n:]; len(got) != 1 || !strings.Contains(got[0], "not the collector that this machine trusts") {
			t.Errorf("with CA %s said %q, want one line about trust", ca, got)
		}
	}
	if got := b.c.Requests(); len(got) != 0 {
		t.Errorf("requests = %v, want not one byte of payload", got)
	}
}

// A certificate of the right CA for another name, or for another use, is a stranger's, and so is one whose chain only
// claims to end at the pinned CA.
func TestStrangersOfTheSameCA(t *testing.T) {
	other := prototest.NewAuthority(t)
	for _, c := range []struct {
		name string
		cert func(*prototest.Authority) tls.Certificate
	}{
		{"another name", func(a *prototest.Authority) tls.Certificate { return a.Server(t, "printer") }},
		{"the plan signer", func(a *prototest.Authority) tls.Certificate { return a.Signer() }},
		{"a client of its name", func(a *prototest.Authority) tls.Certificate {
			der, key := a.Issue(t, &x509.Certificate{SerialNumber: big.NewInt(9), DNSNames: []string{proto.ServerName}, KeyUsage: x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: time.Now().Add(time.Hour)})
			return tls.Certificate{Certificate: [][]byte{der, a.CertDER}, PrivateKey: key}
		}},
		{"a borrowed CA", func(a *prototest.Authority) tls.Certificate {
			cert := other.Server(t, proto.ServerName)
			cert.Certificate[1] = a.CertDER
			return cert
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.c.SetCertificate(c.cert(b.c.Authority))
			b.start(b.config())
			b.until("a word about it", func() bool { return len(b.lines()) > 0 })
			if got := b.lines()[0]; !strings.Contains(got, "not the collector that this machine trusts") {
				t.Errorf("said %q, want a line about trust", got)
			}
			if got := b.c.Requests(); len(got) != 0 {
				t.Errorf("requests = %v, want not one byte of payload", got)
			}
		})
	}
}

func TestPinFile(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, append([]byte("# ours\n"), b.c.Authority.CertPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	c := b.config()
	c.CA = file
	b.note(1)
	stop := b.start(c)
	b.until("the plan", b.planned)
	b.flush()
	stop()
	os.Remove(file)
	c.CA = "" // the initrd is gone: the CA that was met counts
	b.note(1)
	b.start(c)
	b.flush()
	b.want(2)
}

func TestNewRefuses(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name string
		set  func(*report.Config)
		want string
	}{
		{"no URL", func(c *report.Config) { c.URLs = nil }, "no collector is known"},
		{"plain HTTP", func(c *report.Config) { c.URLs = []string{"http://10.0.0.1:8440"} }, "write https://ADDRESS:PORT"},
		{"a path", func(c *report.Config) { c.URLs = []string{"https://10.0.0.1/x"} }, "write https://ADDRESS:PORT"},
		{"a password", func(c *report.Config) { c.URLs = []string{"https://u:p@10.0.0.1"} }, "write https://ADDRESS:PORT"},
		{"no CA", func(c *report.Config) { c.CA = "" }, "no CA is pinned"},
		{"short digest", func(c *report.Config) { c.CA = "sha256:00" }, "64 hex digits"},
		{"no file", func(c *report.Config) { c.CA = "/nonexistent/ca.pem" }, "reading the CA"},
		{"an empty file", func(c *report.Config) { c.CA = os.DevNull }, "no PEM certificate"},
	} {
		cfg := b.config()
		c.set(&cfg)
		if _, err := report.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: New = %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	b := newBench(t)
	b.c.SetFault(func(r *http.Request) prototest.Fault {
		return prototest.Fault{Kind: prototest.FaultRedirect, Body: b.c.URL() + "/elsewhere"}
	})
	b.note(1)
	b.start(b.config())
	b.until("a word about it", func() bool { return len(b.lines()) > 0 })
	if got := b.lines()[0]; !strings.Contains(got, "307 Temporary Redirect") {
		t.Errorf("said %q, want the redirect", got)
	}
	for _, r := range b.c.Requests() {
		if strings.HasSuffix(r, "/elsewhere") {
			t.Errorf("requests = %v, want no redirect followed", b.c.Requests())
			break
		}
	}
}

// A token that the collector does not know any more is no end while the claim is good.
func TestVoidToken(t *testing.T) {
	b := newBench(t)
	if err := b.dir.SetToken("void"); err != nil {
		t.Fatal(err)
	}
	b.note(2)
	b.start(b.config())
	b.flush()
	b.want(2)
	if got := b.dir.Token(); got == "void" || got == "" {
		t.Errorf("token = %q, want a fresh one", got)
	}
}

func TestSecondURLAndNames(t *testing.T) {
	b := newBench(t)
	b.note(1)
	c := b.config()
	c.URLs = []string{"https://no-such-name.invalid", "https://127.0.0.1:1", b.c.URL()}
	b.start(c)
	b.flush()
	b.want(1)
	b.c.Stop()
	b.note(1)
	b.until("a word about it", func() bool { return len(b.lines()) > 0 })
	got := b.lines()[0]
	for _, want := range []string{"no-such-name.invalid does not resolve here: use an address", "127.0.0.1:1: connection refused", b.c.URL() + ": connection refused"} {
		if !strings.Contains(got, want) {
			t.Errorf("said %q, want %q in it", got, want)
		}
	}
}

func TestContested(t *testing.T) {
	b := newBench(t)
	stop := b.start(b.config())
	b.until("the plan", b.planned)
	stop()
	os.RemoveAll(string(b.dir))
	b.dir.Make()
	b.boot = prototest.Boot2
	b.j = b.open(b.boot)
	b.start(b.config())
	b.until("a word about it", func() bool {
		return slices.ContainsFunc(b.lines(), func(s string) bool { return strings.Contains(s, "provost explain n1") })
	})
	if !b.c.Contested(b.id) || b.planned() {
		t.Errorf("contested = %t, planned = %t, want true and false", b.c.Contested(b.id), b.planned())
	}
}

func TestJoinKeyWaitsForTheOperator(t *testing.T) {
	b := newBench(t)
	b.note(1)
	c := b.config()
	c.Node = ""
	mac := "52:54:00:00:00:02"
	c.Hello = func() proto.Hello {
		return proto.Hello{Version: "test", Env: proto.EnvInstaller, JoinKey: b.c.JoinKey, MACs: []string{mac}}
	}
	b.start(c)
	said := func(text string) func() bool {
		return func() bool {
			return slices.ContainsFunc(b.lines(), func(s string) bool { return strings.Contains(s, text) })
		}
	}
	b.until("unknown", said("provost node add NAME --mac 52:54:00:00:00:02"))
	b.c.Define(proto.NodeSpec{Name: "n2", MACs: []string{mac}})
	b.until("not ordered", said("no install of this machine is ordered; type: provost install NAME"))
	b.id, _ = b.c.Install("n2", scripts)
	b.until("the plan", b.planned)
	b.flush()
	b.want(1)
}

func TestPlansThatAreRefused(t *testing.T) {
	other := prototest.NewAuthority(t)
	for _, c := range []struct {
		name, want string
		spoil      func(*bench)
	}{
		{"none", "no plan for this install", func(b *bench) { b.c.SetPlan(b.id, nil) }},
		{"another CA's", "not signed by the collector", func(b *bench) { b.c.SetPlan(b.id, other.SignBytes(b.c.Plan(b.id).Payload)) }},
		{"altered", "the signature does not fit", func(b *bench) {
			p := *b.c.Plan(b.id)
			p.Payload = []byte(strings.Replace(string(p.Payload), `"pre"`, `"post"`, 1))
			b.c.SetPlan(b.id, &p)
		}},
		{"another install's", "the plan is of another install", func(b *bench) {
			old := b.c.Plan(b.id)
			b.id, b.claim = b.c.Install("n1", scripts)
			b.c.SetPlan(b.id, old)
		}},
		{"expired", "the plan has expired", func(b *bench) {
			b.id, b.claim = b.c.InstallPlan("n1", scripts, func(p *proto.Plan) { p.Expires = time.Now().Add(-time.Second) })
		}},
		{"a script of other bytes", "not the bytes that the signed plan names", func(b *bench) {
			b.c.SetFile(proto.Digest([]byte(scripts[0].Body)), []byte("#!/bin/sh\necho evl\n"))
		}},
		{"a longer script", "longer than", func(b *bench) {
			b.c.SetFile(proto.Digest([]byte(scripts[0].Body)), []byte(scripts[0].Body+"rm -rf /\n"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			c.spoil(b)
			b.note(1)
			b.start(b.config())
			b.until("the refusal", func() bool { return strings.Contains(b.dir.Sent().Trouble, c.want) })
			b.flush() // that it failed can be reported all the same
			b.want(1)
			if b.planned() {
				t.Errorf("the plan was taken")
			}
			b.until("that it is stuck at the plan, or its scripts", func() bool {
				got := b.dir.Sent().Stuck
				return got == report.StuckPlan || got == report.StuckScripts
			})
			if got := b.lines(); len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("said %q, want one line with %q", got, c.want)
			}
		})
	}
}

func TestRollbackIsRefused(t *testing.T) {
	b := newBench(t)
	b.id, b.claim = b.c.InstallPlan("n1", scripts, func(p *proto.Plan) { p.Revision = 2 })
	stop := b.start(b.config())
	b.until("the plan", b.planned)
	stop()
	p, _, _ := b.dir.Plan()
	p.Revision, p.Steps = 1, p.Steps[:1]
	b.c.SetPlan(b.id, b.c.Authority.Sign(t, p))
	b.start(b.config())
	b.until("the refusal", func() bool { return strings.Contains(b.dir.Sent().Trouble, "older than the one that is here") })
	if p, _, err := b.dir.Plan(); err != nil || p.Revision != 2 {
		t.Errorf("plan = %+v, %v, want revision 2 still", p, err)
	}
}

func TestOrders(t *testing.T) {
	b := newBench(t)
	var known sync.Map
	c := b.config()
	c.Taken = func(id string) bool { _, ok := known.Load(id); return ok }
	take := c.Take
	c.Take = func(o proto.Order) error { known.Store(o.ID, true); return take(o) }
	c.Beat = func() proto.Heartbeat {
		return proto.Heartbeat{Phase: proto.PhasePost, Step: "two", Waiting: true, Progress: 40}
	}
	b.start(c)
	b.until("the plan", b.planned)
	o := b.c.Order(b.id, proto.VerbSkip, "two", nil)
	got := func(n int) func() bool {
		return func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.orders) == n }
	}
	b.until("the order", got(1))
	time.Sleep(50 * time.Millisecond) // it is repeated in each answer
	if !got(1)() || b.orders[0].ID != o.ID || b.orders[0].Actor != "test" {
		t.Errorf("orders = %+v, want one, %s", b.orders, o.ID)
	}
	// one with a new plan comes when the plan's scripts are here
	fresh := prototest.Script{Step: proto.Step{Name: "two", Phase: proto.PhasePost}, Body: "#!/bin/sh\necho better\n"}
	b.c.SetFault(func(r *http.Request) prototest.Fault {
		if strings.Contains(r.URL.Path, "/files/") {
			return prototest.Fault{Kind: prototest.FaultStatus, Status: 404}
		}
		return prototest.Fault{}
	})
	// unless that has expired, by the clock that the collector showed at hello
	b.c.SetClock(-proto.PlanLife - time.Hour)
	stale := b.c.Order(b.id, proto.VerbRetry, "two", []prototest.Script{fresh})
	b.c.SetClock(0)
	b.until("the refusal", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.ContainsFunc(b.said, func(s string) bool {
			return strings.Contains(s, "order retry "+stale.ID) && strings.Contains(s, "the plan has expired")
		})
	})
	b.c.Order(b.id, proto.VerbRetry, "two", []prototest.Script{fresh})
	time.Sleep(100 * time.Millisecond)
	if !got(1)() {
		t.Errorf("the retry came before its plan's scripts")
	}
	b.c.SetFault(nil)
	b.until("the retry", got(2))
	p, _, err := b.dir.Plan()
	if err != nil || p.Revision != 2 {
		t.Errorf("plan = %+v, %v, want revision 2", p, err)
	}
	path, _ := b.dir.Script(proto.Digest([]byte(fresh.Body)))
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the new script: %v", err)
	}
	beats := b.c.Heartbeats(b.id)
	if last := beats[len(beats)-1]; last.Step != "two" || !last.Waiting || last.Progress != 40 {
		t.Errorf("heartbeat = %+v, want step two, waiting, 40 %%", last)
	}
}

func TestRetryAfter(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	var times []time.Time
	b.c.SetFault(func(*http.Request) prototest.Fault {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		if len(times) == 1 {
			return prototest.Fault{Kind: prototest.FaultStatus, Status: 503, RetryAfter: time.Second, Body: `{"code":"busy"}`}
		}
		return prototest.Fault{}
	})
	b.note(1)
	b.start(b.config())
	b.flush()
	mu.Lock()
	defer mu.Unlock()
	if d := times[1].Sub(times[0]); d < time.Second || d > time.Minute {
		t.Errorf("came again after %s, want 1 s as the collector wished", d)
	}
}

func TestLock(t *testing.T) {
	b := newBench(t)
	release, err := b.dir.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.dir.Lock(); !errors.Is(err, report.ErrBusy) || !b.dir.Locked() {
		t.Errorf("second Lock = %v, want ErrBusy", err)
	}
	if r, err := b.dir.LockWatch(); err != nil {
		t.Errorf("LockWatch beside Lock = %v, want it to be another lock", err)
	} else {
		r()
	}
	release()
	if b.dir.Locked() {
		t.Errorf("Locked() after the release = true")
	}
	// who asks is not in the way of who takes
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			b.dir.Locked()
		}
	}()
	for range 500 {
		if release, err = b.dir.Lock(); err != nil {
			t.Fatalf("Lock while somebody asks = %v", err)
		}
		release()
	}
	<-done
}
