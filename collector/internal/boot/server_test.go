// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/boot"
	"provost/proto"
)

// decider answers every machine alike and remembers what it was asked and told.
type decider struct {
	decision boot.Decision
	err      error

	mu    sync.Mutex
	asked []boot.Request
	sent  []string
}

func (d *decider) Boot(_ context.Context, r boot.Request) (boot.Decision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r)
	return d.decision, d.err
}

func (d *decider) Sent(_ context.Context, ticket, file string, complete bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, fmt.Sprintf("%s %s %t", ticket, file, complete))
}

// Answer knows one file, of one attempt.
func (d *decider) Answer(_ context.Context, r boot.Request, install, ticket, file string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r)
	if d.err != nil {
		return nil, d.err
	}
	if install != answerInstall || ticket != "tick" || file != "ks.cfg" {
		return nil, proto.NewProblem(404, proto.CodeNotFound, "there is no such answer file, or its install is over", "")
	}
	return []byte("text\n"), nil
}

func (d *decider) Unsent(_ context.Context, ticket, file, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, fmt.Sprintf("%s %s: %s", ticket, file, why))
}

// AnswerOf knows one machine.
func (d *decider) AnswerOf(_ context.Context, r boot.Request, file string) ([]byte, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r)
	if file != "ks.cfg" || len(r.MACs) != 1 || r.MACs[0] != "52:54:00:00:0d:02" {
		return nil, "", proto.NewProblem(404, proto.CodeNotFound, "there is no such answer file, or its install is over", "")
	}
	return []byte("text\n"), "tick", nil
}

// Loading knows one attempt.
func (d *decider) Loading(_ context.Context, r boot.Request, install, ticket string) (boot.Decision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if install != d.decision.Install || ticket != d.decision.Ticket {
		return boot.Decision{}, proto.NewProblem(404, proto.CodeNotFound, "there is no such boot, or it is over", "")
	}
	return d.decision, d.err
}

// Callback knows one attempt, and the stage "slow" as one that the disk cannot take.
func (d *decider) Callback(_ context.Context, r boot.Request, cb boot.Callback) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cb.Install != answerInstall || cb.Ticket != "tick" {
		return proto.NewProblem(404, proto.CodeNotFound, "there is no such install, or it is over", "")
	}
	if cb.Stage == "slow" {
		return errors.New("the disk is full")
	}
	d.sent = append(d.sent, fmt.Sprintf("%s %s %t %q", r.Method, cb.Stage, cb.Failed, cb.Message))
	return nil
}

func (d *decider) takeSent() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sent
	d.sent = nil
	return s
}

func install() boot.Decision {
	return boot.Decision{
		Action: proto.BootInstall, Node: "n1", Install: "01J0000000000000000000000A", Attempt: 1,
		Kernel: "images/el9/vmlinuz", Initrds: []string{"images/el9/initrd.img", "overlay"}, Args: `quiet console=ttyS0 title="a b"`,
		Ticket: "aaaa", Claim: "bbbb", Pin: "sha256:" + strings.Repeat("0f", 32),
	}
}

func look() boot.Decision {
	d := install()
	d.Look = true
	return d
}

// serve starts a server with an images directory: el9/vmlinuz (3 MiB and 5 bytes), ipxe.efi, a secret beside it.
func serve(t *testing.T, d *decider) (url string, images string) {
	t.Helper()
	dir := t.TempDir()
	images = filepath.Join(dir, "images")
	for name, b := range map[string][]byte{
		"images/el9/vmlinuz": bytes.Repeat([]byte("kernel--"), 3<<17),
		"images/small.txt":   []byte("0123456789"),
		"overlay.img":        []byte("the agent"),
		"secret":             []byte("secret"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := boot.NewServer(d, boot.Options{ImagesDir: images, Overlay: filepath.Join(dir, "overlay.img"), Log: slog.New(slog.DiscardHandler)})
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL, images
}

// raw sends a request byte by byte as it is and reads the answer.
func raw(t *testing.T, url, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func get(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestInstallScript(t *testing.T) {
	d := &decider{decision: install()}
	url, _ := serve(t, d)
	resp := raw(t, url, "GET /boot/52%3A54%3A00%3A00%3A0d%3A02?serial=S1&uuid=U1 HTTP/1.1\r\nHost: 10.0.2.2:8480\r\nUser-Agent: iPXE/1.0.0+\r\n\r\n")
	want := `#!ipxe
echo Provost: installing n1, attempt 1
imgfree
kernel http://10.0.2.2:8480/images/el9/vmlinuz?t=aaaa initrd=initrd0 initrd=initrd1 provost.url=https://10.0.2.2:8440 provost.node=n1 provost.install=01J0000000000000000000000A provost.claim=bbbb provost.ca=sha256:` +
		strings.Repeat("0f", 32) + ` quiet console=ttyS0 title="a b" || goto fail
initrd --name initrd0 http://10.0.2.2:8480/images/el9/initrd.img?t=aaaa || goto fail
initrd --name initrd1 http://10.0.2.2:8480/images/overlay?t=aaaa || goto fail
boot || goto fail
:fail
echo Provost: loading did not work, asking again in 30 s
sleep 30
chain --replace http://10.0.2.2:8480/boot/52:54:00:00:0d:02?again=1&serial=S1&uuid=U1 || goto fail
`
	if diff := cmp.Diff(want, body(t, resp)); diff != "" {
		t.Errorf("script: -want +got\n%s", diff)
	}
	if resp.StatusCode != 200 || resp.ContentLength != int64(len(want)) || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("answer = %d, %d bytes, %v", resp.StatusCode, resp.ContentLength, resp.Header)
	}
	asked := boot.Request{MAC: "52:54:00:00:0d:02", Method: "GET", UserAgent: "iPXE/1.0.0+", Host: "10.0.2.2:8480", RemoteAddr: d.asked[0].RemoteAddr, Serial: "S1", UUID: "U1"}
	if diff := cmp.Diff([]boot.Request{asked}, d.asked); diff != "" {
		t.Errorf("request: -want +got\n%s", diff)
	}
	if got, want := asked.Images(), "http://10.0.2.2:8480/images"; got != want {
		t.Errorf("Images() = %s, want %s", got, want)
	}
}

func TestScripts(t *testing.T) {
	const mac = "52:54:00:00:00:01"
	long := strings.Repeat("long words here ", 200)
	for _, c := range []struct {
		name     string
		decision boot.Decision
		err      error
		query    string
		shape    string
		has      string
		hasNot   string
	}{
		{name: "disk", decision: boot.Decision{Action: proto.BootDisk, Node: "n1"}, shape: "echo\nexit 0\n", has: "n1 boots from disk"},
		{name: "sanboot", decision: boot.Decision{Action: proto.BootDisk, Node: "n1", LocalBoot: "sanboot"}, shape: "echo\nsanboot --no-describe --drive ||\nexit 0\n"},
		{name: "unknown", decision: boot.Decision{Action: proto.BootInstall, UnknownMAC: true}, shape: "echo\necho\nexit 0\n",
			has: "type: provost node add NAME --mac " + mac},
		{name: "block", decision: boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{"failed(loop=1)"}, Hint: []string{"provost log n1", "provost install n1"}},
			shape: ":again\necho\necho\necho\necho\nprompt --timeout ||\nchain --replace ||\ngoto again\n", has: "echo > provost install n1\n", hasNot: "kernel"},
		{name: "block by words of iPXE", decision: boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{"#5 failed || boot ; a\\"}},
			shape: ":again\necho\necho\nprompt --timeout ||\nchain --replace ||\ngoto again\n", has: "echo | '#5 failed '|| boot '; a/\n"},
		{name: "long block", decision: boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{long, strings.Repeat("x", 300)}},
			shape: ":again\n" + strings.Repeat("echo\n", 17) + "prompt --timeout ||\nchain --replace ||\ngoto again\n", has: "echo | [...]\n"},
		{name: "no action", decision: boot.Decision{Node: "n1"}, has: "no boot script for the boot action", hasNot: "kernel"},
		{name: "rescue without a kernel", decision: boot.Decision{Action: proto.BootRescue, Node: "n1"}, has: "is blocked and boots nothing", hasNot: "kernel "},
		{name: "wrong local-boot", decision: boot.Decision{Action: proto.BootDisk, Node: "n1", LocalBoot: "x"}, has: "is blocked"},
		{name: "error", err: proto.NewProblem(503, proto.CodeStorage, "the database is full", ""), shape: "echo\n" + strings.Repeat("sleep N\nchain --replace ||\necho\n", 20) + "exit 1\n",
			has: "the database is full", hasNot: "kernel"},
		{name: "error on a node without a disk", decision: boot.Decision{Action: proto.BootNetboot}, err: errors.New("x"), query: "?try=20",
			shape: "echo\n:again\nsleep N\nchain --replace ||\ngoto again\n", hasNot: "exit"},
		{name: "look", decision: look(), has: " provost.claim=bbbb provost.look provost.ca=", hasNot: "installing"},
		{name: "a stranger's script that cannot be made", decision: boot.Decision{Action: proto.BootRescue, Kernel: "elsewhere"}, shape: "echo\nexit 0\n", has: "booting from disk"},
		{name: "refusal", err: proto.NewProblem(422, proto.CodeBadProfile, "attribute console has a blank", "mend the node's attributes"),
			shape: ":again\necho\necho\necho\nprompt --timeout ||\nchain --replace ||\ngoto again\n", has: "echo > mend the node's attributes", hasNot: "kernel"},
		{name: "internal error", err: errors.New("token pva_123"), has: "?try=1 || echo", hasNot: "pva_"},
		{name: "19th error", err: errors.New("x"), query: "?try=19", shape: "echo\nsleep N\nchain --replace ||\necho\nexit 1\n", has: "?try=20 || echo"},
		{name: "last error", err: errors.New("x"), query: "?try=20", shape: "echo\nexit 1\n"},
		{name: "rubbish try", err: errors.New("x"), query: "?try=-5", shape: "echo\nexit 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := serve(t, &decider{decision: c.decision, err: c.err})
			got := body(t, get(t, url+"/boot/"+mac+c.query))
			cmds, err := parseIPXE(got)
			if err != nil {
				t.Fatal(err)
			}
			for i, cmd := range cmds {
				if len(cmd.words) > 0 && cmd.words[0] == "sleep" {
					cmds[i].words[1] = "N"
				}
			}
			if c.shape != "" && shape(cmds) != c.shape {
				t.Errorf("script does\n%swant\n%s", shape(cmds), c.shape)
			}
			if !strings.Contains(got, c.has) || c.hasNot != "" && strings.Contains(got, c.hasNot) {
				t.Errorf("script\n%shas not %q, or has %q", got, c.has, c.hasNot)
			}
			for line := range strings.SplitSeq(got, "\n") {
				if strings.HasPrefix(line, "echo") && len(line) > 110 {
					t.Errorf("line of %d bytes: %s", len(line), line)
				}
			}
		})
	}
}

// A decision that cannot be put into a script blocks the node: it must never boot half of it.
func TestUnsoundDecisions(t *testing.T) {
	for name, change := range map[string]func(*boot.Decision){
		"node":               func(d *boot.Decision) { d.Node = "n1 || reboot" },
		"install":            func(d *boot.Decision) { d.Install = "01J" },
		"claim":              func(d *boot.Decision) { d.Claim = "a b" },
		"no claim":           func(d *boot.Decision) { d.Claim = "" },
		"ticket":             func(d *boot.Decision) { d.Ticket = "a&b" },
		"pin":                func(d *boot.Decision) { d.Pin = "sha256:00" },
		"newline in args":    func(d *boot.Decision) { d.Args = "a\nreboot" },
		"expansion in args":  func(d *boot.Decision) { d.Args = "a=${net0/mac}" },
		"comment in args":    func(d *boot.Decision) { d.Args = "a #b" },
		"operator in args":   func(d *boot.Decision) { d.Args = "a || b" },
		"sequence in args":   func(d *boot.Decision) { d.Args = "a ; b" },
		"backslash in args":  func(d *boot.Decision) { d.Args = `a\` },
		"kernel outside":     func(d *boot.Decision) { d.Kernel = "images/../secret" },
		"kernel elsewhere":   func(d *boot.Decision) { d.Kernel = "/etc/shadow" },
		"no kernel":          func(d *boot.Decision) { d.Kernel = "" },
		"kernel by ftp":      func(d *boot.Decision) { d.Kernel = "ftp://h/k" },
		"expansion in URL":   func(d *boot.Decision) { d.Kernel = "http://h/${x}" },
		"initrd with blank":  func(d *boot.Decision) { d.Initrds = []string{"http://h/a b"} },
		"advertised address": func(d *boot.Decision) { d.URLs = []string{"https://10.0.0.1:8440 quiet"} },
		"comma in address":   func(d *boot.Decision) { d.URLs = []string{"https://10.0.0.1:8440/a,b"} },
		"too long":           func(d *boot.Decision) { d.Args = strings.Repeat("word ", 400) },
	} {
		d := install()
		change(&d)
		url, _ := serve(t, &decider{decision: d})
		got := body(t, get(t, url+"/boot/52:54:00:00:00:01"))
		cmds, err := parseIPXE(got)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s := shape(cmds); strings.Contains(s, "kernel") || strings.Contains(s, "boot ||") || !strings.HasPrefix(s, ":again") {
			t.Errorf("%s: the script does\n%s", name, s)
		}
		if !strings.Contains(got, "cannot be made") {
			t.Errorf("%s: the script does not say why:\n%s", name, got)
		}
	}
}

func TestVariants(t *testing.T) {
	d := install()
	d.URLs = []string{"https://10.0.0.1:8440", "https://[fd00::1]:8440"}
	d.Kernel, d.Initrds = "https://mirror.example/vmlinuz", nil
	url, _ := serve(t, &decider{decision: d})
	got := body(t, get(t, url+"/boot/52:54:00:00:00:01"))
	for _, want := range []string{"kernel https://mirror.example/vmlinuz provost.url=https://10.0.0.1:8440,https://[fd00::1]:8440 provost.node"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestPathsAndClients(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: h\r\nUser-Agent: iPXE/1\r\n\r\n"
	for _, c := range []struct {
		name, request string
		status        int
		mac           string // asked of the decider
		has           string
	}{
		{"colons", "GET /boot/52:54:00:00:0D:02" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"encoded", "GET /boot/52%3a54%3A00%3A00%3A0d%3A02" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"dashes", "GET /boot/52-54-00-00-0d-02" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"hexhyp", "GET /boot/01-52-54-00-00-0d-02" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"bare", "GET /boot/525400000d02" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"trailing slash", "GET /boot/52:54:00:00:0d:02/" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"double slashes", "GET //boot//52:54:00:00:0d:02" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"format", "GET /boot/52:54:00:00:0d:02?format=ipxe" + head, 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"other format", "GET /boot/52:54:00:00:0d:02?format=lilo" + head, 400, "", "use ipxe, grub or pxelinux"},
		{"HTTP/1.0", "GET /boot/52:54:00:00:0d:02 HTTP/1.0\r\n\r\n", 200, "52:54:00:00:0d:02", "#!ipxe"},
		{"no MAC", "GET /boot/" + head, 404, "", "/boot/MAC"},
		{"not a MAC", "GET /boot/$%7Bnet0/mac%7D" + head, 404, "", ""},
		{"not a MAC either", "GET /boot/hello" + head, 400, "", "no Ethernet address"},
		{"two levels", "GET /boot/answer/x" + head, 404, "", ""},
		{"post", "POST /boot/52:54:00:00:0d:02 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 405, "", "GET and HEAD"},
		{"head", "HEAD /boot/52:54:00:00:0d:02" + head, 200, "52:54:00:00:0d:02", ""},
		{"debian-installer", "GET /boot/52:54:00:00:0d:02 HTTP/1.1\r\nHost: h\r\nUser-Agent: debian-installer\r\n\r\n", 200, "", ""},
		{"firmware's GET", "GET /boot/52:54:00:00:0d:02 HTTP/1.1\r\nHost: h\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n", 404, "", "ipxe.efi"},
		{"firmware's HEAD", "HEAD /boot/52:54:00:00:0d:02 HTTP/1.1\r\nHost: h\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n", 404, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &decider{decision: boot.Decision{Action: proto.BootDisk, Node: "n1"}}
			url, _ := serve(t, d)
			resp := raw(t, url, c.request)
			got := body(t, resp)
			mac, method := "", ""
			if len(d.asked) > 0 {
				mac, method = d.asked[0].MAC, d.asked[0].Method
			}
			if resp.StatusCode != c.status || mac != c.mac || !strings.Contains(got, c.has) || c.has == "" && c.status == 200 && got != "" {
				t.Errorf("answer = %d %q after asking for %q, want %d, %q and %q", resp.StatusCode, got, mac, c.status, c.has, c.mac)
			}
			if mac != "" && !strings.HasPrefix(c.request, method+" ") {
				t.Errorf("the decider was asked with method %s for %q", method, c.request)
			}
			if strings.HasPrefix(c.request, "HEAD") && c.status == 200 && resp.ContentLength <= 0 {
				t.Errorf("HEAD has length %d", resp.ContentLength)
			}
		})
	}
}

func TestFirmwareGetsItsLoader(t *testing.T) {
	d := &decider{}
	url, images := serve(t, d)
	if err := os.WriteFile(filepath.Join(images, "ipxe.efi"), []byte("MZ"), 0o644); err != nil {
		t.Fatal(err)
	}
	resp := get(t, url+"/boot/52:54:00:00:0d:02", "User-Agent", "UefiHttpBoot/1.0")
	if got := body(t, resp); got != "MZ" || resp.Header.Get("Content-Type") != "application/efi" {
		t.Errorf("answer = %q of type %s", got, resp.Header.Get("Content-Type"))
	}
	if len(d.asked) != 0 {
		t.Error("the firmware's request counts as one for a boot script")
	}
}

// The host of the URLs in a script is what the client says, if that can be a host, else the address it reached.
func TestHost(t *testing.T) {
	d := &decider{decision: boot.Decision{Action: proto.BootDisk, Node: "n1"}}
	url, _ := serve(t, d)
	own := strings.TrimPrefix(url, "http://")
	for _, c := range []struct{ header, want string }{
		{"10.0.2.2:8480", "10.0.2.2:8480"},
		{"10.0.2.2", "10.0.2.2"},
		{"frontend.cluster", "frontend.cluster"},
		{"[fd00::1]:8480", "[fd00::1]:8480"},
		{"[fd00::1]", "[fd00::1]"},
		{"", own},
		{"fd00::1", own},
		{"[fe80::1%25eth0]:80", own},
		{"h:0", own},
		{"h:99999", own},
		{"h:x", own},
		{"-h", own},
		{"a||b", own},
		{"a;b", own},
		{"${x}", own},
		{"a/../b", own},
		{"user@h", own},
		{strings.Repeat("a", 300), own},
	} {
		d.asked = nil
		resp := raw(t, url, "GET /boot/52:54:00:00:0d:02 HTTP/1.1\r\nHost: "+c.header+"\r\n\r\n")
		if resp.StatusCode == 400 {
			continue // net/http refuses some by itself
		}
		if got := d.asked[0].Host; got != c.want {
			t.Errorf("with Host: %s the host is %q, want %q", c.header, got, c.want)
		}
	}
}

func TestAgentURLByHost(t *testing.T) {
	url, _ := serve(t, &decider{decision: install()})
	for header, want := range map[string]string{
		"10.0.2.2:8480":  "provost.url=https://10.0.2.2:8440 ",
		"front":          "provost.url=https://front:8440 ",
		"[fd00::1]:8480": "provost.url=https://[fd00::1]:8440 ",
		"[fd00::1]":      "provost.url=https://[fd00::1]:8440 ",
	} {
		got := body(t, raw(t, url, "GET /boot/52:54:00:00:0d:02 HTTP/1.1\r\nHost: "+header+"\r\n\r\n"))
		if !strings.Contains(got, want) {
			t.Errorf("with Host: %s the script is\n%swant %q", header, got, want)
		}
	}
}

func FuzzScripts(f *testing.F) {
	for _, s := range []string{"", "n1", "a\nreboot", "${x}", "|| boot", "&& boot", "; boot", "# x", "\\", "a \\", "--help", ":fail", "\x1b[2J", "\r", "ü", "'", "%0a", "http://h/${x}", "images/a\nb", strings.Repeat("x", 200)} {
		f.Add(s, s, s, uint(0))
		f.Add(s, s, s, uint(3))
		f.Add(s, s, s, uint(4))
		f.Add("n1", s, "images/k", uint(1))
		f.Add("n1", "quiet", s, uint(2))
	}
	d := &decider{}
	h := boot.NewServer(d, boot.Options{ImagesDir: f.TempDir(), Overlay: "/nowhere", Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, node, text, file string, which uint) {
		want := []string{}
		const mac, again = "/boot/52:54:00:00:00:01", "prompt --timeout ||\nchain --replace ||\ngoto again\n"
		d.err = nil
		switch which % 5 {
		case 0:
			d.decision = boot.Decision{Action: proto.BootBlock, Node: node, Reason: []string{text}, Hint: []string{file}}
		case 1, 2:
			d.decision = install()
			d.decision.Node, d.decision.Args, d.decision.Kernel = node, text, file
			want = append(want, "echo\nimgfree\nkernel ||\ngoto fail\ninitrd --name ||\ngoto fail\ninitrd --name ||\ngoto fail\nboot ||\ngoto fail\n"+
				":fail\necho\nsleep 30\nchain --replace ||\ngoto fail\n")
		case 3:
			d.decision = boot.Decision{Action: proto.BootDisk, Node: node, LocalBoot: "sanboot"}
			want = append(want, "echo\nsanboot --no-describe --drive ||\nexit 0\n")
		default:
			d.err = proto.NewProblem(503, node, text, file)
			want = append(want, "echo\n"+strings.Repeat("sleep N\nchain --replace ||\necho\n", 20)+"exit 1\n")
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", mac, nil)
		h.ServeHTTP(w, r)
		cmds, err := parseIPXE(w.Body.String())
		if err != nil {
			t.Fatal(err)
		}
		for i, cmd := range cmds {
			if len(cmd.words) == 2 && cmd.words[0] == "sleep" && which%5 == 4 {
				cmds[i].words[1] = "N"
			}
		}
		got := shape(cmds)
		for n := range 18 { // a screen of any length
			want = append(want, ":again\n"+strings.Repeat("echo\n", n+1)+again)
		}
		for n := 18; n <= 33; n++ {
			want = append(want, ":again\n"+strings.Repeat("echo\n", n)+again)
		}
		for _, w := range want {
			if got == w {
				return
			}
		}
		t.Errorf("the script\n%sdoes\n%s", w.Body, got)
	})
}
