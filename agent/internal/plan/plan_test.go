// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/plan"
	"provost/proto"
	"provost/proto/prototest"
)

func duration(d time.Duration) *proto.Duration {
	p := proto.Duration(d)
	return &p
}

func TestParseFile(t *testing.T) {
	got, err := plan.ParseFile("plan.yaml", []byte(`
steps:
  - name: timesync          # a comment
    script: 20-timesync
    phase: post
    timeout: 2m
    grace: 0s
    retries: 2
    run: on-change
    inputs: [/etc/chrony.conf]
    persists: outside
    on-failure: warn
    success-codes: [0, 3]
    leave-running: true
    chroot: false
    env: {NTP_SERVERS: "10.0.0.1", N: 5}
  - {name: up, phase: firstboot, reboot: {max: 2, within: 40m}}
`))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := []proto.Step{
		{
			Name: "timesync", Script: "20-timesync", Phase: proto.PhasePost, Timeout: duration(2 * time.Minute), Grace: duration(0), Retries: 2,
			Run: proto.RunOnChange, Inputs: []string{"/etc/chrony.conf"}, Persists: "outside", OnFailure: "warn", SuccessCodes: []int{0, 3},
			LeaveRunning: true, Chroot: &no, Env: map[string]string{"NTP_SERVERS": "10.0.0.1", "N": "5"},
		},
		{Name: "up", Phase: proto.PhaseFirstboot, Reboot: &proto.Reboot{Max: 2, Within: proto.Duration(40 * time.Minute)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseFile (-want +got):\n%s", diff)
	}
}

func TestParseFileRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "p.yaml:1: the file is empty"},
		{"not YAML", "steps: [", "p.yaml: yaml: line 1"},
		{"a list", "- name: a\n", "p.yaml:1: write a list of steps under the key steps"},
		{"another key", "steps: []\nplan: x\n", `p.yaml:2: unknown key "plan"`},
		{"no steps", "{}", "p.yaml:1: the key steps is missing"},
		{"steps twice", "steps: []\nsteps: []\n", "p.yaml:2: steps stands twice"},
		{"steps is text", "steps: x\n", "p.yaml:1: steps: write a list"},
		{"a step is text", "steps:\n  - one\n", "p.yaml:2: \"one\": write key: value"},
		{"unknown key", "steps:\n  - name: a\n    phase: post\n    timout: 5m\n", `p.yaml:4: unknown key "timout"`},
		{"unknown key below", "steps:\n  - name: a\n    phase: pre\n    reboot: {max: 1, times: 2}\n", `p.yaml:4: unknown key "times"`},
		{"digest is not for people", "steps:\n  - name: a\n    digest: x\n", `p.yaml:3: unknown key "digest"`},
		{"key twice", "steps:\n  - name: a\n    phase: post\n    phase: pre\n", "p.yaml:4: phase stands twice"},
		{"no unit", "steps:\n  - name: a\n    phase: post\n    timeout: 30\n", `p.yaml:4: timeout: "30" is no duration`},
		{"no timeout", "steps:\n  - name: a\n    phase: post\n    timeout: 0s\n", `p.yaml:2: step "a": timeout 0s`},
		{"a wrong type", "steps:\n  - name: a\n    phase: post\n    retries: many\n", "p.yaml:4: retries: yaml:"},
		{"a list for a text", "steps:\n  - name: [a]\n", "p.yaml:2: name: yaml:"},
		{"a reboot in post", "steps:\n  - name: a\n    phase: post\n    reboot: {max: 1}\n", "p.yaml:2: step \"a\": a reboot in phase post"},
		{"a name twice", "steps:\n  - {name: a, phase: post}\n  - {name: a, phase: pre}\n", `p.yaml:3: step "a" stands already in line 2`},
		{"two documents", "steps: []\n---\nsteps: []\n", "p.yaml: more than one YAML document"},
		{"too large", "steps: []\n" + strings.Repeat("#\n", plan.MaxFile), "a plan file has at most"},
	} {
		_, err := plan.ParseFile("p.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ParseFile = %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestLocal(t *testing.T) {
	steps := []proto.Step{{Name: "a", Phase: proto.PhasePre}, {Name: "b", Script: "bb", Phase: proto.PhasePost}}
	script := func(name string) ([]byte, error) {
		if name == "gone" {
			return nil, os.ErrNotExist
		}
		return []byte(name), nil
	}
	secret := func(name string) ([]byte, error) {
		if name == "/s" {
			return []byte("hunter2\n"), nil
		}
		return nil, os.ErrNotExist
	}
	steps[0].SecretEnv = map[string]string{"S": "file:/s"}
	id := proto.NewID(time.Now())
	p, err := plan.Local("n1", id, steps, script, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Steps[1].Digest, proto.Digest([]byte("bb")); got != want || p.Steps[1].Size != 2 {
		t.Errorf("digest of b = %s, want %s", got, want)
	}
	if got := p.Steps[0].SecretEnv["S"]; got != "hunter2" {
		t.Errorf("secret-env of a = %q, want what the file holds", got)
	}
	steps[0].SecretEnv = map[string]string{"S": "file:/t"}
	if _, err := plan.Local("n1", id, steps, script, secret); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), `step "a": secret-env S`) {
		t.Errorf("Local without a secret = %v, want it to name step and variable", err)
	}
	steps[0].SecretEnv, steps[0].Script = nil, "gone"
	if _, err := plan.Local("n1", id, steps, script, secret); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("Local without a script = %v, want it to name step a", err)
	}
}

func TestVerify(t *testing.T) {
	ours, theirs := prototest.NewAuthority(t), prototest.NewAuthority(t)
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	id := proto.NewID(now)
	good := proto.Plan{
		Schema: 1, Node: "n1", Install: id, Revision: 3, Issued: now, Expires: now.Add(time.Hour), OnFailure: proto.OnFailureHold,
		Steps: []proto.Step{{Name: "a", Phase: proto.PhasePre, Digest: proto.Digest(nil)}},
	}
	undigested := good
	undigested.Steps = []proto.Step{{Name: "a", Phase: proto.PhasePre}}
	signed := ours.Sign(t, &good)
	// the CA's own word, and a server's, are no plan signer's
	server := ours.Server(t, proto.ServerName)
	terms := func(change func(*plan.Terms)) plan.Terms {
		v := plan.Terms{CAs: []*x509.Certificate{parse(t, theirs.CertDER), parse(t, ours.CertDER)}, Node: "n1", Install: id, Now: now, MinRevision: 3}
		if change != nil {
			change(&v)
		}
		return v
	}
	for _, c := range []struct {
		name  string
		plan  *proto.SignedPlan
		terms plan.Terms
		want  error
	}{
		{"good", signed, terms(nil), nil},
		{"nothing known yet", signed, terms(func(v *plan.Terms) { v.Node, v.Install = "", "" }), nil},
		{"none", nil, terms(nil), plan.ErrSignature},
		{"no CA", signed, terms(func(v *plan.Terms) { v.CAs = nil }), plan.ErrSignature},
		{"another CA", theirs.Sign(t, &good), terms(func(v *plan.Terms) { v.CAs = v.CAs[1:] }), plan.ErrSignature},
		{"a server's certificate", &proto.SignedPlan{Payload: signed.Payload, Signature: signed.Signature, Cert: server.Certificate[0]}, terms(nil), plan.ErrSignature},
		{"the CA's certificate", &proto.SignedPlan{Payload: signed.Payload, Signature: signed.Signature, Cert: ours.CertDER}, terms(nil), plan.ErrSignature},
		{"signature of another plan", &proto.SignedPlan{Payload: signed.Payload, Signature: ours.SignBytes([]byte("{}")).Signature, Cert: signed.Cert}, terms(nil), plan.ErrSignature},
		{"another node", signed, terms(func(v *plan.Terms) { v.Node = "n2" }), plan.ErrStranger},
		{"another install", signed, terms(func(v *plan.Terms) { v.Install = proto.NewID(now) }), plan.ErrStranger},
		{"expired", signed, terms(func(v *plan.Terms) { v.Now = now.Add(time.Hour) }), plan.ErrExpired},
		{"expired, judged before", signed, terms(func(v *plan.Terms) { v.Now = time.Time{} }), nil},
		{"older", signed, terms(func(v *plan.Terms) { v.MinRevision = 4 }), plan.ErrRollback},
		{"newer", signed, terms(func(v *plan.Terms) { v.MinRevision = 1 }), nil},
		{"no digest", ours.Sign(t, &undigested), terms(nil), errAny},
		{"not JSON", ours.SignBytes([]byte("steps")), terms(nil), errAny},
	} {
		p, err := plan.Verify(c.plan, c.terms)
		if (c.want == errAny && err == nil) || (c.want != errAny && !errors.Is(err, c.want)) || (err == nil) != (p != nil) {
			t.Errorf("%s: Verify = %v, %v, want %v", c.name, p, err, c.want)
		}
	}
}

// Every flipped byte is refused, wherever it is.
func TestVerifyFlipped(t *testing.T) {
	ca := prototest.NewAuthority(t)
	now := time.Now()
	signed := ca.Sign(t, &proto.Plan{
		Schema: 1, Node: "n1", Install: proto.NewID(now), Revision: 1, Expires: now.Add(time.Hour), OnFailure: proto.OnFailureHold,
		Steps: []proto.Step{{Name: "a", Phase: proto.PhasePre, Digest: proto.Digest(nil)}},
	})
	terms := plan.Terms{CAs: []*x509.Certificate{parse(t, ca.CertDER)}, Now: now}
	if _, err := plan.Verify(signed, terms); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"payload": signed.Payload, "signature": signed.Signature, "certificate": signed.Cert} {
		for i := range b {
			b[i] ^= 1 << (i % 8)
			if _, err := plan.Verify(signed, terms); err == nil {
				t.Errorf("Verify took a plan with byte %d of its %s flipped", i, name)
			}
			b[i] ^= 1 << (i % 8)
		}
	}
}

var errAny = errors.New("any")

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("steps:\n  - {name: a, phase: post, timeout: 5m, env: {A: b}}\n"))
	f.Add([]byte("steps: &a\n  - *a\n"))
	f.Add([]byte("steps:\n  - name: a\n    reboot: {max: 1, within: 5m}\n    <<: {phase: pre}\n"))
	f.Add([]byte("steps:\n  - name: !!binary YQ==\n    timeout: null\n    success-codes: [~]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		steps, err := plan.ParseFile("p.yaml", data)
		if err == nil {
			err = proto.CheckSteps(steps)
			if err != nil {
				t.Errorf("ParseFile(%q) gave steps that are not valid: %v", data, err)
			}
		} else if !strings.HasPrefix(err.Error(), "p.yaml:") {
			t.Errorf("ParseFile(%q) = %v, want the file's name in front", data, err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	ca := prototest.NewAuthority(f)
	good := ca.SignBytes([]byte(`{"schema":1}`))
	f.Add(good.Payload, good.Signature, good.Cert)
	terms := plan.Terms{CAs: []*x509.Certificate{parse(f, ca.CertDER)}}
	f.Fuzz(func(t *testing.T, payload, signature, cert []byte) {
		if p, err := plan.Verify(&proto.SignedPlan{Payload: payload, Signature: signature, Cert: cert}, terms); err == nil {
			t.Errorf("Verify took %q as %+v", payload, p)
		}
	})
}
