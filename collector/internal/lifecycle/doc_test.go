// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"provost/collector/internal/lifecycle"
)

var update = flag.Bool("update", false, "write the table of statuses into the documentation")

// TestTableIsDocumented: the table in DESIGN.md is the one that decides.
func TestTableIsDocumented(t *testing.T) {
	const file, begin, end = "../../DESIGN.md", "compares -->\n", "<!-- end of table -->"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+lifecycle.Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != lifecycle.Table() {
		t.Errorf("the table in %s is not the one of the code: go test ./collector/internal/lifecycle -update", file)
	}
}
