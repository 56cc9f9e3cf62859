// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The clients of the peers speak just enough of each protocol, so that they cost as little as our own.

// wire is a connection with its reader.
type wire struct {
	net.Conn
	r *bufio.Reader
	b []byte
}

func dial(address string) (*wire, error) {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, r: bufio.NewReaderSize(c, 4096)}, nil
}

// flush writes what was gathered.
func (w *wire) flush() error {
	_, err := w.Write(w.b)
	w.b = w.b[:0]
	return err
}

// call makes a sender of a function.
type call struct {
	io.Closer
	fn func() error
}

func (c call) send() error { return c.fn() }

// payload is an event of the same size as ours.
func payload() []byte {
	e, _ := postedEvent(0)
	return e
}

// openRedis adds to the stream of a node, the events of a batch in one write (RESP).
func openRedis(address string, i, events int) (sender, error) {
	w, err := dial(address)
	if err != nil {
		return nil, err
	}
	key, event := name(i), payload()
	one := fmt.Appendf(nil, "*5\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$1\r\nd\r\n$%d\r\n%s\r\n", len(key), key, len(event), event)
	all := bytes.Repeat(one, events)
	return call{w, func() error {
		if _, err := w.Write(all); err != nil {
			return err
		}
		for range events {
			l, err := w.r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if l[0] != '$' {
				return fmt.Errorf("redis answers %q", l)
			}
			if _, err := w.r.ReadSlice('\n'); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// openRELP speaks RELP 0: TXNR COMMAND LENGTH [DATA], answered by TXNR rsp LENGTH DATA.
func openRELP(address string, i, _ int) (sender, error) {
	w, err := dial(address)
	if err != nil {
		return nil, err
	}
	tx := 1
	rpc := func(command string, data []byte) error {
		w.b = fmt.Appendf(w.b, "%d %s %d %s\n", tx, command, len(data), data)
		tx++
		if err := w.flush(); err != nil {
			return err
		}
		for range 2 { // TXNR and rsp
			if _, err := w.r.ReadSlice(' '); err != nil {
				return err
			}
		}
		text, err := w.r.ReadString(' ')
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		answer := make([]byte, n+1)
		if _, err := io.ReadFull(w.r, answer); err != nil {
			return err
		}
		if !bytes.HasPrefix(answer, []byte("200")) {
			return fmt.Errorf("rsyslog answers %q", answer)
		}
		return nil
	}
	message := fmt.Appendf(nil, "<134>1 2026-11-20T17:00:00.123456Z %s provision - - - %s", name(i), payload())
	return call{w, func() error { return rpc("syslog", message) }}, rpc("open", []byte("relp_version=0\nrelp_software=bench\ncommands=syslog"))
}

// natsPublish sends a message to a subject and awaits JetStream's word on it. The inbox is the connection's alone.
func natsPublish(w *wire, subject, inbox string, message []byte) error {
	w.b = fmt.Appendf(w.b, "PUB %s %s %d\r\n%s\r\n", subject, inbox, len(message), message)
	if err := w.flush(); err != nil {
		return err
	}
	for {
		l, err := w.r.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(l, []byte("PING")):
			if _, err := w.Write([]byte("PONG\r\n")); err != nil {
				return err
			}
		case bytes.HasPrefix(l, []byte("-ERR")):
			return fmt.Errorf("nats answers %q", l)
		case bytes.HasPrefix(l, []byte("MSG ")):
			f := bytes.Fields(l)
			n, err := strconv.Atoi(string(f[len(f)-1]))
			if err != nil {
				return err
			}
			answer := make([]byte, n+2)
			if _, err := io.ReadFull(w.r, answer); err != nil {
				return err
			}
			if bytes.Contains(answer, []byte(`"error"`)) {
				return fmt.Errorf("nats answers %q", answer)
			}
			return nil
		}
	}
}

func dialNATS(address, inbox string) (*wire, error) {
	w, err := dial(address)
	if err != nil {
		return nil, err
	}
	w.b = fmt.Appendf(w.b, "CONNECT {\"verbose\":false}\r\nSUB %s 1\r\n", inbox)
	return w, w.flush()
}

func setupNATS(address string) error {
	w, err := dialNATS(address, "_INBOX.setup")
	if err != nil {
		return err
	}
	defer w.Close()
	return natsPublish(w, "$JS.API.STREAM.CREATE.EV", "_INBOX.setup", []byte(`{"name":"EV","subjects":["ev.>"],"storage":"file","num_replicas":1,"retention":"limits",`+
		`"discard":"old","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msg_size":-1}`))
}

func openNATS(address string, i, _ int) (sender, error) {
	inbox := fmt.Sprintf("_INBOX.%d", i)
	w, err := dialNATS(address, inbox)
	if err != nil {
		return nil, err
	}
	subject, event := "ev."+name(i), payload()
	return call{w, func() error { return natsPublish(w, subject, inbox, event) }}, nil
}

// PostgreSQL's frontend/backend protocol, version 3.
func pgMessage(b []byte, kind byte, body []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+4))
	return append(b, body...)
}

// pgReady reads until the server waits for the next command.
func pgReady(w *wire) error {
	var failed error
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(w.r, head); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(w.r, body); err != nil {
			return err
		}
		switch head[0] {
		case 'E':
			failed = fmt.Errorf("postgres answers %q", body)
		case 'Z':
			return failed
		}
	}
}

func dialPostgres(address string) (*wire, error) {
	w, err := dial(address)
	if err != nil {
		return nil, err
	}
	const words = "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	w.b = append(binary.BigEndian.AppendUint32(w.b, uint32(len(words)+4)), words...)
	if err := w.flush(); err != nil {
		return nil, err
	}
	return w, pgReady(w)
}

func setupPostgres(address string) error {
	w, err := dialPostgres(address)
	if err != nil {
		return err
	}
	defer w.Close()
	w.b = pgMessage(w.b, 'Q', []byte("create table ev(id bigserial primary key, node text, seq bigint, val text)\x00"))
	return errors.Join(w.flush(), pgReady(w))
}

func openPostgres(address string, i, _ int) (sender, error) {
	w, err := dialPostgres(address)
	if err != nil {
		return nil, err
	}
	const sync = 'S'
	w.b = pgMessage(w.b, 'P', []byte("i\x00insert into ev(node,seq,val) values($1,$2,$3)\x00\x00\x00"))
	w.b = pgMessage(w.b, sync, nil)
	if err := errors.Join(w.flush(), pgReady(w)); err != nil {
		return nil, err
	}
	seq, event := 0, payload()
	return call{w, func() error {
		seq++
		bind := append([]byte("\x00i\x00"), 0, 0, 0, 3)
		for _, v := range [][]byte{[]byte(name(i)), strconv.AppendInt(nil, int64(seq), 10), event} {
			bind = append(binary.BigEndian.AppendUint32(bind, uint32(len(v))), v...)
		}
		w.b = pgMessage(w.b, 'B', append(bind, 0, 0))
		w.b = pgMessage(w.b, 'E', []byte{0, 0, 0, 0, 0})
		w.b = pgMessage(w.b, sync, nil)
		return errors.Join(w.flush(), pgReady(w))
	}}, nil
}

// openEtcd puts a key by gRPC: a POST over HTTP/2 in clear text, with a length before the message.
func openEtcd(address string, i, _ int) (sender, error) {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p, DisableCompression: true}
	seq, event := 0, payload()
	field := func(b []byte, number byte, v []byte) []byte {
		return append(binary.AppendUvarint(append(b, number<<3|2), uint64(len(v))), v...)
	}
	closer := closeFunc(func() error { tr.CloseIdleConnections(); return nil })
	return call{closer, func() error {
		seq++
		m := field(make([]byte, 5, len(event)+64), 1, fmt.Appendf(nil, "/n/%s/%d", name(i), seq))
		m = field(m, 2, event)
		binary.BigEndian.PutUint32(m[1:], uint32(len(m)-5))
		r, err := http.NewRequest(http.MethodPost, "http://"+address+"/etcdserverpb.KV/Put", bytes.NewReader(m))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("TE", "trailers")
		resp, err := tr.RoundTrip(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if s := resp.Trailer.Get("Grpc-Status"); s != "0" {
			return fmt.Errorf("etcd answers %s, gRPC status %q %s", resp.Status, s, resp.Trailer.Get("Grpc-Message"))
		}
		return nil
	}}, nil
}

type closeFunc func() error

// Close implements io.Closer.
func (f closeFunc) Close() error { return f() }
