// SPDX-License-Identifier: Apache-2.0

package answer_test

import (
	"path/filepath"
	"testing"

	"provost/collector/internal/answer"
)

// TestPackagingSnippets: what a site with boot: external copies into its own files is what the hooks are.
func TestPackagingSnippets(t *testing.T) {
	const edit = "Put in the collector's address (twice), its CA pin and a join key: provostd serve prints them.\n"
	for _, c := range []struct{ path, template, file, text string }{
		{"kickstart/provost.ks", "kickstart-x.tmpl", "ks.cfg", "# SPDX-License-Identifier: Apache-2.0\n#\n# For the end of a kickstart file. " + edit +
			"\n{{ provost.pre }}\n\n{{ provost.onerror }}\n\n# Nothing may come after it: when it is done the node may boot from its disk.\n{{ provost.post }}\n"},
		{"autoyast/provost.xml", "autoyast-x.tmpl", "autoinst.xml", "<!-- SPDX-License-Identifier: Apache-2.0\n\n     For an AutoYaST profile, whose name space config is. " + edit + "-->\n" +
			"  <scripts xmlns:config=\"http://www.suse.com/1.0/configns\">\n    <pre-scripts config:type=\"list\">\n{{ provost.pre }}\n    </pre-scripts>\n" +
			"    <!-- The last of the chroot-scripts. -->\n    <chroot-scripts config:type=\"list\">\n{{ provost.chroot }}\n    </chroot-scripts>\n" +
			"  </scripts>\n"},
		{"preseed/provost.cfg", "preseed-x.tmpl", "preseed.cfg", "# SPDX-License-Identifier: Apache-2.0\n#\n# For a preseed file. " + edit + "# Commands of your own go in front of these, in the same value. Where the agent has to be fetched there are 5 tries\n# of at most 2 minutes, 5 s apart: this installer's wget has no timeout.\n" +
			"d-i preseed/early_command string {{ provost.early }}\n\n# The disks have drivers now: one that has this install, done already, is booted.\n" +
			"d-i partman/early_command string {{ provost.disks }}\n\nd-i preseed/late_command string {{ provost.late }}\n"},
		{"autoinstall/provost.yaml", "autoinstall-x.tmpl", "user-data", "#cloud-config\n# SPDX-License-Identifier: Apache-2.0\n#\n# For the user-data of an autoinstall. " + edit + "autoinstall:\n  version: 1\n" +
			"  early-commands:\n{{ provost.early }}\n  # The last of the late-commands.\n  late-commands:\n{{ provost.late }}\n  error-commands:\n{{ provost.error }}\n" +
			"{{ define \"meta-data\" }}{}{{ end }}"},
	} {
		r := &answer.Recipe{Name: c.template, Text: c.text, External: true, Vars: map[string]string{"join-key": "pvj_PUT-THE-JOIN-KEY-HERE"}}
		d := data()
		d.Pin = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
		files, err := r.Render(d)
		if err != nil {
			t.Fatal(err)
		}
		checkStructure(t, c.file, files[c.file])
		golden(t, filepath.Join("../../../packaging", c.path), files[c.file])
	}
}
