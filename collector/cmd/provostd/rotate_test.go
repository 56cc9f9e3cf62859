// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/client"
	"provost/proto"
)

// pinned is a client as an agent is one: it knows a pin, and asks for it.
func pinned(t *testing.T, pin string) *http.Client {
	t.Helper()
	sum, err := hex.DecodeString(strings.TrimPrefix(pin, "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: proto.PinName([32]byte(sum)), InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, ca := range s.PeerCertificates[1:] {
				if got := sha256.Sum256(ca.Raw); bytes.Equal(got[:], sum) {
					return s.PeerCertificates[0].CheckSignatureFrom(ca)
				}
			}
			return errors.New("the pinned CA is not in the chain")
		}}}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestRotation: a node that is being installed keeps on while the CA is rotated under a running collector, its plans are
// signed by the CA that it trusts, the next boot script has the new pin, and after --finish the old pin is good for nothing.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	config, data := filepath.Join(dir, "etc"), filepath.Join(dir, "data")
	writeTree(t, config, map[string]string{"profiles/fast.yaml": "kernel: images/vmlinuz\nsteps:\n  - {name: one, phase: post}\n", "postscripts/one": "#!/bin/sh\n"})
	t.Setenv("PROVOSTD_DIRS_CONFIG", config)
	d := start(t, data)
	old := d.rec.Pin
	for _, n := range []string{"1", "2"} {
		if got := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n" + n, MACs: []string{"52:54:00:00:00:0" + n}, Profile: "fast"}, nil); got != 201 {
			t.Fatalf("adding a node = %d", got)
		}
	}
	if got := d.local("POST", "/v1/nodes/n1,n2/install", nil, nil); got != 200 {
		t.Fatalf("ordering installs = %d", got)
	}
	words := func(n string) map[string]string {
		t.Helper()
		resp, err := http.Get("http://" + d.rec.BootListen + "/boot/52:54:00:00:00:0" + n)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, w := range strings.Fields(string(b)) {
			k, v, _ := strings.Cut(w, "=")
			out[k] = v
		}
		return out
	}
	before := words("1")
	hello := func(c *http.Client, token string) (*proto.HelloAnswer, error) {
		t.Helper()
		h := proto.Hello{Schema: 1, Env: proto.EnvInstaller, Clock: proto.Clock{Boot: "00000000-0000-4000-8000-000000000001"}, Install: before["provost.install"]}
		if token == "" {
			h.Claim = before["provost.claim"]
		}
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest("POST", "https://"+d.rec.Listen+"/v1/agent/hello", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var a proto.HelloAnswer
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != 200 {
			t.Fatalf("hello = %d, %v", resp.StatusCode, err)
		}
		return &a, nil
	}
	// signed reports whether a plan's signer is of the first CA of a PEM file.
	signed := func(a *proto.HelloAnswer, file string) bool {
		t.Helper()
		cert, err := x509.ParseCertificate(a.Plan.Cert)
		if err != nil {
			t.Fatal(err)
		}
		ca, err := readCert(file)
		if err != nil {
			t.Fatal(err)
		}
		return cert.CheckSignatureFrom(ca) == nil
	}
	first, err := hello(pinned(t, old), "")
	if err != nil {
		t.Fatal(err)
	}

	code, out, errOut := provostd("ca", "rotate", "--data", data)
	if code != 0 || !strings.Contains(out, "old pin      "+old+", counts until") {
		t.Fatalf("ca rotate = %d\n%s%s", code, out, errOut)
	}
	for range 1200 { // 2 minutes; a minute is promised
		b, err := os.ReadFile(filepath.Join(data, "listeners.json"))
		if err == nil && json.Unmarshal(b, &d.rec) == nil && d.rec.Pin != old {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	fresh := d.rec.Pin
	if fresh == old {
		t.Fatalf("the running collector does not use the new CA\n%s", d.err)
	}
	if got := words("2")["provost.ca"]; got != fresh {
		t.Errorf("the next boot script has the pin %s, want %s", got, fresh)
	}
	a, err := hello(pinned(t, old), first.Token)
	if err != nil || !signed(a, filepath.Join(data, "ca", "old", "ca.pem")) || !bytes.Equal(a.Plan.Payload, first.Plan.Payload) {
		t.Errorf("the node that has the old pin: %v, want the same plan, signed by the old CA", err)
	}
	if a, err := hello(pinned(t, fresh), first.Token); err != nil || !signed(a, filepath.Join(data, "ca", "ca.pem")) {
		t.Errorf("a node with the new pin: %v, want a plan signed by the new CA", err)
	}
	operator := func(ca string) error {
		c, err := client.New(client.Config{Server: "https://" + d.rec.Listen, CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Version(t.Context())
		return err
	}
	bundle := filepath.Join(dir, "ca.pem")
	b, err := os.ReadFile(filepath.Join(data, "ca", "ca.pem"))
	if err == nil {
		err = os.WriteFile(bundle, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{old, fresh, bundle, filepath.Join(data, "ca", "old", "ca.pem")} {
		if err := operator(ca); err != nil {
			t.Errorf("an operator with --ca %s during the overlap: %v", ca, err)
		}
	}
	code, out, errOut = provostd("ca", "rotate", "--data", data)
	if code != 1 || !strings.Contains(errOut, "--finish") {
		t.Errorf("a second rotation = %d\n%s%s", code, out, errOut)
	}
	if code, out, errOut := provostd("ca", "rotate", "--finish", "--data", data); code != 0 || !strings.Contains(out, fresh) {
		t.Fatalf("ca rotate --finish = %d\n%s%s", code, out, errOut)
	}
	for range 1200 {
		if _, err = hello(pinned(t, old), first.Token); err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err == nil {
		t.Error("the old pin is good after --finish")
	}
	for ca, good := range map[string]bool{old: false, fresh: true, bundle: true} {
		if err := operator(ca); (err == nil) != good {
			t.Errorf("an operator with --ca %s after --finish: %v, want success: %v", ca, err, good)
		}
	}
	if _, err := hello(pinned(t, fresh), first.Token); err != nil {
		t.Errorf("a node with the new pin after --finish: %v", err)
	}
}
