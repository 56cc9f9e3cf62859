// SPDX-License-Identifier: Apache-2.0

// Command demo does Provost's main job for real: two machines are installed from blank disks
// at the same time. n1 becomes a running system; a postscript of n2 fails, and its status, its
// cause and its log are there. The site's profiles and postscripts are in the directory site.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"provost/initrd/e2e/lab"
	"provost/initrd/e2e/vm"
	"provost/proto"
)

//go:embed site
var site embed.FS

// Limits. Both machines together take about 90 s on two cores, on busy ones ten times as long.
const (
	limit     = 30 * time.Minute
	keepLimit = 12 * time.Hour
)

const usage = `usage: demo [--keep]

Installs two virtual machines, n1 which works and n2 with a failing postscript, and shows
what provost tells about them. With --keep the collector and n2, which holds, stay up until
Ctrl-C, for you to play with.

exit status: 0 all went as it should, 1 it did not, 64 usage
`

var errUsage = errors.New("usage: demo [--keep]")

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "demo: error: %v\n", err)
		if errors.Is(err, errUsage) {
			os.Exit(64)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, _ io.Reader, stdout, _ io.Writer) error {
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	keep := f.Bool("keep", false, "")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return err
	case err != nil || f.NArg() > 0:
		return errUsage
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	files, err := fs.Sub(site, "site")
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, files, stdout)
	if err != nil {
		return err
	}
	defer l.Close()
	d := &demo{lab: l, out: stdout, began: time.Now()}
	fmt.Fprint(stdout, `A collector and two virtual machines with blank disks. n1 is to come up as a
compute node; n2 lacks the driver of its GPU, and a postscript of it will fail.
Seconds are counted from here; it takes about 90 of them, more on a busy machine.
`)
	d.say("starting the collector")
	if err := l.StartCollector(ctx); err != nil {
		return err
	}
	if err := d.install(ctx); err != nil {
		return fmt.Errorf("%w\nconsoles and the collector's log are in %s", err, l.Dir)
	}
	d.tell(ctx)
	if *keep {
		return d.keep(ctx)
	}
	fmt.Fprintf(stdout, `
Both machines are off again. To play on with n2, which waits for orders:
  go run ./initrd/e2e/demo --keep
This run's consoles and its collector's data are kept, to look at them again:
  ls %[1]s
  bin/provostd serve --config %[1]s/provostd.yaml &
  export PROVOST_SERVER=%[2]s
  bin/provost status
`, l.Dir, l.Server())
	return nil
}

type demo struct {
	lab   *lab.Lab
	out   io.Writer
	began time.Time
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "[%3.0fs] %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// install brings both machines to their ends. n2 goes on holding; it ends with ctx.
func (d *demo) install(ctx context.Context) error {
	waiting, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	ends := make(chan error, 2)
	for i, n := range []struct{ name, profile, end string }{
		{"n1", "compute", "booted"},
		{"n2", "gpu", "failed(gpu-driver=4)"},
	} {
		node, err := d.lab.AddNode(ctx, n.name, n.profile, byte(i+1))
		if err != nil {
			return err
		}
		if _, err := d.lab.Provost(ctx, "install", n.name, "--reason", "demo"); err != nil {
			return err
		}
		first, err := node.PowerOn(ctx)
		if err != nil {
			return err
		}
		go d.reboot(ctx, node, first)
		go func() { ends <- d.follow(waiting, node, n.end) }()
	}
	return errors.Join(<-ends, <-ends)
}

// reboot switches a machine on again each time it has gone down. Nobody waits for it: what
// goes wrong with a machine is seen by its status.
func (d *demo) reboot(ctx context.Context, node *lab.Node, machine *vm.VM) {
	for {
		err := machine.Wait(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			d.say("%s: power on again", node.Name)
			machine, err = node.PowerOn(ctx)
		}
		if err != nil {
			d.say("%s: %v", node.Name, err)
			return
		}
	}
}

// follow prints what is new of a node until its summary is the given one.
func (d *demo) follow(ctx context.Context, node *lab.Node, end string) error {
	var seen uint64 // revision
	_, err := node.Await(ctx, end, func(n proto.Node) bool {
		list, err := node.Events(ctx)
		if err != nil {
			return false // asked again, until ctx ends
		}
		newest := seen
		for _, e := range list.Events {
			if text := describe(e); e.Revision > seen && text != "" {
				d.say("%s: %s", node.Name, text)
			}
			newest = max(newest, e.Revision)
		}
		seen = newest
		return n.Summary == end
	})
	if err != nil {
		return err
	}
	d.say("%s: its status is now %s", node.Name, end)
	return nil
}

// describe says an event in a few words; "" for those that tell nothing here.
func describe(e proto.Event) string {
	switch e.Kind {
	case proto.KindStage:
		return e.Stage
	case proto.KindStepEnd:
		if e.Outcome == proto.OutcomeOK {
			return fmt.Sprintf("%s step %s ok", e.Phase, e.Step)
		}
		return fmt.Sprintf("%s step %s %s, exit status %d", e.Phase, e.Step, e.Outcome, e.Exit)
	case proto.KindSealed, proto.KindOrdered:
		return string(e.Kind)
	case proto.KindBootAction:
		return "boot action " + e.Message
	default:
		return ""
	}
}

// tell shows what an operator would type, and its output.
func (d *demo) tell(ctx context.Context) {
	for _, line := range []string{"status", "explain n2", "timeline n1", "timeline n2", "log n1 motd", "log n2 gpu-driver"} {
		fmt.Fprintf(d.out, "\n$ provost %s\n", line)
		out, err := d.lab.Provost(ctx, strings.Fields(line)...)
		fmt.Fprint(d.out, out)
		// Exit status 1 says that a node has failed, which is so.
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			fmt.Fprintln(d.out, err)
		}
	}
}

// keep leaves everything up until the user has played enough.
func (d *demo) keep(ctx context.Context) error {
	fmt.Fprintf(d.out, `
The collector is up and n2 waits for orders, for %s or until Ctrl-C. In another terminal:
  export PROVOST_SERVER=%s
  bin/provost status --watch
  bin/provost skip n2             # go on without the driver: n2 comes up with a warning
  tail -f %s
`, keepLimit, d.lab.Server(), filepath.Join(d.lab.Dir, "n2.console"))
	select {
	case <-ctx.Done():
	case <-time.After(keepLimit):
	}
	return nil
}
