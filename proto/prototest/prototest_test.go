// SPDX-License-Identifier: Apache-2.0

package prototest_test

import (
	"slices"
	"strings"
	"testing"

	"provost/proto"
	"provost/proto/prototest"
)

func TestFake(t *testing.T) {
	prototest.Run(t, func(t *testing.T) prototest.Target {
		c := prototest.New(t)
		current := map[string]string{}
		return prototest.Target{
			URL: c.URL(), Client: c.Client(), JoinKey: c.JoinKey, Define: c.Define,
			Install: func(node string, scripts []prototest.Script) (string, string) {
				id, claim := c.Install(node, scripts)
				current[node] = id
				return id, claim
			},
			Command: func(node string, verb proto.Verb, step string) { c.Order(current[node], verb, step, nil) },
			Events:  func(_, id string) []proto.Event { return c.Events(id) },
			Log:     func(_, id, name string) []byte { return c.Log(id, name) },
		}
	})
}

func TestStopAndStart(t *testing.T) {
	c := prototest.New(t)
	url := c.URL()
	c.Stop()
	if _, err := c.Client().Get(url); err == nil {
		t.Errorf("GET of a stopped collector gave an answer")
	}
	c.Start()
	if got := c.URL(); got != url {
		t.Errorf("URL after a restart = %s, want %s", got, url)
	}
	if _, err := c.Client().Get(url + "/v1/agent/hello"); err != nil {
		t.Errorf("GET of a restarted collector: %v", err)
	}
	if got := c.Requests(); !slices.ContainsFunc(got, func(r string) bool { return strings.HasSuffix(r, "/hello") }) {
		t.Errorf("Requests() = %v, want the hello", got)
	}
}
