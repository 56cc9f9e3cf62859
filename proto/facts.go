// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Facts are what an agent sees of its machine at one moment. Nothing is decided by them, and none of them is kept on
// disk. What is not known is left out.
type Facts struct {
	Run         *Space    `json:"run,omitempty"`          // where the agent's journal and logs are: /run in an installer
	Target      *Space    `json:"target,omitempty"`       // the system that is being installed
	Load        float64   `json:"load,omitempty"`         // average of one minute, proc_loadavg(5)
	MemoryMB    int       `json:"memory_mb,omitempty"`    // MiB
	AvailableMB int       `json:"available_mb,omitempty"` // MiB; MemAvailable of proc_meminfo(5)
	At          time.Time `json:"at,omitzero"`            // when the collector heard them: set by it
}

// Space is that of one file system, in bytes. Free is what a program without privileges may still take.
type Space struct {
	Path  string `json:"path"`
	Free  int64  `json:"free"`
	Total int64  `json:"total"`
}

// Used is how full it is in percent, rounded down; 0 if it has no size.
func (s *Space) Used() int {
	if s == nil || s.Total <= 0 {
		return 0
	}
	return int((s.Total - min(max(s.Free, 0), s.Total)) / ((s.Total + 99) / 100))
}

// Rescue is the way into a node's rescue shell.
type Rescue struct {
	Port    int    `json:"port"`              // TCP
	HostKey string `json:"host_key"`          // as CheckPublicKey takes it
	Address string `json:"address,omitempty"` // the address that the agent speaks from: set by the collector
}

// Check says what is wrong with what an agent says of its rescue shell.
func (r *Rescue) Check() error {
	if r.Port < 1 || r.Port > 65535 {
		return fmt.Errorf("rescue port %d: use 1 to 65535", r.Port)
	}
	return CheckPublicKey(r.HostKey)
}

// MaxRescueKeys bounds the keys that may come into a rescue shell.
const MaxRescueKeys = 256

// maxPublicKey is the length of a line: an RSA key of 16384 bits has 2,750 characters.
const maxPublicKey = 8 << 10

// CheckPublicKey says what is wrong with an SSH public key in one line, as in a .pub file: type, base64 (RFC 4253, 6.6) and
// maybe a comment. Options before it are refused: what restricts a key must not be passed over.
func CheckPublicKey(line string) error {
	if len(line) > maxPublicKey || strings.ContainsAny(line, "\n\r\x00") {
		return errors.New("this is no line with an SSH public key")
	}
	f := strings.Fields(line)
	if len(f) >= 2 {
		b, err := base64.StdEncoding.DecodeString(f[1])
		if err == nil && len(b) > 4 {
			if n := binary.BigEndian.Uint32(b); int64(n) < int64(len(b))-4 && string(b[4:4+n]) == f[0] {
				return nil
			}
		}
	}
	return errors.New("this is no SSH public key, or has options before it: write it as in id_ed25519.pub")
}
