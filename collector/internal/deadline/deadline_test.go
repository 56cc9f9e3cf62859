// SPDX-License-Identifier: Apache-2.0

package deadline_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"provost/collector/internal/deadline"
	"provost/collector/internal/lifecycle"
	"provost/proto"
)

var zero = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func at(minutes float64) time.Time { return zero.Add(time.Duration(minutes * float64(time.Minute))) }

const minute = time.Minute

func TestDecide(t *testing.T) {
	ordered := deadline.Install{View: &lifecycle.View{Status: proto.StatusOrdered, Stage: "ordered"}, Ordered: zero, Within: 15 * minute, Whole: 90 * minute}
	running := func(edit func(*lifecycle.View, *deadline.Install)) deadline.Install {
		v := &lifecycle.View{Status: proto.StatusInstalling, Stage: "agent-started", Awaited: "post-started", AwaitedSince: at(10), AwaitedWithin: 20 * minute}
		in := deadline.Install{View: v, Ordered: zero, Within: 15 * minute, Began: at(5), Whole: 90 * minute}
		edit(v, &in)
		return in
	}
	type V = *lifecycle.View
	type I = *deadline.Install
	for _, tt := range []struct {
		name  string
		in    deadline.Install
		now   float64
		want  deadline.Verdict
		stage string
	}{
		{"no sign of life, in time", ordered, 14.9, deadline.Nothing, "dhcp-discover"},
		{"no sign of life", ordered, 15, deadline.Stalled, "dhcp-discover"},
		{"no sign of life for long", ordered, 30, deadline.Failed, "dhcp-discover"},
		{"at the next boot, whenever that is", deadline.Install{View: ordered.View, Ordered: zero, Whole: 90 * minute}, 1e6, deadline.Nothing, ""},
		{"in time", running(func(V, I) {}), 29.9, deadline.Nothing, "post-started"},
		{"overdue", running(func(V, I) {}), 30, deadline.Stalled, "post-started"},
		{"overdue, and said", running(func(v V, _ I) { v.Status = proto.StatusStalled }), 49.9, deadline.Nothing, "post-started"},
		{"twice the time", running(func(v V, _ I) { v.Status = proto.StatusStalled }), 50, deadline.Failed, "post-started"},
		{"twice the time at once", running(func(V, I) {}), 50, deadline.Failed, "post-started"},
		{"a heartbeat extends", running(func(v V, i I) { v.HeartbeatExtends = true; i.Heard = at(29) }), 48.9, deadline.Nothing, "post-started"},
		{"but not for ever", running(func(v V, i I) { v.HeartbeatExtends = true; i.Heard = at(29) }), 49, deadline.Stalled, "post-started"},
		{"a heartbeat extends only where it may", running(func(_ V, i I) { i.Heard = at(29) }), 30, deadline.Stalled, "post-started"},
		{"an old heartbeat shortens nothing", running(func(v V, i I) { v.HeartbeatExtends = true; i.Heard = at(1) }), 29.9, deadline.Nothing, "post-started"},
		{"the whole install", running(func(v V, i I) { v.HeartbeatExtends = true; i.Heard = at(94) }), 95, deadline.Stalled, "booted"},
		{"the whole install, twice", running(func(v V, i I) { v.HeartbeatExtends = true; i.Heard = at(184) }), 185, deadline.Failed, "booted"},
		{"no whole", running(func(v V, i I) { v.Awaited = ""; i.Whole = 0 }), 1e6, deadline.Nothing, ""},
		{"it waited until lately", running(func(_ V, i I) { i.Began = at(300) }), 319.9, deadline.Nothing, "post-started"},
		{"it waited, and is overdue since", running(func(_ V, i I) { i.Began = at(300) }), 320, deadline.Stalled, "post-started"},
		{"waiting", running(func(v V, _ I) { v.Waiting = true }), 1e6, deadline.Nothing, ""},
		{"held", running(func(v V, _ I) { v.Status = proto.StatusHeld }), 1e6, deadline.Nothing, ""},
		{"failed", running(func(v V, _ I) { v.Status = proto.StatusFailed }), 1e6, deadline.Nothing, ""},
		{"ended", running(func(v V, _ I) { v.Ended = true }), 1e6, deadline.Nothing, ""},
		{"down before: nothing moves", running(func(_ V, i I) { i.Down = []deadline.Interval{{From: at(0), To: at(9)}} }), 30, deadline.Stalled, "post-started"},
		{"down in the middle", running(func(_ V, i I) { i.Down = []deadline.Interval{{From: at(12), To: at(22)}} }), 39.9, deadline.Nothing, "post-started"},
		{"down in the middle, then overdue", running(func(_ V, i I) { i.Down = []deadline.Interval{{From: at(12), To: at(22)}} }), 40, deadline.Stalled, "post-started"},
		{"down from before", running(func(_ V, i I) { i.Down = []deadline.Interval{{From: at(0), To: at(15)}} }), 34.9, deadline.Nothing, "post-started"},
		{"down twice, the second within what the first added", running(func(_ V, i I) { i.Down = []deadline.Interval{{From: at(12), To: at(22)}, {From: at(35), To: at(36)}} }), 40.9, deadline.Nothing, "post-started"},
		{"down afterwards: it was overdue before", running(func(_ V, i I) { i.Down = []deadline.Interval{{From: at(31), To: at(40)}} }), 30, deadline.Stalled, "post-started"},
	} {
		got, due := deadline.Decide(tt.in, at(tt.now))
		if got != tt.want || due.Stage != tt.stage {
			t.Errorf("%s: Decide at %v min = %v, %q, want %v, %q", tt.name, tt.now, got, due.Stage, tt.want, tt.stage)
		}
	}
}

// TestSince: what is told as the begin of a wait stands, whatever moves its end.
func TestSince(t *testing.T) {
	v := &lifecycle.View{Status: proto.StatusInstalling, Stage: "agent-started", Awaited: "post-started", AwaitedSince: at(10), AwaitedWithin: 20 * minute, HeartbeatExtends: true}
	in := deadline.Install{View: v, Ordered: zero, Began: at(5), Heard: at(18), Whole: 90 * minute, Down: []deadline.Interval{{From: at(11), To: at(12)}, {From: at(20), To: at(25)}}}
	if d, ok := deadline.Next(in); !ok || d.Since != at(10) || d.Stall != at(43) {
		t.Errorf("Next = %+v, %v, want it since minute 10, until 43", d, ok)
	}
	in.Began = at(15)
	if d, ok := deadline.Next(in); !ok || d.Since != at(15) {
		t.Errorf("Next after a wait until minute 15 = %+v, %v, want it since then", d, ok)
	}
	if d, ok := deadline.Next(deadline.Install{View: &lifecycle.View{Status: proto.StatusOrdered, Stage: "ordered"}, Ordered: zero, Within: minute}); !ok || d.Since != zero {
		t.Errorf("Next of an install that was ordered = %+v, %v, want it since the order", d, ok)
	}
}

type fake struct {
	alive, expire atomic.Int32
	fail          atomic.Bool
}

func (f *fake) Alive(context.Context) error { f.alive.Add(1); return f.err() }
func (f *fake) Expire(context.Context) (int, error) {
	f.expire.Add(1)
	return 0, f.err()
}
func (f *fake) err() error {
	if f.fail.Load() {
		return errors.New("disk full")
	}
	return nil
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fake
		var text strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); deadline.Run(ctx, &f, slog.New(slog.NewTextHandler(&text, nil))) }()
		time.Sleep(20*time.Second + time.Millisecond)
		if a, e := f.alive.Load(), f.expire.Load(); a != 4 || e != 20 {
			t.Errorf("in 20 s: %d notes, %d looks, want 4, 20", a, e)
		}
		f.fail.Store(true)
		time.Sleep(10 * time.Second)
		f.fail.Store(false)
		time.Sleep(10 * time.Second)
		cancel()
		<-done
		if s := text.String(); strings.Count(s, "disk full") != 1 || strings.Count(s, "written again") != 1 {
			t.Errorf("the log says:\n%s\nwant the error once and its end once", s)
		}
	})
}
