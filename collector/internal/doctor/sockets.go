// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Socket is a port that something on this machine receives at.
type Socket struct {
	Network string // "tcp" or "udp"
	Port    uint16
}

// The numbers of linux/inet_diag.h and net/tcp_states.h.
const (
	diagRequestSize = unix.SizeofNlMsghdr + 56 // struct inet_diag_req_v2
	tcpListen       = 1 << 10
	udpUnconnected  = 1 << 7
)

// maxAnswers bounds the messages of an answer: each has some 50 sockets.
const maxAnswers = 4096

// Sockets asks the kernel for the ports that something receives at (sock_diag(7)). It needs no /proc and no right, and waits
// for a second at most.
func Sockets() ([]Socket, error) {
	var out []Socket
	for _, q := range []struct {
		network       string
		family, proto byte
		states        uint32
	}{{"tcp", unix.AF_INET, unix.IPPROTO_TCP, tcpListen}, {"tcp", unix.AF_INET6, unix.IPPROTO_TCP, tcpListen},
		{"udp", unix.AF_INET, unix.IPPROTO_UDP, udpUnconnected}, {"udp", unix.AF_INET6, unix.IPPROTO_UDP, udpUnconnected}} {
		ports, err := diagnose(q.family, q.proto, q.states)
		if err != nil && !(q.family == unix.AF_INET6 && len(out) > 0) { // a kernel without IPv6
			return nil, fmt.Errorf("asking the kernel for %s sockets: %w", q.network, err)
		}
		for _, p := range ports {
			out = append(out, Socket{q.network, p})
		}
	}
	return out, nil
}

func diagnose(family, protocol byte, states uint32) ([]uint16, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, err
	}
	order := binary.NativeEndian
	q := make([]byte, diagRequestSize)
	order.PutUint32(q[0:], diagRequestSize)
	order.PutUint16(q[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(q[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	q[16], q[17] = family, protocol
	order.PutUint32(q[20:], states)
	if err := unix.Sendto(fd, q, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []uint16
	b := make([]byte, 64<<10)
	for range maxAnswers {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return nil, err
		}
		for m := b[:n]; len(m) >= unix.SizeofNlMsghdr; {
			size, kind := int(order.Uint32(m)), order.Uint16(m[4:])
			if size < unix.SizeofNlMsghdr || size > len(m) {
				return nil, errors.New("an answer that makes no sense")
			}
			body := m[unix.SizeofNlMsghdr:size]
			switch {
			case kind == unix.NLMSG_DONE:
				return out, nil
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				return nil, unix.Errno(-int32(order.Uint32(body)))
			case kind == unix.SOCK_DIAG_BY_FAMILY && len(body) >= 6: // struct inet_diag_msg: family, state, 2 bytes, then the port as on the wire
				out = append(out, binary.BigEndian.Uint16(body[4:]))
			}
			m = m[min((size+3)&^3, len(m)):]
		}
	}
	return nil, errors.New("an answer without an end")
}

// served are the services that a network boot may need of some machine.
var served = []struct {
	name    string
	network string
	ports   []uint16
}{{"DHCP (UDP 67)", "udp", []uint16{67}}, {"TFTP (UDP 69)", "udp", []uint16{69}}, {"HTTP (TCP 80, 443)", "tcp", []uint16{80, 443}}}

// services says which of the site's own services run on this machine. It is for information: any of them may be on another
// one.
func (c *checks) services(s Site) {
	if s.Sockets == nil {
		return
	}
	const name = "site's services"
	have, err := s.Sockets()
	if err != nil {
		c.add(proto.CheckWarn, name, "ss -lun; ss -ltn", "which of them run here was not looked at: %v", err)
		return
	}
	var here, not []string
	for _, v := range served {
		if slices.ContainsFunc(have, func(k Socket) bool { return k.Network == v.network && slices.Contains(v.ports, k.Port) }) {
			here = append(here, v.name)
		} else {
			not = append(not, v.name)
		}
	}
	text := "here: " + or(strings.Join(here, ", "), "none")
	if len(not) > 0 {
		text += "; not here: " + strings.Join(not, ", ") + ", which is right where another machine has them"
	}
	if own := s.external(); len(own) > 0 {
		text += "; your own servers boot the nodes of profile " + strings.Join(own, ", ") + ": they need DHCP, and the TFTP or HTTP that its answer names"
	} else {
		text += "; nodes need DHCP, and TFTP unless their firmware boots by HTTP or iPXE"
	}
	c.good(name, "%s", text)
}

// external are the profiles whose nodes the site boots itself.
func (s Site) external() []string {
	if s.Profiles == nil {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(slices.Values(s.Profiles.Names())) {
		if p, ok := s.Profiles.Info(name); ok && p.Boot == "external" {
			out = append(out, name)
		}
	}
	return out
}
