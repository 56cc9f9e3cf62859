// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"provost/collector/internal/auth"
	"provost/proto"
)

// TestCompressed: a long document comes as the reader asks for it, and is the same then; short ones, logs and refusals come
// as they are.
func TestCompressed(t *testing.T) {
	site, _, srv := newSite(t)
	for i := range 200 {
		spec := proto.NodeSpec{Name: fmt.Sprintf("n%d", i), MACs: []string{fmt.Sprintf("52:54:00:00:01:%02x", i)}, Profile: "compute"}
		if _, err := site.AddNode(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	mac := site.Add("one", 1)
	site.Ordered("one")
	_, install := agentOf(t, site, mac, 1)
	if _, err := site.AppendLog(install, "a.log", 0, bytes.Repeat([]byte("log\n"), 5000)); err != nil {
		t.Fatal(err)
	}
	token, err := site.AddToken(t.Context(), auth.RoleRead, "r")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	get := func(path, accept string) (raw, text []byte, encoding, vary string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if accept != "" {
			req.Header.Set("Accept-Encoding", accept)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err = io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = bytes.NewReader(raw)
		switch encoding = resp.Header.Get("Content-Encoding"); encoding {
		case "gzip":
			r, err = gzip.NewReader(r)
		case "zstd":
			r, err = zstd.NewReader(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, err = io.ReadAll(r); err != nil {
			t.Fatalf("%s with %q: %v", path, accept, err)
		}
		return raw, text, encoding, resp.Header.Get("Vary")
	}
	_, want, _, _ := get("/v1/status", "")
	if len(want) < 20_000 {
		t.Fatalf("the status has %d bytes: nothing to compress", len(want))
	}
	for accept, encoding := range map[string]string{"": "", "identity": "", "gzip": "gzip", "gzip, deflate, br, zstd": "zstd", "zstd;q=0, gzip;q=0.5": "gzip",
		"gzip; q=0": "", "gzip;q=0.000": "", "x-gzip, br": "", "GZIP": "gzip"} {
		for range 2 { // the second time with one that was used
			raw, text, got, vary := get("/v1/status", accept)
			if got != encoding || !bytes.Equal(text, want) || encoding != "" && (len(raw) > len(want)/5 || vary != "Accept-Encoding") {
				t.Errorf("Accept-Encoding %q: %q, %d of %d bytes, Vary %q, the same text: %v; want %q", accept, got, len(raw), len(want), vary, bytes.Equal(text, want), encoding)
			}
		}
	}
	for _, path := range []string{"/v1/nodes/one", "/v1/nodes/one/installs/latest/logs/a.log", "/v1/nodes/none", "/v1/version"} {
		if _, text, got, _ := get(path, "gzip, zstd"); got != "" || len(text) == 0 {
			t.Errorf("GET %s came with the encoding %q and %d bytes, want it as it is", path, got, len(text))
		}
	}
	if _, text, _, _ := get("/v1/nodes/none", "gzip"); !strings.Contains(string(text), proto.CodeUnknownNode) {
		t.Errorf("a refusal = %s", text)
	}
}
