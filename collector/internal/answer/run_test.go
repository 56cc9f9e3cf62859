// SPDX-License-Identifier: Apache-2.0

package answer_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/answer"
	"provost/proto"
	"provost/proto/prototest"
)

// installer is a root of busybox alone, as an installer's, with a target below it and the real agent.
type installer struct {
	t      *testing.T
	root   string
	target string // below root
	col    *prototest.Collector
	id     string // of the install
	claim  string
}

func agentPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("provost-agent.%d", os.Getpid()))
}

// buildAgent builds the agent as it is shipped, static, once for all tests, and gives its path.
var buildAgent = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "build", "-o", agentPath(), "provost/agent/cmd/provost-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return agentPath(), nil
})

func agentProgram(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/bin/busybox"); err != nil || os.Getuid() != 0 {
		t.Skipf("the chroot of an installer needs root and a static /bin/busybox: %v", err)
	}
	path, err := buildAgent()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.Remove(agentPath())
	os.Exit(code)
}

// newInstaller has a node n1 with an install of these steps; the plan's on-failure is exit.
func newInstaller(t *testing.T, agent, target string, scripts ...prototest.Script) *installer {
	t.Helper()
	in := &installer{t: t, root: t.TempDir(), target: target, col: prototest.New(t)}
	in.col.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:0d:02"}})
	in.id, in.claim = in.col.InstallPlan("n1", scripts, func(p *proto.Plan) { p.OnFailure = proto.OnFailureExit })
	for _, root := range []string{"", target} {
		for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "run", "var", "mnt", "root", "usr/bin", "usr/sbin"} {
			in.mkdir(filepath.Join(root, dir))
		}
		in.program("/bin/busybox", filepath.Join(root, "bin/busybox"))
		if out, err := exec.Command("chroot", filepath.Join(in.root, root), "/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
			t.Fatalf("installing busybox: %v: %s", err, out)
		}
		in.write(filepath.Join(root, "dev/null"), "")
		in.write(filepath.Join(root, "dev/console"), "")
	}
	if agent != "" {
		in.program(agent, "usr/bin/provost-agent")
	}
	in.write("cmdline", fmt.Sprintf("provost.url=%s provost.node=n1 provost.install=%s provost.claim=%s provost.ca=%s", in.col.URL(), in.id, in.claim, in.pin()))
	return in
}

func (in *installer) pin() string {
	return "sha256:" + proto.Digest(in.col.Authority.CertDER)
}

func (in *installer) mkdir(path string) {
	in.t.Helper()
	if err := os.MkdirAll(filepath.Join(in.root, path), 0o755); err != nil {
		in.t.Fatal(err)
	}
}

func (in *installer) write(path, text string) {
	in.t.Helper()
	if err := os.WriteFile(filepath.Join(in.root, path), []byte(text), 0o755); err != nil {
		in.t.Fatal(err)
	}
}

// program copies a file that is to be executed. A process of its own does so: one that this process has open for writing
// may be open in a child of another test's just now, and cannot be executed then.
func (in *installer) program(from, to string) {
	in.t.Helper()
	if out, err := exec.Command("cp", from, filepath.Join(in.root, to)).CombinedOutput(); err != nil {
		in.t.Fatalf("copying %s: %v: %s", from, err, out)
	}
}

// hasty are scripts that wait no 5 s between two tries. Their other waits stay.
func hasty(scripts []string) (out []string) {
	for _, s := range scripts {
		out = append(out, regexp.MustCompile(`\bsleep 5\b`).ReplaceAllString(s, "sleep 0"))
	}
	return out
}

// scripts gives the scripts of a shipped template's file, in their order in it.
func (in *installer) scripts(r *answer.Recipe, d answer.Data) []string {
	in.t.Helper()
	files, err := r.Render(d)
	if err != nil {
		in.t.Fatal(err)
	}
	f, err := r.File()
	if err != nil {
		in.t.Fatal(err)
	}
	if f == "" {
		f = "user-data"
	}
	return checkStructure(in.t, f, files[f]).scripts
}

// run lets a driver call the scripts s0, s1, …, in a machine of its own but for the network: process 1 is in the
// installer's root. "call NAME COMMAND" reads the output to its end, as Anaconda does, and says the exit status. "stuck NAME
// CONSOLE COMMAND" is for a script that may not return, and gives it 2 minutes to end or to say so on the console: then that is
// said instead. It gives what the driver says.
func (in *installer) run(driver string, scripts ...string) []string {
	in.t.Helper()
	for i, s := range scripts {
		in.write(fmt.Sprintf("s%d", i), s)
		in.write(filepath.Join(in.target, fmt.Sprintf("s%d", i)), s)
	}
	in.write("driver", `call() { n=$1; shift; out=$("$@" 2>&1); echo "$n $?"; echo "$out" >&2; }
stuck() {
	n=$1 console=$2 i=0
	shift 2
	: >/status
	{ "$@" >/log 2>&1; echo $? >/status; } &
	until [ -s /status ] || grep -q 'the install stops here' "$console"; do
		i=$((i + 1))
		[ $i -lt 1200 ] || break
		sleep 0.1
	done
	if [ -s /status ]; then
		echo "$n $(cat /status)"
	else
		echo "$n $(cat "$console")"
	fi
	cat /log >&2
}
`+driver)
	const setup = `set -e
mount --rbind /sys "$1/sys"
mount -t proc proc "$1/proc"
mount --bind "$1/cmdline" "$1/proc/cmdline"
case $2 in mnt*) mount -t proc proc "$1/$2/proc";; esac
exec chroot "$1" /bin/sh /driver
`
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", setup, "sh", in.root, in.target)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		in.t.Fatalf("driver: %v\n%s%s", err, out.String(), log.String())
	}
	in.t.Logf("%s", log.String())
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

// told is what the collector knows when the installer has stopped or gone on: phases and steps with how they ended.
func (in *installer) told() []string {
	var out []string
	for _, e := range in.col.Events(in.id) {
		switch e.Kind {
		case proto.KindStepEnd:
			out = append(out, fmt.Sprintf("%s %s", e.Step, e.Outcome))
		case proto.KindRunEnd:
			out = append(out, fmt.Sprintf("%s %s", e.Phase, e.Outcome))
		case proto.KindSealed:
			out = append(out, "sealed")
		case proto.KindStage:
			if e.Stage != "installer-started" {
				out = append(out, fmt.Sprintf("%s failed=%t %s", e.Stage, e.Failed, e.Message))
			}
		}
	}
	return out
}

func step(name string, phase proto.Phase, body string) prototest.Script {
	return prototest.Script{Step: proto.Step{Name: name, Phase: phase}, Body: "#!/bin/sh\n" + body + "\n"}
}

// installs say how each installer calls the scripts of its file.
var installs = []struct{ name, target, pre, post string }{
	{"kickstart-el7", "mnt/sysimage", "call pre sh /s0", "call post sh /s2"},
	{"kickstart-el9", "mnt/sysroot", "call pre sh /s0", "call post sh /s2"},
	{"autoyast-sles15", "mnt", "stuck pre /dev/console sh /s0", "stuck post /mnt/dev/console chroot /mnt sh /s1"},
	{"preseed-debian", "target", "call pre sh -c \"$(cat /s1)\"", "call post sh -c \"$(cat /s2)\""}, // s0 is partman's
	{"autoinstall-ubuntu", "target", "call pre sh -c \"$(cat /s0)\"", "call post sh -c \"$(cat /s1)\""},
}

// TestInstallersRunTheHooks runs the scripts of rendered files for real. After a failing step the exit status is what
// makes the installer stop; AutoYaST, which goes on in any case, does not get its script back.
func TestInstallersRunTheHooks(t *testing.T) {
	agent := agentProgram(t)
	good := []prototest.Script{step("check", proto.PhasePre, "exit 0"), step("motd", proto.PhasePost, "echo hello >/etc/motd"), step("proc", proto.PhasePost, "test -e /proc/1")}
	bad := []prototest.Script{step("motd", proto.PhasePost, "echo hello >/etc/motd"), step("broken", proto.PhasePost, "exit 3"), step("never", proto.PhasePost, "touch /never")}
	early := []prototest.Script{step("broken", proto.PhasePre, "exit 4"), step("never", proto.PhasePost, "touch /never")}
	for _, c := range installs {
		for _, v := range []struct {
			name         string
			scripts      []prototest.Script
			driver       string
			status, told []string
		}{
			{"good", good, c.pre + "\n" + c.post, []string{"pre 0", "post 0"}, []string{"check ok", "pre ok", "motd ok", "proc ok", "post ok", "sealed"}},
			{"bad", bad, c.pre + "\n" + c.post, []string{"pre 0", "post 1"}, []string{"pre ok", "motd ok", "broken failed", "post failed"}},
			{"early", early, c.pre, []string{"pre 1"}, []string{"broken failed", "pre failed"}},
		} {
			t.Run(c.name+"/"+v.name, func(t *testing.T) {
				t.Parallel()
				in := newInstaller(t, agent, c.target, v.scripts...)
				want := slices.Clone(v.status)
				if last := &want[len(want)-1]; strings.HasPrefix(c.name, "autoyast") && strings.HasSuffix(*last, " 1") {
					phase := strings.TrimSuffix(*last, " 1")
					*last = fmt.Sprintf("%s provost: phase %s ended with 1: the install stops here", phase, phase)
				}
				got := in.run(v.driver, in.scripts(shipped(t, c.name), data())...)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("exit statuses: -want +got\n%s", diff)
				}
				if diff := cmp.Diff(v.told, in.told()); diff != "" {
					t.Errorf("told when the installer went on: -want +got\n%s", diff)
				}
				if _, err := os.Stat(filepath.Join(in.root, c.target, "never")); err == nil {
					t.Error("a step after the failure has run")
				}
				if v.name == "good" {
					journal := filepath.Join(in.root, c.target, "var/lib/provost/journal")
					if entries, err := os.ReadDir(journal); err != nil || len(entries) == 0 {
						t.Errorf("the target's journal: %v, %v", entries, err)
					}
				}
			})
		}
	}
}

// TestInstallerFailures: what the installer says of its own failure is told.
func TestInstallerFailures(t *testing.T) {
	agent := agentProgram(t)
	for _, c := range []struct{ name, target, log, line, driver, want string }{
		{"kickstart-el9", "mnt/sysroot", "tmp/anaconda.log", "12:00:01,123 ERR packaging: no space left", "call pre sh /s0; call error sh /s1",
			"packages-done failed=true Anaconda: 12:00:01,123 ERR packaging: no space left "},
		{"autoinstall-ubuntu", "target", "var/log/installer/subiquity-server-debug.log", "2026-01-01 12:00:00,000 ERROR root:1 curtin failed", "call pre sh /s0; call error sh /s2",
			"packages-done failed=true subiquity: 2026-01-01 12:00:00,000 ERROR root:1 curtin failed "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := newInstaller(t, agent, c.target)
			in.mkdir(filepath.Dir(c.log))
			in.write(c.log, "12:00:00,000 INF all is well\n"+c.line+"\n12:00:02,000 INF the end\n")
			isTold := func() bool {
				told := in.told()
				return slices.Contains(told, strings.TrimSpace(c.want)) || slices.Contains(told, c.want)
			}
			done := make(chan struct{})
			defer func() { <-done }()
			go func() { // the machine stays up until it is told, 2 minutes at most
				defer close(done)
				for i := 0; i < 1200 && !isTold(); i++ {
					time.Sleep(100 * time.Millisecond)
				}
				if err := os.WriteFile(filepath.Join(in.root, "told"), nil, 0o644); err != nil {
					t.Error(err)
				}
			}()
			got := in.run(c.driver+"; until [ -e /told ]; do sleep 0.1; done", in.scripts(shipped(t, c.name), data())...)
			if diff := cmp.Diff([]string{"pre 0", "error 0"}, got); diff != "" {
				t.Errorf("exit statuses: -want +got\n%s", diff)
			}
			if !isTold() {
				t.Errorf("told = %q, want %q", in.told(), c.want)
			}
		})
	}
}

// TestNoAgent: an installer without the agent stops before it touches the disks.
func TestNoAgent(t *testing.T) {
	agentProgram(t)
	for _, c := range installs[1:] { // the first is like the second
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := newInstaller(t, "", c.target)
			d := data()
			d.Images = "http://127.0.0.1:1/images"
			got := in.run(c.pre, hasty(in.scripts(shipped(t, c.name), d))...)
			want := "pre 1"
			if strings.HasPrefix(c.name, "autoyast") {
				want = "pre provost: no agent: neither in the initrd nor at http://127.0.0.1:1/images/provost-agent: the install stops here"
			}
			if diff := cmp.Diff([]string{want}, got); diff != "" {
				t.Errorf("exit statuses: -want +got\n%s", diff)
			}
		})
	}
}

// TestLook: debian-installer has no drivers of the disks when the agent starts. When it has them the agent looks again, and
// partman goes on unless the machine should boot what is there; an agent that does not know the word is no reason to stop.
func TestLook(t *testing.T) {
	agentProgram(t)
	for code, want := range map[string]string{"0": "disks 0", "1": "disks 1", "64": "disks 0"} {
		in := newInstaller(t, "", "target")
		in.write("usr/bin/provost-agent", "#!/bin/sh\necho \"$*\" >/asked\nexit "+code+"\n")
		r := shipped(t, "preseed-debian")
		r.Vars = map[string]string{"disk": "/dev/sda"}
		got := in.run("call disks sh -c \"$(cat /s0)\"", in.scripts(r, data())...)
		if diff := cmp.Diff([]string{want}, got); diff != "" {
			t.Errorf("of an agent that ends with %s: -want +got\n%s", code, diff)
		}
		if b, err := os.ReadFile(filepath.Join(in.root, "asked")); string(b) != "look\n" {
			t.Errorf("the agent was called with %q, %v", b, err)
		}
	}
}

// TestExternal: on a site that boots its machines by itself the hooks fetch the agent and bring its settings.
func TestExternal(t *testing.T) {
	b, err := os.ReadFile(agentProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.Map // the first answer to each machine is no agent
	images := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, again := asked.LoadOrStore(r.URL.Path, true); !again || !strings.HasSuffix(r.URL.Path, "/images/provost-agent") {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		w.Write(b)
	}))
	t.Cleanup(images.Close)
	for _, c := range installs {
		for _, digest := range []string{proto.Digest(b), proto.Digest(nil)} {
			if digest != proto.Digest(b) && !slices.Contains([]string{"kickstart-el9", "preseed-debian"}, c.name) {
				continue // it is the same few lines
			}
			t.Run(c.name+"/"+digest[:4], func(t *testing.T) {
				t.Parallel()
				in := newInstaller(t, "", c.target, step("motd", proto.PhasePost, "echo hello >/etc/motd"))
				in.write("cmdline", "quiet")
				// curl as the installers have it, made of busybox's wget
				in.write("curl", "#!/bin/sh\nfor url; do [ \"$last\" != -o ] || out=$url; last=$url; done\nexec wget -q -O \"$out\" \"$url\"\n")
				in.program(filepath.Join(in.root, "curl"), "usr/bin/curl")
				mac := ownMAC(t)
				in.col.Define(proto.NodeSpec{Name: "n1", MACs: []string{mac}})
				in.id, _ = in.col.Install("n1", []prototest.Script{step("motd", proto.PhasePost, "echo hello >/etc/motd")})
				r := shipped(t, c.name)
				r.External, r.Vars = true, map[string]string{"join-key": in.col.JoinKey, "agent-sha256": digest}
				d := data()
				d.Images, d.URLs, d.Pin = images.URL+"/"+t.Name()+"/images", []string{in.col.URL()}, in.pin()
				want, driver := []string{"pre 0", "post 0"}, c.pre+"\n"+c.post
				if digest != proto.Digest(b) {
					want, driver = []string{"pre 1"}, c.pre
				}
				got := in.run(driver, hasty(in.scripts(r, d))...)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("exit statuses: -want +got\n%s", diff)
				}
				if told := in.told(); len(want) == 2 && !slices.Equal(told, []string{"pre ok", "motd ok", "post ok", "sealed"}) {
					t.Errorf("told = %q", told)
				}
			})
		}
	}
}

// ownMAC is a MAC address of this machine: the agent tells the collector what its machine has.
func ownMAC(t *testing.T) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		_, virtual := os.Stat("/sys/class/net/" + i.Name + "/device")
		if mac, err := proto.NormalMAC(i.HardwareAddr.String()); err == nil && virtual == nil {
			return mac
		}
	}
	t.Skip("this machine has no network card whose address the agent could tell")
	return ""
}
