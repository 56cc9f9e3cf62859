// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"provost/agent/internal/plan"
	"provost/proto"
)

// SignedPlan reads the plan as it was received; os.ErrNotExist until it and all of its scripts are there.
func (d Dir) SignedPlan() (*proto.SignedPlan, error) {
	var sp proto.SignedPlan
	if err := d.readJSON(filePlan, &sp); err != nil {
		return nil, err
	}
	return &sp, nil
}

// Plan reads the plan and verifies it again with the CA that is pinned, for the install that this directory is of. On an
// installed system it may be one that is signed without its secrets, with those of the phases to come beside it.
func (d Dir) Plan() (*proto.Plan, string, error) {
	sp, err := d.SignedPlan()
	if errors.Is(err, fs.ErrNotExist) {
		return d.kept()
	}
	if err != nil {
		return nil, "", err
	}
	return d.Verify(sp)
}

// keptPlan is a plan without the secrets that are not needed any more.
type keptPlan struct {
	Digest  string                       `json:"digest"`            // of the bytes that had all secrets
	Plan    *proto.SignedPlan            `json:"plan"`              // without any
	Secrets map[string]map[string]string `json:"secrets,omitempty"` // step → variable → value, of phases to come; nothing vouches for the values
}

func (d Dir) kept() (*proto.Plan, string, error) {
	var k keptPlan
	if err := d.readJSON(fileKept, &k); err != nil {
		return nil, "", err
	}
	p, _, err := d.Verify(k.Plan)
	if err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", d.Path(fileKept), err)
	}
	for i, s := range p.Steps {
		p.Steps[i].SecretEnv = k.Secrets[s.Name]
	}
	return p, k.Digest, p.Check()
}

// Keep writes a verified plan. Where secrets of phases that are over are in it, they stay out, and so do the signed bytes:
// a disk that is installed must not hold what only its installation needed. What stays is signed as well.
func (d Dir) Keep(sp *proto.SignedPlan, over func(proto.Phase) bool) error {
	p, err := proto.DecodePlan(sp.Payload)
	if err != nil {
		return err
	}
	if _, had := p.WithoutSecrets(over); had {
		return d.keepBare(sp, p, over)
	}
	if err := d.writeJSON(filePlan, sp, 0o600); err != nil {
		return err
	}
	return d.remove(fileKept)
}

// keepBare keeps what sp, which holds p, says without secrets, if it says the same.
func (d Dir) keepBare(sp *proto.SignedPlan, p *proto.Plan, over func(proto.Phase) bool) error {
	if sp.Bare == nil {
		return errors.New("the collector has signed no plan without its secrets, so none can be kept on this disk: upgrade provostd")
	}
	bare, _, err := d.Verify(sp.Bare)
	if err != nil {
		return fmt.Errorf("keeping the plan without its secrets: %w", err)
	}
	want, _ := p.WithoutSecrets(proto.EveryPhase)
	is, errIs := json.Marshal(bare)
	must, errMust := json.Marshal(want)
	if errIs != nil || errMust != nil || string(is) != string(must) {
		return errors.New("keeping the plan without its secrets: the collector has signed two plans that differ in more than those")
	}
	k := keptPlan{Digest: proto.Digest(sp.Payload), Plan: sp.Bare, Secrets: map[string]map[string]string{}}
	for _, s := range p.Steps {
		if len(s.SecretEnv) > 0 && !over(s.Phase) {
			k.Secrets[s.Name] = s.SecretEnv
		}
	}
	if err := d.writeJSON(fileKept, k, 0o600); err != nil {
		return err
	}
	return d.remove(filePlan)
}

// ForgetSecrets takes the secrets of phases that are over out of the plan that is here. Without a plan it does nothing.
func (d Dir) ForgetSecrets(over func(proto.Phase) bool) error {
	p, _, err := d.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, had := p.WithoutSecrets(over); !had {
		return nil
	}
	if sp, err := d.SignedPlan(); err == nil {
		return d.keepBare(sp, p, over)
	}
	var k keptPlan
	if err := d.readJSON(fileKept, &k); err != nil {
		return err
	}
	for _, s := range p.Steps {
		if over(s.Phase) {
			delete(k.Secrets, s.Name)
		}
	}
	return d.writeJSON(fileKept, k, 0o600)
}

// InstallerPhase reports whether a phase is over on an installed system.
func InstallerPhase(p proto.Phase) bool { return p == proto.PhasePre || p == proto.PhasePost }

// RemovePlan forgets the plan.
func (d Dir) RemovePlan() error { return errors.Join(d.remove(filePlan), d.remove(fileKept)) }

// Verify checks a signed plan for the install that this directory is of, and gives it with its digest. Its expiry was
// judged at the hello that brought it.
func (d Dir) Verify(sp *proto.SignedPlan) (*proto.Plan, string, error) {
	id, err := d.Identity()
	if err != nil {
		return nil, "", err
	}
	pin, err := d.pin("")
	if err != nil {
		return nil, "", err
	}
	p, err := plan.Verify(sp, plan.Terms{CAs: pin.CAs(), Node: id.Node, Install: id.Install})
	if err != nil {
		return nil, "", err
	}
	return p, proto.Digest(sp.Payload), nil
}
