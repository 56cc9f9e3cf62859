// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"provost/collector/internal/answer"
	"provost/proto"
)

// maxRescueFile is as much as MaxRescueKeys of the longest usual kind take.
const maxRescueFile = 256 << 10

// Rescue gives the public keys that may come into the rescue shell of the profile's nodes, as rescue-keys or the file
// that it names has them at this moment; none if the key is left out.
func (p *Profile) Rescue() ([]string, error) {
	text := p.RescueKeys
	if strings.HasPrefix(text, answer.FilePrefix) {
		name, err := proto.SecretPath(text)
		if err != nil {
			return nil, fmt.Errorf("rescue-keys: %w", err)
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("rescue-keys: the collector cannot read it: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxRescueFile+1))
		if err != nil {
			return nil, fmt.Errorf("rescue-keys: the collector cannot read it: %w", err)
		}
		if len(b) > maxRescueFile {
			return nil, fmt.Errorf("rescue-keys: %s has more than %d bytes", name, maxRescueFile)
		}
		keys, err := rescueKeys(name, string(b))
		if err == nil && len(keys) == 0 {
			err = fmt.Errorf("rescue-keys: there is no key in %s", name)
		}
		return keys, err
	}
	return rescueKeys("rescue-keys", text)
}

// rescueKeys reads keys in the format of an authorized_keys file, without options. where is for messages.
func rescueKeys(where, text string) ([]string, error) {
	var keys []string
	var errs []error
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := proto.CheckPublicKey(line); err != nil {
			errs = append(errs, fmt.Errorf("%s, line %d: %w", where, n, err))
		}
		keys = append(keys, line)
	}
	if len(keys) > proto.MaxRescueKeys {
		errs = append(errs, fmt.Errorf("%s: %d keys: at most %d", where, len(keys), proto.MaxRescueKeys))
	}
	return keys, errors.Join(errs...)
}

// checkRescue looks at what stands in the profile itself. The file is read when an install is ordered: the one who checks
// may not be allowed to.
func (p *Profile) checkRescue(f *file) {
	if strings.HasPrefix(p.RescueKeys, answer.FilePrefix) {
		if _, err := proto.SecretPath(p.RescueKeys); err != nil {
			f.bad(f.line("rescue-keys"), "rescue-keys: %v", err)
		}
		return
	}
	_, err := rescueKeys("rescue-keys", p.RescueKeys)
	f.badErr(f.line("rescue-keys"), err)
}
