// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"provost/collector/internal/registry"
	"provost/proto"
)

// order gives an order and answers with its nodes; body is what its body says of them. With a key that it was given under
// before, nothing is done, and the nodes are those of then, as they are now: the set may mean others by now.
func (a *API) order(c *call, what, body string, o any, give func(ctx context.Context, names []string) ([]proto.PlanChange, error)) error {
	who := c.by()
	var err error
	if who.Key, err = keyOf(c.r, what, o); err != nil {
		return err
	}
	ctx := registry.By(c.r.Context(), who)
	var names []string
	var changes []proto.PlanChange
	err = a.cfg.Registry.Given(ctx)
	if err == nil {
		names, err = a.selected(c, body, false)
	}
	if err == nil {
		defer c.patient(len(names))()
		changes, err = give(registry.By(c.r.Context(), who), names)
	}
	var given *registry.GivenError
	if errors.As(err, &given) {
		names, changes, err = given.Nodes, given.PlanChanges, nil
	}
	if err != nil {
		return err
	}
	return a.list(c, names, changes...)
}

// keyOf reads the header of an order that has a key, nil without one: a string in quotes (RFC 9651), which many clients leave
// out.
func keyOf(r *http.Request, what string, o any) (*registry.Key, error) {
	all := r.Header.Values(proto.KeyHeader)
	if len(all) == 0 {
		return nil, nil
	}
	name := all[0]
	if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
		name = name[1 : len(name)-1]
	}
	odd := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' || r == ',' || r == ';' }
	if len(all) > 1 || name == "" || len(name) > proto.MaxKey || strings.ContainsFunc(name, odd) {
		return nil, problem(400, proto.CodeBadRequest, "take a random one, like \"8e03978e-40d5-43e8-bc93-6894a57f9324\"",
			"%s is one string of 1 to %d printable characters, without quotes, commas, semicolons and backslashes in it", proto.KeyHeader, proto.MaxKey)
	}
	b, err := json.Marshal([]any{what, r.PathValue("nodes"), o})
	if err != nil {
		return nil, fmt.Errorf("encoding the order: %w", err)
	}
	return &registry.Key{Name: name, Order: proto.Digest(b)}, nil
}
