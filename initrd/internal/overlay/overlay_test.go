// SPDX-License-Identifier: Apache-2.0

package overlay_test

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"

	"provost/initrd/internal/overlay"
)

// agentELF makes the smallest ELF file with the given machine and program header type.
func agentELF(machine elf.Machine, typ elf.ProgType) []byte {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	binary.Write(&b, binary.LittleEndian, h)
	binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(typ)})
	return b.Bytes()
}

var (
	agent = agentELF(elf.EM_X86_64, elf.PT_LOAD)
	ca    = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
)

func build(t *testing.T, o overlay.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := overlay.Build(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack reads concatenated archives as the kernel's init/initramfs.c does: zeros between
// them are skipped, an uncompressed one must begin at a multiple of 4, a later file wins.
// Each entry is told as "mode content", in the order of arrival.
func unpack(t *testing.T, image []byte) (names []string, entries map[string]string) {
	t.Helper()
	entries = map[string]string{}
	add := func(r io.Reader) {
		for c := cpio.NewReader(r); ; {
			h, err := c.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if h.Uid != 0 || h.Guid != 0 {
				t.Errorf("%s belongs to %d:%d, want 0:0", h.Name, h.Uid, h.Guid)
			}
			names = append(names, h.Name)
			entries[h.Name] = fmt.Sprintf("%o %s", h.Mode, data)
		}
	}
	for at := 0; at < len(image); {
		rest := bytes.NewReader(image[at:])
		switch {
		case image[at] == 0:
			at++
			continue
		case image[at] == '0' && at%4 == 0:
			add(rest)
		case image[at] == 0x1f:
			z, err := gzip.NewReader(rest)
			if err != nil {
				t.Fatal(err)
			}
			z.Multistream(false)
			plain, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			add(bytes.NewReader(plain))
		default:
			t.Fatalf("junk at offset %d", at)
		}
		at = len(image) - rest.Len()
	}
	return names, entries
}

func TestContents(t *testing.T) {
	o := overlay.Options{Agent: agent, Arch: "amd64", CA: ca, JoinKey: []byte("key\n"), URLs: []string{"https://10.0.0.1:8440", "https://10.0.0.2:8440"}}
	names, entries := unpack(t, build(t, o))
	wantNames := strings.Fields("conf/conf.d/provost etc etc/linuxrc.d etc/linuxrc.d/provost etc/provost etc/provost/agent.conf etc/provost/ca.pem" +
		" etc/provost/join-key lib/debian-installer-startup.d/S11provost lib/dracut/hooks/initqueue/online/05-provost-start.sh" +
		" lib/dracut/hooks/pre-pivot/05-provost-start.sh usr usr/bin usr/bin/provost-agent usr/lib usr/lib/finish-install.d/95provost" +
		" usr/lib/provost usr/lib/provost/start")
	if d := cmp.Diff(wantNames, names); d != "" {
		t.Errorf("names in order (-want +got):\n%s", d)
	}
	for name, want := range map[string]string{
		"etc":                    "40755 ",
		"usr/bin/provost-agent":  "100755 " + string(agent),
		"etc/provost/agent.conf": "100644 join-key-file=/etc/provost/join-key\nurl=https://10.0.0.1:8440,https://10.0.0.2:8440\n",
		"etc/provost/ca.pem":     "100644 " + string(ca),
		"etc/provost/join-key":   "100600 key\n",
	} {
		if entries[name] != want {
			t.Errorf("%s = %q, want %q", name, entries[name], want)
		}
	}
	if got := entries["usr/lib/provost/start"]; !strings.HasPrefix(got, "100755 #!/bin/sh\n") {
		t.Errorf("start = %q, want an executable script", got)
	}
}

func TestSameOptionsSameBytes(t *testing.T) {
	for _, c := range []overlay.Compression{overlay.None, overlay.Gzip} {
		o := overlay.Options{Agent: agent, Arch: "amd64", CA: ca, Compression: c}
		first := build(t, o)
		if !bytes.Equal(first, build(t, o)) {
			t.Errorf("%s: two builds differ", c)
		}
		o.ModTime = time.Unix(1700000000, 0)
		if bytes.Equal(first, build(t, o)) {
			t.Errorf("%s: the time of the files is not taken", c)
		}
	}
}

// TestConcatenated has an installer's archive before and after the overlay, in both forms.
func TestConcatenated(t *testing.T) {
	for _, c := range []overlay.Compression{overlay.None, overlay.Gzip} {
		var vendor bytes.Buffer
		w := cpio.NewWriter(&vendor)
		for _, h := range []*cpio.Header{
			{Name: "bin", Mode: cpio.TypeSymlink | 0o777, Size: 7},
			{Name: "usr", Mode: cpio.TypeDir | 0o755},
			{Name: "usr/bin", Mode: cpio.TypeDir | 0o755},
			{Name: "usr/bin/provost-agent", Mode: cpio.TypeReg | 0o644, Size: 3},
		} {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, map[string]string{"bin": "usr/bin", "usr/bin/provost-agent": "old"}[h.Name])
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		over := build(t, overlay.Options{Agent: agent, Arch: "amd64", Compression: c})
		for name, image := range map[string][]byte{
			"after":  append(bytes.Clone(vendor.Bytes()), over...),
			"before": append(bytes.Clone(over), build(t, overlay.Options{Agent: agent, Arch: "amd64", Compression: c})...),
		} {
			_, entries := unpack(t, image)
			if want := "100755 " + string(agent); entries["usr/bin/provost-agent"] != want {
				t.Errorf("%s %s: the agent = %q, want %q", c, name, entries["usr/bin/provost-agent"], want)
			}
		}
	}
}

// TestNoDirectoryInPlaceOfALink guards installers with a merged /usr.
func TestNoDirectoryInPlaceOfALink(t *testing.T) {
	_, entries := unpack(t, build(t, overlay.Options{Agent: agent, Arch: "amd64", CA: ca, JoinKey: []byte("k")}))
	for name, e := range entries {
		if !strings.HasPrefix(name, "usr") && !strings.HasPrefix(name, "etc") && strings.HasPrefix(e, "4") {
			t.Errorf("the overlay holds the directory %s (%s)", name, e)
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64", "usr/sbin", "usr/lib64", "var", "run", "tmp", "."} {
		if e, ok := entries[link]; ok {
			t.Errorf("the overlay holds %s (%s), which may be a link in an installer", link, e)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*overlay.Options)
		err    error
		text   string
	}{
		"script":        {func(o *overlay.Options) { o.Agent = []byte("#!/bin/sh\n") }, overlay.ErrAgent, "no ELF program"},
		"dynamic":       {func(o *overlay.Options) { o.Agent = agentELF(elf.EM_X86_64, elf.PT_INTERP) }, overlay.ErrAgent, "CGO_ENABLED=0"},
		"other machine": {func(o *overlay.Options) { o.Agent = agentELF(elf.EM_AARCH64, elf.PT_LOAD) }, overlay.ErrAgent, "EM_AARCH64, want EM_X86_64"},
		"arch":          {func(o *overlay.Options) { o.Arch = "vax" }, overlay.ErrInput, "amd64 arm64 ppc64le"},
		"ca":            {func(o *overlay.Options) { o.CA = []byte("no") }, overlay.ErrInput, "no PEM certificate"},
		"url":           {func(o *overlay.Options) { o.URLs = []string{"10.0.0.1:8440"} }, overlay.ErrInput, "want https://"},
		"empty key":     {func(o *overlay.Options) { o.JoinKey = []byte("\n") }, overlay.ErrInput, "one word"},
		"compression":   {func(o *overlay.Options) { o.Compression = "rar" }, overlay.ErrInput, "none or gzip"},
	} {
		o := overlay.Options{Agent: agent, Arch: "amd64"}
		tc.change(&o)
		err := overlay.Build(io.Discard, o)
		if !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: Build = %v, want %v with %q", name, err, tc.err, tc.text)
		}
	}
}
