// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Errors of Open and Append.
var (
	// ErrReplica: the directory is the mirror of a journal of this very boot, which is being written elsewhere.
	ErrReplica = errors.New("this is the mirror of a journal of this boot, not the journal: use --state /run/provost, or inside a step PROVOST_STATUS")
	// ErrLocked: another process held the journal's lock for longer than lockWait.
	ErrLocked = errors.New("journal is locked by another process")
	// ErrHung: the disk did not answer for diskWait. What is to be written is, when it answers.
	ErrHung = errors.New("disk does not answer: see the kernel's log, dmesg")
	// ErrBudget: the journal has used its share of Options.MaxBytes, and the record was a note or a stage.
	ErrBudget = errors.New("journal has reached its size: notes and stages are no longer kept")
	// errUnsynced: the record stands in the file; written again it would be there twice. Whether it lasts nobody knows.
	errUnsynced = errors.New("syncing the journal: what is recorded now may not survive a power cut")
)

const (
	// defaultMax bounds journal and logs where the host says nothing.
	defaultMax = 64 << 20
	// maxPending is how many records wait in memory for a disk that takes none. At some 500 bytes each that is 0.5 MiB;
	// an install of 100 steps writes 250.
	maxPending = 1000
)

// Stamp gives the wall clock, the kernel's boot id, and the time since that boot.
type Stamp func() (wall time.Time, boot string, offset time.Duration)

// Options of Open. The zero value is good.
type Options struct {
	LogDir   string       // where logs are; logs/ in the state directory if empty
	MaxBytes int64        // of journal and logs together; 64 MiB if 0. A quarter of it is the journal's
	Install  string       // of events that do not say theirs
	Warn     func(string) // told once of each trouble of the journal itself, and of its end; may be nil. It must not wait for the journal or its logs
	// Crash is called where a crash would hurt the most, with the place's name; nil outside of tests.
	Crash func(point string)
}

// Journal is one agent process's handle. Several processes may have the same directory open, several goroutines one
// handle.
type Journal struct {
	dir    string // state directory
	stamp  Stamp
	opts   Options
	mirror *mirror

	late  late          // has its own lock
	logs  logs          // likewise
	known atomic.Uint64 // number of the last record that was seen or written

	mu      sync.Mutex
	id      string
	lock    *os.File // of the writers; nil before the first Append
	tail    tail
	pending []proto.Event // not yet written, oldest first
	full    bool          // the disk was full the last time
	noted   bool          // and a record says so
	regrown time.Time     // when the reserve was last looked after
	damage  []*CorruptionErr
}

// tail is what is known of the journal's end. It is only ever behind the truth, since complete lines do not change.
type tail struct {
	path   string
	file   *os.File // for appending; nil before the first
	off    int64    // after the last complete line
	cursor cursor
	most   uint64 // the greatest number that was due so far
	doubt  bool   // the directory may be another's
	count  int    // segments
}

// Open opens the journal of the state directory dir, and makes it on first use. A torn tail is cut off; damage before it
// is told by Damage. When dir holds a mirror of an earlier boot, that becomes a Past one and a new journal begins.
func Open(dir string, stamp Stamp, opts Options) (*Journal, error) {
	if opts.LogDir == "" {
		opts.LogDir = filepath.Join(dir, "logs")
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = defaultMax
	}
	if opts.Warn == nil {
		opts.Warn = func(string) {}
	}
	j := &Journal{dir: dir, stamp: stamp, opts: opts}
	j.mirror = newMirror(j)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making state directory: %w", err)
	}
	if err := os.MkdirAll(opts.LogDir, 0o700); err != nil {
		return nil, fmt.Errorf("making log directory: %w", err)
	}
	if err := j.begin(); err != nil {
		return nil, fmt.Errorf("opening journal in %s: %w", dir, err)
	}
	return j, nil
}

func (j *Journal) path(name ...string) string {
	return filepath.Join(append([]string{j.dir, "journal"}, name...)...)
}

// begin makes or repairs the journal and reads it once from end to end. One process at a time does that.
func (j *Journal) begin() error {
	open, err := lock(filepath.Join(j.dir, "open.lock"), lockWait)
	if err != nil {
		return err
	}
	defer open()
	if err := j.retireReplica(); err != nil {
		return err
	}
	return j.load()
}

func (j *Journal) load() error {
	if err := os.Mkdir(j.path(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	unlock, err := lock(j.path("lock"), lockWait)
	if err != nil {
		return err
	}
	defer unlock()
	segs, err := segments(j.path())
	if err != nil {
		return err
	}
	if j.id, err = identity(segs); err != nil {
		return err
	}
	if j.id == "" && unwritten(segs) {
		j.id = proto.NewJournal()
		if err := j.create(j.id, 1); err != nil {
			return err
		}
	}
	if j.id == "" { // not one header is left: nobody can say whose records these are
		return j.abandon()
	}
	if err := walk(j.path(), j.id, 1, false, func(c *CorruptionErr) { j.damage = append(j.damage, c) }, func(Record) bool { return true }); err != nil {
		return err
	}
	if err := j.refresh(true); err != nil {
		return err
	}
	j.growReserve()
	return nil
}

// identity finds the journal's id in the first segment that still says it.
func identity(segs []segment) (string, error) {
	for _, s := range segs {
		b, err := readAll(s.path, 0, false)
		if err != nil {
			return "", err
		}
		line, _, ok := strings.Cut(string(b), "\n")
		if !ok {
			continue
		}
		h, err := decodeHeader([]byte(line))
		if err == nil {
			return h.Journal, nil
		}
		if h.Version > version {
			return "", err
		}
	}
	// Without a header, an event says it too.
	for _, s := range segs {
		b, err := readAll(s.path, 0, false)
		if err != nil {
			return "", err
		}
		if e := firstEvent(b); proto.ValidJournal(e.Journal) {
			return e.Journal, nil
		}
	}
	return "", nil
}

// unwritten reports whether there is no line yet: a new directory, or one whose first segment a crash cut short.
func unwritten(segs []segment) bool {
	if len(segs) == 0 {
		return true
	}
	b, err := readAll(segs[0].path, 0, false)
	return err == nil && len(segs) == 1 && segs[0].first == 1 && !bytes.Contains(b, []byte{'\n'})
}

// abandon puts a directory in which nothing can be read aside and begins anew.
func (j *Journal) abandon() error {
	aside := filepath.Join(j.dir, fmt.Sprintf("journal.damaged-%d", time.Now().UnixNano()))
	j.damage = append(j.damage, &CorruptionErr{j.path(), 0, fmt.Errorf("no header and no record can be read; it is kept as %s", aside)})
	if err := os.Rename(j.path(), aside); err != nil {
		return err
	}
	return j.load()
}

// create makes a segment: whole or not at all, even through a power cut.
func (j *Journal) create(id string, first uint64) error {
	line, err := encodeLine(header{id, first, version})
	if err != nil {
		return err
	}
	return writeFile(j.path(segmentName(first)), line, 0o600)
}

// writeFile makes a file by writing another and renaming it. Both the file and its name are on disk when it returns.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // some file systems cannot sync a directory
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	return nil
}

// refresh brings j.tail up to what is in the files. With repair, which needs the lock, a torn tail is cut off.
func (j *Journal) refresh(repair bool) error {
	if j.current() {
		return nil
	}
	t := &j.tail
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
	segs, err := segments(j.path())
	if err != nil {
		return err
	}
	if t.doubt {
		if id, err := identity(segs); err != nil || len(segs) > 0 && id != j.id {
			return errors.Join(err, fmt.Errorf("somebody put another journal, %s, in the place of %s", id, j.id))
		}
		t.doubt = false
	}
	if len(segs) == 0 {
		if !repair {
			return fmt.Errorf("no segment in %s: somebody removed the journal", j.path())
		}
		return j.proceed()
	}
	last := segs[len(segs)-1]
	t.count = len(segs)
	if t.path != last.path {
		due, near := last.first, t.cursor.near
		if t.path == "" && len(segs) > 1 { // for the boot id of notes only
			if b, err := readAll(segs[len(segs)-2].path, 0, false); err == nil {
				near = firstEvent(b)
			}
		}
		t.path, t.off, t.cursor = last.path, 0, cursor{next: due, id: j.id, near: near}
	}
	if last.size != t.off {
		if err := j.follow(last, repair); err != nil {
			return err
		}
	}
	if repair && t.cursor.due() < t.most { // somebody removed the last segment
		return j.proceed()
	}
	t.most = max(t.most, t.cursor.due())
	return nil
}

// follow reads what the last segment has beyond j.tail. With repair it cuts off a torn tail.
func (j *Journal) follow(last segment, repair bool) error {
	t := &j.tail
	b, err := readAll(last.path, t.off, false)
	if err != nil {
		return err
	}
	end, _ := t.cursor.lines(last.path, t.off, b, func(Record) bool { return true })
	torn := t.off + int64(len(b)) - end
	t.off = end
	if !repair || torn == 0 {
		return nil
	}
	if err := os.Truncate(last.path, end); err != nil {
		return fmt.Errorf("cutting off the torn tail of %s: %w", last.path, err)
	}
	if end == 0 { // not even the header is whole: a power cut between the file's name and its content
		return j.create(j.id, last.first)
	}
	return nil
}

// proceed begins a segment where somebody removed what was there. No number is given twice.
func (j *Journal) proceed() error {
	if err := j.create(j.id, max(j.tail.cursor.due(), j.tail.most, 1)); err != nil {
		return err
	}
	return j.refresh(false)
}

// current reports that j.tail is up to date, without a look at the directory: the segment that is open has not grown, is not
// full, so that nobody has begun the next, and nobody has removed it.
func (j *Journal) current() bool {
	t := &j.tail
	var st unix.Stat_t
	return t.file != nil && unix.Fstat(int(t.file.Fd()), &st) == nil && st.Size == t.off && t.off < segmentSize && st.Nlink > 0
}

// ID is the journal's id: 16 hex digits, made with it.
func (j *Journal) ID() string { return j.id }

// Damage is what Open found wrong in files that it did not repair. Read gives a note in place of each lost record.
func (j *Journal) Damage() []*CorruptionErr {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.damage)
}

// Last is the number of the last record, 0 if there is none. It waits for the disk at most diskWait; with ErrHung it is the number
// that was last known. It costs a directory listing when nothing has changed.
func (j *Journal) Last() (uint64, error) {
	err := attempt(j, nil, func() error {
		j.mu.Lock()
		defer j.mu.Unlock()
		err := j.refresh(false)
		if err == nil {
			j.known.Store(j.tail.cursor.due() - 1)
		}
		return err
	})
	return j.known.Load(), err
}

// Read gives records in order from number from on: at most maxEvents and maxBytes, but at least one if there is one.
// They are on disk. Records of other processes are among them. It waits for the disk at most diskWait.
func (j *Journal) Read(from uint64, maxEvents, maxBytes int) ([]Record, error) {
	var records []Record
	err := attempt(j, nil, func() (err error) {
		records, err = readSome(j.path(), j.id, from, maxEvents, maxBytes)
		return err
	})
	if errors.Is(err, ErrHung) {
		return nil, err
	}
	return records, err
}

// Events gives all records of all journals of the directory, past ones first.
func (j *Journal) Events() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		past, err := j.Past()
		if err != nil && !yield(Record{}, err) {
			return
		}
		for _, p := range past {
			for r, err := range Scan(p.dir) {
				if !yield(r, err) {
					return
				}
			}
		}
		for r, err := range Scan(j.path()) {
			if !yield(r, err) {
				return
			}
		}
	}
}

// Close ends the handle. It waits for the mirror at most mirrorWait, and for the disk at most diskWait. Records that no disk took are lost then, and the
// error says how many.
func (j *Journal) Close() error {
	j.mirror.close()
	if j.late.hanging() { // that was waited for already
		return fmt.Errorf("closing journal: %w; what it has not taken is lost", ErrHung)
	}
	lost := make(chan int, 1)
	go func() {
		j.syncLogs()
		j.mu.Lock()
		defer j.mu.Unlock()
		j.forget()
		lost <- len(j.pending) + j.late.lost()
	}()
	select {
	case n := <-lost:
		if n > 0 {
			return fmt.Errorf("closing journal: %d records could never be written", n)
		}
	case <-time.After(diskWait):
		return fmt.Errorf("closing journal: %w; what it has not taken is lost", ErrHung)
	}
	return nil
}
