// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"slices"
	"time"

	"provost/collector/internal/evidence"
	"provost/proto"
)

// noted is an observation with its words.
type noted struct {
	evidence.Observation
	message string
	asked   string // of a file that was only asked for: what that means if nothing comes after it
}

// relevant leaves out what no install learns from, as far as it can be told without the writer, and finds the words for the
// rest. That a machine was heard of is noted here.
func (r *Registry) relevant(found []evidence.Observation, now time.Time) []noted {
	w := &r.evidence
	var out []noted
	begun := map[string]bool{} // nodes that began to boot in this batch
	for i := range found {
		o := &found[i]
		if o.Time.IsZero() || o.Time.After(now) {
			o.Time = now
		}
		w.seenMu.Lock()
		if !o.Time.Before(w.seen[o.Who.Name]) {
			w.seen[o.Who.Name] = o.Time
		}
		if _, known := w.rogues[o.Rogue]; o.Problem == evidence.Rogue && (known || len(w.rogues) < maxRogues) {
			w.rogues[o.Rogue] = RogueServer{o.Rogue, w.rogues[o.Rogue].Count + 1, o.Who.Name, o.Time}
		}
		w.seenMu.Unlock()
		r.pub.RLock()
		var in *install
		if n := r.pub.nodes[o.Who.Name]; n != nil {
			in = r.pub.installs[n.Install]
		}
		r.pub.RUnlock()
		if in == nil {
			continue
		}
		if _, _, wanted := wants(in, in.rec.Load(), o, begun[o.Who.Name]); !wanted {
			continue
		}
		begun[o.Who.Name] = begun[o.Who.Name] || o.Problem == ""
		n := noted{Observation: *o, message: o.Detail}
		if o.Asked {
			n.asked = o.OnlyAsked(r.lookAt(o))
		}
		if o.Problem != "" {
			n.message = o.Sentence(r.lookAt(o))
		}
		if s := o.Fact.Sender; s != "" && o.Problem != "" {
			n.message += " (log of " + s + ")"
		}
		out = append(out, n)
	}
	return out
}

// lookAt asks why a file could not be sent, for a second at most: the directory may be on a server that is gone.
func (r *Registry) lookAt(o *evidence.Observation) string {
	look := r.opt.Evidence.Look
	if look == nil || !o.Asked && o.Problem != evidence.NotFound && o.Problem != evidence.Forbidden {
		return ""
	}
	select {
	case r.evidence.looks <- struct{}{}:
	default:
		return "" // others hang already
	}
	answer := make(chan string, 1)
	go func(o evidence.Observation) {
		defer func() { <-r.evidence.looks }()
		answer <- look(&o)
	}(*o)
	select {
	case text := <-answer:
		return text
	case <-time.After(lookLimit):
		return "its directory did not answer within a second"
	}
}

// heard is what one attempt's log lines have already said. Behind the seal it begins anew: the machine boots its disk.
type heard struct {
	Attempt  int      `json:"attempt"`
	Sealed   bool     `json:"sealed,omitempty"`
	Stages   []string `json:"stages,omitempty"`
	Problems []string `json:"problems,omitempty"`

	Open   []string `json:"open,omitempty"` // topics of problems that were not mended, of earlier attempts, too
	Mended int      `json:"mended,omitempty"`

	Asked *asked `json:"asked,omitempty"` // of the last stage, if its file was only asked for

	Kernel time.Time `json:"kernel,omitzero"` // when the attempt's kernel was sent first, with boot: external
	Again  time.Time `json:"again,omitzero"`  // when the firmware began again after that
}

// asked is what to say of a stage that stands for a request of a file alone, if the install comes no further.
type asked struct {
	Stage string `json:"stage"`
	Text  string `json:"text"`
}

// renews reports whether an observation may be of a lease that a running system renews: no boot begins with it.
func renews(o *evidence.Observation) bool {
	return (o.Stage == evidence.Request || o.Stage == evidence.Ack) && o.Problem != evidence.Decline
}

// began reports whether a machine is known to boot from the network, or to have been switched on, since its order.
func (rec *installRecord) began(stage string, said heard) bool {
	return rec.Attempt > 0 || len(said.Stages) > 0 || stage != "" && stage != "ordered"
}

// wants decides whether an install learns from an observation, and when that was.
//
// A line belongs to the install that was current when it was written: never to one that was ordered later. An install that
// has ended learns nothing more, but one that only missed a deadline, from lines that are newer than that. Each stage counts
// once in an attempt, and once behind its seal: a machine that asks for an address for ever must not put off its deadline.
// That an address was asked for or granted is the renewal of a lease by the system that was there before, until something else
// tells of a boot, or the caller knows that it has begun. A server that writes down grants alone (Kea with its leases' logger
// only) therefore says nothing of a boot by itself.
func wants(in *install, rec *installRecord, o *evidence.Observation, begun bool) (at time.Time, said heard, ok bool) {
	at = stamp(o.Time)
	coarse := at.Equal(at.Truncate(time.Second)) // such a stamp may be up to a second early
	if at.Before(rec.Ordered) {
		if !coarse || rec.Ordered.Sub(at) >= time.Second {
			return at, said, false
		}
		at = rec.Ordered
	}
	if coarse && at.Before(rec.Began) && rec.Began.Sub(at) < time.Second && o.Stage != evidence.Discover && o.Stage != evidence.Offer &&
		o.Stage != evidence.Request && o.Stage != evidence.Ack {
		at = rec.Began
	}
	v := in.look()
	switch {
	case rec.Superseded || v.Status == proto.StatusBooted:
		return at, said, false
	case v.Status == proto.StatusFailed && (v.Cause.Kind != proto.CauseStageDeadline || !at.After(v.Cause.At)):
		return at, said, false
	}
	if rec.Heard != nil && rec.Heard.Attempt == rec.Attempt && rec.Heard.Sealed == v.Sealed {
		said = *rec.Heard
	} else if rec.Heard != nil {
		said.Open, said.Mended = rec.Heard.Open, rec.Heard.Mended
	}
	said.Attempt, said.Sealed = rec.Attempt, v.Sealed
	if renews(o) && !begun && !rec.began(v.Stage, said) {
		return at, said, false
	}
	if o.Problem == "" {
		return at, said, !slices.Contains(said.Stages, string(o.Stage)) || said.mends(o) || said.answers(o) || in.bootsAnew(rec, o, at, said) != sameBoot
	}
	return at, said, len(said.Problems) < maxHeard && !slices.Contains(said.Problems, o.Key())
}

// mends reports whether an observation is the end of a problem.
func (h *heard) mends(o *evidence.Observation) bool {
	return h.Mended < maxHeard && o.Problem == "" && slices.Contains(h.Open, o.Topic())
}

// answers reports whether an observation is that a file was sent which was known to be asked for only.
func (h *heard) answers(o *evidence.Observation) bool {
	return h.Asked != nil && h.Asked.Stage == string(o.Stage) && !o.Asked && o.Problem == ""
}

// observe adds an observation to the node's install, if that learns from it.
//
// A source that the profile does not trust advances stages; what it says of errors is a warning. One that it trusts decides:
// then the error that kept the node from a stage is the installer's failure.
func (c *change) observe(o *noted) (bool, error) {
	n := c.node(o.Who.Name)
	if n == nil {
		return false, nil
	}
	rec := c.record(n.Install)
	if rec == nil {
		return false, nil
	}
	in := c.install(rec.ID)
	at, said, ok := wants(in, rec, &o.Observation, false)
	if !ok {
		return false, nil
	}
	rec = rec.clone()
	if err := c.hearLoader(in, rec, o, at, &said); err != nil {
		return false, err
	}
	e := proto.Event{Source: proto.Source("log:" + o.Source), Install: rec.ID, Node: rec.Node, Attempt: rec.Attempt, Time: o.Time, At: at}
	if said.mends(&o.Observation) {
		e := e
		e.Kind, e.Topic, e.Message = proto.KindNote, o.Topic(), proto.Clip(o.Detail+": mended", proto.MaxMessage)
		if err := c.append(e); err != nil {
			return false, err
		}
		said.Mended++
		said.Open = slices.DeleteFunc(slices.Clone(said.Open), func(t string) bool { return t == e.Topic })
		said.Problems = slices.DeleteFunc(slices.Clone(said.Problems), func(key string) bool { return evidence.TopicOf(key) == e.Topic })
	}
	if said.answers(&o.Observation) {
		said.Asked = nil
	}
	e.Message = proto.Clip(o.message, proto.MaxMessage)
	switch {
	case o.Problem == "" && slices.Contains(said.Stages, string(o.Stage)): // that is known
		e.Kind = ""
	case o.Problem == "":
		e.Kind, e.Stage = proto.KindStage, string(o.Stage)
		said.Stages = append(slices.Clone(said.Stages), e.Stage)
		if o.Asked {
			said.Asked = &asked{e.Stage, proto.Clip(o.asked, proto.MaxMessage)}
		}
	case c.r.decides(o, in.recipe):
		e.Kind, e.Stage, e.Failed = proto.KindStage, string(o.Stage), true
		said.Problems = append(slices.Clone(said.Problems), o.Key())
	default:
		e.Kind, e.Warning, e.Topic = proto.KindNote, true, o.Topic()
		said.Problems = append(slices.Clone(said.Problems), o.Key())
		if e.Topic != "" && !slices.Contains(said.Open, e.Topic) {
			said.Open = append(slices.Clone(said.Open), e.Topic)
			said.Open = said.Open[max(0, len(said.Open)-maxHeard):]
		}
	}
	rec.Heard = &said
	events := []proto.Event{e}
	if aside := string(o.Problem); (o.Problem == evidence.Nak || o.Problem == evidence.Decline) && !slices.Contains(said.Stages, aside) {
		said.Stages = append(slices.Clone(said.Stages), aside)
		e.Kind, e.Stage, e.Warning, e.Topic = proto.KindStage, aside, false, ""
		events = append(events, e)
	}
	for _, e := range events {
		if e.Kind == "" {
			continue
		}
		if err := c.append(e); err != nil {
			return false, err
		}
	}
	return true, c.putInstall(rec)
}

// decides reports whether an error is the end of an install: the profile trusts who tells of it, nobody else can have sent the
// line, and it kept the node from a stage of its sequence.
func (r *Registry) decides(o *noted, recipe *Recipe) bool {
	if from := o.Fact.From; from.IsValid() && !evidence.Within(r.opt.Evidence.Listed, from) {
		return false
	}
	if !slices.Contains(recipe.Trust, proto.Source("log:"+o.Source)) || recipe.Sequence.Index(string(o.Stage)) < 0 {
		return false
	}
	return o.Problem == evidence.NotFound || o.Problem == evidence.Forbidden || o.Problem == evidence.Refused
}
