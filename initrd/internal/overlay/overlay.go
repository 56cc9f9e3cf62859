// SPDX-License-Identifier: Apache-2.0

// Package overlay builds the agent's initrd overlay: a newc cpio archive to be loaded after
// any installer's own initrd, whose files it adds to. The same options always give the same
// bytes.
//
// One overlay serves the installers of all families, since none of them looks at the hooks of
// another. A hook whose directory an installer does not have is not even unpacked: the kernel
// (init/initramfs.c) passes over a file that it cannot create, and the archive leaves such
// directories out.
//
// It must never hold a directory that an installer has as a symbolic link: with a merged
// /usr the kernel would put a directory in place of /bin, /sbin or /lib and leave the
// installer without programs. So the archive's own directories are below /usr and /etc, and
// a hook below /lib goes where the installer's /lib leads.
package overlay

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"

	"provost/initrd"
	"provost/proto"
)

// Compression is how the archive is packed. Kernels read every one of them, also mixed.
type Compression string

const (
	None Compression = "none"
	Gzip Compression = "gzip"
)

// Options say what goes in. Only Agent and Arch are required.
type Options struct {
	Agent       []byte      // the static provost-agent
	Arch        string      // GOARCH of the nodes
	CA          []byte      // PEM; /etc/provost/ca.pem
	URLs        []string    // collectors in the order of trying; a line of /etc/provost/agent.conf
	JoinKey     []byte      // /etc/provost/join-key, mode 0600, and a line of agent.conf
	RescueKeys  []byte      // /etc/provost/rescue.pub: public keys, one in a line, that may come into the rescue shell
	Compression Compression // empty means Gzip
	ModTime     time.Time   // of every file; the zero value means 1970
}

// Refusals of what was given, as against failures of writing.
var (
	ErrAgent = errors.New("not a static agent")
	ErrInput = errors.New("unusable input")
)

var machines = map[string]elf.Machine{
	"amd64":   elf.EM_X86_64,
	"arm64":   elf.EM_AARCH64,
	"ppc64le": elf.EM_PPC64,
}

// Build writes the archive to w.
func Build(w io.Writer, o Options) error {
	files, err := contents(o)
	if err != nil {
		return err
	}
	switch cmp.Or(o.Compression, Gzip) {
	case None:
		return archive(w, files, o.ModTime)
	case Gzip:
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		return errors.Join(archive(z, files, o.ModTime), z.Close())
	default:
		return fmt.Errorf("%w: compression %q, want none or gzip", ErrInput, o.Compression)
	}
}

type file struct {
	mode cpio.FileMode
	data []byte
	hook bool // its directory is the installer's, and not in the archive
}

// hooks start the agent in the initrds of the families. That of dracut, which Red Hat's installers are made with and Agama,
// is found below /lib whichever of /lib, /usr/lib and /var/lib its hooks really lie in; /etc/linuxrc.d need not be there.
func hooks() map[string]file {
	return map[string]file{
		"lib/dracut/hooks/initqueue/online/05-provost-start.sh": {0o755, initrd.DracutHook, true},
		"lib/dracut/hooks/pre-pivot/05-provost-start.sh":        {0o755, initrd.DracutHook, true},
		"lib/debian-installer-startup.d/S11provost":             {0o755, initrd.DebianStartup, true},
		"usr/lib/finish-install.d/95provost":                    {0o755, initrd.DebianFinish, true},
		"conf/conf.d/provost":                                   {0o644, initrd.InitramfsTools, true},
		"etc/linuxrc.d/provost":                                 {0o644, initrd.Linuxrc, false},
	}
}

func contents(o Options) (map[string]file, error) {
	if err := checkAgent(o.Agent, o.Arch); err != nil {
		return nil, err
	}
	files := hooks()
	files["usr/bin/provost-agent"] = file{mode: 0o755, data: o.Agent}
	files["usr/lib/provost/start"] = file{mode: 0o755, data: initrd.Start}
	if o.CA != nil {
		if block, _ := pem.Decode(o.CA); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: the CA file holds no PEM certificate", ErrInput)
		}
		files["etc/provost/ca.pem"] = file{mode: 0o644, data: o.CA}
	}
	var conf string
	if o.JoinKey != nil {
		if key := bytes.TrimSpace(o.JoinKey); len(key) == 0 || bytes.ContainsAny(key, " \t\r\n") {
			return nil, fmt.Errorf("%w: the join key file must hold one word", ErrInput)
		}
		files["etc/provost/join-key"] = file{mode: 0o600, data: o.JoinKey}
		conf += "join-key-file=/etc/provost/join-key\n"
	}
	if o.RescueKeys != nil {
		if err := checkKeys(o.RescueKeys); err != nil {
			return nil, err
		}
		files["etc/provost/rescue.pub"] = file{mode: 0o644, data: o.RescueKeys}
	}
	if len(o.URLs) > 0 {
		for _, s := range o.URLs {
			u, err := url.Parse(s)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsAny(s, " \t\r\n") {
				return nil, fmt.Errorf("%w: URL %q, want https://HOST:PORT", ErrInput, s)
			}
		}
		conf += fmt.Sprintf("url=%s\n", strings.Join(o.URLs, ","))
	}
	if conf != "" {
		files["etc/provost/agent.conf"] = file{mode: 0o644, data: []byte(conf)}
	}
	return files, nil
}

// checkAgent refuses what could not start in an initrd: a script, another machine's
// program, or one that wants a dynamic loader, which the kernel reports as "not found".
func checkAgent(agent []byte, arch string) error {
	machine, ok := machines[arch]
	if !ok {
		return fmt.Errorf("%w: architecture %q, want one of %s", ErrInput, arch,
			strings.Join(slices.Sorted(maps.Keys(machines)), " "))
	}
	f, err := elf.NewFile(bytes.NewReader(agent))
	if err != nil {
		return fmt.Errorf("%w: no ELF program: %w", ErrAgent, err)
	}
	if f.Machine != machine {
		return fmt.Errorf("%w: built for %v, want %v", ErrAgent, f.Machine, machine)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Errorf("%w: type %v is no program", ErrAgent, f.Type)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%w: it needs a dynamic loader; build it with CGO_ENABLED=0", ErrAgent)
		}
	}
	return nil
}

// archive writes the files and, but for hooks, their parent directories, sorted, which puts a directory
// before what is in it. The result is a multiple of 512 bytes, so that whatever is
// appended to it begins where the kernel looks for it.
func archive(w io.Writer, files map[string]file, mtime time.Time) error {
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	entries := maps.Clone(files)
	for name, f := range files {
		if f.hook {
			continue
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			entries[dir] = file{mode: cpio.TypeDir | 0o755}
		}
	}
	counter := &counter{w: w}
	c := cpio.NewWriter(counter)
	for i, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		h := &cpio.Header{Name: name, Mode: e.mode, Inode: int64(i + 1), Links: 1, ModTime: mtime, Size: int64(len(e.data))}
		if e.mode.IsDir() {
			h.Links = 2
		} else {
			h.Mode |= cpio.TypeReg
		}
		if err := c.WriteHeader(h); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		if _, err := c.Write(e.data); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("ending the archive: %w", err)
	}
	if _, err := counter.Write(make([]byte, -counter.n&511)); err != nil {
		return fmt.Errorf("padding the archive: %w", err)
	}
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// checkKeys refuses a file of keys that would let nobody in, or somebody else than it says.
func checkKeys(b []byte) error {
	n, keys := 0, 0
	for line := range strings.Lines(string(b)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := proto.CheckPublicKey(line); err != nil {
			return fmt.Errorf("%w: rescue keys, line %d: %w", ErrInput, n, err)
		}
		keys++
	}
	if keys == 0 {
		return fmt.Errorf("%w: there is no key in the file of rescue keys", ErrInput)
	}
	return nil
}
