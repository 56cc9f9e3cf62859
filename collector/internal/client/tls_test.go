// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/client"
	"provost/proto"
)

// authority is a CA that can certify servers.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, from, to time.Time) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: from, NotAfter: to, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pin() string {
	sum := sha256.Sum256(a.cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (a authority) file(t *testing.T) string {
	p := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// server certifies a server of that name; along is sent behind its own certificate.
func (a authority) server(t *testing.T, name string, along ...*x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	out := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, c := range along {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

// TestTrust shows which servers get a token, and that the others get not one byte of the request.
func TestTrust(t *testing.T) {
	hour := time.Hour
	now := time.Now()
	ours, other := newAuthority(t, now.Add(-hour), now.Add(hour)), newAuthority(t, now.Add(-hour), now.Add(hour))
	past, future := newAuthority(t, now.Add(-9*hour), now.Add(-8*hour)), newAuthority(t, now.Add(8*hour), now.Add(9*hour))
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("pvo_secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		ca   string
		max  uint16 // TLS version of the server
		good bool
	}{
		{"pin", ours.server(t, proto.ServerName, ours.cert), ours.pin(), 0, true},
		{"pin, expired", past.server(t, proto.ServerName, past.cert), past.pin(), 0, true},
		{"pin, not yet valid", future.server(t, proto.ServerName, future.cert), future.pin(), 0, true},
		{"pin, CA not sent", ours.server(t, proto.ServerName), ours.pin(), 0, false},
		{"pin, another CA's", other.server(t, proto.ServerName, other.cert), ours.pin(), 0, false},
		{"pin, another CA's that shows ours", other.server(t, proto.ServerName, ours.cert), ours.pin(), 0, false},
		{"pin, another name", ours.server(t, "localhost", ours.cert), ours.pin(), 0, false},
		{"pin of the leaf of another", other.server(t, proto.ServerName, other.cert, ours.cert), ours.pin(), 0, false},
		{"pin, TLS 1.2", ours.server(t, proto.ServerName, ours.cert), ours.pin(), tls.VersionTLS12, false},
		{"file", ours.server(t, proto.ServerName), ours.file(t), 0, true},
		{"file, another CA's", other.server(t, proto.ServerName, other.cert), ours.file(t), 0, false},
		{"file, another name", ours.server(t, "localhost"), ours.file(t), 0, false},
		{"file, expired", past.server(t, proto.ServerName), past.file(t), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked, auth := 0, ""
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				auth = r.Header.Get("Authorization")
				io.WriteString(w, `{"schema":1,"version":"v"}`)
			}))
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{tt.cert}, MaxVersion: tt.max}
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			defer srv.Close()
			cl, err := client.New(client.Config{Server: srv.URL, CA: tt.ca, TokenFile: token})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			_, err = cl.Version(t.Context())
			var u *client.UnreachableError
			switch {
			case tt.good && (err != nil || auth != "Bearer pvo_secret"):
				t.Errorf("Version() = %v, Authorization %q", err, auth)
			case !tt.good && (!errors.As(err, &u) || asked > 0):
				t.Errorf("Version() = %v after %d requests, want none", err, asked)
			case err != nil && strings.Contains(err.Error(), "pvo_"):
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}
