// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"provost/collector/internal/evidence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func raw(i int) string { return "<30>" + strings.TrimSpace(row(i)) }
func rfc5424(i int) string {
	return fmt.Sprintf("<30>1 2026-11-20T17:46:51Z front dnsmasq-dhcp 1 - - %d DHCPDISCOVER(br0) 52:54:00:77:00:01", i)
}
func octets(s string) string { return fmt.Sprintf("%d %s", len(s), s) }

func TestReceive(t *testing.T) {
	r, err := evidence.Listen(context.Background(), "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{}
	stop := start(r, l)
	send := func(network, to string, parts ...string) {
		c, err := net.Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	udp, tcp := r.UDP.LocalAddr().String(), r.TCP.Addr().String()
	send("udp", udp, raw(0), rfc5424(1)+"\n")
	send("tcp", tcp, raw(2)+"\n"+rfc5424(3)+"\n")
	send("tcp", tcp, octets(raw(4))+octets(rfc5424(5)))
	send("tcp", tcp, octets(raw(6))[:9], octets(raw(6))[9:]+raw(7)+"\n"+octets(raw(8))) // in pieces, and both framings
	send("tcp", tcp, raw(9))                                                            // no newline before the end
	send("tcp", tcp, "x y z\n"+raw(10)+"\n")
	send("tcp", tcp, octets(strings.Repeat("z", 2*evidence.MaxLine))+octets(raw(11))) // thrown away, and on
	send("tcp", tcp, "<30>"+strings.Repeat("z", 2*evidence.MaxLine)+"\n"+raw(12)+"\n")
	send("tcp", tcp, "99999999999 x"+octets(raw(99))) // out of step: cut off
	send("tcp", tcp, "12x"+octets(raw(99)))
	l.await(t, 13)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := l.once(13); err != nil {
		t.Error(err)
	}
	if got := l.counts; got.Broken != 2 || got.Unknown != 1 {
		t.Errorf("counts %+v, want 2 broken and 1 unknown", got)
	}
	if l.position != nil {
		t.Errorf("position %q of a source without one", l.position)
	}
}

// pipes is a listener of connections without a network, whose deadlines follow the test's clock.
type pipes struct {
	c    chan net.Conn
	once sync.Once
	done chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.c:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return nil }
func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.c <- b
	return a
}

// TestReceiveBounds has senders that say half a message, nothing, and too many of them.
func TestReceiveBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{c: make(chan net.Conn), done: make(chan struct{})}
		r := &evidence.Receiver{TCP: p}
		l := &ledger{}
		stop := start(r, l)
		closed := func(c net.Conn) time.Duration {
			begin := time.Now()
			io.Copy(io.Discard, c)
			return time.Since(begin)
		}
		half := p.dial()
		io.WriteString(half, "500 <30>Nov")
		if d := closed(half); d != 30*time.Second {
			t.Errorf("half a message was waited for %v, want 30s", d)
		}
		silent := p.dial()
		if d := closed(silent); d != 10*time.Minute {
			t.Errorf("silence was waited for %v, want 10m", d)
		}
		var held []net.Conn
		for range 64 {
			held = append(held, p.dial())
		}
		synctest.Wait()
		if d := closed(p.dial()); d != 0 || r.Refused() != 1 {
			t.Errorf("the connection too many lasted %v, %d refused", d, r.Refused())
		}
		io.WriteString(held[0], raw(0)+"\n")
		time.Sleep(time.Second)
		if l.len() != 1 {
			t.Errorf("%d facts of the one that came", l.len())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		for _, c := range held {
			c.Close()
		}
	})
}

// TestReceiveZones: a stamp without an offset may be of another zone, or of a clock that is a little off; one with an offset
// says when it was, as does one that is as far away as no zone is.
func TestReceiveZones(t *testing.T) {
	r, err := evidence.Listen(context.Background(), "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	const text = " boot dnsmasq-dhcp[1]: %d DHCPDISCOVER(br0) 52:54:00:77:00:01"
	sent := []struct {
		name string
		at   time.Time
		form string
		want time.Time
	}{
		{"this zone", now, time.Stamp, now},
		{"nine hours east", now.Add(9 * time.Hour), time.Stamp, now},
		{"five hours and a half west", now.Add(-5*time.Hour - 30*time.Minute), time.Stamp, now},
		{"west, without an offset in another form", now.Add(-5 * time.Hour), "2006-01-02T15:04:05", now},
		{"25 minutes late", now.Add(-25 * time.Minute), time.Stamp, now.Add(-25 * time.Minute)},
		{"an hour ago, with an offset", now.Add(-time.Hour), time.RFC3339, now.Add(-time.Hour)},
		{"two days ago", now.Add(-48 * time.Hour), time.Stamp, now.Add(-48 * time.Hour)},
	}
	var mu sync.Mutex
	got := map[string]time.Time{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := net.Dial("udp", r.UDP.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, s := range sent {
		fmt.Fprintf(c, "<30>"+s.at.Format(s.form)+text, i)
	}
	err = r.Run(ctx, nil, func(b evidence.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range b.Facts {
			got[f.XID] = f.Time
		}
		if len(got) == len(sent) {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for i, s := range sent {
		if d := got[fmt.Sprint(i)].Sub(s.want); d.Abs() > 2*time.Minute {
			t.Errorf("%s: %v from what it should be", s.name, d)
		}
	}
}

// A receiver that cannot commit ends the source at once.
func TestReceiveRefused(t *testing.T) {
	r, err := evidence.Listen(context.Background(), "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp", r.UDP.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, raw(0))
	l := &ledger{refuse: func() bool { return true }}
	if err := r.Run(context.Background(), nil, l.deliver); err != errCommit {
		t.Errorf("Run = %v, want the receiver's error", err)
	}
}

// journal stands in for journalctl: it has as many entries as lines in a file, gives the ones after the cursor, and
// dies after each run, as one does that is killed.
const journal = `#!/bin/sh
after=0
for a in "$@"; do
	case $a in
	--after-cursor=c*) after=${a#--after-cursor=c} ;;
	esac
done
echo "$after" >>"$(dirname "$0")/starts"
n=0
while read -r line; do
	n=$((n + 1))
	[ "$n" -le "$after" ] || printf '{"__CURSOR":"c%s","__REALTIME_TIMESTAMP":"1795196811123000","SYSLOG_IDENTIFIER":"dnsmasq-dhcp","MESSAGE":"%s"}\n' "$n" "$line"
done <"$(dirname "$0")/entries"
echo 'the journal was rotated' >&2
exit 1
`

func TestJournald(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "journalctl")
	if err := os.WriteFile(tool, []byte(journal), 0o700); err != nil {
		t.Fatal(err)
	}
	entry := func(i int) string { return strings.TrimSpace(strings.SplitN(row(i), ": ", 2)[1]) + "\n" }
	write(t, filepath.Join(dir, "entries"), entry(0)+entry(1))
	l := &ledger{}
	s := &evidence.Journald{Command: []string{tool}, FromStart: true}
	stop := start(s, l)
	l.await(t, 2)
	write(t, filepath.Join(dir, "entries"), entry(2)) // comes with the next start, after at most a second
	l.await(t, 3)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if string(l.position) != "c3" {
		t.Errorf("position %q, want c3", l.position)
	}
	if len(l.troubles) == 0 || !strings.Contains(l.troubles[0], "the journal was rotated") {
		t.Errorf("troubles %q, want what journalctl said", l.troubles)
	}
	write(t, filepath.Join(dir, "entries"), entry(3))
	stop = start(s, l)
	l.await(t, 4)
	stop()
	if err := l.once(4); err != nil {
		t.Error(err)
	}
	starts, _ := os.ReadFile(filepath.Join(dir, "starts"))
	if !strings.HasPrefix(string(starts), "0\n2\n") || !strings.HasSuffix(string(starts), "3\n") {
		t.Errorf("journalctl was started after %q", starts)
	}

	missing := &ledger{}
	stop = start(&evidence.Journald{Command: []string{filepath.Join(dir, "nosuch")}}, missing)
	missing.awaitTrouble(t, "starting journalctl")
	stop()
	if len(missing.troubles) != 1 || !strings.Contains(missing.troubles[0], "starting journalctl") {
		t.Errorf("without journalctl: troubles %q", missing.troubles)
	}
}
