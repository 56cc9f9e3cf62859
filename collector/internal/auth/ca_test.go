// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"provost/collector/internal/auth"
	"provost/proto"
)

func open(t *testing.T, dir string) *auth.CA {
	t.Helper()
	ca, err := auth.OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestOpenCAKeepsTheCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "ca")
	first := open(t, dir)
	before := contents(t, dir)
	second := open(t, dir)
	if first.Pin() != second.Pin() || !bytes.Equal(first.PEM(), second.PEM()) {
		t.Errorf("pin after a second open = %s, want %s", second.Pin(), first.Pin())
	}
	for name, b := range contents(t, dir) {
		if before[name] != b {
			t.Errorf("%s changed at the second open", name)
		}
	}
	block, _ := pem.Decode(first.PEM())
	sum := sha256.Sum256(block.Bytes)
	if want := "sha256:" + hex.EncodeToString(sum[:]); first.Pin() != want {
		t.Errorf("Pin() = %s, want %s", first.Pin(), want)
	}
	if other := open(t, t.TempDir()); other.Pin() == first.Pin() {
		t.Error("two CAs have one pin")
	}
}

func TestFilesOfTheCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	open(t, dir)
	want := map[string]os.FileMode{"ca.pem": 0o644, "ca-key.pem": 0o600, "server.pem": 0o600, "plan-signer.pem": 0o600}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode, ok := want[e.Name()]; !ok || info.Mode() != mode {
			t.Errorf("%s has mode %s, want %s", e.Name(), info.Mode(), mode)
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
	if strings.Contains(contents(t, dir)["ca.pem"], "PRIVATE") {
		t.Error("ca.pem holds a key")
	}
}

// clientConfig is what an agent does that knows the pin only: dates do not count, the name is proto.ServerName.
func clientConfig(pin, name string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates[1:] {
				sum := sha256.Sum256(c.Raw)
				if "sha256:"+hex.EncodeToString(sum[:]) != pin {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: cs.PeerCertificates[0].NotBefore})
				return err
			}
			return errors.New("no certificate of the chain has the pin")
		},
	}
}

func TestTLSConfig(t *testing.T) {
	ca, other := open(t, t.TempDir()), open(t, t.TempDir())
	reached := 0
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached++
		io.WriteString(w, "hello")
	}))
	srv.Listener = tls.NewListener(srv.Listener, ca.TLSConfig()) // httptest would add a certificate of its own
	srv.Start()
	defer srv.Close()
	url := "https://" + srv.Listener.Addr().String()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("PEM() has no certificate")
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		{"pin", clientConfig(ca.Pin(), proto.ServerName), true},
		{"wrong pin", clientConfig(other.Pin(), proto.ServerName), false},
		{"pin, another name", clientConfig(ca.Pin(), "frontend"), false},
		{"the CA's file, the server's name", &tls.Config{RootCAs: roots, ServerName: proto.ServerName}, true},
		{"the CA's file, localhost", &tls.Config{RootCAs: roots, ServerName: "localhost"}, true},
		{"the CA's file, 127.0.0.1", &tls.Config{RootCAs: roots}, true},
		{"the CA's file, TLS 1.2", &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12}, false},
		{"the system's CAs", &tls.Config{ServerName: proto.ServerName}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			reached = 0
			client := http.Client{Transport: &http.Transport{TLSClientConfig: c.config}, Timeout: time.Minute}
			defer client.CloseIdleConnections()
			resp, err := client.Get(url)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != c.ok || (reached == 1) != c.ok {
				t.Errorf("GET = %v and %d requests reached the server, want success: %t", err, reached, c.ok)
			}
		})
	}
}

func plan() *proto.Plan {
	return &proto.Plan{Schema: proto.Schema, Node: "n1", Install: "01J0000000000000000000000A", OnFailure: proto.OnFailureHold,
		Steps: []proto.Step{{Name: "hostname", Phase: proto.PhasePost, Digest: strings.Repeat("ab", 32)}}}
}

// verify follows proto.SignedPlan.
func verify(caPEM []byte, sp *proto.SignedPlan) error {
	cert, err := x509.ParseCertificate(sp.Cert)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		return err
	}
	if cert.Subject.CommonName != proto.PlanSigner {
		return fmt.Errorf("signed by %q", cert.Subject.CommonName)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(key, append([]byte(proto.PlanContext), sp.Payload...), sp.Signature) {
		return errors.New("wrong signature")
	}
	return nil
}

func TestSignPlan(t *testing.T) {
	dir := t.TempDir()
	ca := open(t, dir)
	sp, err := ca.SignPlan("", plan())
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(open(t, dir).PEM(), sp); err != nil {
		t.Errorf("verify = %v", err)
	}
	var p proto.Plan
	if err := json.Unmarshal(sp.Payload, &p); err != nil || p.Node != "n1" {
		t.Errorf("payload has node %q, %v", p.Node, err)
	}
	if err := verify(open(t, t.TempDir()).PEM(), sp); err == nil {
		t.Error("another CA's certificate verifies the plan")
	}
	for i := range sp.Payload {
		bad := *sp
		bad.Payload = bytes.Clone(sp.Payload)
		bad.Payload[i] ^= 1
		if verify(ca.PEM(), &bad) == nil {
			t.Fatalf("with byte %d of the payload flipped the plan verifies", i)
		}
	}
	// the server's certificate comes from the same CA, and must not count as a signer's
	bad := *sp
	bad.Cert = serverCert(t, ca).Raw
	if verify(ca.PEM(), &bad) == nil {
		t.Error("the server's certificate verifies the plan")
	}
}

func TestSignPlanChecksThePlan(t *testing.T) {
	p := plan()
	p.Steps[0].Digest = ""
	if _, err := open(t, t.TempDir()).SignPlan("", p); err == nil || !strings.Contains(err.Error(), "no digest") {
		t.Errorf("SignPlan of a step without a digest = %v", err)
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestDamagedDirectory(t *testing.T) {
	other := t.TempDir()
	open(t, other)
	for _, c := range []struct {
		name string
		do   func(dir string) error
		want string
	}{
		{"no key", func(d string) error { return os.Remove(d + "/ca-key.pem") }, "its key ca-key.pem is not"},
		{"no certificate", func(d string) error { return os.Remove(d + "/ca.pem") }, "its certificate ca.pem is not"},
		{"neither, with others left", func(d string) error { return errors.Join(os.Remove(d+"/ca.pem"), os.Remove(d+"/ca-key.pem")) }, "neither ca.pem nor ca-key.pem"},
		{"another CA's key", func(d string) error {
			b, err := os.ReadFile(other + "/ca-key.pem")
			return errors.Join(err, os.WriteFile(d+"/ca-key.pem", b, 0o600))
		}, "private key does not match"},
		{"empty certificate", func(d string) error { return os.WriteFile(d+"/ca.pem", nil, 0o644) }, "bring ca.pem and ca-key.pem back"},
		{"key that others may read", func(d string) error { return os.Chmod(d+"/ca-key.pem", 0o640) }, "has mode 0640"},
		{"server's key that others may read", func(d string) error { return os.Chmod(d+"/server.pem", 0o604) }, "has mode 0604"},
		{"half a server certificate", func(d string) error { return os.Truncate(d+"/server.pem", 100) }, "remove it"},
		{"a server's certificate in place of the CA's", func(d string) error {
			b, err := os.ReadFile(d + "/server.pem")
			return errors.Join(err, os.WriteFile(d+"/ca.pem", b, 0o644), os.WriteFile(d+"/ca-key.pem", b, 0o600))
		}, "is no CA's certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir)
			if err := c.do(dir); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			_, err := auth.OpenCA(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("OpenCA = %v, want %q", err, c.want)
			}
			after := contents(t, dir)
			if len(after) != len(before) {
				t.Errorf("files after the error: %d, before: %d", len(after), len(before))
			}
			for name := range after {
				if after[name] != before[name] {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

// A start that is cut short at any file leaves a directory that opens, or says what to do.
func TestInterruptedFirstStart(t *testing.T) {
	for _, name := range []string{"server.pem", "plan-signer.pem"} {
		dir := t.TempDir()
		pin := open(t, dir).Pin()
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".tmp")); err != nil {
			t.Fatal(err)
		}
		ca := open(t, dir)
		if ca.Pin() != pin {
			t.Errorf("without %s: pin = %s, want %s", name, ca.Pin(), pin)
		}
		if _, ok := contents(t, dir)[name]; !ok {
			t.Errorf("%s was not made again", name)
		}
		if _, ok := contents(t, dir)[name+".tmp"]; ok {
			t.Errorf("%s.tmp is left over", name)
		}
	}
}

func serverCert(t *testing.T, ca *auth.CA) *x509.Certificate {
	t.Helper()
	c, err := ca.TLSConfig().GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first := open(t, dir)
		cert := serverCert(t, first)
		old, err := first.SignPlan("", plan())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(cert.NotAfter) - 31*24*time.Hour)
		if got := serverCert(t, open(t, dir)); !got.Equal(cert) {
			t.Error("the certificate was renewed 31 days before its end")
		}
		time.Sleep(2 * 24 * time.Hour)
		second := open(t, dir)
		if got := serverCert(t, second); got.Equal(cert) || !got.NotAfter.After(cert.NotAfter) {
			t.Errorf("29 days before its end the certificate ends on %s, want a later day than %s", got.NotAfter, cert.NotAfter)
		}
		if second.Pin() != first.Pin() {
			t.Error("the CA changed with the renewal")
		}
		time.Sleep(9 * 365 * 24 * time.Hour)
		sp, err := open(t, dir).SignPlan("", plan())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(sp.Cert, old.Cert) {
			t.Error("the signer was not renewed in 11 years")
		}
		if err := verify(first.PEM(), sp); err != nil {
			t.Errorf("a plan of the renewed signer: %v", err)
		}
		time.Sleep(10 * 365 * 24 * time.Hour)
		if _, err := auth.OpenCA(dir); err == nil || !strings.Contains(err.Error(), "ended on") {
			t.Errorf("OpenCA after 21 years = %v, want that the CA ended", err)
		}
	})
}
