// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/boot"
)

func TestCallback(t *testing.T) {
	const base = "/boot/callback/" + answerInstall
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		answer                   string
		sent                     []string
	}{
		{"GET", "GET", base + "/tick/sealed", "", 200, "noted\n", []string{`GET sealed false ""`}},
		{"POST", "POST", base + "/tick/sealed", "", 200, "noted\n", []string{`POST sealed false ""`}},
		{"slashes", "GET", "//boot//callback/" + answerInstall + "/tick/sealed/", "", 200, "noted\n", []string{`GET sealed false ""`}},
		{"failed", "GET", base + "/tick/sealed?failed=1&message=no+disk", "", 200, "noted\n", []string{`GET sealed true "no disk"`}},
		{"failed with a body", "POST", base + "/tick/sealed?failed=true", "the log's\ntail", 200, "noted\n", []string{`POST sealed true "the log's\ntail"`}},
		{"not failed", "GET", base + "/tick/sealed?failed=0", "", 200, "noted\n", []string{`GET sealed false ""`}},
		{"long message", "GET", base + "/tick/sealed?message=" + strings.Repeat("x", 5000), "", 200, "noted\n", []string{`GET sealed false "` + strings.Repeat("x", 4096) + `"`}},
		{"failed and rubbish", "GET", base + "/tick/sealed?failed=perhaps", "", 400, "failed: use 1 or 0\n", nil},
		{"large body", "POST", base + "/tick/sealed", strings.Repeat("x", 4097), 413, "a callback has at most 4096 bytes\n", nil},
		{"HEAD", "HEAD", base + "/tick/sealed", "", 405, "", nil},
		{"PUT", "PUT", base + "/tick/sealed", "", 405, "only GET and POST are answered here\n", nil},
		{"another ticket", "GET", base + "/tack/sealed", "", 404, "there is no such install, or it is over\n", nil},
		{"another install", "GET", "/boot/callback/01J0000000000000000000000Z/tick/sealed", "", 404, "there is no such install, or it is over\n", nil},
		{"no install", "GET", "/boot/callback/n1/tick/sealed", "", 404, "there is no such install: use /boot/callback/INSTALL/TICKET/STAGE\n", nil},
		{"no stage", "GET", base + "/tick", "", 404, "there is no such install: use /boot/callback/INSTALL/TICKET/STAGE\n", nil},
		{"the disk is full", "GET", base + "/tick/slow", "", 503, "the collector has an internal error, which its log names\n", nil},
		{"POST elsewhere", "POST", "/boot/52:54:00:00:00:01", "", 405, "only GET and HEAD are answered here\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &decider{}
			url, _ := serve(t, d)
			req, err := http.NewRequest(c.method, url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if got := body(t, resp); resp.StatusCode != c.status || got != c.answer {
				t.Errorf("answer = %d %q, want %d %q", resp.StatusCode, got, c.status, c.answer)
			}
			if diff := cmp.Diff(c.sent, d.takeSent()); diff != "" {
				t.Errorf("taken: -want +got\n%s", diff)
			}
			if (resp.StatusCode == 503) != (resp.Header.Get("Retry-After") != "") {
				t.Errorf("Retry-After = %q with %d", resp.Header.Get("Retry-After"), resp.StatusCode)
			}
		})
	}
	if got, want := (boot.Request{Host: "10.0.0.1:8480"}).Callbacks("I", "T"), "http://10.0.0.1:8480/boot/callback/I/T"; got != want {
		t.Errorf("Callbacks = %s, want %s", got, want)
	}
}
