// SPDX-License-Identifier: Apache-2.0

package prototest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// FaultKind is a way in which a collector, or the network before it, goes wrong.
type FaultKind int

// The faults of one request.
const (
	FaultNone     FaultKind = iota
	FaultReset              // the connection is reset before the request is read
	FaultHang               // no answer for Fault.Delay, and then a reset
	FaultLost               // the request is carried out, its answer is lost
	FaultHalf               // the request is carried out, half of the answer comes, then the connection closes
	FaultSlow               // the answer trickles: Fault.Delay between its quarters
	FaultStatus             // Fault.Status with Fault.Body and Fault.Header
	FaultRedirect           // 307 to Fault.Body
	FaultGarbage            // 200 with bytes that are not JSON
	FaultHTML               // 200 with a captive portal's page
	FaultUntyped            // the right answer without Content-Type
	FaultEndless            // 200 and a body that does not end until the reader hangs up
	FaultEmpty              // 200 without a body
	FaultRewind             // 200 that wants the first record again, as from a collector that was restored from a backup
)

// Fault is what happens to one request.
type Fault struct {
	Kind       FaultKind
	Status     int
	Body       string
	RetryAfter time.Duration // 0 is none
	RetryText  string        // Retry-After as it is sent, instead
	Delay      time.Duration
}

func (f Fault) String() string {
	names := []string{"none", "reset", "hang", "lost", "half", "slow", "status", "redirect", "garbage", "html", "untyped", "endless", "empty", "rewind"}
	if f.Kind == FaultStatus {
		return strconv.Itoa(f.Status)
	}
	return names[f.Kind]
}

// apply answers in the way of the fault; next is the right answer.
func (f Fault) apply(w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch f.Kind {
	case FaultNone:
		next.ServeHTTP(w, r)
	case FaultReset:
		reset(w)
	case FaultHang:
		io.Copy(io.Discard, r.Body) // only then the server sees a peer that goes away
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
		}
		reset(w)
	case FaultLost:
		next.ServeHTTP(newBuffer(), r)
		reset(w)
	case FaultHalf:
		b := newBuffer()
		next.ServeHTTP(b, r)
		half(w, b.body)
	case FaultSlow:
		b := newBuffer()
		next.ServeHTTP(b, r)
		b.head(w)
		for i := range 4 {
			w.Write(b.body[len(b.body)*i/4 : len(b.body)*(i+1)/4])
			http.NewResponseController(w).Flush()
			select {
			case <-time.After(f.Delay):
			case <-r.Context().Done():
			}
		}
	case FaultStatus:
		if f.RetryText != "" {
			w.Header().Set("Retry-After", f.RetryText)
		} else if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter/time.Second)))
		}
		w.WriteHeader(f.Status)
		fmt.Fprint(w, f.Body)
	case FaultRedirect:
		w.Header().Set("Location", f.Body)
		w.WriteHeader(http.StatusTemporaryRedirect)
	case FaultEmpty:
		w.WriteHeader(http.StatusOK)
	case FaultRewind:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"next":1,"boot_action":"install"}`)
	case FaultGarbage:
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte("\x00\xff{\"next\":"))
	case FaultHTML:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><body>Please log in to the network</body></html>")
	case FaultUntyped:
		b := newBuffer()
		next.ServeHTTP(b, r)
		b.header["Content-Type"] = nil
		b.head(w)
		w.Write(b.body)
	case FaultEndless:
		w.Header().Set("Content-Type", "application/json")
		chunk := make([]byte, 64<<10)
		for i := range chunk {
			chunk[i] = ' '
		}
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
}

// reset closes the connection so that the peer sees RST, as from a host that has just rebooted.
func reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if n, ok := c.(interface{ NetConn() net.Conn }); ok {
		if tcp, ok := n.NetConn().(*net.TCPConn); ok {
			tcp.SetLinger(0)
			tcp.Close()
		}
	}
	c.Close()
}

// half sends the head and the first half of a body, and closes.
func half(w http.ResponseWriter, body []byte) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:len(body)/2])
	rw.Flush()
}

// buffer keeps an answer instead of sending it.
type buffer struct {
	header http.Header
	status int
	body   []byte
}

func newBuffer() *buffer { return &buffer{header: http.Header{}, status: http.StatusOK} }

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { b.body = append(b.body, p...); return len(p), nil }

func (b *buffer) head(w http.ResponseWriter) {
	for k, v := range b.header {
		w.Header()[k] = v
	}
	w.WriteHeader(b.status)
}
