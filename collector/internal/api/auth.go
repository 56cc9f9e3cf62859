// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"provost/collector/internal/auth"
	"provost/proto"
)

// principal is who asks.
type principal struct {
	install string    // an agent of this install
	role    auth.Role // an operator, or a join key
	actor   string    // for the history
	token   bool      // it showed a token, of whatever kind
}

type peerKey struct{}

// ConnContext keeps the user of a unix socket's peer: an http.Server's ConnContext.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || credErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer{cred.Uid, loginOf(cred.Pid)})
}

// identify finds out who asks. A token that is good for nothing is an error even where none is needed.
func (a *API) identify(r *http.Request) (principal, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if p, ok := r.Context().Value(peerKey{}).(peer); ok {
			return principal{role: auth.RoleAdmin, actor: p.name()}, nil
		}
		return principal{}, nil
	}
	token, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return principal{}, badToken("the Authorization header is not of the form: Bearer TOKEN")
	}
	use, err := auth.ParseToken(token)
	if err != nil {
		return principal{}, badToken("the token is not one of this collector's")
	}
	if use == auth.UseAgent {
		id, err := a.cfg.Registry.Agent(token)
		return principal{install: id, token: true}, err
	}
	if use == auth.UseJoin {
		if !a.cfg.Registry.JoinKey(token) {
			return principal{}, badToken("the join key is unknown or was revoked")
		}
		return principal{role: auth.RoleJoin, actor: "join key", token: true}, nil
	}
	role, name, ok := a.cfg.Registry.Operator(token)
	if !ok || role == auth.RoleJoin {
		return principal{}, badToken("the token is unknown or was revoked")
	}
	return principal{role: role, actor: "token " + name, token: true}, nil
}

// may refuses what a scope does not allow. A hello proves itself by its body, or by an agent's token.
func (p principal) may(scope auth.Scope) error {
	none := !p.token && p.role == ""
	switch scope {
	case auth.ScopePublic:
		return nil
	case auth.ScopeJoin:
		if p.token && p.install == "" {
			return badToken("a join key and a claim go into the body of a hello; only an agent's token goes into the header")
		}
		return nil
	case auth.ScopeAgent:
		if p.install != "" {
			return nil
		}
		if p.token {
			return badToken("the token is not an agent's")
		}
		return problem(401, proto.CodeNoCredentials, "an agent gets its token by POST /v1/agent/hello", "this needs the token of an agent")
	}
	switch {
	case none && p.install == "":
		return problem(401, proto.CodeNoCredentials, "on the frontend use the unix socket; elsewhere a token: provostd token add --role read NAME", "this needs an operator's token")
	case !auth.Allows(p.role, scope):
		return problem(403, proto.CodeForbidden, "ask for a token with the role "+string(scope), "%s may not do this", p.describe())
	}
	return nil
}

func (p principal) describe() string {
	if p.install != "" {
		return "an agent"
	}
	return fmt.Sprintf("the role %s", p.role)
}

func badToken(detail string) *proto.Problem {
	return problem(401, proto.CodeBadCredentials, "check the token; it may have expired or been revoked", "%s", detail)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username + " (uid " + id + ")"
	}
	return "uid " + id
}
