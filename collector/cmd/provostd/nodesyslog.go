// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"provost/collector/internal/registry"
)

// The bounds of what senders of syslog have in memory: each 64 KiB, all together 4 MiB. What is more is dropped and counted.
// A piece goes to the disk when it is 32 KiB or 15 s old: each costs an fsync.
const (
	senderMost  = 64 << 10
	sendersMost = 4 << 20
	senderPiece = 32 << 10
	senderAge   = 15 * time.Second
	maxSenders  = 4096
	// notNode is how long an address that is no node's is passed over unread: other frontends'.
	notNode = time.Minute
)

// nodeSyslog collects what installers send by syslog (inst.syslog=, log_host=), to be kept as a log of their installs. What
// is no node's address is forgotten: other frontends send by syslog, too. The zero value is ready.
type nodeSyslog struct {
	dropped atomic.Int64

	mu      sync.Mutex
	senders map[netip.Addr]*sender
	others  map[netip.Addr]time.Time // addresses that are no node's, and when that was found
	bytes   int
}

type sender struct {
	text  bytes.Buffer
	since time.Time
}

// add takes one message. It is evidence.Receiver's Raw.
func (n *nodeSyslog) add(from netip.Addr, text []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if found, ok := n.others[from]; ok {
		if time.Since(found) < notNode {
			return
		}
		delete(n.others, from)
	}
	s := n.senders[from]
	text = bytes.TrimRight(text, "\r\n\x00")
	if s == nil && len(n.senders) >= maxSenders || s != nil && s.text.Len()+len(text) >= senderMost || n.bytes+len(text) >= sendersMost {
		n.dropped.Add(1)
		return
	}
	if s == nil {
		if n.senders == nil {
			n.senders, n.others = map[netip.Addr]*sender{}, map[netip.Addr]time.Time{}
		}
		s = &sender{since: time.Now()}
		n.senders[from] = s
	}
	s.text.Write(text)
	s.text.WriteByte('\n')
	n.bytes += len(text) + 1
}

// flush writes the pieces that are large or old enough, or all.
func (n *nodeSyslog) flush(reg *registry.Registry, log *slog.Logger, all bool) {
	due := map[netip.Addr][]byte{}
	n.mu.Lock()
	for from, s := range n.senders {
		if all || s.text.Len() >= senderPiece || time.Since(s.since) >= senderAge {
			due[from] = s.text.Bytes()
			n.bytes -= s.text.Len()
			delete(n.senders, from)
		}
	}
	n.mu.Unlock()
	failed := 0
	var last error
	for from, text := range due {
		node, err := reg.KeepSyslog(from, text)
		if err != nil {
			failed, last = failed+1, err
		}
		n.mu.Lock()
		if !node && err == nil && len(n.others) < maxSenders {
			n.others[from] = time.Now()
		}
		n.mu.Unlock()
	}
	if failed > 0 {
		log.Warn("what nodes sent by syslog is not kept", "nodes", failed, "error", last)
	}
}
