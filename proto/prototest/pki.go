// SPDX-License-Identifier: Apache-2.0

package prototest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"provost/proto"
)

// Authority is a throwaway CA with a server's certificate and a plan signer. All of its certificates were valid on one
// day in 2001 only: whoever judges dates under a pin fails at once.
type Authority struct {
	CertPEM []byte // the CA
	CertDER []byte

	cert   *x509.Certificate
	key    ed25519.PrivateKey
	server tls.Certificate
	signer ed25519.PrivateKey
	sigDER []byte
}

// NewAuthority makes a CA and what it certifies.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{}
	ca := template("provost CA")
	ca.IsCA = true
	ca.KeyUsage = x509.KeyUsageCertSign
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("making the CA's key: %v", err)
	}
	a.key = key
	if a.CertDER, err = x509.CreateCertificate(rand.Reader, ca, ca, pub, key); err != nil {
		t.Fatalf("making the CA: %v", err)
	}
	if a.cert, err = x509.ParseCertificate(a.CertDER); err != nil {
		t.Fatalf("reading the CA: %v", err)
	}
	a.CertPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.CertDER})

	a.server = a.Server(t, proto.ServerName)
	a.sigDER, a.signer = a.Issue(t, template(proto.PlanSigner))
	return a
}

// Server issues a server's certificate for a DNS name, with the CA behind it in the chain.
func (a *Authority) Server(t testing.TB, name string) tls.Certificate {
	t.Helper()
	c := template(name)
	c.DNSNames = []string{name}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, key := a.Issue(t, c)
	return tls.Certificate{Certificate: [][]byte{der, a.CertDER}, PrivateKey: key}
}

// Signer is the plan signer's certificate, as a thief of its key would show it to agents.
func (a *Authority) Signer() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{a.sigDER, a.CertDER}, PrivateKey: a.signer}
}

// Issue signs a certificate for a fresh key.
func (a *Authority) Issue(t testing.TB, c *x509.Certificate) (der []byte, key ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, a.cert, pub, a.key); err != nil {
		t.Fatalf("issuing a certificate: %v", err)
	}
	return der, key
}

// Sign signs a plan.
func (a *Authority) Sign(t testing.TB, p *proto.Plan) *proto.SignedPlan {
	t.Helper()
	payload, err := json.Marshal(p)
	if err != nil {
		t.Fatalf("encoding plan: %v", err)
	}
	sp := a.SignBytes(payload)
	if bare, had := p.WithoutSecrets(proto.EveryPhase); had {
		sp.Bare = a.Sign(t, bare)
	}
	return sp
}

// SignBytes signs whatever is given as a plan.
func (a *Authority) SignBytes(payload []byte) *proto.SignedPlan {
	return &proto.SignedPlan{
		Payload:   payload,
		Signature: ed25519.Sign(a.signer, append([]byte(proto.PlanContext), payload...)),
		Cert:      a.sigDER,
	}
}

func template(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	day := time.Date(2001, 9, 9, 0, 0, 0, 0, time.UTC)
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             day,
		NotAfter:              day.Add(24 * time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
}
