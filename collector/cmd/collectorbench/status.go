// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"provost/proto"
)

// startTime bounds the start of a collector.
const startTime = 5 * time.Minute

// siteFigures are P9 to P11, with the programs themselves.
func siteFigures(ctx context.Context, o *options, t *table) error {
	nodes := o.scaled(100_000)
	for _, program := range []string{"provostd", "provost"} {
		if _, err := os.Stat(filepath.Join(o.bin, program)); err != nil {
			t.skip("P9", "status and start", err.Error()+": make build, or name its directory by -bin")
			return nil
		}
	}
	dir := o.keep
	if dir == "" {
		dir = filepath.Join(o.dir, "site")
		defer os.RemoveAll(dir)
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = o.makeFixture(ctx, dir, nodes)
	}
	if err != nil {
		return err
	}
	if o.wants("P11") {
		if err := o.start(ctx, t, dir, nodes); err != nil {
			return err
		}
	}
	if o.wants("P9", "P10") {
		return o.status(ctx, t, dir, nodes)
	}
	return nil
}

// makeFixture makes the site in a process of its own, whose memory is given back at its end.
func (o *options) makeFixture(ctx context.Context, dir string, nodes int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, filepath.Join(o.bin, "provostd"), "version").Output()
	if err != nil {
		return fmt.Errorf("asking provostd for its version: %w", err)
	}
	word, _, _ := strings.Cut(strings.TrimPrefix(string(version), "provostd "), " ")
	cmd := exec.CommandContext(ctx, self, childPrefix+"fixture", dir, strconv.Itoa(nodes), strings.TrimSpace(word))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // it is to end when we do
	if err != nil {
		return err
	}
	defer in.Close()
	return cmd.Run()
}

// collector is a provostd that was started.
type collector struct {
	cmd    *exec.Cmd
	socket string
	took   time.Duration // until it was ready
}

// startCollector starts provostd on a data directory and waits until it says that it is ready.
func (o *options) startCollector(ctx context.Context, dir string) (*collector, error) {
	c := &collector{socket: filepath.Join(dir, "provostd.sock")}
	c.cmd = exec.CommandContext(ctx, filepath.Join(o.bin, "provostd"), "serve", "--data", dir, "--socket", c.socket, "--listen", "127.0.0.1:0", "--boot-listen", "127.0.0.1:0")
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd.Stderr = log
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	late := time.AfterFunc(startTime, func() { c.cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	c.took = time.Since(begin)
	late.Stop()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting provostd: %w: see %s", err, dir+".log"), c.stop())
	}
	if !strings.Contains(line, "is ready") {
		return nil, errors.Join(fmt.Errorf("provostd says %q", line), c.stop())
	}
	go io.Copy(io.Discard, out)
	return c, nil
}

// stop ends it as an administrator does. It ends itself within 10 s.
func (c *collector) stop() error {
	c.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(20*time.Second, func() { c.cmd.Process.Kill() })
	defer late.Stop()
	return c.cmd.Wait()
}

// statusKB is a size in a process's status, in KiB: proc_pid_status(5).
func statusKB(pid int, field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), field+":")
	v, _, _ := strings.Cut(strings.TrimSpace(rest), " kB")
	return strconv.ParseFloat(v, 64)
}

// start is P11: how long a start takes, and what the collector holds afterwards.
func (o *options) start(ctx context.Context, t *table, dir string, nodes int) error {
	var memory []float64
	db := filepath.Join(dir, "provost.db")
	err := t.measure(ctx, figure{id: "P11", name: fmt.Sprintf("start, %s nodes / cat of the file", number(float64(nodes))), unit: "s", target: 3, most: true,
		ours: func(ctx context.Context) (float64, error) {
			c, err := o.startCollector(ctx, dir)
			if err != nil {
				return 0, err
			}
			time.Sleep(2 * time.Second) // what the start left behind is collected, or never
			m, err := statusKB(c.cmd.Process.Pid, "RssAnon")
			memory = append(memory, m/1024)
			return c.took.Seconds(), errors.Join(err, c.stop())
		},
		theirs: func(ctx context.Context) (float64, error) {
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				return 0, err
			}
			defer null.Close()
			cmd := exec.CommandContext(ctx, "cat", db)
			cmd.Stdout = null
			begin := time.Now()
			err = cmd.Run()
			return time.Since(begin).Seconds(), err
		}})
	if err != nil {
		return err
	}
	t.limit("P11", fmt.Sprintf("RssAnon after it, %s events", number(float64(nodes*eventsOfInstall))), "MiB", memory, 1024*float64(nodes)/100_000)
	return nil
}

// status is P9 and P10: what everybody's status costs, to a program and at a terminal.
func (o *options) status(ctx context.Context, t *table, dir string, nodes int) error {
	c, err := o.startCollector(ctx, dir)
	if err != nil {
		return err
	}
	err = o.statusOf(ctx, t, c, dir, nodes)
	return errors.Join(err, c.stop())
}

func (o *options) statusOf(ctx context.Context, t *table, c *collector, dir string, nodes int) error {
	file := filepath.Join(o.dir, "status.json")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	_, err = fetch(ctx, c.socket, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := checkStatus(file, nodes); err != nil {
		return err
	}
	if o.wants("P9") {
		p, err := o.startChild(ctx, "file", "P9", file, 0)
		if err != nil {
			return err
		}
		err = t.measure(ctx, figure{id: "P9", name: fmt.Sprintf("status, %s nodes / send a file", number(float64(nodes))), unit: "s", target: 2, most: true,
			ours:   func(ctx context.Context) (float64, error) { return fetch(ctx, c.socket, io.Discard) },
			theirs: func(ctx context.Context) (float64, error) { return fetch(ctx, file+".sock", io.Discard) }})
		if err = errors.Join(err, p.stop()); err != nil {
			return err
		}
	}
	if !o.wants("P10") {
		return nil
	}
	share := float64(nodes) / 100_000
	for _, args := range [][]string{{"status"}, {"status", "-o", "yaml"}} {
		var took, memory []float64
		for range t.o.runs {
			s, m, err := o.terminal(ctx, c.socket, args)
			if err != nil {
				return err
			}
			took, memory = append(took, s), append(memory, m)
		}
		what := fmt.Sprintf("provost %s, %s nodes", strings.Join(args, " "), number(float64(nodes)))
		t.limit("P10", what, "s", took, 0.1+0.9*share)
		t.limit("P10", what+": memory", "MiB", memory, 40+160*share)
	}
	return nil
}

// checkStatus looks whether every node of the fixture is there, as it was left.
func checkStatus(file string, nodes int) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var list proto.NodeList
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("reading the status of the site: %w", err)
	}
	booted, failed := 0, 0
	for _, n := range list.Nodes {
		switch n.Summary {
		case "booted":
			booted++
		case "failed(step-03=127)":
			failed++
		}
	}
	if want := nodes / failing; failed != want || booted != nodes-want {
		return fmt.Errorf("of %d nodes %d are listed, %d booted, %d failed by step-03, want %d of these", nodes, len(list.Nodes), booted, failed, want)
	}
	return nil
}

// fetch gets the status of every node and gives how long it took, in seconds.
func fetch(ctx context.Context, socket string, to io.Writer) (float64, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, DisableCompression: true}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://provostd/v1/status", nil)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the collector answers %s", resp.Status)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, resp.Body, make([]byte, 1<<20))
	return time.Since(begin).Seconds(), err
}

// terminal runs provost at a terminal and gives the seconds that it took, and its greatest size in MiB.
func (o *options) terminal(ctx context.Context, socket string, args []string) (seconds, memory float64, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "provost"), args...)
	cmd.Env = append(os.Environ(), "PROVOST_SERVER=unix://"+socket, "PAGER=", "TERM=xterm")
	begin := time.Now()
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 120})
	if err != nil {
		return 0, 0, err
	}
	defer screen.Close()
	ended := make(chan struct{})
	largest := make(chan float64)
	go func() { largest <- watchSize(cmd.Process.Pid, ended) }()
	io.Copy(io.Discard, screen) // it ends with EIO when the program does
	seconds = time.Since(begin).Seconds()
	close(ended)
	memory = <-largest
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 1 { // 1: a node has failed
		return 0, 0, fmt.Errorf("provost %s: %w", strings.Join(args, " "), err)
	}
	if memory == 0 {
		return 0, 0, errors.New("the system does not tell what provost used")
	}
	return seconds, memory, nil
}

// watchSize gives the greatest size of a process in MiB, as it was 5 ms before its end at the latest: VmHWM of
// proc_pid_status(5). What getrusage(2) tells is no less than the size of this process, from which it was started.
func watchSize(pid int, ended <-chan struct{}) (mib float64) {
	for {
		if kb, err := statusKB(pid, "VmHWM"); err == nil {
			mib = max(mib, float64(kb)/1024)
		}
		select {
		case <-ended:
			return mib
		case <-time.After(5 * time.Millisecond):
		}
	}
}
