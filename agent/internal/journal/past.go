// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"provost/proto"
)

const replicaName = "REPLICA"

// Past is an older journal of the same directory: it was the mirror of one whose boot is over. Its last records may be
// missing for ever. It is never written again.
type Past struct {
	dir  string
	id   string
	last uint64
}

// ID is the past journal's id.
func (p *Past) ID() string { return p.id }

// Last is the number of its last record, 0 if it has none.
func (p *Past) Last() (uint64, error) { return p.last, nil }

// Read is like the Read of a Journal.
func (p *Past) Read(from uint64, maxEvents, maxBytes int) ([]Record, error) {
	return readSome(p.dir, p.id, from, maxEvents, maxBytes)
}

// Past lists the older journals of the directory. Mostly there is none, or one: the installer's.
func (j *Journal) Past() ([]*Past, error) {
	dirs, err := filepath.Glob(filepath.Join(j.dir, "journal.*"))
	if err != nil {
		return nil, fmt.Errorf("listing past journals: %w", err)
	}
	var out []*Past
	for _, dir := range dirs {
		id := strings.TrimPrefix(filepath.Base(dir), "journal.")
		if !proto.ValidJournal(id) || id == j.id {
			continue
		}
		p := &Past{dir: dir, id: id}
		for r, err := range Scan(dir) {
			if err != nil {
				return out, err
			}
			p.last = r.Seq
		}
		out = append(out, p)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].stamp() < out[b].stamp() })
	return out, nil
}

// stamp orders past journals by when they were last written.
func (p *Past) stamp() string {
	segs, err := segments(p.dir)
	if err != nil || len(segs) == 0 {
		return p.id
	}
	info, err := os.Stat(segs[len(segs)-1].path)
	if err != nil {
		return p.id
	}
	return info.ModTime().UTC().Format("20060102150405.000000000") + p.id
}

// retireReplica turns a mirror of an earlier boot into a past journal with a new, empty one in its place. There is a
// directory named journal at any moment, even through a power cut, where the file system can exchange two names.
func (j *Journal) retireReplica() error {
	fresh := filepath.Join(j.dir, "journal.new")
	if _, err := os.Lstat(filepath.Join(fresh, replicaName)); err == nil { // a crash came between exchange and rename
		return putAside(j.dir, fresh)
	}
	if _, err := os.Lstat(j.path(replicaName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, now, _ := j.stamp()
	for r, err := range Scan(j.path()) {
		if err == nil && r.Event.Boot == now {
			return ErrReplica
		}
	}
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	line, err := encodeLine(header{proto.NewJournal(), 1, version})
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(fresh, segmentName(1)), line, 0o600); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, j.path(), unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err := putAside(j.dir, j.path()); err != nil {
			return err
		}
		return os.Rename(fresh, j.path())
	}
	if err != nil {
		return fmt.Errorf("beginning a journal in place of the installer's: %w", err)
	}
	return putAside(j.dir, fresh)
}

// putAside renames the mirror in dir to journal.ID.
func putAside(state, dir string) error {
	segs, err := segments(dir)
	if err != nil {
		return err
	}
	id, err := identity(segs)
	if err != nil {
		return err
	}
	if id == "" {
		id = "damaged-" + proto.NewJournal()
	}
	if err := os.Rename(dir, filepath.Join(state, "journal."+id)); err != nil {
		return err
	}
	return syncDir(state)
}
