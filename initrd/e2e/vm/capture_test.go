// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestReadCapture(t *testing.T) {
	frame := func(kind uint16, header []byte, ports ...byte) []byte {
		return slices.Concat(make([]byte, 12), binary.BigEndian.AppendUint16(nil, kind), header, ports)
	}
	ip4 := func(words, protocol, fragment byte) []byte {
		h := make([]byte, int(words)*4)
		h[0], h[7], h[9] = 4<<4|words, fragment, protocol
		return h
	}
	ip6 := make([]byte, 40)
	ip6[6] = 6
	path := filepath.Join(t.TempDir(), "capture")
	write := func(frames ...[]byte) {
		t.Helper()
		b := make([]byte, 24)
		binary.NativeEndian.PutUint32(b, 0xa1b2c3d4)
		binary.NativeEndian.PutUint32(b[20:], 1)
		for _, f := range frames {
			b = append(b, make([]byte, 8)...)
			b = binary.NativeEndian.AppendUint32(b, uint32(len(f)))
			b = append(append(b, make([]byte, 4)...), f...)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(
		frame(0x0800, ip4(5, 17, 0), 0, 68, 0, 67),
		frame(0x0806, ip4(5, 17, 0), 1, 1, 1, 1),  // ARP
		frame(0x0800, ip4(5, 1, 0), 1, 1, 1, 1),   // ICMP
		frame(0x0800, ip4(5, 17, 9), 1, 1, 1, 1),  // the rest of a fragmented packet
		frame(0x0800, ip4(6, 17, 0), 4, 0, 0, 53), // with an option
		frame(0x86dd, ip6, 4, 0, 1, 187),          // IPv6
		frame(0x0800, ip4(5, 6, 0), 4),            // cut off
		nil,
	)
	want := []Packet{{true, 68, 67}, {true, 1024, 53}, {false, 1024, 443}}
	if got, err := ReadCapture(path); err != nil || !slices.Equal(got, want) {
		t.Errorf("ReadCapture = %v, %v, want %v", got, err, want)
	}
	if err := os.Truncate(path, 24+16+20); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadCapture(path); err != nil || len(got) > 0 {
		t.Errorf("ReadCapture of half a packet = %v, %v, want none", got, err)
	}
	if err := os.Truncate(path, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCapture(path); err == nil {
		t.Error("ReadCapture of half a header = nil, want an error")
	}
}
