// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"

	"provost/proto"
)

// doctor says what the collector finds when it looks at itself. What it cannot look at is left out.
func (a *API) doctor(c *call) error {
	d := proto.Doctor{Schema: proto.Schema, Version: a.cfg.Version, Checks: []proto.Check{}}
	if a.cfg.Doctor != nil {
		d.Checks = append(d.Checks, a.cfg.Doctor(c.ctx(), a.cfg.Profiles)...)
	}
	return c.json(http.StatusOK, d)
}
