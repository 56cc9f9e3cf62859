// SPDX-License-Identifier: Apache-2.0

package journey_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/proto"
)

var bin string // the directory of the programs

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "journey-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(bin)
		build := exec.Command("go", "build", "-o", bin+"/", "provost/collector/cmd/provostd", "provost/collector/cmd/provost", "provost/agent/cmd/provost-agent")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// site is a collector with one node.
type site struct {
	*testing.T
	dir  string
	node string
	boot string // HOST:PORT of the boot server
	kill func()
	n    int // boots so far
}

const mac = "52:54:00:00:00:07"

// newSite starts a collector with a profile of this text and scripts, and what else edits write, and orders the install of a
// node.
func newSite(t *testing.T, profile string, scripts map[string]string, edits ...func(*site)) *site {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("another kernel command line and boot id need root")
	}
	s := &site{T: t, dir: t.TempDir(), node: "d1"}
	s.write("cfg/profiles/p.yaml", profile)
	for name, text := range scripts {
		s.write("cfg/postscripts/"+name, "#!/bin/sh\nD='"+s.dir+"'\n"+text+"\n")
	}
	for _, edit := range edits {
		edit(s)
	}
	s.write("provostd.yaml", fmt.Sprintf("listen: \"127.0.0.1:0\"\nboot-listen: \"127.0.0.1:0\"\ndirs: {data: %s, config: %s, images: %s}\n",
		s.path("data"), s.path("cfg"), s.path("images")))
	s.start()
	t.Cleanup(func() { s.kill() })
	s.provost(0, "node", "add", s.node, "--mac", mac, "--profile", "p")
	s.provost(0, "install", s.node, "--yes")
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o755); err != nil {
		s.Fatal(err)
	}
}

// read gives a file's text and removes it; empty if there is none.
func (s *site) read(name string) string {
	s.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	os.Remove(s.path(name))
	return string(b)
}

// start starts the collector, as after a crash if there was one.
func (s *site) start() {
	s.Helper()
	os.Remove(s.path("data/listeners.json"))
	log, err := os.OpenFile(s.path("provostd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "provostd"), "serve", "--config", s.path("provostd.yaml"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.kill = func() { cmd.Process.Kill(); cmd.Wait() }
	var record struct {
		Boot string `json:"boot_listen"`
		PID  int    `json:"pid"`
	}
	for range 1200 { // 2 minutes
		b, err := os.ReadFile(s.path("data/listeners.json"))
		if err == nil && json.Unmarshal(b, &record) == nil && record.PID == cmd.Process.Pid {
			s.boot = record.Boot
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.kill()
	s.Fatalf("the collector did not start:\n%s", s.read("provostd.log"))
}

// provost runs the operator's command and wants its exit status.
func (s *site) provost(want int, args ...string) string {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "provost"), args...)
	cmd.Env = append(os.Environ(), "PROVOST_SERVER=unix://"+s.path("data/provostd.sock"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
		s.Fatalf("provost %s = %v, want %d; it said:\n%s%s", strings.Join(args, " "), err, want, &out, &errs)
	}
	return out.String()
}

// seen is the node as everybody sees it.
func (s *site) seen() proto.Node {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "provost"), "status", s.node, "-o", "json")
	cmd.Env = append(os.Environ(), "PROVOST_SERVER=unix://"+s.path("data/provostd.sock"))
	out, _ := cmd.Output() // its status says how the node is
	var list proto.NodeList
	if err := json.Unmarshal(out, &list); err != nil || len(list.Nodes) != 1 {
		s.Fatalf("provost status = %s, %v", out, err)
	}
	return list.Nodes[0]
}

func (s *site) wants(summary string) {
	s.Helper()
	if n := s.seen(); n.Summary != summary {
		s.Errorf("status = %s (%+v), want %s; the agent said:\n%s", n.Summary, n.Cause, summary, s.read("agent.out"))
	}
}

// story is the agent's events of the newest install in few words.
func (s *site) story() []string {
	s.Helper()
	var list proto.EventList
	if err := json.Unmarshal([]byte(s.provost(0, "timeline", s.node, "-o", "json")), &list); err != nil {
		s.Fatal(err)
	}
	var out []string
	for _, e := range list.Events {
		if e.Source != proto.SourceAgent {
			continue
		}
		switch e.Kind {
		case proto.KindStepEnd:
			out = append(out, fmt.Sprintf("%s=%s/%d", e.Step, e.Outcome, e.Exit))
		case proto.KindReboot:
			out = append(out, "reboot")
		case proto.KindRunEnd:
			out = append(out, "end="+string(e.Outcome))
		}
	}
	return out
}

// script fetches the node's boot script.
func (s *site) script() string {
	s.Helper()
	r, err := http.Get("http://" + s.boot + "/boot/" + mac)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		s.Fatalf("boot script = %d %s, %v", r.StatusCode, b, err)
	}
	return string(b)
}

var argument = regexp.MustCompile(`provost\.[a-z]+=[^ ]+`)

// boots starts the machine: it fetches its boot script, and what comes after has that kernel command line, another boot id,
// and a /run of its own.
func (s *site) boots() {
	s.Helper()
	args := argument.FindAllString(s.script(), -1)
	if len(args) < 4 {
		s.Fatalf("the boot script has the arguments %q: the node does not boot an agent", args)
	}
	s.n++
	s.write("cmdline", "quiet "+strings.Join(args, " ")+"\n")
	s.write("boot_id", fmt.Sprintf("%08d-0000-4000-8000-000000000000\n", s.n))
}

// agent runs the agent in the present boot, as the first process of a PID namespace: there reboot(2) ends the namespace with
// a signal that says how (pid_namespaces(7)), SIGHUP for a restart and SIGINT for switching off. want is that signal, 0 for
// a good end, -1 for a bad one.
func (s *site) agent(want syscall.Signal, args ...string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	const script = `mount --make-rprivate / && mount -t proc proc /proc && mount --bind "$1" /proc/cmdline && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 && exec "$@"`
	state := s.path(fmt.Sprintf("run%d", s.n))
	all := append([]string{"-c", script, "sh", s.path("cmdline"), s.path("boot_id"), filepath.Join(bin, "provost-agent")}, args...)
	cmd := exec.CommandContext(ctx, "/bin/sh", append(all, "--state", state)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	s.write("agent.out", string(out))
	got := syscall.Signal(0)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = -1
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			got = ws.Signal()
		}
	} else if err != nil {
		s.Fatal(err)
	}
	if got != want {
		s.Fatalf("provost-agent %s ended by %d (%v), want %d; it said:\n%s", strings.Join(args, " "), got, err, want, out)
	}
}
