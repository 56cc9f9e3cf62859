// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"provost/proto"
)

// Callback is what a system on which no agent runs says of itself. Nothing of it is proven but that it has read the
// ticket of an attempt.
type Callback struct {
	Install, Ticket string
	Stage           string // as the client wrote it
	Failed          bool
	Message         string // at most maxCallback bytes; any bytes
}

const (
	maxCallback     = 4096
	callbackTimeout = time.Second // to read it, and to answer it; the client comes again, or does not care
)

// Callbacks is the URL below which the stages of an attempt are told, without a slash at its end.
func (r Request) Callbacks(install, ticket string) string {
	return "http://" + r.Host + "/boot/callback/" + install + "/" + ticket
}

// serveCallback takes GET and POST alike, since many clients of installers know only one of them. It has a body always:
// iPXE's imgfetch takes an empty one for an error.
func (s *server) serveCallback(w *boundedWriter, r *http.Request, path string) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		s.text(w, http.StatusMethodNotAllowed, "only GET and POST are answered here\n")
		return
	}
	parts := strings.Split(path, "/")
	if len(parts) != 3 || !proto.ValidID(parts[0]) || !secretRE.MatchString(parts[1]) {
		s.text(w, http.StatusNotFound, "there is no such install: use /boot/callback/INSTALL/TICKET/STAGE\n")
		return
	}
	query := r.URL.Query()
	cb := Callback{Install: parts[0], Ticket: parts[1], Stage: parts[2], Message: clip(query.Get("message"), maxCallback)}
	if f := query.Get("failed"); f != "" {
		failed, err := strconv.ParseBool(f)
		if err != nil {
			s.text(w, http.StatusBadRequest, "failed: use 1 or 0\n")
			return
		}
		cb.Failed = failed
	}
	w.rc.SetReadDeadline(time.Now().Add(callbackTimeout)) // an error: this connection knows no deadlines, as in tests
	body, err := io.ReadAll(io.LimitReader(r.Body, maxCallback+1))
	w.rc.SetReadDeadline(time.Time{})
	switch {
	case len(body) > maxCallback:
		s.text(w, http.StatusRequestEntityTooLarge, "a callback has at most 4096 bytes\n")
		return
	case err != nil:
		s.text(w, http.StatusBadRequest, "the body did not come\n")
		return
	case cb.Message == "":
		cb.Message = string(body)
	}
	ctx, cancel := context.WithTimeout(r.Context(), callbackTimeout)
	defer cancel()
	if err := s.decider.Callback(ctx, s.request(r), cb); err != nil {
		s.refuse(w, err, "callback", "install", cb.Install, "stage", clip(cb.Stage, 64), "remote", r.RemoteAddr)
		return
	}
	s.log.Info("callback", "install", cb.Install, "stage", cb.Stage, "failed", cb.Failed, "remote", r.RemoteAddr)
	s.text(w, http.StatusOK, "noted\n")
}
