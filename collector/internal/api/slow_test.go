// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/auth"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestSlowReader: a reader of the feed that takes nothing is dropped, the others have everything, and where it comes again
// with the last id that it has, nothing is missing and nothing comes twice.
func TestSlowReader(t *testing.T) {
	site, a, srv := newSite(t)
	a.SetFeedWrite(time.Second)
	mac := site.Add("n1", 1)
	site.Ordered("n1")
	_, install := agentOf(t, site, mac, 1)
	token, err := site.AddToken(t.Context(), auth.RoleRead, "r")
	if err != nil {
		t.Fatal(err)
	}
	tail := make([]string, proto.MaxTail)
	for i := range tail {
		tail[i] = strings.Repeat("x", proto.MaxTailLine)
	}
	for seq := uint64(1); seq < 1200; { // some 14 MB, more than the kernel keeps for a connection
		q := &proto.EventsRequest{Schema: 1, Install: install, Journal: registrytest.Journal, Clock: proto.Clock{Boot: registrytest.Boot(1), OffsetMS: 9}}
		for range 100 {
			b, err := json.Marshal(proto.Event{Kind: proto.KindNote, Seq: seq, Boot: registrytest.Boot(1), Time: time.Unix(0, 0).UTC(), Message: "m", Tail: tail})
			if err != nil {
				t.Fatal(err)
			}
			q.Events = append(q.Events, b)
			seq++
		}
		if _, err := site.Events(t.Context(), install, q); err != nil {
			t.Fatal(err)
		}
	}
	newest := site.Revision()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/events?from=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", token)
	metric := func(name string) string {
		resp, err := srv.Client().Do(get(t, srv.URL+"/metrics", token))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\n"+name+" ")
		n, _, _ := strings.Cut(rest, "\n")
		return n
	}
	until := func(name, want string) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); metric(name) != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is %s, want %s", name, metric(name), want)
			}
		}
	}
	until("provost_feed_dropped_total", "1") // although it is still there
	until("provost_feed_watchers", "0")
	last, count := uint64(0), 0
	read := func(r io.Reader, to uint64) error {
		lines := bufio.NewReader(r)
		id := uint64(0)
		for last < to {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err
			}
			if v, ok := strings.CutPrefix(line, "id: "); ok {
				at, err := proto.ParseCursor(strings.TrimSpace(v))
				if err != nil {
					return err
				}
				id = at.Revision
			}
			if strings.HasPrefix(line, "data: ") {
				if id != last+1 {
					return fmt.Errorf("event %d follows %d", id, last)
				}
				last, count = id, count+1
			}
		}
		return nil
	}
	conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := read(resp.Body, newest); err == nil {
		t.Fatal("the slow reader got everything: it was never slow")
	} else if strings.Contains(err.Error(), "follows") {
		t.Fatal(err)
	}
	t.Logf("dropped after event %d of %d", last, newest)
	a.SetFeedWrite(time.Minute) // who is only held up by a machine with much to do is not to be dropped
	resp, err = srv.Client().Do(get(t, srv.URL+"/v1/events?from="+fmt.Sprint(last), token))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer a.Stop()
	if err := read(resp.Body, newest); err != nil {
		t.Fatalf("after it came again: %v", err)
	}
	if uint64(count) != newest {
		t.Errorf("%d events in all, want %d", count, newest)
	}
}

func get(t *testing.T, url, token string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return req
}
