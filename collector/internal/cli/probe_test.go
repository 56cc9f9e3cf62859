// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"strings"
	"testing"
)

func TestProbeHelp(t *testing.T) {
	var out, errs strings.Builder
	if code := program(&out, &errs).Run(t.Context(), []string{"probe", "--help"}); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit status %d, stderr %q", code, errs.String())
	}
	for l := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > 80 {
			t.Errorf("line of %d columns: %s", n, l)
		}
	}
	if text := out.String(); strings.Index(text, "\nExit status:\n  0 ") < strings.Index(text, "\nExamples:\n") {
		t.Errorf("help does not end with examples and exit status:\n%s", text)
	}
}
