// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"provost/agent/internal/journal"
	"provost/proto"
)

// Records is a journal as far as a sender reads it.
type Records interface {
	ID() string
	Last() (uint64, error)
	Read(from uint64, maxEvents, maxBytes int) ([]journal.Record, error)
}

// Journal is what a sender ships: the records, and the logs beside them.
type Journal interface {
	Records
	ReadLog(name string, offset int64, max int) ([]byte, error)
	Logs() []proto.LogInfo
}

// Config is what a Sender needs. All functions are called from the sender's goroutine.
type Config struct {
	Dir     Dir
	Journal Journal
	Past    []Records // earlier journals, to be delivered first

	URLs  []string // of the collector, tried in turn
	CA    string   // the pin, as ParsePin reads it
	Node  string   // what the settings say that this is; the collector must agree. "" if they do not
	Order string   // the same of the install

	Hello func() proto.Hello             // all but the clock and the journal
	Clock func() proto.Clock             // now
	Beat  func() proto.Heartbeat         // how the steps are doing and the rescue shell is reached; often called; may be nil
	Facts func() *proto.Facts            // how the machine is doing, for a heartbeat that is sent now; may be nil
	Take  func(order proto.Order) error  // hands an order to the run; may be nil
	Taken func(orderID string) bool      // whether the journal knows the order already
	Say   func(line string)              // for people: what is wrong, and when it is over
	Met   func(answer proto.HelloAnswer) // after each good hello; may be nil

	Timing Timing
}

// Sender ships one journal to the collector.
type Sender struct {
	Config
	pin    *Pin
	client *client

	theirs  time.Time            // what the collector's clock said in its last hello; zero before one
	ours    time.Time            // when that was, by this machine's monotonic clock
	greeted bool                 // this process's hello was answered, and no answer since said that its token is void
	stale   bool                 // the token in Dir was refused
	planned bool                 // the plan in Dir is the one of the last hello
	plan    *proto.SignedPlan    // verified, but its scripts are not all there
	steps   []proto.Step         // of plan
	orders  []proto.Order        // taken from the collector, their plan's scripts not yet there
	next    map[string]uint64    // first record of each journal that the collector lacks
	logs    map[string]int64     // bytes of each log that the collector has
	resting map[string]time.Time // logs that it refused, and until when they rest
	batch   int                  // events per request
	beat    time.Time            // of the next heartbeat
	waiting bool                 // as the last heartbeat said
	rescue  *proto.Rescue        // the same
	every   time.Duration        // between heartbeats, as the collector wishes
	sent    Sent                 // as last written
	lanes   []*lane              // in the order in which they are served
	until   time.Time            // nothing is sent before
}

// lane is one kind of request with its own troubles.
type lane struct {
	run   func(context.Context) (did bool, err error)
	until time.Time
	bo    *backoff.ExponentialBackOff
	trouble
}

// New checks the settings. Its errors are the operator's to mend; nothing was sent.
func New(c Config) (*Sender, error) {
	urls, err := parseURLs(c.URLs)
	if err != nil {
		return nil, err
	}
	pin, err := c.Dir.pin(c.CA)
	if err != nil {
		return nil, err
	}
	c.Timing = c.Timing.WithDefaults()
	s := &Sender{
		Config: c, pin: pin, client: newClient(urls, pin, c.Timing, c.Hello().Version), sent: c.Dir.Sent(),
		next: map[string]uint64{}, logs: map[string]int64{}, resting: map[string]time.Time{}, batch: proto.MaxEvents, every: c.Timing.Beat,
	}
	s.client.token = c.Dir.Token()
	maps.Copy(s.next, s.sent.Past)
	if s.sent.Journal == c.Journal.ID() {
		s.next[s.sent.Journal] = s.sent.Next
	}
	maps.Copy(s.logs, s.sent.Logs)
	for _, l := range []lane{
		{run: s.hello, trouble: trouble{about: "reaching the collector"}},
		{run: s.heartbeat, trouble: trouble{about: "sending heartbeats"}},
		{run: s.ship, trouble: trouble{about: "reporting events"}},
		{run: s.fetch, trouble: trouble{about: "fetching scripts"}},
		{run: s.shipLogs, trouble: trouble{about: "shipping logs"}},
	} {
		l.say, l.bo = c.Say, newBackoff(c.Timing)
		s.lanes = append(s.lanes, &l)
	}
	return s, nil
}

// Run sends until the context ends, and returns its error. Nothing else ends it. The caller holds Dir's lock.
func (s *Sender) Run(ctx context.Context) error {
	s.note()
	for {
		wait := s.pass(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// pass sends at most one request and says how long nothing else is to be sent. No wait is longer than a poll, so that a
// heartbeat is not late and a machine that was suspended does not sleep on.
func (s *Sender) pass(ctx context.Context) time.Duration {
	now := time.Now()
	if now.Before(s.until) {
		return min(s.until.Sub(now), s.Timing.Poll)
	}
	for _, l := range s.lanes {
		if now.Before(l.until) {
			if l == s.lanes[0] && !s.greeted {
				break // without a hello there is no token for the others
			}
			continue
		}
		did, err := l.run(ctx)
		switch {
		case ctx.Err() != nil:
			return s.Timing.Poll
		case err != nil:
			s.failed(l, err)
			return 0
		case did:
			l.over()
			l.bo.Reset()
			s.note()
			return s.Timing.Gap
		}
		if !s.greeted {
			break
		}
	}
	return s.Timing.Poll
}

// failed decides what a failure means for the next requests.
func (s *Sender) failed(l *lane, err error) {
	var r *Refused
	wait, all := pace(err, s.Timing, l.bo)
	if errors.As(err, &r) {
		switch r.Problem.Code {
		case proto.CodeBadCredentials, proto.CodeNoCredentials:
			s.greeted = false
			s.stale = true
			if l != s.lanes[0] {
				wait = 0 // the hello that comes first has a pace of its own
			}
		case proto.CodeNotOrdered, proto.CodeUnknownNode:
			wait = max(around(s.Timing.Ask), r.RetryAfter)
		}
	}
	until := time.Now().Add(wait)
	if all {
		s.until = until
	} else {
		l.until = until
	}
	s.fail(l, err)
	s.note()
}

// fail says a lane's failure, unless another lane suffers from the same already.
func (s *Sender) fail(l *lane, err error) {
	quiet := false
	for _, other := range s.lanes {
		quiet = quiet || other != l && other.count > 0 && other.seen[key(err)]
	}
	l.failed(err, s.advice(err), quiet)
}

// missing says what a run must still wait for.
func (s *Sender) missing() Stuck {
	switch {
	case s.planned:
		return ""
	case s.plan != nil:
		return StuckScripts
	case s.greeted:
		return StuckPlan
	}
	return StuckHello
}

// advice is an error with what the operator can do, where that is known.
func (s *Sender) advice(err error) string {
	var r *Refused
	if !errors.As(err, &r) {
		return err.Error()
	}
	h := s.Hello()
	mac := "MAC"
	if len(h.MACs) > 0 {
		mac = h.MACs[0]
	}
	node := h.Node
	if node == "" {
		node = "NAME"
	}
	switch r.Problem.Code {
	case proto.CodeUnknownNode:
		return fmt.Sprintf("the collector does not know this machine; type: provost node add %s --mac %s && provost install %s", node, mac, node)
	case proto.CodeNotOrdered:
		return fmt.Sprintf("no install of this machine is ordered; type: provost install %s", node)
	case proto.CodeContested:
		return "another machine, or an earlier boot of this one, has used this boot's claim; see: provost explain " + node
	}
	return err.Error()
}

// note writes what other processes may want to know.
func (s *Sender) note() {
	var troubles []string
	for _, l := range s.lanes {
		if l.count > 0 {
			troubles = append(troubles, l.about+": "+l.last)
		}
	}
	n := Sent{
		Journal: s.Journal.ID(), Next: max(s.next[s.Journal.ID()], 1), Past: map[string]uint64{}, Logs: maps.Clone(s.logs),
		BootAction: s.sent.BootAction, Trouble: proto.Clip(strings.Join(troubles, "; "), 1024), Stuck: s.missing(), At: time.Now(),
	}
	for _, p := range s.Past {
		n.Past[p.ID()] = max(s.next[p.ID()], 1)
	}
	s.sent = n
	if err := s.Dir.setSent(n); err != nil {
		s.fail(s.lanes[0], err)
	}
}
