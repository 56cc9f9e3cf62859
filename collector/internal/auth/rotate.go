// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A CA is rotated by a directory that takes the place of another in one step: the new CA's files, and below old/ those of
// the one before, with the end of the overlap. Until then whoever asks for the old CA by its PinName, or for none, gets it;
// whoever asks for the new one never depends on the old one's key.
const (
	oldDir    = "old"
	untilFile = "until" // RFC 3339
	nextDir   = ".next" // behind the directory's name, while it is being made
)

// MaxOverlap bounds the time for which two CAs count.
const MaxOverlap = 90 * 24 * time.Hour

// ErrOverlap: the CA before this one still counts.
var ErrOverlap = errors.New("the last rotation is not finished")

// Rotate makes a new CA in dir, for new boot scripts, and lets the old one count until a time, for nodes that are being
// installed. A crash leaves the old state or the new one. A collector that runs takes it by Refresh.
func Rotate(dir string, until time.Time) error {
	now := time.Now()
	if until.Before(now) || until.Sub(now) > MaxOverlap {
		return fmt.Errorf("an overlap until %s: use a time within %s from now", until.Format(time.RFC3339), MaxOverlap)
	}
	if _, err := loadCA(dir); err != nil {
		return err
	}
	if old, err := openOld(dir, now); err != nil {
		return err
	} else if old {
		return fmt.Errorf("%w: two old CAs cannot count: finish it first", ErrOverlap)
	}
	next := dir + nextDir
	if err := os.RemoveAll(next); err != nil { // of a rotation that was cut short; what counts is in dir
		return fmt.Errorf("rotating the CA: %w", err)
	}
	if err := makeNext(dir, next, until); err != nil {
		return fmt.Errorf("rotating the CA: %w", errors.Join(err, os.RemoveAll(next)))
	}
	if err := exchange(dir, next); err != nil {
		return fmt.Errorf("rotating the CA: %w", err)
	}
	return nil
}

// makeNext writes what dir is to be.
func makeNext(dir, next string, until time.Time) error {
	before := filepath.Join(next, oldDir)
	if err := os.MkdirAll(before, 0o700); err != nil {
		return err
	}
	if _, err := openIssuer(next, time.Now(), true, nil); err != nil {
		return err
	}
	for _, name := range []string{caFile, caKeyFile, serverFile, signerFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && (name == serverFile || name == signerFile) {
			continue // made anew
		}
		if err == nil {
			err = writeFile(before, name, b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	if err := writeFile(before, untilFile, []byte(until.UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	var both []byte
	for _, d := range []string{next, before} {
		b, err := os.ReadFile(filepath.Join(d, caFile))
		if err != nil {
			return err
		}
		both = append(both, b...)
	}
	if err := writeFile(next, caFile, both, 0o644); err != nil {
		return err
	}
	return inherit(dir, next)
}

// inherit gives everything below next the owner of dir: root may rotate the CA of a collector with a user of its own.
func inherit(dir, next string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(next, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(st.Uid), int(st.Gid)))
	})
}

// exchange puts next in the place of dir, and removes what was there: its files are in next/old.
func exchange(dir, next string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("putting %s in the place of %s: %w", next, dir, err)
	}
	aside, err := filepath.Glob(filepath.Join(next, "old-*"))
	for _, path := range aside {
		err = errors.Join(err, os.Rename(path, filepath.Join(dir, filepath.Base(path))))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close(), os.RemoveAll(next))
}

// Overlap gives the end of the overlap in dir; zero if there is none.
func Overlap(dir string) (until time.Time, err error) {
	path := filepath.Join(dir, oldDir, untilFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err == nil {
		until, err = time.Parse(time.RFC3339, strings.TrimSpace(string(b)))
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading %s: %w: bring it back from a backup, or end the rotation: provostd ca rotate --finish", path, err)
	}
	return until, nil
}

// openOld reports whether an old CA counts, and ends an overlap that is over.
func openOld(dir string, now time.Time) (bool, error) {
	until, err := Overlap(dir)
	if err != nil || until.IsZero() {
		return false, err
	}
	if now.Before(until) {
		return true, nil
	}
	return false, Finish(dir)
}

// Finish ends an overlap: from the next Refresh on the old CA counts no more. Its files are put aside as old-TIME.
func Finish(dir string) error {
	old := filepath.Join(dir, oldDir)
	if _, err := os.Lstat(old); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no rotation to finish in %s", dir)
	}
	aside := filepath.Join(dir, "old-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Rename(old, aside); err != nil {
		return fmt.Errorf("finishing the rotation: %w", err)
	}
	present, err := loadCA(dir)
	if err != nil {
		return err
	}
	if err := writeFile(dir, caFile, present.pem(), 0o644); err != nil {
		return err
	}
	return nil
}
