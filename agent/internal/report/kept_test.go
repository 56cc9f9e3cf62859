// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"provost/agent/internal/plan"
	"provost/agent/internal/report"
	"provost/proto"
	"provost/proto/prototest"
)

// TestKeptPlan: what a disk keeps of a plan has no secret of a phase that is over, and is verified each time it is read.
func TestKeptPlan(t *testing.T) {
	b := newBench(t)
	secret := func(name string, p proto.Phase) prototest.Script {
		return prototest.Script{Step: proto.Step{Name: name, Phase: p, SecretEnv: map[string]string{"S": "secret-of-" + name}}, Body: "#!/bin/sh\n"}
	}
	id, _ := b.c.Install("n1", []prototest.Script{secret("early", proto.PhasePost), secret("late", proto.PhaseFirstboot)})
	sp := b.c.Plan(id)
	if err := errors.Join(b.dir.SetIdentity(report.Identity{Node: "n1", Install: id}), b.dir.WriteFile("ca.pem", b.c.Authority.CertPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := b.dir.Keep(sp, report.InstallerPhase); err != nil {
		t.Fatal(err)
	}
	file := b.dir.Path("plan.kept.json")
	good, err := os.ReadFile(file)
	if err != nil || bytes.Contains(good, []byte("secret-of-early")) || !bytes.Contains(good, []byte("secret-of-late")) {
		t.Fatalf("plan.kept.json = %s, %v, want the late secret alone", good, err)
	}
	p, digest, err := b.dir.Plan()
	if err != nil || digest != proto.Digest(sp.Payload) || p.Steps[0].SecretEnv != nil || p.Steps[1].SecretEnv["S"] != "secret-of-late" {
		t.Errorf("Plan = %+v, %s, %v, want the plan with the late secret and the digest of the whole", p, digest, err)
	}

	other, _ := b.c.Install("n1", []prototest.Script{secret("early", proto.PhasePost)})
	foreign := prototest.NewAuthority(t).Sign(t, p)
	for name, c := range map[string]struct {
		change func(*proto.SignedPlan)
		want   error
	}{
		"payload":    {func(sp *proto.SignedPlan) { sp.Payload = bytes.Replace(sp.Payload, []byte("late"), []byte("evil"), 1) }, plan.ErrSignature},
		"signature":  {func(sp *proto.SignedPlan) { sp.Signature[3] ^= 1 }, plan.ErrSignature},
		"another CA": {func(sp *proto.SignedPlan) { *sp = *foreign }, plan.ErrSignature},
		"another's":  {func(sp *proto.SignedPlan) { *sp = *b.c.Plan(other).Bare }, plan.ErrStranger},
	} {
		var k map[string]json.RawMessage
		var inner proto.SignedPlan
		if err := errors.Join(json.Unmarshal(good, &k), json.Unmarshal(k["plan"], &inner)); err != nil {
			t.Fatal(err)
		}
		c.change(&inner)
		k["plan"], _ = json.Marshal(inner)
		bad, _ := json.Marshal(k)
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if p, _, err := b.dir.Plan(); !errors.Is(err, c.want) {
			t.Errorf("%s altered: Plan = %+v, %v, want %v", name, p, err, c.want)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.dir.ForgetSecrets(proto.EveryPhase); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(file); err != nil || bytes.Contains(now, []byte("secret-of")) {
		t.Errorf("after ForgetSecrets plan.kept.json = %s, %v, want no secret", now, err)
	}
	if p, _, err := b.dir.Plan(); err != nil || p.Steps[1].SecretEnv != nil {
		t.Errorf("after ForgetSecrets Plan = %+v, %v, want it without secrets", p, err)
	}

	for name, bare := range map[string]*proto.SignedPlan{"none": nil, "another": b.c.Plan(other).Bare, "the whole": {Payload: sp.Payload, Signature: sp.Signature, Cert: sp.Cert}} {
		odd := *sp
		odd.Bare = bare
		if err := b.dir.Keep(&odd, report.InstallerPhase); err == nil || !strings.Contains(err.Error(), "without its secrets") {
			t.Errorf("Keep with the bare plan %s = %v, want a refusal", name, err)
		}
	}
}
