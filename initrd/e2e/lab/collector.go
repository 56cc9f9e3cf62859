// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"provost/proto"
)

// Server is the PROVOST_SERVER that reaches this site's collector.
func (l *Lab) Server() string { return "unix://" + l.path("data", "provostd.sock") }

// URL is where agents on this machine reach the collector; CA and JoinKey are the files that they need to be let in, and
// Bin is the directory of the programs.
func (l *Lab) URL() string     { return fmt.Sprintf("https://127.0.0.1:%d", l.listen) }
func (l *Lab) CA() string      { return l.path("data", "ca", "ca.pem") }
func (l *Lab) JoinKey() string { return l.path("data", "join-key") }
func (l *Lab) Bin() string     { return filepath.Join(l.source, "bin") }

// Images is where nodes find the images directory.
func (l *Lab) Images() string { return fmt.Sprintf("http://%s:%d/images", Host, l.boot) }

// AddImages puts a directory's files below /images/NAME.
func (l *Lab) AddImages(ctx context.Context, name, dir string) error {
	if err := command(ctx, io.Discard, copyLimit, "cp", "-r", "--reflink=auto", "--no-dereference", dir, l.path("images", name)); err != nil {
		return fmt.Errorf("laying out the images: %w", err)
	}
	return nil
}

// StartCollector starts provostd and waits until it answers, 2 minutes at most: thousands of
// agents may be waiting for it, too. It may be called again after KillCollector: addresses and
// data are the same.
func (l *Lab) StartCollector(ctx context.Context) error {
	p, err := start(l.path("provostd.log"), append(slices.Clone(l.around), l.bin("provostd"), "serve", "--config", l.path("provostd.yaml")))
	if err != nil {
		return fmt.Errorf("starting provostd: %w", err)
	}
	l.collector = p
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		_, err := l.Provost(ctx, "status")
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("starting provostd: it ended at once: %w; its log is %s", p.err, l.path("provostd.log"))
		case <-ctx.Done():
			return fmt.Errorf("waiting for provostd to answer: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// WithoutNames takes all names from the collector's next starts: /etc/resolv.conf and /etc/hosts are empty where it runs.
// It needs root.
func (l *Lab) WithoutNames() error {
	empty := l.path("empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		return fmt.Errorf("taking the names away: %w", err)
	}
	l.around = []string{"unshare", "--mount", "sh", "-ec", `mount --bind "$0" /etc/resolv.conf; mount --bind "$0" /etc/hosts; exec "$@"`, empty}
	return nil
}

// KillCollector kills provostd as a crash would.
func (l *Lab) KillCollector() { l.collector.kill() }

// Provost runs the operator's command, 2 minutes at most, and returns what it prints. A non-zero
// exit is an error that is *exec.ExitError; status exits 1 when a node has failed.
func (l *Lab) Provost(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var stdout bytes.Buffer
	var stderr tailBuffer
	cmd := exec.CommandContext(ctx, l.bin("provost"), args...)
	cmd.Env = append(os.Environ(), "PROVOST_SERVER="+l.Server())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("running provost %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// provostJSON reads one of provost's documents. Its exit status says how the nodes are, so a
// document counts whatever the status is.
func (l *Lab) provostJSON(ctx context.Context, doc any, args ...string) error {
	out, err := l.Provost(ctx, append(args, "-o", "json")...)
	if json.Unmarshal([]byte(out), doc) == nil {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("running provost %s: no JSON in %q", strings.Join(args, " "), out)
	}
	return err
}

// Status asks for the nodes of a node set.
func (l *Lab) Status(ctx context.Context, nodes string) ([]proto.Node, error) {
	var list proto.NodeList
	err := l.provostJSON(ctx, &list, "status", nodes)
	return list.Nodes, err
}

// Events returns every event of a node's newest install, by time.
func (l *Lab) Events(ctx context.Context, node string) (proto.EventList, error) {
	var list proto.EventList
	err := l.provostJSON(ctx, &list, "timeline", node)
	return list, err
}

// Doctor asks what the collector finds when it looks at itself.
func (l *Lab) Doctor(ctx context.Context, doc *proto.Doctor) error {
	return l.provostJSON(ctx, doc, "doctor")
}

// process is a program in the background. It ends with this one.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid after done
}

// start runs a command and appends its output to the file log.
func start(log string, command []string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the starting thread ends: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done // SIGKILL cannot be held up
}

// tailBuffer keeps the end of what is written to it, for error messages.
type tailBuffer struct{ b []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	const keep = 2000
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-keep):]
	return len(p), nil
}

func (t *tailBuffer) String() string { return strings.TrimSpace(string(t.b)) }
