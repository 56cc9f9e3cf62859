// SPDX-License-Identifier: Apache-2.0

// Package dhcp writes what a site's DHCP server has to say for its machines to come to the collector: snippets for
// dnsmasq, ISC dhcpd and Kea. It must never talk to a server, or let a name that it is given become a statement.
package dhcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"provost/proto"
)

// Servers are the kinds that Config knows.
var Servers = []string{"dnsmasq", "isc", "kea"}

// Node is a machine with a fixed address, if it has one. The address goes to the first of its MACs.
type Node struct {
	Name string
	MACs []string
	IP   string // empty: not known
}

// Site is what a snippet is made of.
type Site struct {
	Frontend netip.AddrPort // the boot server as the machines reach it; IPv4
	Subnets  []netip.Prefix // networks of the machines: addresses are fixed within them
	Nodes    []Node
}

// The boot loaders that firmware fetches by TFTP, or by HTTP from the images directory. iPXE's own build gives them these
// names.
const (
	biosLoader  = "undionly.kpxe"
	efiLoader   = "ipxe.efi"
	armLoader   = "ipxe-arm64.efi"
	httpClients = "HTTPClient"
)

// script is expanded by iPXE: netX is the card that it boots by, where net0 is its first one. The serial number and UUID tell the collector of a machine that has another card now.
func (s *Site) script() string {
	return "http://" + s.Frontend.String() + "/boot/${netX/mac}?serial=${serial:uristring}&uuid=${uuid}"
}

func (s *Site) image(name string) string {
	return "http://" + s.Frontend.String() + "/images/" + name
}

// Config gives the snippet for a server. Nodes whose address is in none of the subnets are an error, as are names and
// addresses that make no sense; without subnets every address is taken as it is.
func Config(server string, s Site) (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	s, notes := s.withoutInfiniband()
	comment := "#"
	if server == "kea" {
		comment = "//"
	}
	text, err := s.write(server)
	for _, n := range notes {
		text += comment + " " + n + "\n"
	}
	return text, err
}

// withoutInfiniband leaves out what no reservation by hardware address can be made for, and says so.
func (s Site) withoutInfiniband() (Site, []string) {
	var notes []string
	nodes := s.Nodes
	s.Nodes = nil
	for _, n := range nodes {
		var macs []string
		for _, m := range n.MACs {
			if len(m) > len("52:54:00:00:00:00") {
				notes = append(notes, n.Name+": "+m+" is an Infiniband port: reserve its address by its client identifier")
			} else {
				macs = append(macs, m)
			}
		}
		n.MACs = macs
		s.Nodes = append(s.Nodes, n)
	}
	return s, notes
}

func (s *Site) write(server string) (string, error) {
	switch server {
	case "dnsmasq":
		return s.dnsmasq(), nil
	case "isc":
		return s.isc(), nil
	case "kea":
		return s.kea()
	}
	return "", fmt.Errorf("DHCP server %q: use one of %s", server, strings.Join(Servers, ", "))
}

func (s *Site) check() error {
	var errs []error
	if !s.Frontend.IsValid() || !s.Frontend.Addr().Is4() || s.Frontend.Addr().IsUnspecified() || s.Frontend.Port() == 0 {
		errs = append(errs, fmt.Errorf("the frontend's address %s is no IPv4 address with a port: a boot loader needs one", s.Frontend))
	}
	for _, p := range s.Subnets {
		if !p.IsValid() || !p.Addr().Is4() || p.Masked() != p {
			errs = append(errs, fmt.Errorf("subnet %s: write an IPv4 network like 10.0.0.0/24", p))
		}
	}
	owner := map[string]string{}
	for _, n := range s.Nodes {
		errs = append(errs, proto.CheckNode(n.Name))
		for _, m := range n.MACs {
			if _, err := net.ParseMAC(m); err != nil {
				errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
			}
		}
		if n.IP == "" {
			continue
		}
		a, err := netip.ParseAddr(n.IP)
		switch other := owner[n.IP]; {
		case err != nil || !a.Is4():
			errs = append(errs, fmt.Errorf("node %s: address %s is no IPv4 address", n.Name, n.IP))
		case other != "":
			errs = append(errs, fmt.Errorf("nodes %s and %s have the same address %s", other, n.Name, n.IP))
		case len(s.Subnets) > 0 && s.subnet(n) < 0:
			errs = append(errs, fmt.Errorf("node %s: address %s is in none of the subnets: add one with --subnet", n.Name, n.IP))
		}
		owner[n.IP] = n.Name
	}
	return errors.Join(errs...)
}

// subnet is the index of the network that a node's address is in, -1 if there is none.
func (s *Site) subnet(n Node) int {
	a, err := netip.ParseAddr(n.IP)
	if err != nil {
		return -1
	}
	return slices.IndexFunc(s.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// host is the part of a node's name that a DHCP server gives as the host name.
func host(name string) string {
	first, _, _ := strings.Cut(name, ".")
	return first
}

func header(comment, what string) string {
	return comment + " Provost: machines come to the collector by iPXE, from BIOS and UEFI.\n" +
		comment + " " + what + "\n" +
		comment + " The TFTP server has " + biosLoader + ", " + efiLoader + " and " + armLoader + " of iPXE; firmware that\n" +
		comment + " boots by HTTP gets " + efiLoader + " from the collector's images directory.\n"
}

func (s *Site) dnsmasq() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	front := s.Frontend.Addr().String()
	b.WriteString(header("#", "Put it into /etc/dnsmasq.d/provost.conf."))
	for _, p := range s.Subnets {
		line("dhcp-range=%s,static,%s", p.Addr(), mask(p))
	}
	line("dhcp-match=set:ipxe,175")
	line("dhcp-userclass=set:ipxe,iPXE")
	for _, a := range []struct {
		tag  string
		code int
	}{{"efi64", 7}, {"efi64", 9}, {"efiarm64", 11}, {"efihttp64", 16}, {"efihttparm64", 19}} {
		line("dhcp-match=set:%s,option:client-arch,%d", a.tag, a.code)
	}
	line("dhcp-boot=tag:!ipxe,tag:!efi64,tag:!efiarm64,tag:!efihttp64,tag:!efihttparm64,%s,,%s", biosLoader, front)
	line("dhcp-boot=tag:!ipxe,tag:efi64,%s,,%s", efiLoader, front)
	line("dhcp-boot=tag:!ipxe,tag:efiarm64,%s,,%s", armLoader, front)
	line("dhcp-boot=tag:!ipxe,tag:efihttp64,%s", s.image(efiLoader))
	line("dhcp-boot=tag:!ipxe,tag:efihttparm64,%s", s.image(armLoader))
	line("dhcp-option-force=tag:!ipxe,tag:efihttp64,60,%s", httpClients)
	line("dhcp-option-force=tag:!ipxe,tag:efihttparm64,60,%s", httpClients)
	line("dhcp-boot=tag:ipxe,%s", s.script())
	for _, n := range s.Nodes {
		for i, m := range n.MACs {
			if i == 0 && n.IP != "" {
				line("dhcp-host=%s,%s,%s", m, n.IP, host(n.Name))
			} else {
				line("dhcp-host=%s,%s", m, host(n.Name))
			}
		}
	}
	return b.String()
}

func mask(p netip.Prefix) string {
	return net.IP(net.CIDRMask(p.Bits(), 32)).String()
}

func (s *Site) isc() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	b.WriteString(header("#", "Put it into /etc/dhcp/provost.conf, and include \"/etc/dhcp/provost.conf\"; into dhcpd.conf."))
	line("next-server %s;", s.Frontend.Addr())
	line(`if exists user-class and option user-class = "iPXE" {`)
	line(`  filename "%s";`, s.script())
	line("} elsif option pxe-system-type = 00:07 or option pxe-system-type = 00:09 {")
	line(`  filename "%s";`, efiLoader)
	line("} elsif option pxe-system-type = 00:0b {")
	line(`  filename "%s";`, armLoader)
	line("} elsif option pxe-system-type = 00:10 {")
	line(`  option vendor-class-identifier "%s";`, httpClients)
	line(`  filename "%s";`, s.image(efiLoader))
	line("} elsif option pxe-system-type = 00:13 {")
	line(`  option vendor-class-identifier "%s";`, httpClients)
	line(`  filename "%s";`, s.image(armLoader))
	line("} else {")
	line(`  filename "%s";`, biosLoader)
	line("}")
	for _, p := range s.Subnets {
		line("subnet %s netmask %s { }", p.Addr(), mask(p))
	}
	for _, n := range s.Nodes {
		for i, m := range n.MACs {
			name, fixed := n.Name, ""
			if i > 0 {
				name = fmt.Sprintf("%s-mac%d", n.Name, i+1)
			} else if n.IP != "" {
				fixed = " fixed-address " + n.IP + ";"
			}
			line(`host %s { hardware ethernet %s;%s option host-name "%s"; }`, name, m, fixed, host(n.Name))
		}
	}
	return b.String()
}

type keaOption struct {
	Name       string `json:"name"`
	Data       string `json:"data"`
	AlwaysSend bool   `json:"always-send"`
}

type keaClass struct {
	Name     string      `json:"name"`
	Test     string      `json:"test"`
	Next     string      `json:"next-server,omitempty"`
	BootFile string      `json:"boot-file-name"`
	Options  []keaOption `json:"option-data,omitempty"`
}

type keaReservation struct {
	MAC      string `json:"hw-address"`
	IP       string `json:"ip-address,omitempty"`
	Hostname string `json:"hostname"`
}

type keaSubnet struct {
	ID           int              `json:"id"`
	Subnet       string           `json:"subnet"`
	Reservations []keaReservation `json:"reservations"`
}

type keaConfig struct {
	Classes      []keaClass       `json:"client-classes"`
	InSubnet     *bool            `json:"reservations-in-subnet,omitempty"`
	Global       bool             `json:"reservations-global"`
	Reservations []keaReservation `json:"reservations,omitempty"`
	Subnets      []keaSubnet      `json:"subnet4,omitempty"`
}

func (s *Site) kea() (string, error) {
	front := s.Frontend.Addr().String()
	const notIPXE = "not member('provost-ipxe') and "
	http := []keaOption{{"vendor-class-identifier", httpClients, true}}
	c := keaConfig{Global: true, Classes: []keaClass{
		{Name: "provost-ipxe", Test: "substring(option[77].hex, 0, 4) == 'iPXE' or option[175].exists", Next: front, BootFile: s.script()},
		{Name: "provost-efi64", Test: notIPXE + "(option[93].hex == 0x0007 or option[93].hex == 0x0009)", Next: front, BootFile: efiLoader},
		{Name: "provost-efiarm64", Test: notIPXE + "option[93].hex == 0x000b", Next: front, BootFile: armLoader},
		{Name: "provost-efihttp64", Test: notIPXE + "option[93].hex == 0x0010", BootFile: s.image(efiLoader), Options: http},
		{Name: "provost-efihttparm64", Test: notIPXE + "option[93].hex == 0x0013", BootFile: s.image(armLoader), Options: http},
		{Name: "provost-bios", Test: notIPXE + "option[93].hex == 0x0000", Next: front, BootFile: biosLoader},
	}}
	for i, p := range s.Subnets {
		c.Subnets = append(c.Subnets, keaSubnet{ID: i + 1, Subnet: p.String(), Reservations: []keaReservation{}})
	}
	if len(s.Subnets) > 0 {
		yes := true
		c.InSubnet = &yes
	}
	for _, n := range s.Nodes {
		for i, m := range n.MACs {
			r := keaReservation{MAC: m, Hostname: host(n.Name)}
			at := -1
			if i == 0 {
				r.IP, at = n.IP, s.subnet(n)
			}
			if at >= 0 {
				c.Subnets[at].Reservations = append(c.Subnets[at].Reservations, r)
			} else {
				c.Reservations = append(c.Reservations, r)
			}
		}
	}
	b, err := marshal(map[string]keaConfig{"Dhcp4": c})
	if err != nil {
		return "", fmt.Errorf("writing Kea's configuration: %w", err)
	}
	return header("//", "Put the members of Dhcp4 into those of kea-dhcp4.conf.") + b, nil
}

// marshal leaves <, > and & as they are, which nobody here takes for HTML.
func marshal(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.String(), err
}
