// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"provost/collector/internal/cli"
)

var update = flag.Bool("update", false, "write what the commands print into the stories")

// running are the fakes of the stories, by address.
var running sync.Map

// poll is the time between two looks in tests.
const poll = 5 * time.Millisecond

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"provost": func() {
			p := cli.Program{Version: "v0.2.0", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Poll: poll,
				Now: func() time.Time { return now }}
			os.Exit(p.Run(context.Background(), os.Args[1:]))
		},
	})
}

// TestStories runs the stories in testdata/script. Beside testscript's own commands they have:
//
//	world NAME       start a fake collector with this world, and point PROVOST_SERVER at it
//	requests FILE    write the orders that it got to FILE
//	exits CODE ARGS  run provost and want this exit status
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TERM", "xterm")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each process of a story takes a second to end
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world": func(ts *testscript.TestScript, _ bool, args []string) {
				world, ok := worlds[args[0]]
				if !ok {
					ts.Fatalf("no world %q", args[0])
				}
				f := world()
				stop, err := f.serve()
				ts.Check(err)
				ts.Defer(stop)
				ts.Setenv("PROVOST_SERVER", f.server())
				running.Store(f.server(), f)
			},
			"requests": func(ts *testscript.TestScript, _ bool, args []string) {
				v, ok := running.Load(ts.Getenv("PROVOST_SERVER"))
				if !ok {
					ts.Fatalf("no world")
				}
				f := v.(*fake)
				f.mu.Lock()
				defer f.mu.Unlock()
				text := ""
				for _, r := range f.requests {
					text += r + "\n"
				}
				f.requests = nil
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec("provost", args[1:]...)
				code := 0
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if got := fmt.Sprint(code); got != args[0] {
					ts.Fatalf("provost %s: exit status %s, want %s", strings.Join(args[1:], " "), got, args[0])
				}
			},
		},
	})
}

// TestHelp wants of every command that its help fits 80 columns and ends with examples and the exit status.
func TestHelp(t *testing.T) {
	for _, cmd := range []string{"", "status", "explain", "timeline", "log", "history", "events", "doctor", "install", "boot", "ssh", "retry", "skip", "release", "hold", "abort", "force",
		"node", "node add", "node list", "node show", "node set", "node rm", "node rename", "node adopt", "node import", "profile", "profile list", "profile show", "version", "completion"} {
		t.Run(strings.ReplaceAll("provost "+cmd, " ", "-"), func(t *testing.T) {
			var out, errs strings.Builder
			code := program(&out, &errs).Run(t.Context(), append(strings.Fields(cmd), "--help"))
			if code != 0 || errs.Len() > 0 {
				t.Fatalf("exit status %d, stderr %q", code, errs.String())
			}
			text := out.String()
			ex, st := strings.Index(text, "\nExamples:\n"), strings.Index(text, "\nExit status:\n  0 ")
			if ex < 0 || st < ex {
				t.Errorf("help does not end with examples and exit status:\n%s", text)
			}
			for l := range strings.Lines(text) {
				if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > 80 {
					t.Errorf("line of %d columns: %s", n, l)
				}
			}
		})
	}
}

// program is provost in this process, with the time of the tests.
func program(out, errs *strings.Builder, env ...string) cli.Program {
	return cli.Program{Version: "v0.2.0", Stdin: strings.NewReader(""), Stdout: out, Stderr: errs, Poll: poll, Now: func() time.Time { return now },
		Getenv: func(k string) string {
			for _, e := range env {
				if v, ok := strings.CutPrefix(e, k+"="); ok {
					return v
				}
			}
			return ""
		}}
}

// TestDependencies keeps what does not belong there out of the operator's program.
func TestDependencies(t *testing.T) {
	banned := map[string]string{
		"go.etcd.io/bbolt":                     "the database belongs to the running collector: a second process cannot open it",
		"provost/collector/internal/store":     "the same",
		"provost/collector/internal/registry":  "the state of nodes is asked for, not computed",
		"provost/collector/internal/lifecycle": "what a status means is the collector's decision",
		"provost/collector/internal/api":       "the server's half of the protocol",
		"github.com/gliderlabs/ssh":            "a server for the node's rescue shell",
		"testing":                              "a test helper was linked",
	}
	out, err := exec.Command("go", "list", "-deps", "provost/collector/cmd/provost").Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	n := 0
	for dep := range strings.FieldsSeq(string(out)) {
		n++
		for pkg, why := range banned {
			if dep == pkg || strings.HasPrefix(dep, pkg+"/") {
				t.Errorf("provost links %s: %s", dep, why)
			}
		}
		if strings.HasPrefix(dep, "provost/agent") {
			t.Errorf("provost links %s: agent and collector share proto only", dep)
		}
	}
	if n < 50 {
		t.Errorf("go list -deps named %d packages: that cannot be all", n)
	}
}
