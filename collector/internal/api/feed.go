// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// Bounds of the feed: silence is broken by a comment, and a reader that does not take what is sent is dropped.
const (
	feedComment = 15 * time.Second
	feedWrite   = 30 * time.Second
)

// feedFrom gives the place from which a feed is asked for: Last-Event-ID, else ?from=, else the end. That of another database
// is refused: its revisions are other events here. A revision alone cannot be compared, and is refused if there is no such.
func (a *API) feedFrom(r *http.Request) (proto.Cursor, error) {
	end := a.cfg.Registry.Cursor()
	at := end
	for _, s := range []string{r.URL.Query().Get("from"), r.Header.Get("Last-Event-ID")} {
		if s == "" {
			continue
		}
		var err error
		if at, err = proto.ParseCursor(s); err != nil {
			return at, problem(400, proto.CodeBadRequest, "", "from or Last-Event-ID: %v", err)
		}
	}
	if at.Database != "" && at.Database != end.Database {
		return at, fmt.Errorf("%w: %d is of another database, as before a backup was restored", store.ErrGone, at.Revision)
	}
	if at.Revision > end.Revision {
		return at, fmt.Errorf("%w: %d, the newest is %d", store.ErrGone, at.Revision, end.Revision)
	}
	if first := a.cfg.Registry.FirstRevision(); at.Revision+1 < first {
		return at, fmt.Errorf("%w: %d is before the oldest that is kept, %d", store.ErrGone, at.Revision, first)
	}
	at.Database = end.Database
	return at, nil
}

// feed sends every event after a cursor as Server-Sent Events, id = the cursor behind it, until the reader goes.
func (a *API) feed(c *call) error {
	at, err := a.feedFrom(c.r)
	if err != nil {
		return err
	}
	a.counters.watchers.Add(1)
	defer a.counters.watchers.Add(-1)
	c.ctl.SetReadDeadline(time.Time{})
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	c.w.WriteHeader(http.StatusOK)
	// An id without data is no event: it tells a reader without a cursor where it is, so that it can come back there.
	if err := a.send(c, fmt.Appendf(nil, ": provost\nid: %s\n\n", at)); err != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(c.ctx())
	defer cancel()
	go func() {
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	w := a.cfg.Registry.Watch(at.Revision)
	for {
		next, done := context.WithTimeout(ctx, feedComment)
		entries, err := w.Next(next)
		done()
		switch {
		case c.ctx().Err() != nil:
			return nil
		case ctx.Err() != nil:
			lastWord(c, "the collector stops; come again with the last id")
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			err = a.send(c, []byte(":\n\n"))
		case err != nil:
			a.counters.dropped.Add(1)
			a.cfg.Log.Warn("feed dropped: its reader is too far behind", "remote", c.r.RemoteAddr, "error", err)
			lastWord(c, "dropped: "+proto.Clip(strings.ReplaceAll(err.Error(), "\n", " "), 200))
			return nil
		default:
			var b []byte
			for _, e := range entries {
				at.Revision = e.Revision
				b = fmt.Appendf(b, "id: %s\ndata: %s\n\n", at, e.Value)
			}
			err = a.send(c, b)
		}
		if err != nil {
			return nil // send said it
		}
	}
}

// lastWord is a comment that says why a feed ends. A reader that does not take it within a second is not waited for: the
// collector may be stopping.
func lastWord(c *call, why string) {
	c.ctl.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c.w, ": %s\n\n", why)
	c.ctl.Flush()
}

// send writes and flushes within the feed's bound. A reader that did not take it in that time is dropped, and that is logged
// and counted; the reader itself sees the connection end in the middle, since nothing more goes into it.
func (a *API) send(c *call, b []byte) (err error) {
	begin := time.Now()
	defer func() {
		switch {
		case err == nil:
		case time.Since(begin) >= a.feedWrite:
			a.counters.dropped.Add(1)
			a.cfg.Log.Warn("feed dropped: its reader takes nothing", "remote", c.r.RemoteAddr, "bound", a.feedWrite, "error", err)
		default:
			a.cfg.Log.Debug("feed ended", "remote", c.r.RemoteAddr, "error", err)
		}
	}()
	if err := c.ctl.SetWriteDeadline(time.Now().Add(a.feedWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := c.w.Write(b); err != nil {
		return err
	}
	return c.ctl.Flush()
}
