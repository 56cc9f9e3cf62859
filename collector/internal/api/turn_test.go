// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/registry/registrytest"
)

// TestTurns: of all agents that ask at once some are served at a time, the others wait with their bodies as they came. One that sends
// its body slowly keeps nobody from it.
func TestTurns(t *testing.T) {
	site, a, srv := newSite(t)
	mac := site.Add("n1", 1)
	site.Ordered("n1")
	token, install := agentOf(t, site, mac, 1)
	a.SetTurns(1)
	body := `{"schema":1,"install":"` + install + `","clock":{"boot":"` + registrytest.Boot(1) + `","offset_ms":1,"time":"2026-01-01T00:00:00Z"}}`
	beat := func(ctx context.Context) (int, error) {
		req, err := http.NewRequestWithContext(ctx, "POST", srv.URL+"/v1/agent/heartbeat", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := srv.Client().Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}

	giveBack := a.TakeTurn()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if code, err := beat(short); err == nil {
		t.Errorf("with every turn taken a heartbeat = %d, want that it waits", code)
	}
	giveBack()
	if code, err := beat(t.Context()); err != nil || code != 200 {
		t.Errorf("with a turn free a heartbeat = %d, %v, want 200", code, err)
	}

	slow, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "POST /v1/agent/heartbeat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body[:len(body)/2])
	for range 20 {
		if code, err := beat(t.Context()); err != nil || code != 200 {
			t.Errorf("beside a slow sender a heartbeat = %d, %v, want 200", code, err)
		}
	}
	for end := time.Now().Add(time.Minute); a.InHand() > 0; time.Sleep(10 * time.Millisecond) { // an answer is sent before its turn is over
		if time.Now().After(end) {
			t.Fatalf("%d turns were never given back", a.InHand())
		}
	}
}
