// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"

	"provost/collector/internal/api"
)

// TestPeerName: who became root by sudo or su is named by the login, too; without one, or with the same, it is left out.
func TestPeerName(t *testing.T) {
	const noLogin = 1<<32 - 1
	root := "uid 0"
	if u, err := user.LookupId("0"); err == nil {
		root = u.Username + " (uid 0)"
	}
	const nobody = 4_000_000_000 // no account has it
	for _, tt := range []struct {
		uid, login uint32
		want       string
	}{
		{0, noLogin, root},
		{0, 0, root},
		{0, nobody, root + ", login uid 4000000000"},
		{nobody, 0, "uid 4000000000, login " + strings.TrimSuffix(root, " (uid 0)")},
		{nobody, noLogin, "uid 4000000000"},
	} {
		if got := api.PeerName(tt.uid, tt.login); got != tt.want {
			t.Errorf("uid %d with login %d = %q, want %q", tt.uid, tt.login, got, tt.want)
		}
	}
	want := uint32(noLogin)
	if b, err := os.ReadFile("/proc/self/loginuid"); err == nil {
		v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		want = uint32(v)
	}
	if got := api.LoginOf(int32(os.Getpid())); got != want {
		t.Errorf("login of this process = %d, want %d", got, want)
	}
	if got := api.LoginOf(0); got != noLogin {
		t.Errorf("login of no process = %d, want none", got)
	}
}
