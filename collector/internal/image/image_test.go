// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kdomanski/iso9660"

	"provost/collector/internal/image"
)

// files are an image's, with a kernel of 3 MiB and 5 bytes.
func files(kernel, initrd string) map[string][]byte {
	return map[string][]byte{kernel: append(bytes.Repeat([]byte("kernel--"), 3<<17), "12345"...), initrd: []byte("initrd"), "README": []byte("hello"), "empty": nil}
}

func makeISO(t *testing.T, all map[string][]byte) []byte {
	t.Helper()
	w, err := iso9660.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Cleanup()
	for name, b := range all {
		if err := w.AddFile(bytes.NewReader(b), name); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := w.WriteTo(&out, "TEST"); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func sum(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

// left lists what an images directory has, but for locks.
func left(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lock") {
			out = append(out, e.Name())
		}
	}
	return strings.Join(out, " ")
}

func same(t *testing.T, dir, ref string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(ref, "images/")))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, %v, want %d", ref, len(got), err, len(want))
	}
}

// TestLayouts: the kernel and the initrd of each family are found, in an ISO image (whose names the writer may change) and in
// a directory.
func TestLayouts(t *testing.T) {
	for _, c := range []struct{ family, kernel, initrd, note string }{
		{"redhat", "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", ""},
		{"suse", "boot/x86_64/loader/linux", "boot/x86_64/loader/initrd", ""},
		{"ubuntu", "casper/vmlinuz", "casper/initrd", ""},
		{"debian", "debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz", ""},
		{"debian", "install.amd/vmlinuz", "install.amd/initrd.gz", "netboot.tar.gz"},
		{"", "boot/kernel", "boot/ramdisk", ""},
	} {
		all := files(c.kernel, c.initrd)
		src := t.TempDir()
		for name, b := range all {
			put(t, filepath.Join(src, "tree", name), b)
		}
		if err := os.Symlink("/etc/passwd", filepath.Join(src, "tree", "link")); err != nil {
			t.Fatal(err)
		}
		sources := []string{filepath.Join(src, "tree")}
		if !strings.Contains(c.kernel, ".amd") && !strings.Contains(c.kernel, "debian-installer") { // the writer shortens those
			put(t, filepath.Join(src, "x.iso"), makeISO(t, all))
			sources = append(sources, filepath.Join(src, "x.iso"))
		}
		for _, source := range sources {
			dir := t.TempDir()
			r, err := image.Import(t.Context(), source, image.Options{Dir: dir, Name: "new"})
			if err != nil {
				t.Errorf("Import of %s: %v", source, err)
				continue
			}
			count := 4
			if strings.HasSuffix(source, ".iso") && c.family == "ubuntu" {
				count++ // the ISO image itself
			}
			if r.Family != c.family || r.Files != count || !strings.Contains(r.Note, c.note) || (r.Links == 1) != (source == sources[0]) {
				t.Errorf("Import of %s = %+v", source, r)
			}
			if c.family != "" {
				if !strings.EqualFold(r.Kernel, "images/new/"+c.kernel) || !strings.EqualFold(r.Initrd, "images/new/"+c.initrd) {
					t.Errorf("Import of %s found %s and %s", source, r.Kernel, r.Initrd)
				}
				same(t, dir, r.Kernel, all[c.kernel])
				same(t, dir, r.Initrd, all[c.initrd])
			}
			if got := left(t, dir); got != "new" {
				t.Errorf("Import of %s leaves %s", source, got)
			}
		}
	}
}

// TestUbuntuKeepsTheISO: the live system boots from the ISO image, so that it is in the tree, byte by byte, and the arguments
// name it; of a directory there is none.
func TestUbuntuKeepsTheISO(t *testing.T) {
	iso := makeISO(t, files("casper/vmlinuz", "casper/initrd"))
	src := t.TempDir()
	put(t, filepath.Join(src, "x.iso"), iso)
	put(t, filepath.Join(src, "tree/casper/vmlinuz"), []byte("kernel"))
	put(t, filepath.Join(src, "tree/casper/initrd"), []byte("initrd"))
	srv := httptest.NewServer(http.FileServer(http.Dir(src)))
	defer srv.Close()
	for source, kept := range map[string]bool{filepath.Join(src, "x.iso"): true, srv.URL + "/x.iso": true, filepath.Join(src, "tree"): false} {
		dir := t.TempDir()
		r, err := image.Import(t.Context(), source, image.Options{Dir: dir, Name: "noble"})
		if err != nil {
			t.Errorf("Import of %s: %v", source, err)
			continue
		}
		if got := left(t, dir); got != "noble" {
			t.Errorf("Import of %s leaves %s", source, got)
		}
		if !kept {
			if r.Args != "" || !strings.Contains(r.Note, "import the ISO image itself") {
				t.Errorf("Import of a directory = %+v", r)
			}
			continue
		}
		const args = "ip=dhcp url={{ .Images }}/noble/install.iso cloud-config-url=/dev/null autoinstall ds=nocloud-net;s={{ .Answer }}"
		if r.Args != args || r.Answer != "autoinstall-ubuntu.tmpl" || !strings.Contains(r.Note, fmt.Sprintf("%d MB", len(iso)/1e6)) {
			t.Errorf("Import of %s = %+v", source, r)
		}
		same(t, dir, "images/noble/install.iso", iso)
	}
}

// TestRelease: the template is that of Red Hat's release.
func TestRelease(t *testing.T) {
	for treeinfo, want := range map[string]string{
		"[header]\nversion = 1.2\n[release]\nname = Rocky Linux\nversion = 8.10\n": "kickstart-el8.tmpl",
		"[general]\nversion = 10\n":    "kickstart-el10.tmpl",
		"[general]\nversion=7.9\n":     "kickstart-el7.tmpl",
		"[release]\nversion = 42\n":    "kickstart-el9.tmpl",
		"[release]\nversion = 100.1\n": "kickstart-el9.tmpl",
		"":                             "kickstart-el9.tmpl",
	} {
		src := t.TempDir()
		put(t, filepath.Join(src, "images/pxeboot/vmlinuz"), []byte("kernel"))
		put(t, filepath.Join(src, "images/pxeboot/initrd.img"), []byte("initrd"))
		if treeinfo != "" {
			put(t, filepath.Join(src, ".treeinfo"), []byte(treeinfo))
		}
		r, err := image.Import(t.Context(), src, image.Options{Dir: t.TempDir(), Name: "n"})
		if err != nil || r.Answer != want {
			t.Errorf("Import with .treeinfo %q = %+v, %v, want %s", treeinfo, r, err, want)
		}
	}
}

// TestWhateverTheUmask: the service, which is another user than the one who imports, reads everything.
func TestWhateverTheUmask(t *testing.T) {
	iso, src := makeISO(t, files("casper/vmlinuz", "casper/initrd")), t.TempDir()
	put(t, filepath.Join(src, "x.iso"), iso)
	put(t, filepath.Join(src, "tree/images/pxeboot/vmlinuz"), []byte("kernel"))
	srv := httptest.NewServer(http.FileServer(http.Dir(src)))
	defer srv.Close()
	top := t.TempDir()
	defer syscall.Umask(syscall.Umask(0o077))
	for i, source := range []string{filepath.Join(src, "tree"), filepath.Join(src, "x.iso"), srv.URL + "/x.iso"} {
		dir := filepath.Join(top, fmt.Sprint(i))
		if _, err := image.Import(t.Context(), source, image.Options{Dir: dir, Name: "n"}); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || strings.HasSuffix(path, ".lock") {
				return err
			}
			info, err := d.Info()
			if want := os.FileMode(0o644); err == nil && !d.IsDir() && info.Mode().Perm() != want {
				t.Errorf("%s has the mode %s, want %s", path, info.Mode().Perm(), want)
			}
			if want := os.FileMode(0o755); err == nil && d.IsDir() && info.Mode().Perm() != want {
				t.Errorf("%s has the mode %s, want %s", path, info.Mode().Perm(), want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestChecksums(t *testing.T) {
	iso := makeISO(t, files("casper/vmlinuz", "casper/initrd"))
	good, bad := sum(iso), strings.Repeat("0", 64)
	for _, c := range []struct {
		name, flag, file, text string
		verified, err          string
	}{
		{name: "nothing said"},
		{name: "the flag", flag: strings.ToUpper(good), verified: "--sha256"},
		{name: "a wrong flag", flag: bad, err: "--sha256 says " + bad},
		{name: "no digest", flag: "abc", err: "use 64 hex digits"},
		{name: "SHA256SUMS", file: "SHA256SUMS", text: bad + "  other.iso\n" + good + " *x.iso\n", verified: "SHA256SUMS"},
		{name: "a path in it", file: "SHA256SUMS", text: good + "  ./x.iso\n", verified: "SHA256SUMS"},
		{name: "CHECKSUM", file: "CHECKSUM", text: "# x.iso: 1 bytes\nSHA256 (x.iso) = " + good + "\n", verified: "CHECKSUM"},
		{name: "its own file", file: "x.iso.sha256", text: good + "\n", verified: "x.iso.sha256"},
		{name: "another's", file: "SHA256SUMS", text: good + "  y.iso\n"},
		{name: "a wrong one", file: "SHA256SUMS", text: bad + "  x.iso\n", err: "SHA256SUMS says"},
		{name: "the flag over a wrong one", flag: good, file: "SHA256SUMS", text: bad + "  x.iso\n", verified: "--sha256"},
	} {
		for _, remote := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " remote ", remote), func(t *testing.T) {
				src, dir := t.TempDir(), t.TempDir()
				put(t, filepath.Join(src, "x.iso"), iso)
				if c.file != "" {
					put(t, filepath.Join(src, c.file), []byte(c.text))
				}
				source, verified := filepath.Join(src, "x.iso"), c.verified
				if remote {
					srv := httptest.NewServer(http.FileServer(http.Dir(src)))
					defer srv.Close()
					source = srv.URL + "/x.iso"
					if verified != "" && verified != "--sha256" {
						verified = srv.URL + "/" + verified
					}
				}
				r, err := image.Import(t.Context(), source, image.Options{Dir: dir, Name: "u", SHA256: c.flag})
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) || left(t, dir) != "" {
						t.Errorf("Import = %v, and leaves %q, want %q and nothing", err, left(t, dir), c.err)
					}
					return
				}
				if err != nil || r.Verified != verified || r.Unverified != (verified == "") {
					t.Errorf("Import = %+v, %v, want that %q was compared", r, err, verified)
				}
			})
		}
	}
}

// TestDownloadGoesOn: what is there already is not fetched again, also after the program was ended.
func TestDownloadGoesOn(t *testing.T) {
	iso := makeISO(t, files("casper/vmlinuz", "casper/initrd"))
	dir := t.TempDir()
	var asked []string
	ctx, cancel := context.WithCancel(t.Context())
	cut := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".iso") {
			http.NotFound(w, r)
			return
		}
		asked = append(asked, r.Header.Get("Range"))
		if !cut {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(iso))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(iso)))
		w.Write(iso[:2<<20])
		w.(http.Flusher).Flush()
		// a minute for something of it to be on the disk
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if info, err := os.Stat(filepath.Join(dir, ".import-u.iso")); err == nil && info.Size() > 0 {
				break
			}
		}
		cancel() // the operator has had enough
	}))
	defer srv.Close()
	o := image.Options{Dir: dir, Name: "u", SHA256: sum(iso)}
	if _, err := image.Import(ctx, srv.URL+"/x.iso", o); err == nil {
		t.Fatal("an import that was ended is a success")
	}
	if _, err := os.Stat(filepath.Join(dir, "u")); err == nil {
		t.Error("half an image is served")
	}
	have, err := os.Stat(filepath.Join(dir, ".import-u.iso"))
	if err != nil || have.Size() == 0 {
		t.Fatalf("nothing is kept: %v", err)
	}
	cut = false
	r, err := image.Import(t.Context(), srv.URL+"/x.iso", o)
	if err != nil || r.Kernel == "" {
		t.Fatalf("Import = %+v, %v", r, err)
	}
	if want := fmt.Sprintf("bytes=%d-", have.Size()); len(asked) != 2 || asked[1] != want {
		t.Errorf("asked for %q, want the rest %q", asked, want)
	}
	if got := left(t, dir); got != "u" {
		t.Errorf("it leaves %s", got)
	}
}

func TestRefusals(t *testing.T) {
	iso := makeISO(t, files("casper/vmlinuz", "casper/initrd"))
	src, dir := t.TempDir(), t.TempDir()
	put(t, filepath.Join(src, "good.iso"), iso)
	put(t, filepath.Join(src, "cut.iso"), iso[:len(iso)/2])
	put(t, filepath.Join(src, "text.iso"), bytes.Repeat([]byte("no image "), 10000))
	put(t, filepath.Join(dir, "there", "file"), nil)
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	for _, c := range []struct{ name, source, err string }{
		{"../x", "good.iso", "image"},
		{"overlay", "good.iso", "take another one"},
		{"there", "good.iso", "--replace"},
		{"a", "cut.iso", "it was cut off"},
		{"a", "text.iso", "no volume descriptor"},
		{"a", "nothing.iso", "no such file"},
		{"a", srv.URL + "/x.iso", "404"},
		{"a", "ftp://h/x.iso", "http or https"},
	} {
		source := c.source
		if !strings.Contains(source, "://") {
			source = filepath.Join(src, source)
		}
		if _, err := image.Import(t.Context(), source, image.Options{Dir: dir, Name: c.name}); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("Import of %s as %s = %v, want %q", c.source, c.name, err, c.err)
		}
		os.Remove(filepath.Join(dir, ".import-a.iso"))
		if got := left(t, dir); got != "there" {
			t.Errorf("Import of %s leaves %s", c.source, got)
		}
	}
	r, err := image.Import(t.Context(), filepath.Join(src, "good.iso"), image.Options{Dir: dir, Name: "there", Replace: true})
	if err != nil || r.Kernel == "" {
		t.Fatalf("Import with Replace = %+v, %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "there", "file")); err == nil {
		t.Error("the old image's file is there still")
	}
}

// FuzzISO: a damaged image is refused, or gives files below its directory; never a panic, nor a file elsewhere.
func FuzzISO(f *testing.F) {
	w, err := iso9660.NewWriter()
	if err != nil {
		f.Fatal(err)
	}
	for name, text := range map[string]string{"a/b/c": "text", "d": strings.Repeat("x", 5000)} {
		if err := w.AddFile(strings.NewReader(text), name); err != nil {
			f.Fatal(err)
		}
	}
	var iso bytes.Buffer
	if err := w.WriteTo(&iso, "TEST"); err != nil {
		f.Fatal(err)
	}
	w.Cleanup()
	f.Add(uint32(0), []byte{})
	for at := 16 * 2048; at < iso.Len(); at += 2048 {
		for _, b := range []string{"\xff\xff\xff\xff", "\x00\x00", "../x"} {
			f.Add(uint32(at), []byte(b))
			f.Add(uint32(at+33), []byte(b))
			f.Add(uint32(at+156), []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		b := bytes.Clone(iso.Bytes())
		if int(at) < len(b) {
			copy(b[at:], patch)
		}
		top := t.TempDir()
		put(t, filepath.Join(top, "x.iso"), b)
		image.Import(t.Context(), filepath.Join(top, "x.iso"), image.Options{Dir: filepath.Join(top, "images"), Name: "n"})
		for _, where := range []string{top, filepath.Join(top, "images")} {
			if got := left(t, where); got != "images x.iso" && got != "n" && got != "" {
				t.Errorf("%s has %s", where, got)
			}
		}
	})
}
