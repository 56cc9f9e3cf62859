// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"provost/collector/internal/evidence"
	"provost/collector/internal/store"
	"provost/proto"
)

// Evidence says how the logs of a frontend are read.
type Evidence struct {
	Ours []netip.Addr // DHCP servers that are known to be legitimate
	// Look finds out why a file cannot be sent; nil is not asked. It may take long, and is given up after lookLimit.
	Look func(*evidence.Observation) string
}

// Keys of evidence in bucket settings.
const (
	sourcePrefix = "evidence/source/" // and the source's name → sourceRecord
	leasePrefix  = "evidence/lease/"  // and an address → JSON list of evidence.Lease
	memoryKey    = "evidence/memory"  // evidence.Observer's
	roguesKey    = "evidence/rogues"  // JSON list of RogueServer
)

const (
	// evidenceEvery is how long a position that no event came of may wait for its commit. After a crash those lines are
	// read again, and give nothing again.
	evidenceEvery = 5 * time.Second
	// maxHeard bounds the problems that one attempt's log lines may add to an install: a machine on the segment can ask a
	// TFTP server for any number of invented files.
	maxHeard = 16
	// maxLooks bounds the file systems that hang at the same time; lookLimit, how long one look may hold up its batch.
	maxLooks  = 4
	lookLimit = time.Second
	// maxRogues bounds the DHCP servers that are remembered as not ours.
	maxRogues = 64
	// rogueLife is how long one is told of after it was seen last.
	rogueLife = 7 * 24 * time.Hour
)

// SourceInfo is what was read of one source of evidence, ever.
type SourceInfo struct {
	Name    string
	Counts  evidence.Counts
	Trouble error // why it cannot be read at present
}

// RogueServer is a DHCP server that a node took an address from and that is not ours.
type RogueServer struct {
	Server string    `json:"server"`
	Count  int       `json:"count"`
	Node   string    `json:"node"` // the last one
	At     time.Time `json:"at"`
}

// sourceRecord is how far a source has been read.
type sourceRecord struct {
	Position []byte          `json:"position,omitempty"`
	Counts   evidence.Counts `json:"counts"`
}

// watcher is what the registry knows of the frontend's logs. Its lock is held over a commit: one batch at a time.
type watcher struct {
	mu        sync.Mutex
	observer  *evidence.Observer
	mapper    *evidence.Mapper
	sources   map[string]sourceRecord
	dirty     map[string]bool // sources whose record is newer than on the disk
	committed time.Time
	looks     chan struct{}

	seenMu   sync.Mutex // guards what follows
	seen     map[string]time.Time
	trouble  map[string]error
	counts   map[string]evidence.Counts
	rogues   map[string]RogueServer
	observed atomic.Uint64
}

// openEvidence reads what is kept of the logs.
func (r *Registry) openEvidence() error {
	w := &r.evidence
	w.sources, w.dirty = map[string]sourceRecord{}, map[string]bool{}
	w.seen, w.trouble, w.counts, w.rogues = map[string]time.Time{}, map[string]error{}, map[string]evidence.Counts{}, map[string]RogueServer{}
	w.looks = make(chan struct{}, maxLooks)
	w.mapper = evidence.NewMapper(&inventory{r: r})
	var memory []byte
	err := r.st.View(func(s *store.Reader) (err error) {
		memory = s.Get(store.Settings, memoryKey)
		if b := s.Get(store.Settings, roguesKey); b != nil {
			var rogues []RogueServer
			if err := json.Unmarshal(b, &rogues); err != nil {
				return fmt.Errorf("reading the DHCP servers that are not ours: %w", err)
			}
			for _, x := range rogues {
				w.rogues[x.Server] = x
			}
		}
		s.Range(store.Settings, sourcePrefix, store.PrefixEnd(sourcePrefix), func(key string, v []byte) bool {
			var rec sourceRecord
			if err = json.Unmarshal(v, &rec); err != nil {
				err = fmt.Errorf("reading how far %s was read: %w", key, err)
				return false
			}
			w.sources[strings.TrimPrefix(key, sourcePrefix)] = rec
			return true
		})
		return err
	})
	if err != nil {
		return err
	}
	err = r.st.Scan(store.Settings, func(key string, v []byte) error {
		address, ok := strings.CutPrefix(key, leasePrefix)
		if !ok {
			return nil
		}
		ip, err := netip.ParseAddr(address)
		var h []evidence.Lease
		if err == nil {
			err = json.Unmarshal(v, &h)
		}
		if err != nil {
			return fmt.Errorf("reading the lease of %s: %w", address, err)
		}
		w.mapper.Restore(ip, h)
		return nil
	})
	if err != nil {
		return err
	}
	for name, rec := range w.sources {
		w.counts[name] = rec.Counts
	}
	w.observer, err = evidence.NewObserver(w.mapper, r.opt.Evidence.Ours, memory)
	return err
}

// EvidencePosition is where a source of evidence is to be read on from, nil for its beginning.
func (r *Registry) EvidencePosition(source string) []byte {
	w := &r.evidence
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sources[source].Position
}

// ForgetPosition makes a source begin anew, as one does whose file was cut in place.
func (r *Registry) ForgetPosition(source string) {
	w := &r.evidence
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := w.sources[source]
	rec.Position = nil
	w.sources[source], w.dirty[source] = rec, true
}

// Observe takes a batch of a source: what its facts mean for installs becomes events, in the transaction that also keeps how
// far the source was read. With an error nothing of the batch has happened.
func (r *Registry) Observe(ctx context.Context, b evidence.Batch) error {
	w := &r.evidence
	w.seenMu.Lock()
	w.trouble[b.Source] = b.Trouble
	w.seenMu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := r.now()
	var found []evidence.Observation
	for _, f := range b.Facts {
		found = append(found, w.observer.Add(b.Source, f, now)...)
	}
	found = append(found, w.observer.Due(now)...)
	was, known := w.sources[b.Source]
	rec := was
	rec.Counts = rec.Counts.Plus(b.Counts)
	if b.Position != nil {
		rec.Position = b.Position
	}
	waited := w.dirty[b.Source]
	w.sources[b.Source], w.dirty[b.Source] = rec, true
	if err := r.commitEvidence(ctx, b.Source, found, now); err != nil {
		w.observer.Undo()
		if w.sources[b.Source] = was; !known {
			delete(w.sources, b.Source)
		}
		if !waited {
			delete(w.dirty, b.Source)
		}
		return err
	}
	w.seenMu.Lock()
	w.counts[b.Source] = rec.Counts
	w.seenMu.Unlock()
	return nil
}

// ObserveDue says what log lines mean that had to wait for others, and keeps what waits for a commit. It is to be called
// every second or so.
func (r *Registry) ObserveDue(ctx context.Context) error {
	w := &r.evidence
	w.mu.Lock()
	defer w.mu.Unlock()
	now := r.now()
	if !w.observer.Waits() && (len(w.dirty) == 0 || now.Sub(w.committed) < evidenceEvery) {
		return nil
	}
	if err := r.commitEvidence(ctx, "", w.observer.Due(now), now); err != nil {
		w.observer.Undo()
		return err
	}
	return nil
}

// noted is an observation with its words.
type noted struct {
	evidence.Observation
	message string
}

// commitEvidence writes what is new, if it is worth a commit. The lock is held.
func (r *Registry) commitEvidence(ctx context.Context, source string, found []evidence.Observation, now time.Time) error {
	w := &r.evidence
	all := r.relevant(found, now)
	rogue := slices.ContainsFunc(found, func(o evidence.Observation) bool { return o.Problem == evidence.Rogue })
	if len(all) == 0 && !rogue && now.Sub(w.committed) < evidenceEvery {
		w.observer.Keep() // in memory only: the positions are not on the disk either
		return nil
	}
	memory, err := w.observer.Save()
	if err != nil {
		return fmt.Errorf("encoding what evidence was held back: %w", err)
	}
	puts := map[string][]byte{memoryKey: memory}
	if rogue {
		if puts[roguesKey], err = encode("the DHCP servers that are not ours", r.Rogues()); err != nil {
			return err
		}
	}
	for name := range w.dirty {
		if puts[sourcePrefix+name], err = encode("how far "+name+" was read", w.sources[name]); err != nil {
			return err
		}
	}
	for ip, h := range w.mapper.Changed() {
		if puts[leasePrefix+ip.String()] = nil; h != nil {
			if puts[leasePrefix+ip.String()], err = encode("leases", h); err != nil {
				return err
			}
		}
	}
	written := 0
	err = r.update(ctx, func(c *change) error {
		written = 0
		for i := range all {
			ok, err := c.observe(&all[i])
			if err != nil {
				return err
			}
			if ok {
				written++
			}
		}
		for k, v := range puts {
			if v == nil {
				c.tx.Delete(store.Settings, k)
			} else {
				c.tx.Put(store.Settings, k, v)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping what %s says: %w", source, err)
	}
	w.observed.Add(uint64(written))
	w.observer.Keep()
	w.mapper.Saved()
	clear(w.dirty)
	w.committed = now
	return nil
}

// relevant leaves out what no install learns from, as far as it can be told without the writer, and finds the words for the
// rest. That a machine was heard of is noted here.
func (r *Registry) relevant(found []evidence.Observation, now time.Time) []noted {
	w := &r.evidence
	var out []noted
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
		if _, _, wanted := wants(in, in.rec.Load(), o); !wanted {
			continue
		}
		n := noted{Observation: *o, message: o.Detail}
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
	if look == nil || o.Problem != evidence.NotFound && o.Problem != evidence.Forbidden {
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

	Kernel time.Time `json:"kernel,omitzero"` // when the attempt's kernel was sent first, with boot: external
	Again  time.Time `json:"again,omitzero"`  // when the firmware began again after that
}

// wants decides whether an install learns from an observation, and when that was.
//
// A line belongs to the install that was current when it was written: never to one that was ordered later. An install that
// has ended learns nothing more, but one that only missed a deadline, from lines that are newer than that. Each stage counts
// once in an attempt, and once behind its seal: a machine that asks for an address for ever must not put off its deadline.
func wants(in *install, rec *installRecord, o *evidence.Observation) (at time.Time, said heard, ok bool) {
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
	if o.Problem == "" {
		return at, said, !slices.Contains(said.Stages, string(o.Stage)) || said.mends(o) || in.bootsAnew(rec, o, at, said) != sameBoot
	}
	return at, said, len(said.Problems) < maxHeard && !slices.Contains(said.Problems, o.Key())
}

// mends reports whether an observation is the end of a problem.
func (h *heard) mends(o *evidence.Observation) bool {
	return h.Mended < maxHeard && o.Problem == "" && slices.Contains(h.Open, o.Topic())
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
	at, said, ok := wants(in, rec, &o.Observation)
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
	e.Message = proto.Clip(o.message, proto.MaxMessage)
	switch {
	case o.Problem == "" && slices.Contains(said.Stages, string(o.Stage)): // that is known
		e.Kind = ""
	case o.Problem == "":
		e.Kind, e.Stage = proto.KindStage, string(o.Stage)
		said.Stages = append(slices.Clone(said.Stages), e.Stage)
	case o.decides(in.recipe):
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
	if e.Kind != "" {
		if err := c.append(e); err != nil {
			return false, err
		}
	}
	return true, c.putInstall(rec)
}

// decides reports whether an error is the end of an install: the profile trusts who tells of it, and it kept the node from
// a stage of its sequence.
func (o *noted) decides(recipe *Recipe) bool {
	if !slices.Contains(recipe.Trust, proto.Source("log:"+o.Source)) || recipe.Sequence.Index(string(o.Stage)) < 0 {
		return false
	}
	return o.Problem == evidence.NotFound || o.Problem == evidence.Forbidden || o.Problem == evidence.Refused
}
