// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"net/netip"
	"slices"
	"time"
)

// Kind says what a line is evidence of. The stages carry the names of proto.Stages.
type Kind string

// What was reached.
const (
	Discover   Kind = "dhcp-discover"
	Offer      Kind = "dhcp-offer"
	Request    Kind = "dhcp-request"
	Ack        Kind = "dhcp-ack"
	BootScript Kind = "bootscript-sent"
	BootLoader Kind = "bootloader-sent"
	Kernel     Kind = "kernel-sent"
	Initrd     Kind = "initrd-sent"
	Answer     Kind = "answer-sent"
	Image      Kind = "image-sent"

	// What SLES's linuxrc fetches, in its order; Stacki waits for each by itself.
	SLESConfig   Kind = "config-sent"
	SLESCommon   Kind = "common-sent"
	SLESRoot     Kind = "root-sent"
	SLESCracklib Kind = "cracklib-sent"
	SLESBind     Kind = "bind-sent"
	SLESImage    Kind = "sles-img-sent"
)

// What is out of line, and what went wrong.
const (
	Nak          Kind = "dhcp-nak"
	Decline      Kind = "dhcp-decline"
	NotFound     Kind = "file-not-found"
	Forbidden    Kind = "file-forbidden"
	Aborted      Kind = "transfer-aborted"
	Refused      Kind = "request-failed" // any other error that a server answered with
	NoLeases     Kind = "no-free-leases"
	WrongNetwork Kind = "wrong-network"
)

// What is said in pieces: these lines add to other facts of the same transaction and are none by themselves. A Joiner
// takes them up.
const (
	Detail      Kind = "detail"       // one DHCP option of transaction XID: Reason is its name, File its value
	TransferEnd Kind = "transfer-end" // a server without file name or address: the transfer before went well
)

// stages are the kinds that a boot passes, in the order of proto.Stages.
var stages = [...]Kind{Discover, Offer, Request, Ack, BootScript, BootLoader, Kernel, Initrd, Answer, Image}

// linuxrc are the stages that only SLES has. A probe of logs does without them.
var linuxrc = [...]Kind{SLESConfig, SLESCommon, SLESRoot, SLESCracklib, SLESBind, SLESImage}

// Stage reports whether k is a milestone, and not an error or a detail.
func (k Kind) Stage() bool {
	return slices.Contains(stages[:], k) || slices.Contains(linuxrc[:], k)
}

// Error reports whether k says that something went wrong.
func (k Kind) Error() bool {
	switch k {
	case Nak, Decline, NotFound, Forbidden, Aborted, Refused, NoLeases, WrongNetwork:
		return true
	}
	return false
}

// The programs, under one name each whatever their package or log calls them.
const (
	ProgISC        = "dhcpd"
	ProgKea        = "kea-dhcp4"
	ProgDnsmasq    = "dnsmasq-dhcp"
	ProgDnsmasqTFT = "dnsmasq-tftp"
	ProgTFTPDHPA   = "in.tftpd"
	ProgATFTPD     = "atftpd"
	ProgWeb        = "http" // an access log does not say whose it is
	ProgApache     = "apache"
	ProgNginx      = "nginx"
	ProgInstaller  = "installer" // the installer's own syslog, sent over the network
)

// Fact is what one line says. Text is as it stands in the log, but for the escapes of the log's own format.
type Fact struct {
	Time    time.Time // zero: the line carries no stamp
	Program string    // one of the Prog constants
	Kind    Kind
	Stage   Kind // the milestone that the line is about: Kind itself, or for an error the one that was missed; may be empty

	MAC       string     // normal form, lower case with colons
	IP        netip.Addr // the client's
	Server    netip.Addr // of the DHCP server that answers, where the line says it
	Host      string     // what the client calls itself
	ClientID  string     // DHCP option 61
	UUID      string     // of the machine, as a boot loader's request names it; lower case
	Interface string     // or the address of the DHCP relay
	Sender    string     // the host that wrote the line, from the syslog header
	From      netip.Addr // who sent the line, if it came over the network

	File      string // as the client asked for it, without query
	Status    int    // of HTTP
	Bytes     int64
	UserAgent string
	Reason    string // why, in the server's words

	XID     string // of a DHCP transaction; of a TFTP server the process id
	Message Kind   // of an error of DHCP: the client's message that was answered with it, where the line says which

	Asked    bool // the server wrote down the request only: an error may follow
	Retracts bool // set by a Joiner: the fact with Asked for the same File and client was not granted
}

// Verdict is what became of one line. Each line has exactly one.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota // no format that is known here, or a known program's new words
	Known                  // a fact
	Ignored                // known, and not about booting
	Broken                 // a known format, but torn, too long, or with fields that make no sense
)

func (v Verdict) String() string {
	return [...]string{"unknown", "known", "ignored", "broken"}[v&3]
}

// Counts are the verdicts of a run of lines.
type Counts struct {
	Lines   int64 `json:"lines"`
	Known   int64 `json:"known"`
	Ignored int64 `json:"ignored"`
	Unknown int64 `json:"unknown"`
	Broken  int64 `json:"broken"`
}

// Add counts one line.
func (c *Counts) Add(v Verdict) {
	c.Lines++
	switch v {
	case Known:
		c.Known++
	case Ignored:
		c.Ignored++
	case Broken:
		c.Broken++
	default:
		c.Unknown++
	}
}

// Plus is the sum of two counts.
func (c Counts) Plus(d Counts) Counts {
	return Counts{c.Lines + d.Lines, c.Known + d.Known, c.Ignored + d.Ignored, c.Unknown + d.Unknown, c.Broken + d.Broken}
}
