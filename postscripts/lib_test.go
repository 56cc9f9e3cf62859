// SPDX-License-Identifier: Apache-2.0

package postscripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const head = "#!/bin/sh\nset -eu\n. \"$PROVOST_LIB/provost.sh\"\n"

func TestStatusLines(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		for _, c := range []struct {
			script string
			rc     int
			status string
		}{
			{"provost_message 'all is well'", 0, "message=all is well\n"},
			{"provost_message \"$(printf 'two\\nlines\\there')\"", 0, "message=two lines here\n"},
			{`provost_message 'a\nb %s "q"'`, 0, "message=a\\nb %s \"q\"\n"},
			{"provost_message ''", 0, "message=\n"},
			{"provost_stage packages-done", 0, "stage=packages-done\n"},
			{"provost_stage 'a b'", 64, ""},
			{"provost_stage ''", 64, ""},
			{"provost_stage \"$(printf 'a\\nmessage=x')\"", 64, ""},
			{"provost_stage -a", 64, ""},
			{"provost_progress 0; provost_progress 7; provost_progress 100", 0, "progress=0\nprogress=7\nprogress=100\n"},
			{"provost_progress 101", 64, ""},
			{"provost_progress 07", 64, ""},
			{"provost_progress half", 64, ""},
			{"provost_progress ''", 64, ""},
			{"provost_die 3 'no disk'; echo not reached", 3, "message=no disk\n"},
			{"provost_die 255 x", 255, "message=x\n"},
			{"provost_die 0 x", 1, "message=x\n"},
			{"provost_die 256 x", 1, "message=x\n"},
			{"provost_die '' x", 1, "message=x\n"},
			{"(provost_die 7 inner) || exit 9", 9, "message=inner\n"},
		} {
			tg.write("steps/s", head+c.script+"\n", 0o755)
			got := tg.run("s")
			if got.rc != c.rc || got.status != c.status || strings.Contains(got.out, "not reached") {
				t.Errorf("%s: status %d, said %q, output %q, want %d and %q", c.script, got.rc, got.status, got.out, c.rc, c.status)
			}
		}
		tg.write("steps/s", head+"provost_die 3 'no disk'\n", 0o755)
		if got := tg.run("s"); got.out != "s: no disk\n" {
			t.Errorf("provost_die prints %q", got.out)
		}
	})
}

// A step must not fail because its status cannot be written, nor outside of an agent.
func TestStatusThatCannotBeWritten(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		tg.write("steps/s", head+"provost_message hello\nprovost_stage a\nprovost_progress 1\necho end\n", 0o755)
		for _, status := range []string{"/nowhere/status", "/etc", ""} {
			if got := tg.run("s", "PROVOST_STATUS="+status); got.rc != 0 || got.out != "hello\nend\n" {
				t.Errorf("with PROVOST_STATUS=%s: status %d, output %q", status, got.rc, got.out)
			}
		}
	})
}

func TestWriteFile(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		tg.write("in", "one\x00two\n", 0o644)
		tg.write("steps/s", head+"provost_write_file /etc/new/deep/file 0640 </in\n", 0o755)
		if got := tg.run("s"); got.rc != 0 || tg.read("etc/new/deep/file") != "one\x00two\n" || tg.mode("etc/new/deep/file") != 0o640 {
			t.Errorf("status %d, output %q, file %q with mode %s", got.rc, got.out, tg.read("etc/new/deep/file"), tg.mode("etc/new/deep/file"))
		}
		before := tg.identity("etc/new/deep/file")
		if tg.run("s"); tg.identity("etc/new/deep/file") != before {
			t.Error("a file that was so already was written again")
		}
		tg.write("in", "three\n", 0o644)
		if tg.run("s"); tg.identity("etc/new/deep/file") == before || tg.read("etc/new/deep/file") != "three\n" {
			t.Error("a changed file was not replaced by a new one")
		}

		if err := os.Symlink("/in", filepath.Join(tg.root, "etc/link")); err != nil {
			t.Fatal(err)
		}
		tg.write("steps/s", head+"echo four | provost_write_file /etc/link\n", 0o755)
		if got := tg.run("s"); got.rc != 0 || tg.mode("etc/link") != 0o644 || tg.read("in") != "three\n" {
			t.Errorf("over a link: status %d, %s, and what it led to has %q", got.rc, tg.mode("etc/link"), tg.read("in"))
		}

		tg.write("etc/plain", "", 0o644)
		for _, path := range []string{"/etc/plain/below", "/etc/new"} {
			tg.write("steps/s", head+"provost_write_file "+path+" </in\necho not reached\n", 0o755)
			got := tg.run("s")
			if path == "/etc/new" {
				// a directory: mv puts the file into it unless it is refused
				if entries, err := os.ReadDir(filepath.Join(tg.root, "etc/new")); err != nil || len(entries) != 1 {
					t.Errorf("writing over a directory left %v in it, %v", entries, err)
				}
			}
			if got.rc == 0 || strings.Contains(got.out, "not reached") {
				t.Errorf("writing %s: status %d, output %q, want a failure", path, got.rc, got.out)
			}
		}
		left, err := filepath.Glob(filepath.Join(tg.root, "etc/*provost-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
	})
}

// The status of a pipeline is that of its first failing command, in each shell that can do so.
func TestPipefail(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		tg.write("steps/s", head+"if false | true; then echo hidden; else echo seen; fi\n", 0o755)
		want := "seen\n"
		if shell == "dash" && exec.Command("dash", "-c", "set -o pipefail").Run() != nil {
			want = "hidden\n"
		}
		if got := tg.run("s"); got.rc != 0 || got.out != want {
			t.Errorf("status %d, output %q, want %q", got.rc, got.out, want)
		}
	})
}

func TestTarget(t *testing.T) {
	each(t, func(t *testing.T, shell string) {
		tg := newTarget(t, shell)
		tg.write("steps/s", head+"echo \"<$provost_target>\"\nprovost_in_target cat /etc/who\nif provost_running; then echo running; fi\n", 0o755)
		tg.write("etc/who", "target\n", 0o644)
		if got, want := tg.run("s").out, "<>\ntarget\n"; got != want {
			t.Errorf("inside: %q, want %q", got, want)
		}
		if got, want := tg.runOutside("s").out, "<"+tg.root+">\ntarget\n"; got != want {
			t.Errorf("outside: %q, want %q", got, want)
		}
		if got, want := tg.runOutside("s", "PROVOST_ROOT="+tg.root+"/").out, "<"+tg.root+">\ntarget\n"; got != want {
			t.Errorf("outside, with a slash: %q, want %q", got, want)
		}
		if got, want := tg.run("s", "PROVOST_PHASE=firstboot").out, "<>\ntarget\nrunning\n"; got != want {
			t.Errorf("in phase firstboot: %q, want %q", got, want)
		}
	})
}
