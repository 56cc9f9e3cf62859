// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"

	"provost/collector/internal/registry"
	"provost/proto"
)

// maxInventory bounds an inventory in bytes: 100,000 nodes of 300 bytes each.
const maxInventory = 32 << 20

// by is whose call it is, for the history.
func (c *call) by() registry.Caller {
	caller := registry.Caller{Actor: c.who.actor, Client: proto.Clip(c.r.UserAgent(), 64), Addr: c.addr()}
	if c.r.TLS != nil {
		caller.Asked = c.r.TLS.ServerName
	}
	return caller
}

func (a *API) renameNode(c *call) error {
	var o proto.Rename
	if err := c.decode(&o, true); err != nil {
		return err
	}
	n, err := a.cfg.Registry.RenameNode(c.ctx(), c.r.PathValue("node"), o.Name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, n)
}

func (a *API) inventory(c *call) error {
	var inv proto.Inventory
	if err := c.decode(&inv, true); err != nil {
		return err
	}
	defer c.patient(len(inv.Nodes))()
	answer, err := a.cfg.Registry.Import(c.ctx(), inv)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}
