// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"provost/collector/internal/eventjson"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

// The bounds of the checklist: 4 files of 16 MiB are some 600,000 lines.
const (
	checklistSize = 16 << 20
	checklistOld  = 3
	// checklistEvery is how often what was written is made final, and statuses are looked at.
	checklistEvery = 250 * time.Millisecond
	// manyEntries in one piece of the feed mean that the next piece is there already.
	manyEntries = 128
	// tellEvery is how often statuses are looked at while there are ever more events: that costs more than to write a line.
	tellEvery = time.Second
)

// checklist writes DATA/checklist.log, a line for each stage of each node, to be read with grep and tail:
//
//	2026-11-20T17:46:51.123Z n07 dhcp-ack log:dnsmasq 10.0.0.7
//
// and a line in the collector's own log for each change of a node's status; after a crash the last of them may stand twice. It
// follows the feed of events, so that it never holds up anything. After a crash it goes on exactly where the file's last final
// line was: the file is cut to it.
type checklist struct {
	path   string // of the log; its position is beside it
	reg    *registry.Registry
	log    *slog.Logger
	file   *os.File
	at     checklistPosition
	saved  *checklistPosition // as it is on the disk; nil: not there
	buf    bytes.Buffer
	status map[string]string // of each node, as last told

	changed map[string]bool // nodes with events since
	told    time.Time
}

// checklistPosition is up to where the log is final.
type checklistPosition struct {
	Database string `json:"database,omitempty"` // of whose revisions this is one; older files do not have it
	Revision uint64 `json:"revision"`
	Size     int64  `json:"size"`
}

// runChecklist writes until ctx ends. What it cannot write is said once, and tried again with the next lines.
func runChecklist(ctx context.Context, path string, reg *registry.Registry, log *slog.Logger) {
	c := &checklist{path: path, reg: reg, log: log, status: map[string]string{}, changed: map[string]bool{}}
	if err := c.open(); err != nil {
		log.Error("the checklist is not written", "error", err)
	}
	for _, n := range reg.Nodes(nil) {
		if n.Revision <= c.at.Revision { // what came after it has yet to be told of
			c.status[n.Name] = n.Summary
		}
	}
	defer func() {
		if c.file == nil {
			return
		}
		if err := c.save(); err != nil { // some events are looked at again
			log.Error("writing how far the checklist is", "error", err)
		}
		c.file.Close()
	}()
	failing := false
	for {
		w := reg.Watch(c.at.Revision)
		for {
			entries, err := w.Next(ctx)
			if err != nil {
				if errors.Is(err, store.ErrGone) { // trimmed while we were away, or an older database was brought back
					c.at.Revision = reg.Revision()
					break
				}
				return // ctx, or the store is closed
			}
			err = c.take(entries)
			if err != nil && !failing {
				log.Error("writing the checklist", "error", err)
			}
			failing = err != nil
			if len(entries) >= manyEntries && !failing { // there are more
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(checklistEvery): // the next events come together
			}
			if failing { // the same ones again
				break
			}
		}
	}
}

// open goes to the last final line. The first time there is no line for what was before; nor is there after a backup was
// restored, whose revisions are those of other events.
func (c *checklist) open() error {
	end := c.reg.Cursor()
	b, err := os.ReadFile(c.path + ".position")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.at.Revision = end.Revision
	case err != nil:
		return fmt.Errorf("reading how far the checklist is: %w", err)
	default:
		if err := json.Unmarshal(b, &c.at); err != nil {
			c.at = checklistPosition{Revision: end.Revision}
			break
		}
		saved := c.at
		c.saved = &saved
		if c.at.Database != "" && c.at.Database != end.Database {
			c.at.Revision = end.Revision
		}
	}
	c.at.Database = end.Database
	return c.reopen()
}

func (c *checklist) reopen() error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("opening the checklist: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() > c.at.Size {
		err = f.Truncate(c.at.Size)
	} else if err == nil {
		c.at.Size = fi.Size()
	}
	if err == nil {
		_, err = f.Seek(c.at.Size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("opening the checklist: %w", err)
	}
	c.file = f
	return nil
}

// take writes the lines of some events.
func (c *checklist) take(entries []store.Entry) error {
	c.buf.Reset()
	for _, entry := range entries {
		var e proto.Event
		if err := eventjson.Decode(entry.Value, &e); err != nil {
			c.log.Error("an event has no line in the checklist", "revision", entry.Revision, "error", err)
			continue
		}
		c.changed[e.Node] = true
		line(&c.buf, &e)
	}
	if len(entries) < manyEntries || time.Since(c.told) >= tellEvery {
		c.tell()
	}
	last := entries[len(entries)-1].Revision
	if c.buf.Len() == 0 {
		c.at.Revision = last
		return nil // the position is written with the next line, or at the end
	}
	if c.file == nil {
		if err := c.reopen(); err != nil {
			return err
		}
	}
	if _, err := c.file.Write(c.buf.Bytes()); err != nil {
		c.file.Close()
		c.file = nil // and what came of it is cut off when it is opened again
		return err
	}
	c.at.Revision, c.at.Size = last, c.at.Size+int64(c.buf.Len())
	if c.at.Size >= checklistSize {
		if err := c.rotate(); err != nil {
			return err
		}
	}
	return c.save()
}

// save writes the position, if it is another one.
func (c *checklist) save() error {
	if c.saved != nil && c.at == *c.saved {
		return nil
	}
	b, err := json.Marshal(c.at)
	if err != nil {
		return fmt.Errorf("encoding how far the checklist is: %w", err)
	}
	tmp := c.path + ".position.tmp" // a power cut may lose some of its last seconds, which are then written again
	if err := os.WriteFile(tmp, b, 0o640); err != nil {
		return err
	}
	if err := os.Rename(tmp, c.path+".position"); err != nil {
		return err
	}
	saved := c.at
	c.saved = &saved
	return nil
}

func (c *checklist) rotate() error {
	c.file.Close()
	c.file = nil
	for i := checklistOld; i > 0; i-- {
		from := c.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(from, c.path+"."+strconv.Itoa(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotating the checklist: %w", err)
		}
	}
	c.at.Size = 0
	return c.reopen()
}

// line writes one event's, if it is about a stage or a verdict.
func line(b *bytes.Buffer, e *proto.Event) {
	word := e.Stage
	switch e.Kind {
	case proto.KindStalled, proto.KindDeadline:
		word = string(e.Kind) + "(" + e.Stage + ")"
	case proto.KindStage:
		if e.Failed {
			word += "-failed"
		}
	case proto.KindStepEnd:
		if e.Outcome.Good() {
			return
		}
		word = "step-failed(" + e.Step + ")"
	case proto.KindLoop, proto.KindAborted, proto.KindContested, proto.KindHold, proto.KindSealed:
		word = string(e.Kind)
		if e.Kind == proto.KindHold && e.Outcome != "" {
			word = "hold-ended"
		}
	case proto.KindNote:
		if !e.Warning {
			return
		}
		word = "warning"
	}
	if word == "" {
		return
	}
	fmt.Fprintf(b, "%s %s %s %s", e.At.UTC().Format("2006-01-02T15:04:05.000Z"), e.Node, plainText(word), e.Source)
	if e.Message != "" {
		b.WriteString(" " + plainText(e.Message))
	}
	b.WriteByte('\n')
}

// plainText keeps a text from a node to its line, and a terminal from obeying it.
func plainText(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most]
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// tell says which statuses are others now.
func (c *checklist) tell() {
	c.told = time.Now()
	defer clear(c.changed)
	for name := range c.changed {
		n, err := c.reg.Node(name)
		if err != nil {
			delete(c.status, name)
			continue
		}
		was, known := c.status[name]
		if n.Summary == was {
			continue
		}
		c.status[name] = n.Summary
		args := []any{"node", name, "status", string(n.Status), "summary", n.Summary, "stage", n.Stage, "install", n.Install, "revision", n.Revision}
		if known {
			args = append(args, "was", was)
		}
		level := slog.LevelInfo
		if n.Status == proto.StatusFailed || n.Status == proto.StatusStalled {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "node is "+n.Summary, args...)
	}
}
