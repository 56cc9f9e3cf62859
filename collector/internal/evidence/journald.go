// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Journald follows the systemd journal by its own program, since reading the files needs cgo or a copy of their format.
type Journald struct {
	Command   []string // default: journalctl
	FromStart bool     // without a position, read what is there of this boot; else only what comes, and before it
	Back      time.Duration
}

// The waits between two starts of journalctl: 1 s, doubled up to 30 s, each shortened by up to half at random; from
// 1 s again after it has run for a minute. It is tried for ever, since the journal comes back.
const (
	restartFirst = time.Second
	restartMost  = 30 * time.Second
	restartGood  = time.Minute
	// journalQuiet is how long journalctl must run until it counts as reading, whether or not there is anything to read: it
	// ends within milliseconds if it cannot.
	journalQuiet = 2 * time.Second
)

// Name is "journald".
func (s *Journald) Name() string { return "journald" }

// Run follows the journal. That journalctl is missing or fails is Trouble, not an end.
func (s *Journald) Run(ctx context.Context, position []byte, deliver Deliver) error {
	r := &journalReader{in: newIntake(s.Name(), time.UTC), deliver: deliver, cursor: string(position)}
	wait := restartFirst
	for {
		started := time.Now()
		err := s.once(ctx, r)
		var ended *deliverError
		switch {
		case errors.As(err, &ended):
			return ended.err
		case ctx.Err() != nil:
			return nil
		}
		if time.Since(started) >= restartGood {
			wait = restartFirst
		}
		r.in.trouble = err
		if r.in.due(time.Now()) {
			if err := r.in.hand(r.position(), deliver); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, restartMost)
	}
}

func (s *Journald) args(cursor string) []string {
	args := s.Command
	if len(args) == 0 {
		args = []string{"journalctl"}
	}
	args = append(args[:len(args):len(args)], "-o", "json", "--all", "--follow", "--no-pager", "--quiet")
	switch {
	case cursor != "":
		args = append(args, "--after-cursor="+cursor, "--lines=all")
	case s.FromStart:
		args = append(args, "--boot", "--lines=all")
	case s.Back > 0:
		args = append(args, fmt.Sprintf("--since=-%ds", int(s.Back.Seconds())), "--lines=all")
	default:
		args = append(args, "--lines=0")
	}
	for _, t := range slices.Sorted(maps.Keys(tags)) {
		args = append(args, "--identifier="+t)
	}
	return args
}

// deliverError marks the receiver's error among those of journalctl.
type deliverError struct{ err error }

func (e *deliverError) Error() string { return e.err.Error() }
func (e *deliverError) Unwrap() error { return e.err }

// once runs journalctl until it ends.
func (s *Journald) once(ctx context.Context, r *journalReader) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	args := s.args(r.cursor)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second // for its pipe, after it was killed
	var stderr bytes.Buffer
	cmd.Stderr = &limited{b: &stderr, left: 1 << 10}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("starting journalctl: %w", err)
	}
	said := make(chan struct{})
	quiet := time.AfterFunc(journalQuiet, func() {
		defer close(said)
		if r.reads() != nil {
			stop() // Run gives the error
		}
	})
	err = r.read(out)
	if !quiet.Stop() {
		<-said // its deliver bounds that
	}
	stop()
	werr := cmd.Wait()
	if r.refused != nil {
		return &deliverError{r.refused}
	}
	var ended *deliverError
	if errors.As(err, &ended) {
		return err
	}
	if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
		return fmt.Errorf("reading the journal: %s", text)
	}
	return fmt.Errorf("reading the journal: journalctl ended: %w", errors.Join(err, werr))
}

type journalReader struct {
	mu      sync.Mutex // guards what follows while journalctl runs
	in      *intake
	deliver Deliver
	cursor  string // of the last entry that was taken in
	refused error  // of deliver, when the end of a trouble was to be told
}

// reads tells that journalctl can read, after a trouble.
func (r *journalReader) reads() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in.trouble = nil; r.in.due(time.Now()) {
		r.refused = r.in.hand(r.position(), r.deliver)
	}
	return r.refused
}

func (r *journalReader) position() []byte {
	if r.cursor == "" {
		return nil
	}
	return []byte(r.cursor)
}

func (r *journalReader) read(out io.Reader) error {
	b := bufio.NewReaderSize(out, MaxLine)
	skip := false
	for {
		line, err := b.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull): // an entry that is longer than any line that counts
			if !skip {
				r.mu.Lock()
				r.in.count(Broken, len(line))
				r.mu.Unlock()
			}
			skip = true
			continue
		case err != nil:
			return err
		}
		if skip {
			skip = false
			continue
		}
		ahead, _ := b.Peek(b.Buffered())
		if err := r.take(line, bytes.IndexByte(ahead, '\n') < 0); err != nil {
			return &deliverError{err}
		}
	}
}

// take takes one entry in; last says that no other one has come yet.
func (r *journalReader) take(line []byte, last bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in.trouble = nil
	r.in.line(line, netip.Addr{})
	if c := journalCursor(line); c != "" {
		r.cursor = c
	}
	if r.in.full() || last {
		return r.in.hand(r.position(), r.deliver)
	}
	return nil
}

func journalCursor(line []byte) string {
	if e, ok := journalObject(string(bytes.TrimRight(line, "\r\n"))); ok {
		return e.cursor
	}
	var o struct {
		Cursor string `json:"__CURSOR"`
	}
	if json.Unmarshal(line, &o) != nil {
		return ""
	}
	return o.Cursor
}
