// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/collector/internal/dhcp"
	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

type dhcpOptions struct {
	only, frontend string
	subnets        []string
}

func dhcpConfigCommand(log *slog.Logger) *cobra.Command {
	var o dhcpOptions
	cmd := &cobra.Command{
		Use:   "dhcp-config dnsmasq|isc|kea",
		Short: "print what the site's DHCP server has to say",
		Long: `Prints a snippet for the site's DHCP server, so that machines come to the
collector by iPXE, from BIOS and UEFI. Nodes whose address is known get it.`,
		Example: `  provostd dhcp-config dnsmasq --subnet 10.0.0.0/24 >/etc/dnsmasq.d/provost.conf
  provostd dhcp-config isc --only @rack1
  provostd dhcp-config kea --frontend 10.0.0.1:8480

Exit status: 0 printed, 1 not printed, 64 usage, 78 settings.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("dhcp-config takes one of %s", strings.Join(dhcp.Servers, ", "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			site, err := o.site(cmd.Context(), s, log)
			if err != nil {
				return err
			}
			text, err := dhcp.Config(args[0], *site)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().StringVar(&o.only, "only", "@all", "`NODES` to write down: a node set")
	cmd.Flags().StringVar(&o.frontend, "frontend", "", "`ADDRESS[:PORT]` of this machine as nodes reach it (default: the first of advertise, else one of this machine's)")
	cmd.Flags().StringArrayVar(&o.subnets, "subnet", nil, "a `NETWORK` of the nodes, like 10.0.0.0/24; may be given again")
	settingsFlags(cmd.Flags())
	return cmd
}

func (o *dhcpOptions) site(ctx context.Context, s *settings, log *slog.Logger) (*dhcp.Site, error) {
	front, err := o.front(s)
	if err != nil {
		return nil, usageError{err}
	}
	out := &dhcp.Site{Frontend: front}
	for _, text := range o.subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--subnet %q: write a network like 10.0.0.0/24", text)}
		}
		out.Subnets = append(out.Subnets, p)
	}
	nodes, err := nodesOf(ctx, s, o.only, log)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if n.Status != proto.StatusDiscovered {
			out.Nodes = append(out.Nodes, dhcp.Node{Name: n.Name, MACs: n.MACs, IP: n.IP})
		}
	}
	return out, nil
}

// front is where nodes reach the boot server. Its port is the running collector's, if there is one.
func (o *dhcpOptions) front(s *settings) (netip.AddrPort, error) {
	listen := s.BootListen
	var record Record
	if b, err := os.ReadFile(filepath.Join(s.Dirs.Data, "listeners.json")); err == nil && json.Unmarshal(b, &record) == nil && record.BootListen != "" {
		listen = record.BootListen
	}
	if listen == bootListenOff {
		return netip.AddrPort{}, errors.New("boot-listen is off: there is no boot server that a DHCP server could point to; set it in provostd.yaml")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("boot-listen %q: use HOST:PORT or :PORT", listen)
	}
	switch {
	case o.frontend != "":
		host = o.frontend
		if h, p, err := net.SplitHostPort(o.frontend); err == nil {
			host, port = h, p
		}
	case len(s.Advertise) > 0:
		host = s.Advertise[0]
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	default:
		host = hostOf(net.JoinHostPort(host, port))
	}
	front, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return front, fmt.Errorf("%s:%s is no address with a port: boot loaders want one, give --frontend ADDRESS[:PORT]", host, port)
	}
	return front, nil
}

// nodesOf asks the running collector for nodes; without one it reads the database by itself.
func nodesOf(ctx context.Context, s *settings, only string, log *slog.Logger) ([]proto.Node, error) {
	nodes, err := askForNodes(ctx, s.Socket, only)
	var refused *proto.Problem
	if errors.As(err, &refused) {
		return nil, usageError{refused}
	}
	if err == nil {
		return nodes, nil
	}
	path := filepath.Join(s.Dirs.Data, "provost.db")
	if _, statErr := os.Stat(path); statErr != nil {
		return nil, fmt.Errorf("no collector answers on %s (%w), and there is no database %s: start provostd serve, or name its --data", s.Socket, err, path)
	}
	st, err := store.Open(path, store.Options{Log: log})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	set, err := profile.Load("")
	if err != nil {
		return nil, err
	}
	reg, err := registry.Open(ctx, registry.Options{Store: st, Profiles: profiles{set: set}, Log: log})
	if err != nil {
		return nil, err
	}
	names, err := reg.Select(only, false)
	if err != nil {
		return nil, usageError{err}
	}
	return reg.Nodes(names), nil
}

// nodesTime bounds the question: the socket is on this machine.
const nodesTime = 30 * time.Second

func askForNodes(ctx context.Context, socket, only string) ([]proto.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, nodesTime)
	defer cancel()
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://provostd/v1/nodes?nodes="+url.QueryEscape(only), nil)
	if err != nil {
		return nil, fmt.Errorf("asking for the nodes: %w", err)
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		p := &proto.Problem{}
		if err := json.NewDecoder(resp.Body).Decode(p); err != nil {
			return nil, fmt.Errorf("asking for the nodes: status %d", resp.StatusCode)
		}
		return nil, p
	}
	var list proto.NodeList
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("reading the nodes: %w", err)
	}
	return list.Nodes, nil
}
