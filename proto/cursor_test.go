// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"strings"
	"testing"

	"provost/proto"
)

func TestCursor(t *testing.T) {
	for _, want := range []proto.Cursor{{}, {Revision: 4711}, {Database: "DB1", Revision: 1<<64 - 1}} {
		if got, err := proto.ParseCursor(want.String()); got != want || err != nil {
			t.Errorf("ParseCursor(%q) = %+v, %v, want %+v", want, got, err, want)
		}
	}
	for _, s := range []string{"", ":", ":1", "DB1:", "DB1:-1", "DB1", "1:2:3", "D B:1", "DÄ:1", "18446744073709551616", "0x1", strings.Repeat("D", 128) + ":1"} {
		if c, err := proto.ParseCursor(s); err == nil {
			t.Errorf("ParseCursor(%q) = %+v, want an error", s, c)
		}
	}
}
