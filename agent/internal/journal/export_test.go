// SPDX-License-Identifier: Apache-2.0

package journal

import "fmt"

// Frame writes a line for tests that make files by hand.
func Frame(body string) []byte { return fmt.Appendf(nil, "%08x %s\n", castagnoli([]byte(body)), body) }

// ScanBytes reads a segment's bytes as a reader and as a writer do: the records, and the number that comes next.
func ScanBytes(b []byte) (records []Record, due uint64) {
	emit := func(r Record) bool { records = append(records, r); return true }
	c := cursor{next: 1}
	c.lines("file", 0, b, emit)
	due = c.due()
	c.end(emit)
	return records, due
}
