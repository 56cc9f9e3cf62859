// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"strings"
	"testing"

	"provost/collector/internal/auth"
)

func TestTokens(t *testing.T) {
	for _, use := range []auth.Use{auth.UseAgent, auth.UseJoin, auth.UseOperator} {
		a, b := auth.NewToken(use), auth.NewToken(use)
		if a == b {
			t.Errorf("NewToken(%s) gives the same token twice", use)
		}
		if got, err := auth.ParseToken(a); got != use || err != nil {
			t.Errorf("ParseToken(%q) = %q, %v, want %q", a, got, err, use)
		}
	}
	secret := strings.Repeat("0123456789abcdef", 4)
	for _, s := range []string{"", "pva_", secret, "pvx_" + secret, "pva_" + secret[1:], "pva_" + secret + "0", "pva_" + strings.ToUpper(secret), " pva_" + secret, "pva_" + secret + "\n"} {
		if use, err := auth.ParseToken(s); err != auth.ErrToken {
			t.Errorf("ParseToken(%q) = %q, %v, want ErrToken", s, use, err)
		}
	}
}

func TestMatch(t *testing.T) {
	token := auth.NewToken(auth.UseAgent)
	hash := auth.Hash(token)
	if !auth.Match(hash, token) {
		t.Error("a token does not match its own hash")
	}
	if strings.Contains(hash, token) || len(hash) != 64 {
		t.Errorf("Hash = %q, want 64 hex digits of something else", hash)
	}
	for i := range token {
		flipped := []byte(token)
		flipped[i] ^= 1
		if auth.Match(hash, string(flipped)) {
			t.Errorf("a token with byte %d flipped matches", i)
		}
	}
	for _, c := range [][2]string{{"", ""}, {"", token}, {hash, ""}, {token, token}, {hash[:63], token}, {strings.ToUpper(hash), token}} {
		if auth.Match(c[0], c[1]) {
			t.Errorf("Match(%q, %q) = true", c[0], c[1])
		}
	}
}

func TestAllows(t *testing.T) {
	want := map[auth.Role]string{
		auth.RoleJoin:    "public join",
		auth.RoleRead:    "public read",
		auth.RoleOperate: "public read operate",
		auth.RoleAdmin:   "public read operate admin",
		"":               "public",
		"root":           "public",
	}
	for role, scopes := range want {
		var got []string
		for _, s := range append([]auth.Scope{"", "everything"}, auth.Scopes...) {
			if auth.Allows(role, s) {
				got = append(got, string(s))
			}
		}
		if strings.Join(got, " ") != scopes {
			t.Errorf("role %q may %q, want %q", role, strings.Join(got, " "), scopes)
		}
	}
	for _, r := range auth.Roles {
		if got, err := auth.ParseRole(string(r)); got != r || err != nil {
			t.Errorf("ParseRole(%q) = %q, %v", r, got, err)
		}
	}
	if _, err := auth.ParseRole("root"); err == nil {
		t.Error(`ParseRole("root") is no error`)
	}
}
