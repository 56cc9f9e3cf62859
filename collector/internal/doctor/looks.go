// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"sync"
	"time"

	"provost/proto"
)

const (
	// lookLimit is how long a file system has to answer. One on a server that is gone holds whoever asks it in the kernel,
	// for ever.
	lookLimit = 2 * time.Second
	// maxLooks bounds the looks that hang at a time: each has a thread of the kernel's.
	maxLooks = 32
)

// Looks are the looks at file systems that are under way, over all calls of Check: one that hangs is not begun again. The
// zero Looks is ready.
type Looks struct {
	mu    sync.Mutex
	under map[string]*looking
}

type looking struct {
	since time.Time
	done  chan struct{}
	found checks // when done is closed
}

// begin starts a look, or joins the one of that key that is under way; nil if too many hang.
func (l *Looks) begin(key string, fn func(*checks)) *looking {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.under[key]; k != nil {
		return k
	}
	if len(l.under) >= maxLooks {
		return nil
	}
	if l.under == nil {
		l.under = map[string]*looking{}
	}
	k := &looking{since: time.Now(), done: make(chan struct{})}
	l.under[key] = k
	go func() {
		fn(&k.found)
		l.mu.Lock()
		delete(l.under, key)
		l.mu.Unlock()
		close(k.done)
	}()
	return k
}

// look runs checks that ask the file system of a path, for lookLimit at most, less if it has not answered an earlier call
// yet.
func (c *checks) look(ctx context.Context, l *Looks, name, path string, fn func(*checks)) {
	k := l.begin(name+" "+path, fn)
	if k == nil {
		c.hangs(name, path, "it was not looked at: %d others have not answered yet", maxLooks)
		return
	}
	limit := time.NewTimer(time.Until(k.since.Add(lookLimit)))
	defer limit.Stop()
	select {
	case <-k.done:
		*c = append(*c, k.found...)
		return
	case <-limit.C:
	case <-ctx.Done():
	}
	select {
	case <-k.done:
		*c = append(*c, k.found...)
	default:
		c.hangs(name, path, "%s does not answer, for %s now", path, time.Since(k.since).Round(time.Second))
	}
}

func (c *checks) hangs(name, path, format string, args ...any) {
	c.add(proto.CheckBad, name, "it is on a server that is gone? grep nfs /proc/mounts shows from where; bring that back, or: umount -l "+path, format, args...)
}
