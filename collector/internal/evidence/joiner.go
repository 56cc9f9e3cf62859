// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"net/netip"
	"strings"
	"time"
)

// Joiner puts together what programs spread over several lines: tftpd-hpa and atftpd name the file in one line and the
// error in another, dnsmasq writes "sent" after a transfer that the client gave up, and with log-dhcp it tells a client's
// options apart from its messages. It holds a bounded number of open transactions and is not safe for several goroutines.
type Joiner struct {
	asked   *bounded[process, Fact]       // tftpd-hpa: a process serves one request
	open    []Fact                        // atftpd: one process, many threads; the latest last
	gaveUp  *bounded[netip.Addr, Fact]    // dnsmasq: errors that clients sent, until the line with the file
	options *bounded[string, Transaction] // by transaction number
}

type process struct{ sender, pid string }

// Transaction is what a DHCP client and server told each other beside the address.
type Transaction struct {
	VendorClass string // "PXEClient:Arch:00007:UNDI:003016"
	UserClass   string // "iPXE"
	BootFile    string
	NextServer  string
	Host        string // the name that the client gives itself
}

// The bounds of a Joiner: far above what is open at any moment in a cluster of thousands of nodes.
const (
	maxOpen         = 256
	maxTransactions = 8192
)

// abortWindow is how soon after the client's error dnsmasq writes its line about the file.
const abortWindow = 2 * time.Second

// NewJoiner makes a Joiner that has seen nothing.
func NewJoiner() *Joiner {
	return &Joiner{asked: newBounded[process, Fact](maxTransactions), gaveUp: newBounded[netip.Addr, Fact](maxTransactions),
		options: newBounded[string, Transaction](maxTransactions)}
}

// Add takes one fact in the order of its log and gives it back completed. ok is false for one that says nothing by
// itself.
func (j *Joiner) Add(f Fact) (out Fact, ok bool) {
	switch f.Program {
	case ProgTFTPDHPA:
		return j.hpa(f)
	case ProgATFTPD:
		return j.atftpd(f)
	case ProgDnsmasqTFT:
		return j.dnsmasqTFTP(f)
	case ProgDnsmasq:
		if f.Kind == Detail {
			j.option(f)
			return f, false
		}
	}
	return f, f.Kind != Detail && f.Kind != TransferEnd
}

func (f *Fact) complete(request Fact) {
	f.IP, f.File, f.Stage = request.IP, request.File, request.Stage
	if f.MAC == "" {
		f.MAC = request.MAC
	}
	f.Retracts = request.Kind.Stage()
}

func (j *Joiner) hpa(f Fact) (Fact, bool) {
	key := process{f.Sender, f.XID}
	if f.Asked {
		j.asked.put(key, f)
		return f, f.Kind != Detail
	}
	request, ok := j.asked.get(key)
	if ok && (!f.IP.IsValid() || f.IP == request.IP) {
		f.complete(request)
	}
	return f, f.File != "" || f.IP.IsValid()
}

func (j *Joiner) atftpd(f Fact) (Fact, bool) {
	if f.Asked {
		if len(j.open) == maxOpen {
			j.open = append(j.open[:0], j.open[1:]...)
		}
		j.open = append(j.open, f)
		return f, f.Kind != Detail
	}
	for i := len(j.open) - 1; i >= 0; i-- {
		request := j.open[i]
		if request.Sender != f.Sender || f.File != "" && !strings.HasSuffix(f.File, strings.TrimPrefix(request.File, "/")) {
			continue
		}
		j.open = append(j.open[:i], j.open[i+1:]...)
		if f.Kind == TransferEnd {
			return f, false
		}
		f.complete(request)
		return f, true
	}
	return f, f.File != ""
}

func (j *Joiner) dnsmasqTFTP(f Fact) (Fact, bool) {
	if f.Kind == Aborted && f.File == "" {
		j.gaveUp.put(f.IP, f)
		return f, false
	}
	if f.Kind.Stage() {
		if e, ok := j.gaveUp.get(f.IP); ok && e.Kind != "" {
			if gap := f.Time.Sub(e.Time); gap >= 0 && gap <= abortWindow {
				j.gaveUp.put(f.IP, Fact{})
				f.Kind, f.Reason = Aborted, e.Reason
			}
		}
	}
	return f, f.Kind != Detail
}

func (j *Joiner) option(f Fact) {
	t, _ := j.options.get(f.XID)
	switch f.Reason {
	case "vendor class":
		t.VendorClass = f.File
	case "user class":
		t.UserClass = f.File
	case "bootfile name", "bootfile-name":
		t.BootFile = f.File
	case "next server", "tftp-server":
		t.NextServer = f.File
	case "client provides name":
		t.Host = f.File
	}
	j.options.put(f.XID, t)
}

// Transaction gives what is known so far of the DHCP transaction of f.
func (j *Joiner) Transaction(f Fact) (Transaction, bool) {
	if f.XID == "" || f.Program != ProgDnsmasq {
		return Transaction{}, false
	}
	return j.options.get(f.XID)
}
