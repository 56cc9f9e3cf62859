// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// keysLimit bounds the size of a file of keys.
const keysLimit = 1 << 20

// ParseKeys reads authorized keys in the format of sshd(8), one per line; # starts a comment. A line that has options is
// an error: an option restricts a key, and what is not understood must not be ignored. Name is for the errors.
func ParseKeys(name string, text []byte) ([]ssh.PublicKey, error) {
	if len(text) > keysLimit {
		return nil, fmt.Errorf("%s has %d bytes: at most %d", name, len(text), keysLimit)
	}
	var keys []ssh.PublicKey
	var errs []error
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s:%d: this is no SSH public key: write it as in id_ed25519.pub", name, n))
		case len(options) > 0:
			errs = append(errs, fmt.Errorf("%s:%d: options of a key are not supported: give the key alone", name, n))
		default:
			keys = append(keys, key)
		}
	}
	return keys, errors.Join(errs...)
}

// HostKey reads the host's key, an Ed25519 key in OpenSSH's format, or makes it if the file is not there. Two processes
// that make it at once get the same one. What it makes survives the process; a power cut may cost it, and then the node
// has another one.
func HostKey(path string) (ssh.Signer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeHostKey(path); err == nil {
			b, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("reading the host key %s: %w: remove the file, and a new one is made", path, err)
	}
	return key, nil
}

func makeHostKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "provost rescue")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".hostkey-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(pem.EncodeToMemory(block))
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// A link, unlike a rename, does not take the place of the key that somebody else made meanwhile.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Line is a public key as a known_hosts file has it behind the host's name.
func Line(key ssh.PublicKey) string { return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))) }

// Describe is Line with the key's fingerprint.
func Describe(key ssh.PublicKey) string { return Line(key) + " " + ssh.FingerprintSHA256(key) }
