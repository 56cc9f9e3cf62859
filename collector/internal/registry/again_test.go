// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/boot"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// server is the boot server over a site, whose images are vmlinuz and the overlay.
func server(t *testing.T, s *registrytest.Site) (url, images string) {
	t.Helper()
	images = t.TempDir()
	for _, name := range []string{"vmlinuz", "overlay.img"} {
		if err := os.WriteFile(filepath.Join(images, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(boot.NewServer(s.Registry, boot.Options{ImagesDir: images, Overlay: filepath.Join(images, "overlay.img"), Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	return srv.URL, images
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// chains are where a script of each format asks again.
var chains = map[string]*regexp.Regexp{
	"ipxe":     regexp.MustCompile(`(?m)^chain --replace (\S+)`),
	"grub":     regexp.MustCompile(`(?m)^configfile '\(http,([^)]+)\)([^']+)'`),
	"pxelinux": regexp.MustCompile(`(?m)^CONFIG (\S+)`),
}

func chain(t *testing.T, format, script string) string {
	t.Helper()
	m := chains[format].FindStringSubmatch(script)
	if m == nil {
		t.Fatalf("the script does not ask again:\n%s", script)
	}
	if format == "grub" {
		return "http://" + m[1] + m[2]
	}
	return m[1]
}

// TestMovedCardStaysBlocked: a screen that asks again, by itself or by a key, is the same machine's as before.
func TestMovedCardStaysBlocked(t *testing.T) {
	for format := range chains {
		s := siteFor(t, "discover", 0)
		s.Add("n1", 1)
		s.Add("n2", 2)
		const serial = "S 2 || reboot ${x} '#"
		asks(t, s, registrytest.MAC(1), "S1", "")
		asks(t, s, registrytest.MAC(2), serial, "")
		s.Ordered("n1")
		url, _ := server(t, s)
		next := url + "/boot/" + registrytest.MAC(1) + "?format=" + format + "&serial=S%202%20%7C%7C%20reboot%20%24%7Bx%7D%20%27%23&uuid=03000200-0400-0500-0006-000700080009"
		for ask := range 4 {
			script := fetch(t, next)
			if !strings.Contains(script, "is blocked and boots nothing") || strings.Contains(script, "vmlinuz") {
				t.Fatalf("%s, ask %d of %s:\n%s", format, ask, next, script)
			}
			next = chain(t, format, script)
		}
		if n := s.Seen("n1"); n.Attempt != 0 {
			t.Errorf("%s: attempt %d of n1 has begun", format, n.Attempt)
		}
	}
}

// TestLoadingAgain: a boot loader that cannot load everything asks again for the same attempt, until an agent says hello; and not
// for ever. What was missing is said, as long as it is.
func TestLoadingAgain(t *testing.T) {
	for format := range chains {
		t.Run(format, func(t *testing.T) {
			s := registrytest.New(t)
			mac := s.Add("n1", 1)
			id := s.Ordered("n1")
			url, images := server(t, s)
			d := s.Script(mac)
			script := fetch(t, url+"/boot/"+mac+"?format="+format)
			fetch(t, url+"/images/vmlinuz?t="+d.Ticket)
			warned := func(want bool) {
				t.Helper()
				eventually(t, func() bool {
					return want == slices.ContainsFunc(s.Seen("n1").Warnings, func(w string) bool {
						return strings.Contains(w, "images/initrd was asked for and not sent: 404: there is no such file")
					})
				})
			}
			for range 3 {
				fetch(t, url+"/images/initrd?t="+d.Ticket)
				fetch(t, url+"/images/~"+d.Ticket+"/updates.img") // installers try this, and need it not
				warned(true)
				script = fetch(t, chain(t, format, script))
				if n := s.Seen("n1"); n.BootAction != proto.BootInstall || n.Attempt != 1 || !strings.Contains(script, "vmlinuz") {
					t.Fatalf("asked again: boot action %s, attempt %d, script\n%s", n.BootAction, n.Attempt, script)
				}
			}
			eventually(t, func() bool {
				return slices.Contains(messages(t, s, "n1", id), "images/updates.img was asked for and not sent: 404: there is no such file in the images directory")
			})
			if n := len(s.Seen("n1").Warnings); n != 1 {
				t.Errorf("warnings = %q, want one", s.Seen("n1").Warnings)
			}
			if err := os.WriteFile(filepath.Join(images, "initrd"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			fetch(t, url+"/images/initrd?t="+d.Ticket)
			warned(false)
			if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
				t.Fatal(err)
			}
			if script = fetch(t, chain(t, format, script)); s.Seen("n1").BootAction != proto.BootBlock {
				t.Errorf("asked again after a hello: boot action %s, script\n%s", s.Seen("n1").BootAction, script)
			}
		})
	}
}

// eventually waits, at most a minute: what follows from a fetch is written after the client has its last byte.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("not within a minute")
}

func messages(t *testing.T, s *registrytest.Site, node, id string) (out []string) {
	t.Helper()
	list, err := s.InstallEvents(node, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Events {
		out = append(out, e.Message)
	}
	return out
}

func TestLoadingAgainEnds(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	again := func(attempt int) boot.Decision {
		t.Helper()
		d, err := s.Boot(ctx, boot.Request{MAC: mac, Method: "GET", Host: "h", Again: attempt})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := s.Script(mac)
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	s.Restart()
	for i := range 120 {
		if d := again(1); d.Action != proto.BootInstall || d.Attempt != 1 {
			t.Fatalf("ask %d = %+v", i, d)
		}
	}
	if d := again(1); d.Action != proto.BootBlock || s.Seen("n1").Summary != "failed(loop=2)" {
		t.Errorf("an hour later = %+v, %s, want block", d, s.Seen("n1").Summary)
	}

	s.Ordered("n1")
	d = s.Script(mac)
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	if d := again(2); d.Action != proto.BootBlock {
		t.Errorf("of an attempt that there is not = %+v, want block", d)
	}

	s, mac = diskless(t)
	d = s.Script(mac)
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	for i := range 500 {
		if d := again(1); d.Action != proto.BootNetboot || d.Install != s.Seen("d1").Install || s.Seen("d1").Ordinal != 1 {
			t.Fatalf("ask %d of a diskless node = %+v", i, d)
		}
	}
}

// TestMissingIsBounded: nobody fills a timeline with names that he makes up.
func TestMissingIsBounded(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	d := s.Script(mac)
	before := len(messages(t, s, "n1", id))
	for i := range 100 {
		s.Unsent(ctx, d.Ticket, "images/x"+strings.Repeat("y", i)+"\xff", "404")
		s.Unsent(ctx, d.Ticket, "images/x\xff", "404")
	}
	s.Unsent(ctx, "made up", "images/vmlinuz", "404")
	if got := len(messages(t, s, "n1", id)) - before; got != 16 {
		t.Errorf("%d events, want 16", got)
	}
}

// TestNoDecision: of a machine for which there is none it is still known what it boots.
func TestNoDecision(t *testing.T) {
	s, mac := diskless(t)
	if err := s.Store.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := s.Boot(ctx, boot.Request{MAC: mac, Method: "GET", Host: "h"})
	if p := new(proto.Problem); err == nil || errors.As(err, &p) && p.Status < 500 || d.Action != proto.BootNetboot {
		t.Errorf("Boot of a closed store = %+v, %v, want netboot and an error", d, err)
	}
	s.Open()
}
