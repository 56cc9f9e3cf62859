// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/url"
	"os"
	"time"
)

// refreshEvery is how often a running collector looks at its CA's files: what `provostd ca` did counts from then on, and
// certificates that end within 30 days are made anew.
const refreshEvery = 5 * time.Second

func (s *Server) refreshCA(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		pin := s.ca.Pin()
		err := s.ca.Refresh()
		if err == nil && s.ca.Pin() != pin {
			s.log.Info("the CA was rotated", "pin", s.ca.Pin(), "before", pin)
			err = s.writeRecord()
		}
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			s.log.Error("looking at the CA: what it was still counts", "error", err)
		}
	}
}

// hosts are the names and addresses by which browsers and curl may reach the collector: this machine's, and those that are
// advertised.
func (s *settings) hosts() []string {
	var out []string
	if name, err := os.Hostname(); err == nil && validDNS(name) {
		out = append(out, name)
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				out = append(out, n.IP.String())
			}
		}
	}
	for _, u := range s.agentURLs("") {
		if u, err := url.Parse(u); err == nil && (net.ParseIP(u.Hostname()) != nil || validDNS(u.Hostname())) {
			out = append(out, u.Hostname())
		}
	}
	return out
}

// validDNS takes what may stand as a name in a certificate.
func validDNS(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' {
			return false
		}
	}
	return name[0] != '.' && name[0] != '-'
}
