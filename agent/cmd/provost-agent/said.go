// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// saidMax is how many lines wait for whoever reads our stderr: more than a run of 100 steps says.
	saidMax = 256
	// saidWait bounds the wait for them at the program's end.
	saidWait = time.Second
)

// said is stderr for a program that must not wait: a full pipe that nobody reads, or a terminal that was stopped, would hold up
// steps. Lines beyond saidMax are dropped, and counted.
type said struct {
	to      io.Writer
	lines   chan []byte
	dropped atomic.Int64
	quit    chan struct{}
	done    chan struct{}
}

func newSaid(to io.Writer) *said {
	s := &said{to: to, lines: make(chan []byte, saidMax), quit: make(chan struct{}), done: make(chan struct{})}
	go s.write()
	return s
}

// Write never fails and never waits. Several goroutines may use it.
func (s *said) Write(p []byte) (int, error) {
	select {
	case s.lines <- bytes.Clone(p):
	default:
		s.dropped.Add(1)
	}
	return len(p), nil
}

func (s *said) write() {
	defer close(s.done)
	for quit := s.quit; ; {
		select {
		case b := <-s.lines:
			s.to.Write(b) // who does not read it has no use for an error either
		case <-quit:
			quit = nil
		default:
			if n := s.dropped.Swap(0); n > 0 {
				fmt.Fprintf(s.to, "provost-agent: %d lines are missing here: they were not read in time\n", n)
			}
			if quit == nil {
				return
			}
			select {
			case b := <-s.lines:
				s.to.Write(b)
			case <-quit:
				quit = nil
			}
		}
	}
}

// end waits at most saidWait until all is written.
func (s *said) end() {
	close(s.quit)
	select {
	case <-s.done:
	case <-time.After(saidWait):
	}
}
