// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var digestRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Downloads: a server that sends nothing for stallTime is gone, and is asked again, from where it stopped, 5 times at most
// without a byte in between: 5 times 60 s and 4 pauses of 5 s are less than 6 minutes. A download that moves may take long.
const (
	stallTime = 60 * time.Second
	tries     = 5
	pause     = 5 * time.Second
)

// sumsFiles have the checksums of a directory's images: Debian, Ubuntu and SUSE, Red Hat and its rebuilds.
var sumsFiles = []string{"SHA256SUMS", "CHECKSUM", "sha256sum.txt"}

// maxSums bounds a file of checksums, in bytes.
const maxSums = 1 << 20

// fetch gives a local source, downloaded if it was a URL, with the digest that it was promised; where the promise stood is
// told, or nothing. A directory is promised by nobody.
func (o *Options) fetch(ctx context.Context, source string) (local, verified string, err error) {
	if !strings.Contains(source, "://") {
		info, err := os.Stat(source)
		if err != nil {
			return "", "", fmt.Errorf("opening the image: %w", err)
		}
		if info.IsDir() {
			if o.SHA256 != "" {
				return "", "", errors.New("--sha256 is for an image, not for a directory")
			}
			return source, "", nil
		}
		want, from := o.SHA256, "--sha256"
		for _, name := range append([]string{filepath.Base(source) + ".sha256"}, sumsFiles...) {
			if want != "" {
				break
			}
			f, err := os.Open(filepath.Join(filepath.Dir(source), name))
			if err != nil {
				continue
			}
			want, from = sumOf(f, filepath.Base(source)), name
			f.Close()
		}
		return source, from, o.verify(ctx, source, want, &from)
	}
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", "", fmt.Errorf("%q: use a URL of http or https", source)
	}
	want, from := o.SHA256, "--sha256"
	for _, name := range append([]string{path.Base(u.Path) + ".sha256"}, sumsFiles...) {
		if want != "" {
			break
		}
		beside := *u
		beside.Path, beside.RawQuery = path.Join(path.Dir(u.Path), name), ""
		if want, err = o.remoteSum(ctx, beside.String(), path.Base(u.Path)); err != nil {
			return "", "", err
		}
		from = beside.String()
	}
	part := filepath.Join(o.Dir, ".import-"+o.Name+".iso")
	if err := o.download(ctx, source, part); err != nil {
		return "", "", err
	}
	if err := o.verify(ctx, part, want, &from); err != nil {
		return "", "", errors.Join(err, os.Remove(part)) // it would never become right
	}
	return part, from, nil
}

// verify compares; from becomes empty where there is nothing to compare with.
func (o *Options) verify(ctx context.Context, file, want string, from *string) error {
	if want == "" {
		*from = ""
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("verifying the image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("verifying the image: %w", err)
	}
	h := sha256.New()
	for n := int64(0); ; {
		m, err := io.CopyN(h, f, 4<<20)
		n += m
		o.Progress("verifying", n, info.Size())
		if err == io.EOF {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("verifying the image: %w", err)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("the image has the SHA-256 %s, and %s says %s: it is another one, or damaged; nothing was imported", got, *from, want)
	}
	return nil
}

// sumOf finds a file's digest in a list, as coreutils writes it, or BSD, or alone; empty if it is not there.
func sumOf(r io.Reader, name string) string {
	lines := bufio.NewScanner(io.LimitReader(r, maxSums))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 4 && f[0] == "SHA256" && f[1] == "("+name+")" && f[2] == "=":
			f = []string{f[3]}
		case len(f) == 2 && path.Base(strings.TrimPrefix(f[1], "*")) == name:
		case len(f) == 1:
		default:
			continue
		}
		if d := strings.ToLower(f[0]); digestRE.MatchString(d) {
			return d
		}
	}
	return ""
}

func (o *Options) client() *http.Client {
	if o.Client != nil {
		return o.Client
	}
	return http.DefaultClient
}

// remoteSum is sumOf a list at a URL; a list that is not there is empty.
func (o *Options) remoteSum(ctx context.Context, from, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return "", fmt.Errorf("fetching checksums: %w", err)
	}
	resp, err := o.client().Do(req)
	if err != nil {
		return "", fmt.Errorf("fetching checksums: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", nil
	}
	return sumOf(resp.Body, name), nil
}

// errFinal ends a download: asking again does not help.
type errFinal struct{ error }

// download fetches a URL into a file, of which the begin may be there from an earlier call.
func (o *Options) download(ctx context.Context, from, part string) error {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return fmt.Errorf("downloading the image: %w", err)
	}
	defer f.Close()
	for left := tries; ; left-- {
		before, err := f.Seek(0, io.SeekEnd)
		if err == nil {
			err = o.downloadSome(ctx, from, f, before)
		}
		if err == nil {
			return nil
		}
		final := new(errFinal)
		if errors.As(err, final) || ctx.Err() != nil {
			return fmt.Errorf("downloading the image: %w", err)
		}
		if now, _ := f.Seek(0, io.SeekEnd); now > before {
			left = tries
		}
		if left <= 1 {
			return fmt.Errorf("downloading the image: %w; what is here stays, and the same command goes on", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// downloadSome asks for what follows the first bytes of the file. A server that sends the whole again begins anew; the
// file has the ETag of its begin in no place, so that a changed image is found by its digest.
func (o *Options) downloadSome(ctx context.Context, from string, f *os.File, have int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTime, func() { cancel(fmt.Errorf("the server sent nothing for %s", stallTime)) })
	defer stalled.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return errFinal{err}
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := o.client().Do(req)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer resp.Body.Close()
	total := resp.ContentLength
	switch {
	case resp.StatusCode == http.StatusPartialContent:
		total += have
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && strings.HasSuffix(resp.Header.Get("Content-Range"), fmt.Sprintf("/%d", have)):
		return nil // it is all here
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		if have, err = 0, f.Truncate(0); err != nil {
			return errFinal{err}
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New("the file on the server is shorter now")
		}
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("the server says %s", resp.Status)
	default:
		return errFinal{fmt.Errorf("the server says %s", resp.Status)}
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return errFinal{err}
	}
	for n := have; ; {
		stalled.Reset(stallTime)
		m, err := io.CopyN(f, resp.Body, 1<<20)
		n += m
		o.Progress("downloading", n, max(total, 0))
		if err == io.EOF {
			if total > 0 && n < total {
				return fmt.Errorf("the download was cut off after %d of %d bytes", n, total)
			}
			return nil
		}
		if err != nil {
			if perr := new(os.PathError); errors.As(err, &perr) {
				return errFinal{err} // this disk, not the network
			}
			return causeOf(ctx, err)
		}
	}
}

// causeOf is why a request was cut off, where it was cut off here.
func causeOf(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}
