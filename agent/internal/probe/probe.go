// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"provost/proto"
)

const (
	// keepLines of a log are remembered: among them are the words for a failure.
	keepLines = 200
	// wordsLimit is how many lines a failure's message is made of.
	wordsLimit = 3
	// wordsAgo is how many lines before the failure they may stand.
	wordsAgo = 40
	// afterLines is how many lines behind the failure they may stand: a traceback has some 30.
	afterLines = 200
	// evidenceLimit is the length of what is said of a stage.
	evidenceLimit = 256
	// reportLimit is how much is read of a file that reports a failure.
	reportLimit = 64 << 10
)

// LogBase is the base of the name (proto.BootLog) of the log in which the installer's own logs are kept.
const LogBase = "installer"

// Finding is something that happened to the install.
type Finding struct {
	Stage   string   // as in proto.Stages, or "wait"
	Failed  bool     // the installer failed before Stage, which is the next one that was due
	Stalled bool     // the installer waits at its screen for somebody and does not get to Stage, the next one that was due
	Waiting bool     // the installer waits for somebody
	Message string   // what was seen; of a failure the installer's own words
	Tail    []string // of a failure the end of the installer's log
}

// Event is the finding as the journal has it; log is where the installer's own logs are kept.
func (f Finding) Event(log string) proto.Event {
	e := proto.Event{Kind: proto.KindStage, Stage: f.Stage, Failed: f.Failed, Message: f.Message, Tail: f.Tail}
	if f.Failed {
		e.Cause, e.Log = proto.CauseInstaller, log
	}
	if f.Stalled {
		e.Kind = proto.KindStalled
	}
	return e
}

// Watch looks at one install. It is used from one goroutine.
type Watch struct {
	table   table
	seen    map[string]bool
	failed  map[string]bool
	reached int              // index of the last stage that was seen, -1 for none
	told    bool             // a file's report of a failure is known
	sizes   map[string]int64 // of such files at the last look
	marks   map[string]*Mark
	recent  map[string][]string
	grew    map[string]time.Duration // when a log last grew
	talk    []string                 // the last lines of the installer's conversation with its screen, if a log has it
	talked  time.Duration            // when the last of them came
	hide    func(string) string      // takes secrets out of a text
	ship    shipper
}

// Detect tells the family of the installer that runs here, Generic if none is known.
func Detect(sys System) string {
	for _, t := range tables {
		for _, all := range t.marks {
			if !slices.ContainsFunc(all, func(p string) bool { return len(sys.Glob(p)) == 0 }) {
				return t.family
			}
		}
	}
	return Generic
}

// New makes a watch of an installer of a family; of one that is not known it watches for /tmp/wait only.
func New(family string) *Watch {
	w := &Watch{
		table: table{family: Generic}, reached: -1, seen: map[string]bool{}, failed: map[string]bool{},
		sizes: map[string]int64{}, marks: map[string]*Mark{}, recent: map[string][]string{}, grew: map[string]time.Duration{},
	}
	for _, t := range tables {
		if t.family == family {
			w.table = t
		}
	}
	return w
}

// Family is what the watch knows how to watch.
func (w *Watch) Family() string { return w.table.family }

// Known tells the watch what has been reported already: a stage, "stalled", or with failed that the installer failed
// before a stage.
func (w *Watch) Known(stage string, failed bool) {
	if failed {
		w.failed[stage], w.told = true, true
		return
	}
	w.see(stage)
}

// Ship sets where the installer's logs are written, and how much of them is there already.
func (w *Watch) Ship(to io.Writer, written int64) { w.ship.w, w.ship.written = to, written }

// Hide sets what takes secrets out of each line before it goes there, or into a finding.
func (w *Watch) Hide(hide func(string) string) { w.hide = hide }

// Marks says how far each log has been read, for Resume.
func (w *Watch) Marks() map[string]Mark {
	out := map[string]Mark{}
	for p, m := range w.marks {
		out[p] = *m
	}
	return out
}

// Resume lets a new watch go on where another one's Marks were.
func (w *Watch) Resume(marks map[string]Mark) {
	for p, m := range marks {
		if m.Offset >= int64(len(m.Anchor)) && len(m.Anchor) <= anchorSize {
			w.marks[p] = &m
		}
	}
}

// Close writes what is held back of the logs.
func (w *Watch) Close() { w.ship.flush() }

// Observe looks once and gives what is new: stages in the order of an install, then a failure. No stage comes twice,
// and after a failure no other one until the install has got further.
func (w *Watch) Observe(sys System) []Finding {
	l := newLook(sys)
	found := map[string]string{} // stage to evidence
	var failure *Finding

	for _, log := range w.table.logs {
		m := w.marks[log.path]
		if m == nil {
			m = &Mark{}
			w.marks[log.path] = m
		}
		lines, grew := m.follow(sys, log.path)
		if _, ok := w.grew[log.path]; grew || !ok {
			w.grew[log.path] = sys.Now()
		}
		var ship []string
		for i, raw := range lines {
			lines[i] = w.redact(raw)
			text := strings.ToValidUTF8(log.clean(lines[i]), "\uFFFD")
			if log.talk != nil && log.talk(text) {
				w.talk, w.talked = append(w.talk[max(0, len(w.talk)-keepLines):], proto.Clip(text, proto.MaxTailLine)), sys.Now()
				continue
			}
			ship = append(ship, lines[i])
			w.remember(log.path, text)
			for _, r := range w.table.stages {
				if w.seen[r.stage] || found[r.stage] != "" {
					continue
				}
				if slices.ContainsFunc(r.signs, func(s sign) bool { return s.fits(log.path, text) }) {
					found[r.stage] = text
				}
			}
			if failure != nil {
				continue
			}
			if n := slices.IndexFunc(w.table.failures, func(s sign) bool { return s.fits(log.path, text) }); n >= 0 {
				failure = w.explain(log.path, text)
				if after := w.table.failures[n].after; after != nil {
					follow := after(unstamped(lines[i+1:], log.clean))
					for j, l := range follow {
						follow[j] = strings.ToValidUTF8(w.redact(l), "\uFFFD")
					}
					failure.Message = proto.Clip(strings.Join(append([]string{failure.Message}, follow...), "; "), proto.MaxMessage)
				}
			}
		}
		w.ship.ship(log.path, ship)
	}

	var out []Finding
	for _, r := range slices.Concat(w.table.stages, []row{waiting}) {
		if w.seen[r.stage] {
			continue
		}
		text := found[r.stage]
		if text == "" {
			text = l.seesAny(r.signs)
		}
		if text != "" {
			w.see(r.stage)
			out = append(out, Finding{Stage: r.stage, Waiting: r.stage == stageWait, Message: proto.Clip(text, evidenceLimit)})
		}
	}
	if failure == nil {
		failure = w.reported(l)
	}
	if failure != nil {
		failure.Stage = w.due()
		if !w.failed[failure.Stage] {
			w.failed[failure.Stage] = true
			out = append(out, *failure)
			w.ship.flush()
		}
	}
	if f := w.stalled(sys.Now()); f != nil {
		out = append(out, *f)
		w.ship.flush()
	}
	return out
}

func (w *Watch) see(stage string) {
	w.seen[stage] = true
	i := slices.IndexFunc(w.table.stages, func(r row) bool { return r.stage == stage })
	w.reached = max(w.reached, i)
}

// due is the stage that comes next.
func (w *Watch) due() string {
	for _, r := range w.table.stages[w.reached+1:] {
		if r.stage != "ssh-open" { // comes only where somebody asked for it
			return r.stage
		}
	}
	return "rebooting"
}

func (w *Watch) redact(s string) string {
	if w.hide == nil {
		return s
	}
	return w.hide(s)
}

func (w *Watch) remember(log, line string) {
	if line = strings.TrimSpace(line); line == "" {
		return
	}
	r := append(w.recent[log], proto.Clip(line, proto.MaxTailLine))
	if len(r) > 2*keepLines {
		r = append(r[:0], r[len(r)-keepLines:]...)
	}
	w.recent[log] = r
}

// explain makes a failure of the lines up to the one that tells of it: the last that say what went wrong.
func (w *Watch) explain(log, line string) *Finding {
	var words []string
	recent := w.recent[log]
	for _, l := range slices.Backward(recent[max(0, len(recent)-wordsAgo):]) {
		if len(words) == wordsLimit {
			break
		}
		wrong := slices.ContainsFunc(w.table.errors, func(e string) bool { return strings.Contains(l, e) })
		if (wrong || l == strings.TrimSpace(line)) && !slices.Contains(words, l) {
			words = append(words, l)
		}
	}
	slices.Reverse(words)
	return &Finding{Failed: true, Message: proto.Clip(strings.Join(words, "; "), proto.MaxMessage), Tail: tail(recent)}
}

func tail(lines []string) []string {
	return slices.Clone(lines[max(0, len(lines)-proto.MaxTail):])
}

// reported looks for a file that says that the install failed, and waits until it has been written to its end: for its
// size to be the same at two looks.
func (w *Watch) reported(l *look) *Finding {
	if w.told {
		return nil
	}
	for _, s := range w.table.failures {
		if s.path == "" {
			continue
		}
		for _, p := range l.Glob(s.path) {
			f, b, err := l.Read(p, 0, reportLimit)
			if err != nil || f.Size == 0 {
				continue
			}
			if w.sizes[p] != f.Size {
				w.sizes[p] = f.Size
				continue
			}
			w.told = true
			words := []string{path.Base(p) + " is there"}
			if s.text != nil {
				if found := s.text(b); found != nil {
					words = found
				}
			}
			text := w.redact(strings.ToValidUTF8(strings.Join(words, "; "), "\uFFFD"))
			var recent []string
			if len(w.table.logs) > 0 {
				recent = w.recent[w.table.logs[0].path]
			}
			return &Finding{Failed: true, Message: proto.Clip(text, proto.MaxMessage), Tail: tail(recent)}
		}
	}
	return nil
}

// stalled finds an installer that waits for somebody at its screen.
func (w *Watch) stalled(now time.Duration) *Finding {
	s := w.table.stall
	recent, since := w.recent[s.log], w.grew[s.log]
	if s.asks != nil {
		recent, since = w.talk, w.talked
	}
	if s.log == "" || len(recent) == 0 || w.seen[stageStalled] || !strings.Contains(recent[len(recent)-1], s.holds) || now-since < s.idle {
		return nil
	}
	why := strings.Join(recent[max(0, len(recent)-wordsLimit):], "; ")
	if s.asks != nil {
		if why = s.asks(recent); why == "" {
			return nil
		}
	}
	w.seen[stageStalled] = true
	return &Finding{Stage: w.due(), Stalled: true, Waiting: true, Message: proto.Clip(why, proto.MaxMessage), Tail: tail(w.recent[s.log])}
}

// look is one look at the machine: what is asked for twice is read once.
type look struct {
	System
	processes func() []Process
	mounts    func() []string
}

func newLook(sys System) *look {
	return &look{sys, sync.OnceValue(sys.Processes), sync.OnceValue(sys.Mounts)}
}

// seesAny looks for signs that are not in a log. It gives the evidence for the first, "" if there is none.
func (l *look) seesAny(signs []sign) string {
	for _, s := range signs {
		switch {
		case s.path != "":
			for _, p := range l.Glob(s.path) {
				if f, _, err := l.Read(p, 0, 0); s.empty || err != nil || f.Size > 0 { // a directory cannot be read
					return p + " is there"
				}
			}
		case s.process != "" || s.args != "":
			for _, p := range l.processes() {
				if s.process != "" && p.Name == s.process || s.args != "" && strings.Contains(p.Args, s.args) {
					return cmp.Or(s.process, s.args) + " runs"
				}
			}
		case s.mount != "":
			if slices.Contains(l.mounts(), s.mount) {
				return s.mount + " is mounted"
			}
		case s.port != 0:
			if l.Listening(s.port) {
				return fmt.Sprintf("port %d is open", s.port)
			}
		}
	}
	return ""
}
