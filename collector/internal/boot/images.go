// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// firmwareFile is the boot loader for firmware that boots by HTTP itself, below the images directory.
const firmwareFile = "ipxe.efi"

// serveImage sends a file below the images directory, or the overlay.
func (s *server) serveImage(w *boundedWriter, r *http.Request, name string) {
	ticket := r.URL.Query().Get("t")
	if rest, ok := strings.CutPrefix(name, "~"); ok {
		ticket, name, _ = strings.Cut(rest, "/")
	}
	f, info, err := s.openImage(name)
	why := ""
	if err != nil {
		why = s.noImage(w, name, err)
	} else {
		defer f.Close()
		s.sendFile(w, r, f, info)
	}
	if r.Method != http.MethodGet || !secretRE.MatchString(ticket) || why == "" && w.status >= 400 { // 416: a part that is none
		return
	}
	file := "images/" + name
	if name == overlay {
		file = overlay
	}
	// The machine may be gone already, and what it fetched is a fact all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), sentTimeout)
	defer cancel()
	if why != "" {
		s.decider.Unsent(ctx, ticket, file, why)
		return
	}
	s.decider.Sent(ctx, ticket, file, w.sentEnd(info.Size()))
}

// serveFirmware answers the firmware's own HTTP boot, whose HEAD and GET want an EFI program.
func (s *server) serveFirmware(w *boundedWriter, r *http.Request) {
	f, info, err := s.openImage(firmwareFile)
	if err != nil {
		s.text(w, http.StatusNotFound, "this is for iPXE; to boot the firmware by HTTP put "+firmwareFile+" into the images directory\n")
		return
	}
	defer f.Close()
	s.sendFile(w, r, f, info)
}

// contentTypes are those that some client looks at; iPXE, GRUB and the installers look at none.
var contentTypes = map[string]string{
	".efi": "application/efi", // firmware that boots by HTTP (UEFI 2.10, 24.7.2)
	".txt": "text/plain; charset=utf-8", ".cfg": "text/plain; charset=utf-8", ".ipxe": "text/plain; charset=utf-8",
	".xml": "application/xml", ".json": "application/json", ".iso": "application/vnd.efi.iso",
	".rpm": "application/x-rpm", ".deb": "application/vnd.debian.binary-package",
}

func (s *server) sendFile(w *boundedWriter, r *http.Request, f *os.File, info fs.FileInfo) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if t, ok := contentTypes[path.Ext(info.Name())]; ok {
		h.Set("Content-Type", t)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", fmt.Sprintf(`"%x-%x"`, info.Size(), info.ModTime().UnixNano())) // for If-Range: a part of the old file is no use
	http.ServeContent(w, r, "", info.ModTime(), f)
}

var errNotRegular = errors.New("no regular file")

// openImage opens a regular file; a symbolic link that leads out of the images directory is an error.
func (s *server) openImage(name string) (*os.File, fs.FileInfo, error) {
	var f *os.File
	var err error
	if name == overlay {
		if s.opts.Overlay == "" {
			return nil, nil, fmt.Errorf("no overlay is set: %w", fs.ErrNotExist)
		}
		f, err = os.Open(s.opts.Overlay)
	} else {
		f, err = s.openBelow(name)
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// openBelow has nothing hidden at the top: what is being imported has such a name until it is whole. Anaconda reads the
// file .treeinfo of a distribution.
func (s *server) openBelow(name string) (*os.File, error) {
	if name == "" || strings.HasPrefix(name, ".") {
		return nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(s.opts.ImagesDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular // before it is opened: a FIFO would block
	}
	return root.Open(name)
}

// noImage answers for a file that cannot be had, and says why to its operator.
func (s *server) noImage(w http.ResponseWriter, name string, err error) (why string) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
		s.log.Warn("image asked for is not there", "file", name, "err", err)
		s.text(w, http.StatusNotFound, "there is no image "+path.Base(name)+"\n")
		return "404: there is no such file in the images directory"
	}
	s.log.Error("image cannot be read", "file", name, "err", err)
	s.text(w, http.StatusForbidden, "the image "+path.Base(name)+" cannot be read: the collector's log has the reason\n")
	return "403: provostd cannot read it, its log has the reason"
}

// chunk is how much may be written under one deadline: a client that takes less than 1 MiB in 60 s is gone.
const chunk = 1 << 20

// boundedWriter gives each write a deadline of its own, so that a transfer may last as long as it moves. It keeps
// sendfile: the file itself is handed on, in pieces.
type boundedWriter struct {
	http.ResponseWriter
	rc     *http.ResponseController
	status int
	body   int64
	failed bool
}

func (w *boundedWriter) extend() {
	w.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // an error: this connection knows no deadlines, as in tests
}

// finish sends what is left under the deadline, and takes the deadline away: the connection may serve further requests.
func (w *boundedWriter) finish() {
	w.extend()
	w.rc.Flush()
	w.rc.SetWriteDeadline(time.Time{})
}

func (w *boundedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *boundedWriter) note(n int64, err error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.body += n
	w.failed = w.failed || err != nil
}

func (w *boundedWriter) Write(b []byte) (int, error) {
	w.extend()
	n, err := w.ResponseWriter.Write(b)
	w.note(int64(n), err)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *boundedWriter) ReadFrom(src io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	limit := int64(1<<63 - 1)
	outer, limited := src.(*io.LimitedReader)
	if limited {
		// sendfile wants the file itself with one limit around it
		limit, src = outer.N, outer.R
	}
	var total int64
	for total < limit {
		w.extend()
		want := min(chunk, limit-total)
		n, err := to.ReadFrom(&io.LimitedReader{R: src, N: want})
		total += n
		w.note(n, err)
		if limited {
			outer.N -= n
		}
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// sentEnd reports whether the last byte of a file of this size was sent.
func (w *boundedWriter) sentEnd(size int64) bool {
	if w.failed {
		return false
	}
	switch w.status {
	case http.StatusNotModified:
		return true // a proxy on the way has the whole file
	case http.StatusOK:
		return w.body == size
	case http.StatusPartialContent:
		var first, last, all int64
		n, _ := fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &all)
		return n == 3 && last == size-1 && w.body == last-first+1
	}
	return false
}
