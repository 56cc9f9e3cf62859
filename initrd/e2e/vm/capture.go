// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Packet is one TCP or UDP packet of a capture.
type Packet struct {
	UDP      bool
	From, To uint16 // ports
}

// ReadCapture reads what a machine that is down has sent and got: every TCP and UDP packet, over IPv4 and IPv6. Later fragments,
// which have no ports, and packets behind an extension header of IPv6 are not among them. The format is pcap's
// (draft-ietf-opsawg-pcap) as QEMU's filter-dump writes it: Ethernet, in the byte order of this machine.
func ReadCapture(path string) ([]Packet, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the capture: %w", err)
	}
	const magic, ethernet = 0xa1b2c3d4, 1
	order := binary.NativeEndian
	if len(b) < 24 || order.Uint32(b) != magic || order.Uint32(b[20:]) != ethernet {
		return nil, fmt.Errorf("reading the capture %s: %w", path, errors.New("it is no pcap file of an Ethernet"))
	}
	var packets []Packet
	for b = b[24:]; len(b) >= 16; { // seconds, microseconds, bytes here, bytes on the cable
		size := uint64(order.Uint32(b[8:]))
		if size > uint64(len(b)-16) {
			break // the machine was killed while this was written
		}
		if p, ok := transport(b[16 : 16+size]); ok {
			packets = append(packets, p)
		}
		b = b[16+size:]
	}
	return packets, nil
}

func transport(frame []byte) (Packet, bool) {
	if len(frame) < 14 {
		return Packet{}, false
	}
	const tcp, udp = 6, 17
	protocol, rest := byte(0), frame[14:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == 0x0800 && len(rest) >= 20 && binary.BigEndian.Uint16(rest[6:])&0x1fff == 0: // not a later fragment
		protocol, rest = rest[9], rest[min(len(rest), int(rest[0]&0xf)*4):]
	case kind == 0x86dd && len(rest) >= 40:
		protocol, rest = rest[6], rest[40:]
	}
	if protocol != tcp && protocol != udp || len(rest) < 4 {
		return Packet{}, false
	}
	return Packet{protocol == udp, binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])}, true
}
