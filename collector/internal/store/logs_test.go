// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"provost/collector/internal/store"
)

func TestLogs(t *testing.T) {
	l, err := store.OpenLogs(filepath.Join(t.TempDir(), "logs"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		name   string
		offset int64
		chunk  string
		size   int64
		err    error
	}{
		{"a.log", 0, "hello ", 6, nil},
		{"a.log", 0, "hello ", 6, store.ErrOffset},
		{"a.log", 9, "x", 6, store.ErrOffset},
		{"a.log", 6, "world", 11, nil},
		{"a.log", 11, "", 11, nil},
		{"a.log", -1, "x", 11, store.ErrOffset},
		{"b.log", 5, "x", 0, store.ErrOffset},
		{"../a.log", 0, "x", 0, store.ErrNoLog},
		{".a", 0, "x", 0, store.ErrNoLog},
		{"", 0, "x", 0, store.ErrNoLog},
	} {
		size, err := l.Append("01INSTALL", tt.name, tt.offset, []byte(tt.chunk))
		if size != tt.size || !errors.Is(err, tt.err) {
			t.Errorf("Append(%q, %d, %q) = %d, %v, want %d, %v", tt.name, tt.offset, tt.chunk, size, err, tt.size, tt.err)
		}
	}
	got, err := l.List("01INSTALL")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]store.Log{{Name: "a.log", Size: 11}, {Name: "b.log", Size: 0}}, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if _, err := l.Open("01INSTALL", "none"); !errors.Is(err, store.ErrNoLog) {
		t.Errorf("Open of no log = %v", err)
	}
	if got, err := l.List("01OTHER"); err != nil || len(got) != 0 {
		t.Errorf("List of no install = %v, %v", got, err)
	}
}
