// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"provost/agent/internal/journal"
)

// FuzzReader: whatever stands in a segment, numbers have no gap, what was read stays so, and the next record is kept.
func FuzzReader(f *testing.F) {
	dir := f.TempDir()
	j, err := journal.Open(dir, stampOf(boot1), journal.Options{})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range lines(3) {
		if _, err := j.Append(note(m)); err != nil {
			f.Fatal(err)
		}
	}
	j.Close()
	good, err := os.ReadFile(firstSegment(dir))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Add(append([]byte("x\n"), good...))
	f.Add([]byte{})
	f.Add([]byte("\n\n\n"))
	f.Add(append(append([]byte{}, good...), journal.Frame(`{"kind":"note","seq":300}`)...))
	f.Add(append(append([]byte{}, good...), journal.Frame(`{"kind":"note","seq":18446744073709551615}`)...))
	f.Add(journal.Frame(`{"journal":"0123456789abcdef","first":7,"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		before, due := journal.ScanBytes(b)
		if due != uint64(len(before))+1 {
			t.Fatalf("%d records are read, but %d is next", len(before), due)
		}
		for i, r := range before {
			if r.Seq != uint64(i)+1 || r.Event.Seq != r.Seq {
				t.Fatalf("record %d has number %d, and %d inside", i+1, r.Seq, r.Event.Seq)
			}
		}
		// What a writer does next: it cuts off the torn tail and appends.
		b = b[:bytes.LastIndexByte(b, '\n')+1]
		if len(b) == 0 {
			b = journal.Frame(`{"journal":"0123456789abcdef","first":1,"version":1}`)
		}
		b = append(slices.Clone(b), journal.Frame(fmt.Sprintf(`{"kind":"note","message":"new","seq":%d}`, due))...)
		after, _ := journal.ScanBytes(b)
		if len(after) != len(before)+1 || after[len(after)-1].Event.Message != "new" {
			t.Fatalf("%d records before, %d after", len(before), len(after))
		}
		for i, r := range before {
			if after[i].Seq != r.Seq || after[i].Event.Kind != r.Event.Kind {
				t.Fatalf("record %d was %+v and is %+v", i+1, r, after[i])
			}
		}
	})
}
