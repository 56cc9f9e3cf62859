// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"provost/collector/internal/auth"
	"provost/collector/internal/registry"
)

// certFiles are the certificates of DATA/ca, and caFiles all that a CA consists of.
var (
	certFiles = []string{"ca.pem", "server.pem", "plan-signer.pem"}
	caFiles   = []string{"ca.pem", "ca-key.pem", "server.pem", "plan-signer.pem"}
)

func caCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "the certificate authority: show, issue, rotate", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("say what to do: ca show, issue, rotate")}
		}}
	var o rotation
	sub := func(use, short, long, example string, run func(cmd *cobra.Command, s *settings, dir string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				s, err := readSettings(cmd.Flags(), os.Environ())
				if err != nil {
					return configError{err}
				}
				return run(cmd, s, filepath.Join(s.Dirs.Data, "ca"))
			}}
		settingsFlags(c.Flags())
		return c
	}
	rotate := sub("rotate", "make a new CA; the old one counts for a while longer",
		`Rotate makes a new CA. New boot scripts carry its pin; until the overlap is over
the old one counts as well: for nodes that are being installed and have its pin,
and for clients that have its ca.pem. Give these the new ca.pem meanwhile: it has
both certificates. A running collector takes it within a minute.

--finish ends the overlap now. --now makes a new CA without one, as when the old
key may be known to others: the collector must be stopped, and nodes that are
being installed have to be ordered again.`,
		`  provostd ca rotate
  provostd ca rotate --finish
  systemctl stop provostd && provostd ca rotate --now --yes && systemctl start provostd

Exit status: 0 done, 1 not done, 64 usage, 78 settings.`,
		func(cmd *cobra.Command, s *settings, dir string) error { return o.run(cmd.OutOrStdout(), s, dir) })
	f := rotate.Flags()
	f.DurationVar(&o.overlap, "overlap", registry.TokenLife, "for how long the old CA counts as well")
	f.BoolVar(&o.finish, "finish", false, "end the overlap of the last rotation now")
	f.BoolVar(&o.now, "now", false, "without an overlap; takes --yes")
	f.BoolVar(&o.yes, "yes", false, "with --now: do it")
	cmd.AddCommand(
		sub("show", "print the CA's pin and the certificates' dates", "", "  provostd ca show\n\nExit status: 0 shown, 1 not, 64 usage, 78 settings.",
			func(cmd *cobra.Command, _ *settings, dir string) error { return showCA(cmd.OutOrStdout(), dir) }),
		sub("issue", "make the server's and the plan signer's keys anew, by the same CA",
			`Issue puts the keys of the server and the plan signer aside and makes new ones,
certified by the same CA: whoever trusts it needs nothing. A running collector
takes them within a minute.`,
			"  provostd ca issue\n\nExit status: 0 done, 1 not done, 64 usage, 78 settings.",
			func(cmd *cobra.Command, _ *settings, dir string) error {
				if _, err := readCert(filepath.Join(dir, "ca.pem")); err != nil {
					return err
				}
				return renewCA(cmd.OutOrStdout(), dir, certFiles[1:])
			}),
		rotate)
	return cmd
}

// rotation is what ca rotate was told.
type rotation struct {
	overlap          time.Duration
	finish, now, yes bool
}

func (o rotation) run(w io.Writer, s *settings, dir string) error {
	switch {
	case o.finish && o.now:
		return usageError{errors.New("say --finish or --now, not both")}
	case o.now && !o.yes:
		return usageError{errors.New("nodes that are being installed have to be ordered again after this: say --yes")}
	case o.finish:
		if err := auth.Finish(dir); err != nil {
			return err
		}
		fmt.Fprintln(w, "the old CA counts no more; a running collector takes that within a minute")
		return showCA(w, dir)
	case !o.now:
		if o.overlap < time.Minute || o.overlap > auth.MaxOverlap {
			return usageError{fmt.Errorf("--overlap %s: use 1m to %s", o.overlap, auth.MaxOverlap)}
		}
		if _, err := readCert(filepath.Join(dir, "ca.pem")); err != nil {
			return err
		}
		if err := auth.Rotate(dir, time.Now().Add(o.overlap)); err != nil {
			if errors.Is(err, auth.ErrOverlap) {
				return fmt.Errorf("%w: provostd ca rotate --finish", err)
			}
			return err
		}
		fmt.Fprintln(w, "a running collector uses the new CA within a minute")
		return showCA(w, dir)
	}
	if c, err := net.DialTimeout("unix", s.Socket, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("a collector answers on %s: stop it first", s.Socket)
	}
	if until, err := auth.Overlap(dir); err == nil && !until.IsZero() {
		if err := auth.Finish(dir); err != nil {
			return err
		}
	}
	return renewCA(w, dir, caFiles)
}

func showCA(w io.Writer, dir string) error {
	for _, name := range certFiles {
		c, err := readCert(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if name == "ca.pem" {
			fmt.Fprintf(w, "pin          %s\ndirectory    %s\n", auth.PinOf(c), dir)
		}
		fmt.Fprintf(w, "%-16s %s, until %s, serial %x\n", name, c.Subject.CommonName, c.NotAfter.UTC().Format(time.DateOnly), c.SerialNumber)
	}
	until, err := auth.Overlap(dir)
	if err != nil || until.IsZero() {
		return err
	}
	old, err := readCert(filepath.Join(dir, "old", "ca.pem"))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "old pin      %s, counts until %s\n", auth.PinOf(old), until.UTC().Format(time.RFC3339))
	return nil
}

func readCert(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there: the first provostd serve makes it; or name its --data", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("%s holds no certificate", path)
}

// renewCA puts files aside and lets the CA be opened, which makes what is missing. A rotation that is cut off between two
// files is told by the next start, which makes nothing then.
func renewCA(w io.Writer, dir string, files []string) error {
	aside := filepath.Join(dir, "old-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return fmt.Errorf("putting certificates aside: %w", err)
	}
	for _, name := range files {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("putting %s aside: %w", name, err)
		}
	}
	if _, err := auth.OpenCA(dir); err != nil {
		return fmt.Errorf("making new certificates: %w: the old ones are in %s", err, aside)
	}
	fmt.Fprintf(w, "the old files are in %s\n", aside)
	return showCA(w, dir)
}
