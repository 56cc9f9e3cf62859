// SPDX-License-Identifier: Apache-2.0

// Command mkinitrd makes the overlay that puts provost-agent into any installer's initrd.
// It reads the files that it is given and writes one; it never touches an installer's image.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"provost/initrd/internal/overlay"
)

const usage = `usage: mkinitrd --agent PATH -o OUT [flags]

Makes a cpio archive with provost-agent, to be loaded after an installer's initrd: as one
more initrd line of iPXE or GRUB, or by cat. It starts the agent in the installers of every
family: Anaconda, SLES and Agama, debian-installer, Ubuntu, and whatever dracut makes. The same
input gives the same bytes; the files in it are of 1970 or of SOURCE_DATE_EPOCH.

flags:
  --agent PATH          the static provost-agent
  -o OUT                the file to write
  --arch ARCH           the nodes' architecture: amd64 arm64 ppc64le (default: this machine's)
  --url U[,U...]        the collectors, in the order of trying
  --ca FILE             PEM certificate that the agent pins
  --join-key-file FILE  the key for sites that boot nodes by their own PXE; makes OUT 0600
  --rescue-keys FILE    public keys that may come into a node's rescue shell (ssh, port 2200)
  --compress HOW        none or gzip (default gzip)

examples:
  mkinitrd --agent bin/provost-agent -o overlay.img
  mkinitrd --agent bin/provost-agent --url https://10.0.0.1:8440 --ca ca.pem -o overlay.img
  cat vendor-initrd.img overlay.img > initrd.img

exit status: 0 written, 1 a file could not be read or written, 64 usage, 65 the input is unusable
`

// usageError is a command line that asks for nothing that can be done.
type usageError struct{ error }

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		os.Exit(report(os.Stderr, err))
	}
}

// report tells the user about err and returns the exit status.
func report(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "mkinitrd: error: %v\n", err)
	switch {
	case errors.As(err, new(usageError)):
		fmt.Fprintln(stderr, "hint: mkinitrd --help")
		return 64
	case errors.Is(err, overlay.ErrAgent), errors.Is(err, overlay.ErrInput):
		return 65
	default:
		return 1
	}
}

type options struct {
	agent, out, arch, url, ca, joinKey, rescue, compress string
}

func (o *options) addFlags(f *flag.FlagSet) {
	f.StringVar(&o.agent, "agent", "", "")
	f.StringVar(&o.out, "o", "", "")
	f.StringVar(&o.arch, "arch", runtime.GOARCH, "")
	f.StringVar(&o.url, "url", "", "")
	f.StringVar(&o.ca, "ca", "", "")
	f.StringVar(&o.joinKey, "join-key-file", "", "")
	f.StringVar(&o.rescue, "rescue-keys", "", "")
	f.StringVar(&o.compress, "compress", string(overlay.Gzip), "")
}

func run(_ context.Context, args []string, _ io.Reader, stdout, _ io.Writer) error {
	var o options
	f := flag.NewFlagSet("mkinitrd", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.addFlags(f)
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return err
	case err != nil:
		return usageError{err}
	case f.NArg() > 0:
		return usageError{fmt.Errorf("unexpected argument %q", f.Arg(0))}
	case o.agent == "":
		return usageError{errors.New("--agent is missing")}
	case o.out == "":
		return usageError{errors.New("-o is missing")}
	}
	built, err := build(o)
	if err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if o.joinKey != "" {
		mode = 0o600
	}
	if err := writeFile(o.out, built, mode); err != nil {
		return fmt.Errorf("writing the overlay: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "%s: %d bytes, sha256 %x\n", o.out, len(built), sha256.Sum256(built))
	return err
}

func build(o options) ([]byte, error) {
	opts := overlay.Options{Arch: o.arch, Compression: overlay.Compression(o.compress)}
	if o.url != "" {
		opts.URLs = strings.Split(o.url, ",")
	}
	for _, in := range []struct {
		what, path string
		into       *[]byte
	}{{"agent", o.agent, &opts.Agent}, {"CA", o.ca, &opts.CA}, {"join key", o.joinKey, &opts.JoinKey}, {"rescue keys", o.rescue, &opts.RescueKeys}} {
		if in.path == "" {
			continue
		}
		data, err := os.ReadFile(in.path)
		if err != nil {
			return nil, fmt.Errorf("reading the %s: %w", in.what, err)
		}
		*in.into = data
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseUint(epoch, 10, 32)
		if err != nil {
			return nil, usageError{fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)}
		}
		opts.ModTime = time.Unix(int64(seconds), 0)
	}
	var b bytes.Buffer
	err := overlay.Build(&b, opts)
	return b.Bytes(), err
}

// writeFile replaces path with a whole file or leaves it as it was, also across a power cut.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mkinitrd-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing to remove after the rename
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
