// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"provost/proto"
)

type doctorOptions struct{ output string }

func doctorCommand(s *session) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "look whether the frontend is fit for installs",
		Long: `Doctor looks at the frontend: is the collector there and of this program's
version, does its database work, is there room on its disks, are certificates
good for long, is the clock kept, are the addresses in boot scripts this
machine's, do its listeners answer, which of DHCP, TFTP and HTTP run here, are
kernel and initrds of each profile and the agent's overlay there, may the TFTP
and web servers read their files, can the logs be read that are its evidence,
does in.tftpd log refusals, and is there a DHCP server that is not ours. One
line for each; where something is not good, what to do stands below it. A file
system that does not answer within 2 s is reported, and not waited for.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, o.output, "text", "json", "yaml"); err != nil {
				return err
			}
			return runDoctor(cmd.Context(), s, o)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text, json or yaml")
	complete(cmd, "output", "text", "json", "yaml")
	help(cmd, "provost doctor\nprovost doctor -o json | jq '.checks[] | select(.state!=\"good\")'", `0   nothing is bad; there may be warnings
1   something is bad
64  usage: the command line makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

func runDoctor(ctx context.Context, s *session, o doctorOptions) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	d, err := cl.Doctor(ctx)
	if err != nil {
		return err
	}
	d.Checks = append([]proto.Check{{Name: "collector", State: proto.CheckGood, Detail: "it answers at " + cl.Server()}, s.versions(d.Version)}, d.Checks...)
	bad := 0
	for _, c := range d.Checks {
		if c.State != proto.CheckGood && c.State != proto.CheckWarn {
			bad++
		}
	}
	switch o.output {
	case "json":
		err = writeJSON(s.Stdout, d)
	case "yaml":
		err = writeYAMLOf(s.Stdout, d)
	default:
		err = writeDoctor(s, d.Checks, bad)
	}
	if err == nil && bad > 0 {
		err = &exitError{exitFailed}
	}
	return err
}

// versions compares this program's with the collector's.
func (s *session) versions(collector string) proto.Check {
	if strings.Trim(collector, "()") == strings.Trim(s.Version, "()") { // a build without a version says devel, or (devel)
		return proto.Check{Name: "versions", State: proto.CheckGood, Detail: "provost and provostd are " + s.Version}
	}
	return proto.Check{Name: "versions", State: proto.CheckWarn, Detail: fmt.Sprintf("provost is %s, provostd is %s", s.Version, collector),
		Fix: "install the same version of both"}
}

// fixLines folds what a check says to do. Its lines stay lines: one may be a command that is to be copied.
func fixLines(fix string, width int) []string {
	var out []string
	for l := range strings.SplitSeq(fix, "\n") {
		out = append(out, wrap(clean(l), width)...)
	}
	return out
}

func writeDoctor(s *session, all []proto.Check, bad int) error {
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	width, names, warned := min(sc.width, defaultWidth), 0, 0
	for _, c := range all {
		names = max(names, min(cells(clean(c.Name)), 24))
	}
	for _, c := range all {
		sign, colour := "ok  ", green
		switch c.State {
		case proto.CheckGood:
		case proto.CheckWarn:
			sign, colour = "!   ", yellow
			warned++
		default:
			sign, colour = "BAD ", red
		}
		begin := sc.paint(colour, sign) + pad(cut(clean(c.Name), names), names+gap)
		for _, l := range wrap(clean(c.Detail), width-4-names-gap) {
			out.WriteString(begin + l + "\n")
			begin = pad("", 4+names+gap)
		}
		if c.Fix != "" {
			begin = pad("", 4) + "→ "
			for _, l := range fixLines(c.Fix, width-6) {
				out.WriteString(begin + l + "\n")
				begin = pad("", 6)
			}
		}
	}
	fmt.Fprintf(out, "\n%s, %s, %d bad\n", count(len(all), "check"), count(warned, "warning"), bad)
	return flush(out)
}
