// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// peer is a program that a site would use instead, with the same word: acknowledged is on the disk.
type peer struct {
	name   string
	target float64
	// start gives its command for an address and a directory, or why it is not here.
	start func(dir, address string) (*exec.Cmd, error)
	setup func(address string) error // once it answers; may be nil
	open  func(address string, i, events int) (sender, error)
}

// peerStart is how long a peer may take to answer.
const peerStart = 30 * time.Second

// peerFigures are P6 and P7.
func peerFigures(ctx context.Context, o *options, t *table) error {
	if err := os.Chmod(o.dir, 0o711); err != nil { // postgres runs as its own user
		return err
	}
	if o.wants("P6") {
		for _, p := range []peer{
			{name: "etcd", target: 2.5, start: etcd, open: openEtcd},
			{name: "PostgreSQL", target: 4, start: postgres, setup: setupPostgres, open: openPostgres},
			{name: "NATS JetStream", target: 12, start: nats, setup: setupNATS, open: openNATS},
			{name: "rsyslog RELP", target: 12, start: rsyslog, open: openRELP},
		} {
			if err := o.compare(ctx, t, "P6", p, 500, 1); err != nil {
				return err
			}
		}
	}
	if o.wants("P7") {
		return o.compare(ctx, t, "P7", peer{name: "Redis streams", target: 1, start: redis, open: openRedis}, 500, 10)
	}
	return nil
}

// compare measures a peer, if it is here, with the load that we get ourselves.
func (o *options) compare(ctx context.Context, t *table, id string, p peer, conns, events int) error {
	name := fmt.Sprintf("HTTP, %d × %d / %s", conns, events, p.name)
	dir, err := o.scratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	address, err := freeAddress()
	if err != nil {
		return err
	}
	cmd, err := p.start(dir, address)
	if errors.Is(err, exec.ErrNotFound) {
		t.skip(id, name, err.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("preparing %s: %w", p.name, err)
	}
	log, err := os.Create(filepath.Join(o.dir, id+"-peer.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	defer func() {
		cmd.Process.Signal(syscall.SIGINT) // to postgres SIGTERM means to wait for its clients
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	}()
	if err := await(ctx, address, ended); err != nil {
		b, _ := os.ReadFile(log.Name()) // for the reason, as far as it is there
		t.skip(id, name, fmt.Sprintf("%v; it said: %.300s", err, b[max(0, len(b)-300):]))
		return nil
	}
	if p.setup != nil {
		if err := p.setup(address); err != nil {
			return fmt.Errorf("preparing %s: %w", p.name, err)
		}
	}
	return t.measure(ctx, figure{id: id, name: name, unit: "events/s", target: p.target,
		ours: func(ctx context.Context) (float64, error) { return o.httpRate(ctx, "whole", id, conns, events) },
		theirs: func(ctx context.Context) (float64, error) {
			return load(ctx, conns, events, o.length, func(i int) (sender, error) { return p.open(address, i, events) })
		}})
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// await waits until something answers at an address.
func await(ctx context.Context, address string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, peerStart)
	defer cancel()
	for {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			time.Sleep(time.Second) // some listen before they are ready
			return c.Close()
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return errors.New("it does not answer")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// program finds a program, in the usual places or in one that a pattern gives.
func program(name, pattern string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

func etcd(dir, address string) (*exec.Cmd, error) {
	path, err := program("etcd", "")
	if err != nil {
		return nil, err
	}
	peers, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return exec.Command(path, "--data-dir", dir, "--listen-client-urls", "http://"+address, "--advertise-client-urls", "http://"+address,
		"--listen-peer-urls", "http://"+peers, "--initial-advertise-peer-urls", "http://"+peers, "--initial-cluster", "default=http://"+peers,
		"--quota-backend-bytes", strconv.Itoa(8<<30), "--logger", "zap", "--log-outputs", "stderr"), nil
}

func nats(dir, address string) (*exec.Cmd, error) {
	path, err := program("nats-server", filepath.Join(os.Getenv("HOME"), "go/bin/nats-server"))
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\njetstream { store_dir: %q, sync_interval: always, max_file: 50G }\n", address, dir)
	return exec.Command(path, "-c", conf), os.WriteFile(conf, []byte(text), 0o600)
}

// rsyslog acknowledges after write and fsync: the queues are direct, and the file is synced.
func rsyslog(dir, address string) (*exec.Cmd, error) {
	path, err := program("rsyslogd", "/usr/sbin/rsyslogd")
	if err != nil {
		return nil, err
	}
	if _, err := program("imrelp.so", "/usr/lib/*/rsyslog/imrelp.so"); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`module(load="imrelp")
main_queue(queue.type="Direct")
input(type="imrelp" port="%s" address="%s" ruleset="r" maxDataSize="16k")
template(name="raw" type="string" string="%%rawmsg%%\n")
ruleset(name="r" queue.type="Direct") {
  action(type="omfile" file="%s/events.log" sync="on" flushOnTXEnd="on" asyncWriting="off" template="raw")
}
`, port, host, dir)
	return exec.Command(path, "-n", "-f", conf, "-i", filepath.Join(dir, "pid")), os.WriteFile(conf, []byte(text), 0o600)
}

func redis(dir, address string) (*exec.Cmd, error) {
	path, err := program("redis-server", "")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	return exec.Command(path, "--port", port, "--bind", host, "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--maxclients", "19000", "--auto-aof-rewrite-percentage", "0"), err
}

// postgres refuses to be run by root.
func postgres(dir, address string) (*exec.Cmd, error) {
	server, err := program("postgres", "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	var as *syscall.SysProcAttr
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, err
		}
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(filepath.Dir(server), "initdb"), "-D", data, "-A", "trust", "-U", "postgres")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(server, "-D", data)
	for k, v := range map[string]string{"port": port, "listen_addresses": host, "unix_socket_directories": dir, "max_connections": "600",
		"shared_buffers": "1GB", "synchronous_commit": "on", "fsync": "on", "max_wal_size": "8GB"} {
		cmd.Args = append(cmd.Args, "-c", k+"="+v)
	}
	cmd.SysProcAttr, cmd.Dir = as, dir
	return cmd, nil
}
