// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"provost/proto"
)

// tlsConfig trusts one CA and nothing else: a collector has its own, so the machine's list of authorities never
// counts. The server's name is always proto.ServerName, whatever address was dialled.
func tlsConfig(ca string) (*tls.Config, error) {
	hint := "provostd prints its sha256:… when it starts; the certificate is ca/ca.pem in its data directory"
	bad := func(err error) error { return &ConfigError{Setting: "ca", Err: err, Hint: hint} }
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: proto.ServerName}
	if ca == "" {
		return nil, bad(errors.New("https without --ca: nothing says which collector to trust"))
	}
	if pin, ok := strings.CutPrefix(ca, "sha256:"); ok {
		sum, err := hex.DecodeString(pin)
		if err != nil || len(sum) != sha256.Size {
			return nil, bad(fmt.Errorf("ca %q: a pin is sha256: and 64 hex digits", proto.Clip(ca, 100)))
		}
		cfg.ServerName = proto.PinName([sha256.Size]byte(sum)) // of two CAs that the collector may have for a while
		cfg.InsecureSkipVerify = true                          // verifyPin does all of it, with other rules for dates
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyPin(s, [sha256.Size]byte(sum)) }
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, bad(fmt.Errorf("reading CA: %w", err))
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, bad(fmt.Errorf("CA file %s holds no certificate in PEM", ca))
	}
	return cfg, nil
}

// ErrPin is the answer to every server that does not show the pinned CA.
var ErrPin = errors.New("the server's certificates lead to no CA of the pinned sha256: this is another collector, or somebody in between")

// verifyPin accepts a chain that leads to the certificate with that digest, which the server sends along. Dates are
// ignored, as everywhere under a pin: whoever pins a CA knows that it is the one.
func verifyPin(s tls.ConnectionState, pin [sha256.Size]byte) error {
	var root *x509.Certificate
	between := x509.NewCertPool()
	var from time.Time
	for _, c := range s.PeerCertificates {
		if sha256.Sum256(c.Raw) == pin {
			root = c
		} else {
			between.AddCert(c)
		}
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
	}
	if root == nil || len(s.PeerCertificates) == 0 {
		return ErrPin
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: proto.ServerName, Roots: roots, Intermediates: between,
		CurrentTime: from, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("checking the server's certificate under the pinned CA: %w", err)
	}
	return nil
}
