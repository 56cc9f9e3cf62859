// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"provost/proto"
)

// AnswerPrefix begins the names of answer files in Decider.Sent.
const AnswerPrefix = "answer/"

// Answer is the URL of an answer file as the machine reaches it; without a file's name, of the directory of all of them.
func (r Request) Answer(install, ticket, file string) string {
	return "http://" + r.Host + "/boot/answer/" + install + "/" + ticket + "/" + file
}

// serveAnswer sends an answer file, any number of times: which of them are to be had is the decider's.
func (s *server) serveAnswer(w *boundedWriter, r *http.Request, path string) {
	parts := strings.Split(path, "/")
	if len(parts) != 3 || !proto.ValidID(parts[0]) || !secretRE.MatchString(parts[1]) {
		s.text(w, http.StatusNotFound, "there is no such answer file\n")
		return
	}
	install, ticket, file := parts[0], parts[1], parts[2]
	req := Request{Method: r.Method, UserAgent: clip(r.UserAgent(), 256), Host: hostOf(r), RemoteAddr: r.RemoteAddr}
	b, err := s.decider.Answer(r.Context(), req, install, ticket, file)
	if p := new(proto.Problem); errors.As(err, &p) && p.Status < 500 {
		s.log.Warn("answer file refused", "install", install, "file", file, "remote", r.RemoteAddr, "err", err)
		s.text(w, p.Status, p.Detail+"\n")
		return
	}
	if err != nil {
		s.log.Error("answer file cannot be made", "install", install, "file", file, "remote", r.RemoteAddr, "err", err)
		s.text(w, http.StatusServiceUnavailable, problemText(err)+"\n")
		return
	}
	s.text(w, http.StatusOK, string(b))
	if r.Method != http.MethodGet {
		return
	}
	// The machine may be gone already, and what it fetched is a fact all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), sentTimeout)
	defer cancel()
	s.decider.Sent(ctx, ticket, AnswerPrefix+file, !w.failed)
}
