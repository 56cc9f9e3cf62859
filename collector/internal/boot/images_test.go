// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/boot"
)

func TestImages(t *testing.T) {
	d := &decider{}
	url, images := serve(t, d)
	kernel, err := os.ReadFile(filepath.Join(images, "el9/vmlinuz"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(images, "small.txt"))
	if err != nil {
		t.Fatal(err)
	}
	tag := get(t, url+"/images/small.txt").Header.Get("ETag")
	if err := os.MkdirAll(filepath.Join(images, ".import-x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(images, ".import-x/vmlinuz"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(images, "el9/.treeinfo"), []byte("[general]"), 0o644); err != nil {
		t.Fatal(err)
	}
	size := len(kernel)
	for _, c := range []struct {
		name, path string
		header     []string
		status     int
		body       string
		sent       []string
	}{
		{"whole", "/images/el9/vmlinuz?t=tick", nil, 200, string(kernel), []string{"tick images/el9/vmlinuz true"}},
		{"overlay", "/images/overlay?t=tick", nil, 200, "the agent", []string{"tick overlay true"}},
		{"hidden in a distribution", "/images/el9/.treeinfo", nil, 200, "[general]", nil},
		{"no ticket", "/images/small.txt", nil, 200, "0123456789", nil},
		{"no sound ticket", "/images/small.txt?t=a%20b", nil, 200, "0123456789", nil},
		{"slashes", "//images//small.txt/?t=tick", nil, 200, "0123456789", []string{"tick images/small.txt true"}},
		{"dots inside", "/images/el9/../small.txt?t=tick", nil, 200, "0123456789", []string{"tick images/small.txt true"}},
		{"first part", "/images/small.txt?t=tick", []string{"Range", "bytes=0-4"}, 206, "01234", []string{"tick images/small.txt false"}},
		{"last part", "/images/small.txt?t=tick", []string{"Range", "bytes=5-"}, 206, "56789", []string{"tick images/small.txt true"}},
		{"last part of a large one", "/images/el9/vmlinuz?t=tick", []string{"Range", fmt.Sprintf("bytes=%d-", size-2<<20)}, 206, string(kernel[size-2<<20:]),
			[]string{"tick images/el9/vmlinuz true"}},
		{"beyond", "/images/small.txt?t=tick", []string{"Range", "bytes=50-"}, 416, "", nil},
		{"not modified", "/images/small.txt?t=tick", []string{"If-Modified-Since", info.ModTime().Add(time.Second).UTC().Format(http.TimeFormat)}, 304, "",
			[]string{"tick images/small.txt true"}},
		{"not modified, by its tag", "/images/small.txt?t=tick", []string{"If-None-Match", tag}, 304, "", []string{"tick images/small.txt true"}},
		{"rest of the same", "/images/small.txt", []string{"Range", "bytes=5-", "If-Range", tag}, 206, "56789", nil},
		{"rest of another", "/images/small.txt", []string{"Range", "bytes=5-", "If-Range", `"old"`}, 200, "0123456789", nil},
		{"hidden", "/images/.import-x/vmlinuz", nil, 404, "there is no image vmlinuz\n", nil},
		{"missing", "/images/nothing?t=tick", nil, 404, "there is no image nothing\n", []string{"tick images/nothing: 404: there is no such file in the images directory"}},
		{"missing, without a ticket", "/images/nothing", nil, 404, "there is no image nothing\n", nil},
		{"missing, by a path with a ticket", "/images/~tick/nothing", nil, 404, "there is no image nothing\n", []string{"tick images/nothing: 404: there is no such file in the images directory"}},
		{"directory", "/images/el9?t=tick", nil, 404, "there is no image el9\n", []string{"tick images/el9: 404: there is no such file in the images directory"}},
		{"top", "/images/", nil, 404, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := get(t, url+c.path, c.header...)
			got := body(t, resp)
			if resp.StatusCode != c.status || c.status != 416 && c.path != "/images/" && got != c.body {
				t.Errorf("answer = %d, %d bytes %.60q, want %d, %d bytes", resp.StatusCode, len(got), got, c.status, len(c.body))
			}
			if diff := cmp.Diff(c.sent, waitSent(d, len(c.sent))); diff != "" {
				t.Errorf("sent: -want +got\n%s", diff)
			}
		})
	}
	resp, err := http.Head(url + "/images/el9/vmlinuz?t=tick")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ContentLength != int64(size) || len(d.takeSent()) != 0 {
		t.Errorf("HEAD has length %d, want %d, and must not count as a fetch", resp.ContentLength, size)
	}
}

// waitSent waits, at most a minute, for as many calls of Sent: they come after the client has its last byte.
func waitSent(d *decider, n int) []string {
	for range 6000 {
		d.mu.Lock()
		have := len(d.sent)
		d.mu.Unlock()
		if have >= n {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return d.takeSent()
}

func TestNothingOutsideOfImages(t *testing.T) {
	d := &decider{}
	url, images := serve(t, d)
	for link, to := range map[string]string{"abs": "/etc/passwd", "rel": "../secret", "updir": "..", "inner": "small.txt"} {
		if err := os.Symlink(to, filepath.Join(images, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(images, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../secret", "%2e%2e/secret", "..%2fsecret", "el9/../../secret", "el9/%2e%2e%2f..%2fsecret", "/etc/passwd", "%2fetc%2fpasswd",
		"abs", "rel", "updir/secret", "fifo", "..%5csecret", "small.txt%00", ".", "%2e"} {
		resp := raw(t, url, "GET /images/"+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		if got := body(t, resp); resp.StatusCode < 400 || strings.Contains(got, "root:") || strings.HasPrefix(got, "secret") {
			t.Errorf("GET /images/%s = %d %q", path, resp.StatusCode, got)
		}
	}
	if got := body(t, get(t, url+"/images/inner")); got != "0123456789" {
		t.Errorf("a link within the directory gives %q", got)
	}
}

func FuzzImagePath(f *testing.F) {
	for _, s := range []string{"/images/small.txt", "/images/../secret", "/images/%2e%2e/secret", "//images//..//secret", "/images/overlay", "/boot/x"} {
		f.Add(s)
	}
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "images"), 0o755); err != nil {
		f.Fatal(err)
	}
	for name, text := range map[string]string{"secret": "SECRET", "images/small.txt": "ok"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	h := boot.NewServer(&decider{}, boot.Options{ImagesDir: filepath.Join(dir, "images"), Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 400 && !strings.HasPrefix(w.Body.String(), "#!ipxe\n") && w.Body.String() != "ok" || strings.Contains(w.Body.String(), "SECRET") {
			t.Errorf("GET %q = %d %q", path, w.Code, w.Body)
		}
	})
}

// A client that reads slowly gets all of it; one that stops reading is given up after a minute.
func TestSlowAndDeadClients(t *testing.T) {
	for _, c := range []struct {
		name  string
		pause time.Duration // before each read of 256 KiB
		stop  int           // bytes after which the client reads no more; 0: never
		want  string
	}{
		{"slow", 10 * time.Second, 0, "tick images/big true"},
		{"dead", 0, 300 << 10, "tick images/big false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "big"), bytes.Repeat([]byte("x"), 4<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				d := &decider{}
				client, server := net.Pipe()
				defer client.Close()
				srv := &http.Server{Handler: boot.NewServer(d, boot.Options{ImagesDir: dir, Log: slog.New(slog.DiscardHandler)})}
				l := &oneConn{conns: make(chan net.Conn, 1), done: make(chan struct{})}
				l.conns <- server
				go srv.Serve(l)
				defer srv.Close()
				began := time.Now()
				if _, err := io.WriteString(client, "GET /images/big?t=tick HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 256<<10)
				for n := 0; c.stop == 0 && n < 4<<20 || n < c.stop; {
					time.Sleep(c.pause)
					m, err := io.ReadFull(client, buf)
					if n += m; err != nil && n < 4<<20 {
						t.Fatalf("after %d bytes: %v", n, err)
					}
					if n+len(buf) > 4<<20 {
						break
					}
				}
				if c.stop == 0 {
					go io.Copy(io.Discard, client)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if diff := cmp.Diff([]string{c.want}, d.takeSent()); diff != "" {
					t.Errorf("sent: -want +got\n%s", diff)
				}
				if c.pause > 0 && time.Since(began) < 4*time.Minute {
					t.Errorf("the slow transfer took %s: it does not show anything", time.Since(began))
				}
			})
		})
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	close(l.done)
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
