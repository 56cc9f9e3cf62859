// SPDX-License-Identifier: Apache-2.0

package run

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// changesFile of the state directory, in the target or on the installed system, says by what each on-change step was last
// done well. It is written before the step's end is recorded: an end without it would let the step run again.
const changesFile = "changes.json"

// success is what an on-change step was when it last ended well.
type success struct {
	Digest string    `json:"digest"`
	At     time.Time `json:"at"`
}

// stateRoot is the directory that lasts as long as what the step does: the target's, or this machine's.
func (r *runner) stateRoot() (*ground, error) { return openGround(r.o.Root, r.d.StateDir) }

// successes reads changesFile. One that is not there, or cannot be read, lets every step run.
func (r *runner) successes() map[string]success {
	all := map[string]success{}
	var b []byte
	err := onDisk(r, r.d.diskWait, func() error {
		dir, err := r.stateRoot()
		if err != nil {
			return err
		}
		defer dir.Close()
		b, err = dir.ReadFile(changesFile)
		return err
	})
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.note("", "when steps were last done is not known, so all on-change steps run: "+err.Error(), true)
	}
	if all == nil {
		all = map[string]success{}
	}
	return all
}

// succeeded keeps by what a step was done well. An empty digest is for a step that begins: it may fail with half of its work
// done, and then its earlier success is none any more.
func (r *runner) succeeded(s proto.Step, digest string) error {
	all := r.successes()
	k := key(r.o.Phase, s.Name)
	if _, ok := all[k]; !ok && digest == "" {
		return nil
	}
	delete(all, k)
	if digest != "" {
		all[k] = success{digest, time.Now().UTC()}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return onDisk(r, r.d.diskWait, func() error { return r.keepSuccesses(b) })
}

func (r *runner) keepSuccesses(b []byte) error {
	dir, err := r.stateRoot()
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.OpenFile(changesFile+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return dir.Rename(changesFile+".new", changesFile)
}

// last compares a digest with that of a step's last success, as far as one is known, and says when that was, if that is. A
// step that has started in this install is this machine's own to tell; before that the collector knows better, since what a
// step does outside of its root outlives this root and its disk.
func (r *runner) last(s proto.Step, digest string) (same, known bool, at time.Time) {
	k := key(r.o.Phase, s.Name)
	if c := r.d.Changes; s.Persists == "outside" && c != nil && r.history.steps[k].first.IsZero() {
		done, ok := c.Done[proto.ChangeKey(r.o.Phase, s.Name)]
		return ok && done == c.Keyed(digest), ok, time.Time{}
	}
	last, ok := r.successes()[k]
	return ok && last.Digest == digest, ok, last.At
}

// settled reports whether a step is not to be run. An on-change step that was done in this install is to be run again when
// what it depends on has changed since.
func (r *runner) settled(s proto.Step) bool {
	if !r.history.done(s, r.o.Phase) {
		return false
	}
	if p := r.history.steps[key(r.o.Phase, s.Name)]; s.Run != proto.RunOnChange || p.passed || !p.outcome.Good() {
		return true
	}
	digest, err := r.changeDigest(s)
	same, known, _ := r.last(s, digest)
	return err == nil && (same || !known)
}

// unchanged passes over an on-change step when everything that it depends on is as at its last success, and says so.
func (r *runner) unchanged(s proto.Step) bool {
	p := r.history.steps[key(r.o.Phase, s.Name)]
	if s.Run != proto.RunOnChange || r.history.forced[s.Name] || r.history.forced["all"] || p.open || p.again || p.repeat || p.outcome == proto.OutcomeInterrupted {
		return false
	}
	digest, err := r.changeDigest(s)
	if err != nil {
		return false // the try says what is wrong
	}
	same, _, at := r.last(s, digest)
	if !same {
		return false
	}
	msg := "nothing has changed since its last success, which the collector remembers"
	if !at.IsZero() {
		msg = "nothing has changed since its last success, " + at.Format(time.RFC3339)
	}
	r.end(s, proto.Event{Try: max(1, p.tries), Outcome: proto.OutcomeSkipped, Message: msg}, false)
	return true
}

// changeDigest is over what an on-change step depends on: script, environment, the inputs' content, and the system's image. The
// inputs are read within the step's timeout.
func (r *runner) changeDigest(s proto.Step) (string, error) {
	h := sha256.New()
	part := func(kind, name, value string) {
		fmt.Fprintf(h, "%s %d %s %d %s\n", kind, len(name), name, len(value), value)
	}
	part("script", s.Script, s.Digest)
	for _, v := range environment(s, map[string]string{"NODE": r.plan.Node, "PROFILE": r.plan.Profile}, r.plan.Attrs) {
		part("env", "", v)
	}
	root := "/"
	if *s.Chroot && r.o.Root != "" {
		root = r.o.Root
	} else {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return "", fmt.Errorf("reading the kernel's release: %w", err)
		}
		part("kernel", "", unix.ByteSliceToString(u.Release[:])+" "+unix.ByteSliceToString(u.Version[:]))
	}
	end := time.Now().Add(s.Timeout.D())
	err := onDisk(r, s.Timeout.D(), func() error {
		dir, err := os.OpenRoot(root)
		if err != nil {
			return err
		}
		defer dir.Close()
		for i, name := range append([]string{"/etc/os-release"}, s.Inputs...) {
			sum, err := digestIn(dir, name, end)
			if err != nil && i == 0 {
				sum, err = "none", nil // nothing says what system it is
			}
			if err != nil {
				return fmt.Errorf("input %s: %w", name, err)
			}
			part("input", name, sum)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// before reads until a moment, and then fails.
type before struct {
	r   io.Reader
	end time.Time
}

func (b before) Read(p []byte) (int, error) {
	if time.Now().After(b.end) {
		return 0, errors.New("reading it takes longer than the step's timeout: give a smaller file, or a longer timeout")
	}
	return b.r.Read(p)
}

// digestIn gives the SHA-256 of a file's content as it is seen in a root, "absent" if there is none. Links count as what
// they lead to, absolute ones within the root. It reads regular files only, and waits for none that is a pipe by now.
func digestIn(dir *os.Root, name string, end time.Time) (string, error) {
	notOne := errors.New("it is no file: on-change looks at the content of files")
	rel := strings.TrimPrefix(path.Clean(name), "/")
	for range 16 { // of links: as many as a sane system has
		info, err := dir.Lstat(rel)
		if errors.Is(err, fs.ErrNotExist) {
			return "absent", nil
		}
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			to, err := dir.Readlink(rel)
			if err != nil {
				return "", err
			}
			if !path.IsAbs(to) {
				to = path.Join("/", path.Dir(rel), to)
			}
			rel = strings.TrimPrefix(path.Clean(to), "/")
			continue
		}
		if !info.Mode().IsRegular() {
			return "", notOne
		}
		f, err := dir.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return "", errors.Join(err, notOne)
		}
		h := sha256.New()
		if _, err := io.Copy(h, before{f, end}); err != nil {
			return "", err
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	return "", errors.New("too many links lead to it")
}
