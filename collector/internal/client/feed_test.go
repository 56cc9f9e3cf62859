// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/client"
	"provost/proto"
)

// feeds serves one body per connection, and notes what each asked for.
func feeds(t *testing.T, bodies ...string) (*client.Client, *[]string) {
	var asked []string
	return overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		body := bodies[0]
		bodies = bodies[1:]
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, body)
	}), &asked
}

func TestFeed(t *testing.T) {
	cl, asked := feeds(t,
		": provost\nid: DB1:7\n\n",
		": provost\n\n:\n\nid: DB1:8\ndata: {\"kind\":\"note\",\"seq\":1,\ndata: \"message\":\"a\"}\n\nid: DB1:9\ndata: {\"kind\":\"sealed\",\"seq\":2}\n\nid: DB1:10\ndata: {\"ki",
		"data: "+strings.Repeat("x", 2<<20),
		"data: {\n\n", "id: x\ndata: {}\n\n", "id\ndata: {}\n\n")
	var at client.Cursor
	var got []string
	visit := func(e *proto.Event, _ bool) error {
		if e == nil {
			got = append(got, "open")
		} else {
			got = append(got, string(e.Kind)+e.Message)
		}
		return nil
	}
	var gone *client.UnreachableError
	for range 2 {
		if err := cl.Feed(t.Context(), &at, visit); !errors.As(err, &gone) {
			t.Errorf("Feed = %v, want an UnreachableError", err)
		}
	}
	if want := []string{"open", "notea", "sealed"}; !slices.Equal(got, want) || at != "DB1:9" {
		t.Errorf("Feed visited %q up to %s, want %q up to DB1:9", got, at, want)
	}
	for range 4 {
		if err := cl.Feed(t.Context(), &at, visit); err == nil || errors.As(err, &gone) {
			t.Errorf("a feed that makes no sense = %v, want another error", err)
		}
	}
	if want := "/v1/events /v1/events?from=DB1%3A7 /v1/events?from=DB1%3A9"; !strings.HasPrefix(strings.Join(*asked, " "), want) {
		t.Errorf("Feed asked %q, want %s", *asked, want)
	}
}

func TestFeedEnds(t *testing.T) {
	cl := overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "id: 1\n\nid: 2\ndata: {}\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	stop := errors.New("stop")
	var at client.Cursor
	err := cl.Feed(t.Context(), &at, func(e *proto.Event, _ bool) error {
		if e != nil {
			return stop
		}
		return nil
	})
	if err != stop || at != "1" {
		t.Errorf("Feed whose visit fails = %v at %s, want that error at 1", err, at)
	}
	cl.SetLimits(time.Minute, 20*time.Millisecond)
	nothing := func(*proto.Event, bool) error { return nil }
	var gone *client.UnreachableError
	if err := cl.Feed(t.Context(), &at, nothing); !errors.As(err, &gone) {
		t.Errorf("Feed that stays silent = %v, want an UnreachableError", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := cl.Feed(ctx, &at, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("Feed that was given up = %v, want canceled", err)
	}
}
