// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

const (
	// lockWait bounds the wait for another process's append: one write and one sync, a hundred times over.
	lockWait = 10 * time.Second
	// diskWait bounds the wait for the disk that the journal is on. The slowest that still works, an SD card or a shingled disk
	// that sorts itself, stops for some 20 s. After that records wait in memory until the disk answers.
	diskWait = 30 * time.Second
	// reserveSize is room for some 500 records of 500 bytes, more than an install has steps.
	reserveSize = 256 << 10
	reserveStep = 32 << 10
	// regrowWait is between two tries to set the reserve aside again.
	regrowWait = 30 * time.Second
)

// Append writes one record and gives it back with its number, journal, time and boot. When it returns without error the
// record is on disk, and, where a mirror is set and can be written, in the mirror.
//
// An error never means that the caller should try again: a record that could not be written waits in memory, keeps its
// time, and is written before the next one or by Retry. One that ErrBudget refuses is dropped, as is one for which memory has
// no room: those are counted, and a note says so when the disk takes records again. One that was written but not synced has its
// number. It waits at most lockWait for other processes, diskWait for the disk, and mirrorWait for the mirror.
func (j *Journal) Append(e proto.Event) (proto.Event, error) {
	e, err := j.append(e)
	if e.Seq != 0 { // it stands in the file
		j.mirror.push(mirrorWait)
	}
	return e, err
}

// append is Append without the wait for the mirror.
func (j *Journal) append(e proto.Event) (proto.Event, error) {
	if e.Time.IsZero() {
		var offset time.Duration
		e.Time, e.Boot, offset = j.stamp()
		e.Time, e.OffsetMS = e.Time.UTC(), offset.Milliseconds()
	}
	if e.Source == "" {
		e.Source = proto.SourceAgent
	}
	if e.Install == "" {
		e.Install = j.opts.Install
	}
	e = fit(e)
	var w proto.Event
	err := attempt(j, &e, func() (err error) {
		j.mu.Lock()
		defer j.mu.Unlock()
		w, err = j.commitLocked(&e)
		return err
	})
	if errors.Is(err, ErrHung) {
		return e, fmt.Errorf("appending to journal: %w", err)
	}
	return w, err
}

// Retry writes what waits in memory, if anything does. Without error nothing waits any more.
func (j *Journal) Retry() error {
	err := attempt(j, nil, func() error {
		j.mu.Lock()
		defer j.mu.Unlock()
		_, err := j.commitLocked(nil)
		return err
	})
	if err == nil {
		j.mirror.push(mirrorWait)
	}
	return err
}

// commitLocked writes what waits in memory, and then e, unless that is nil.
func (j *Journal) commitLocked(e *proto.Event) (proto.Event, error) {
	unlock, err := j.acquire()
	if err != nil {
		return j.keep(e, err)
	}
	defer unlock()
	if err := j.refresh(true); err != nil {
		return j.keep(e, err)
	}
	for len(j.pending) > 0 {
		if _, err := j.write(j.pending[0]); err != nil && !errors.Is(err, errUnsynced) {
			return j.keep(e, err)
		}
		j.pending = j.pending[1:]
	}
	if n := j.late.forgive(); n > 0 {
		j.noteLocked(fmt.Sprintf("%d records are lost: the disk of the journal took none, and the memory for them was full", n), true)
	}
	if e == nil {
		return proto.Event{}, nil
	}
	if (e.Kind == proto.KindNote || e.Kind == proto.KindStage) && int64(j.tail.count)*segmentSize > max(j.opts.MaxBytes/4, segmentSize) {
		return *e, ErrBudget
	}
	w, err := j.write(*e)
	if err != nil && !errors.Is(err, errUnsynced) {
		return j.keep(e, err)
	}
	j.mindSpace()
	return w, err
}

// keep puts a record into memory, to be written before the next one.
func (j *Journal) keep(e *proto.Event, err error) (proto.Event, error) {
	switch {
	case e == nil:
		return proto.Event{}, fmt.Errorf("appending to journal: %w; %d records wait in memory", err, len(j.pending))
	case len(j.pending) >= maxPending:
		j.late.drop()
		return *e, fmt.Errorf("appending to journal: %w; %d records wait in memory already: this one is lost", err, maxPending)
	}
	j.pending = append(j.pending, *e)
	return *e, fmt.Errorf("appending to journal: %w; the record waits in memory", err)
}

// write appends one line to the last segment, syncs it, and follows it in j.tail. It needs the lock and a fresh tail.
func (j *Journal) write(e proto.Event) (proto.Event, error) {
	t := &j.tail
	if t.off >= segmentSize {
		if err := j.roomy(func() error { return j.create(j.id, t.cursor.due()) }); err != nil {
			return e, err
		}
		if err := j.refresh(true); err != nil {
			return e, err
		}
	}
	e.Journal, e.Seq = j.id, t.cursor.due()
	line, err := encodeLine(&e)
	if err != nil {
		return e, err
	}
	if len(line) > maxLine {
		return e, fmt.Errorf("record of %d bytes, at most %d are allowed", len(line), maxLine)
	}
	if t.file == nil {
		if t.file, err = os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
			return e, err
		}
	}
	f := t.file
	j.point("append")
	if j.opts.Crash != nil {
		j.tear(f, line, t.off)
	}
	err = j.roomy(func() error {
		if _, err := f.Write(line); err != nil {
			return errors.Join(err, f.Truncate(t.off)) // else the next writer cuts it off
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	j.point("append-written")
	t.off += int64(len(line))
	t.cursor.wrote(e)
	t.most = t.cursor.due()
	j.known.Store(e.Seq)
	if err := datasync(f); err != nil {
		err = fmt.Errorf("%w: %w", errUnsynced, err)
		j.opts.Warn(err.Error())
		return e, err
	}
	j.point("append-synced")
	return e, nil
}

// datasync is fdatasync(2): content and length are on disk, and that is all that a reader needs.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// point is where a test may kill this process.
func (j *Journal) point(name string) {
	if j.opts.Crash != nil {
		j.opts.Crash(name)
	}
}

// tear is a point in the middle of a write. Who lives on takes the half back.
func (j *Journal) tear(f *os.File, line []byte, off int64) {
	if _, err := f.Write(line[:len(line)/2]); err == nil {
		j.point("append-half")
	}
	if err := f.Truncate(off); err != nil {
		j.opts.Warn("taking back half a record: " + err.Error())
	}
}

// roomy does a write, and on a full disk does it again in the space that was set aside for that, piece by piece.
func (j *Journal) roomy(write func() error) error {
	err := write()
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	if !j.full {
		j.full = true
		j.opts.Warn("the disk of " + j.dir + " is full: free some space; steps go on, records go into a reserve")
	}
	f, ferr := os.OpenFile(j.path("reserve"), os.O_WRONLY, 0)
	if ferr != nil {
		return err
	}
	defer f.Close()
	for {
		info, ferr := f.Stat()
		if ferr != nil || info.Size() == 0 {
			return err
		}
		if ferr := f.Truncate(max(0, info.Size()-reserveStep)); ferr != nil {
			return err
		}
		if err = write(); !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return err
		}
	}
}

// mindSpace notes that the disk is full, once, and sets the reserve aside again when there is space.
func (j *Journal) mindSpace() {
	if !j.full {
		return
	}
	if !j.noted {
		j.noted = true
		j.noteLocked("the disk of the journal is full: free some space in "+j.dir, true)
	}
	if time.Since(j.regrown) < regrowWait {
		return
	}
	j.regrown = time.Now()
	var sf unix.Statfs_t
	if err := unix.Statfs(j.path(), &sf); err != nil || int64(sf.Bavail)*int64(sf.Bsize) < 4*reserveSize || !j.growReserve() {
		return
	}
	j.full, j.noted = false, false
	j.opts.Warn("the disk of " + j.dir + " has space again")
	j.noteLocked("the disk of the journal has space again", false)
}

// noteLocked writes a note where the lock is held. A note that cannot be written is dropped: Warn was told.
func (j *Journal) noteLocked(msg string, warning bool) {
	wall, boot, offset := j.stamp()
	_, err := j.write(proto.Event{Kind: proto.KindNote, Source: proto.SourceAgent, Install: j.opts.Install, Time: wall.UTC(), Boot: boot,
		OffsetMS: offset.Milliseconds(), Message: proto.Clip(msg, proto.MaxMessage), Warning: warning})
	if err != nil {
		j.opts.Warn("noting that " + msg + ": " + err.Error())
	}
}

// growReserve sets the reserve aside, wholly or not at all, and reports whether it is there.
func (j *Journal) growReserve() bool {
	f, err := os.OpenFile(j.path("reserve"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	if info.Size() >= reserveSize {
		return true
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, reserveSize)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, reserveSize), 0)
	}
	if err != nil {
		f.Truncate(info.Size()) // give back what a failed write took; the reserve stays as small as it was
		return false
	}
	return true
}

// acquire takes the journal's lock, for which it keeps the file open, and gives the function that lets it go. A journal that
// somebody has removed is made anew, with the number that is due: what was in it comes to readers as notes.
func (j *Journal) acquire() (func(), error) {
	for range 3 { // removed, made anew, opened
		if j.lock == nil {
			f, err := os.OpenFile(j.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
			if errors.Is(err, fs.ErrNotExist) {
				if err := j.remake(); err != nil {
					return nil, err
				}
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("locking: %w", err)
			}
			j.lock = f
		}
		if err := flock(j.lock, lockWait); err != nil {
			return nil, err
		}
		f := j.lock
		if there, err := os.Lstat(j.path("lock")); err == nil {
			if own, err := f.Stat(); err == nil && os.SameFile(there, own) {
				return func() { unix.Flock(int(f.Fd()), unix.LOCK_UN) }, nil
			}
		}
		j.forget() // the directory was removed, or another was put in its place
		j.tail.doubt = true
	}
	return nil, fmt.Errorf("locking %s: somebody removes it again and again", j.path("lock"))
}

// forget closes what is open of the journal.
func (j *Journal) forget() {
	for _, f := range []**os.File{&j.lock, &j.tail.file} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// remake makes the directory of the journal, without a segment.
func (j *Journal) remake() error {
	j.opts.Warn("somebody removed " + j.path() + ": it is made anew; records that were not delivered are lost")
	if err := os.MkdirAll(j.path(), 0o700); err != nil {
		return fmt.Errorf("making the journal anew: %w", err)
	}
	return syncDir(j.dir)
}

// lock takes the flock of path, making the file, and gives the function that lets it go.
func lock(path string, wait time.Duration) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	if err := flock(f, wait); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// flock takes the lock of an open file. It asks again every 2 to 50 ms and gives up with ErrLocked after wait. The kernel
// lets a dead process's lock go.
func flock(f *os.File, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	pause := 2 * time.Millisecond
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("locking %s for %s: %w", f.Name(), wait, ErrLocked)
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}
