// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

func problem(status int, code, hint, format string, args ...any) *proto.Problem {
	return proto.NewProblem(status, code, fmt.Sprintf(format, args...), hint)
}

// asProblem is the one place where an error becomes a refusal. Those with a status of 500 or more are the collector's own
// fault, and their cause is for the log.
func asProblem(err error) *proto.Problem {
	var p *proto.Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		copied := *p // it gets an incident
		return &copied
	case errors.As(err, &tooLarge):
		return problem(413, proto.CodeTooLarge, "send less at once", "the request's body is longer than %d bytes", tooLarge.Limit)
	case errors.Is(err, store.ErrNoLog):
		return problem(404, proto.CodeNotFound, "provost log NODE lists the logs", "%v", err)
	case errors.Is(err, store.ErrQuota):
		return problem(413, proto.CodeTooLarge, "", "%v", err)
	case errors.Is(err, store.ErrLogsFull):
		return problem(413, proto.CodeLogQuota, "free room on the frontend, or raise retention.log-quota; events are still taken", "%v", err)
	case errors.Is(err, store.ErrGone):
		return problem(410, proto.CodeGone, "begin anew with GET /v1/status and its cursor", "%v", err)
	case errors.Is(err, store.ErrBusy):
		return problem(503, proto.CodeBusy, "come again after Retry-After", "%v", err)
	case errors.Is(err, store.ErrClosed):
		return problem(503, proto.CodeBusy, "come again after Retry-After", "the collector is shutting down")
	case errors.Is(err, context.DeadlineExceeded):
		return problem(503, proto.CodeBusy, "come again after Retry-After", "the request had no turn in its time: nothing of it was done")
	case errors.Is(err, store.ErrFull):
		return problem(503, proto.CodeStorage, "make room on the frontend's disk; then the collector goes on by itself", "nothing was taken: the collector's disk is full")
	case errors.Is(err, store.ErrStorage):
		return problem(503, proto.CodeStorage, "look at the frontend's disk and at provostd's log", "nothing was taken: the collector's disk refused it")
	}
	return problem(500, proto.CodeInternal, "grep for the incident in provostd's log", "the collector met an error of its own")
}

// refuse answers with an error. Nothing has been written yet.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the client has gone
	}
	p := asProblem(err)
	if p.Type == "" {
		p.Type = "about:blank"
	}
	p.Title = http.StatusText(p.Status)
	h := w.Header()
	a.counters.refuse(p.Code)
	if p.Code == proto.CodeLogQuota {
		h.Set("Retry-After", strconv.Itoa(120+rand.IntN(120))) // room comes by the hour, if at all
	}
	if p.Status >= 500 {
		p.Incident = proto.NewID(time.Now())
		level := a.cfg.Log.Error
		if p.Code == proto.CodeBusy {
			level = a.cfg.Log.Warn
		}
		level("request refused", "incident", p.Incident, "status", p.Status, "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "cause", err)
	}
	if p.Status == 503 {
		h.Set("Retry-After", strconv.Itoa(2+rand.IntN(9))) // 2 to 10 s, so that not all come back at once
	}
	if p.Status == 401 {
		h.Set("WWW-Authenticate", "Bearer")
	}
	b, err := json.Marshal(p)
	if err != nil {
		a.cfg.Log.Error("encoding a refusal", "error", err)
	}
	h.Set("Content-Type", proto.ProblemType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	w.Write(b) // the client may have gone; there is nobody to tell
}

// json answers with a document.
func (c *call) json(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	c.head(status)
	c.w.Write(b)
	return nil
}

// head begins an answer that is a document.
func (c *call) head(status int) {
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	c.w.WriteHeader(status)
}

// decode reads a body of JSON. Operators' bodies may be empty and may hold nothing unknown; agents may be newer than this
// collector, and say more than it knows.
func (c *call) decode(v any, strict bool) error {
	return c.decodeBy(v, strict, func(b []byte) bool { return !strict && json.Unmarshal(b, v) == nil })
}

// decodeBy is decode with a way that is tried first; it gives false where encoding/json has to say what is wrong.
func (c *call) decodeBy(v any, strict bool, quick func(body []byte) bool) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	if err := c.begin(); err != nil {
		return err
	}
	if quick(b) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b)) // for the reason why not
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		if strict && len(b) == 0 {
			return nil
		}
		return problem(400, proto.CodeBadRequest, "proto/openapi.yaml describes every body", "reading the body: %v", err)
	}
	if d.More() {
		return problem(400, proto.CodeBadRequest, "", "reading the body: something follows the JSON document")
	}
	return nil
}

// body reads the body to its end.
func (c *call) body() ([]byte, error) {
	var b bytes.Buffer
	if n := c.r.ContentLength; n > 0 && n <= c.limit {
		b.Grow(int(n) + bytes.MinRead) // all at once
	}
	if _, err := b.ReadFrom(c.r.Body); err != nil {
		return nil, readError(err)
	}
	return b.Bytes(), nil
}

// begin waits for a turn, at most as long as the request may take. A body waits for it as the bytes that came, so that all
// nodes at once, as after a restart, take no more memory than their bodies have. A slow sender has no turn yet.
func (c *call) begin() error {
	if c.turns == nil || c.turn {
		return nil
	}
	select {
	case c.turns <- struct{}{}:
		c.turn = true
		return nil
	case <-c.r.Context().Done():
		return c.r.Context().Err()
	}
}

// done gives the turn to the next one.
func (c *call) done() {
	if c.turn {
		<-c.turns
	}
}
