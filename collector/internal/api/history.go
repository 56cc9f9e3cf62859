// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"provost/proto"
)

// history gives the orders that touched a node, ?since= a time (RFC 3339), with the scripts' digests with ?plan=true.
func (a *API) history(c *call) error {
	q := c.r.URL.Query()
	var since time.Time
	if s := q.Get("since"); s != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, s); err != nil {
			return problem(400, proto.CodeBadRequest, "", "since is a time as in RFC 3339")
		}
	}
	plan := false
	switch q.Get("plan") {
	case "", "false":
	case "true":
		plan = true
	default:
		return problem(400, proto.CodeBadRequest, "", "plan is true or false")
	}
	h, err := a.cfg.Registry.History(c.r.PathValue("node"), since, plan)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, h)
}

// peer is the process at the other end of a unix socket.
type peer struct {
	uid   uint32
	login uint32 // who logged in, whatever became of the uid by sudo or su; noLogin if nobody knows
}

// noLogin is an audit login uid that was never set (proc(5), /proc/PID/loginuid).
const noLogin = 1<<32 - 1

// loginOf reads who logged in before a process was started. Where /proc hides other users' processes, nobody knows.
func loginOf(pid int32) uint32 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/loginuid")
	if err != nil {
		return noLogin
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return noLogin
	}
	return uint32(v)
}

// name is the peer for the history: root (uid 0), login alice.
func (p peer) name() string {
	name := userName(p.uid)
	if p.login == noLogin || p.login == p.uid {
		return name
	}
	login, _, _ := strings.Cut(userName(p.login), " (")
	return name + ", login " + login
}
