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
	var yes bool
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
	rotate := sub("rotate --yes", "make a new CA; everything that trusts the old one must learn it",
		`Rotate puts the CA aside and makes another one. The collector must be stopped.
After that nodes that are being installed cannot report any more: order them
again. Operators on other machines need the new ca.pem or pin.`,
		`  systemctl stop provostd && provostd ca rotate --yes && systemctl start provostd

Exit status: 0 done, 1 not done, 64 usage, 78 settings.`,
		func(cmd *cobra.Command, s *settings, dir string) error {
			if !yes {
				return usageError{errors.New("nodes that are being installed have to be ordered again after this: say --yes")}
			}
			if c, err := net.DialTimeout("unix", s.Socket, time.Second); err == nil {
				c.Close()
				return fmt.Errorf("a collector answers on %s: stop it first", s.Socket)
			}
			return renewCA(cmd.OutOrStdout(), dir, caFiles)
		})
	rotate.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.AddCommand(
		sub("show", "print the CA's pin and the certificates' dates", "", "  provostd ca show\n\nExit status: 0 shown, 1 not, 64 usage, 78 settings.",
			func(cmd *cobra.Command, _ *settings, dir string) error { return showCA(cmd.OutOrStdout(), dir) }),
		sub("issue", "make the server's and the plan signer's keys anew, by the same CA",
			`Issue puts the keys of the server and the plan signer aside and makes new ones,
certified by the same CA: whoever trusts it needs nothing. A running collector
uses them from its next start on.`,
			"  provostd ca issue && systemctl restart provostd\n\nExit status: 0 done, 1 not done, 64 usage, 78 settings.",
			func(cmd *cobra.Command, _ *settings, dir string) error {
				if _, err := readCert(filepath.Join(dir, "ca.pem")); err != nil {
					return err
				}
				return renewCA(cmd.OutOrStdout(), dir, certFiles[1:])
			}),
		rotate)
	return cmd
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
