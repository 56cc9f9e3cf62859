// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/boot"
	"provost/proto"
)

// parseGRUB reads a script as GRUB's lexer does, as far as ours go: every line a command of words, quoted by ' or ". An
// expansion outside of single quotes is an error but for the two that we write.
func parseGRUB(script string) ([][]string, error) {
	var out [][]string
	for line := range strings.Lines(script) {
		if !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("no end of line in %q", line)
		}
		line = strings.TrimSuffix(line, "\n")
		var words []string
		word, in := "", false
		for i := 0; i < len(line); i++ {
			switch c := line[i]; c {
			case '\'':
				end := strings.IndexByte(line[i+1:], '\'')
				if end < 0 {
					return nil, fmt.Errorf("quote without an end in %q", line)
				}
				word, in, i = word+line[i+1:i+1+end], true, i+1+end
			case '\\':
				if i+1 == len(line) || line[i+1] != '\'' {
					return nil, fmt.Errorf("backslash in %q", line)
				}
				word, in, i = word+"'", true, i+1
			case '"':
				end := strings.IndexByte(line[i+1:], '"')
				if inner := line[i+1 : i+1+max(end, 0)]; end < 0 || inner != "$grub_platform" && inner != "$file" {
					return nil, fmt.Errorf("double quote in %q", line)
				}
				word, in, i = word+"$", true, i+1+end
			case ' ', ';': // a pipeline's end is a word here
				if in {
					words = append(words, word)
				}
				word, in = "", false
				if c == ';' {
					words = append(words, ";")
				}
			case '$', '{', '}', '|', '&', '<', '>', '#', '\t', '\r':
				return nil, fmt.Errorf("%q outside of quotes in %q", c, line)
			default:
				word, in = word+string(c), true
			}
		}
		if in {
			words = append(words, word)
		}
		out = append(out, words)
	}
	return out, nil
}

// shapeGRUB has the commands, and of their arguments what is ours.
func shapeGRUB(script string) (string, error) {
	cmds, err := parseGRUB(script)
	var b strings.Builder
	for _, c := range cmds {
		c = append([]string{}, c...)
		i := 0
		if c[0] == "if" {
			i = 1
		}
		switch c[i] {
		case "echo":
			c = c[:min(2, len(c)):2]
			c[1] = "…"
		case "linux", "initrd", "configfile":
			c = append(c[:i+1], "…")
		case "sleep":
			c = c[:1]
		case "while":
			c[2] = "N"
		}
		b.WriteString(strings.Join(c, " ") + "\n")
	}
	return b.String(), err
}

// shapePXELINUX has the directives, and of their values what is ours.
func shapePXELINUX(script string) (string, error) {
	var b strings.Builder
	if strings.ContainsFunc(script, func(r rune) bool { return r < ' ' && r != '\n' || r > '~' }) {
		return "", fmt.Errorf("not plain text: %q", script)
	}
	for line := range strings.Lines(script) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "SAY", "LINUX", "APPEND", "CONFIG":
			value = "…"
		case "INITRD":
			value = fmt.Sprint(strings.Count(value, ",") + 1)
		case "TIMEOUT", "TOTALTIMEOUT":
			value = "N"
		}
		b.WriteString(key + " " + value + "\n")
	}
	return b.String(), nil
}

const (
	grubLoad  = "echo …\nif linux …\nif initrd …\nboot\nfi\nfi\necho …\n" + grubAgain
	grubAgain = "while sleep N ; do\nconfigfile …\ndone\n"
	grubBlock = "while sleep N ; do\nsleep\nconfigfile …\ndone\n"
	pxeLocked = "ALLOWOPTIONS 0\nIMPLICIT 0\n"
	pxeAtOnce = "PROMPT 0\n" + pxeLocked + "NOESCAPE 1\n"
	pxeWaits  = "PROMPT 1\n" + pxeLocked // NOESCAPE would take PROMPT away
	pxeAgain  = "TIMEOUT N\nTOTALTIMEOUT N\nONTIMEOUT again\nLABEL again\nCONFIG …\n"
	pxeLoad   = "SAY …\nDEFAULT provost\n" + pxeAtOnce + "TIMEOUT N\nTOTALTIMEOUT N\nONTIMEOUT again\nLABEL provost\nLINUX …\nINITRD 2\nAPPEND …\nLABEL again\nCONFIG …\n"
)

func TestGRUBInstall(t *testing.T) {
	url, _ := serve(t, &decider{decision: install()})
	got := body(t, raw(t, url, "GET /boot/grub/grub.cfg-01-52-54-00-00-0d-02 HTTP/1.1\r\nHost: 10.0.2.2:8480\r\nUser-Agent: GRUB 2.06\r\n\r\n"))
	want := `echo 'Provost: installing n1, attempt 1'
if linux '(http,10.0.2.2:8480)/images/el9/vmlinuz?t=aaaa' 'provost.url=https://10.0.2.2:8440' 'provost.node=n1' 'provost.install=01J0000000000000000000000A' 'provost.claim=bbbb' 'provost.ca=sha256:` +
		strings.Repeat("0f", 32) + `' 'quiet' 'console=ttyS0' 'title=a b'; then
if initrd '(http,10.0.2.2:8480)/images/el9/initrd.img?t=aaaa' '(http,10.0.2.2:8480)/images/overlay?t=aaaa'; then
boot
fi
fi
echo 'Provost: loading did not work, asking again in 30 s'
while sleep 30; do
configfile '(http,10.0.2.2:8480)/boot/52:54:00:00:0d:02?again=1&format=grub'
done
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("script: -want +got\n%s", diff)
	}
}

func TestPXELINUXInstall(t *testing.T) {
	url, _ := serve(t, &decider{decision: install()})
	got := body(t, raw(t, url, "GET /boot/pxelinux.cfg/01-52-54-00-00-0d-02 HTTP/1.1\r\nHost: 10.0.2.2:8480\r\nUser-Agent: Syslinux/6.04\r\n\r\n"))
	want := `SAY Provost: installing n1, attempt 1
DEFAULT provost
PROMPT 0
ALLOWOPTIONS 0
IMPLICIT 0
NOESCAPE 1
TIMEOUT 300
TOTALTIMEOUT 300
ONTIMEOUT again
LABEL provost
LINUX http://10.0.2.2:8480/images/el9/vmlinuz?t=aaaa
INITRD http://10.0.2.2:8480/images/el9/initrd.img?t=aaaa,http://10.0.2.2:8480/images/overlay?t=aaaa
APPEND provost.url=https://10.0.2.2:8440 provost.node=n1 provost.install=01J0000000000000000000000A provost.claim=bbbb provost.ca=sha256:` +
		strings.Repeat("0f", 32) + ` quiet console=ttyS0 title="a b"
LABEL again
CONFIG http://10.0.2.2:8480/boot/52:54:00:00:0d:02?again=1&asks=1&format=pxelinux
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("script: -want +got\n%s", diff)
	}
}

// TestLoaders has every action in both languages; iPXE's are TestScripts'.
func TestLoaders(t *testing.T) {
	rescue := install()
	rescue.Action, rescue.Install, rescue.Claim, rescue.Ticket = proto.BootRescue, "", "", ""
	discover := rescue
	discover.Node = ""
	netboot := install()
	netboot.Action = proto.BootNetboot
	for _, c := range []struct {
		name      string
		decision  boot.Decision
		err       error
		query     string
		grub, pxe string // shapes
		has       []string
		hasNot    []string
	}{
		{name: "netboot", decision: netboot, grub: grubLoad, pxe: pxeLoad, has: []string{"n1 boots its system over the network", "provost.claim=bbbb"}},
		{name: "rescue", decision: rescue, grub: grubLoad, pxe: pxeLoad,
			has: []string{"rescue of n1: nothing is installed", "provost.rescue", "provost.node=n1"}, hasNot: []string{"provost.install", "provost.claim", "?t="}},
		{name: "discovery", decision: discover, grub: grubLoad, pxe: pxeLoad,
			has: []string{"looking at this machine", "provost.rescue"}, hasNot: []string{"provost.install", "provost.claim", "provost.node", "?t="}},
		{name: "disk", decision: boot.Decision{Action: proto.BootDisk, Node: "n1"}, grub: "echo …\nexit\n",
			pxe: "SAY …\nDEFAULT disk\n" + pxeAtOnce + "LABEL disk\nLOCALBOOT -1\n", has: []string{"n1 boots from disk"}},
		{name: "sanboot", decision: boot.Decision{Action: proto.BootDisk, Node: "n1", LocalBoot: "sanboot"},
			grub: "echo …\nif [ $ = efi ] ; then\nfor file in /EFI/BOOT/BOOTX64.EFI /EFI/BOOT/BOOTAA64.EFI ; do\nif search --no-floppy --set=root --file $ ; then\nif chainloader $ ; then\nboot\nfi\nfi\ndone\nelse\n" +
				"set root=hd0\nif chainloader +1 ; then\nboot\nfi\nfi\nexit\n",
			pxe: "SAY …\nDEFAULT disk\n" + pxeAtOnce + "LABEL disk\nLOCALBOOT 0\n"},
		{name: "unknown", decision: boot.Decision{UnknownMAC: true, Action: proto.BootInstall}, grub: "echo …\necho …\nexit\n",
			pxe: "SAY …\nSAY …\nDEFAULT disk\n" + pxeAtOnce + "LABEL disk\nLOCALBOOT -1\n", has: []string{"provost node add NAME --mac 52:54:00:00:00:01"}},
		{name: "block", decision: boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{"it's failed(loop=2)"}, Hint: []string{"provost install n1"}},
			grub: "echo …\necho …\necho …\necho …\n" + grubBlock, pxe: "SAY …\nSAY …\nSAY …\nSAY …\nDEFAULT again\n" + pxeWaits + pxeAgain,
			has: []string{"failed(loop=2)", "> provost install n1"}, hasNot: []string{"if linux", "\nLINUX"}},
		{name: "no decision", err: fmt.Errorf("x"), grub: "echo …\n" + strings.Repeat("sleep\nconfigfile …\n", 20) + "exit\n", pxe: "SAY …\nDEFAULT again\n" + pxeWaits + pxeAgain, has: []string{"&try=1"}},
		{name: "no decision on a node without a disk", decision: boot.Decision{Action: proto.BootNetboot}, err: fmt.Errorf("x"), query: "&try=20",
			grub: "echo …\n" + grubAgain, pxe: "SAY …\nDEFAULT again\n" + pxeWaits + pxeAgain},
		{name: "no decision for long", err: fmt.Errorf("x"), query: "&try=20", grub: "echo …\nexit\n", pxe: "SAY …\nDEFAULT disk\n" + pxeAtOnce + "LABEL disk\nLOCALBOOT -1\n"},
	} {
		for _, f := range []struct {
			format string
			shape  func(string) (string, error)
			want   string
		}{{"grub", shapeGRUB, c.grub}, {"pxelinux", shapePXELINUX, c.pxe}} {
			t.Run(c.name+" "+f.format, func(t *testing.T) {
				url, _ := serve(t, &decider{decision: c.decision, err: c.err})
				got := body(t, get(t, url+"/boot/52:54:00:00:00:01?format="+f.format+c.query))
				shape, err := f.shape(got)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(f.want, shape); diff != "" {
					t.Errorf("the script\n%sdoes: -want +got\n%s", got, diff)
				}
				for _, has := range c.has {
					if !strings.Contains(got, has) {
						t.Errorf("script\n%shas not %q", got, has)
					}
				}
				for _, not := range c.hasNot {
					if strings.Contains(got, not) {
						t.Errorf("script\n%shas %q", got, not)
					}
				}
			})
		}
	}
}

// Arguments and addresses that one of the loaders would change, or not understand, block the node instead.
func TestUnsoundForLoader(t *testing.T) {
	for _, c := range []struct {
		name, format string
		change       func(*boot.Decision)
		says         string
	}{
		{"https", "grub", func(d *boot.Decision) { d.Kernel = "https://h/k" }, "GRUB has no https"},
		{"single quote", "grub", func(d *boot.Decision) { d.Args = "a='b" }, "would change the quotes"},
		{"backslash", "grub", func(d *boot.Decision) { d.Args = `a=\x` }, "would change the quotes"},
		{"quote without an end", "grub", func(d *boot.Decision) { d.Args = `a="b c` }, "would change the quotes"},
		{"comma", "pxelinux", func(d *boot.Decision) { d.Initrds = []string{"http://h/a,b"} }, "has a comma"},
		{"initrd argument", "pxelinux", func(d *boot.Decision) { d.Args = "initrd=x" }, "own word"},
	} {
		d := install()
		c.change(&d)
		url, _ := serve(t, &decider{decision: d})
		got := body(t, get(t, url+"/boot/52:54:00:00:00:01?format="+c.format))
		if !strings.Contains(strings.Join(strings.Fields(got), " "), c.says) || strings.Contains(got, "\nif linux") || strings.Contains(got, "\nLINUX") {
			t.Errorf("%s: the script is\n%s", c.name, got)
		}
	}
}

func TestLoaderPaths(t *testing.T) {
	for _, c := range []struct{ path, agent, mac, begin string }{
		{"/boot/grub/grub.cfg-01-52-54-00-00-0d-02", "GRUB 2.06", "52:54:00:00:0d:02", "echo '"},
		{"/boot/grub.cfg-52-54-00-00-0D-02", "", "52:54:00:00:0d:02", "echo '"},
		{"/grub.cfg-01-52-54-00-00-0d-02", "", "52:54:00:00:0d:02", "echo '"},
		{"/boot/pxelinux.cfg/01-52-54-00-00-0d-02", "Syslinux/6.04", "52:54:00:00:0d:02", "SAY "},
		{"/pxelinux.cfg/01-52-54-00-00-0d-02", "", "52:54:00:00:0d:02", "SAY "},
		{"/boot/52:54:00:00:0d:02", "GRUB 2.12", "52:54:00:00:0d:02", "echo '"},
		{"/boot/52:54:00:00:0d:02", "Syslinux/6.04", "52:54:00:00:0d:02", "SAY "},
		{"/boot/52:54:00:00:0d:02", "curl/8", "52:54:00:00:0d:02", "#!ipxe"},
		{"/boot/52:54:00:00:0d:02?format=ipxe", "GRUB 2.12", "52:54:00:00:0d:02", "#!ipxe"},
		{"/boot/grub/grub.cfg", "GRUB 2.06", "", "configfile \"(http,h)/boot/${net_default_mac}?format=grub\"\n"},
		{"/boot/grub/grub.cfg-0A000203", "GRUB 2.06", "", "there are "},
		{"/boot/grub/grub.cfg-7726a678-7fc0-4853-a4f6-c85ac36a120a", "GRUB 2.06", "", "there are "},
		{"/pxelinux.cfg/7726a678-7fc0-4853-a4f6-c85ac36a120a", "Syslinux/6.04", "", "there are "},
		{"/pxelinux.cfg/default", "Syslinux/6.04", "", "there are "},
		{"/pxelinux.cfg/20-52-54-00-00-0d-02", "Syslinux/6.04", "", "\"20-52"},
	} {
		d := &decider{decision: boot.Decision{Action: proto.BootDisk, Node: "n1"}}
		url, _ := serve(t, d)
		got := body(t, raw(t, url, "GET "+c.path+" HTTP/1.1\r\nHost: h\r\nUser-Agent: "+c.agent+"\r\n\r\n"))
		mac := ""
		if len(d.asked) > 0 {
			mac = d.asked[0].MAC
		}
		if mac != c.mac || !strings.HasPrefix(got, c.begin) {
			t.Errorf("GET %s by %q = %q after asking for %q, want %q and %q", c.path, c.agent, got, mac, c.begin, c.mac)
		}
	}
}

// TestGRUBUnderstands: GRUB's own parser takes every script.
func TestGRUBUnderstands(t *testing.T) {
	if _, err := exec.LookPath("grub-script-check"); err != nil {
		t.Skip("there is no grub-script-check")
	}
	netboot := boot.Decision{Action: proto.BootNetboot}
	for name, d := range map[string]*decider{
		"install": {decision: install()}, "disk": {decision: boot.Decision{Action: proto.BootDisk, Node: "n1", LocalBoot: "sanboot"}},
		"block": {decision: boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{"it's failed"}}},
		"error": {err: fmt.Errorf("x")}, "error without a disk": {decision: netboot, err: fmt.Errorf("x")},
	} {
		url, _ := serve(t, d)
		script := body(t, get(t, url+"/boot/52:54:00:00:00:01?format=grub&serial=a%27b%20c"))
		cmd := exec.Command("grub-script-check")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: grub-script-check = %v: %s, of\n%s", name, err, out, script)
		}
	}
}

// TestPXELINUXAsks: PXELINUX ends after some 130 files within each other. A screen that is left alone asks for days all the
// same, and a key makes it ask at once.
func TestPXELINUXAsks(t *testing.T) {
	url, _ := serve(t, &decider{decision: boot.Decision{Action: proto.BootBlock, Node: "n1", Reason: []string{"failed(loop=2)"}}})
	next, waits := url+"/boot/52:54:00:00:00:01?format=pxelinux", 0
	for ask := range 130 {
		script := body(t, get(t, next))
		var seconds, minutes int
		_, rest, _ := strings.Cut(script, "wait ")
		fmt.Sscanf(rest, "%d minutes", &minutes)
		_, rest, _ = strings.Cut(script, "\nTIMEOUT ")
		if fmt.Sscanf(rest, "%d", &seconds); seconds < 3000 || seconds > 35996 || minutes*600 != seconds { // syslinux knows no more
			t.Fatalf("ask %d: TIMEOUT %d, %d minutes, in\n%s", ask, seconds, minutes, script)
		}
		waits += seconds / 10
		_, rest, ok := strings.Cut(script, "\nCONFIG ")
		if next = strings.TrimSpace(rest); !ok || !strings.HasPrefix(next, url) {
			t.Fatalf("ask %d leads to %q", ask, next)
		}
	}
	if waits < 4*24*3600 {
		t.Errorf("130 asks last %d s, want 4 days at least", waits)
	}
}

// FuzzLoaders: no data changes what a script of GRUB or PXELINUX does.
func FuzzLoaders(f *testing.F) {
	for _, s := range []string{"", "n1", "a\nreboot", "a\nLABEL x", "${x}", "$x", "';reboot;'", `\'`, "\"", `a="b c`, "a\rboot", "# x", "}", "initrd=x", "a,b", "ü", "http://h/$x", "http://h/'", "images/a b", strings.Repeat("x", 200)} {
		for which := range uint(4) {
			f.Add(s, s, s, which)
			f.Add("n1", s, "images/k", which)
			f.Add("n1", "quiet", s, which)
		}
	}
	d := &decider{}
	h := boot.NewServer(d, boot.Options{ImagesDir: f.TempDir(), Overlay: "/nowhere", Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, node, text, file string, which uint) {
		d.err = nil
		wantGRUB, wantPXE := "echo …\nexit\n", "SAY …\nDEFAULT disk\n"+pxeAtOnce+"LABEL disk\nLOCALBOOT -1\n"
		switch which % 4 {
		case 0:
			d.decision = boot.Decision{Action: proto.BootBlock, Node: node, Reason: []string{text}, Hint: []string{file}}
			wantGRUB, wantPXE = "", ""
		case 1:
			d.decision = install()
			d.decision.Node, d.decision.Args, d.decision.Kernel, d.decision.Initrds = node, text, file, []string{file, file}
			wantGRUB, wantPXE = grubLoad, pxeLoad
		case 2:
			d.decision = boot.Decision{Action: proto.BootDisk, Node: node}
		default:
			d.err = proto.NewProblem(503, node, text, file)
			wantGRUB, wantPXE = "echo …\n"+strings.Repeat("sleep\nconfigfile …\n", 20)+"exit\n", "SAY …\nDEFAULT again\n"+pxeWaits+pxeAgain
		}
		for _, l := range []struct {
			format, want, blockEnd, say string
			shape                       func(string) (string, error)
		}{
			{"grub", wantGRUB, grubBlock, "echo …\n", shapeGRUB},
			{"pxelinux", wantPXE, "DEFAULT again\n" + pxeWaits + pxeAgain, "SAY …\n", shapePXELINUX},
		} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/boot/52:54:00:00:00:01?format="+l.format, nil))
			got, err := l.shape(w.Body.String())
			if err != nil {
				t.Fatal(err)
			}
			if rest, ok := strings.CutSuffix(got, l.blockEnd); got != l.want && !(ok && strings.Count(rest, l.say)*len(l.say) == len(rest)) {
				t.Errorf("the script\n%sdoes\n%s", w.Body, got)
			}
		}
	})
}
