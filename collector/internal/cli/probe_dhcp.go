// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"provost/collector/internal/offers"
	"provost/proto"
)

// dhcpWait is how long a server has to answer.
const dhcpWait = 5 * time.Second

type dhcpOptions struct {
	ask   bool
	inter string
	mac   string
	ours  []string
}

// dhcpServer is an offer and whose it is.
type dhcpServer struct {
	offers.Offer
	Ours bool `json:"ours"`
}

// probeDHCP lists the DHCP servers of a network.
func probeDHCP(ctx context.Context, s *session, cmd *cobra.Command, o probeOptions) error {
	q := offers.Question{Interface: o.dhcp.inter, Wait: dhcpWait}
	if q.Interface == "" {
		return &usageError{text: "say on which network: --dhcp -i IF", hint: "`ip -br link` lists the interfaces", cmd: cmd}
	}
	if o.dhcp.mac != "" {
		m, err := proto.NormalMAC(o.dhcp.mac)
		if err != nil {
			return usage(cmd, "--mac %v", err)
		}
		q.MAC, _ = net.ParseMAC(m)
	}
	ours := slices.Clone(o.dhcp.ours)
	for _, a := range ours {
		if net.ParseIP(a) == nil {
			return usage(cmd, "--ours %q: use IP addresses", a)
		}
	}
	if all, err := net.InterfaceAddrs(); err == nil {
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok {
				ours = append(ours, n.IP.String())
			}
		}
	}
	if o.output == "text" {
		fmt.Fprintf(s.Stderr, "provost: asking on %s, for %s\n", clean(q.Interface), span(dhcpWait))
	}
	found, err := offers.Ask(ctx, q)
	if errors.Is(err, fs.ErrPermission) {
		return &hintError{err, "it needs raw packets: run it with sudo"}
	}
	if err != nil {
		return err
	}
	doc := struct {
		Schema    int          `json:"schema"`
		Interface string       `json:"interface"`
		Servers   []dhcpServer `json:"servers"`
		Silent    []string     `json:"silent,omitempty"` // ours that were named and did not answer
	}{proto.Schema, q.Interface, []dhcpServer{}, nil}
	bad := false
	for _, f := range found {
		own := slices.Contains(ours, f.Server) || slices.Contains(ours, f.From)
		bad = bad || !own
		doc.Servers = append(doc.Servers, dhcpServer{f, own})
	}
	for _, a := range o.dhcp.ours {
		if !slices.ContainsFunc(found, func(f offers.Offer) bool { return f.Server == a || f.From == a }) {
			doc.Silent, bad = append(doc.Silent, a), true
		}
	}
	switch o.output {
	case "json":
		err = writeJSON(s.Stdout, doc)
	case "yaml":
		err = writeYAMLOf(s.Stdout, doc)
	default:
		err = writeServers(s, doc.Servers, doc.Silent)
	}
	if err == nil && bad {
		err = &exitError{exitFailed}
	}
	return err
}

func writeServers(s *session, servers []dhcpServer, silent []string) error {
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	for _, f := range servers {
		sign, colour, whose := "X", red, "not ours"
		if f.Ours {
			sign, colour, whose = "+", green, "ours"
		}
		text := f.Server + " (" + whose + ", " + f.MAC + "): "
		if f.Proxy {
			text += "no address"
		} else {
			text += f.Address + " for " + span(time.Duration(f.LeaseS)*time.Second)
		}
		if f.NextServer != "" {
			text += ", next-server " + f.NextServer
		}
		if f.BootFile != "" {
			text += ", boot file " + f.BootFile
		} else {
			text += ", no boot file"
		}
		if f.Relay != "" {
			text += ", by the relay " + f.Relay
		}
		for i, l := range indented(wrap(clean(text), min(sc.width, defaultWidth)-2), 2) {
			out.WriteString(sc.paint(colour, []string{sign + " ", "  "}[min(i, 1)]+l[2:]) + "\n")
		}
	}
	for _, a := range silent {
		out.WriteString(sc.paint(red, "X "+clean(a)+" did not answer") + "\n")
	}
	if len(servers) == 0 {
		out.WriteString("no server answered; one on this machine itself does not hear the question\n")
	}
	return flush(out)
}
