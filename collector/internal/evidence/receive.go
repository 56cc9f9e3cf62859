// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a Receiver. Memory is at most receiveConns × 64 KiB for buffers, and receiveQueue lines of at most
// MaxLine, which UDP datagrams and TCP senders fill together: 64 × 64 KiB + 256 × 64 KiB = 20 MiB.
const (
	receiveConns = 64
	receiveQueue = 256
	// receiveIdle is how long a TCP sender may say nothing; rsyslog connects again when it has something to say.
	receiveIdle = 10 * time.Minute
	// receivePartial is how long the rest of a begun message may take.
	receivePartial = 30 * time.Second
	// receiveFlush is how long a fact may wait for others.
	receiveFlush = 100 * time.Millisecond
)

// Receiver takes syslog over UDP (RFC 5426) and TCP (RFC 6587: octet counting, and lines), with messages of RFC 3164 and
// RFC 5424. It cannot ask for anything again: it has no position.
type Receiver struct {
	UDP net.PacketConn // either may be nil; Run closes both
	TCP net.Listener

	Location *time.Location // of stamps without an offset; nil is UTC
	// Raw gets every message that is not too long, as it came, before it is read as evidence; may be nil. It must not wait,
	// and the text is valid only in the call.
	Raw func(from netip.Addr, text []byte)

	dropped atomic.Int64
	refused atomic.Int64
}

// Listen opens the ports; an empty address leaves that one out.
func Listen(ctx context.Context, udp, tcp string) (*Receiver, error) {
	var (
		r   Receiver
		lc  net.ListenConfig
		err error
	)
	if udp != "" {
		if r.UDP, err = lc.ListenPacket(ctx, "udp", udp); err != nil {
			return nil, fmt.Errorf("listening for syslog: %w", err)
		}
	}
	if tcp != "" {
		if r.TCP, err = lc.Listen(ctx, "tcp", tcp); err != nil {
			if r.UDP != nil {
				r.UDP.Close()
			}
			return nil, fmt.Errorf("listening for syslog: %w", err)
		}
	}
	return &r, nil
}

// Name is "syslog".
func (r *Receiver) Name() string { return "syslog" }

// Dropped is how many datagrams found the queue full.
func (r *Receiver) Dropped() int64 { return r.dropped.Load() }

// Refused is how many connections found no place.
func (r *Receiver) Refused() int64 { return r.refused.Load() }

type message struct {
	text []byte
	from netip.Addr
	long bool // was cut: longer than MaxLine
}

// Run receives until ctx ends. A slow deliver makes TCP senders wait and UDP datagrams be dropped. The position is not
// used.
func (r *Receiver) Run(ctx context.Context, _ []byte, deliver Deliver) error {
	ctx, stop := context.WithCancel(ctx)
	queue := make(chan message, receiveQueue)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if r.UDP != nil {
		context.AfterFunc(ctx, func() { r.UDP.Close() })
		wg.Go(func() { r.datagrams(ctx, queue) })
	}
	if r.TCP != nil {
		context.AfterFunc(ctx, func() { r.TCP.Close() })
		wg.Go(func() { r.connections(ctx, queue) })
	}
	in := newIntake(r.Name(), r.Location)
	flush := time.NewTicker(receiveFlush)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			if in.counts.Lines > 0 {
				return in.hand(nil, deliver)
			}
			return nil
		case m := <-queue:
			if m.long {
				in.count(Broken, len(m.text))
			} else {
				if r.Raw != nil {
					r.Raw(m.from, m.text)
				}
				in.line(m.text, m.from)
			}
			if !in.full() {
				continue
			}
		case now := <-flush.C:
			in.clock(now)
			if !in.due(now) {
				continue
			}
		}
		if err := in.hand(nil, deliver); err != nil {
			return err
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func (r *Receiver) datagrams(ctx context.Context, queue chan<- message) {
	buf := make([]byte, MaxLine)
	for {
		n, from, err := r.UDP.ReadFrom(buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil { // ICMP errors of senders that are gone; a closed socket ends ctx first
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(receiveFlush):
			}
			continue
		}
		select {
		case queue <- message{text: append([]byte(nil), buf[:n]...), from: addrOf(from)}:
		default:
			r.dropped.Add(1)
		}
	}
}

func (r *Receiver) connections(ctx context.Context, queue chan<- message) {
	places := make(chan struct{}, receiveConns)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := r.TCP.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of descriptors: they come back
			case <-ctx.Done():
				return
			case <-time.After(receiveFlush):
			}
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			r.refused.Add(1)
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			defer c.Close()
			receive(ctx, c, queue)
		})
	}
}

// receive reads the messages of one connection. A sender that breaks the framing is cut off, since there is no way back
// into step.
func receive(ctx context.Context, c net.Conn, queue chan<- message) {
	from := addrOf(c.RemoteAddr())
	b := bufio.NewReaderSize(c, MaxLine)
	put := func(m message) bool {
		m.from = from
		select {
		case queue <- m:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		c.SetReadDeadline(time.Now().Add(receiveIdle))
		first, err := b.Peek(1)
		if err != nil {
			return
		}
		c.SetReadDeadline(time.Now().Add(receivePartial))
		if digit(first[0]) {
			text, long, err := counted(b)
			if err != nil || !put(message{text: text, long: long}) {
				return
			}
			continue
		}
		line, err := b.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = b.ReadSlice('\n')
			}
			if err != nil || !put(message{long: true}) {
				return
			}
		case err != nil && !errors.Is(err, io.EOF):
			return
		case len(line) > 0:
			if !put(message{text: append([]byte(nil), line...)}) {
				return
			}
		}
	}
}

var errFraming = errors.New("no octet count of RFC 6587")

// counted reads "LENGTH MESSAGE". What is longer than MaxLine is read and thrown away.
func counted(b *bufio.Reader) (text []byte, long bool, err error) {
	n := 0
	for i := 0; ; i++ {
		c, err := b.ReadByte()
		switch {
		case err != nil:
			return nil, false, err
		case c == ' ' && i > 0:
		case !digit(c) || i == 8:
			return nil, false, errFraming
		default:
			n = n*10 + int(c-'0')
			continue
		}
		break
	}
	if n > MaxLine {
		_, err := b.Discard(n)
		return nil, true, err
	}
	text = make([]byte, n)
	_, err = io.ReadFull(b, text)
	return text, false, err
}
