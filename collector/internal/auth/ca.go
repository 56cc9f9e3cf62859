// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"provost/proto"
)

// The files of a CA's directory. A certificate that the CA made is in one file with its key: it is replaced as a whole.
const (
	caFile     = "ca.pem"
	caKeyFile  = "ca-key.pem"
	serverFile = "server.pem"
	signerFile = "plan-signer.pem"
)

// How long certificates live. Agents that pin the CA do not look at dates; the limits are for browsers and curl.
const (
	caLife      = 20 * 365 * 24 * time.Hour
	serverLife  = 2 * 365 * 24 * time.Hour // Safari takes at most 825 days
	signerLife  = 10 * 365 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
	backdate    = 24 * time.Hour // for clocks that are a little behind
)

// CA is the collector's own certificate authority with the two keys that it certifies; while a new one takes its place,
// both. It may be used by any number of goroutines.
type CA struct {
	dir   string
	hosts []string
	// The present issuer, and behind it the one before until its time is over.
	issuers atomic.Pointer[[]*issuer]
}

// issuer is one CA with what it certified.
type issuer struct {
	cert   *x509.Certificate
	key    crypto.Signer
	server leaf
	signer leaf
}

type leaf struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// OpenCA loads the CA in dir, or makes it where there is none: ca.pem and ca-key.pem (ECDSA P-256, which browsers know),
// server.pem (ECDSA P-256) and plan-signer.pem (Ed25519). The certificates of the last two are made anew when they are
// missing or end within 30 days, the server's also when it lacks one of the hosts: further names and addresses by which
// browsers may reach the collector. Clients that pin the CA look at none of these.
//
// Only one of ca.pem and ca-key.pem, a key of another certificate, or a key that others may read is an error, and
// nothing is written then: nodes trust this one CA, and another one in its place would lock them out. Each file is
// written whole or not at all, whenever the machine dies. Two processes must not open the same new directory at once.
func OpenCA(dir string, hosts ...string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of the CA: %w", err)
	}
	ca := &CA{dir: dir, hosts: hosts}
	return ca, ca.open(true)
}

// Refresh looks at the files again: what was rotated or issued since counts from now on, certificates that end soon are
// made anew, and an overlap that is over ends. After an error everything is as it was.
func (ca *CA) Refresh() error { return ca.open(false) }

func (ca *CA) open(make bool) error {
	now := time.Now()
	old, err := openOld(ca.dir, now)
	if err != nil {
		return err
	}
	present, err := openIssuer(ca.dir, now, make, ca.hosts)
	if err != nil {
		return err
	}
	all := []*issuer{present}
	if old {
		before, err := openIssuer(filepath.Join(ca.dir, oldDir), now, false, ca.hosts)
		if err != nil {
			return err
		}
		all = append(all, before)
	}
	ca.issuers.Store(&all)
	return nil
}

func openIssuer(dir string, now time.Time, make bool, hosts []string) (*issuer, error) {
	ca, err := loadCA(dir)
	if make && errors.Is(err, fs.ErrNotExist) {
		ca, err = makeCA(dir, now)
	}
	if err != nil {
		return nil, err
	}
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("the CA in %s ended on %s: move the directory away; nodes that are being installed have to be ordered again",
			dir, ca.cert.NotAfter.Format(time.DateOnly))
	}
	template := x509.Certificate{
		Subject:     pkix.Name{CommonName: proto.ServerName},
		DNSNames:    []string{proto.ServerName, "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	ca.server, err = ca.openLeaf(dir, serverFile, now, serverLife, newP256, template)
	if err != nil {
		return nil, err
	}
	ca.signer, err = ca.openLeaf(dir, signerFile, now, signerLife, newEd25519, x509.Certificate{
		Subject: pkix.Name{CommonName: proto.PlanSigner},
	})
	if err != nil {
		return nil, err
	}
	return ca, nil
}

// Pin is what provost.ca= on a kernel command line holds: "sha256:" and the SHA-256 of the present CA's DER in hex.
func (ca *CA) Pin() string { return PinOf((*ca.issuers.Load())[0].cert) }

// PinOf is the pin of a CA's certificate.
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PEM is the CA's certificate; during an overlap the old one's too, behind it.
func (ca *CA) PEM() []byte {
	var b []byte
	for _, i := range *ca.issuers.Load() {
		b = append(b, i.pem()...)
	}
	return b
}

func (ca *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Certificates are those of the present server and CA, for people.
func (ca *CA) Certificates() []*x509.Certificate {
	i := (*ca.issuers.Load())[0]
	return []*x509.Certificate{i.server.cert, i.cert}
}

// asked gives the issuer whose PinName a client asked for. One that asks for none trusts what it was given some time ago:
// during an overlap that is the old one, or both.
func (ca *CA) asked(name string) *issuer {
	all := *ca.issuers.Load()
	for _, i := range all {
		if proto.PinName(sha256.Sum256(i.cert.Raw)) == name {
			return i
		}
	}
	return all[len(all)-1]
}

// TLSConfig is for the collector's listener: TLS 1.3 only. The chain that it sends includes the CA's certificate, so
// that a client that knows its hash only can verify the rest.
func (ca *CA) TLSConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			i := ca.asked(h.ServerName)
			return &tls.Certificate{
				Certificate: [][]byte{i.server.cert.Raw, i.cert.Raw},
				PrivateKey:  i.server.key,
				Leaf:        i.server.cert,
			}, nil
		},
	}
	c.GetConfigForClient = (&tickets{ca: ca, config: c.Clone()}).forClient
	return c
}

// SignPlan checks the plan and signs its JSON, in the way that proto.SignedPlan tells, under the CA that a client trusts which
// asked for a name in its handshake.
func (ca *CA) SignPlan(name string, p *proto.Plan) (*proto.SignedPlan, error) {
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("signing the plan of %s: %w", p.Node, err)
	}
	i := ca.asked(name)
	signed, err := i.sign(p)
	if err != nil {
		return nil, err
	}
	if bare, had := p.WithoutSecrets(proto.EveryPhase); had {
		signed.Bare, err = i.sign(bare)
	}
	return signed, err
}

func (ca *issuer) sign(p *proto.Plan) (*proto.SignedPlan, error) {
	payload, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding the plan of %s: %w", p.Node, err)
	}
	sig, err := ca.signer.key.Sign(rand.Reader, slices.Concat([]byte(proto.PlanContext), payload), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("signing the plan of %s: %w", p.Node, err)
	}
	return &proto.SignedPlan{Payload: payload, Signature: sig, Cert: slices.Clone(ca.signer.cert.Raw)}, nil
}

// loadCA gives an error that is fs.ErrNotExist when there is neither certificate nor key.
func loadCA(dir string) (*issuer, error) {
	certPath, keyPath := filepath.Join(dir, caFile), filepath.Join(dir, caKeyFile)
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := readSecret(keyPath)
	noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCert && noKey:
		return nil, fmt.Errorf("no CA in %s: %w", dir, fs.ErrNotExist)
	case noKey:
		return nil, fmt.Errorf("%s is there, its key %s is not: bring the key back from a backup", certPath, caKeyFile)
	case noCert:
		return nil, fmt.Errorf("%s is there, its certificate %s is not: bring it back from a backup; after a first start that was cut short, remove the key",
			keyPath, caFile)
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("reading the CA: %w", errors.Join(certErr, keyErr))
	}
	l, err := parsePair(slices.Concat(certPEM, []byte("\n"), keyPEM))
	if err != nil {
		return nil, fmt.Errorf("reading the CA in %s: %w: bring %s and %s back from a backup", dir, err, caFile, caKeyFile)
	}
	if !l.cert.IsCA {
		return nil, fmt.Errorf("%s is no CA's certificate: bring it back from a backup", certPath)
	}
	return &issuer{cert: l.cert, key: l.key}, nil
}

// makeCA writes the key before the certificate: while there is no certificate nobody can have pinned it.
func makeCA(dir string, now time.Time) (*issuer, error) {
	for _, name := range []string{serverFile, signerFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s has %s, but neither %s nor %s: bring them back from a backup", dir, name, caFile, caKeyFile)
		}
	}
	key, err := newP256()
	if err != nil {
		return nil, fmt.Errorf("making the key of the CA: %w", err)
	}
	serial := newSerial()
	template := &x509.Certificate{
		SerialNumber: serial,
		// the serial number keeps two collectors' CAs apart in a browser's list
		Subject:               pkix.Name{CommonName: "Provost CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := certify(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of the CA: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of the CA: %w", err)
	}
	ca := &issuer{cert: cert, key: key}
	if err := writeFile(dir, caKeyFile, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(dir, caFile, ca.pem(), 0o644); err != nil {
		return nil, err
	}
	return ca, nil
}

// covers reports whether a certificate has every name and address of a template.
func covers(cert, template *x509.Certificate) bool {
	for _, name := range template.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range template.IPAddresses {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// openLeaf loads the certificate and key in dir/name; where they are missing, end soon, lack a name, or come from another
// CA, it makes them after the template.
func (ca *issuer) openLeaf(dir, name string, now time.Time, life time.Duration, newKey func() (crypto.Signer, error), template x509.Certificate) (leaf, error) {
	path := filepath.Join(dir, name)
	b, err := readSecret(path)
	switch {
	case err == nil:
		l, err := parsePair(b)
		if err != nil {
			return leaf{}, fmt.Errorf("reading %s: %w: remove it, and provostd makes a new one", path, err)
		}
		if l.cert.CheckSignatureFrom(ca.cert) == nil && now.After(l.cert.NotBefore) && l.cert.NotAfter.Sub(now) > renewBefore && covers(l.cert, &template) {
			return l, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return leaf{}, fmt.Errorf("reading certificate: %w", err)
	}
	key, err := newKey()
	if err != nil {
		return leaf{}, fmt.Errorf("making the key of %s: %w", path, err)
	}
	template.SerialNumber = newSerial()
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = now.Add(life)
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	cert, err := certify(&template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return leaf{}, fmt.Errorf("making %s: %w", path, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return leaf{}, fmt.Errorf("encoding the key of %s: %w", path, err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := writeFile(dir, name, slices.Concat(certPEM, keyPEM), 0o600); err != nil {
		return leaf{}, err
	}
	return leaf{cert: cert, key: key}, nil
}

func certify(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newP256() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// newSerial gives 127 random bits with a leading one: positive and of constant length (RFC 5280, 4.1.2.2).
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parsePair reads one certificate and its key from PEM.
func parsePair(b []byte) (leaf, error) {
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return leaf{}, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return leaf{}, fmt.Errorf("a key of type %T cannot sign", pair.PrivateKey)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return leaf{}, err
	}
	return leaf{cert: cert, key: key}, nil
}

// readSecret reads a file that only its owner may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so that others may read a key: look who did, then chmod 600 it", path, info.Mode().Perm())
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(f)
	return b.Bytes(), err
}

// writeFile replaces dir/name; after a power cut there is the old file or the new one.
func writeFile(dir, name string, b []byte, mode fs.FileMode) (err error) {
	path := filepath.Join(dir, name)
	tmp := path + ".tmp"
	defer func() {
		if err != nil {
			os.Remove(tmp)
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
