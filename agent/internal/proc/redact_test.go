// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"provost/agent/internal/proc"
	"provost/proto"
)

func TestRedact(t *testing.T) {
	for _, tt := range []struct {
		secrets  []string
		in, want string
	}{
		{nil, "all of it", "all of it"},
		{[]string{"abc"}, "an abc is too short to be one", "an abc is too short to be one"},
		{[]string{"hunter22"}, "it is hunter22, hunter22!", "it is [redacted], [redacted]!"},
		{[]string{"hunter22"}, "hunter22hunter22", "[redacted]"},
		{[]string{"hunter22"}, "hunter2", "hunter2"},
		{[]string{"abcd", "abcdef"}, "abcdefg abcd", "[redacted]g [redacted]"},
		{[]string{"abcdef", "efgh"}, "xabcdefghx", "x[redacted]x"},
		{[]string{"aaaa"}, "aaaaaaaaab", "[redacted]b"},
		{[]string{"first line\nsecond line"}, "+ echo second line", "+ echo [redacted]"},
		{[]string{"first line\nsecond line"}, "first line\nsecond line\n", "[redacted]\n"},
	} {
		if got := proc.NewRedactor(tt.secrets).String(tt.in); got != tt.want {
			t.Errorf("with %q: String(%q) = %q, want %q", tt.secrets, tt.in, got, tt.want)
		}
	}
}

// TestRedactInPieces: however a text is cut, it is redacted as when it came at once, and no secret is left.
func TestRedactInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOfN(rapid.RuneFrom([]rune("ab\n")), 0, 12, -1)
		secrets := rapid.SliceOfN(word, 0, 4).Draw(t, "secrets")
		text := rapid.StringOfN(rapid.RuneFrom([]rune("abx\n")), 0, 60, -1).Draw(t, "text")
		r := proc.NewRedactor(secrets)
		want := r.String(text)
		var got []byte
		f := proc.NewFilter(r)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			got = append(got, f.Write([]byte(rest[:n]))...)
			rest = rest[n:]
		}
		got = append(got, f.End()...)
		if string(got) != want {
			t.Fatalf("in pieces %q, at once %q", got, want)
		}
		for _, s := range secrets {
			if len(s) >= 4 && strings.Contains(want, s) {
				t.Fatalf("%q holds the secret %q", want, s)
			}
		}
	})
}

func TestSecretsLeaveNoTrace(t *testing.T) {
	const canary = "kanarienvogel-4711"
	path := filepath.Join(t.TempDir(), "s")
	script := "#!/bin/sh\nset -x\necho $S\nprintf kanarien; sleep 0.3; echo vogel-4711\necho at the end >&2\nprintf %s $S; exit 3\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := spec("ok")
	s.Path, s.Env, s.Secrets, s.Output, s.Timeout = path, append(s.Env, "S="+canary), []string{canary}, &log, time.Minute
	got := proc.Run(t.Context(), s)
	all := log.String() + strings.Join(got.Tail, "\n") + got.Message
	if got.Outcome != proto.OutcomeFailed || strings.Contains(all, canary) || strings.Count(log.String(), proc.Redacted) < 4 || !strings.Contains(all, "at the end") {
		t.Errorf("Run = %s, and its output is %q", got.Outcome, all)
	}
}
