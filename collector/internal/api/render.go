// SPDX-License-Identifier: Apache-2.0

package api

import "net/http"

// render shows what a node's installer would get. It has no secrets, so that who may read may see it.
func (a *API) render(c *call) error {
	host, urls := a.cfg.Reach(c.r.Host)
	out, err := a.cfg.Registry.Render(c.r.PathValue("node"), host, urls)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, out)
}
