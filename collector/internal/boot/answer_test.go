// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/boot"
	"provost/proto"
)

const answerInstall = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

func TestAnswers(t *testing.T) {
	const good = "/boot/answer/" + answerInstall + "/tick/ks.cfg"
	for _, c := range []struct {
		name, method, path string
		err                error
		status             int
		body               string
		sent               []string
	}{
		{"it is there", "GET", good, nil, 200, "text\n", []string{"tick answer/ks.cfg true"}},
		{"its head", "HEAD", good, nil, 200, "", nil},
		{"slashes", "GET", "//boot/answer//" + answerInstall + "/tick/ks.cfg/", nil, 200, "text\n", []string{"tick answer/ks.cfg true"}},
		{"wrong ticket", "GET", "/boot/answer/" + answerInstall + "/tock/ks.cfg", nil, 404, "there is no such answer file, or its install is over\n", nil},
		{"other file", "GET", "/boot/answer/" + answerInstall + "/tick/shadow", nil, 404, "there is no such answer file, or its install is over\n", nil},
		{"out of the directory", "GET", "/boot/answer/" + answerInstall + "/tick/%2e%2e/%2e%2e/%2e%2e/images/x", nil, 404, "", nil},
		{"no ULID", "GET", "/boot/answer/x/tick/ks.cfg", nil, 404, "there is no such answer file\n", nil},
		{"no ticket", "GET", "/boot/answer/" + answerInstall + "/ks.cfg", nil, 404, "there is no such answer file\n", nil},
		{"too deep", "GET", good + "/x", nil, 404, "there is no such answer file\n", nil},
		{"a template that cannot be made", "GET", good, proto.NewProblem(422, proto.CodeBadProfile, "var disk: use a path", ""), 422, "var disk: use a path\n", nil},
		{"a fault", "GET", good, errors.New("secret"), 503, "the collector has an internal error, which its log names\n", nil},
		{"POST", "POST", good, nil, 405, "only GET and HEAD are answered here\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &decider{err: c.err}
			url, _ := serve(t, d)
			req, err := http.NewRequest(c.method, url+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got := body(t, resp)
			if resp.StatusCode != c.status || c.body != "" && got != c.body {
				t.Errorf("answer = %d %q, want %d %q", resp.StatusCode, got, c.status, c.body)
			}
			if c.status == 200 && resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers = %v", resp.Header)
			}
			if diff := cmp.Diff(c.sent, waitSent(d, len(c.sent))); diff != "" {
				t.Errorf("sent: -want +got\n%s", diff)
			}
		})
	}
}

func TestAnswerURL(t *testing.T) {
	r := boot.Request{Host: "10.0.0.1:8480"}
	if got, want := r.Answer("I", "T", "ks.cfg"), "http://10.0.0.1:8480/boot/answer/I/T/ks.cfg"; got != want {
		t.Errorf("Answer = %s, want %s", got, want)
	}
	if got := r.Answer("I", "T", ""); !strings.HasSuffix(got, "/T/") {
		t.Errorf("the directory is %s, want a slash at its end", got)
	}
}

// On a site that boots its machines by itself, Anaconda says by headers who it is.
func TestAnswerByHeaders(t *testing.T) {
	const mac = "X-RHN-Provisioning-MAC-0"
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		body       string
		sent       []string
	}{
		{"MAC", "/boot/answer/ks.cfg", []string{mac, "eth0 52:54:00:00:0D:02"}, 200, "text\n", []string{"tick answer/ks.cfg true"}},
		{"second MAC", "/boot/answer/ks.cfg", []string{mac, "lo", "X-RHN-Provisioning-MAC-1", "eth1 52:54:00:00:0d:02"}, 200, "text\n", []string{"tick answer/ks.cfg true"}},
		{"no headers", "/boot/answer/ks.cfg", nil, 404, "inst.ks.sendmac", nil},
		{"rubbish", "/boot/answer/ks.cfg", []string{mac, "eth0 ../../x"}, 404, "inst.ks.sendmac", nil},
		{"another's", "/boot/answer/ks.cfg", []string{mac, "eth0 52:54:00:00:0d:03"}, 404, "there is no such answer file", nil},
		{"serial alone", "/boot/answer/ks.cfg", []string{"X-System-Serial-Number", "S1"}, 404, "there is no such answer file", nil},
		{"another file", "/boot/answer/shadow", []string{mac, "eth0 52:54:00:00:0d:02"}, 404, "there is no such answer file", nil},
	} {
		d := &decider{}
		url, _ := serve(t, d)
		resp := get(t, url+c.path, c.headers...)
		if got := body(t, resp); resp.StatusCode != c.status || !strings.Contains(got, c.body) {
			t.Errorf("%s: answer = %d %q, want %d %q", c.name, resp.StatusCode, got, c.status, c.body)
		}
		if diff := cmp.Diff(c.sent, waitSent(d, len(c.sent))); diff != "" {
			t.Errorf("%s: sent: -want +got\n%s", c.name, diff)
		}
	}
}
