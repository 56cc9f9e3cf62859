// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestEncodeNodes: what is listed of a node is what is seen of it, whatever has happened since it was listed last.
func TestEncodeNodes(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n10", 1)
	s.Add("n2", 2)
	listed := func() map[string]proto.Node {
		t.Helper()
		var b bytes.Buffer
		b.WriteByte('[')
		if err := s.EncodeNodes(s.Everybody(), func(p []byte) error { b.Write(p); return nil }); err != nil {
			t.Fatal(err)
		}
		b.WriteByte(']')
		parts, err := s.EncodeAll()
		if err != nil {
			t.Fatal(err)
		}
		if whole := "[" + string(bytes.Join(parts, nil)) + "]"; whole != b.String() {
			t.Errorf("the list of all nodes is\n%s, want\n%s", whole, b.String())
		}
		var nodes []proto.Node
		if err := json.Unmarshal(b.Bytes(), &nodes); err != nil {
			t.Fatalf("%v in %s", err, b.Bytes())
		}
		all := map[string]proto.Node{}
		for i, n := range nodes {
			all[n.Name] = n
			if i > 0 && nodes[0].Name != "n2" {
				t.Errorf("the first is %s, want n2", nodes[0].Name)
			}
		}
		return all
	}
	check := func(when string, nodes int) {
		t.Helper()
		for range 2 { // once encoded, once as it was kept
			all := listed()
			if len(all) != nodes {
				t.Errorf("%s: %d nodes, want %d", when, len(all), nodes)
			}
			for name, got := range all {
				if diff := cmp.Diff(s.Seen(name), got); diff != "" {
					t.Errorf("%s (-seen +listed):\n%s", when, diff)
				}
			}
		}
	}
	check("defined", 2)
	id := s.Ordered("n10")
	check("ordered", 2)
	s.Script(mac)
	check("booting", 2)
	send(t, s, id, event(1, proto.KindAgentStart, 1, func(e *proto.Event) { e.Stage = "agent-started" }))
	check("an event", 2)
	before := listed()["n10"]
	s.Clock.Advance(time.Minute)
	beat(t, s, id)
	if after := listed()["n10"]; !after.LastSeen.After(before.LastSeen) || !after.Deadline.At.After(before.Deadline.At) {
		t.Errorf("after a heartbeat: %+v, before it: %+v", after, before)
	}
	check("a heartbeat", 2)
	if err := s.Command(ctx, []string{"n10"}, proto.VerbHold, proto.NodeOrder{}, "op"); err != nil {
		t.Fatal(err)
	}
	check("an order", 2)
	s.Clock.Advance(time.Hour)
	if err := s.Alive(ctx); err != nil { // the collector was away
		t.Fatal(err)
	}
	check("a downtime", 2)
	s.Add("n3", 3)
	check("a third", 3)
	if err := s.RemoveNodes(ctx, []string{"n3"}, ""); err != nil {
		t.Fatal(err)
	}
	check("removed", 2)
	s.Restart()
	check("after a restart", 2)
}
