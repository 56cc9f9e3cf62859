// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"provost/collector/internal/registry"
	"provost/proto"
)

// settings are what provostd is told: flags over PROVOSTD_* over the file over defaults.
type settings struct {
	Listen     string   `mapstructure:"listen"`      // TLS: agents and operators
	BootListen string   `mapstructure:"boot-listen"` // plain HTTP: boot scripts and images; or bootListenOff
	Socket     string   `mapstructure:"socket"`      // empty: /run/provostd/provostd.sock, or in a data directory of one's own
	Advertise  []string `mapstructure:"advertise"`   // addresses for agents, in order; empty: the one that a node reached
	Overlay    string   `mapstructure:"overlay"`     // the agent's initrd; empty: overlay.img in the data directory
	// CheckAddress: a node whose address is known must say hello from there. Off behind NAT and proxies.
	CheckAddress bool   `mapstructure:"check-address"`
	Unknown      string `mapstructure:"unknown-nodes"` // ignore, discover, or a profile
	Dirs         struct {
		Data   string `mapstructure:"data"`
		Config string `mapstructure:"config"`
		Images string `mapstructure:"images"`
	} `mapstructure:"dirs"`
	Retention retention        `mapstructure:"retention"`
	Evidence  evidenceSettings `mapstructure:"evidence"`
}

const (
	envPrefix      = "PROVOSTD"
	defaultConfig  = "/etc/provost/provostd.yaml"
	defaultData    = "/var/lib/provostd"
	packagedSocket = "/run/provostd/provostd.sock"
)

// defaults names every key: one that is not here does not exist.
var defaults = map[string]any{
	"listen": ":8440", "boot-listen": ":8480", "socket": "", "advertise": []string{}, "overlay": "", "unknown-nodes": registry.UnknownIgnore, "check-address": true,
	"dirs::data": defaultData, "dirs::config": "/etc/provost", "dirs::images": "/srv/provost",
	"retention::feed": "168h", "retention::installs": 10, "retention::log-quota": "20GiB",
	"evidence::files": []logFile{}, "evidence::journald": false, "evidence::syslog::udp": "", "evidence::syslog::tcp": "", "evidence::syslog::from": []string{}, "evidence::dhcp-servers": []string{},
	"evidence::tftp-roots": []string{"/srv/tftp", "/var/lib/tftpboot", "/tftpboot", "/srv/tftpboot"},
	"evidence::web-roots":  []string{"/var/www/html", "/srv/www/htdocs", "/usr/share/nginx/html", "/var/www", "/install"},
}

// flagKeys are the settings that have a flag.
var flagKeys = map[string]string{"listen": "listen", "boot-listen": "boot-listen", "socket": "socket", "data": "dirs::data", "overlay": "overlay"}

func settingsFlags(f *pflag.FlagSet) {
	f.String("config", "", "settings file (default "+defaultConfig+", if it is there)")
	f.String("data", defaultData, "directory of the database, the logs and the keys")
	f.String("socket", "", "unix socket (default "+packagedSocket+", or DATA/provostd.sock with another --data)")
}

func envName(key string) string {
	return envPrefix + "_" + strings.ToUpper(strings.NewReplacer("::", "_", "-", "_").Replace(key))
}

// readSettings puts them together. Every error is the operator's to mend.
func readSettings(flags *pflag.FlagSet, environ []string) (*settings, error) {
	v := viper.NewWithOptions(viper.KeyDelimiter("::"))
	known := []string{envName("config")}
	for key, value := range defaults {
		v.SetDefault(key, value)
		if key == "evidence::files" {
			continue // a list of pairs is for the file
		}
		known = append(known, envName(key))
		if err := v.BindEnv(key, envName(key)); err != nil {
			return nil, fmt.Errorf("reading settings: %w", err)
		}
	}
	for flag, key := range flagKeys {
		if f := flags.Lookup(flag); f != nil && f.Changed {
			v.Set(key, f.Value.String())
		}
	}
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, envPrefix+"_") && !slices.Contains(known, name) {
			slices.Sort(known)
			return nil, fmt.Errorf("environment variable %s is no setting: use one of %s", name, strings.Join(known, " "))
		}
	}
	if err := readFile(v, flags); err != nil {
		return nil, err
	}
	var s settings
	if err := v.UnmarshalExact(&s, viper.DecodeHook(mapstructure.StringToSliceHookFunc(","))); err != nil {
		return nil, fmt.Errorf("reading settings: %w", err)
	}
	return &s, s.complete()
}

// readFile reads the file that was named, which must be there, or the default one.
func readFile(v *viper.Viper, flags *pflag.FlagSet) error {
	path, named := os.Getenv(envName("config")), true
	if f := flags.Lookup("config"); f != nil && f.Changed {
		path = f.Value.String()
	} else if path == "" {
		path, named = defaultConfig, false
	}
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	err := v.ReadInConfig()
	if !named && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading settings from %s: %w", path, err)
	}
	return nil
}

// bootListenOff is boot-listen where nothing is to be served over plain HTTP: other servers boot the nodes then.
const bootListenOff = "off"

// complete fills in what follows from other settings, and makes paths absolute.
func (s *settings) complete() error {
	if s.Dirs.Data == "" {
		return errors.New("dirs.data is empty: name a directory by --data")
	}
	if _, _, err := s.Retention.parse(); err != nil {
		return err
	}
	if s.Socket == "" {
		s.Socket = packagedSocket
		if s.Dirs.Data != defaultData {
			s.Socket = filepath.Join(s.Dirs.Data, "provostd.sock")
		}
	}
	if s.Overlay == "" {
		s.Overlay = filepath.Join(s.Dirs.Data, "overlay.img")
	}
	for _, p := range []*string{&s.Dirs.Data, &s.Dirs.Config, &s.Dirs.Images, &s.Socket, &s.Overlay} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("finding %s: %w", *p, err)
		}
		*p = abs
	}
	if len(s.Socket) > 107 { // sun_path of unix(7), with its final NUL
		return fmt.Errorf("socket %s: the path has %d bytes, at most 107 are possible: name a shorter one by --socket", s.Socket, len(s.Socket))
	}
	for key, addr := range map[string]string{"listen": s.Listen, "boot-listen": s.BootListen} {
		if key == "boot-listen" && addr == bootListenOff {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%s %q: use HOST:PORT or :PORT", key, addr)
		}
	}
	if err := s.Evidence.check(); err != nil {
		return err
	}
	if err := proto.CheckName("profile", s.Unknown); err != nil {
		return fmt.Errorf("unknown-nodes: use ignore, discover, or the name of a profile: %w", err)
	}
	for _, a := range s.Advertise {
		if a == "" || strings.ContainsAny(a, "/ \t,") {
			return fmt.Errorf("advertise %q: use an address or a name, with :PORT if it is another one", a)
		}
	}
	return nil
}

// agentURLs are the collector's URLs for agents, given the port that it listens on.
func (s *settings) agentURLs(port string) []string {
	var urls []string
	for _, a := range s.Advertise {
		host, p, err := net.SplitHostPort(a)
		if err != nil {
			host, p = strings.Trim(a, "[]"), port
		}
		urls = append(urls, "https://"+net.JoinHostPort(host, p))
	}
	return urls
}
