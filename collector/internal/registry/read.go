// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"provost/collector/internal/eventjson"
	"provost/collector/internal/profile"
	"provost/collector/internal/store"
	"provost/proto"
)

// Revision is that of the last event.
func (r *Registry) Revision() uint64 { return r.st.Revision() }

// Cursor is the end of the feed.
func (r *Registry) Cursor() proto.Cursor {
	return proto.Cursor{Database: r.st.ID(), Revision: r.st.Revision()}
}

// FirstRevision is that of the oldest event that a watcher can get.
func (r *Registry) FirstRevision() uint64 { return r.st.First() }

// Node gives one node.
func (r *Registry) Node(name string) (proto.Node, error) {
	n := r.lookupNode(name)
	if n == nil {
		return proto.Node{}, unknownNode(name)
	}
	return r.nodeView(n), nil
}

// Nodes gives the named nodes, in the same order; all if names is nil, without order. Nodes that have gone meanwhile are
// left out.
func (r *Registry) Nodes(names []string) []proto.Node {
	r.pub.RLock()
	var found []*node
	if names == nil {
		for _, n := range r.pub.nodes {
			found = append(found, n)
		}
	}
	for _, name := range names {
		if n := r.pub.nodes[name]; n != nil {
			found = append(found, n)
		}
	}
	r.pub.RUnlock()
	out := make([]proto.Node, len(found))
	for i, n := range found {
		out[i] = r.nodeView(n)
		out[i].Hardware = nil // some kilobytes of each node, which no list is asked for
	}
	return out
}

func (r *Registry) nodeView(n *node) proto.Node {
	r.pub.RLock()
	s := r.sources(n)
	r.pub.RUnlock()
	return s.node()
}

// node is what everybody sees.
func (s sources) node() proto.Node {
	n, in, rec, l := s.n, s.in, s.rec, s.view
	v := proto.Node{Schema: proto.Schema, Name: n.Spec.Name, Status: proto.StatusDefined, BootAction: n.BootAction, Since: n.Changed,
		MACs: n.Spec.MACs, IP: n.Spec.IP, Serial: n.Spec.Serial, Profile: n.Spec.Profile, Groups: n.Spec.Groups, Attrs: n.Spec.Attrs,
		Protected: n.Spec.Protected, Revision: n.Revision}
	if n.Discovered {
		v.Status = proto.StatusDiscovered
	}
	v.Summary, v.LastSeen = string(v.Status), s.line
	if n.Moved != "" {
		v.Warnings = []string{n.Moved}
	}
	v.Hardware = n.Hardware
	if in == nil {
		return v
	}
	v.Status, v.Waiting, v.Summary, v.Stage, v.Step = l.Status, l.Waiting, l.Summary, l.Stage, l.Step
	v.Install, v.Ordinal, v.Attempt, v.Label = rec.ID, rec.Ordinal, rec.Attempt, rec.Label
	v.Since, v.LastSeen = l.Since, later(l.LastSeen, heardAt(s.heard)) // of its agent: no log's word stands for that
	v.Cause, v.Warnings, v.Contested = l.Cause, append(v.Warnings, l.Warnings...), l.Contested
	v.Orders = pendingOf(rec)
	v.Facts, v.Rescue = s.facts, rec.Rescue
	if rec.Hardware != nil {
		v.Hardware = rec.Hardware
	}
	if d, ok := s.due(); ok {
		v.Deadline = &proto.Deadline{Stage: d.Stage, Since: d.Since, At: d.Stall, MovedMS: d.Moved.Milliseconds()}
		if s.usual != nil && d.Stage == l.Awaited {
			u := *s.usual
			u.SlowAt = slowAt(&u, d.Since)
			v.Deadline.Usual = &u
		}
	}
	if l.Stuck != nil {
		stuck := *l.Stuck
		if v.Deadline != nil {
			stuck.Since = v.Deadline.Since
		}
		stuck.Likely = s.likely(&stuck)
		v.Stuck = &stuck
	}
	v.Revision = max(v.Revision, s.newest)
	return v
}

// heard is when the last heartbeat came, zero without one.
func (in *install) heard() time.Time { return heardAt(in.seen.Load()) }

func heardAt(ms int64) time.Time {
	if ms != 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Installs gives the installs of a node, the newest first, without steps and logs.
func (r *Registry) Installs(name string) ([]proto.Install, error) {
	n := r.lookupNode(name)
	if n == nil {
		return nil, unknownNode(name)
	}
	out := make([]proto.Install, 0, len(n.installs))
	for _, id := range slices.Backward(n.installs) {
		if _, in, err := r.installOf(name, id); err == nil {
			out = append(out, installView(in))
		}
	}
	return out, nil
}

// Install gives one install with steps and logs. id may be "latest".
func (r *Registry) Install(name, id string) (proto.Install, error) {
	_, in, err := r.installOf(name, id)
	if err != nil {
		return proto.Install{}, err
	}
	v := installView(in)
	done, err := r.stepInfos(in)
	if err != nil {
		return v, err
	}
	v.Steps = in.steps(done)
	v.Logs, err = r.InstallLogs(name, in.id)
	return v, err
}

func installView(in *install) proto.Install {
	rec, l := in.rec.Load(), in.look()
	boot := ""
	if in.recipe.Boot == profile.BootExternal {
		boot = in.recipe.Boot
	}
	return proto.Install{Boot: boot, Schema: proto.Schema, ID: rec.ID, Node: rec.Node, Ordinal: rec.Ordinal, Attempt: rec.Attempt, Profile: in.recipe.Profile,
		Label: rec.Label, Reason: rec.Reason, Actor: rec.Actor, Ordered: rec.Ordered, Status: l.Status, Summary: l.Summary, Cause: l.Cause,
		Warnings: l.Warnings}
}

// steps are those of the plan in its order, each as far as it has come, then others that the agent told of.
func (in *install) steps(done []proto.StepInfo) []proto.StepInfo {
	var out []proto.StepInfo
	for _, s := range in.rec.Load().Steps {
		i := slices.IndexFunc(done, func(d proto.StepInfo) bool { return d.Name == s.Name && d.Phase == s.Phase })
		if i < 0 {
			out = append(out, proto.StepInfo{Name: s.Name, Phase: s.Phase})
		} else {
			out = append(out, done[i])
		}
	}
	for _, d := range done {
		if !slices.ContainsFunc(out, func(o proto.StepInfo) bool { return o.Name == d.Name && o.Phase == d.Phase }) {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b proto.StepInfo) int {
		return cmp.Compare(slices.Index(proto.Phases, a.Phase), slices.Index(proto.Phases, b.Phase))
	})
	return out
}

// EventLines gives an install with every event of it, by time, each as the JSON of a proto.Event that is kept: some installs
// have 200,000 of them, which need not be decoded to be passed on.
func (r *Registry) EventLines(name, id string) (proto.Install, [][]byte, error) {
	v, err := r.Install(name, id)
	if err != nil {
		return v, nil, err
	}
	_, in, err := r.installOf(name, v.ID)
	if err != nil {
		return v, nil, err
	}
	lines, err := r.byTime(in)
	if err != nil {
		return v, nil, fmt.Errorf("reading the events of install %s: %w", v.ID, err)
	}
	return v, lines, nil
}

// byTime gives an install's events by time; those of the same by revision.
func (r *Registry) byTime(in *install) ([][]byte, error) {
	lines, _, err := r.lines(in)
	if err != nil {
		return nil, err
	}
	type stamped struct {
		At   time.Time `json:"at"`
		line []byte
	}
	all := make([]stamped, len(lines))
	for i, b := range lines {
		if err := json.Unmarshal(b, &all[i]); err != nil {
			return nil, fmt.Errorf("event number %d: %w", i+1, err)
		}
		all[i].line = b
	}
	slices.SortStableFunc(all, func(a, b stamped) int { return a.At.Compare(b.At) })
	for i := range all {
		lines[i] = all[i].line
	}
	return lines, nil
}

// events reads every event of an install, by time.
func (r *Registry) events(in *install) ([]proto.Event, error) {
	lines, err := r.byTime(in)
	if err != nil {
		return nil, err
	}
	events := make([]proto.Event, len(lines))
	for i, b := range lines {
		if err := eventjson.Decode(b, &events[i]); err != nil {
			return nil, fmt.Errorf("event number %d: %w", i+1, err)
		}
	}
	return events, nil
}

// InstallLogs lists the logs of an install.
func (r *Registry) InstallLogs(name, id string) ([]proto.LogInfo, error) {
	_, in, err := r.installOf(name, id)
	if err != nil {
		return nil, err
	}
	logs, err := r.opt.Logs.List(in.id)
	if err != nil {
		return nil, fmt.Errorf("listing the logs of install %s: %w", in.id, err)
	}
	out := make([]proto.LogInfo, len(logs))
	for i, l := range logs {
		out[i] = proto.LogInfo{Name: l.Name, Size: l.Size}
	}
	return out, nil
}

// OpenLog opens a log of an install. The caller closes it.
func (r *Registry) OpenLog(name, id, log string) (*os.File, error) {
	_, in, err := r.installOf(name, id)
	if err != nil {
		return nil, err
	}
	return r.opt.Logs.Open(in.id, log)
}

// AppendLog adds a piece to a log of an agent's install. It gives the log's length, also with store.ErrOffset.
func (r *Registry) AppendLog(id, log string, offset int64, chunk []byte) (int64, error) {
	if err := proto.CheckName("log", log); err != nil {
		return 0, badRequest(err)
	}
	return r.opt.Logs.Append(id, log, offset, chunk)
}

// Watch gives a watcher of every event after a revision.
func (r *Registry) Watch(after uint64) *store.Watcher { return r.st.Watch(after) }

// Label is that of a node's newest install.
func (r *Registry) Label(name string) string {
	r.pub.RLock()
	defer r.pub.RUnlock()
	if n := r.pub.nodes[name]; n != nil {
		if in := r.pub.installs[n.Install]; in != nil {
			return in.rec.Load().Label
		}
	}
	return ""
}
