// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/collector/internal/client"
	"provost/proto"
)

// TestOrderWithoutAnAnswer: an order is given again, under the same key, until there is an answer that says what became of it,
// and no more often than is stated. What is no order is asked once.
func TestOrderWithoutAnAnswer(t *testing.T) {
	const lost, cut, ok = 0, 1, 200
	var mu sync.Mutex
	var answers []int // one for each request; the last for all that follow
	var keys []string
	begin := func(a []int) {
		mu.Lock()
		defer mu.Unlock()
		answers, keys = a, nil
	}
	asked := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return keys
	}
	cl := overSocket(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		keys = append(keys, r.Header.Get(proto.KeyHeader))
		a := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		mu.Unlock()
		w.Header().Set("Connection", "close") // else net/http itself repeats what has a key
		switch a {
		case lost:
			panic(http.ErrAbortHandler)
		case cut:
			io.WriteString(w, `{"schema":1,`)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case ok:
			io.WriteString(w, `{"schema":1,"revision":7}`)
		default:
			w.WriteHeader(a)
			json.NewEncoder(w).Encode(proto.Problem{Code: "x", Detail: "no"})
		}
	})
	cl.SetPauses(time.Millisecond, time.Millisecond, time.Millisecond)
	seen := map[string]bool{"": true}
	for _, tt := range []struct {
		name     string
		answers  []int
		requests int
		status   int  // of the refusal; 0 is none
		order    bool // whether the order may have been taken is said
	}{
		{"answered", []int{ok}, 1, 0, false},
		{"lost once", []int{lost, ok}, 2, 0, false},
		{"cut off, lost, in trouble", []int{cut, lost, 503, ok}, 4, 0, false},
		{"refused at once", []int{503}, 1, 503, false},
		{"lost, then refused", []int{lost, 409}, 2, 409, false},
		{"lost for good", []int{lost}, 4, 0, true},
		{"lost, then in trouble", []int{lost, 503}, 4, 503, true},
		{"lost, then not allowed", []int{lost, 403}, 4, 403, true},
	} {
		begin(tt.answers)
		list, err := cl.OrderInstall(t.Context(), "n1", proto.InstallOrder{})
		var p *proto.Problem
		var u *client.UnreachableError
		status := 0
		if errors.As(err, &p) {
			status = p.Status
		}
		order, keys := errors.As(err, &u) && u.Order, asked()
		if len(keys) != tt.requests || status != tt.status || order != tt.order || (err == nil) != (tt.status == 0 && !tt.order) || err == nil && list.Revision != 7 {
			t.Errorf("%s: %d requests, %+v, %v; want %d", tt.name, len(keys), list, err, tt.requests)
		}
		if same := slices.Compact(slices.Clone(keys)); len(same) != 1 || seen[same[0]] || !strings.HasPrefix(same[0], `"`) {
			t.Errorf("%s: keys %q, want the same new one each time", tt.name, keys)
		} else {
			seen[same[0]] = true
		}
	}
	begin([]int{lost})
	if _, err := cl.AddNode(t.Context(), proto.NodeSpec{Name: "n1"}); err == nil || len(asked()) != 1 || asked()[0] != "" {
		t.Errorf("AddNode = %v with keys %q, want an error after one request without", err, asked())
	}

	cl, err := client.New(client.Config{Server: "unix://" + filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	cl.SetPauses(time.Millisecond)
	var u *client.UnreachableError
	if _, err := cl.SetBoot(t.Context(), "n1", proto.NodeOrder{Action: proto.BootDisk}); !errors.As(err, &u) || u.Order || u.Sent {
		t.Errorf("SetBoot without a collector = %v, want an order that was not taken", err)
	}
}
