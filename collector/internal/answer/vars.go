// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Variable is one that the shipped templates know.
type Variable struct {
	Name    string
	Default string // empty: the template leaves out what it is for
	Secret  bool   // never shown, wherever it comes from
	Text    string // what it is

	check func(string) error
}

// Variables lists them, by name. A site's own templates may have others, which are any text of one line.
func Variables() []Variable { return slices.Clone(variables) }

var variables = []Variable{
	{"agent-sha256", "", false, "digest of the agent, where it is not in the initrd and has to be fetched", match(`^[0-9a-f]{64}$`, "64 hex digits")},
	{"disk", "", false, "the disk to install on, like /dev/sda; where it is not set kickstart takes all disks, and other installers the first one or their choice", match(`^/dev/[A-Za-z0-9][A-Za-z0-9/._:+-]*$`, "a path like /dev/sda")},
	{"esxi-disk", "", false, "the disk to install ESXi on, as ESXi names it; the first one where it is not set", match(`^[!-~]+$`, "a name like mpx.vmhba0:C0:T0:L0")},
	{"firewall", "on", false, "on or off", checkBool},
	{"join-key", "", true, "the site's join key, for boot: external", match(`^[A-Za-z0-9_-]{1,128}$`, "a join key as provostd prints it")},
	{"kernel-args", "", false, "arguments of the installed kernel", checkKernelArgs},
	{"keyboard", "us", false, "keyboard layout as X11 names it", match(`^[a-z]{2,8}(\([a-z0-9_-]+\))?$`, "a layout like us or de(nodeadkeys)")},
	{"keymap", "english-us", false, "keyboard layout as YaST names it", match(`^[a-z][a-z0-9_-]*$`, "a layout like english-us or german")},
	{"language", "en_US.UTF-8", false, "locale", match(`^(C|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]+)?(@[a-z]+)?$`, "a locale like en_US.UTF-8")},
	{"modules", "Basesystem", false, "modules of the SLES 15 medium to install from, a list, as its folders Module-NAME are called; empty where a template of one's own registers the system", list(match(`^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$`, "modules like Basesystem, Server-Applications"))},
	{"ntp", "", false, "time servers, a list; debian-installer takes the first one (clock-setup/ntp-server)", list(checkHost)},
	{"packages", "", false, "further packages, a list; kickstart also takes @GROUP and -PACKAGE", list(match(`^-?(@\^?)?[A-Za-z0-9][A-Za-z0-9._+:*-]*$`, "names of packages"))},
	{"proxy", "", false, "URL of the proxy through which packages are fetched; kickstart has a place for it beside source only", checkURL("http", "https")},
	{"product", "SLES", false, "product of SUSE to install, as AutoYaST names it", match(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`, "a product like SLES or SLES_SAP")},
	{"rootpw-hash", "", true, "password of root as crypt(5) gives it; where it is not set root has none and cannot log in by one", match(`^\$[0-9a-z]{1,8}\$[A-Za-z0-9./$=,+-]{1,300}$`, "a hash like $6$…, from openssl passwd -6")},
	{"selinux", "enforcing", false, "enforcing, permissive or disabled", match(`^(enforcing|permissive|disabled)$`, "enforcing, permissive or disabled")},
	{"source", "", false, "URL of the packages; the installer's own choice where it is not set. Each installer knows some schemes", checkURL("http", "https", "ftp", "nfs")},
	{"ssh-key", "", false, "public key that may log in as root", match(`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9-]+@openssh\.com) [A-Za-z0-9+/=]+( [ -~]*)?$`, "one line of an SSH public key's file")},
	{"timezone", "UTC", false, "time zone", match(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$`, "a zone like Europe/Berlin")},
	{"windows-setup", "", false, "the command that installs Windows, from Windows PE; none where it is not set", match(`^[ -~]+$`, `a command like \\10.0.0.1\win\setup.exe`)},
}

// hookVars are asked for by the hooks, not by templates.
var hookVars = []string{"agent-sha256", "join-key"}

func variable(name string) (Variable, bool) {
	i := slices.IndexFunc(variables, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		return Variable{}, false
	}
	return variables[i], true
}

// FilePrefix begins a variable's value that stands in a file. Such a value is a secret.
const FilePrefix = "file:"

// IsSecret reports whether a variable's value must not be shown: it stands in a file, or is a password or key.
func IsSecret(name, value string) bool {
	v, _ := variable(name)
	return v.Secret || strings.HasPrefix(value, FilePrefix)
}

// CheckVar says what is wrong with a variable of a profile or of the site. A value from a file is not looked at. The
// error names the variable, and its value unless that is a secret.
func CheckVar(name, value string) error {
	if strings.HasPrefix(value, FilePrefix) {
		if !strings.HasPrefix(value, FilePrefix+"/") {
			return fmt.Errorf("var %s = %q: name the file by its whole path, like file:/etc/provost/secrets/rootpw", name, value)
		}
		return nil
	}
	v, known := variable(name)
	return checkValue(v, known, name, value, v.Secret)
}

func checkValue(v Variable, known bool, name, value string, secret bool) error {
	err := checkPlain(value)
	if err == nil && known && value != "" {
		err = v.check(value)
	}
	switch {
	case err == nil:
		return nil
	case secret:
		return fmt.Errorf("var %s: its value, which is not shown, cannot be used: %w", name, err)
	}
	return fmt.Errorf("var %s = %q: %w", name, value, err)
}

func match(pattern, wanted string) func(string) error {
	re := regexp.MustCompile(pattern)
	return func(s string) error {
		if !re.MatchString(s) {
			return errors.New("use " + wanted)
		}
		return nil
	}
}

func checkBool(s string) error {
	if s != "on" && s != "off" {
		return errors.New("use on or off")
	}
	return nil
}

var hostRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$`)

func checkHost(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && !hostRE.MatchString(s) {
		return fmt.Errorf("%q: use addresses or names", s)
	}
	return nil
}

func checkURL(schemes ...string) func(string) error {
	re := regexp.MustCompile(`^[A-Za-z0-9:/?#\[\]@!$&()*+,;=._~%-]+$`)
	return func(s string) error {
		u, err := url.Parse(s)
		if err != nil || !re.MatchString(s) || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
			return fmt.Errorf("use a URL of %s", strings.Join(schemes, ", "))
		}
		return nil
	}
}

var kernelArgsRE = regexp.MustCompile(`^[A-Za-z0-9 _.,:;/=@%+~^*()\[\]-]*$`)

func checkKernelArgs(s string) error {
	if !kernelArgsRE.MatchString(s) {
		return errors.New("use arguments without quotes, $ and backslashes")
	}
	return nil
}

func list(check func(string) error) func(string) error {
	return func(s string) error {
		for _, one := range splitList(s) {
			if err := check(one); err != nil {
				return err
			}
		}
		return nil
	}
}

// splitList splits a list at commas and blanks.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// mask stands for a secret.
const mask = "********"

// vars are the variables of one node, each checked.
type vars map[string]string

// resolve gives a node's variables: its own over its groups' over the profile's over the site's over the defaults. Of
// several groups the one counts that the node names first.
func (r *Recipe) resolve(n Node, masked bool) (vars, error) {
	out, secret := vars{}, map[string]bool{}
	for _, v := range variables {
		out[v.Name] = v.Default
	}
	var errs []error
	layer := func(m map[string]string) {
		for k, value := range m {
			secret[k] = strings.HasPrefix(value, FilePrefix)
			if secret[k] {
				content, ok := r.Secrets[value]
				if !ok {
					errs = append(errs, fmt.Errorf("var %s: the content of %s was not kept", k, value))
				}
				value = content
			}
			out[k] = value
		}
	}
	layer(r.Site)
	layer(r.Vars)
	for _, g := range slices.Backward(n.Groups) {
		layer(r.Groups[g])
	}
	for k, value := range n.Attrs {
		if strings.HasPrefix(value, FilePrefix) {
			errs = append(errs, fmt.Errorf("attribute %s = %q: a node's attribute names no file; profiles and vars.yaml do", k, value))
		}
		secret[k], out[k] = false, value
	}
	for _, k := range slices.Sorted(maps.Keys(out)) {
		v, known := variable(k)
		hide := secret[k] || v.Secret
		errs = append(errs, checkValue(v, known, k, out[k], hide))
		if hide && masked && out[k] != "" {
			out[k] = mask
		}
	}
	return out, errors.Join(errs...)
}
