// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestPackIsLean: installs end by the thousand, and none of them may cost a compressor of its own.
func TestPackIsLean(t *testing.T) {
	var lines [][]byte
	for i := range 60 {
		lines = append(lines, fmt.Appendf(nil, `{"kind":"step-end","seq":%d,"message":%q}`, i, strings.Repeat("a line ", 40)))
	}
	once := func() {
		b, err := packLines(lines)
		if err != nil {
			t.Error(err)
			return
		}
		back, err := unpack(b)
		if err != nil || !bytes.Equal(bytes.Join(back, nil), bytes.Join(lines, nil)) {
			t.Errorf("unpacked: %d lines, %v", len(back), err)
		}
	}
	var together sync.WaitGroup
	for range 8 {
		together.Go(once)
	}
	together.Wait()
	var before, after runtime.MemStats
	const n = 50
	runtime.ReadMemStats(&before)
	for range n {
		once()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 300<<10 {
		t.Errorf("a pack and its reading allocate %d KiB, want at most 300", each>>10)
	}
}
