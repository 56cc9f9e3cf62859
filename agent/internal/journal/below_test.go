// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/journal"
	"provost/proto"
)

func stampNow() (time.Time, string, time.Duration) {
	return time.Now(), "11111111-1111-4111-8111-111111111111", time.Second
}

// tree lists what is below dir: directories, links and files.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, d.Type().String()[:1]+" "+rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMirrorStaysInTarget: a link in the target means what it will mean when the target runs, and never the installer's own
// file system.
func TestMirrorStaysInTarget(t *testing.T) {
	for _, tt := range []struct {
		name  string
		links map[string]string // from where in the target to where; OUT is a directory of the installer
		logs  string            // where in the target the log is then
		state string
		fails string
	}{
		{name: "plain", logs: "var/log/provost", state: "var/lib/provost"},
		{name: "absolute", links: map[string]string{"var/log": "/data/log"}, logs: "data/log/provost", state: "var/lib/provost"},
		{name: "to the installer", links: map[string]string{"var/log": "OUT"}, logs: "OUT/provost", state: "var/lib/provost"},
		{name: "above", links: map[string]string{"var": "../../../../../../../../data"}, logs: "data/log/provost", state: "data/lib/provost"},
		{name: "chain", links: map[string]string{"var/lib": "/a/../b", "b": "data//./x"}, logs: "var/log/provost", state: "data/x/provost"},
		{name: "last", links: map[string]string{"var/lib/provost": "/data/p", "var/log/provost": "../../data/q"}, logs: "data/q", state: "data/p"},
		{name: "loop", links: map[string]string{"var/log": "/x", "x": "/var/log"}, fails: "too many levels of symbolic links"},
		{name: "file", links: map[string]string{"var/lib/provost/journal": "OUT"}, fails: "is no directory: remove it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, out := t.TempDir(), t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "a"), 0o700); err != nil {
				t.Fatal(err)
			}
			for from, to := range tt.links {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, from)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(strings.ReplaceAll(to, "OUT", out), filepath.Join(root, from)); err != nil {
					t.Fatal(err)
				}
			}
			dir := t.TempDir()
			j, err := journal.Open(dir, stampNow, journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			w, err := j.Log("one.log")
			if err != nil {
				t.Fatal(err)
			}
			w.Write([]byte("a line\n"))
			w.Close()
			err = j.SetMirror(root, install)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("SetMirror = %v, want %q", err, tt.fails)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if _, err := j.Append(proto.Event{Kind: proto.KindNote, Message: "hello"}); err != nil {
				t.Error(err)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
			if d := cmp.Diff([]string{"d ."}, tree(t, out)); d != "" {
				t.Errorf("outside of the target (-want +got):\n%s", d)
			}
			if tt.fails != "" {
				return
			}
			at := func(name string) string { return filepath.Join(root, strings.ReplaceAll(name, "OUT", out)) }
			if b, err := os.ReadFile(filepath.Join(at(tt.logs), install, "one.log")); err != nil || string(b) != "a line\n" {
				t.Errorf("the log in the target = %q, %v", b, err)
			}
			want, err := os.ReadFile(filepath.Join(dir, "journal/00000000000000000001.log"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(at(tt.state), "journal/00000000000000000001.log"))
			if d := cmp.Diff(string(want), string(got)); d != "" || err != nil {
				t.Errorf("the journal in the target: %v (-want +got):\n%s", err, d)
			}
		})
	}
}

// TestMirrorIsNoLink: files of the mirror's names that are something else are put aside, not written through.
func TestMirrorIsNoLink(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("root:x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	journalDir := filepath.Join(root, "var/lib/provost/journal")
	if err := os.MkdirAll(journalDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(journalDir, "00000000000000000001.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "var/log/provost", install), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "var/log/provost", install, "one.log"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, stampNow, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := j.Log("one.log")
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("a line\n"))
	w.Close()
	if err := j.SetMirror(root, install); err != nil {
		t.Error(err)
	}
	if _, err := j.Append(proto.Event{Kind: proto.KindNote, Message: "hello"}); err != nil {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "root:x\n" {
		t.Errorf("a file outside of the target = %q, %v", b, err)
	}
	sameFiles(t, dir, root)
}

// TestRemovedJournal: somebody removes the journal under a running agent. What is recorded then is kept, no number is given
// twice, and a reader is told what is missing.
func TestRemovedJournal(t *testing.T) {
	for _, tt := range []struct{ name, remove string }{{"directory", "journal"}, {"segment", "journal/00000000000000000001.log"}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j, err := journal.Open(dir, stampNow, journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			note := func(text string) {
				t.Helper()
				if _, err := j.Append(proto.Event{Kind: proto.KindNote, Message: text}); err != nil {
					t.Error(err)
				}
			}
			note("one")
			note("two")
			if err := os.RemoveAll(filepath.Join(dir, tt.remove)); err != nil {
				t.Fatal(err)
			}
			note("three")
			note("four")
			id := j.ID()
			if err := j.Close(); err != nil {
				t.Error(err)
			}
			j, err = journal.Open(dir, stampNow, journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if j.ID() != id {
				t.Errorf("the journal is %s now, want %s", j.ID(), id)
			}
			records, err := j.Read(1, 100, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range records {
				got = append(got, r.Event.Message)
			}
			want := []string{"record 1 of this journal is lost", "record 2 of this journal is lost", "three", "four"}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("records (-want +got):\n%s", d)
			}
		})
	}
}

// TestReplacedJournal: another journal in the place of the one that is open gets none of its records.
func TestReplacedJournal(t *testing.T) {
	dir := t.TempDir()
	open := func() *journal.Journal {
		j, err := journal.Open(dir, stampNow, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if _, err := j.Append(proto.Event{Kind: proto.KindNote, Message: "one"}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil {
		t.Fatal(err)
	}
	other := open()
	defer other.Close()
	if _, err := j.Append(proto.Event{Kind: proto.KindNote, Message: "two"}); err == nil || !strings.Contains(err.Error(), "somebody put another journal") {
		t.Errorf("Append = %v, want that another journal is there", err)
	}
	if err := j.Close(); err == nil || !strings.Contains(err.Error(), "1 records could never be written") {
		t.Errorf("Close = %v, want one record lost", err)
	}
	if records, err := other.Read(1, 10, 1<<20); err != nil || len(records) != 0 {
		t.Errorf("the other journal has %v, %v", records, err)
	}
}
