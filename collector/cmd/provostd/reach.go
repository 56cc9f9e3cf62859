// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/netip"
	"net/url"
)

// reach gives the boot server's HOST:PORT and the agents' URLs as a node would see them, for what is shown or printed
// before any node has asked: the first advertised address, else the host by which a client reached us, else an address of
// this machine.
func (s *Server) reach(clientHost string) (boot string, urls []string) {
	urls = s.set.agentURLs(port(s.tls))
	host := ""
	switch {
	case len(urls) > 0:
		if u, err := url.Parse(urls[0]); err == nil {
			host = u.Hostname()
		}
	case clientHost != "" && clientHost != "provostd" && clientHost != "localhost": // the unix socket's clients say one of these
		host = clientHost
		if h, _, err := net.SplitHostPort(clientHost); err == nil {
			host = h
		}
	}
	if host == "" {
		host = hostOf(s.tls.Addr().String())
	}
	if len(urls) == 0 {
		urls = []string{"https://" + net.JoinHostPort(host, port(s.tls))}
	}
	if s.plain == nil {
		return net.JoinHostPort(host, "0"), urls // nobody answers there, and currentWarnings says so
	}
	return net.JoinHostPort(host, port(s.plain)), urls
}

// hostOf is the host of a listener's address; of one that listens everywhere, the first global address of the machine.
func hostOf(listener string) string {
	host, _, _ := net.SplitHostPort(listener) // a listener's address has one
	if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
		return host
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "localhost"
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return "localhost"
}
