// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
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
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"provost/collector/internal/api"
	"provost/proto"
)

// childPrefix begins the first argument of this program when it serves itself.
const childPrefix = "child:"

// serving is the first line that a serving child says: its address, and of each node an install and a token.
type serving struct {
	Address  string   `json:"address"`
	Installs []string `json:"installs"`
	Tokens   []string `json:"tokens"`
}

// child is the server's side of a figure, in a process of its own: child:bare, child:whole or child:file (and child:fixture,
// which only makes one), with a directory or file, the number of nodes, and where to write a CPU
// profile (a fixture: the version of the collector that made it). It ends with its input.
func child(args []string, stdout, stderr io.Writer) int {
	if len(args) != 4 {
		return 64
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	err := func() error {
		nodes, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		if args[3] != "" && args[0] != childPrefix+"fixture" {
			f, err := os.Create(args[3])
			if err != nil {
				return err
			}
			defer f.Close()
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		switch strings.TrimPrefix(args[0], childPrefix) {
		case "bare":
			return serve(ctx, "tcp", "127.0.0.1:0", http.HandlerFunc(bare), serving{}, stdout)
		case "whole":
			return serveWhole(ctx, args[1], nodes, stdout)
		case "fixture":
			return fixture(ctx, args[1], nodes, args[3])
		case "file":
			file := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, args[1]) })
			return serve(ctx, "unix", args[1]+".sock", file, serving{}, stdout)
		}
		return errors.New("there is no such child")
	}()
	if err != nil {
		fmt.Fprintf(stderr, "collectorbench: %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// serveWhole serves the whole API over plain HTTP, with an install of each node under way.
func serveWhole(ctx context.Context, dir string, nodes int, stdout io.Writer) error {
	s, err := openSite(ctx, dir, "bench")
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.order(ctx, 0, nodes); err != nil {
		return err
	}
	say := serving{}
	for i := range nodes {
		h, err := s.hello(ctx, i, 1, "")
		if err != nil {
			return err
		}
		say.Installs, say.Tokens = append(say.Installs, h.Install), append(say.Tokens, h.Token)
	}
	handler, err := api.New(api.Config{Registry: s.Registry, Profiles: compute{}})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	background, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { s.Run(background) })
	return serve(ctx, "tcp", "127.0.0.1:0", handler, say, stdout)
}

// serve answers until ctx ends.
func serve(ctx context.Context, network, address string, h http.Handler, say serving, stdout io.Writer) error {
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	say.Address = l.Addr().String()
	if err := json.NewEncoder(stdout).Encode(say); err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}
	go func() {
		<-ctx.Done()
		srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bare is the handler of events without a store: it reads, decodes and checks a request, and answers it.
func bare(w http.ResponseWriter, r *http.Request) {
	var q proto.EventsRequest
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, proto.MaxBody)).Decode(&q)
	a := proto.EventsAnswer{BootAction: proto.BootInstall}
	for _, raw := range q.Events {
		var e proto.Event
		if err = errors.Join(err, json.Unmarshal(raw, &e)); err == nil {
			err = e.CheckAgent()
		}
		a.Next = e.Seq + 1
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b, err := json.Marshal(a)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

// process is a child that serves.
type process struct {
	serving
	cmd *exec.Cmd
	in  io.Closer
}

// startChild starts this program again as a server. Its profile goes to NAME.cpu.
func (o *options) startChild(ctx context.Context, kind, name, path string, nodes int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	profile := ""
	if o.profile != "" {
		profile = filepath.Join(o.profile, name+"-"+kind+".cpu")
	}
	p := &process{cmd: exec.CommandContext(ctx, self, childPrefix+kind, path, strconv.Itoa(nodes), profile)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReaderSize(out, 1<<20).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.serving)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting a server of our own: %w", err), p.stop())
	}
	return p, nil
}

// stop ends the child and waits for it.
func (p *process) stop() error {
	p.in.Close()
	return p.cmd.Wait()
}

// httpFigures are P4 and P5.
func httpFigures(ctx context.Context, o *options, t *table) error {
	for _, f := range []struct {
		id            string
		conns, events int
		target        float64
	}{{"P4", 500, 1, 0.85}, {"P5", 50, 100, 0.80}} {
		if !o.wants(f.id) {
			continue
		}
		side := func(kind string) func(context.Context) (float64, error) {
			return func(ctx context.Context) (float64, error) { return o.httpRate(ctx, kind, f.id, f.conns, f.events) }
		}
		err := t.measure(ctx, figure{id: f.id, name: fmt.Sprintf("HTTP, %d × %d events / no store", f.conns, f.events), unit: "events/s", target: f.target,
			ours: side("whole"), theirs: side("bare")})
		if err != nil {
			return err
		}
	}
	return nil
}

// httpRate starts a server of a kind and lets agents post to it.
func (o *options) httpRate(ctx context.Context, kind, id string, conns, events int) (float64, error) {
	dir, err := o.scratch()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	p, err := o.startChild(ctx, kind, id, dir, conns)
	if err != nil {
		return 0, err
	}
	v, err := o.postRate(ctx, p, conns, events)
	return v, errors.Join(err, p.stop())
}

// postRate lets every connection, which is an agent's, post one batch of events after the other.
func (o *options) postRate(ctx context.Context, p *process, conns, events int) (float64, error) {
	return load(ctx, conns, events, o.length, func(i int) (sender, error) {
		install, token := proto.NewID(time.Now()), ""
		if len(p.Tokens) > 0 {
			install, token = p.Installs[i], p.Tokens[i]
		}
		return newPoster(p.Address, install, token, i, events)
	})
}

// sender sends one batch and returns when it is acknowledged.
type sender interface {
	send() error
	io.Closer
}

// load runs conns senders, each with one batch on its way at a time, and gives events a second. The first fifth of the time
// does not count.
func load(ctx context.Context, conns, events int, length time.Duration, open func(i int) (sender, error)) (float64, error) {
	all := make([]sender, conns)
	defer func() {
		for _, s := range all {
			if s != nil {
				s.Close()
			}
		}
	}()
	for i := range all {
		var err error
		if all[i], err = open(i); err != nil {
			return 0, fmt.Errorf("connecting: %w", err)
		}
	}
	calls := make([]func() error, conns)
	for i, s := range all {
		calls[i] = s.send
	}
	return rate(ctx, calls, events, length)
}

// poster is an agent's connection that posts events, always the same but for their numbers.
type poster struct {
	conn    net.Conn
	request []byte
	seqs    []int // where the numbers stand, of seqDigits digits each
	next    uint64
	answer  []byte
}

const seqDigits = 10

func newPoster(address, install, token string, i, events int) (*poster, error) {
	const firstSeq = 1
	var q bytes.Buffer
	fmt.Fprintf(&q, `{"schema":%d,"install":%q,"journal":%q,"clock":{"boot":%q,"offset_ms":60000,"time":%q},"events":[`, proto.Schema, install, journalID(i, 1), bootID(i, 1),
		time.Now().UTC().Format(time.RFC3339Nano))
	var seqs []int
	for n := range events {
		if n > 0 {
			q.WriteByte(',')
		}
		e, at := postedEvent(i)
		seqs = append(seqs, q.Len()+at)
		q.Write(e)
	}
	q.WriteString("]}")
	head := fmt.Appendf(nil, "POST /v1/agent/events HTTP/1.1\r\nHost: provostd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", q.Len())
	if token != "" {
		head = fmt.Appendf(head, "Authorization: Bearer %s\r\n", token)
	}
	head = append(head, "\r\n"...)
	p := &poster{request: append(head, q.Bytes()...), next: firstSeq, answer: make([]byte, 4096)}
	for _, at := range seqs {
		p.seqs = append(p.seqs, len(head)+at)
	}
	var err error
	p.conn, err = net.Dial("tcp", address)
	return p, err
}

// postedEvent is an event as an agent writes it, of some eventSize bytes, and where its number stands. JSON has no leading
// zeros: blanks stand before it.
func postedEvent(i int) (event []byte, seq int) {
	head := `{"kind":"step-end","source":"agent","seq":`
	tail := fmt.Sprintf(`,"time":"2026-11-20T17:00:00.123Z","boot":%q,"offset_ms":59000,"phase":"post","step":"step-07","try":1,"outcome":"ok","duration_ms":1532,"log":"step-07.log","message":"`, bootID(i, 1))
	blank := strings.Repeat(" ", seqDigits)
	text := strings.Repeat("+ systemctl enable --now chronyd.service; ok  ", 11)
	text = text[:max(0, eventSize-len(head)-len(blank)-len(tail)-2)]
	return []byte(head + blank + tail + text + `"}`), len(head)
}

func (p *poster) send() error {
	for _, at := range p.seqs {
		b := p.request[at : at+seqDigits]
		n := p.next
		for k := seqDigits - 1; k >= 0; k-- {
			b[k] = ' '
			if n > 0 {
				b[k] = byte('0' + n%10)
			}
			n /= 10
		}
		p.next++
	}
	if _, err := p.conn.Write(p.request); err != nil {
		return err
	}
	return p.read()
}

// read takes an answer, which is short, and checks that everything was taken.
func (p *poster) read() error {
	got := 0
	for {
		n, err := p.conn.Read(p.answer[got:])
		if err != nil {
			return err
		}
		got += n
		head, body, ok := bytes.Cut(p.answer[:got], []byte("\r\n\r\n"))
		if !ok || !bytes.HasSuffix(body, []byte("}")) {
			continue
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(body, fmt.Appendf(nil, `"next":%d`, p.next)) {
			return fmt.Errorf("the server answered %.300q, record %d should be next", p.answer[:got], p.next)
		}
		return nil
	}
}

// Close implements sender.
func (p *poster) Close() error { return p.conn.Close() }
