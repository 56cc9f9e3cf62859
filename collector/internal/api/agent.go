// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"provost/collector/internal/eventjson"
	"provost/collector/internal/store"
	"provost/proto"
)

func (a *API) hello(c *call) error {
	var h proto.Hello
	if err := c.decode(&h, false); err != nil {
		return err
	}
	if err := h.Check(); err != nil {
		return problem(400, proto.CodeBadRequest, "", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if c.who.install == "" && h.Claim == "" && h.JoinKey != "" && !a.cfg.Registry.JoinKey(h.JoinKey) {
		return badToken("the join key is unknown or was revoked")
	}
	answer, err := a.cfg.Registry.Hello(c.ctx(), c.who.install, &h)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}

func (a *API) events(c *call) error {
	var q proto.EventsRequest
	if err := c.decodeBy(&q, false, func(b []byte) bool { return eventjson.DecodeRequest(b, &q) }); err != nil {
		return err
	}
	answer, err := a.cfg.Registry.Events(c.ctx(), c.who.install, &q)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}

func (a *API) heartbeat(c *call) error {
	var h proto.Heartbeat
	if err := c.decode(&h, false); err != nil {
		return err
	}
	answer, err := a.cfg.Registry.Heartbeat(c.ctx(), c.who.install, remoteAddress(c.r), &h)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}

func (a *API) putLog(c *call) error {
	if c.r.PathValue("install") != c.who.install {
		return badToken("the token is another install's")
	}
	offset, err := strconv.ParseInt(c.r.URL.Query().Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		return problem(400, proto.CodeBadRequest, "", "offset: a number of bytes")
	}
	chunk, err := c.body()
	if err != nil {
		return err
	}
	size, err := a.cfg.Registry.AppendLog(c.who.install, c.r.PathValue("name"), offset, chunk)
	if errors.Is(err, store.ErrOffset) {
		p := problem(409, proto.CodeLogOffset, "go on at offset", "the log is %d bytes long here", size)
		p.Offset = size
		return p
	}
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, proto.LogAnswer{Offset: size})
}

// readError is that of a body whose sender broke off, or sent too much.
func readError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return problem(400, proto.CodeBadRequest, "", "reading the body: %v", err)
}

func (a *API) file(c *call) error {
	b, err := a.cfg.Registry.File(c.who.install, c.r.PathValue("sha256"))
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	c.w.Write(b)
	return nil
}

// remoteAddress is the address that a request came from, "" for one without.
func remoteAddress(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().String()
}
