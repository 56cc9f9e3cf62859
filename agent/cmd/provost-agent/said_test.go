// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSaid: who does not read what is said holds nobody up, and learns later how much is missing.
func TestSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		s := newSaid(w)
		begin := time.Now()
		for i := range 2 * saidMax {
			fmt.Fprintf(s, "line %d\n", i)
			synctest.Wait()
		}
		s.end()
		if took := time.Since(begin); took != saidWait {
			t.Errorf("it took %s with nobody who reads, want %s", took, saidWait)
		}
		var got bytes.Buffer
		go func() { io.Copy(&got, r) }()
		<-s.done
		w.Close()
		synctest.Wait()
		text := got.String()
		if !strings.HasPrefix(text, "line 0\nline 1\n") || strings.Count(text, "\nline ") != saidMax || !strings.Contains(text, fmt.Sprintf("%d lines are missing here", saidMax-1)) {
			t.Errorf("it was read %.40q … %q, want the first %d lines and how many are missing", text, text[max(0, len(text)-80):], saidMax+1)
		}
	})
}
