// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"provost/collector/internal/auth"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/store"
	"provost/proto"
)

// The pace of heartbeats in seconds: while working, and while waiting for orders.
const (
	heartbeatS        = 30
	heartbeatWaitingS = 10
)

const secretKey = "secret"

// openSecret reads the secret from which claims and tickets are derived, and makes it at the first start.
func (r *Registry) openSecret(ctx context.Context) error {
	return r.st.Update(ctx, func(tx *store.Tx) error {
		b := tx.Get(store.Settings, secretKey)
		if b == nil {
			b = []byte(proto.NewSecret())
			tx.Put(store.Settings, secretKey, b)
		}
		r.secret = b
		return nil
	})
}

// derive gives a secret that is the same each time, so that a boot script can be fetched any number of times and no
// secret of it has to be kept.
func (r *Registry) derive(what, install string, attempt int) string {
	h := hmac.New(sha256.New, r.secret)
	fmt.Fprintf(h, "%s\x00%s\x00%d", what, install, attempt)
	return hex.EncodeToString(h.Sum(nil))
}

func (r *Registry) claim(install string, attempt int) string {
	return r.derive("claim", install, attempt)
}

// ticket is known again without a table: install, attempt, and half of a derived secret.
func (r *Registry) ticket(install string, attempt int) string {
	return fmt.Sprintf("%s-%d-%s", install, attempt, r.derive("ticket", install, attempt)[:32])
}

func (r *Registry) openTicket(ticket string) (install string, attempt int, ok bool) {
	parts := strings.Split(ticket, "-")
	if len(parts) != 3 || !proto.ValidID(parts[0]) {
		return "", 0, false
	}
	attempt, err := strconv.Atoi(parts[1])
	if err != nil || !hmac.Equal([]byte(ticket), []byte(r.ticket(parts[0], attempt))) {
		return "", 0, false
	}
	return parts[0], attempt, true
}

// Agent gives the install of an agent's token. A token that is unknown, expired or malformed is refused.
func (r *Registry) Agent(token string) (install string, err error) {
	hash := auth.Hash(token)
	r.pub.RLock()
	id := r.pub.agents[hash]
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in != nil {
		for _, t := range in.rec.Load().Tokens {
			if t.Hash == hash && r.now().Sub(t.Issued) < TokenLife { // of hashes: how long it takes tells nothing of a token
				return id, nil
			}
		}
	}
	return "", badCredentials("the token is unknown or has expired")
}

func badCredentials(detail string) *proto.Problem {
	return problem(401, proto.CodeBadCredentials, "the agent gets a token by hello, with the claim of its boot script or a join key", "%s", detail)
}

// Hello lets an agent in. tokenInstall is the install of the token that it showed, empty if it showed none; JoinKey was
// checked by the caller if joined is set.
func (r *Registry) Hello(ctx context.Context, tokenInstall string, h *proto.Hello) (*proto.HelloAnswer, error) {
	a := &proto.HelloAnswer{Schema: proto.Schema}
	var superseded, rebooted bool
	var refusal error // one that comes with an alarm, which has to be committed
	if tokenInstall != "" {
		r.fetch(tokenInstall)
	} else {
		r.fetch(h.Install)
	}
	err := r.update(ctx, func(c *change) error {
		refusal = nil
		id, attempt, err := c.identify(tokenInstall, h)
		var alarm *contested
		if errors.As(err, &alarm) {
			refusal = alarm.problem
			return c.alarm(alarm, h)
		}
		if err != nil {
			if p := (*proto.Problem)(nil); errors.As(err, &p) && p.Code == proto.CodeUnknownNode {
				refusal = err
				return c.discover(h)
			}
			return err
		}
		rec := c.edit(id)
		superseded, rebooted = rec.Superseded, rec.Reboots > 0
		if tokenInstall == "" {
			a.Token = auth.NewToken(auth.UseAgent)
			rec.Tokens = append(rec.Tokens, agentToken{auth.Hash(a.Token), h.Clock.Boot, c.now})
			rec.Tokens = rec.Tokens[max(0, len(rec.Tokens)-maxTokens):]
			if err := c.bind(rec, attempt, h); err != nil {
				return err
			}
		}
		if !superseded && h.Env == proto.EnvInstaller {
			rec.Progressed = true
		}
		rec.learnBoot(h.Clock.Boot, started(c.now, h.Clock))
		if hw := h.Hardware.Clipped(); hw.CPUs > 0 {
			rec.Hardware = &hw
		}
		if err := c.wake(id); err != nil {
			return err
		}
		if err := c.learnIdentity(id, h); err != nil {
			return err
		}
		n := c.node(rec.Node)
		a.Node, a.Install, a.Ordinal, a.Attempt = rec.Node, rec.ID, rec.Ordinal, rec.Attempt
		a.BootAction = n.BootAction
		if n.Install == id {
			a.Changes = &proto.Changes{Key: c.r.changeKey(), Done: n.Changes}
		}
		a.Next = c.mark(id, h.Journal).Next
		a.Time, a.HeartbeatS = c.now, heartbeatS
		return c.putInstall(rec)
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return nil, err
	}
	if !superseded {
		a.Plan, err = r.planFor(ctx, a.Install)
	}
	if err == nil && rebooted && !superseded && h.Env == proto.EnvInstaller {
		a.Progress, err = r.progress(a.Install, a.Attempt, h.Clock.Boot)
	}
	return a, err
}

// contested is a second machine with a claim that is bound, or one that is not where its node is.
type contested struct {
	id      string
	problem *proto.Problem
	message string // for the install's history
}

func (c *contested) Error() string { return c.problem.Error() }

// alarm writes that a claim was shown by another boot, a bounded number of times.
func (c *change) alarm(a *contested, h *proto.Hello) error {
	rec := c.edit(a.id)
	if rec.Contested >= maxContested {
		return nil
	}
	rec.Contested++
	err := c.append(proto.Event{Kind: proto.KindContested, Source: proto.SourceAuth, Install: a.id, Node: rec.Node, Boot: h.Clock.Boot,
		Message: proto.Clip(a.message+"; MACs "+strings.Join(h.MACs, " "), proto.MaxMessage)})
	return errors.Join(err, c.putInstall(rec))
}

// identify finds the install that a hello proves to speak for, and the attempt whose claim it has.
func (c *change) identify(tokenInstall string, h *proto.Hello) (id string, attempt int, err error) {
	switch {
	case tokenInstall != "":
		if c.record(tokenInstall) == nil {
			return "", 0, badCredentials("the token's install is gone")
		}
		return tokenInstall, 0, nil
	case h.Claim != "":
		return c.identifyClaim(h)
	case h.JoinKey != "":
		return c.identifyJoin(h)
	}
	return "", 0, problem(401, proto.CodeNoCredentials, "", "a hello needs a token, a claim or a join key")
}

func (c *change) identifyClaim(h *proto.Hello) (string, int, error) {
	rec := c.record(h.Install)
	if rec == nil {
		return "", 0, badCredentials("the claim is unknown")
	}
	attempt := 0
	for a := 1; a <= rec.Attempt; a++ {
		if hmac.Equal([]byte(c.r.claim(rec.ID, a)), []byte(h.Claim)) {
			attempt = a
		}
	}
	if attempt == 0 {
		return "", 0, badCredentials("the claim is unknown")
	}
	if rec.Superseded {
		return "", 0, notOrdered(rec.Node, fmt.Sprintf("install %s of %s was superseded by a newer one", rec.ID, rec.Node))
	}
	bound := rec.Bound[attempt]
	if _, known := rec.epoch(h.Clock.Boot); known && bound == "" && rec.Reboots > 0 {
		return rec.ID, 0, nil // the boot that has announced its end: the claim is the next one's
	}
	if bound != "" && bound != h.Clock.Boot {
		return "", 0, &contested{rec.ID, problem(409, proto.CodeContested, "if this is the right machine, order the install again: provost install "+rec.Node,
			"the claim of install %s of %s belongs to another boot", rec.ID, rec.Node), "a second machine" + c.from() + " showed the claim of this install"}
	}
	if bound == "" && over(c.install(rec.ID).look()) {
		return "", 0, notOrdered(rec.Node, fmt.Sprintf("install %s of %s is over", rec.ID, rec.Node))
	}
	if bound == "" {
		if err := c.elsewhere(rec); err != nil {
			return "", 0, err
		}
	}
	return rec.ID, attempt, nil
}

// identifyJoin finds a node by its MACs. On a site that boots its nodes by itself, the hello of a new boot of the
// installer is an attempt.
func (c *change) identifyJoin(h *proto.Hello) (string, int, error) {
	var n *node
	for _, mac := range h.MACs {
		if owner := c.mac(mac); owner != "" {
			n = c.node(owner)
			break
		}
	}
	if n == nil || n.Discovered {
		return "", 0, problem(409, proto.CodeUnknownNode, "provost node add NAME --mac MAC, then provost install NAME", "no node has one of the MAC addresses %s", strings.Join(h.MACs, " "))
	}
	rec := c.record(n.Install)
	if rec == nil {
		return "", 0, notOrdered(n.Spec.Name, fmt.Sprintf("no install of %s is ordered", n.Spec.Name))
	}
	for a := rec.Attempt; a > 0; a-- {
		if rec.Bound[a] == h.Clock.Boot {
			return rec.ID, a, nil
		}
	}
	if _, known := rec.epoch(h.Clock.Boot); known {
		return rec.ID, 0, nil
	}
	v := c.install(rec.ID).look()
	if over(v) {
		return "", 0, notOrdered(n.Spec.Name, fmt.Sprintf("install %s of %s is over", rec.ID, n.Spec.Name))
	}
	if err := c.elsewhere(rec); err != nil {
		return "", 0, err
	}
	if h.Env == proto.EnvInstalled || v.Sealed {
		return rec.ID, 0, nil
	}
	if rec.Attempt > 0 && rec.Bound[rec.Attempt] == "" {
		return rec.ID, rec.Attempt, nil
	}
	// It began with the kernel, before the hello: what the agent journalled until then belongs to it.
	e := proto.Event{Source: proto.SourceAuth, At: started(c.now, h.Clock)}
	if rec.Attempt >= max(maxObserved, rec.Allowed) {
		return "", 0, notOrdered(n.Spec.Name, fmt.Sprintf("install %s of %s has begun %d times without an end: order it again", rec.ID, n.Spec.Name, rec.Attempt))
	}
	if err := c.observeAttempt(rec.clone(), e, "the installer was booted again"); err != nil {
		return "", 0, err
	}
	return rec.ID, rec.Attempt + 1, nil
}

// over reports whether an install lets no further boot in: it is done, or an operator ended it.
func over(v *lifecycle.View) bool {
	return v.Status == proto.StatusBooted || v.Cause != nil && v.Cause.Kind == proto.CauseAbort
}

// attempt begins the next attempt of an install; e says how and when it was seen.
func (c *change) attempt(rec *installRecord, e proto.Event, announce bool) error {
	rec.Attempt++
	rec.Progressed, rec.Sent, rec.Reboots, rec.Rebooting, rec.Again, rec.MAC = false, nil, 0, false, 0, ""
	rec.Began = c.now
	if announce {
		e.Kind, e.Install, e.Node, e.Attempt = proto.KindAttempt, rec.ID, rec.Node, rec.Attempt
		if err := c.append(e); err != nil {
			return err
		}
	}
	return c.putInstall(rec)
}

// bind gives a claim, or what a join key proves, to a boot.
func (c *change) bind(rec *installRecord, attempt int, h *proto.Hello) error {
	how := "claim"
	if h.Claim == "" {
		how = "join key"
	}
	if attempt > 0 {
		if rec.Bound[attempt] == h.Clock.Boot {
			return nil // a repeat: the answer was lost
		}
		if rec.Bound == nil {
			rec.Bound = map[int]string{}
		}
		rec.Bound[attempt] = h.Clock.Boot
	} else if _, known := rec.epoch(h.Clock.Boot); known {
		return nil
	}
	return c.append(proto.Event{Kind: proto.KindBound, Source: proto.SourceAuth, Install: rec.ID, Node: rec.Node, Boot: h.Clock.Boot, Attempt: attempt,
		Message: how + c.from()})
}

// from says where the caller is, if that is known.
func (c *change) from() string {
	if !c.who.Addr.IsValid() {
		return ""
	}
	return " from " + c.who.Addr.String()
}

func notOrdered(node, detail string) *proto.Problem {
	return problem(409, proto.CodeNotOrdered, "provost install "+node+" orders one", "%s", detail)
}

// started is when the kernel of a clock's boot started, by the collector's time.
func started(arrived time.Time, c proto.Clock) time.Time {
	return stamp(arrived.Add(-sinceBoot(c.OffsetMS)))
}

// sinceBoot reads a sender's milliseconds since boot. No kernel runs for longer than 20 years, and a number that is made
// up must not overflow.
func sinceBoot(ms int64) time.Duration {
	const most = 20 * 365 * 24 * time.Hour
	return time.Duration(min(max(ms, 0), int64(most/time.Millisecond))) * time.Millisecond
}
