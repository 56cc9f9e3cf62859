// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"provost/proto"
)

// Operator is the administrator of the site: a client of the collector's unix socket.
type Operator struct{ http *http.Client }

// atOnce is how many requests an operator makes at a time.
const atOnce = 8

// NewOperator makes a client of the socket at path. Each request takes a minute at most.
func NewOperator(path string) *Operator {
	return &Operator{&http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(path, "unix://"))
			},
			MaxIdleConnsPerHost: atOnce,
		},
	}}
}

// Order makes those nodes of a crowd known that are not, with MAC as their addresses, and orders an install of each.
func (o *Operator) Order(ctx context.Context, c Config, profile string) error {
	names := make([]string, c.Agents)
	for i := range names {
		names[i] = Name(c.Prefix, c.Before+i)
	}
	err := each(ctx, names, func(ctx context.Context, i int) error {
		_, err := o.do(ctx, "POST", "/v1/nodes", proto.NodeSpec{Name: names[i], MACs: []string{MAC(c.Before + i)}, Profile: profile})
		if isCode(err, proto.CodeExists) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	const step = 500 // nodes of one order, which is one transaction
	for len(names) > 0 {
		n := min(len(names), step)
		_, err := o.do(ctx, "POST", "/v1/nodes/"+url.PathEscape(strings.Join(names[:n], ","))+"/install",
			proto.InstallOrder{Profile: profile, Label: "load", Reason: "load test"})
		if err != nil {
			return fmt.Errorf("ordering installs: %w", err)
		}
		names = names[n:]
	}
	return nil
}

// each calls fn with every index of a list, some at a time, until one gives an error.
func each[T any](ctx context.Context, list []T, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < len(list) && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func isCode(err error, code string) bool {
	var p *proto.Problem
	return errors.As(err, &p) && p.Code == code
}

// do makes a request and gives the body of a 2xx. A refusal is a *proto.Problem.
func (o *Operator) do(ctx context.Context, method, path string, v any) ([]byte, error) {
	var body io.Reader
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encoding a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+proto.ServerName+path, body)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	resp, err := o.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking the collector: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the collector's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		p := &proto.Problem{}
		if json.Unmarshal(b, p) != nil || !proto.KnownCode(p.Code) {
			return nil, fmt.Errorf("asking the collector: %s %s gives %s", method, proto.Clip(path, 80), resp.Status)
		}
		return nil, p
	}
	return b, nil
}

func (o *Operator) get(ctx context.Context, path string, out any) error {
	b, err := o.do(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("reading the answer to %s: %w", path, err)
	}
	return nil
}
