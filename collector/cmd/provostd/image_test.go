// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImageImport: what the command prints is what a profile needs, and is there.
func TestImageImport(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"src/images/pxeboot/vmlinuz": "kernel", "src/images/pxeboot/initrd.img": "initrd", "provostd.yaml": "dirs: {images: " + dir + "/images}\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	imports := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"image", "import", "--config", filepath.Join(dir, "provostd.yaml")}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	code, out, errs := imports("el9", filepath.Join(dir, "src"))
	want := "for a profile:\n  family: redhat\n  kernel: images/el9/images/pxeboot/vmlinuz\n  initrds: [images/el9/images/pxeboot/initrd.img, overlay]\n" +
		"  args: \"inst.repo={{ .Images }}/el9 inst.ks={{ .Answer }}\"\n  answer: kickstart-el9.tmpl    # or another one that ships, or your own\n"
	if code != 0 || !strings.HasSuffix(out, want) || errs != "" { // no digest of a directory is asked for
		t.Errorf("image import = %d\n%s%s", code, out, errs)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "images/el9/images/pxeboot/vmlinuz")); string(b) != "kernel" {
		t.Errorf("the kernel is %q, %v", b, err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"el9", filepath.Join(dir, "src")}, 1, "--replace"},
		{[]string{"el9"}, exitUsage, "takes a name"},
		{[]string{"x", filepath.Join(dir, "nothing.iso")}, 1, "no such file"},
	} {
		if code, _, errs := imports(c.args...); code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("image import %v = %d %s, want %d and %q", c.args, code, errs, c.code, c.says)
		}
	}
}
