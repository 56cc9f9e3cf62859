// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"provost/proto"
)

// Refused is an answer that is no 200. For the collector's own refusals Problem has a code.
type Refused struct {
	Problem    proto.Problem
	RetryAfter time.Duration // as the collector wishes it, at most maxRetryAfter; 0 if it does not say
}

func (r *Refused) Error() string {
	if r.Problem.Status == http.StatusOK {
		return "the answer makes no sense: " + r.Problem.Detail
	}
	if r.Problem.Code == "" {
		return fmt.Sprintf("the answer is %d %s", r.Problem.Status, http.StatusText(r.Problem.Status))
	}
	s := fmt.Sprintf("the collector refused (%d %s): %s", r.Problem.Status, r.Problem.Code, r.Problem.Error())
	if r.Problem.Hint != "" {
		s += "; " + r.Problem.Hint
	}
	return s
}

// Unreachable is a request that got no whole answer from any URL.
type Unreachable struct{ Err error }

func (u *Unreachable) Error() string { return u.Err.Error() }
func (u *Unreachable) Unwrap() error { return u.Err }

// maxRetryAfter caps Retry-After: a mistyped one must not silence a node for a day.
const maxRetryAfter = 5 * time.Minute

// client makes single requests. It knows HTTP and nothing of what is sent. One goroutine uses it.
type client struct {
	urls    []string // in the order in which they are tried; the one that answered last comes first
	http    *retryablehttp.Client
	timing  Timing
	version string
	token   string
}

// parseURLs checks collector URLs: https://HOST[:PORT] and nothing more.
func parseURLs(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, errors.New("no collector is known: give --url https://ADDRESS:8440, or provost.url= on the kernel command line")
	}
	var out []string
	for _, s := range list {
		u, err := url.Parse(strings.TrimSuffix(s, "/"))
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, fmt.Errorf("collector URL %q: write https://ADDRESS:PORT", proto.Clip(s, 128))
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "8440")
		}
		out = append(out, u.String())
	}
	return out, nil
}

func newClient(urls []string, pin *Pin, timing Timing, version string) *client {
	dialer := &net.Dialer{Timeout: timing.Dial}
	r := retryablehttp.NewClient()
	r.HTTPClient = &http.Client{
		Transport: &http.Transport{
			DialContext:           dialer.DialContext,
			TLSClientConfig:       pin.tls(),
			TLSHandshakeTimeout:   timing.Dial,
			ResponseHeaderTimeout: timing.Request,
			WriteBufferSize:       recordSize,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   1,
			IdleConnTimeout:       15 * time.Second, // half of a heartbeat: an idle agent holds no connection of the collector's
			// No proxy: an installer's is for packages. HTTP/1.1 only: one request at a time is all that there is.
			Protocols: &http.Protocols{},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	r.HTTPClient.Transport.(*http.Transport).Protocols.SetHTTP1(true)
	r.Logger = nil
	r.ErrorHandler = retryablehttp.PassthroughErrorHandler
	// Two tries, and only where the connection broke: a kept-alive connection that a restart of the collector left dead
	// costs no round of the spool's backoff. Everything sent may be sent twice. A status is never retried here, so the
	// two layers do not multiply: one delivery attempt is at most 2 × (Dial + Dial + Request) + 250 ms for each URL.
	r.RetryMax = 1
	r.CheckRetry = func(ctx context.Context, _ *http.Response, err error) (bool, error) {
		return ctx.Err() == nil && broken(err), nil
	}
	r.Backoff = func(time.Duration, time.Duration, int, *http.Response) time.Duration {
		return rand.N(250 * time.Millisecond)
	}
	return &client{urls: urls, http: r, timing: timing, version: version}
}

// broken reports whether a connection was lost, as against never made, too slow, or not the collector's.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// request is one request; body may be empty.
type request struct {
	method, path, contentType string
	body                      []byte
	limit                     int64         // bytes of the answer that are taken at most
	timeout                   time.Duration // for the whole, answer included, at one URL
}

// do sends a request to the collector's URLs in turn until one of them answers, whatever the answer, and gives the body
// of a 200. Other errors than *Refused and *Unreachable are local.
func (c *client) do(ctx context.Context, q request) ([]byte, error) {
	var errs []error
	for i, u := range c.urls {
		body, err := c.once(ctx, u, q)
		var no *Unreachable
		if !errors.As(err, &no) {
			if i > 0 {
				copy(c.urls[1:i+1], c.urls[:i])
				c.urls[0] = u
			}
			return body, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, &Unreachable{errors.Join(errs...)}
}

func (c *client) once(ctx context.Context, base string, q request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	var raw any // nil for none: an empty body is one, too
	if len(q.body) > 0 {
		raw = retryablehttp.ReaderFunc(func() (io.Reader, error) { return pieces{bytes.NewReader(q.body)}, nil })
	}
	r, err := retryablehttp.NewRequestWithContext(ctx, q.method, base+q.path, raw)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	r.Header.Set("User-Agent", "provost-agent/"+c.version)
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, unreachable(base, q.timeout, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, q.limit+1))
	if err != nil {
		return nil, unreachable(base, q.timeout, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp, body)
	}
	if int64(len(body)) > q.limit {
		return nil, senseless("it is longer than %d bytes", q.limit)
	}
	return body, nil
}

// recordSize is the most bytes of a request in one TLS record. A collector in Go keeps for each connection room for the longest
// that ever came over it: of ten thousand agents with a backlog that would be 16 KB each.
const recordSize = 2 << 10

// pieces gives a body to TLS in parts of that size.
type pieces struct{ r *bytes.Reader }

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), recordSize)]) }

// Len makes the body one of a known length.
func (p pieces) Len() int { return p.r.Len() }

// json sends v and decodes the answer into out.
func (c *client) json(ctx context.Context, path string, v, out any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a request: %w", err)
	}
	b, err = c.do(ctx, request{
		method: "POST", path: path, contentType: "application/json", body: b, limit: proto.MaxBody, timeout: c.timing.Request,
	})
	if err != nil {
		return err
	}
	return decode(b, out)
}

// decode reads a 200's JSON. Other bytes come from something that stands in between, like a captive portal.
func decode(b []byte, out any) error {
	if err := json.Unmarshal(b, out); err != nil {
		return senseless("it is not what a collector says")
	}
	return nil
}

// senseless is a 200 that means nothing to us. It moves nothing.
func senseless(format string, args ...any) *Refused {
	return &Refused{Problem: proto.Problem{Status: http.StatusOK, Detail: fmt.Sprintf(format, args...)}}
}

func refusal(resp *http.Response, body []byte) error {
	r := &Refused{}
	if json.Unmarshal(body, &r.Problem) != nil || !proto.KnownCode(r.Problem.Code) {
		r.Problem = proto.Problem{}
	}
	r.Problem.Status = resp.StatusCode
	r.Problem.Detail = proto.Clip(r.Problem.Detail, 512)
	r.Problem.Hint = proto.Clip(r.Problem.Hint, 512)
	r.Problem.Incident = proto.Clip(r.Problem.Incident, 64)
	if s := resp.Header.Get("Retry-After"); s != "" {
		if n, err := strconv.Atoi(s); err == nil && n > 0 {
			r.RetryAfter = min(time.Duration(min(n, 1<<20))*time.Second, maxRetryAfter)
		} else if at, err := http.ParseTime(s); err == nil {
			// a date is by the collector's clock, which the answer's own Date tells
			if now, err := http.ParseTime(resp.Header.Get("Date")); err == nil && at.After(now) {
				r.RetryAfter = min(at.Sub(now), maxRetryAfter)
			}
		}
	}
	return r
}

// unreachable says in one line what is wrong, without ports of ours, so that the same failure reads the same.
func unreachable(base string, timeout time.Duration, err error) error {
	var dns *net.DNSError
	var errno syscall.Errno
	var timed interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrUntrusted):
		err = fmt.Errorf("%s: %w", base, unwrapTo(err, ErrUntrusted))
	case errors.As(err, &dns):
		err = fmt.Errorf("%s: the name %s does not resolve here: use an address in the URL", base, dns.Name)
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("%s: %w", base, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timed) && timed.Timeout():
		err = fmt.Errorf("%s: no whole answer within %s", base, timeout)
	case errors.As(err, &errno):
		err = fmt.Errorf("%s: %w", base, errno)
	case broken(err):
		err = fmt.Errorf("%s: the connection was closed in the middle", base)
	default:
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		err = fmt.Errorf("%s: %w", base, err)
	}
	return &Unreachable{err}
}

// unwrapTo gives the outermost error in the chain that was made from target, without what is around it.
func unwrapTo(err, target error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil || inner == target || !errors.Is(inner, target) {
			return err
		}
		err = inner
	}
}
