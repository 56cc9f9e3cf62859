// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRecords: however much an agent has to send, no TLS record of it is long, since a collector keeps room for the longest of
// each connection.
func TestRecords(t *testing.T) {
	const text, most = 23, 2<<10 + 256 // RFC 8446, 5.1 and 5.2: application data; a kind and a tag are added
	b := newBench(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var longest, sum atomic.Int64
	relay := func(from net.Conn) error {
		defer from.Close()
		to, err := net.Dial("tcp", strings.TrimPrefix(b.c.URL(), "https://"))
		if err != nil {
			return err
		}
		defer to.Close()
		go func() {
			io.Copy(from, to)
			from.Close()
		}()
		for head := make([]byte, 5); ; { // of a record: kind, version 2, length 2
			if _, err := io.ReadFull(from, head); err != nil {
				return err
			}
			n := int64(binary.BigEndian.Uint16(head[3:]))
			if head[0] == text {
				longest.Store(max(longest.Load(), n))
				sum.Add(n)
			}
			if _, err := to.Write(head); err != nil {
				return err
			}
			if _, err := io.CopyN(to, from, n); err != nil {
				return err
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c) // its end is the connection's
		}
	}()
	long := strings.Repeat("a line of a log\n", 20_000)
	b.note(500)
	b.log("long.log", long)
	c := b.config()
	c.URLs = []string{"https://" + l.Addr().String()}
	b.start(c)
	b.until("the log", func() bool { return len(b.c.Log(b.id, "long.log")) == len(long) })
	b.want(500)
	if longest.Load() > most || sum.Load() < int64(len(long)) {
		t.Errorf("the longest of the records, %d bytes in all, has %d bytes, want at most %d", sum.Load(), longest.Load(), most)
	}
}
