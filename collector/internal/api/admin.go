// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"provost/collector/internal/auth"
	"provost/proto"
)

// Admin is what the API asks of the program around it. What is nil is no route.
type Admin struct {
	// Reload reads profiles and sequences anew; a *proto.Problem says what is wrong with them.
	Reload func() (*proto.ReloadAnswer, error)
	// Backup gives a copy of the database, which nobody else uses; the file is closed here.
	Backup func(context.Context) (*os.File, error)
	// Metrics writes the program's own figures in Prometheus' text format.
	Metrics func(io.Writer)
	// ConfigDir is where the profiles are, and Problems is what is wrong with those that were left out.
	ConfigDir string
	Problems  func() []string
}

const backupPattern = "/v1/backup"

func adminRoutes() []Route {
	return []Route{
		{"GET", "/v1/tokens", auth.ScopeAdmin, 0, (*API).tokens},
		{"DELETE", "/v1/tokens/{name}", auth.ScopeAdmin, 0, (*API).revokeToken},
		{"POST", "/v1/reload", auth.ScopeAdmin, maxOrder, (*API).reload},
		{"GET", backupPattern, auth.ScopeAdmin, 0, (*API).backup},
		{"GET", "/metrics", auth.ScopeRead, 0, (*API).metrics},
	}
}

func (a *API) tokens(c *call) error {
	return c.json(http.StatusOK, proto.TokenList{Schema: proto.Schema, Tokens: a.cfg.Registry.Tokens()})
}

func (a *API) revokeToken(c *call) error {
	if err := a.cfg.Registry.RevokeToken(c.ctx(), c.r.PathValue("name")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) reload(c *call) error {
	if a.cfg.Admin.Reload == nil {
		return notServed()
	}
	answer, err := a.cfg.Admin.Reload()
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}

func notServed() *proto.Problem {
	return problem(404, proto.CodeNotFound, "", "this collector does not serve it")
}

// backupTime bounds the making of a backup; the sending has the bound of a log's.
const backupTime = time.Hour

func (a *API) backup(c *call) error {
	if a.cfg.Admin.Backup == nil {
		return notServed()
	}
	c.ctl.SetWriteDeadline(time.Now().Add(backupTime))
	ctx, cancel := context.WithTimeout(c.ctx(), backupTime)
	defer cancel()
	f, err := a.cfg.Admin.Backup(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	c.ctl.SetWriteDeadline(time.Now().Add(logTime(info.Size())))
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	if _, err := io.Copy(c.w, f); err != nil {
		a.cfg.Log.Warn("sending a backup", "remote", c.r.RemoteAddr, "error", err)
	}
	return nil
}

// metrics answers in Prometheus' text format.
func (a *API) metrics(c *call) error {
	var b bytes.Buffer
	if a.cfg.Admin.Metrics != nil {
		a.cfg.Admin.Metrics(&b)
	}
	a.writeMetrics(&b)
	h := c.w.Header()
	h.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	c.w.Write(b.Bytes())
	return nil
}
