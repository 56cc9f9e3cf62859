// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"strconv"

	"provost/collector/internal/auth"
	"provost/proto"
)

func (a *API) profiles(c *call) error {
	l := proto.ProfileList{Schema: proto.Schema, Profiles: []proto.ProfileInfo{}, ConfigDir: a.cfg.Admin.ConfigDir}
	if a.cfg.Admin.Problems != nil {
		l.Problems = a.cfg.Admin.Problems()
	}
	for _, name := range a.cfg.Profiles.Names() {
		if p, ok := a.cfg.Profiles.Info(name); ok {
			l.Profiles = append(l.Profiles, p)
		}
	}
	return c.json(http.StatusOK, l)
}

func (a *API) profile(c *call) error {
	name := c.r.PathValue("name")
	p, ok := a.cfg.Profiles.Info(name)
	if !ok {
		return problem(404, proto.CodeUnknownProfile, "provost profile list shows every profile", "there is no profile %q", proto.Clip(name, 64))
	}
	return c.json(http.StatusOK, p)
}

func (a *API) addToken(c *call) error {
	var o proto.TokenOrder
	if err := c.decode(&o, true); err != nil {
		return err
	}
	role, err := auth.ParseRole(o.Role)
	if err != nil {
		return problem(400, proto.CodeBadRequest, "", "%v", err)
	}
	token, err := a.cfg.Registry.AddToken(c.ctx(), role, o.Name)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, proto.TokenAnswer{Schema: proto.Schema, Token: token})
}

func (a *API) version(c *call) error {
	return c.json(http.StatusOK, proto.VersionInfo{Schema: proto.Schema, Version: a.cfg.Version})
}

func (a *API) ca(c *call) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/x-pem-file")
	pem := a.cfg.CA()
	h.Set("Content-Length", strconv.Itoa(len(pem)))
	c.w.Write(pem)
	return nil
}

type health struct {
	Status string `json:"status"`
}

// healthz: the process answers.
func (a *API) healthz(c *call) error { return c.json(http.StatusOK, health{"ok"}) }

// readyz: it also takes what it is given.
func (a *API) readyz(c *call) error {
	if a.cfg.Ready != nil {
		if err := a.cfg.Ready(); err != nil {
			return err
		}
	}
	return c.json(http.StatusOK, health{"ok"})
}
