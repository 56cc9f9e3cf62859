// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"provost/agent/internal/host"
)

// TestForgetProgram: fewer pages of the program are this process's, and it goes on.
func TestForgetProgram(t *testing.T) {
	resident := func() (kib int) {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nRssFile:")
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			t.Skip("this kernel does not say how much of a file a process has: ", err)
		}
		return kib
	}
	before := resident()
	if err := host.ForgetProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(); after > before/2 {
		t.Errorf("%d KiB of the program are there, %d were: want half of it at most", after, before)
	}
}
