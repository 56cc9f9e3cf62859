// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

const (
	// lockWait bounds the wait for another process's append: one write and one sync, a hundred times over.
	lockWait = 10 * time.Second
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
// time, and is written before the next one; only one that ErrBudget refuses is dropped. It waits at most lockWait for
// other processes and mirrorWait for the mirror.
func (j *Journal) Append(e proto.Event) (proto.Event, error) {
	e, err := j.append(e)
	if err == nil {
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

	j.mu.Lock()
	defer j.mu.Unlock()
	unlock, err := lock(j.path("lock"), lockWait)
	if err != nil {
		return e, j.keep(e, err)
	}
	defer unlock()
	if err := j.refresh(true); err != nil {
		return e, j.keep(e, err)
	}
	for len(j.pending) > 0 {
		if _, err := j.write(j.pending[0]); err != nil {
			return e, j.keep(e, err)
		}
		j.pending = j.pending[1:]
	}
	if (e.Kind == proto.KindNote || e.Kind == proto.KindStage) && int64(j.tail.count)*segmentSize > max(j.opts.MaxBytes/4, segmentSize) {
		return e, ErrBudget
	}
	w, err := j.write(e)
	if err != nil {
		return e, j.keep(e, err)
	}
	j.mindSpace()
	return w, nil
}

// keep puts a record into memory, to be written before the next one.
func (j *Journal) keep(e proto.Event, err error) error {
	if len(j.pending) >= maxPending {
		return fmt.Errorf("appending to journal: %w; %d records wait in memory already: this one is lost", err, maxPending)
	}
	j.pending = append(j.pending, e)
	return fmt.Errorf("appending to journal: %w; the record waits in memory", err)
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
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return e, err
	}
	defer f.Close()
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
	t.off, _ = t.cursor.lines(t.path, t.off, line, func(Record) bool { return true })
	if err := f.Sync(); err != nil {
		// The line stands in the file: written again it would be there twice. Whether it lasts nobody knows.
		j.opts.Warn("syncing the journal: " + err.Error() + ": what is recorded now may not survive a power cut")
	}
	j.point("append-synced")
	return e, nil
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
	var fs unix.Statfs_t
	if err := unix.Statfs(j.path(), &fs); err != nil || int64(fs.Bavail)*int64(fs.Bsize) < 4*reserveSize || !j.growReserve() {
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

// lock takes the flock of path, making the file, and gives the function that lets it go. It asks again every 2 to 50 ms
// and gives up with ErrLocked after wait. The kernel lets a dead process's lock go.
func lock(path string, wait time.Duration) (func(), error) {
	deadline := time.Now().Add(wait)
	pause := 2 * time.Millisecond
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("locking %s for %s: %w", path, wait, ErrLocked)
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}
