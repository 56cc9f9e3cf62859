// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	logs "provost/collector/internal/evidence"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

type probeOptions struct {
	logs         []string
	verbose      bool
	output       string
	layout       string
	timeout      time.Duration
	back         string
	since, until string
	from, to     time.Time // of since, until and back
	dhcp         dhcpOptions
}

// defaultProbe bounds a probe that watches: an install takes less, and somebody is waiting for it.
const defaultProbe = time.Hour

func (o *probeOptions) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.logs, "logs", nil, "a log `FILE`, plain, gz, zst or xz; - is standard input; repeatable")
	f.BoolVar(&o.dhcp.ask, "dhcp", false, "ask the network of --interface for its DHCP servers, and take no lease")
	f.StringVarP(&o.dhcp.inter, "interface", "i", "", "`IF` for --dhcp")
	f.StringVar(&o.dhcp.mac, "mac", "", "the `MAC` to ask with; the interface's own without it")
	f.StringSliceVar(&o.dhcp.ours, "ours", nil, "`ADDRESS` of a DHCP server that is ours, beside this machine; repeatable")
	f.BoolVarP(&o.verbose, "verbose", "V", false, "every node in full, with all likely causes")
	f.DurationVarP(&o.timeout, "time", "t", defaultProbe, "watch for at most this `TIME`")
	f.StringVarP(&o.back, "replay", "r", "", "show what happened since so long `AGO`, like 2h or 3d")
	f.StringVar(&o.since, "since", "", "the same from a `TIME` on: how long ago, or a date with or without a time")
	f.StringVar(&o.until, "until", "", "and up to a `TIME`")
	f.StringVarP(&o.layout, "print", "p", "", "`LAYOUT`: compact, phase or origin")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text, json or yaml")
}

func probeCommand(s *session) *cobra.Command {
	var o probeOptions
	cmd := &cobra.Command{
		Use:   "probe [NODES]",
		Short: "the whole way of each node, live or replayed",
		Long: `Probe looks whether the frontend is fit for installs, watches the installs of
NODES (of all nodes under way, without it) until they have ended, the time (-t)
is up or you press Ctrl-C, and then shows the whole way of each: every stage
with its time, where it stopped, and what that is likely to come from, in order.
With -r, --since and --until it shows what happened before, as it is recorded.

With --logs it needs no collector, no inventory and no agent, and is the first
command to try on an existing site: it reads the logs of ISC dhcpd, Kea,
dnsmasq, tftpd-hpa, atftpd, Apache and nginx, in syslog files of any form, in
files of their own, as journalctl -o json writes them, rotated and compressed.
There NODES are names, MAC or IP addresses, and an argument that is a file or
has a slash in it is one more log, so that --logs /var/log/messages* does what
it says. With -r, --since or --until rotated files of a log are read with it.

With --dhcp -i IF it sends one DHCPDISCOVER, as a network card's firmware does,
and lists every server that answers within 5 s with what it offers: address,
next-server, boot file. It takes no lease. Servers that are neither this machine
nor named by --ours are marked; one on this machine itself does not hear it.

-p compact is a line for each node, -p phase the stages of each, -p origin the
same by who told of them; without it failures are shown in full. -V adds every
event, with --logs the last 40 lines about each node as they stand there.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json", "yaml"); err != nil {
				return err
			}
			if err := checkLayout(cmd, o.layout); err != nil {
				return err
			}
			if err := o.window(cmd, s.Now()); err != nil {
				return err
			}
			if o.dhcp.ask {
				if len(args) > 0 || len(o.logs) > 0 {
					return usage(cmd, "--dhcp asks a network: it takes no nodes and no logs")
				}
				return probeDHCP(cmd.Context(), s, cmd, o)
			}
			return runProbe(cmd.Context(), s, cmd, o, args)
		},
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "text", "json", "yaml")
	complete(cmd, "print", "compact", "phase", "origin")
	help(cmd, `provost probe -t 30m @rack1
provost probe -r 2h -p phase n07
sudo provost probe --dhcp -i eth1 --ours 10.0.0.2
provost probe --logs /var/log/messages --logs /var/log/httpd/access_log
provost probe --logs /var/log/syslog* /var/log/nginx/access.log n[01-20]
journalctl -o json --since today | provost probe --logs - 52:54:00:12:34:56`, `0   every node has booted; by logs: it got its kernel and initrd
1   a node failed or stalled; by logs: it stopped, a selected one is in no
    line, or a log could not be read; --dhcp: a server is not ours, or silent
2   not finished in time
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

func runProbe(ctx context.Context, s *session, cmd *cobra.Command, o probeOptions, args []string) error {
	var nodes, rest []string
	for _, a := range args {
		if fi, err := os.Stat(a); strings.Contains(a, "/") || err == nil && fi.Mode().IsRegular() {
			o.logs = append(o.logs, a)
			continue
		}
		rest = append(rest, a)
	}
	if len(o.logs) == 0 {
		return probeSite(ctx, s, cmd, o, strings.Join(rest, ","))
	}
	if cmd.Flags().Changed("time") {
		return &usageError{text: "--logs reads what is written already, and -t watches", hint: "leave one of them out", cmd: cmd}
	}
	for _, a := range rest {
		names, err := probeNodes(a)
		if err != nil {
			return &usageError{text: err.Error(), hint: "without a collector, nodes are names, MAC or IP addresses", cmd: cmd}
		}
		nodes = append(nodes, names...)
	}
	if o.replays() { // the time that is asked for may have begun before the last rotation
		o.logs = logs.WithRotated(o.logs, o.from)
	}
	now := s.Now()
	r, err := logs.Probe(ctx, o.logs, logs.ProbeOptions{Stdin: s.Stdin, Now: now, Location: now.Location(), Nodes: nodes, Since: o.from, Until: o.to,
		Lines: o.verbose})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &hintError{err, "the logs are for root: run it with sudo"}
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{err, "`ls /var/log` shows what there is; a frontend without syslog files has journald:\njournalctl -o json --since today | provost probe --logs -"}
	case err != nil:
		return err
	}
	if err := o.show(s, r); err != nil {
		return err
	}
	if r.Stopped() > 0 || len(r.NotSeen) > 0 || len(r.Nodes) == 0 || slices.ContainsFunc(r.Files, func(f logs.FileReport) bool { return f.Error != "" }) {
		return &exitError{exitFailed}
	}
	return nil
}

// show writes a report.
func (o *probeOptions) show(s *session, r *logs.Report) error {
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, r)
	case "yaml":
		return writeYAMLOf(s.Stdout, r)
	}
	w := bufio.NewWriter(s.Stdout)
	v := &probeView{w: w, sc: s.screen(s.Stdout), r: r, loc: s.Now().Location(), verbose: o.verbose, layout: o.layout}
	v.write()
	return flush(w)
}

// probeNodes reads one argument: an address, or a node set of names.
func probeNodes(arg string) ([]string, error) {
	if m, err := proto.NormalMAC(arg); err == nil {
		return []string{m}, nil
	}
	if a, err := netip.ParseAddr(arg); err == nil {
		return []string{a.String()}, nil
	}
	return nodeset.Eval(arg, noInventory{})
}

// noInventory is what node sets can refer to where there is no collector.
type noInventory struct{}

func (noInventory) Group(string) ([]string, bool)  { return nil, false }
func (noInventory) All() []string                  { return nil }
func (noInventory) Status(string) ([]string, bool) { return nil, false }
