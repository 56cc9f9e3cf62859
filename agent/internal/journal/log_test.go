// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/journal"
	"provost/proto"
)

func TestLog(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	for range 2 { // a second try appends
		w, err := j.Log("s.log")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "hello\n")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := j.ReadLog("s.log", 3, 5)
	if err != nil || string(b) != "lo\nhe" {
		t.Errorf("ReadLog(3, 5) = %q, %v", b, err)
	}
	if b, err := j.ReadLog("s.log", 12, 5); err != nil || len(b) != 0 {
		t.Errorf("ReadLog at the end = %q, %v", b, err)
	}
	if d := cmp.Diff([]proto.LogInfo{{Name: "s.log", Size: 12}}, j.Logs()); d != "" {
		t.Errorf("Logs (-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "x", "../x.log", "/etc/x.log", ".log", "a/b.log"} {
		if w, err := j.Log(bad); err == nil {
			w.Close()
			t.Errorf("Log(%q) was opened", bad)
		}
		if _, err := j.ReadLog(bad, 0, 1); err == nil {
			t.Errorf("ReadLog(%q) was read", bad)
		}
	}
}

// TestLogCap: a step that prints in a loop keeps its beginning and its end, with the gap stated to the byte.
func TestLogCap(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	w, err := j.Log("s.log")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, "logs", "s.log"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	var before int64
	for i := 0; total < 20<<20; i++ {
		n, _ := fmt.Fprintf(w, "%07d %s\n", i, strings.Repeat(".", 991))
		total += n
		if now := size(); now < before {
			t.Fatalf("the log shrank from %d to %d", before, now)
		} else {
			before = now
		}
	}
	fmt.Fprintln(w, "the very end")
	total += len("the very end\n")
	w.Close()
	b, err := os.ReadFile(filepath.Join(dir, "logs", "s.log"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 18<<20 || !bytes.HasPrefix(b, []byte("0000000 ...")) || !bytes.HasSuffix(b, []byte("\nthe very end\n")) {
		t.Errorf("log of %d bytes, from %.20q to %q", len(b), b, b[len(b)-20:])
	}
	words := regexp.MustCompile(`\n\[provost: [^\n]*\]\n`).FindAll(b, -1)
	if len(words) != 2 {
		t.Fatalf("the log says %q", words)
	}
	var missing int
	fmt.Sscanf(string(words[1]), "\n[provost: %d bytes", &missing)
	if kept := len(b) - len(words[0]) - len(words[1]); kept+missing != total {
		t.Errorf("%d bytes kept and %d missing are not %d", kept, missing, total)
	}
}

func TestLogOnFullDisk(t *testing.T) {
	logs := mountTmpfs(t, "64k")
	var s said
	j := open(t, t.TempDir(), journal.Options{LogDir: logs, Warn: s.warn})
	w, err := j.Log("s.log")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 100 {
		if n, err := w.Write(make([]byte, 1024)); n != 1024 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if s.count("s.log") != 1 || len(messages(t, j)) != 1 {
		t.Errorf("said %q and noted %q, want it once each", s.what, messages(t, j))
	}
	os.WriteFile(filepath.Join(logs, "other"), nil, 0o600)
	if err := os.Truncate(filepath.Join(logs, "s.log"), 0); err != nil { // somebody made space
		t.Fatal(err)
	}
	fmt.Fprintln(w, "space again")
	b, _ := os.ReadFile(filepath.Join(logs, "s.log"))
	if !regexp.MustCompile(`bytes are missing here: the disk took none\]\nspace again\n$`).Match(b) {
		t.Errorf("log = %q", b)
	}
}
