// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"provost/collector/internal/profile"
	"provost/proto"
)

// Decider says what a machine boots, and is told what it fetched. It is used by many goroutines at once.
type Decider interface {
	// Boot decides. It may be called any number of times for one boot of a machine, and a Request with method HEAD never
	// starts an attempt. A *proto.Problem below 500 blocks the machine, with its text on the screen; any other error makes
	// the machine ask again in a moment: of the Decision with it only Action counts, as far as it is known. A machine whose
	// action is BootNetboot never stops asking.
	Boot(ctx context.Context, r Request) (Decision, error)

	// Sent tells that a file of the attempt with this ticket was fetched, by its name in the Decision; complete, if its
	// last byte was sent. It is called once for each GET that began to be answered; the ticket is what the client said.
	Sent(ctx context.Context, ticket, file string, complete bool)

	// Unsent tells that a file asked for by an attempt with this ticket could not be had, and why, in words for its operator.
	Unsent(ctx context.Context, ticket, file, why string)

	// Answer gives an answer file of the attempt with this ticket; Sent tells of it as AnswerPrefix and its name. The
	// Request has no MAC. A *proto.Problem below 500 is the answer to the machine, with its status.
	Answer(ctx context.Context, r Request, install, ticket, file string) ([]byte, error)

	// AnswerOf gives an answer file, and the ticket that Sent is to have, to a machine that says who it is by MACs and Serial
	// of the Request: on a site that boots its machines by itself, no boot script told it a ticket.
	AnswerOf(ctx context.Context, r Request, file string) (b []byte, ticket string, err error)

	// Loading gives the Decision of the attempt with this ticket again, to the boot loader that a script of it has loaded. A
	// *proto.Problem below 500 is the answer to the machine, with its status.
	Loading(ctx context.Context, r Request, install, ticket string) (Decision, error)

	// Callback takes the word of a system without an agent; a repeat is no error, and changes nothing. The Request has no
	// MAC. A *proto.Problem below 500 is the answer to the machine, with its status.
	Callback(ctx context.Context, r Request, cb Callback) error
}

// Request is what a machine says of itself. Nothing of it is proven.
type Request struct {
	MAC        string // aa:bb:cc:dd:ee:ff
	Method     string // GET or HEAD
	UserAgent  string // at most 256 bytes
	Host       string // HOST or HOST:PORT of this server, as the machine reaches it
	RemoteAddr string // ADDRESS:PORT
	Serial     string // at most 128 bytes
	UUID       string // at most 64 bytes

	// Again is the attempt whose files the machine's boot loader could not load, by which it asks for its script once more; 0:
	// it does not say so.
	Again int

	AgentPort int // of the collector's listener for agents; 8440 if 0

	MACs []string // with AnswerOf: every card's, as in MAC
}

// AgentURL is the collector's for agents, at the host that the machine reached.
func (r Request) AgentURL() string {
	return fmt.Sprintf("https://%s:%d", hostOnly(r.Host), cmp.Or(r.AgentPort, defaultAgentPort))
}

const defaultAgentPort = 8440

// Images is the URL of the images directory as the machine reaches it, for the templates of profiles.
func (r Request) Images() string { return "http://" + r.Host + "/images" }

// TicketImages is Images with the ticket of an attempt, so that what is fetched below it is known to be fetched by that.
func (r Request) TicketImages(ticket string) string {
	if ticket == "" { // a rescue, which is no attempt
		return r.Images()
	}
	return r.Images() + "/~" + ticket
}

// Decision is what a machine boots.
type Decision struct {
	Action     proto.BootAction
	Node       string // empty: nobody has added this machine
	UnknownMAC bool   // nobody has added this machine; Action counts as BootDisk

	// For BootInstall and BootNetboot; a BootRescue has Kernel, Initrds, Args, Pin and URLs alone.
	Install string
	Attempt int
	Look    bool     // nothing is installed: the agent looks whether the disk has the install already
	Loader  string   // as in a profile; empty is linux
	Kernel  string   // "images/…" or a URL
	Initrds []string // like Kernel, or "overlay"
	Args    string   // of the profile; the agent's are put in front
	Ticket  string   // comes back with each fetch of Kernel and Initrds
	Claim   string
	Pin     string   // "sha256:" and hex
	URLs    []string // of the collector for the agent, in order; the host that the machine reached, if empty

	Injected []string // answer files that are loaded beside Initrds

	LocalBoot string // for BootDisk: "exit" or "sanboot"

	// For BootBlock: lines for the machine's screen. They may hold anything.
	Reason []string
	Hint   []string
}

// Options of a server.
type Options struct {
	ImagesDir string       // served below /images/
	Overlay   string       // file served as /images/overlay; empty: there is none
	AgentPort int          // of the listener for agents; 8440 if 0
	Log       *slog.Logger // slog's default if nil
}

// The waits of the server's own answers.
const (
	writeTimeout = 60 * time.Second // for each MiB of an image, for all of a script
	sentTimeout  = 10 * time.Second // for Decider.Sent, after the client may have gone
)

type server struct {
	decider Decider
	opts    Options
	log     *slog.Logger
}

// NewServer gives the handler of
//
//	GET|HEAD /boot/{mac}[?format=ipxe|grub|pxelinux][&serial=…][&uuid=…]
//	GET|HEAD …/grub.cfg-01-{mac}, …/grub.cfg-{mac}, …/grub.cfg, …/pxelinux.cfg/01-{mac}
//	GET|HEAD /boot/answer/{install}/{ticket}/{file}
//	GET|HEAD /boot/answer/{file}, with the headers of inst.ks.sendmac and inst.ks.sendsn
//	GET|HEAD /boot/esxi/{install}/{ticket}/boot.cfg
//	GET|POST /boot/callback/{install}/{ticket}/{stage}[?failed=1][&message=…]
//	GET|HEAD /images/[~{ticket}/]…
//
// It takes paths with double and trailing slashes, and must not stand behind an http.ServeMux, which would redirect them:
// firmware does not follow. It sets the deadline of each write by itself: the http.Server's WriteTimeout has to be 0.
func NewServer(d Decider, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &server{decider: d, opts: o, log: o.Log}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bw := &boundedWriter{ResponseWriter: w, rc: http.NewResponseController(w)}
	defer bw.finish()
	p := path.Clean("/" + r.URL.Path)
	if rest, ok := strings.CutPrefix(p, "/boot/callback/"); ok {
		s.serveCallback(bw, r, rest)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		s.text(bw, http.StatusMethodNotAllowed, "only GET and HEAD are answered here\n")
		return
	}
	if name, ok := strings.CutPrefix(p, "/images/"); ok {
		s.serveImage(bw, r, name)
	} else if file, ok := strings.CutPrefix(p, "/boot/answer/"); ok {
		s.serveAnswer(bw, r, file)
	} else if rest, ok := strings.CutPrefix(p, "/boot/esxi/"); ok {
		s.serveBootCfg(bw, r, rest)
	} else if format, mac, ok := loaderFile(p); ok {
		s.serveBoot(bw, r, mac, format)
	} else if path.Base(p) == "grub.cfg" {
		s.text(bw, http.StatusOK, grubAny(hostOf(r)))
	} else if mac, ok := strings.CutPrefix(p, "/boot/"); ok && !strings.Contains(mac, "/") {
		s.serveBoot(bw, r, mac, r.URL.Query().Get("format"))
	} else {
		s.text(bw, http.StatusNotFound, "there are /boot/MAC and /images/FILE here\n")
	}
}

// request is what a client says beside its path.
func (s *server) request(r *http.Request) Request {
	return Request{Method: r.Method, UserAgent: clip(r.UserAgent(), 256), Host: hostOf(r), RemoteAddr: r.RemoteAddr, AgentPort: s.opts.AgentPort}
}

// serveBoot answers three kinds of client that one DHCP file name may lead to: boot loaders, the firmware's own HTTP boot,
// which wants a boot loader, and debian-installer, which takes the URL for that of a preseed file.
func (s *server) serveBoot(w *boundedWriter, r *http.Request, macText, format string) {
	agent := clip(r.UserAgent(), 256)
	switch {
	case strings.HasPrefix(agent, "UefiHttpBoot"):
		s.serveFirmware(w, r)
		return
	case strings.Contains(agent, "debian-installer"):
		s.text(w, http.StatusOK, "") // a preseed that says nothing
		return
	}
	format, err := formatOf(format, agent)
	if err != nil {
		s.text(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	mac, err := proto.NormalMAC(macText)
	if err != nil {
		s.text(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	query := r.URL.Query()
	number := func(key string) int { n, _ := strconv.Atoi(query.Get(key)); return n } // what is none is 0
	req := s.request(r)
	req.MAC, req.Serial, req.UUID, req.Again = mac, clip(query.Get("serial"), 128), clip(query.Get("uuid"), 64), max(number("again"), 0)
	to := newDialect(format, req, min(max(number("asks"), 0), maxAsks))
	d, err := s.decider.Boot(r.Context(), req)
	if p := new(proto.Problem); errors.As(err, &p) && p.Status < 500 {
		s.log.Error("boot script: refused, the node is blocked instead", "mac", mac, "remote", r.RemoteAddr, "err", err)
		s.text(w, http.StatusOK, blocked(to, mac, []string{p.Detail}, []string{p.Hint}))
		return
	}
	if err != nil {
		s.log.Error("boot script: no decision", "mac", mac, "remote", r.RemoteAddr, "err", err)
		p := pause{seconds: 15 + rand.IntN(16), try: number("try") + 1}
		switch {
		case d.Action == proto.BootNetboot:
			p.left, p.try = -1, 1
		case p.try >= 1 && p.try <= maxTries:
			p.left = maxTries - p.try + 1
		}
		s.text(w, http.StatusOK, to.again(echoText(problemText(err)), p))
		return
	}
	script, err := s.script(to, d, req)
	switch {
	case err != nil && d.Node == "" && d.Action == proto.BootRescue: // a machine that nobody has added: whatever the site wanted of it, its disk is its own
		s.log.Error("boot script: cannot be made, the unknown machine boots from disk", "mac", mac, "format", format, "err", err)
		script = to.disk([]string{mac + " is no node here, booting from disk"}, "")
	case err != nil:
		s.log.Error("boot script: cannot be made, the node is blocked instead", "node", d.Node, "mac", mac, "format", format, "err", err)
		script = unmade(to, cmp.Or(d.Node, mac), err)
	}
	s.log.Info("boot script", "node", d.Node, "mac", mac, "action", string(d.Action), "install", d.Install, "attempt", d.Attempt,
		"format", format, "method", r.Method, "remote", r.RemoteAddr, "agent", agent)
	s.text(w, http.StatusOK, script)
}

func (s *server) script(to dialect, d Decision, r Request) (string, error) {
	if d.UnknownMAC {
		return to.disk([]string{r.MAC + " is no node here, booting from disk", "to add it type: provost node add NAME --mac " + r.MAC}, ""), nil
	}
	switch d.Action {
	case proto.BootInstall, proto.BootNetboot, proto.BootRescue:
		if d.Loader != "" && d.Loader != profile.LoaderLinux {
			return s.foreign(to, d, r)
		}
		l, err := newLoad(d, r, s.opts)
		if err != nil {
			return "", err
		}
		return to.load(l)
	case proto.BootDisk:
		switch d.LocalBoot {
		case "", profile.LocalExit, profile.LocalSanboot:
			return to.disk([]string{echoText(d.Node) + " boots from disk"}, d.LocalBoot), nil
		}
		return "", fmt.Errorf("local-boot %q: use exit or sanboot", d.LocalBoot)
	case proto.BootBlock:
		return blocked(to, cmp.Or(d.Node, r.MAC), d.Reason, d.Hint), nil
	}
	return "", fmt.Errorf("there is no boot script for the boot action %q", d.Action)
}

// blocked is the screen of a machine that boots nothing.
func blocked(to dialect, node string, reason, hint []string) string {
	return to.block(echoText(node)+" is blocked and boots nothing", screen(reason), screen(hint))
}

// unmade is the screen of a machine for which there is no sound script.
func unmade(to dialect, node string, err error) string {
	return blocked(to, node, []string{"The boot script of this node cannot be made:", err.Error()},
		[]string{"mend the node's profile or attributes; this node asks again by itself"})
}

// text sends a small answer with its length, which iPXE and HTTP/1.0 clients want.
func (s *server) text(w http.ResponseWriter, status int, body string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write([]byte(body)); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		s.log.Debug("boot: client went away", "err", err)
	}
}

// refuse answers a request that the decider did not grant: a *proto.Problem below 500 is the answer, with its status; after
// any other error the client may come again. what is for the log, as its attributes.
func (s *server) refuse(w http.ResponseWriter, err error, what string, attrs ...any) {
	attrs = append(attrs, "err", err)
	if p := new(proto.Problem); errors.As(err, &p) && p.Status < 500 {
		s.log.Warn(what+" refused", attrs...)
		s.text(w, p.Status, p.Detail+"\n")
		return
	}
	s.log.Error(what+" cannot be answered", attrs...)
	w.Header().Set("Retry-After", "5")
	s.text(w, http.StatusServiceUnavailable, problemText(err)+"\n")
}

// problemText is what of an error a machine's screen may show.
func problemText(err error) string {
	if p := new(proto.Problem); errors.As(err, &p) {
		return p.Error()
	}
	return "the collector has an internal error, which its log names"
}

var hostRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$`)

// hostOf is this server's HOST:PORT as the client reaches it: its Host header where that is sound, else the address that
// the connection came to. HTTP/1.0 clients may send none.
func hostOf(r *http.Request) string {
	if validHost(r.Host) {
		return r.Host
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && validHost(a.String()) {
		return a.String()
	}
	return "localhost"
}

// validHost takes a name or an address, with or without a port; nothing of it means anything in a URL or script.
func validHost(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	} else if inner, ok := strings.CutPrefix(s, "["); ok {
		host, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return false
		}
	} else {
		host = s
	}
	if strings.Contains(host, ":") {
		a, err := netip.ParseAddr(host)
		return err == nil && a.Zone() == "" && strings.HasPrefix(s, "[")
	}
	return hostRE.MatchString(host)
}

// hostOnly is the host of a HOST:PORT that validHost takes, an IPv6 address in its brackets.
func hostOnly(s string) string {
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		return s
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
