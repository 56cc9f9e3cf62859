// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"provost/agent/internal/report"
	"provost/proto"
)

// node is one simulated machine. One goroutine lives its life; others look at what is atomic or guarded.
type node struct {
	f       *Fleet
	index   int
	name    string
	dir     report.Dir
	install string // what the events say; the collector goes by the token

	begin  time.Time
	first  atomic.Pointer[book] // of the installer
	second atomic.Pointer[book] // of the installed system

	// For the sender's goroutine.
	waits bool             // a request was made whose answer is not known yet
	end   func()           // ends the present boot
	known map[string]int64 // log bytes that the present sender knows to be there

	mu   sync.Mutex
	logs map[string]int64 // log bytes acknowledged
}

// hasty is the machine that does not wait for the acknowledgement of its seal, like one whose collector is away for too
// long: what it did not deliver comes after the reboot.
func (n *node) hasty() bool { return n.index%10 == 3 }

// live installs and boots the machine. It ends when everything is delivered, or with the context's error.
func (n *node) live(ctx context.Context) error {
	if err := pause(ctx, time.Until(n.begin)); err != nil {
		return err
	}
	if err := n.dir.Make(); err != nil {
		return err
	}
	over := n.f.cfg.Over * time.Duration(len(n.f.journey.installer)) / time.Duration(n.f.journey.events())
	n.first.Store(n.open(n.f.journey.installer, over))
	if err := n.run(ctx, proto.EnvInstaller); err != nil {
		return err
	}
	// The mirror on the disk has all but the note of what was sent.
	if err := os.Remove(n.dir.Path("sent")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rebooting %s: %w", n.name, err)
	}
	reboot := n.f.cfg.Over / 30 // 20 s of 10 minutes, and up to three times that
	if err := pause(ctx, reboot+mathrand.N(2*reboot)); err != nil {
		return err
	}
	n.second.Store(n.open(n.f.journey.installed, n.f.cfg.Over-over))
	return n.run(ctx, proto.EnvInstalled)
}

// open begins a boot and its journal, whose events are spread evenly at random over a time. The first and the last ones
// stand at its ends.
func (n *node) open(events []proto.Event, over time.Duration) *book {
	now := time.Now()
	b := &book{n: n, id: proto.NewJournal(), boot: boot{newBoot(), now.Add(-10 * time.Second)}, events: events, met: true}
	for range events {
		b.times = append(b.times, now.Add(mathrand.N(over)))
	}
	slices.SortFunc(b.times, time.Time.Compare)
	b.times[0] = now
	return b
}

// run is one boot: the sender with its own connection, until the boot is over.
func (n *node) run(ctx context.Context, env string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j, past := n.first.Load(), []report.Records(nil)
	if second := n.second.Load(); second != nil {
		j.met = false
		j, past = second, []report.Records{j}
	}
	n.known = map[string]int64{}
	ended := false
	n.end = func() { ended = true; cancel() }
	s, err := report.New(report.Config{
		Dir: n.dir, Journal: shipped{j}, Past: past, URLs: n.f.cfg.URLs, CA: n.f.cfg.CA, Node: n.name,
		Hello: func() proto.Hello {
			return proto.Hello{Version: "agentload", Env: env, Node: n.name, JoinKey: n.f.cfg.JoinKey, MACs: []string{MAC(n.index)}}
		},
		Clock:  j.boot.clock,
		Beat:   func() proto.Heartbeat { return n.beat(j) },
		Say:    func(line string) { n.f.say(n.name + ": " + line) },
		Met:    func(a proto.HelloAnswer) { n.install = a.Install },
		Timing: n.f.cfg.Timing,
	})
	if err != nil {
		return err
	}
	err = s.Run(ctx)
	if ended {
		return nil
	}
	return err
}

// beat tells how far the steps are.
func (n *node) beat(j *book) proto.Heartbeat {
	due := j.due(time.Now())
	if due == 0 {
		return proto.Heartbeat{}
	}
	e := j.events[due-1]
	return proto.Heartbeat{Phase: e.Phase, Step: e.Step, Progress: 50}
}

// settle looks, after a request, at what the sender has noted, and ends the boot when there is nothing left to do in it.
func (n *node) settle() {
	if !n.waits {
		return
	}
	n.waits = false
	s := n.dir.Sent()
	first, second := n.first.Load(), n.second.Load()
	if second == nil {
		first.settle(s.Next, s.At)
	} else {
		first.settle(s.Past[first.id], s.At)
		second.settle(s.Next, s.At)
	}
	n.mu.Lock()
	for name, size := range s.Logs {
		if acked := n.logs[name]; size < acked {
			n.f.fault("%s: the collector has %d bytes of %s, and has acknowledged %d", n.name, size, name, acked)
		}
		n.known[name] = size
		n.logs[name] = max(n.logs[name], size)
	}
	n.mu.Unlock()
	if n.over() {
		n.end()
	}
}

// over reports whether the boot has reached its end.
func (n *node) over() bool {
	b := n.second.Load()
	if b == nil {
		b = n.first.Load()
	}
	if b.due(time.Now()) < len(b.events) {
		return false
	}
	if b == n.first.Load() && n.hasty() {
		return true
	}
	return n.delivered(b)
}

// delivered reports whether the collector has acknowledged a journal to its end, with the logs up to then, and
// everything before it.
func (n *node) delivered(b *book) bool {
	first := n.first.Load()
	if first.acked.Load() < uint64(len(first.events)) || b.acked.Load() < uint64(len(b.events)) {
		return false
	}
	for _, l := range n.f.journey.logs {
		if (b != first || !l.installed) && n.known[l.name] < l.size {
			return false
		}
	}
	return true
}

// logSizes are the lengths of the logs that the machine has at a time.
func (n *node) logSizes(now time.Time) []proto.LogInfo {
	var out []proto.LogInfo
	for _, l := range n.f.journey.logs {
		b := n.first.Load()
		if l.installed {
			b = n.second.Load()
		}
		if b == nil {
			continue
		}
		switch due := b.due(now); {
		case due > l.start+1:
			out = append(out, proto.LogInfo{Name: l.name, Size: l.size})
		case due > l.start && l.size > 1:
			out = append(out, proto.LogInfo{Name: l.name, Size: l.size / 2})
		}
	}
	return out
}

// shipped is a book with the logs beside it.
type shipped struct{ *book }

func (s shipped) Logs() []proto.LogInfo { return s.n.logSizes(time.Now()) }

func (s shipped) ReadLog(name string, offset int64, max int) ([]byte, error) {
	n := s.n
	if known := n.known[name]; offset < known {
		n.f.fault("%s: the collector wants %s from byte %d, and has acknowledged %d", n.name, name, offset, known)
	}
	for _, l := range n.logSizes(time.Now()) {
		if l.Name == name && l.Size > offset {
			n.waits = true
			b := logText(n.name, name, l.Size)[offset:]
			return b[:min(len(b), max)], nil
		}
	}
	return nil, nil
}

// MAC is the address of a simulated node, locally administered.
func MAC(index int) string {
	return fmt.Sprintf("02:50:56:%02x:%02x:%02x", index>>16&0xff, index>>8&0xff, index&0xff)
}

func newBoot() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
