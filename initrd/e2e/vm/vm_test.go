// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	c, err := openConsole(path)
	if err != nil {
		t.Fatal(err)
	}
	_, more, ok := c.find(regexp.MustCompile("login"))
	if ok {
		t.Fatal("find in an empty console = true")
	}
	// A line in pieces, an end of line in pieces, colours, blank lines, a line rewritten by \r.
	for _, piece := range []string{"\x1b[1mone", " line\r", "\n\r\n", "10%\r100%\r\n", "bell\a \xff\r\n", "host login: "} {
		c.Write([]byte(piece))
	}
	select {
	case <-more:
	default:
		t.Error("the waiter was not told that more has come")
	}
	if d := cmp.Diff("one line\n10%\n100%\nbell ?\nhost login:", c.text()); d != "" {
		t.Errorf("text (-want +got):\n%s", d)
	}
	if line, _, ok := c.find(regexp.MustCompile(`login:$`)); !ok || line != "host login:" {
		t.Errorf("find(login:) = %q, %v; a prompt has no end of line", line, ok)
	}
	c.close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(file)), "\n"); len(lines) != 6 || !regexp.MustCompile(`^ +\d+\.\d\d host login:$`).MatchString(lines[5]) {
		t.Errorf("the file = %q, want the start, five lines with their times", lines)
	}
}

func TestFirstPartition(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := NewDisk(disk, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := firstPartition(disk); err == nil {
		t.Error("firstPartition of a blank disk = nil, want an error")
	}
	mbr := make([]byte, 512)
	copy(mbr[446:], []byte{0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0xf8, 0x1f, 0})
	mbr[510], mbr[511] = 0x55, 0xaa
	if err := os.WriteFile(disk, mbr, 0o644); err != nil {
		t.Fatal(err)
	}
	start, size, err := firstPartition(disk)
	if start != 2048*512 || size != 0x1ff800*512 || err != nil {
		t.Errorf("firstPartition = %d, %d, %v, want 1 MiB and 1 GiB less 1 MiB", start, size, err)
	}
}
