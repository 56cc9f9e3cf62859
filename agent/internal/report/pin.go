// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"provost/proto"
)

// ErrUntrusted is a peer that is not the pinned collector.
var ErrUntrusted = errors.New("it is not the collector that this machine trusts")

// Pin is the CA that the collector's certificate and its plans must come from: certificates, or the digest of one,
// which the server then sends along. It is used by one goroutine at a time.
type Pin struct {
	cas    []*x509.Certificate
	digest []byte
}

// ParsePin reads a pin: "sha256:HEX" of a CA certificate's DER, or the name of a file with PEM certificates.
func ParsePin(s string) (*Pin, error) {
	if s == "" {
		return nil, errors.New("no CA is pinned: without one the collector cannot be told from an impostor; give --ca FILE or --ca sha256:HEX (`provostd ca show` prints it), or provost.ca= on the kernel command line")
	}
	if text, ok := strings.CutPrefix(s, "sha256:"); ok {
		b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("CA %q: after sha256: come 64 hex digits", proto.Clip(s, 80))
		}
		return &Pin{digest: b}, nil
	}
	b, err := os.ReadFile(s)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	p := &Pin{}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading the CA in %s: %w", s, err)
		}
		p.cas = append(p.cas, c)
	}
	if len(p.cas) == 0 {
		return nil, fmt.Errorf("reading the CA: %s has no PEM certificate", s)
	}
	return p, nil
}

// CAs are the pinned certificates; for a digest none until one was met.
func (p *Pin) CAs() []*x509.Certificate { return p.cas }

// PEM is CAs as a file's content.
func (p *Pin) PEM() []byte {
	var b bytes.Buffer
	for _, c := range p.cas {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}

// Learn takes the pinned certificate from a file that an earlier process wrote, if it is there and the right one.
func (p *Pin) Learn(file string) {
	if other, err := ParsePin(file); err == nil && len(p.cas) == 0 {
		p.meet(other.cas)
	}
}

func (p *Pin) meet(certs []*x509.Certificate) {
	for _, c := range certs {
		if sum := sha256.Sum256(c.Raw); len(p.cas) == 0 && bytes.Equal(sum[:], p.digest) {
			p.cas = []*x509.Certificate{c}
		}
	}
}

// name is what the handshake asks for: the CA that is pinned, since a collector may have two for a while.
func (p *Pin) name() string {
	if len(p.digest) == sha256.Size {
		return proto.PinName([sha256.Size]byte(p.digest))
	}
	return proto.PinName(sha256.Sum256(p.cas[0].Raw))
}

// tls is a configuration that knows one server: the one whose certificate the pinned CA issued for
// proto.ServerName, whatever its address. Its dates are not looked at, since an installer's clock may say 1970 or
// 2040. The check runs before the handshake is complete: nothing of ours has been sent.
func (p *Pin) tls() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         p.name(),
		InsecureSkipVerify: true, // VerifyConnection does it, without dates, and of a resumed session as well
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
		VerifyConnection: func(s tls.ConnectionState) error {
			p.meet(s.PeerCertificates)
			leaf := s.PeerCertificates[0]
			switch {
			case len(p.cas) == 0:
				return fmt.Errorf("%w: its chain lacks the pinned CA", ErrUntrusted)
			case !slices.ContainsFunc(p.cas, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil }):
				return fmt.Errorf("%w: its certificate is of another CA", ErrUntrusted)
			case leaf.VerifyHostname(proto.ServerName) != nil:
				return fmt.Errorf("%w: its certificate is not for %s", ErrUntrusted, proto.ServerName)
			case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth):
				return fmt.Errorf("%w: its certificate is not a server's", ErrUntrusted)
			}
			return nil
		},
	}
}

// pin is the pin that the settings name, or else the CA that an earlier process met under its pin: the file named by the
// settings may have been in the initrd and be gone.
func (d Dir) pin(ca string) (*Pin, error) {
	if _, err := os.Stat(d.CAFile()); ca == "" && err == nil {
		ca = d.CAFile()
	}
	p, err := ParsePin(ca)
	if err == nil {
		p.Learn(d.CAFile())
	}
	return p, err
}
