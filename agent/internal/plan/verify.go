// SPDX-License-Identifier: Apache-2.0

// Package plan reads plans: the operator's plan file, and the collector's signed plan, of which it decides whether it
// may be run.
//
// It is pure: no clock, no I/O, no goroutine. It must never give out a plan that it did not check to the end.
package plan

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"provost/proto"
)

// Why a signed plan is refused.
var (
	ErrSignature = errors.New("the plan is not signed by the collector that this machine trusts")
	ErrStranger  = errors.New("the plan is of another install")
	ErrExpired   = errors.New("the plan has expired")
	ErrRollback  = errors.New("the plan is older than the one that is here")
)

// Terms are what a signed plan is held against.
type Terms struct {
	CAs           []*x509.Certificate // the pinned ones; without any, every plan is refused
	Node, Install string              // "" if not known yet
	Now           time.Time           // the collector's time; zero leaves the expiry alone, which is judged once, at hello
	MinRevision   int                 // of the plan that is here already; 0 if there is none
}

// Verify checks a signed plan: the signer's certificate is issued by a pinned CA for signing plans and nothing else,
// its key signed exactly these bytes, and they are a valid plan for this install, not expired and not older than the
// one that is here. Dates of certificates are ignored, as for TLS: installers' clocks are wrong. The plan's digest is
// proto.Digest of the payload.
func Verify(sp *proto.SignedPlan, t Terms) (*proto.Plan, error) {
	if sp == nil {
		return nil, fmt.Errorf("%w: there is no plan", ErrSignature)
	}
	if err := checkSignature(sp, t.CAs); err != nil {
		return nil, err
	}
	p, err := proto.DecodePlan(sp.Payload)
	if err != nil {
		return nil, err
	}
	switch {
	case t.Node != "" && p.Node != t.Node:
		return nil, fmt.Errorf("%w: it is for node %s, this is %s", ErrStranger, p.Node, t.Node)
	case t.Install != "" && p.Install != t.Install:
		return nil, fmt.Errorf("%w: it is for %s, this is %s", ErrStranger, p.Install, t.Install)
	case !t.Now.IsZero() && !t.Now.Before(p.Expires):
		return nil, fmt.Errorf("%w: it was good until %s, the collector's clock says %s", ErrExpired,
			p.Expires.UTC().Format(time.RFC3339), t.Now.UTC().Format(time.RFC3339))
	case p.Revision < t.MinRevision:
		return nil, fmt.Errorf("%w: revision %d, here is %d", ErrRollback, p.Revision, t.MinRevision)
	}
	return p, nil
}

func checkSignature(sp *proto.SignedPlan, cas []*x509.Certificate) error {
	cert, err := x509.ParseCertificate(sp.Cert)
	if err != nil {
		return fmt.Errorf("%w: its certificate cannot be read: %w", ErrSignature, err)
	}
	if cert.Subject.CommonName != proto.PlanSigner || cert.IsCA {
		return fmt.Errorf("%w: its certificate is for %q", ErrSignature, proto.Clip(cert.Subject.CommonName, 64))
	}
	if !slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil }) {
		return fmt.Errorf("%w: its certificate is of another CA", ErrSignature)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("%w: its key is not Ed25519", ErrSignature)
	}
	if !ed25519.Verify(key, append([]byte(proto.PlanContext), sp.Payload...), sp.Signature) {
		return fmt.Errorf("%w: the signature does not fit", ErrSignature)
	}
	return nil
}
