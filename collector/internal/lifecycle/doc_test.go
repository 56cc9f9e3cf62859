// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"provost/collector/internal/lifecycle"
)

var update = flag.Bool("update", false, "write the tables into the documentation")

// TestTablesAreDocumented: the tables in DESIGN.md are those that decide.
func TestTablesAreDocumented(t *testing.T) {
	const file, end = "../../DESIGN.md", "<!-- end of table -->"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, table := range []struct{ name, want string }{{"table", lifecycle.Table()}, {"effects", lifecycle.Effects()}, {"closings", lifecycle.Closings()}} {
		begin := "<!-- " + table.name + ": made by the lifecycle package; its test compares -->\n"
		before, rest, ok := strings.Cut(text, begin)
		got, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the table %s", file, table.name)
		}
		if got != table.want && !*update {
			t.Errorf("the table %s in %s is not the one of the code: go test ./collector/internal/lifecycle -update", table.name, file)
		}
		text = before + begin + table.want + end + after
	}
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
