// SPDX-License-Identifier: Apache-2.0

// Package image brings the installers of distributions below the images directory, from an ISO image, a directory or a URL,
// and finds the kernel and the initrd that a profile needs. It needs no mount and no program beside it.
//
// It must never leave half an image under a name that is served, follow a link out of its source, or take content that does
// not have the digest that it was promised.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Options of Import. Dir and Name are required.
type Options struct {
	Dir     string // the images directory
	Name    string // of the new directory in it
	SHA256  string // of the ISO image, in hex; empty: as the checksums beside it say, if there are any
	Replace bool   // a directory of that name is taken away once the new one is whole

	// Progress is told what is being done, and how far it is: bytes of total, which is 0 where it is not known.
	Progress func(what string, done, total int64)
	Client   *http.Client // for URLs; http.DefaultClient if nil
}

// Result is what was imported. Kernel and Initrd are as a profile names them, empty if none was found.
type Result struct {
	Path           string // of the directory
	Family         string // of the distribution, as profiles name it
	Kernel, Initrd string
	Answer, Args   string // what its profile may say, too
	Files          int
	Bytes          int64
	Links          int    // symbolic links, which are left out
	Verified       string // where the digest came from that the image has; empty: nobody said one
	Unverified     bool   // an ISO image that nobody said a digest of; a directory has none
	Note           string // what is good to know of this kind of image
}

// Import takes an ISO image, a directory, or a URL of an ISO image. A download that was cut off is continued by the next
// call with the same name. What it makes is under a hidden name until it is whole and on the disk.
func Import(ctx context.Context, source string, o Options) (*Result, error) {
	if err := proto.CheckName("image", o.Name); err != nil {
		return nil, err
	}
	if o.Name == "overlay" {
		return nil, errors.New("image overlay: that name is the agent's initrd: take another one")
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	o.SHA256 = strings.ToLower(strings.TrimSpace(o.SHA256))
	if o.SHA256 != "" && !digestRE.MatchString(o.SHA256) {
		return nil, fmt.Errorf("sha256 %q: use 64 hex digits", o.SHA256)
	}
	target := filepath.Join(o.Dir, o.Name)
	if _, err := os.Lstat(target); err == nil && !o.Replace {
		return nil, fmt.Errorf("%s is there already: take another name, or --replace", target)
	}
	if _, err := os.Stat(o.Dir); errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(o.Dir, dirMode)
		if err = errors.Join(err, os.Chmod(o.Dir, dirMode)); err != nil { // whatever the umask is: the service reads it
			return nil, fmt.Errorf("making the images directory: %w", err)
		}
	}
	lock, err := lock(filepath.Join(o.Dir, ".import-"+o.Name+".lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close()

	iso, verified, err := o.fetch(ctx, source)
	if err != nil {
		return nil, err
	}
	tree, err := openTree(iso)
	if err != nil {
		return nil, err
	}
	defer tree.close()
	work := filepath.Join(o.Dir, ".import-"+o.Name)
	if err := os.RemoveAll(work); err != nil { // of a run that was killed
		return nil, fmt.Errorf("clearing %s: %w", work, err)
	}
	_, directory := tree.(*dirTree)
	r := &Result{Path: target, Verified: verified, Unverified: verified == "" && !directory}
	err = o.copy(ctx, tree, work, r)
	if err == nil {
		r.find(work, o.Name)
		err = o.keepISO(ctx, iso, source, work, r)
	}
	if err == nil {
		err = publish(work, target)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	if iso != source { // downloaded
		if err := os.Remove(iso); err != nil && !errors.Is(err, os.ErrNotExist) { // it is in the tree
			return nil, fmt.Errorf("removing the download: %w", err)
		}
	}
	return r, nil
}

// keepISO puts the ISO image itself into the tree that was made of it, where the family's installer fetches that. A download
// is moved, another file copied.
func (o *Options) keepISO(ctx context.Context, iso, source, work string, r *Result) error {
	if r.Family != isoFamily {
		return nil
	}
	info, err := os.Stat(iso)
	if err != nil {
		return fmt.Errorf("keeping the image: %w", err)
	}
	if info.IsDir() {
		r.Note, r.Args = isoNote, ""
		return nil
	}
	r.Note = fmt.Sprintf("the live system holds the whole ISO image in memory: nodes want %d MB for it, and some 2 GB more", info.Size()/1e6)
	to := filepath.Join(work, isoName)
	if iso != source { // downloaded, on this file system
		if err := errors.Join(os.Chmod(iso, fileMode), os.Rename(iso, to)); err != nil {
			return fmt.Errorf("keeping the image: %w", err)
		}
	} else {
		root, err := os.OpenRoot(work)
		if err != nil {
			return fmt.Errorf("keeping the image: %w", err)
		}
		defer root.Close()
		e := entry{size: info.Size(), time: info.ModTime(), open: func() (io.ReadCloser, error) { return os.Open(iso) }}
		if _, err := copyFile(ctx, root, isoName, e, func(n int64) { o.Progress("keeping the ISO image", n, info.Size()) }); err != nil {
			return fmt.Errorf("keeping the image: %w", err)
		}
	}
	r.Files, r.Bytes = r.Files+1, r.Bytes+info.Size()
	return nil
}

// lock keeps two imports of one name apart. It is let go when the file is closed; the file stays.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the lock of this import: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another import of this name is under way (%s): %w", path, err)
	}
	return f, nil
}

// publish puts the whole tree to disk, then under its name. A power cut leaves the old one, the new one, or, if an old one
// had to go, for a moment none.
func publish(work, target string) error {
	d, err := os.Open(filepath.Dir(work))
	if err != nil {
		return fmt.Errorf("publishing the image: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil { // one for thousands of files
		return fmt.Errorf("writing the image to disk: %w", err)
	}
	old := work + ".old"
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("clearing %s: %w", old, err)
	}
	if err := os.Rename(target, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("putting the old image aside: %w", err)
	}
	if err := os.Rename(work, target); err != nil {
		return fmt.Errorf("publishing the image: %w", err)
	}
	if err := errors.Join(d.Sync(), os.RemoveAll(old)); err != nil {
		return fmt.Errorf("publishing the image: %w", err)
	}
	return nil
}
