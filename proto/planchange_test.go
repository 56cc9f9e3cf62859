// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"testing"

	"provost/proto"
)

func TestDiffSteps(t *testing.T) {
	list := func(names string) (out []proto.Step) {
		for _, n := range names {
			out = append(out, proto.Step{Name: string(n), Phase: proto.PhasePost})
			if n >= 'A' && n <= 'Z' { // the same step, changed
				out[len(out)-1].Name, out[len(out)-1].Retries = string(n+'a'-'A'), 3
			}
		}
		return out
	}
	for _, tt := range []struct{ old, new, want string }{
		{"", "", "no step has changed"},
		{"abc", "abc", "no step has changed"},
		{"abc", "aBc", "b has changed"},
		{"abc", "abcd", "d is new"},
		{"abc", "ac", "b is gone"},
		{"abc", "bd", "d is new, a is gone, c is gone"},
		{"abc", "acb", "the order is another one"},
		{"abc", "Cxb", "c has changed, x is new, a is gone, the order is another one"},
	} {
		d := proto.DiffSteps(list(tt.old), list(tt.new))
		if got := d.String(); got != tt.want {
			t.Errorf("DiffSteps(%s, %s) = %q, want %q", tt.old, tt.new, got, tt.want)
		}
		if e := proto.DiffSteps(list(tt.old), list(tt.old)); e.Same(d) != (tt.want == "no step has changed") {
			t.Errorf("%+v and %+v are the same: %t", e, d, e.Same(d))
		}
	}
}
