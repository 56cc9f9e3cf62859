// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/probe"
	"provost/proto"
)

// machine is a System of maps.
type machine struct {
	now   time.Duration
	files map[string]*content
	procs []probe.Process
	mount []string
	ports []int
	read  int // most that one Read was asked for
}

type content struct {
	id   string
	text string
	dir  bool
}

func newMachine() *machine { return &machine{files: map[string]*content{}} }

func (m *machine) Now() time.Duration { return m.now }

func (m *machine) Glob(pattern string) []string {
	var out []string
	for p := range m.files {
		if ok, _ := path.Match(pattern, p); ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (m *machine) Read(p string, offset int64, limit int) (probe.File, []byte, error) {
	f := m.files[p]
	if f == nil || f.dir {
		return probe.File{}, nil, errors.New("no such file")
	}
	m.read = max(m.read, limit)
	b := []byte(f.text)
	b = b[min(offset, int64(len(b))):]
	return probe.File{ID: f.id, Size: int64(len(f.text))}, b[:min(limit, len(b))], nil
}

func (m *machine) Processes() []probe.Process { return m.procs }
func (m *machine) Mounts() []string           { return m.mount }
func (m *machine) Listening(port int) bool    { return slices.Contains(m.ports, port) }

// add appends to a file.
func (m *machine) add(p, text string) {
	if m.files[p] == nil {
		m.files[p] = &content{id: fmt.Sprint(len(m.files), p)}
	}
	m.files[p].text += text
}

// short is the findings as "stage" or "stage failed: message".
func short(found []probe.Finding) []string {
	var out []string
	for _, f := range found {
		if f.Failed {
			out = append(out, f.Stage+" failed: "+f.Message)
		} else {
			out = append(out, f.Stage)
		}
	}
	return out
}

func want(t *testing.T, when string, got []probe.Finding, stages ...string) {
	t.Helper()
	if diff := cmp.Diff(stages, short(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// TestDebianInstaller replays the syslog of a real debian-installer, line by line, with what the machine had at the time.
func TestDebianInstaller(t *testing.T) {
	b, err := os.ReadFile("testdata/debian-installer.syslog")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	m.add("/usr/share/debconf", "")
	m.add("/bin/main-menu", "x")
	if got := probe.Detect(m); got != "debian" {
		t.Fatalf("Detect() = %q, want debian", got)
	}
	w := probe.New("debian")
	var shipped bytes.Buffer
	w.Ship(&shipped, 0)
	var got []string
	for line := range strings.Lines(string(b)) {
		m.now += time.Second
		m.add("/var/log/syslog", line)
		if strings.Contains(line, "EXT4-fs (vda1): mounted") {
			m.mount = []string{"/", "/target"}
		}
		for _, f := range w.Observe(m) {
			if f.Failed {
				t.Errorf("a good install failed at %q: %+v", line, f)
			}
			got = append(got, f.Stage)
		}
	}
	wantStages := []string{"installer-started", "autoinst-present", "partitioned", "packages-started", "packages-done"}
	if diff := cmp.Diff(wantStages, got); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
	if want := "==> /var/log/syslog <==\n" + string(b); shipped.String() != want {
		t.Errorf("shipped %d bytes, want the log's %d with one head line", shipped.Len(), len(want))
	}

	// Whoever comes late sees the same, at once and in the order of an install.
	late := probe.New("debian")
	if diff := cmp.Diff(wantStages, short(late.Observe(m))); diff != "" {
		t.Errorf("stages of a late watch (-want +got):\n%s", diff)
	}
}

// The words of a real failure of debian-installer: an item that another one depends on cannot be configured.
const diFailure = `Apr 26 12:51:03 main-menu[1247]: INFO: Menu item 'finish-install' selected
Apr 26 12:51:06 debootstrap: gpgv: Good signature from "Debian Archive Automatic Signing Key"
Apr 26 12:51:11 base-installer: error: exiting on error base-installer/debootstrap-failed
Apr 26 12:51:11 main-menu[1247]: WARNING **: Configuring 'bootstrap-base' failed with error code 1
Apr 26 12:51:11 main-menu[1247]: WARNING **: Menu item 'finish-install' failed.
`

func TestFailures(t *testing.T) {
	const tb = `anaconda 34.25.4.9-1.el9_4 exception report
Traceback (most recent call first):
  File "/usr/lib64/python3.9/site-packages/pyanaconda/storage.py", line 12, in x
    raise StorageError("no disks")
pyanaconda.errors.StorageError: no disks selected
  continued

Local variables in innermost frame:
secret: 1
`
	for _, c := range []struct {
		name, family, path, text string
		want                     []string
	}{
		{"debian", "debian", "/var/log/syslog", diFailure, []string{"installer-started", "packages-started",
			"packages-done failed: base-installer: error: exiting on error base-installer/debootstrap-failed; " +
				"main-menu: WARNING **: Configuring 'bootstrap-base' failed with error code 1"}},
		{"debian without packages", "debian", "/var/log/syslog", "Nov 20 17:58:33 anna[1955]: WARNING **: package retrieval failed\n",
			[]string{"installer-started failed: anna: WARNING **: package retrieval failed"}},
		{"debian: a step prints the same words", "debian", "/var/log/syslog", "Nov 20 17:58:33 in-target: main-menu: WARNING **: Menu item 'x' failed.\n" +
			"Nov 20 17:58:33 log-output: WARNING **: package retrieval failed\n", nil},
		{"anaconda's exception", "redhat", "/tmp/anaconda-tb-x1", tb, []string{"installer-started failed: pyanaconda.errors.StorageError: no disks selected"}},
		{"anaconda's exception without words", "redhat", "/tmp/anaconda-tb-x1", "\x00\n", []string{"installer-started failed: \x00"}},
		{"anaconda's payload", "redhat", "/tmp/anaconda.log", "10:41:41,225 INF installation: Task started: Install the payload (3/9)\n" +
			"10:41:42,225 ERR kickstart.script: Error code 127 running the kickstart script at line 40\n" +
			"10:41:43,225 ERR ui: The following error occurred while installing the payload. This is a fatal error and installation will be aborted.\n",
			[]string{"installer-started", "packages-started", "packages-done failed: ERR kickstart.script: Error code 127 running the kickstart script at line 40; " +
				"ERR ui: The following error occurred while installing the payload. This is a fatal error and installation will be aborted."}},
		{"RHEL 7's exception in its log", "redhat", "/tmp/anaconda.log", "10:52:51,507 CRIT anaconda: Traceback (most recent call last):\n",
			[]string{"installer-started", "autoinst-present failed: CRIT anaconda: Traceback (most recent call last):"}},
		{"a script fails that may", "redhat", "/tmp/anaconda.log", "10:41:42,225 ERR kickstart.script: Error code 1 running the kickstart script at line 40\n",
			[]string{"installer-started"}},
		{"yast's internal error", "suse", "/var/log/YaST2/y2log", "2026-11-20 10:00:00 <3> linux(4711) [Ruby] yast/wfm.rb:271 Client inst_prepdisk failed with 'no space' (RuntimeError).\n",
			[]string{"installer-started", "autoinst-present failed: <3> [Ruby] yast/wfm.rb:271 Client inst_prepdisk failed with 'no space' (RuntimeError)."}},
		{"yast's errors that it goes on after", "suse", "/var/log/YaST2/y2log", "2026-11-20 10:00:00 <3> linux(4711) [Pkg] something failed\n", []string{"installer-started"}},
		{"curtin", "ubuntu", "/var/log/installer/curtin-install.log", "Command: ['mkfs.ext4', '/dev/vda1']\nExit code: 1\nnoise\n" +
			"curtin: Installation failed with exception: Unexpected error while running command.\n",
			[]string{"installer-started failed: Command: ['mkfs.ext4', '/dev/vda1']; Exit code: 1; curtin: Installation failed with exception: Unexpected error while running command."}},
		{"subiquity", "ubuntu", "/var/log/installer/subiquity-server-debug.log", "2026-11-16 17:02:27,157 ERROR root:39 finish: subiquity/Install/install: FAIL: installing system\n",
			[]string{"installer-started", "autoinst-present failed: ERROR root:39 finish: subiquity/Install/install: FAIL: installing system"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine()
			m.add(c.path, c.text)
			w := probe.New(c.family)
			got := append(w.Observe(m), w.Observe(m)...) // a report of a failure is read when it has stopped growing
			if diff := cmp.Diff(c.want, short(got)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			for range 3 {
				want(t, "later looks", w.Observe(m))
			}
			for _, f := range got {
				if f.Failed && strings.Contains(c.path, "log") && (len(f.Tail) == 0 || !strings.Contains(c.text, f.Tail[len(f.Tail)-1][len(f.Tail[len(f.Tail)-1])/2:])) {
					t.Errorf("tail = %q, want the log's end", f.Tail)
				}
			}
		})
	}
}

// TestStages: each family's stages, by whatever sign they show.
func TestStages(t *testing.T) {
	for _, c := range []struct {
		name, family string
		do           func(m *machine)
		want         string
	}{
		{"anaconda runs", "redhat", func(m *machine) { m.procs = []probe.Process{{Name: "bash"}, {Name: "anaconda"}} }, "installer-started"},
		{"inst.sshd", "redhat", func(m *machine) { m.ports = []int{22} }, "ssh-open"},
		{"kickstart", "redhat", func(m *machine) { m.add("/run/install/ks.cfg", "text") }, "autoinst-present"},
		{"empty kickstart", "redhat", func(m *machine) { m.add("/run/install/ks.cfg", "") }, ""},
		{"sysroot", "redhat", func(m *machine) { m.mount = []string{"/mnt/sysroot"} }, "partitioned"},
		{"sysimage", "redhat", func(m *machine) { m.mount = []string{"/mnt/sysimage"} }, "partitioned"},
		{"another mount", "redhat", func(m *machine) { m.mount = []string{"/mnt", "/mnt/sysroot2"} }, ""},
		{"rpm database", "redhat", func(m *machine) { m.files["/mnt/sysroot/var/lib/rpm"] = &content{dir: true} }, "packages-started"},
		{"y2base runs", "suse", func(m *machine) { m.procs = []probe.Process{{Name: "y2base"}} }, "installer-started"},
		{"stacki's ssh", "suse", func(m *machine) { m.ports = []int{2200} }, "ssh-open"},
		{"autoyast profile", "suse", func(m *machine) { m.add("/tmp/profile/autoinst.xml", "<profile/>") }, "autoinst-present"},
		{"/mnt", "suse", func(m *machine) { m.mount = []string{"/mnt"} }, "partitioned"},
		{"ludicrous", "suse", func(m *machine) { m.add("/var/log/ludicrous-client-debug.log", "x") }, "packages-started"},
		{"subiquity runs", "ubuntu", func(m *machine) {
			m.procs = []probe.Process{{Name: "python3", Args: "/snap/subiquity/1/usr/bin/python3.10 -m subiquity.cmd.server --cloud"}}
		}, "installer-started"},
		{"autoinstall", "ubuntu", func(m *machine) { m.add("/autoinstall.yaml", "x") }, "autoinst-present"},
		{"/target", "ubuntu", func(m *machine) { m.mount = []string{"/target"} }, "partitioned"},
		{"debootstrap runs", "debian", func(m *machine) { m.procs = []probe.Process{{Name: "debootstrap"}} }, "packages-started"},
		{"wait", "generic", func(m *machine) { m.add("/tmp/wait", "") }, "wait"},
		{"wait in a family", "debian", func(m *machine) { m.add("/tmp/wait", "") }, "wait"},
		{"generic sees nothing else", "generic", func(m *machine) { m.mount = []string{"/target"}; m.add("/var/log/syslog", diFailure) }, ""},
		{"unknown family", "plan9", func(m *machine) { m.mount = []string{"/target"} }, ""},
	} {
		m := newMachine()
		w := probe.New(c.family)
		want(t, c.name+": nothing", w.Observe(m))
		c.do(m)
		if got := strings.Join(short(w.Observe(m)), " "); got != c.want {
			t.Errorf("%s: Observe = %q, want %q", c.name, got, c.want)
		}
		want(t, c.name+": once", w.Observe(m))
	}
}

func TestSubiquityLog(t *testing.T) {
	m := newMachine()
	w := probe.New("ubuntu")
	for _, c := range []struct{ line, want string }{
		{"2026-11-16 17:02:20,000 DEBUG root:39 start: subiquity/Filesystem: ", "installer-started"},
		{"2026-11-16 17:02:27,157 DEBUG root:39 finish: subiquity/Install/install/curtin_install/run/cmd-install/stage-partitioning: SUCCESS: configuring storage", "partitioned"},
		{"2026-11-16 17:02:28,157 DEBUG root:39 start: subiquity/Install/install/curtin_install/run/cmd-install/stage-extract: writing install sources to disk", "packages-started"},
		{"2026-11-16 17:09:28,157 INFO root:39 finish: subiquity/Install/install/postinstall: SUCCESS: final system configuration", ""},
		{"2026-11-16 17:09:29,157 INFO root:39 finish: subiquity/Install/install: SUCCESS: installing system", "packages-done"},
	} {
		m.add("/var/log/installer/subiquity-server-debug.log", c.line+"\n")
		if got := strings.Join(short(w.Observe(m)), " "); got != c.want {
			t.Errorf("after %q: %q, want %q", c.line, got, c.want)
		}
	}
}

// TestTables: every stage that a table names is one that the sequences know.
func TestTables(t *testing.T) {
	for _, family := range []string{"debian", "suse", "ubuntu", "redhat"} {
		if got := probe.New(family).Family(); got != family {
			t.Errorf("New(%q).Family() = %q", family, got)
		}
		stages := probe.StagesOf(family)
		last := -1
		for _, s := range stages {
			i := slices.Index(proto.Stages, s)
			if i <= last {
				t.Errorf("%s: stage %q is unknown, or stands in another order than proto.Stages", family, s)
			}
			last = i
		}
		if len(stages) < 4 {
			t.Errorf("%s has %d stages", family, len(stages))
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{nil, "generic"},
		{[]string{"/usr/share/debconf"}, "generic"}, // an installed Debian
		{[]string{"/usr/share/debconf", "/usr/bin/main-menu"}, "debian"},
		{[]string{"/usr/lib/YaST2"}, "suse"},
		{[]string{"/etc/YaST2"}, "suse"},
		{[]string{"/usr/sbin/anaconda"}, "redhat"},
		{[]string{"/run/anaconda"}, "redhat"},
		{[]string{"/usr/share/debconf", "/var/lib/snapd/seed/snaps/subiquity_5495.snap"}, "ubuntu"},
	} {
		m := newMachine()
		for _, p := range c.paths {
			m.add(p, "x")
		}
		if got := probe.Detect(m); got != c.want {
			t.Errorf("Detect of %q = %q, want %q", c.paths, got, c.want)
		}
	}
}

// TestStall: y2log rests for two minutes with a push button in its last line: a dialog waits for somebody.
func TestStall(t *testing.T) {
	const log = "/var/log/YaST2/y2log"
	m := newMachine()
	w := probe.New("suse")
	m.add(log, "2026-11-20 10:00:00 <1> linux(4711) [ui] something\n")
	want(t, "log begins", w.Observe(m), "installer-started")
	m.now += time.Hour
	want(t, "rests elsewhere", w.Observe(m))
	m.add(log, "2026-11-20 10:00:00 <1> linux(4711) [ui] YPushButton.cc(setFunctionKey):200 Guessing button role YOKButton for \"OK\"\n")
	want(t, "button", w.Observe(m))
	m.now += 119 * time.Second
	want(t, "119 s", w.Observe(m))
	m.add(log, "2026-11-20 10:02:00 <1> linux(4711) [ui] YPushButton.cc again")
	want(t, "grows", w.Observe(m))
	m.add(log, "\n")
	want(t, "grows", w.Observe(m))
	m.now += 120 * time.Second
	got := w.Observe(m)
	want(t, "120 s", got, "autoinst-present")
	if len(got) != 1 || !got[0].Stalled || got[0].Event("installer.log").Kind != proto.KindStalled || !got[0].Waiting || got[0].Failed || !strings.Contains(got[0].Message, "YPushButton.cc again") {
		t.Errorf("finding = %+v, want the last lines of the log", got)
	}
	m.now += time.Hour
	want(t, "once", w.Observe(m))
}

// TestQuestion: debconf was asked for something at debian-installer's screen and has not answered. Its talk, in which
// passwords are, is not shipped.
func TestQuestion(t *testing.T) {
	const log = "/var/log/syslog"
	m := newMachine()
	w := probe.New("debian")
	var shipped bytes.Buffer
	w.Ship(&shipped, 0)
	say := func(lines ...string) {
		for _, l := range lines {
			m.add(log, "Nov 20 22:47:19 "+l+"\n")
		}
	}
	say("main-menu[304]: INFO: Menu item 'choose-mirror' selected", "debconf: --> SET passwd/root-password-crypted $6$salt$hash", "debconf: <-- 0 value set",
		"debconf: --> INPUT medium mirror/protocol", "debconf: <-- 30 question skipped", "debconf: --> GO", "debconf: <-- 0 ok")
	want(t, "answered", w.Observe(m), "installer-started")
	m.now += time.Hour
	want(t, "nothing is asked", w.Observe(m))
	say("debconf: --> INPUT high mirror/http/countries", "debconf: <-- 0 question will be asked", "debconf: --> INPUT low mirror/x", "debconf: <-- 30 question skipped",
		"debconf: --> INPUT high mirror/http/hostname", "debconf: <-- 0 question will be asked", "debconf: --> GO", "dhclient[7]: renewed")
	want(t, "asked", w.Observe(m))
	m.now += 59 * time.Second
	say("dhclient[7]: renewed")
	want(t, "59 s", w.Observe(m))
	m.now += time.Second
	got := w.Observe(m)
	want(t, "60 s", got, "autoinst-present")
	if len(got) == 1 && (!got[0].Stalled || got[0].Message != "not answered: mirror/http/countries, mirror/http/hostname") {
		t.Errorf("finding = %+v, want the two questions", got[0])
	}
	w.Close()
	if s := shipped.String(); strings.Contains(s, "$6$salt") || !strings.Contains(s, "choose-mirror") || !strings.Contains(s, "renewed") {
		t.Errorf("shipped = %q, want all but debconf's talk", s)
	}
}

// TestRestart: a watch that takes over from another one repeats nothing and misses nothing.
func TestRestart(t *testing.T) {
	m := newMachine()
	m.add("/var/log/syslog", "Nov 20 17:58:02 main-menu[304]: INFO: Menu item 'a' selected\nNov 20 17:58:02 preseed: succ")
	var shipped bytes.Buffer
	w := probe.New("debian")
	w.Ship(&shipped, 0)
	want(t, "first", w.Observe(m), "installer-started")

	again := probe.New("debian")
	again.Known("installer-started", false)
	again.Resume(w.Marks())
	again.Ship(&shipped, int64(shipped.Len()))
	want(t, "second", again.Observe(m))
	m.add("/var/log/syslog", "essfully loaded preseed file from http://x\n"+diFailure)
	found := again.Observe(m)
	if len(found) != 3 || found[0].Stage != "autoinst-present" || found[1].Stage != "packages-started" || !found[2].Failed {
		t.Errorf("Observe = %v", short(found))
	}
	if got := strings.Count(shipped.String(), "Menu item 'a'"); got != 1 {
		t.Errorf("a line was shipped %d times:\n%s", got, &shipped)
	}

	third := probe.New("debian")
	for _, f := range found {
		third.Known(f.Stage, f.Failed)
	}
	third.Known("installer-started", false)
	want(t, "third, without marks", third.Observe(m))
}

// TestReportGrows: a report of an exception is read when it has been written to its end.
func TestReportGrows(t *testing.T) {
	m := newMachine()
	w := probe.New("redhat")
	m.add("/tmp/anaconda-tb-1", "")
	want(t, "empty", w.Observe(m))
	m.add("/tmp/anaconda-tb-1", "anaconda 34 exception report\n")
	want(t, "begun", w.Observe(m))
	m.add("/tmp/anaconda-tb-1", "Traceback (most recent call first):\n  File x\nValueError: no\n\nLocal variables in innermost frame:\nself: 1\n")
	want(t, "grown", w.Observe(m))
	want(t, "whole", w.Observe(m), "installer-started failed: ValueError: no")
	m.add("/tmp/anaconda-tb-2", "another\n")
	m.procs = []probe.Process{{Name: "anaconda"}}
	want(t, "another", append(w.Observe(m), w.Observe(m)...), "installer-started")
}

// TestFailsAgain: a failure is told again only when the install got further meanwhile.
func TestFailsAgain(t *testing.T) {
	m := newMachine()
	w := probe.New("debian")
	fail := "Nov 20 17:58:33 main-menu[1]: WARNING **: Menu item 'x' failed.\n"
	m.procs = []probe.Process{{Name: "main-menu"}}
	m.add("/var/log/syslog", fail)
	want(t, "first", w.Observe(m), "installer-started", "autoinst-present failed: main-menu: WARNING **: Menu item 'x' failed.")
	m.add("/var/log/syslog", fail)
	want(t, "the same", w.Observe(m))
	m.mount = []string{"/target"}
	want(t, "further", w.Observe(m), "partitioned")
	m.add("/var/log/syslog", fail)
	want(t, "another", w.Observe(m), "packages-started failed: main-menu: WARNING **: Menu item 'x' failed.")
}

func TestSecrets(t *testing.T) {
	m := newMachine()
	w := probe.New("debian")
	var shipped bytes.Buffer
	w.Ship(&shipped, 0)
	w.Hide(strings.NewReplacer("CANARY", "[secret]").Replace)
	m.add("/var/log/syslog", "Nov 20 17:58:33 kernel: Command line: provost.claim=CANARY quiet\n"+
		"Nov 20 17:58:33 x: "+strings.Repeat("a", 8155)+" provost.claim=CANARY\n"+
		"Nov 20 17:58:33 main-menu[1]: WARNING **: Menu item 'CANARY' failed.\n")
	found := w.Observe(m)
	if text := fmt.Sprint(found, shipped.String()); strings.Contains(text, "CANARY") || strings.Count(text, "[secret]") < 3 || strings.Contains(text, "CAN") {
		t.Errorf("the secret is in the findings or in the log: %.300s", text)
	}
}

// TestReportedFailures has lines as people have put them into reports of bugs: the message must have the installer's own
// words, those before and those behind the line that tells of the failure.
func TestReportedFailures(t *testing.T) {
	for _, c := range []struct{ file, family, path, want string }{
		{"debian-pkgsel", "debian", "/var/log/syslog",
			"in-target: E: Broken packages; in-target: tasksel: aptitude failed (100); main-menu: WARNING **: Configuring 'pkgsel' failed with error code 1"},
		{"anaconda-traceback", "redhat", "/tmp/anaconda.log", "CRIT anaconda: Traceback (most recent call last):; dnf.exceptions.Error: Error: Transaction check error"},
		{"anaconda-script", "redhat", "/tmp/anaconda.log", "ERR kickstart.script: Error code 1 running the kickstart script at line 611; ERR ui: There was an error running the kickstart " +
			"script at line 611. This is a fatal error and installation will be aborted.  The details of this error are:"},
		{"curtin-blockmeta", "ubuntu", "/var/log/installer/curtin-install.log", "curtin: Installation failed with exception: Unexpected error while running command.; " +
			`Command: ['curtin', 'block-meta', 'custom']; Exit code: 3; Stdout: zfsroot requires bootdisk with GPT partition table found "msdos" on disk id="sda"`},
		{"subiquity-toplevel", "ubuntu", "/var/log/installer/subiquity-server-debug.log", "ERROR subiquity.server.server:393 top level error; " +
			"subprocess.CalledProcessError: Command '['python3.8', '-m', 'curtin', 'install']' returned non-zero exit status 3."},
	} {
		b, err := os.ReadFile("testdata/failures/" + c.file + ".log")
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine()
		m.add(c.path, string(b))
		var got []string
		for _, f := range probe.New(c.family).Observe(m) {
			if f.Failed {
				got = append(got, f.Message)
			}
		}
		if diff := cmp.Diff([]string{c.want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.file, diff)
		}
	}
}

// A secret behind the line of a failure stays out of its message.
func TestFollowingWordsAreRedacted(t *testing.T) {
	m := newMachine()
	m.add("/var/log/installer/curtin-install.log", "curtin: Installation failed with exception: x\nStderr: the token s3cret-word was refused\n")
	w := probe.New("ubuntu")
	w.Ship(new(bytes.Buffer), 0)
	w.Hide(strings.NewReplacer("s3cret-word", "[secret]").Replace)
	for _, f := range w.Observe(m) {
		if strings.Contains(f.Message, "s3cret") || f.Failed && !strings.Contains(f.Message, "Stderr: the token [secret] was refused") {
			t.Errorf("message = %q", f.Message)
		}
	}
}
