// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"slices"
	"strings"

	"provost/collector/internal/auth"
	"provost/collector/internal/store"
	"provost/proto"
)

// AddToken makes an operator's token or a join key, under a name of its own. It is shown once and kept hashed.
func (r *Registry) AddToken(ctx context.Context, role auth.Role, name string) (string, error) {
	if err := proto.CheckName("token", name); err != nil {
		return "", badRequest(err)
	}
	use := auth.UseOperator
	if role == auth.RoleJoin {
		use = auth.UseJoin
	}
	token := auth.NewToken(use)
	err := r.update(ctx, func(c *change) error {
		for _, t := range c.r.m.operators {
			if t.Name == name {
				return problem(409, proto.CodeExists, "take another name", "there is a token named %s already, with role %s", name, t.Role)
			}
		}
		t := operatorToken{Name: name, Role: string(role), Created: c.now}
		b, err := encode("token", t)
		if err != nil {
			return err
		}
		c.tx.Put(store.Tokens, auth.Hash(token), b)
		set(&c.operators, auth.Hash(token), &t)
		return nil
	})
	if err != nil {
		return "", err
	}
	return token, nil
}

// Operator gives the role and name of a token, join keys included.
func (r *Registry) Operator(token string) (role auth.Role, name string, ok bool) {
	r.pub.RLock()
	t, ok := r.pub.operators[auth.Hash(token)]
	r.pub.RUnlock()
	if !ok {
		return "", "", false
	}
	return auth.Role(t.Role), t.Name, true
}

// JoinKey reports whether a secret is a join key: the site's own, or a token of that role.
func (r *Registry) JoinKey(secret string) bool {
	if r.opt.JoinKey != "" && auth.Match(auth.Hash(r.opt.JoinKey), secret) {
		return true
	}
	role, _, ok := r.Operator(secret)
	return ok && role == auth.RoleJoin
}

// Tokens lists what AddToken made, by name.
func (r *Registry) Tokens() []proto.TokenInfo {
	r.pub.RLock()
	out := make([]proto.TokenInfo, 0, len(r.pub.operators))
	for _, t := range r.pub.operators {
		out = append(out, proto.TokenInfo{Name: t.Name, Role: t.Role, Created: t.Created})
	}
	r.pub.RUnlock()
	slices.SortFunc(out, func(a, b proto.TokenInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// RevokeToken ends a token: from the commit on nobody gets in by it.
func (r *Registry) RevokeToken(ctx context.Context, name string) error {
	return r.update(ctx, func(c *change) error {
		for hash, t := range c.r.m.operators {
			if t.Name == name {
				c.tx.Delete(store.Tokens, hash)
				set(&c.operators, hash, nil)
				return nil
			}
		}
		return problem(404, proto.CodeNotFound, "provostd token list shows every token", "there is no token %q", proto.Clip(name, 64))
	})
}
