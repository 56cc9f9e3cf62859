// SPDX-License-Identifier: Apache-2.0

// Package offers asks a network for its DHCP servers: one DISCOVER as a network card's firmware sends it, and every offer
// that comes back. It must never ask for a lease (it sends no REQUEST), and never wait without a bound.
package offers

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Offer is what one server offers.
type Offer struct {
	Server     string        `json:"server"` // identifier (option 54), else the packet's sender
	From       string        `json:"from"`   // the packet's sender
	MAC        string        `json:"mac"`    // of the packet's sender, or of the relay
	Address    string        `json:"address,omitempty"`
	NextServer string        `json:"next_server,omitempty"` // siaddr, else option 66
	BootFile   string        `json:"boot_file,omitempty"`   // option 67, else file
	Router     string        `json:"router,omitempty"`
	Lease      time.Duration `json:"-"`
	LeaseS     int64         `json:"lease_s,omitempty"`
	Relay      string        `json:"relay,omitempty"`
	Proxy      bool          `json:"proxy,omitempty"` // it offers a boot file, and no address
}

// Question is what is asked.
type Question struct {
	Interface string
	MAC       net.HardwareAddr // of the client that is played; the interface's own if nil
	Wait      time.Duration    // for answers
}

// again is when the DISCOVER is sent once more, since a first packet is often lost to a switch that is still learning.
const again = 2 * time.Second

// maxOffers bounds what is kept of a network in which somebody invents servers.
const maxOffers = 64

// Ask sends a DISCOVER and gives the offers of each server, in the order in which they came. It needs CAP_NET_RAW.
func Ask(ctx context.Context, q Question) ([]Offer, error) {
	ifi, err := net.InterfaceByName(q.Interface)
	if err != nil {
		return nil, fmt.Errorf("looking for interface %s: %w", q.Interface, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("interface %s is no Ethernet", q.Interface)
	}
	if q.MAC == nil {
		q.MAC = ifi.HardwareAddr
	}
	ip := int(htons(unix.ETH_P_IP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ip)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: uint16(ip), Ifindex: ifi.Index}
	if err := unix.Bind(fd, to); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", q.Interface, err)
	}
	if q.MAC.String() != ifi.HardwareAddr.String() { // a server may answer to that address in spite of the broadcast flag
		m := &unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, m); err != nil {
			return nil, fmt.Errorf("listening for another address on %s: %w", q.Interface, err)
		}
	}
	// Reading gives up ten times a second to look at the time and at ctx.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return nil, fmt.Errorf("bounding the wait on %s: %w", q.Interface, err)
	}
	var xid [4]byte
	rand.Read(xid[:])
	frame := discover(q.MAC, xid)
	var out []Offer
	begin, sent := time.Now(), 0
	for buf := make([]byte, 65536); ctx.Err() == nil && time.Since(begin) < q.Wait; {
		if sent == 0 || sent == 1 && time.Since(begin) >= again {
			sent++
			if _, err := unix.Write(fd, frame); err != nil {
				return nil, fmt.Errorf("sending on %s: %w", q.Interface, err)
			}
		}
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return out, fmt.Errorf("reading from %s: %w", q.Interface, err)
		}
		o, ok := Parse(buf[:n], xid)
		same := func(have Offer) bool {
			return have.Server == o.Server && have.From == o.From && have.MAC == o.MAC && have.Proxy == o.Proxy
		}
		if ok && len(out) < maxOffers && !slices.ContainsFunc(out, same) {
			out = append(out, o)
		}
	}
	return out, ctx.Err()
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

var magic = []byte{99, 130, 83, 99}

// discover is an Ethernet frame with a DHCPDISCOVER (RFC 2131) of a UEFI PXE client (option 93 is 7), whose answers are to be
// broadcast.
func discover(mac net.HardwareAddr, xid [4]byte) []byte {
	b := make([]byte, 236, 400)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[4:], xid[:])
	b[10] = 0x80 // broadcast
	copy(b[28:], mac)
	b = append(b, magic...)
	b = append(b, 53, 1, 1)
	b = append(b, 55, 12, 1, 3, 6, 12, 15, 43, 51, 54, 60, 66, 67, 97)
	b = append(b, 57, 2, 5, 192) // 1472 bytes at most
	b = append(append(b, 60, 32), "PXEClient:Arch:00007:UNDI:003016"...)
	b = append(b, 93, 2, 0, 7, 94, 3, 1, 3, 16)
	b = append(b, 255)
	for len(b) < 300 { // some relays drop shorter ones
		b = append(b, 0)
	}
	udp := make([]byte, 8, 8+len(b))
	binary.BigEndian.PutUint16(udp[0:], 68)
	binary.BigEndian.PutUint16(udp[2:], 67)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(b))) // without a checksum, which IPv4 allows
	udp = append(udp, b...)
	head := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255}
	binary.BigEndian.PutUint16(head[2:], uint16(len(head)+len(udp)))
	var sum uint32
	for i := 0; i < len(head); i += 2 {
		sum += uint32(head[i])<<8 | uint32(head[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(head[10:], ^uint16(sum+sum>>16))
	frame := append([]byte{255, 255, 255, 255, 255, 255}, mac...)
	frame = append(frame, 8, 0)
	return append(append(frame, head...), udp...)
}

// Parse reads an Ethernet frame; false if it is no offer for a transaction.
func Parse(frame []byte, xid [4]byte) (Offer, bool) {
	if len(frame) < 14+20 || frame[12] != 8 || frame[13] != 0 {
		return Offer{}, false
	}
	o := Offer{MAC: net.HardwareAddr(frame[6:12]).String()}
	ip := frame[14:]
	head := int(ip[0]&15) * 4
	if ip[0]>>4 != 4 || head < 20 || ip[9] != 17 || len(ip) < head+8+240 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return o, false // no IPv4, no UDP, a fragment
	}
	o.From = address(ip[12:16])
	udp := ip[head:]
	b := udp[8:]
	if binary.BigEndian.Uint16(udp[0:]) != 67 || binary.BigEndian.Uint16(udp[2:]) != 68 || b[0] != 2 || [4]byte(b[4:8]) != xid || string(b[236:240]) != string(magic) {
		return o, false
	}
	options := map[byte][]byte{}
	read := func(area []byte) {
		for len(area) > 1 && area[0] != 255 {
			if area[0] == 0 {
				area = area[1:]
				continue
			}
			n := int(area[1])
			if len(area) < 2+n {
				return
			}
			options[area[0]] = append(options[area[0]], area[2:2+n]...)
			area = area[2+n:]
		}
	}
	read(b[240:])
	over := options[52]
	file, name := b[108:236], b[44:108]
	if len(over) == 1 && over[0]&1 != 0 { // options instead of the file's name, and of the server's (RFC 2132, 9.3)
		read(file)
		file = nil
	}
	if len(over) == 1 && over[0]&2 != 0 {
		read(name)
		name = nil
	}
	if t := options[53]; len(t) != 1 || t[0] != 2 {
		return o, false
	}
	o.Address, o.Relay, o.NextServer = address(b[16:20]), address(b[24:28]), address(b[20:24])
	if o.NextServer == "" {
		o.NextServer = text(options[66])
	}
	if o.NextServer == "" {
		o.NextServer = text(name)
	}
	if o.BootFile = text(options[67]); o.BootFile == "" {
		o.BootFile = text(file)
	}
	if r := options[3]; len(r) >= 4 {
		o.Router = address(r[:4])
	}
	if l := options[51]; len(l) == 4 {
		o.LeaseS = int64(binary.BigEndian.Uint32(l))
		o.Lease = time.Duration(o.LeaseS) * time.Second
	}
	if id := options[54]; len(id) == 4 {
		o.Server = address(id)
	}
	if o.Server == "" {
		o.Server = o.From
	}
	o.Proxy = o.Address == ""
	return o, true
}

// address writes four bytes; nothing for 0.0.0.0.
func address(b []byte) string {
	if a := netip.AddrFrom4([4]byte(b)); !a.IsUnspecified() {
		return a.String()
	}
	return ""
}

// text is a string that may end with zeros. It is as the server sent it.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
