// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"provost/proto"
)

func TestNewID(t *testing.T) {
	// The time part of a ULID from the specification's example: 1469918176385 ms is 01ARYZ6S41.
	at := time.UnixMilli(1469918176385)
	id, other := proto.NewID(at), proto.NewID(at)
	if !strings.HasPrefix(id, "01ARYZ6S41") || !proto.ValidID(id) {
		t.Errorf("NewID(%v) = %q, want 26 digits that start with 01ARYZ6S41", at, id)
	}
	if id == other {
		t.Errorf("NewID gave %q twice", id)
	}
	if later := proto.NewID(at.Add(time.Millisecond)); later <= id {
		t.Errorf("NewID a millisecond later = %q, want it to sort after %q", later, id)
	}
}

func FuzzNormalMAC(f *testing.F) {
	f.Add("52:54:00:ab:cd:01")
	f.Add("01-52-54-00-ab-cd-01")
	f.Fuzz(func(t *testing.T, in string) {
		mac, err := proto.NormalMAC(in)
		if err != nil {
			return
		}
		if again, err := proto.NormalMAC(mac); err != nil || again != mac {
			t.Errorf("NormalMAC(NormalMAC(%q)) = %q, %v, want %q", in, again, err, mac)
		}
	})
}

func TestCheckNode(t *testing.T) {
	for _, good := range []string{"n1", "n01-ib", "rack1.n2", "a", strings.Repeat("a", 64)} {
		if err := proto.CheckNode(good); err != nil {
			t.Errorf("CheckNode(%q) = %v, want nil", good, err)
		}
	}
	for _, bad := range []string{"", "N1", "n 1", "-n", "n-", "n\n", "../x", "a..b", "n/1", "10.0.0.1", "n[1-2]", strings.Repeat("a", 65), "né"} {
		if proto.CheckNode(bad) == nil {
			t.Errorf("CheckNode(%q) = nil, want an error", bad)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, tt := range []struct{ in, want string }{{"90s", "1m30s"}, {"2m", "2m"}, {"24h", "24h"}, {"0s", "0s"}, {"1h0m0s", "1h"}, {"1h5m", "1h5m"}, {"10s", "10s"}} {
		d, err := proto.ParseDuration(tt.in)
		if err != nil || d.String() != tt.want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", tt.in, d, err, tt.want)
		}
	}
	for _, bad := range []string{"30", "0", "", "-1s", "2 m", "1d"} {
		if d, err := proto.ParseDuration(bad); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", bad, d)
		}
	}
}

func TestCheckSteps(t *testing.T) {
	d := func(s string) *proto.Duration {
		v, err := proto.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return &v
	}
	ok := proto.Step{Name: "a", Phase: proto.PhasePost}
	tests := []struct {
		name  string
		steps []proto.Step
		want  string // part of the error; empty for none
	}{
		{"smallest", []proto.Step{ok}, ""},
		{"twice the same name", []proto.Step{ok, ok}, "stands twice"},
		{"no name", []proto.Step{{Phase: proto.PhasePost}}, "step \"\""},
		{"no phase", []proto.Step{{Name: "a"}}, "use one of pre, post"},
		{"path as script", []proto.Step{{Name: "a", Phase: proto.PhasePost, Script: "../../bin/sh"}}, "plain name"},
		{"no timeout", []proto.Step{{Name: "a", Phase: proto.PhasePost, Timeout: d("0s")}}, "for ever"},
		{"endless timeout", []proto.Step{{Name: "a", Phase: proto.PhasePost, Timeout: d("25h")}}, "at most 24h"},
		{"retries", []proto.Step{{Name: "a", Phase: proto.PhasePost, Retries: 21}}, "use 0 to 20"},
		{"reboot in post", []proto.Step{{Name: "a", Phase: proto.PhasePost, Reboot: &proto.Reboot{Max: 1}}}, "half made"},
		{"environment of ours", []proto.Step{{Name: "a", Phase: proto.PhasePost, Env: map[string]string{"PROVOST_NODE": "x"}}}, "PROVOST_"},
		{"exit status", []proto.Step{{Name: "a", Phase: proto.PhasePost, SuccessCodes: []int{256}}}, "0 to 255"},
	}
	for _, tt := range tests {
		err := proto.CheckSteps(tt.steps)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: CheckSteps = %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCheckAgentEvent(t *testing.T) {
	good := func() proto.Event {
		return proto.Event{Kind: proto.KindStepEnd, Seq: 1, Boot: "aaaaaaaa-0000-4000-8000-000000000001", Phase: proto.PhasePost, Step: "a", Try: 1, Outcome: proto.OutcomeOK}
	}
	if e := good(); e.CheckAgent() != nil {
		t.Fatalf("CheckAgent(%+v) = %v, want nil", e, e.CheckAgent())
	}
	tests := map[string]func(*proto.Event){
		"a collector's kind":     func(e *proto.Event) { e.Kind = proto.KindOrdered },
		"an operator's abort":    func(e *proto.Event) { e.Kind = proto.KindAborted },
		"no sequence number":     func(e *proto.Event) { e.Seq = 0 },
		"no boot id":             func(e *proto.Event) { e.Boot = "x" },
		"step with a path":       func(e *proto.Event) { e.Step = "../../etc/passwd" },
		"log with a path":        func(e *proto.Event) { e.Log = "a/b" },
		"unknown phase":          func(e *proto.Event) { e.Phase = "later" },
		"unknown outcome":        func(e *proto.Event) { e.Outcome = "great" },
		"no outcome":             func(e *proto.Event) { e.Outcome = "" },
		"time runs backwards":    func(e *proto.Event) { e.OffsetMS = -1 },
		"a message of megabytes": func(e *proto.Event) { e.Message = strings.Repeat("x", proto.MaxMessage+1) },
		"a tail of thousands":    func(e *proto.Event) { e.Tail = make([]string, proto.MaxTail+1) },
	}
	for name, spoil := range tests {
		e := good()
		spoil(&e)
		if e.CheckAgent() == nil {
			t.Errorf("%s: CheckAgent = nil, want an error", name)
		}
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		in   string
		max  int
		want string
	}{{"abc", 10, "abc"}, {strings.Repeat("a", 20), 12, "aaaaaa […]"}, {strings.Repeat("é", 10), 13, "ééé […]"}, {"a\xffb", 10, "a\uFFFDb"}} {
		if got := proto.Clip(tt.in, tt.max); got != tt.want || len(got) > tt.max {
			t.Errorf("Clip(%q, %d) = %q, want %q", tt.in, tt.max, got, tt.want)
		}
	}
}

func TestCauseSummary(t *testing.T) {
	for _, tt := range []struct {
		c    proto.Cause
		want string
	}{
		{proto.Cause{Kind: proto.CauseStep, Name: "otherpkgs", Exit: 127}, "failed(otherpkgs=127)"},
		{proto.Cause{Kind: proto.CauseTimeout, Name: "a"}, "failed(a=timeout)"},
		{proto.Cause{Kind: proto.CausePreflight, Name: "a"}, "failed(a=preflight)"},
		{proto.Cause{Kind: proto.CauseSignal, Name: "a", Signal: "SIGKILL"}, "failed(a=SIGKILL)"},
		{proto.Cause{Kind: proto.CauseLoop, Count: 3}, "failed(loop=3)"},
		{proto.Cause{Kind: proto.CauseInstaller, Name: "x"}, "failed(installer)"},
		{proto.Cause{Kind: proto.CauseStageDeadline, Name: "x"}, "failed(stage-deadline)"},
	} {
		if got := tt.c.Summary(); got != tt.want {
			t.Errorf("Summary(%+v) = %q, want %q", tt.c, got, tt.want)
		}
	}
}

func FuzzDecodePlan(f *testing.F) {
	b, _ := json.Marshal(proto.Plan{Schema: 1, Node: "n1", Install: proto.NewID(time.Now()), OnFailure: proto.OnFailureHold,
		Steps: []proto.Step{{Name: "a", Phase: proto.PhasePost, Digest: proto.Digest(nil)}}})
	if _, err := proto.DecodePlan(b); err != nil {
		f.Fatalf("DecodePlan(%s) = %v, want a plan", b, err)
	}
	f.Add(b)
	f.Add([]byte(`{"steps":[{"name":"a","timeout":"1s"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if p, err := proto.DecodePlan(in); err == nil && p.Check() != nil {
			t.Errorf("DecodePlan(%q) accepted what Check refuses", in)
		}
	})
}

func TestIDs(t *testing.T) {
	good := "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	digest := strings.Repeat("0123456789abcdef", 4)
	for s, want := range map[string]bool{good: true, "": false, good[1:]: false, good + "0": false, "8" + good[1:]: false, strings.ToLower(good): false,
		good[:25] + "I": false, good[:25] + "\n": false, "7" + strings.Repeat("Z", 25): true} {
		if got := proto.ValidID(s); got != want {
			t.Errorf("ValidID(%q) = %v", s, got)
		}
	}
	for s, want := range map[string]bool{digest: true, "": false, digest[1:]: false, digest + "0": false, strings.ToUpper(digest): false, digest[:63] + "\n": false, digest[:63] + "g": false} {
		if got := proto.ValidDigest(s); got != want {
			t.Errorf("ValidDigest(%q) = %v", s, got)
		}
	}
}
