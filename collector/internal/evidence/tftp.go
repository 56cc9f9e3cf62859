// SPDX-License-Identifier: Apache-2.0

package evidence

import "strings"

// transfer fills in a file that a TFTP server was asked for or sent.
func (f *Fact) transfer(program, file string) {
	f.Program, f.File = program, file
	f.Stage = StageOf(file, true)
	f.Kind = f.Stage
	if f.MAC == "" {
		f.MAC = macIn(file)
	}
	if f.Stage == BootScript {
		f.UUID = uuidOf(file, "")
		if !f.IP.IsValid() {
			f.IP = addressOf(file)
		}
	}
}

// tftpError names the error of RFC 1350, section 5, from its number and the words that servers write.
func tftpError(code, words string) Kind {
	w := strings.ToLower(words)
	switch {
	case code == "1" || strings.Contains(w, "not found"):
		return NotFound
	case code == "2" || strings.Contains(w, "permission denied") || strings.Contains(w, "access violation"):
		return Forbidden
	case code == "8" || strings.Contains(w, "abort"):
		return Aborted
	}
	return Refused
}

// verdict is that on a file that went out: one that has nothing to do with booting is no fact.
func (f *Fact) verdict() Verdict {
	if f.Kind == "" {
		return Ignored
	}
	return Known
}

// dnsmasqTFTP reads dnsmasq's TFTP server (src/tftp.c).
func dnsmasqTFTP(s string, f *Fact) Verdict {
	var ok bool
	switch {
	case strings.HasPrefix(s, "sent "), strings.HasPrefix(s, "failed sending "):
		to := strings.LastIndex(s, " to ")
		if to < 0 {
			return Broken
		}
		if f.IP, ok = addr(strings.TrimSpace(s[to+4:])); !ok {
			return Broken
		}
		if file, sent := strings.CutPrefix(s[:to], "sent "); sent {
			f.transfer(ProgDnsmasqTFT, file)
			return f.verdict()
		}
		f.transfer(ProgDnsmasqTFT, strings.TrimPrefix(s[:to], "failed sending "))
		f.Kind, f.Reason = Aborted, "the client stopped answering"
		return Known
	case strings.HasPrefix(s, "file "):
		end := strings.LastIndex(s, " not found")
		if end < len("file ") {
			return Broken
		}
		f.transfer(ProgDnsmasqTFT, s[len("file "):end])
		f.Kind, f.Reason = NotFound, "not found"
		if from, has := strings.CutPrefix(s[end+len(" not found"):], " for "); has {
			if f.IP, ok = addr(strings.TrimSpace(from)); !ok {
				return Broken
			}
		}
		return Known
	case strings.HasPrefix(s, "cannot access "), strings.HasPrefix(s, "cannot read "):
		colon := strings.LastIndex(s, ": ")
		if colon < 0 {
			return Broken
		}
		path := strings.TrimPrefix(strings.TrimPrefix(s[:colon], "cannot access "), "cannot read ")
		f.transfer(ProgDnsmasqTFT, path)
		f.Reason = s[colon+2:]
		f.Kind = tftpError("", f.Reason)
		return Known
	case strings.HasPrefix(s, "error "):
		from := strings.LastIndex(s, " received from ")
		code, words, has := strings.Cut(s[len("error "):max(from, len("error "))], " ")
		if from < 0 || !has || !allDigits(code) {
			return Broken
		}
		if f.IP, ok = addr(strings.TrimSpace(s[from+len(" received from "):])); !ok {
			return Broken
		}
		f.Program, f.Kind, f.Reason = ProgDnsmasqTFT, Aborted, words
		return Known
	case strings.HasPrefix(s, "TFTP "), strings.HasPrefix(s, "requested "), strings.HasPrefix(s, "unable to "), strings.HasPrefix(s, "unsupported request"):
		return Ignored
	}
	return Unknown
}

// tftpdHPA reads tftpd-hpa (tftpd/tftpd.c): requests with -v, the errors that it sent with -vv, and from some builds the end
// of a transfer, see hpaClient.
func tftpdHPA(s string, f *Fact) Verdict {
	var ok bool
	switch {
	case strings.HasPrefix(s, "RRQ from "):
		tok, rest := cut(s[len("RRQ from "):])
		if f.IP, ok = addr(tok); !ok {
			return Broken
		}
		file, ok := strings.CutPrefix(rest, "filename ")
		if !ok || file == "" {
			return Broken
		}
		asked, real, remapped := strings.Cut(file, " remapped to ")
		f.transfer(ProgTFTPDHPA, asked)
		if remapped && f.Kind == "" {
			f.Kind = StageOf(real, true)
			f.Stage = f.Kind
		}
		if f.Asked = true; f.Kind == "" { // a Joiner must know it: an error may follow
			f.Kind, f.Reason = Detail, "request"
		}
		return Known
	case strings.HasPrefix(s, "sending NAK ("):
		end := strings.LastIndex(s, ") to ")
		if end < len("sending NAK (") {
			return Broken
		}
		if f.IP, ok = addr(strings.TrimSpace(s[end+len(") to "):])); !ok {
			return Broken
		}
		code, words, has := strings.Cut(s[len("sending NAK ("):end], ", ")
		if !has || !allDigits(code) {
			return Broken
		}
		f.Program, f.Kind, f.Reason = ProgTFTPDHPA, tftpError(code, words), words
		return Known
	case hpaClient(s):
		return f.hpaClient(s)
	case s == "tftp: client does not accept options", strings.HasPrefix(s, "tftpd: read"), strings.HasPrefix(s, "tftpd: write"):
		f.Program, f.Kind, f.Reason = ProgTFTPDHPA, Aborted, s[strings.Index(s, ": ")+2:]
		return Known
	case strings.HasPrefix(s, "WRQ from "), strings.HasPrefix(s, "remap"), strings.HasPrefix(s, "connect from "), strings.HasPrefix(s, "Timeout"), strings.HasPrefix(s, "tftpd: "),
		strings.HasPrefix(s, "cannot "), strings.HasPrefix(s, "Terminating"), strings.HasPrefix(s, "received signal"):
		return Ignored
	}
	return Unknown
}

// hpaClient reports whether a line is one that the tftp-server of Red Hat and its like writes without any -v
// (tftp-enhanced-logging.patch), or tftp-hpa itself after release 5.2:
//
//	Client ::ffff:10.0.0.5 finished pxelinux.0
//	Client 10.0.0.5 File not found pxelinux.cfg/default
//	client 10.0.0.5: finished pxelinux.0
//	client 10.0.0.5: file not found: pxelinux.cfg/default
func hpaClient(s string) bool {
	if !strings.HasPrefix(s, "Client ") && !strings.HasPrefix(s, "client ") {
		return false
	}
	_, rest := cut(s[len("client "):])
	_, _, ok := hpaEnd(rest)
	return ok
}

// hpaEnd reads what follows the client in such a line.
func hpaEnd(s string) (file string, found, ok bool) {
	for _, e := range [...]struct {
		text  string
		found bool
	}{{"finished ", true}, {"File not found ", false}, {"file not found: ", false}} {
		if file, ok = strings.CutPrefix(s, e.text); ok && file != "" {
			return file, e.found, true
		}
	}
	return "", false, false
}

func (f *Fact) hpaClient(s string) Verdict {
	tok, rest := cut(s[len("client "):])
	var ok bool
	if f.IP, ok = addr(tok); !ok {
		if f.IP, ok = addr(strings.TrimSuffix(tok, ":")); !ok {
			return Broken
		}
	}
	file, found, _ := hpaEnd(rest)
	f.transfer(ProgTFTPDHPA, file)
	if !found {
		f.Kind, f.Reason = NotFound, "File not found"
		return Known
	}
	return f.verdict()
}

// atftpd reads atftpd (tftpd_file.c, tftpd.c). Only the request names the client.
func atftpd(s string, f *Fact) Verdict {
	var ok bool
	f.Program = ProgATFTPD
	switch {
	case strings.HasPrefix(s, "Serving "):
		to := strings.LastIndex(s, " to ")
		if to < len("Serving") {
			return Broken
		}
		client := s[to+len(" to "):]
		port := strings.LastIndexByte(client, ':')
		if port < 0 {
			return Broken
		}
		if f.IP, ok = addr(strings.Trim(client[:port], "[]")); !ok {
			return Broken
		}
		f.transfer(ProgATFTPD, strings.TrimPrefix(s[:to], "Serving "))
		if f.Asked = true; f.Kind == "" {
			f.Kind, f.Reason = Detail, "request"
		}
		return Known
	case strings.HasPrefix(s, "File "):
		if file, is := strings.CutSuffix(s[len("File "):], " not found"); is {
			f.transfer(ProgATFTPD, file)
			f.Kind, f.Reason = NotFound, "not found or not readable"
			return Known
		}
	case s == "Aborting transfer":
		f.Kind, f.Reason = Aborted, "aborted"
		return Known
	case s == "End of transfer":
		f.Kind = TransferEnd
		return Known
	}
	for _, p := range [...]string{"Advanced Trivial FTP", "  ", "socket may listen", "Creating new socket", "tsize option", "timeout option", "blksize option", "windowsize option", "multicast option",
		"Server thread", "Fetching from", "recvmsg:", "timeout", "tftpd", "SIGTERM", "atftpd terminating", "Main thread", "source port mismatch", "received ERROR", "running in daemon", "bound to",
		"logging level", "directory:", "user:", "log file:", "not forcing", "server timeout", "tftp retry", "maximum number", "option ", "address range", "port range", "Load measurements", "User:", "Total:",
		"Time between", "Min:", "Thread stats", "simultaneous", "number of", "using "} {
		if strings.HasPrefix(s, p) {
			return Ignored
		}
	}
	return Unknown
}
