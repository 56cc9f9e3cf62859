// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"provost/proto"
)

func (a *API) installs(c *call) error {
	all, err := a.cfg.Registry.Installs(c.r.PathValue("node"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, proto.InstallList{Schema: proto.Schema, Installs: all})
}

func (a *API) oneInstall(c *call) error {
	v, err := a.cfg.Registry.Install(c.r.PathValue("node"), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, v)
}

func (a *API) installEvents(c *call) error {
	v, lines, err := a.cfg.Registry.EventLines(c.r.PathValue("node"), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	head, err := json.Marshal(proto.EventList{Schema: proto.Schema, Install: v, Events: []proto.Event{}})
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	c.head(http.StatusOK)
	next := bytes.TrimSuffix(head, []byte("]}")) // events is the last, and empty
	for _, line := range lines {
		c.w.Write(next)
		if _, err := c.w.Write(line); err != nil {
			panic(http.ErrAbortHandler) // the client has gone, or must not take it for whole
		}
		next = []byte(",")
	}
	if len(lines) == 0 {
		c.w.Write(next)
	}
	c.w.Write([]byte("]}"))
	return nil
}

func (a *API) logs(c *call) error {
	logs, err := a.cfg.Registry.InstallLogs(c.r.PathValue("node"), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, proto.LogList{Schema: proto.Schema, Logs: logs})
}

// LogSize is the header that tells a log's whole length.
const LogSize = "Provost-Log-Size"

// log sends a log's bytes as they are, from ?offset= to its present end, or as a Range header says.
func (a *API) log(c *call) error {
	f, err := a.cfg.Registry.OpenLog(c.r.PathValue("node"), c.r.PathValue("id"), c.r.PathValue("name"))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading log: %w", err)
	}
	size, offset := info.Size(), int64(0)
	if s := c.r.URL.Query().Get("offset"); s != "" {
		if offset, err = strconv.ParseInt(s, 10, 64); err != nil || offset < 0 {
			return problem(400, proto.CodeBadRequest, "", "offset: a number of bytes")
		}
	}
	h := c.w.Header()
	h.Set(LogSize, strconv.FormatInt(size, 10))
	if offset > size {
		return problem(416, proto.CodeBadRequest, "begin at an offset that the log has", "the log has %d bytes", size)
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	c.ctl.SetWriteDeadline(time.Now().Add(logTime(size - offset)))
	http.ServeContent(c.w, c.r, "", time.Time{}, io.NewSectionReader(f, offset, size-offset))
	return nil
}

// logTime bounds the sending of a log: a reader gets at least 64 KiB/s, or is cut off.
func logTime(n int64) time.Duration { return answerTime + time.Duration(n/(64<<10))*time.Second }
