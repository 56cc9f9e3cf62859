// SPDX-License-Identifier: Apache-2.0

// Package client speaks the operator's half of the collector's HTTP API: over its unix socket, or over TLS with a
// pinned or given CA and a token. It knows HTTP and proto's types, and nothing of terminals or of what people type.
//
// It must never repeat a request by itself, but an order under its key (an order carried out twice is not always the same as
// once), never follow a redirect, never send a token before the server has proved itself, and never wait without a bound.
package client

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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"provost/proto"
)

// DefaultServer is the socket of a packaged collector on the same machine.
const DefaultServer = "unix:///run/provostd/provostd.sock"

// Config says where the collector is and how to prove who is who.
type Config struct {
	Server    string // unix:///path or https://host[:8440]; DefaultServer if empty
	TokenFile string // a file that holds one token; needed for https
	CA        string // for https: sha256:HEX of the CA's certificate (DER), or a PEM file
	Program   string // what asks, for the collector's history: NAME/VERSION (RFC 9110, User-Agent)
}

// The bounds of every wait. Together they bound a request for a document by its own context's end or answerLimit, an order and a
// change by orderLimit more.
const (
	dialLimit   = 5 * time.Second  // to connect, and to finish the TLS handshake
	headerLimit = 30 * time.Second // from the request's end to the answer's first byte
	orderLimit  = 3 * time.Minute  // the same of an order or a change: the collector takes 30 s at most and 1 ms for each node
	answerLimit = 2 * time.Minute  // for a whole document; 100,000 nodes are some 40 MB
	silentLimit = time.Minute      // without a byte in the middle of an answer that may be longer
)

// maxDocument bounds a document held in memory, and maxProblem a refusal.
const (
	maxDocument = 256 << 20
	maxProblem  = 64 << 10
)

// ConfigError says that the collector was not even asked, since the settings make no sense. Setting is the one at fault.
type ConfigError struct {
	Setting string // server, ca or token-file
	Hint    string
	Err     error
}

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// UnreachableError says that no answer came from the collector at Server, or only a part of it.
type UnreachableError struct {
	Server string
	Err    error
	Sent   bool // something of the request may have come there
	Order  bool // it was an order, which may have been taken
}

func (e *UnreachableError) Error() string {
	if e.Order {
		return fmt.Sprintf("no answer to the order from the collector at %s, which may have taken it: %v", e.Server, e.Err)
	}
	return fmt.Sprintf("no answer from the collector at %s: %v", e.Server, e.Err)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// SchemaError says that the collector is newer than this program.
type SchemaError struct{ Got int }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the collector answers in schema %d, this program knows up to %d", e.Got, proto.Schema)
}

// Client asks one collector. It is safe for several goroutines.
type Client struct {
	server string // as configured, for messages
	base   string
	token  string
	agent  string // User-Agent
	http   *http.Client
	slow   *http.Client // for orders and changes
	close  func()
	again  []time.Duration // orderPauses
	answer time.Duration   // answerLimit
	silent time.Duration   // silentLimit
}

// New makes a client. It reads the token and CA files and connects to nothing; what is wrong with the settings is a
// *ConfigError.
func New(c Config) (*Client, error) {
	if c.Server == "" {
		c.Server = DefaultServer
	}
	u, err := url.Parse(c.Server)
	if err != nil {
		return nil, badServer(c.Server, err.Error())
	}
	transport := &http.Transport{
		ResponseHeaderTimeout: headerLimit,
		TLSHandshakeTimeout:   dialLimit,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true,
	}
	cl := &Client{server: c.Server, agent: c.Program, again: orderPauses, answer: answerLimit, silent: silentLimit}
	dialer := &net.Dialer{Timeout: dialLimit}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return nil, badServer(c.Server, "a socket is written with three slashes and its whole path")
		}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
		cl.base = "http://provostd"
	case "https":
		if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
			return nil, badServer(c.Server, "it is a host and a port, without path, user or query")
		}
		host := u.Host
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), "8440")
		}
		if transport.TLSClientConfig, err = tlsConfig(c.CA); err != nil {
			return nil, err
		}
		transport.DialContext = dialer.DialContext
		cl.base = "https://" + host
	case "http":
		return nil, badServer(c.Server, "orders and status are never sent over plain HTTP")
	default:
		return nil, badServer(c.Server, "the scheme is missing or unknown")
	}
	if c.TokenFile != "" {
		if cl.token, err = readToken(c.TokenFile); err != nil {
			return nil, err
		}
	}
	same := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	slow := transport.Clone()
	slow.ResponseHeaderTimeout = orderLimit
	cl.http, cl.slow = &http.Client{Transport: transport, CheckRedirect: same}, &http.Client{Transport: slow, CheckRedirect: same}
	cl.close = func() {
		transport.CloseIdleConnections()
		slow.CloseIdleConnections()
	}
	return cl, nil
}

func badServer(server, why string) error {
	return &ConfigError{Setting: "server", Err: fmt.Errorf("server %q: %s", server, why),
		Hint: "write it like unix:///run/provostd/provostd.sock or https://10.0.0.1:8440"}
}

func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", &ConfigError{Setting: "token-file", Err: fmt.Errorf("reading token: %w", err),
			Hint: "on the frontend, `provostd token add --role operate NAME` prints a token"}
	}
	t := strings.TrimSpace(string(b))
	if t == "" || len(t) > 1024 || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &ConfigError{Setting: "token-file", Err: fmt.Errorf("token file %s holds no token", path),
			Hint: "the file holds one line with the token alone"}
	}
	return t, nil
}

// Server is the address as it was configured.
func (c *Client) Server() string { return c.server }

// Close gives up idle connections. The client may be used again.
func (c *Client) Close() { c.close() }

// do sends a request, an order's with its key, and gives the answer of a 2xx. Every other answer is a *proto.Problem, and none
// an *UnreachableError. The caller closes the body; ctx bounds the whole of it.
func (c *Client) do(ctx context.Context, method, path, key string, query url.Values, body any) (*http.Response, error) {
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding request: %w", err)
		}
		rd = bytes.NewReader(b)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, rd)
	if err != nil {
		return nil, fmt.Errorf("making request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set(proto.KeyHeader, strconv.Quote(key))
	}
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	by := c.http
	if method != http.MethodGet {
		by = c.slow
	}
	resp, err := by.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, problem(resp)
	}
	return resp, nil
}

// unreachable wraps what the network said; an end that the caller wanted stays as it is.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return context.Canceled
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the made-up http://provostd
	}
	sent := true
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err, sent = op.Err, false // without the address, which is said anyway
	}
	if errors.Is(context.Cause(ctx), errSlow) {
		err = errSlow
	}
	return &UnreachableError{Server: c.server, Err: err, Sent: sent}
}

// errSlow is the cause of a context that one of the limits above ended.
var errSlow = errors.New("the answer took too long")

// problem reads a refusal. What is not problem+json becomes one, so that callers see one type.
func problem(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // a cut text still says something
	var p proto.Problem
	if json.Unmarshal(b, &p) == nil && p.Code != "" {
		p.Status = resp.StatusCode
		return &p
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return &proto.Problem{Status: resp.StatusCode, Detail: strings.TrimSpace(fmt.Sprintf("the server answered %s %s", resp.Status, proto.Clip(text, 200))),
		Hint: "is this address a provostd of the same version, with nothing in between?"}
}

// document asks for a JSON document and decodes it into v (which may be nil: the answer is then only awaited).
func (c *Client) document(ctx context.Context, method, path string, query url.Values, body, v any) error {
	return c.keyed(ctx, method, path, "", query, body, v)
}

// keyed is document for an order that has a key.
func (c *Client) keyed(ctx context.Context, method, path, key string, query url.Values, body, v any) error {
	limit := c.answer
	if method != http.MethodGet {
		limit += orderLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	resp, err := c.do(ctx, method, path, key, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if v == nil {
		return nil
	}
	if err := checkSchema(b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// checkSchema refuses a document of a newer schema. What is no object is left to the real decoder's complaint.
func checkSchema(b []byte) error {
	var s struct {
		Schema int `json:"schema"`
	}
	if json.Unmarshal(b, &s) == nil && s.Schema > proto.Schema {
		return &SchemaError{s.Schema}
	}
	return nil
}

// stream gives an answer's body, which may be of any length: it is cut when it stays silent for silentLimit.
func (c *Client) stream(ctx context.Context, method, path string, query url.Values, request any) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	// Until the header is there, dialLimit and headerLimit bound the wait.
	resp, err := c.do(ctx, method, path, "", query, request)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &body{client: c, ctx: ctx, cancel: cancel, rc: resp.Body}
	b.timer = time.AfterFunc(c.silent, func() { cancel(errSlow) })
	return b, nil
}

// body is an answer that is read as it comes.
type body struct {
	client *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	rc     io.ReadCloser
	timer  *time.Timer
}

// Read bounds the server's silence only: a reader that pauses, such as a pager, may pause for as long as it likes.
func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.client.silent)
	n, err := b.rc.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = b.client.unreachable(b.ctx, err)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.rc.Close()
}
