// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"fmt"
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
	byHeaders := len(parts) == 1
	if !byHeaders && (len(parts) != 3 || !proto.ValidID(parts[0]) || !secretRE.MatchString(parts[1])) {
		s.text(w, http.StatusNotFound, "there is no such answer file\n")
		return
	}
	req := s.request(r)
	var install, ticket string
	file := parts[len(parts)-1]
	var b []byte
	var err error
	if byHeaders {
		if req.MACs, req.Serial = machineHeaders(r.Header); len(req.MACs) == 0 && req.Serial == "" {
			s.text(w, http.StatusNotFound, "who asks? add inst.ks.sendmac to the kernel arguments, which sends X-RHN-Provisioning-MAC-0\n")
			return
		}
		b, ticket, err = s.decider.AnswerOf(r.Context(), req, file)
	} else {
		install, ticket = parts[0], parts[1]
		b, err = s.decider.Answer(r.Context(), req, install, ticket, file)
	}
	if err != nil {
		s.refuse(w, err, "answer file", "install", install, "file", file, "remote", r.RemoteAddr)
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

// maxCards bounds the cards that a machine may have in headers.
const maxCards = 64

// machineHeaders reads what Anaconda sends by inst.ks.sendmac, "X-RHN-Provisioning-MAC-0: eth0 52:54:00:12:34:56" and so on,
// and by inst.ks.sendsn.
func machineHeaders(h http.Header) (macs []string, serial string) {
	for i := range maxCards {
		f := strings.Fields(h.Get(fmt.Sprintf("X-RHN-Provisioning-MAC-%d", i)))
		if len(f) == 0 {
			continue
		}
		if mac, err := proto.NormalMAC(f[len(f)-1]); err == nil {
			macs = append(macs, mac)
		}
	}
	return macs, clip(h.Get("X-System-Serial-Number"), 128)
}
