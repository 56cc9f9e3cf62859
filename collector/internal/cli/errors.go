// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

// The exit statuses. Those from 64 on are those of sysexits.h.
const (
	exitFailed      = 1  // a selected node failed or stalled; an order was refused; it is there already, or no more
	exitUnfinished  = 2  // not finished within --timeout
	exitUsageError  = 64 // EX_USAGE
	exitUnavailable = 69 // EX_UNAVAILABLE: no answer from the collector, or it is in trouble
	exitNotAllowed  = 77 // EX_NOPERM
	exitConfig      = 78 // EX_CONFIG
	exitInterrupted = 130
)

// usageError is a command line that makes no sense.
type usageError struct {
	text string
	hint string
	cmd  *cobra.Command // whose --help helps
}

func (e *usageError) Error() string { return e.text }

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), cmd: cmd}
}

// asUsage makes what cobra says about a command line a usage error.
func asUsage(err error, cmd *cobra.Command) error {
	var u *usageError
	if errors.As(err, &u) {
		return err
	}
	e := &usageError{text: err.Error(), cmd: cmd}
	if unknown := new(pflag.NotExistError); errors.As(err, &unknown) {
		e.hint = likeFlag(cmd, unknown.GetSpecifiedName())
	}
	return e
}

// likeFlag names the flags of a command that begin as one that it has not, or that this begins with; nothing if there are none.
func likeFlag(cmd *cobra.Command, name string) string {
	var like []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if len(name) > 1 && !f.Hidden && (strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name)) {
			like = append(like, "--"+f.Name)
		}
	})
	if len(like) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(like, " or ") + "?"
}

// hintError is an error with what to do next.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// exitError is an end that is no error of this program: all that there is to say was said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// report says what went wrong, on stderr, and gives the exit status.
func (s *session) report(err error) int {
	code, hint := judge(err)
	var e *exitError
	if err == nil || errors.As(err, &e) || code == exitInterrupted {
		return code
	}
	s.say("provost: error: ", err.Error())
	if hint != "" {
		s.say("hint: ", hint)
	}
	return code
}

// say writes a text after a prefix to stderr: folded on a terminal, in one line for programs. A text of several lines
// keeps them. Of two that speak at once each finishes.
func (s *session) say(prefix, text string) {
	s.saying.Lock()
	defer s.saying.Unlock()
	sc := s.screen(s.Stderr)
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		lines := []string{clean(l)}
		if sc.terminal {
			lines = wrap(lines[0], sc.width-len(prefix))
		}
		for _, l := range lines {
			fmt.Fprintf(s.Stderr, "%s%s\n", prefix, l)
			prefix = strings.Repeat(" ", min(len(prefix), 6))
		}
	}
}

// judge is the one place that turns an error into an exit status and a hint.
func judge(err error) (code int, hint string) {
	var (
		exit        *exitError
		use         *usageError
		conf        *client.ConfigError
		unreachable *client.UnreachableError
		schema      *client.SchemaError
		problem     *proto.Problem
		hinted      *hintError
	)
	switch {
	case err == nil:
		return 0, ""
	case errors.As(err, &exit):
		return exit.code, ""
	case errors.As(err, &use):
		hint = use.hint
		if hint == "" && use.cmd != nil {
			hint = "`" + use.cmd.CommandPath() + " --help` shows how"
		}
		return exitUsageError, hint
	case errors.As(err, &conf):
		return exitConfig, conf.Hint
	case errors.Is(err, context.Canceled):
		return exitInterrupted, ""
	case errors.As(err, &unreachable):
		return judgeUnreachable(unreachable)
	case errors.As(err, &schema):
		return exitConfig, "upgrade provost to the collector's version"
	case errors.As(err, &problem):
		return judgeProblem(problem)
	case errors.As(err, &hinted):
		return exitFailed, hinted.hint
	}
	return exitFailed, ""
}

func judgeUnreachable(e *client.UnreachableError) (code int, hint string) {
	var (
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		verify   *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(e, fs.ErrPermission):
		return exitNotAllowed, "the socket is for root and the group provost: `sudo usermod -aG provost $USER`, then log in again"
	case errors.Is(e, client.ErrPin), errors.As(e, &unknown), errors.As(e, &invalid), errors.As(e, &hostname), errors.As(e, &verify):
		return exitConfig, "compare --ca or PROVOST_CA with what provostd prints when it starts, or with ca/ca.pem in its data directory"
	}
	if e.Order {
		return exitUnavailable, "`provost history NODE` shows whether it was: given once more by hand it is another order"
	}
	return exitUnavailable, "start it with `systemctl start provostd`, or `provostd serve --data DIR`, which prints its address; " +
		"--server or PROVOST_SERVER names another collector; `provost probe --logs FILE` needs none"
}

func judgeProblem(p *proto.Problem) (code int, hint string) {
	hint = p.Hint
	switch {
	case p.Status == 401 || p.Status == 403:
		if hint == "" {
			hint = "--token-file or PROVOST_TOKEN_FILE names your token; its role must allow this"
		}
		return exitNotAllowed, hint
	case p.Code == proto.CodeInternal && hint == "":
		return exitUnavailable, "the incident's number is in the collector's log: `journalctl -u provostd`"
	case p.Status >= 500 || p.Status == 429:
		return exitUnavailable, hint
	case p.Code == proto.CodeUnknownNode && hint == "":
		return exitUsageError, "`provost node list` shows the nodes that there are"
	case p.Code == proto.CodeUnknownProfile && hint == "":
		return exitUsageError, "`provost profile list` shows the profiles that there are"
	case p.Code == proto.CodeBadProfile:
		return exitConfig, hint
	case p.Code == proto.CodeConflict, p.Code == proto.CodeNotOrdered, p.Code == proto.CodeExists, p.Code == proto.CodeGone, p.Code == proto.CodeLogQuota:
		return exitFailed, hint
	}
	return exitUsageError, hint
}
