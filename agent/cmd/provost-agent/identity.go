// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	"provost/proto"
)

// configure merges the settings.
func (a *agent) configure(c *common) error {
	s, err := a.host.Settings()
	if err != nil {
		a.tell("%v", err) // what could be understood counts
	}
	if c.urls != "" {
		s.URLs = host.SplitList(c.urls)
	}
	s.Node = cmp.Or(c.node, s.Node)
	s.CA = cmp.Or(c.ca, s.CA)
	s.JoinKeyFile = cmp.Or(c.joinKeyFile, s.JoinKeyFile)
	if s.Node != "" {
		if err := proto.CheckNode(s.Node); err != nil {
			return config("", err)
		}
	}
	if c.tokenFile != "" {
		token, err := secret("token", c.tokenFile)
		if err != nil {
			return err
		}
		if token != a.dir.Token() {
			if err := a.dir.SetToken(token); err != nil {
				return err
			}
		}
	}
	if s.JoinKeyFile != "" && s.Claim == "" {
		if a.joinKey, err = secret("join key", s.JoinKeyFile); err != nil {
			return err
		}
	}
	if s.Rescue && s.Node != "" {
		s.URLs = nil // it speaks for no install, and must not be taken for an attempt; an unknown machine may say that it is there
	}
	a.settings = s
	return nil
}

// secret reads a secret's file. What it holds never becomes part of a message.
func secret(what, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", config("", fmt.Errorf("reading the %s: %w", what, err))
	}
	v := strings.TrimSpace(string(b))
	if v == "" || len(v) > 128 || strings.ContainsAny(v, " \t\r\n") {
		return "", config("", fmt.Errorf("reading the %s: %s must hold one word of at most 128 bytes", what, file))
	}
	return v, nil
}

// identity reads who this is, or makes a provisional one that lasts until a collector knows better.
func (a *agent) identity() (report.Identity, error) {
	id, err := a.dir.Identity()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.tell("%v: it is made anew", err)
		}
		id = report.Identity{Node: a.settings.Node, Install: a.settings.Install}
		if !proto.ValidID(id.Install) {
			id.Install = proto.NewID(time.Now())
		}
		if err := a.dir.SetIdentity(id); err != nil {
			return id, err
		}
	}
	if len(a.settings.URLs) == 0 {
		a.settings.URLs = id.URLs
	}
	if urls := a.nextServers(); len(urls) > 0 {
		a.settings.URLs, id.URLs = urls, urls // kept: the DHCP client's file may be gone with the initrd
		a.tell("no collector is named: asking the DHCP next server, %s", strings.Join(urls, ", "))
		return id, a.dir.SetIdentity(id)
	}
	return id, nil
}

// collectorPort is the port that a collector listens on unless its settings say otherwise.
const collectorPort = 8440

// nextServers gives the URLs to try where none is known. Without a pin nothing would be sent to them, and without a proof
// nothing would come of it: such a machine has no collector.
func (a *agent) nextServers() []string {
	s := a.settings
	if len(s.URLs) > 0 || s.Rescue || a.env != proto.EnvInstaller || s.CA == "" && !exists(a.dir.CAFile()) || s.Claim == "" && a.joinKey == "" && a.dir.Token() == "" {
		return nil
	}
	var urls []string
	for _, addr := range a.host.NextServers() {
		urls = append(urls, "https://"+netip.AddrPortFrom(addr, collectorPort).String())
	}
	return urls
}
