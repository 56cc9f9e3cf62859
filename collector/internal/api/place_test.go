// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestFeedTellsItsPlace: a reader without a cursor learns at once where it is, so that it can come back there.
func TestFeedTellsItsPlace(t *testing.T) {
	site, a, srv := newSite(t)
	site.Add("n1", 1)
	site.Ordered("n1")
	token, err := site.AddToken(t.Context(), "read", "r")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer a.Stop()
	got := ""
	for r := bufio.NewReader(resp.Body); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if got += line; line == "\n" {
			break
		}
	}
	if want := fmt.Sprintf(": provost\nid: %s:%d\n\n", site.Store.ID(), site.Revision()); got != want || site.Revision() == 0 {
		t.Errorf("the feed begins with %q, want %q", got, want)
	}
}
