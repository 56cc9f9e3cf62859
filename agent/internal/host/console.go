// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Consoles writes to every console of the kernel. It may be used by several goroutines.
type Consoles struct {
	host Host

	mu    sync.Mutex
	stuck map[string]bool // a write to it has not come back
}

// Consoles finds the consoles anew at each use: installers come and go with theirs.
func (h Host) Consoles() *Consoles { return &Consoles{host: h, stuck: map[string]bool{}} }

// devices lists the kernel's consoles that can be written to (/proc/consoles, fs/proc/consoles.c: NAME FLAGS (…)
// MAJOR:MINOR, W among the flags), else /sys/class/tty/console/active.
func (c *Consoles) devices() []string {
	var out []string
	for line := range strings.Lines(c.host.text("/proc/consoles")) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.Contains(f[1], "W") && !strings.Contains(f[0], "/") {
			out = append(out, f[0])
		}
	}
	if len(out) == 0 {
		out = strings.Fields(c.host.text("/sys/class/tty/console/active"))
	}
	return out
}

// consoleLimit bounds the writing to one console: a serial line of 9600 baud takes about 1 s for 1 KiB, a
// flow-controlled one that nobody reads takes for ever.
const consoleLimit = 3 * time.Second

// Printable replaces what a terminal might take for a command. Line ends and tabs stay.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// Say writes text as lines to every console and returns after at most consoleLimit. Line ends become CR LF, and what a terminal
// might take for a command is replaced: texts come from steps. A console that does not take it in time is left alone, until it
// comes back.
func (c *Consoles) Say(text string) {
	data := []byte(strings.ReplaceAll(Printable(strings.TrimSuffix(text, "\n")+"\n"), "\n", "\r\n"))
	var wg sync.WaitGroup
	for _, name := range c.devices() {
		c.mu.Lock()
		busy := c.stuck[name]
		c.stuck[name] = true
		c.mu.Unlock()
		if busy {
			continue
		}
		path := c.host.path("/dev/" + name)
		wg.Go(func() {
			writeBounded(path, data)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.stuck[name] = false
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(consoleLimit):
	}
}

// writeBounded never waits in open or write (O_NONBLOCK); close may wait in the kernel until a serial line is drained,
// which is why the caller does not wait for it.
func writeBounded(path string, data []byte) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(consoleLimit)
	for len(data) > 0 && time.Now().Before(deadline) {
		n, err := unix.Write(fd, data)
		switch {
		case n > 0:
			data = data[n:]
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100) // ms
		default:
			return
		}
	}
}
