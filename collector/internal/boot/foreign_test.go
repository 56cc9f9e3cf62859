// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/boot"
	"provost/proto"
)

const foreignMAC = "52:54:00:00:0d:02"

func esxi() boot.Decision {
	d := install()
	d.Loader, d.Kernel, d.Initrds, d.Args = "esxi", "images/esxi8/BOOT.CFG", nil, "ks=http://h/ks.cfg netdevice=vmnic0"
	return d
}

func winpe() boot.Decision {
	d := install()
	d.Loader, d.Kernel, d.Args, d.Injected = "winpe", "images/win/wimboot", "index=2", []string{"startnet.cmd", "unattend.xml"}
	d.Initrds = []string{"images/win/bootmgr", "images/win/boot/bcd", "images/win/boot/boot.sdi", "images/win/sources/boot.wim", "http://10.0.0.2/curl.exe"}
	return d
}

func foreignScript(t *testing.T, d boot.Decision, query string) (script, host string) {
	t.Helper()
	url, _ := serve(t, &decider{decision: d})
	host = strings.TrimPrefix(url, "http://")
	return strings.ReplaceAll(body(t, get(t, url+"/boot/"+foreignMAC+query)), host, "HOST"), host
}

func TestForeignScripts(t *testing.T) {
	const tail = ":fail\necho Provost: loading did not work, asking again in 30 s\nsleep 30\nchain --replace http://HOST/boot/52:54:00:00:0d:02?again=1 || goto fail\n"
	const cfg = " -c http://HOST/boot/esxi/01J0000000000000000000000A/aaaa/boot.cfg BOOTIF=01-52-54-00-00-0d-02 || goto fail\nboot || goto fail\n"
	const answers = "http://HOST/boot/answer/01J0000000000000000000000A/aaaa/"
	for name, c := range map[string]struct {
		d    boot.Decision
		want string
	}{
		"esxi": {esxi(), "#!ipxe\necho Provost: installing n1, attempt 1\nimgfree\niseq ${platform} efi && goto efi ||\n" +
			"kernel http://HOST/images/~aaaa/esxi8/mboot.c32" + cfg + ":efi\nkernel http://HOST/images/~aaaa/esxi8/efi/boot/bootx64.efi" + cfg + tail},
		"winpe": {winpe(), "#!ipxe\necho Provost: installing n1, attempt 1\nimgfree\nkernel http://HOST/images/win/wimboot?t=aaaa index=2 || goto fail\n" +
			"initrd --name bootmgr http://HOST/images/win/bootmgr?t=aaaa bootmgr || goto fail\n" +
			"initrd --name bcd http://HOST/images/win/boot/bcd?t=aaaa bcd || goto fail\n" +
			"initrd --name boot.sdi http://HOST/images/win/boot/boot.sdi?t=aaaa boot.sdi || goto fail\n" +
			"initrd --name boot.wim http://HOST/images/win/sources/boot.wim?t=aaaa boot.wim || goto fail\n" +
			"initrd --name curl.exe http://10.0.0.2/curl.exe curl.exe || goto fail\n" +
			"initrd --name startnet.cmd " + answers + "startnet.cmd startnet.cmd || goto fail\n" +
			"initrd --name unattend.xml " + answers + "unattend.xml unattend.xml || goto fail\n" +
			"boot || goto fail\n" + tail},
	} {
		got, _ := foreignScript(t, c.d, "")
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		if strings.Contains(got, "bbbb") {
			t.Errorf("%s: the claim of an agent is in the script", name)
		}
	}
}

// TestForeignBlocked: what cannot be loaded soundly is a screen.
func TestForeignBlocked(t *testing.T) {
	change := func(d boot.Decision, f func(*boot.Decision)) boot.Decision { f(&d); return d }
	for name, c := range map[string]struct {
		d           boot.Decision
		query, text string
	}{
		"GRUB":           {esxi(), "?format=grub", "iPXE alone loads it"},
		"PXELINUX":       {winpe(), "?format=pxelinux", "iPXE alone loads it"},
		"rescue":         {change(esxi(), func(d *boot.Decision) { d.Action = proto.BootRescue }), "", "it can be installed, and nothing else"},
		"no loader":      {change(esxi(), func(d *boot.Decision) { d.Loader = "solaris" }), "", "there is no loader"},
		"no boot.cfg":    {change(esxi(), func(d *boot.Decision) { d.Kernel = "images/esxi8/b.b00" }), "", "loader esxi wants the boot.cfg"},
		"outside":        {change(esxi(), func(d *boot.Decision) { d.Kernel = "images/../boot.cfg" }), "", "loader esxi wants the boot.cfg"},
		"two of a name":  {change(winpe(), func(d *boot.Decision) { d.Initrds = append(d.Initrds, "images/x/BOOTMGR") }), "", "each once"},
		"odd name":       {change(winpe(), func(d *boot.Decision) { d.Initrds = []string{"images/a(b)"} }), "", "each once"},
		"arguments":      {change(winpe(), func(d *boot.Decision) { d.Args = "x || shell" }), "", "means something else"},
		"arguments' end": {change(winpe(), func(d *boot.Decision) { d.Args = "x\nshell" }), "", "is not printable ASCII"},
		"node":           {change(winpe(), func(d *boot.Decision) { d.Node = "n1\nshell" }), "", "cannot be made"},
		"ticket":         {change(winpe(), func(d *boot.Decision) { d.Ticket = "a b" }), "", "ticket is not sound"},
	} {
		got, _ := foreignScript(t, c.d, c.query)
		flat := strings.Join(strings.Fields(strings.NewReplacer("echo | ", " ", "SAY | ", " ", "echo '| ", " ", "'\n", " ").Replace(got)), " ")
		if !strings.Contains(flat, c.text) || strings.Contains(got, "\nkernel ") || strings.Contains(got, "\nshell") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestBootCfg(t *testing.T) {
	const path = "/boot/esxi/01J0000000000000000000000A/aaaa/boot.cfg"
	const own = "bootstate=0\r\ntitle=Loading ESXi installer\ntimeout=5\nprefix=\nkernel=/b.b00\nkernelopt=runweasel cdromBoot ks=cdrom:/KS.CFG\nmodules=/jumpstrt.gz --- /useropts.gz --- /K.B00\nbuild=8.0.2\nupdated=0\n"
	write := func(t *testing.T, images, text string) {
		t.Helper()
		for name, b := range map[string]string{"BOOT.CFG": text, "B.B00": "kernel", "jumpstrt.gz": "", "useropts.gz": "", "k.b00": ""} {
			if err := os.MkdirAll(filepath.Join(images, "esxi8"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(images, "esxi8", name), []byte(b), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := &decider{decision: esxi()}
	url, images := serve(t, d)
	write(t, images, own)
	want := "bootstate=0\ntitle=Loading ESXi installer\ntimeout=5\nkernel=B.B00\nmodules=jumpstrt.gz --- useropts.gz --- k.b00\nbuild=8.0.2\nupdated=0\n" +
		"prefix=" + url + "/images/~aaaa/esxi8\nkernelopt=runweasel ks=http://h/ks.cfg netdevice=vmnic0\n"
	if resp, err := http.Head(url + path); err != nil || resp.StatusCode != 200 {
		t.Errorf("HEAD = %v, %v", resp, err)
	}
	if got := d.takeSent(); got != nil {
		t.Errorf("HEAD noted %q", got)
	}
	if diff := cmp.Diff(want, body(t, get(t, url+path))); diff != "" {
		t.Errorf("boot.cfg: -want +got\n%s", diff)
	}
	if diff := cmp.Diff([]string{"aaaa images/esxi8/BOOT.CFG true"}, waitSent(d, 1)); diff != "" {
		t.Errorf("sent: -want +got\n%s", diff)
	}
	d.takeSent()
	if got := body(t, get(t, url+"/images/~aaaa/esxi8/B.B00")); got != "kernel" {
		t.Errorf("a file below the prefix = %q", got)
	}
	if diff := cmp.Diff([]string{"aaaa images/esxi8/B.B00 true"}, waitSent(d, 1)); diff != "" {
		t.Errorf("sent: -want +got\n%s", diff)
	}
	for bad, status := range map[string]int{
		strings.Replace(path, "aaaa", "aaab", 1): 404, strings.Replace(path, "0A/", "0B/", 1): 404, strings.Replace(path, "boot.cfg", "b.b00", 1): 404,
		"/boot/esxi/n1/aaaa/boot.cfg": 404, "/images/~aaaa": 404, "/images/~aaaa/../secret": 404, "/images/~aaaa/.hidden": 404, "/images/~/small.txt": 200,
	} {
		if resp := get(t, url+bad); resp.StatusCode != status {
			t.Errorf("%s = %d, want %d", bad, resp.StatusCode, status)
		}
	}
	d.decision.Args = "ks=x\nkernel=evil"
	if resp := get(t, url+path); resp.StatusCode != 503 {
		t.Errorf("arguments of two lines = %d, want 503", resp.StatusCode)
	}
	d.decision = esxi()
	for _, text := range []string{"kernel=/missing\n", "kernel=/b.b00\nmodules=/../../secret\n", "kernel=\n", strings.Repeat("x", 70000)} {
		write(t, images, text)
		if resp := get(t, url+path); resp.StatusCode != 503 {
			t.Errorf("boot.cfg %.30q = %d, want 503", text, resp.StatusCode)
		}
	}
	d.decision.Loader = ""
	write(t, images, own)
	if resp := get(t, url+path); resp.StatusCode != 404 {
		t.Errorf("of a Linux = %d, want 404", resp.StatusCode)
	}
}
