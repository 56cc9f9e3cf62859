// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"provost/proto"
)

// selected evaluates the {nodes} of an order; body is what its body says of it. Nothing may be ordered of nothing.
func (a *API) selected(c *call, body string, discovered bool) ([]string, error) {
	expr := c.r.PathValue("nodes")
	switch {
	case expr == proto.SetInBody && body == "":
		return nil, problem(400, proto.CodeBadRequest, "", "the path says %q for the node set, and the body has no nodes", expr)
	case expr == proto.SetInBody:
		expr = body
	case body != "":
		return nil, problem(400, proto.CodeBadRequest, "write - for it in the path", "a node set in the path, and one in the body")
	}
	names, err := a.cfg.Registry.Select(expr, discovered)
	if err == nil && len(names) == 0 {
		err = problem(409, proto.CodeConflict, "provost status shows every node", "the node set %q has no node now", proto.Clip(expr, 200))
	}
	return names, err
}

// listHead is the begin of a list of nodes.
func (a *API) listHead(changes ...proto.PlanChange) ([]byte, error) {
	at := a.cfg.Registry.Cursor() // before the nodes are looked at: what comes in between is in the feed as well
	l := proto.NodeList{Schema: proto.Schema, Revision: at.Revision, Cursor: at.String(), PlanChanges: changes, Nodes: []proto.Node{}}
	if a.cfg.Warnings != nil {
		l.Warnings = a.cfg.Warnings()
	}
	if a.cfg.Blind != nil {
		l.Blind = a.cfg.Blind()
	}
	head, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return bytes.TrimSuffix(head, []byte("]}")), nil // nodes is the last, and empty
}

// list answers with the named nodes, as they are encoded.
func (a *API) list(c *call, names []string, changes ...proto.PlanChange) error {
	head, err := a.listHead(changes...)
	if err != nil {
		return err
	}
	c.head(http.StatusOK)
	c.w.Write(head)
	err = a.cfg.Registry.EncodeNodes(names, func(b []byte) error { _, err := c.w.Write(b); return err })
	if err != nil {
		a.cfg.Log.Debug("list of nodes broken off", "remote", c.r.RemoteAddr, "error", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
	c.w.Write([]byte("]}"))
	return nil
}

// listAll answers with every node: 100,000 of them are some 40 MB.
func (a *API) listAll(c *call) error {
	head, err := a.listHead()
	if err != nil {
		return err
	}
	parts, err := a.cfg.Registry.EncodeAll()
	if err != nil {
		return err
	}
	parts = append(append([][]byte{head}, parts...), []byte("]}"))
	if _, packed := c.w.(*compressed); !packed {
		size := 0
		for _, b := range parts {
			size += len(b)
		}
		c.w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	c.head(http.StatusOK)
	for _, b := range parts {
		c.w.Write(b) // the client may have gone; there is nobody to tell
	}
	return nil
}

func (a *API) status(c *call) error {
	q := c.r.URL.Query()
	return a.statusOf(c, proto.Selection{Nodes: q.Get("nodes"), Label: q.Get("label")})
}

func (a *API) postStatus(c *call) error {
	var q proto.Selection
	if err := c.decode(&q, true); err != nil {
		return err
	}
	return a.statusOf(c, q)
}

func (a *API) statusOf(c *call, q proto.Selection) error {
	expr, label := q.Nodes, q.Label
	if expr == "" {
		expr = "@all"
	}
	if expr == "@all" && label == "" {
		return a.listAll(c)
	}
	names, err := a.cfg.Registry.Select(expr, true)
	if err != nil {
		return err
	}
	if label != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return a.cfg.Registry.Label(name) != label })
	}
	return a.list(c, names)
}

func (a *API) node(c *call) error {
	n, err := a.cfg.Registry.Node(c.r.PathValue("node"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, n)
}

func (a *API) addNode(c *call) error {
	var spec proto.NodeSpec
	if err := c.decode(&spec, true); err != nil {
		return err
	}
	n, err := a.cfg.Registry.AddNode(c.ctx(), spec)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, n)
}

func (a *API) patchNodes(c *call) error {
	var patch proto.NodePatch
	if err := c.decode(&patch, true); err != nil {
		return err
	}
	names, err := a.selected(c, patch.Nodes, false)
	if err != nil {
		return err
	}
	defer c.patient(len(names))()
	if err := a.cfg.Registry.PatchNodes(c.ctx(), names, patch); err != nil {
		return err
	}
	return a.list(c, names)
}

func (a *API) removeNodes(c *call) error {
	var o proto.Removal
	if err := c.decode(&o, true); err != nil {
		return err
	}
	names, err := a.selected(c, o.Nodes, true)
	if err != nil {
		return err
	}
	defer c.patient(len(names))()
	if err := a.cfg.Registry.RemoveNodes(c.ctx(), names, o.Reason); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) install(c *call) error {
	var o proto.InstallOrder
	if err := c.decode(&o, true); err != nil {
		return err
	}
	return a.order(c, "install", o.Nodes, o, func(ctx context.Context, names []string) ([]proto.PlanChange, error) {
		return nil, a.cfg.Registry.Order(ctx, names, o, c.who.actor)
	})
}

func (a *API) command(c *call, verb proto.Verb) error {
	var o proto.NodeOrder
	if err := c.decode(&o, true); err != nil {
		return err
	}
	return a.order(c, string(verb), o.Nodes, o, func(ctx context.Context, names []string) ([]proto.PlanChange, error) {
		if verb == proto.VerbRetry {
			return a.cfg.Registry.Retry(ctx, names, o, c.who.actor)
		}
		return nil, a.cfg.Registry.Command(ctx, names, verb, o, c.who.actor)
	})
}

func (a *API) boot(c *call) error {
	var o proto.NodeOrder
	if err := c.decode(&o, true); err != nil {
		return err
	}
	if o.Step != "" || o.SamePlan {
		return problem(400, proto.CodeBadRequest, "", "boot takes no step and no same_plan")
	}
	return a.order(c, "boot", o.Nodes, o, func(ctx context.Context, names []string) ([]proto.PlanChange, error) {
		return nil, a.cfg.Registry.SetBootAction(ctx, names, o.Action, c.who.actor, o.Reason)
	})
}
