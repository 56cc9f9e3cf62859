// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"time"

	"provost/collector/internal/deadline"
	"provost/proto"
)

// waitsNoMore reports whether an install is seen as waiting for orders although its node cannot be: it was switched off, or
// its installer was reset, and nobody else could say so. As long as it is seen as waiting it is never over.
func (r *Registry) waitsNoMore(in *install, now time.Time) bool {
	end := r.waitEnds(in)
	return !end.IsZero() && !now.Before(end)
}

// waitEnds is when it will be so if nothing more is heard; zero of an install that does not wait.
func (r *Registry) waitEnds(in *install) time.Time {
	if !in.look().Waiting {
		return time.Time{}
	}
	return deadline.Gone(in.heardAtAll(), in.holdLimit(), *r.downtime.list())
}

// heardAtAll is the node's own last word: a record of its journal, or a heartbeat.
func (in *install) heardAtAll() time.Time { return later(in.look().LastSeen, in.heard()) }

func (in *install) holdLimit() time.Duration {
	if d := in.recipe.HoldLimit.D(); d > 0 {
		return d
	}
	return proto.DefaultHoldLimit
}

// endWait says that an install waits no more, if that is still so.
func (c *change) endWait(id string) (bool, error) {
	rec, in := c.record(id), c.install(id)
	if rec == nil || rec.Superseded || !c.r.waitsNoMore(in, c.now) {
		return false, nil
	}
	return true, c.append(proto.Event{Kind: proto.KindHold, Source: proto.SourceDeadline, Install: id, Node: rec.Node, Attempt: rec.Attempt,
		Outcome: proto.OutcomeInterrupted, Message: fmt.Sprintf("the node waited for an order and was last heard at %s; its hold limit of %s is over: it is taken for switched off",
			in.heardAtAll().Format(time.RFC3339), proto.Duration(in.holdLimit()))})
}
