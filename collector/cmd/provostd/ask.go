// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"provost/proto"
)

// errNoCollector: nobody answers on the socket, so that the files can be used without it.
var errNoCollector = errors.New("no collector answers")

// ask sends a request to the running collector over its unix socket and copies a good answer to out, which may be nil. A
// refusal is a *proto.Problem. limit bounds all of it.
func ask(ctx context.Context, socket, method, path string, in any, out io.Writer, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://provostd"+path, body)
	if err != nil {
		return fmt.Errorf("making request: %w", err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("%w on %s: %w", errNoCollector, socket, err)
		}
		return c, nil
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		p := &proto.Problem{}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil || json.Unmarshal(b, p) != nil || p.Detail == "" {
			p.Detail = "the collector answered " + resp.Status
		}
		p.Status = resp.StatusCode
		return p
	}
	if out == nil {
		return nil
	}
	n, err := io.Copy(out, resp.Body)
	if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// askFor is ask with a document as the answer.
func askFor(ctx context.Context, socket, method, path string, in, out any) error {
	var b bytes.Buffer
	if err := ask(ctx, socket, method, path, in, &b, 30*time.Second); err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b.Bytes(), out); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}
