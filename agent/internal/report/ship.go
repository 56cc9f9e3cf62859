// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"provost/agent/internal/plan"
	"provost/proto"
)

// ship sends the next batch of records, of the oldest journal that has any.
func (s *Sender) ship(ctx context.Context) (bool, error) {
	for _, j := range append(s.Past[:len(s.Past):len(s.Past)], s.Journal) {
		next := max(s.next[j.ID()], 1)
		last, err := j.Last()
		if err != nil {
			return false, err
		}
		if next > last {
			continue
		}
		// 4 KiB for each event on average, 2 MB for a full batch: a quarter of what the collector takes
		records, err := j.Read(next, s.batch, s.batch<<12)
		if err != nil {
			return false, err
		}
		if len(records) == 0 {
			continue
		}
		q := proto.EventsRequest{Schema: proto.Schema, Install: s.install(), Journal: j.ID(), Clock: s.Clock()}
		for _, r := range records {
			q.Events = append(q.Events, r.Raw)
			if r.Event.Kind == proto.KindReboot && r.Event.Phase.Fleeting() {
				q.Run = s.Dir.private()
			}
		}
		var a proto.EventsAnswer
		err = s.client.json(ctx, "/v1/agent/events", q, &a)
		if err == nil && a.Next == 0 {
			err = senseless("it does not say which record is wanted next")
		}
		if err != nil {
			// A batch that is too large for the link or the collector must not stay so for ever.
			s.batch = max(s.batch/4, 1)
			return false, err
		}
		s.batch = min(s.batch*4, proto.MaxEvents)
		for _, r := range a.Refused {
			s.Say(fmt.Sprintf("the collector will never take record %d (%s): %s", r.Seq, proto.Clip(r.Code, 32), proto.Clip(r.Detail, 200)))
		}
		s.next[j.ID()] = a.Next
		if a.BootAction != "" {
			s.sent.BootAction = a.BootAction
		}
		if a.Next <= next {
			return false, senseless("the collector was sent record %d and wants %d", next, a.Next)
		}
		if last = max(last, records[len(records)-1].Seq); a.Next > last+1 { // records may have come since Last
			s.Say(fmt.Sprintf("the collector has records up to %d of journal %s, here are %d: numbers in between are lost", a.Next-1, j.ID(), last))
		}
		return true, nil
	}
	return false, nil
}

func (s *Sender) install() string {
	id, err := s.Dir.Identity()
	if err != nil {
		return s.Order
	}
	return id.Install
}

// shipLogs sends the next chunk of the log that lags the most, so that none starves.
func (s *Sender) shipLogs(ctx context.Context) (bool, error) {
	var name string
	var offset, most int64
	now := time.Now()
	for _, l := range s.Journal.Logs() {
		if lag := l.Size - s.logs[l.Name]; lag > most && !now.Before(s.resting[l.Name]) {
			name, offset, most = l.Name, s.logs[l.Name], lag
		}
	}
	if name == "" {
		return false, nil
	}
	chunk, err := s.Journal.ReadLog(name, offset, proto.MaxLogChunk)
	if err != nil || len(chunk) == 0 {
		return false, err
	}
	path := "/v1/agent/logs/" + s.install() + "/" + url.PathEscape(name) + "?offset=" + strconv.FormatInt(offset, 10)
	b, err := s.client.do(ctx, request{
		method: "PUT", path: path, contentType: "application/octet-stream", body: chunk, limit: 64 << 10, timeout: s.Timing.File,
	})
	var r *Refused
	var a proto.LogAnswer
	switch {
	case errors.As(err, &r) && r.Problem.Code == proto.CodeLogOffset && r.Problem.Offset >= 0 && r.Problem.Offset != offset:
		s.logs[name] = r.Problem.Offset // at or behind the end of ours when an earlier sender got further: nothing to send
		return true, nil
	case errors.As(err, &r):
		s.resting[name] = now.Add(2 * s.Timing.Slow) // the others first
		return false, fmt.Errorf("%s: %w", name, err)
	case err != nil:
		return false, err
	}
	if err := decode(b, &a); err != nil {
		return false, err
	}
	if a.Offset <= offset {
		return false, fmt.Errorf("%s: %w", name, senseless("the log stays %d bytes long", a.Offset))
	}
	s.logs[name] = a.Offset
	return true, nil
}

// heartbeat says that this machine lives, when it is time, and takes orders.
func (s *Sender) heartbeat(ctx context.Context) (bool, error) {
	if !s.greeted {
		return false, nil
	}
	var h proto.Heartbeat
	if s.Beat != nil {
		h = s.Beat()
	}
	now := time.Now()
	// the collector is to know at once whether orders are waited for, and how to get in
	changed := h.Waiting != s.waiting || !sameRescue(h.Rescue, s.rescue)
	if now.Before(s.beat) && !changed {
		return false, nil
	}
	h.Schema, h.Install, h.Clock = proto.Schema, s.install(), s.Clock()
	h.Message = proto.Clip(h.Message, proto.MaxMessage)
	if s.Facts != nil {
		h.Facts = s.Facts()
	}
	var a proto.HeartbeatAnswer
	if err := s.client.json(ctx, "/v1/agent/heartbeat", h, &a); err != nil {
		return false, err
	}
	s.waiting, s.rescue = h.Waiting, h.Rescue
	s.setPace(a.HeartbeatS)
	wait := s.every
	if h.Waiting {
		wait = min(wait, s.Timing.Waiting)
	}
	s.beat = now.Add(wait)
	if a.BootAction != "" {
		s.sent.BootAction = a.BootAction
	}
	return true, s.take(a.Orders)
}

func sameRescue(a, b *proto.Rescue) bool { return a == b || a != nil && b != nil && *a == *b }

// take hands orders on that the journal does not know yet. One with a new plan waits until that plan is verified and
// its scripts are here. A bad order is no reason to leave out the next one.
func (s *Sender) take(orders []proto.Order) error {
	var errs []error
	for _, o := range orders {
		if s.Take == nil || s.Taken != nil && s.Taken(o.ID) {
			continue
		}
		if _, err := proto.ParseVerb(string(o.Verb)); err != nil || !proto.ValidID(o.ID) || o.Step != "" && proto.CheckName("step", o.Step) != nil {
			errs = append(errs, fmt.Errorf("the collector's order %q %q makes no sense", proto.Clip(o.ID, 32), proto.Clip(string(o.Verb), 32)))
			continue
		}
		o.Actor, o.Reason = proto.Clip(o.Actor, 128), proto.Clip(o.Reason, 512)
		if o.Plan == nil {
			errs = append(errs, s.Take(o))
			continue
		}
		if err := s.adopt(o); err != nil {
			errs = append(errs, fmt.Errorf("order %s %s: %w", o.Verb, o.ID, err))
		}
	}
	return errors.Join(errs...)
}

// adopt begins to fetch the plan that an order brings. Its expiry is judged by the collector's time, which went on since it
// told it; an order whose plan has expired comes again with one that is signed anew.
func (s *Sender) adopt(o proto.Order) error {
	for _, waiting := range s.orders {
		if waiting.ID == o.ID {
			return nil
		}
	}
	id, err := s.Dir.Identity()
	if err != nil {
		return err
	}
	if s.theirs.IsZero() {
		return errors.New("the collector has not told its time, by which the plan's expiry is judged")
	}
	terms := plan.Terms{CAs: s.pin.CAs(), Node: id.Node, Install: id.Install, Now: s.theirs.Add(time.Since(s.ours))}
	if here, _, err := s.Dir.Plan(); err == nil {
		terms.MinRevision = here.Revision
	}
	p, err := plan.Verify(o.Plan, terms)
	if err != nil {
		return err
	}
	s.plan, s.steps = o.Plan, p.Steps
	s.orders = append(s.orders, o)
	return nil
}

// Delivered reports whether the collector has acknowledged every record up to number last, everything of the past
// journals, and each log up to the length given.
func Delivered(d Dir, j Journal, past []Records, last uint64, logs []proto.LogInfo) bool {
	sent := d.Sent()
	if sent.Journal != j.ID() || sent.Next <= last {
		return false
	}
	for _, p := range past {
		if n, err := p.Last(); err != nil || sent.Past[p.ID()] <= n {
			return false
		}
	}
	for _, l := range logs {
		if sent.Logs[l.Name] < l.Size {
			return false
		}
	}
	return true
}

// Flush waits until everything that the journal, and if wanted its logs, hold at this moment is acknowledged, at most until the
// context ends. Whoever sends it, this process or another.
func Flush(ctx context.Context, d Dir, j Journal, past []Records, withLogs bool) error {
	last, err := j.Last()
	if err != nil {
		return fmt.Errorf("waiting for the collector: %w", err)
	}
	var logs []proto.LogInfo
	if withLogs {
		logs = j.Logs()
	}
	for !Delivered(d, j, past, last, logs) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the collector: record %d is not acknowledged, it wants %d: %w", last, d.Sent().Next, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}
