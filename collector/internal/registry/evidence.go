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
)

// Evidence says how the logs of a frontend are read.
type Evidence struct {
	Ours []netip.Addr // DHCP servers that are known to be legitimate
	Self string       // this machine's name, as it stands in the header of its lines
	// Listed are the senders of syslog that may speak of others. The word of the rest never ends an install.
	Listed []netip.Prefix
	// Look finds out why a file cannot be sent; nil is not asked. It may take long, and is given up after lookLimit.
	Look func(*evidence.Observation) string
	// Shows gives the short name of a source that would show a stage, the empty text of one that would not; nil is not asked.
	Shows func(source SourceInfo, stage string) string
}

// Keys of evidence in bucket settings.
const (
	sourcePrefix = "evidence/source/" // and the source's name → sourceRecord
	leasePrefix  = "evidence/lease/"  // and an address → JSON list of evidence.Lease
	sizePrefix   = "evidence/size/"   // and a web server's name and a path → evidence.FileSize
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
	Name     string
	Counts   evidence.Counts
	Programs []string // whose lines were among those
	Trouble  error    // why it cannot be read at present
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
	Programs []string        `json:"programs,omitempty"` // whose lines were among those; replaced, never changed
}

func (rec sourceRecord) info(name string) SourceInfo {
	return SourceInfo{Name: name, Counts: rec.Counts, Programs: rec.Programs}
}

// union gives both lists, sorted; the first one itself if it has all.
func union(have, more []string) []string {
	if !slices.ContainsFunc(more, func(p string) bool { return !slices.Contains(have, p) }) {
		return have
	}
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(have, more))))
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
	read     map[string]SourceInfo // by name; without Trouble
	rogues   map[string]RogueServer
	observed atomic.Uint64
	blind    atomic.Pointer[blindness] // nil: every source can be read
}

// openEvidence reads what is kept of the logs.
func (r *Registry) openEvidence() error {
	w := &r.evidence
	w.sources, w.dirty = map[string]sourceRecord{}, map[string]bool{}
	w.seen, w.trouble, w.read, w.rogues = map[string]time.Time{}, map[string]error{}, map[string]SourceInfo{}, map[string]RogueServer{}
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
	e := r.opt.Evidence
	w.observer, err = evidence.NewObserver(w.mapper, evidence.ObserverOptions{Ours: e.Ours, Self: e.Self, Listed: e.Listed}, memory)
	if err != nil {
		return err
	}
	err = r.st.Scan(store.Settings, func(key string, v []byte) error {
		if file, ok := strings.CutPrefix(key, sizePrefix); ok {
			var s evidence.FileSize
			if err := json.Unmarshal(v, &s); err != nil {
				return fmt.Errorf("reading the size of %q: %w", file, err)
			}
			w.observer.RestoreSize(file, s)
			return nil
		}
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
		w.read[name] = rec.info(name)
	}
	return nil
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
	r.troubled(b.Source, b.Trouble)
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
	rec.Programs = union(rec.Programs, b.Programs)
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
	w.read[b.Source] = rec.info(b.Source)
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
	for file, s := range w.observer.ChangedSizes() {
		if puts[sizePrefix+file] = nil; s != nil {
			if puts[sizePrefix+file], err = encode("the size of a file", s); err != nil {
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
	w.observer.SavedSizes()
	clear(w.dirty)
	w.committed = now
	return nil
}
