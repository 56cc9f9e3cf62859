// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/profile"
)

const (
	keyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AQ6Rxw0tWQ9p2Jc0C2oV3t8dE4wB4lYqz8G6m5v0r a@b"
	keyB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AQ6Rxw0tWQ9p2Jc0C2oV3t8dE4wB4lYqz8G6m5v0s"
)

// The keys are read when they are asked for: an edit of the file counts for the next install.
func TestRescueKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rescue.pub")
	set, err := profile.Load(site(t, map[string]string{
		"profiles/none.yaml": "kernel: images/k\n",
		"profiles/text.yaml": "kernel: images/k\nrescue-keys: |\n  # ours\n\n  " + keyA + "\n  " + keyB + "\n",
		"profiles/file.yaml": "kernel: images/k\nrescue-keys: file:" + file + "\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	keys := func(name string) ([]string, error) {
		p, _ := set.Profile(name)
		return p.Rescue()
	}
	for name, want := range map[string][]string{"none": nil, "text": {keyA, keyB}} {
		if got, err := keys(name); err != nil || !cmp.Equal(got, want) {
			t.Errorf("keys of %s = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, c := range []struct{ content, want, err string }{
		{"", "", "there is no key in"},
		{"# nobody\n", "", "there is no key in"},
		{keyA + "\r\n", keyA, ""},
		{keyB + "\nnonsense\n", "", "line 2: this is no SSH public key"},
		{strings.Repeat(keyB+"\n", 257), "", "257 keys: at most 256"},
		{strings.Repeat("#", 300<<10), "", "more than"},
	} {
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := keys("file")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("keys of a file with %.40q: %v, want %q", c.content, err, c.err)
			}
			continue
		}
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("keys of a file with %q = %q, %v", c.content, got, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := keys("file"); err == nil || !strings.Contains(err.Error(), "the collector cannot read it") {
		t.Errorf("keys of a file that is gone: %v", err)
	}
}
