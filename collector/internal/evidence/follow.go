// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The waits of a follower.
const (
	// PollEvery is how often the files are looked at: a fact is known a quarter of a second after it was written.
	PollEvery = 250 * time.Millisecond
	// SettleAfter is how long the end of a rotated file must stay where it is before it is closed: daemons go on
	// writing to it until they are told to reopen, which logrotate does only after it has moved all logs of a set.
	SettleAfter = 5 * time.Second
	// LingerAfter is the same for the file that was rotated last: a child of a daemon that was told to end gracefully logs
	// its last request when that is over.
	LingerAfter = 10 * time.Minute
)

const (
	// maxTails bounds the files of one log that are open at a time. With more rotations than this within SettleAfter the
	// oldest is closed early.
	maxTails = 16
	// maxDone bounds the finished files of which a position knows how far they were read: what a late child writes to one
	// makes it newer than the log itself.
	maxDone = 4
)

// File follows one log file over its rotations.
type File struct {
	Path      string
	FromStart bool           // without a position, read what is there already; else only its last Back bytes and what comes
	Back      int64          // the first line of them may be torn, and is passed over
	Location  *time.Location // of stamps without an offset; nil is UTC

	Poll, Settle, Linger time.Duration // 0: PollEvery, SettleAfter, LingerAfter
}

// Name is the path.
func (s *File) Name() string { return s.Path }

// Run follows the file. It waits for one that is not there, reads what is left of rotated ones (also compressed by now)
// before the current one, and returns a *TruncatedError for one that is cut in place: after that its position is void.
func (s *File) Run(ctx context.Context, position []byte, deliver Deliver) error {
	fl := &follower{path: s.Path, poll: cmp.Or(s.Poll, PollEvery), settle: cmp.Or(s.Settle, SettleAfter), linger: cmp.Or(s.Linger, LingerAfter), in: newIntake(s.Path, s.Location), buf: make([]byte, 64<<10), deliver: deliver}
	defer fl.close()
	if err := fl.start(position, s.FromStart, s.Back); err != nil {
		return err
	}
	tick := time.NewTicker(fl.poll)
	defer tick.Stop()
	for {
		if err := fl.step(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type follower struct {
	path    string
	in      *intake
	deliver Deliver
	buf     []byte
	tails   []*tail        // oldest first; the last is the current file, unless it has no name now
	done    []FilePosition // of files that were finished, the latest last

	poll, settle, linger time.Duration
}

// filesPosition is the form of a File's position.
type filesPosition struct {
	Files []FilePosition `json:"files"`
	Done  []FilePosition `json:"done,omitempty"` // rotated files that nothing more is expected of
}

func (fl *follower) close() {
	for _, t := range fl.tails {
		t.close()
	}
}

// start opens what the position speaks of, and what came after it.
func (fl *follower) start(position []byte, fromStart bool, back int64) error {
	if position == nil {
		t, err := openTail(fl.path)
		if err != nil {
			fl.in.trouble = err // step tries again
			return nil
		}
		fl.tails = append(fl.tails, t)
		if fromStart {
			return nil
		}
		if err := t.sample(); err != nil {
			return err
		}
		end, err := t.f.Seek(0, io.SeekEnd)
		if err != nil {
			return fmt.Errorf("seeking in %s: %w", fl.path, err)
		}
		from := max(0, end-back)
		return t.seek(from, back > 0 && from > 0)
	}
	var p filesPosition
	if err := json.Unmarshal(position, &p); err != nil {
		return fmt.Errorf("reading the position in %s: %w", fl.path, err)
	}
	return fl.resume(p)
}

// step reads everything that is there now.
func (fl *follower) step(ctx context.Context) error {
	now := time.Now()
	fl.in.clock(now)
	fl.look()
	// A tail is appended by look only, so a rotation while this loop runs waits for the next step.
	for _, t := range fl.tails {
		if err := fl.drain(ctx, t, now); err != nil {
			return err
		}
	}
	fl.tails = slices.DeleteFunc(fl.tails, func(t *tail) bool { return t.done })
	if fl.in.due(time.Now()) {
		return fl.hand()
	}
	return nil
}

// look finds out whether the path names another file now.
func (fl *follower) look() {
	fi, err := os.Stat(fl.path)
	if err != nil {
		if len(fl.tails) == 0 || !errors.Is(err, fs.ErrNotExist) {
			fl.in.trouble = err
		}
		return // moved away, and not made anew yet
	}
	dev, ino := fileID(fi)
	for _, t := range fl.tails {
		if t.pos.Device == dev && t.pos.Inode == ino {
			fl.in.trouble = nil
			return
		}
	}
	t, err := openTail(fl.path)
	if err != nil {
		fl.in.trouble = err
		return
	}
	fl.in.trouble = nil
	for _, old := range fl.tails {
		if !old.replaced {
			old.replaced, old.quiet = true, time.Now()
		}
	}
	fl.tails = append(fl.tails, t)
}

// drain reads one file to its present end.
func (fl *follower) drain(ctx context.Context, t *tail, now time.Time) error {
	if err := t.cut(); err != nil {
		if t.replaced { // shredded, after it was rotated: what it had was read
			t.close()
			return nil
		}
		return err
	}
	got := false
	for {
		n, err := t.read(fl.buf, fl.in)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		got = true
		if fl.in.full() {
			if err := fl.hand(); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
		}
	}
	if got {
		t.quiet = now
		if err := t.sample(); err != nil {
			return err
		}
	}
	if t == fl.tails[len(fl.tails)-1] {
		return nil // stays open, and in the position, until there is another
	}
	early := len(fl.tails) > maxTails && t == fl.tails[0]
	wait := fl.settle
	if n := len(fl.tails); n > 1 && t == fl.tails[n-2] { // one of them at most lingers
		wait = max(fl.settle, fl.linger)
	}
	if t.packed || early || t.replaced && now.Sub(t.quiet) >= wait {
		t.finish(fl.in)
		fl.note(t.pos)
	}
	return nil
}

// note keeps how far a finished file was read. An empty one is like every other.
func (fl *follower) note(pos FilePosition) {
	if pos.Sample == 0 {
		return
	}
	fl.done = append(fl.done, pos)
	fl.done = slices.Clone(fl.done[max(0, len(fl.done)-maxDone):])
}

// hand delivers with the position of all files that are still open. One of which nothing more is expected need not be there
// when it is read on.
func (fl *follower) hand() error {
	p := filesPosition{Done: fl.done}
	now := time.Now()
	for _, t := range fl.tails {
		if t.done {
			continue
		}
		if err := t.sample(); err != nil {
			return err
		}
		if t.replaced && now.Sub(t.quiet) >= fl.settle && len(t.rest) == 0 && t.pos.Sample > 0 {
			p.Done = append(slices.Clone(p.Done), t.pos)
		} else {
			p.Files = append(p.Files, t.pos)
		}
	}
	position, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("writing the position in %s: %w", fl.path, err)
	}
	if len(p.Files) == 0 {
		position = nil
	}
	return fl.in.hand(position, fl.deliver)
}

// resume finds the files of a position again, under whatever names, and the ones that came after them. Of the finished ones it
// reads what was written to them late.
func (fl *follower) resume(p filesPosition) error {
	siblings := fl.siblings()
	newest := time.Time{} // last change of the latest file that is known again
	used := map[string]bool{}
	found := 0
	for i, w := range slices.Concat(p.Done, p.Files) {
		for _, sib := range siblings {
			if used[sib.path] {
				continue
			}
			over := i < len(p.Done)
			t, err := reopen(sib.path, w, !over)
			if err != nil {
				return err
			}
			if t == nil {
				continue
			}
			used[sib.path] = true
			if over && t.packed { // nobody writes to it any more
				t.close()
				fl.note(w)
				break
			}
			t.replaced, t.quiet = sib.path != fl.path, time.Now()
			fl.tails = append(fl.tails, t)
			if over {
				break
			}
			found++
			if sib.changed.After(newest) {
				newest = sib.changed
			}
			break
		}
	}
	// What was rotated while nobody read: everything that was written to after the last known file, oldest first.
	var later []*tail
	for _, sib := range siblings {
		if used[sib.path] || sib.path != fl.path && (found == 0 || !sib.changed.After(newest)) {
			continue
		}
		t, err := reopen(sib.path, FilePosition{}, true)
		if err != nil {
			return err
		}
		if t != nil {
			t.replaced, t.quiet = sib.path != fl.path, time.Now()
			later = append(later, t)
		}
	}
	fl.tails = append(fl.tails, later...)
	if found < len(p.Files) {
		fl.in.trouble = &LostError{Path: fl.path}
		return fl.hand() // before the next look at the file finds all well
	}
	return nil
}

// LostError says that a file was rotated away, and removed or changed, before it was read to its end.
type LostError struct{ Path string }

func (e *LostError) Error() string {
	return "following " + e.Path + ": the file that was read last is gone; lines at its end may be lost"
}

type sibling struct {
	path    string
	changed time.Time
}

// siblings are the log and its rotated files, by last change.
func (fl *follower) siblings() []sibling {
	dir, base := filepath.Split(fl.path)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return nil // step reports it
	}
	var out []sibling
	for _, e := range entries {
		name := e.Name()
		if name != base && !strings.HasPrefix(name, base+".") && !strings.HasPrefix(name, base+"-") {
			continue
		}
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			out = append(out, sibling{dir + name, fi.ModTime()})
		}
	}
	slices.SortStableFunc(out, func(a, b sibling) int {
		if a.path == fl.path || b.path == fl.path { // the current one last
			if a.path == fl.path {
				return 1
			}
			return -1
		}
		return a.changed.Compare(b.changed)
	})
	return out
}

// reopen opens a file if it is the one of a position, and goes there; nil without an error if it is not. The zero
// position fits any file and is its start. Without read a packed file is only known again.
func reopen(path string, w FilePosition, read bool) (*tail, error) {
	t, err := openTail(path)
	if err != nil {
		return nil, nil // gone meanwhile, or not to be read: step reports it if it is the current one
	}
	start := w == FilePosition{}
	if r, closer, err := unpack(t.f, path); err != nil {
		t.close()
		return nil, nil
	} else if r != nil {
		t.r, t.packed = r, true
		t.closers = append(t.closers, closer)
	}
	if t.packed {
		sample := make([]byte, w.Sample)
		if _, err := io.ReadFull(t.r, sample); err != nil || !start && (w.Sample == 0 || fingerprint(sample) != w.Fingerprint) {
			t.close()
			return nil, nil
		}
		if start || !read {
			return t, nil
		}
		return t, t.forward(sample, w)
	}
	if start {
		return t, t.sample()
	}
	b := make([]byte, w.Sample)
	n, err := t.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) || t.pos.Device != w.Device || t.pos.Inode != w.Inode || n < len(b) || w.Sample > 0 && fingerprint(b) != w.Fingerprint {
		t.close()
		return nil, nil
	}
	t.pos.Sample, t.pos.Fingerprint = w.Sample, w.Fingerprint
	return t, t.seek(w.Offset, w.Skip)
}

// forward steps over what was read of a file before it was compressed. sample is what was just read of it.
func (t *tail) forward(sample []byte, w FilePosition) error {
	t.pos.Sample, t.pos.Fingerprint, t.pos.Offset, t.pos.Skip = w.Sample, w.Fingerprint, w.Offset, w.Skip
	if w.Offset < int64(len(sample)) {
		t.rest = nil
		t.r = io.MultiReader(strings.NewReader(string(sample[w.Offset:])), t.r)
		return nil
	}
	if _, err := io.CopyN(io.Discard, t.r, w.Offset-int64(len(sample))); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s: %w", t.path, err)
	}
	return nil
}
