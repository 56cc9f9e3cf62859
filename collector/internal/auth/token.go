// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"

	"provost/proto"
)

// Use is what a token is for. It is the token's prefix, so that a person, and a scanner for leaked secrets, sees what
// was found, and a token is looked up in one place only.
type Use string

// The uses of tokens.
const (
	UseAgent    Use = "pva_" // one install of one node
	UseJoin     Use = "pvj_" // the nodes of a site that boots them by itself
	UseOperator Use = "pvo_" // a person or a program, with a role
)

// ErrToken says that a string is no token at all.
var ErrToken = errors.New("not a token of provost: it starts with pva_, pvj_ or pvo_ and has 64 hex digits")

// NewToken makes a token of 256 random bits.
func NewToken(use Use) string { return string(use) + proto.NewSecret() }

// ParseToken gives a token's use, or ErrToken. The token is well-formed then; whether it is known is another matter.
func ParseToken(token string) (Use, error) {
	for _, use := range []Use{UseAgent, UseJoin, UseOperator} {
		if secret, ok := strings.CutPrefix(token, string(use)); ok && proto.ValidDigest(secret) {
			return use, nil
		}
	}
	return "", ErrToken
}

// Hash is what is kept of a secret: SHA-256 in hex. Secrets have 256 random bits, so that nothing slower is needed.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Match reports whether hash is that of secret, in time that does not depend on where they differ. An empty hash
// matches nothing.
func Match(hash, secret string) bool {
	return subtle.ConstantTimeCompare([]byte(hash), []byte(Hash(secret))) == 1
}
