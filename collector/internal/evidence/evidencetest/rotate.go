// SPDX-License-Identifier: Apache-2.0

// Package evidencetest writes logs for tests as daemons and logrotate do it. It must not be linked into a program.
package evidencetest

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// The pace of Rotate.
const (
	tick     = 5 * time.Millisecond
	perTick  = 25 // lines: 5,000 a second
	rotation = 50 // ticks
	overlap  = 40 // ticks: 200 ms
	olds     = 9  // rotated files that are kept: all of them, or a follower that comes late would miss some
)

// Rotate writes n lines to a log, 5,000 a second, and rotates it four times a second. After each rotation every second line
// goes to the old file for another 200 ms.
func Rotate(t testing.TB, path string, n int, line func(i int) string) {
	t.Helper()
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := open()
	var old *os.File
	shut := func() {
		if old != nil {
			old.Close()
			old = nil
		}
	}
	defer func() { shut(); f.Close() }()
	pace := time.NewTicker(tick)
	defer pace.Stop()
	for i, ticks := 0, 0; i < n; ticks++ {
		<-pace.C
		switch ticks % rotation {
		case rotation / 2:
			for k := olds - 1; k > 0; k-- {
				os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1)) // as far as there are any
			}
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			old, f = f, open()
		case (rotation/2 + overlap) % rotation:
			shut()
		}
		for k := 0; k < perTick && i < n; k++ {
			w := f
			if old != nil && k%2 == 0 {
				w = old
			}
			if _, err := w.WriteString(line(i)); err != nil {
				t.Fatal(err)
			}
			i++
		}
	}
}
