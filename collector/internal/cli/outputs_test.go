// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// The YAML is the JSON, whatever the nodes said, and both are what the collector said.
func TestSameDocument(t *testing.T) {
	for _, world := range []string{"small", "many", "empty", "hostile"} {
		for _, cmd := range []string{"status", "explain n2", "timeline n2", "profile list"} {
			f := start(t, worlds[world]())
			if (world == "many" || world == "empty") && strings.HasSuffix(cmd, "n2") {
				continue
			}
			run := func(format string) []byte {
				var out, errs strings.Builder
				program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), append(strings.Fields(cmd), "-o", format))
				if errs.Len() > 0 || !strings.HasSuffix(out.String(), "\n") {
					t.Errorf("%s: %s -o %s: %s", world, cmd, format, errs.String())
				}
				return []byte(out.String())
			}
			var fromJSON, fromYAML any
			if err := json.Unmarshal(run("json"), &fromJSON); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal(run("yaml"), &fromYAML); err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(fromYAML)
			if err != nil {
				t.Fatal(err)
			}
			var again any
			if err := json.Unmarshal(b, &again); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(fromJSON, again); d != "" {
				t.Errorf("%s: %s (-json +yaml):\n%s", world, cmd, d)
			}
			if cmd != "status" {
				continue
			}
			b, err = json.Marshal(f.list)
			if err != nil {
				t.Fatal(err)
			}
			var said map[string]any
			if err := json.Unmarshal(b, &said); err != nil {
				t.Fatal(err)
			}
			said["schema"] = 1.0
			if d := cmp.Diff(any(said), fromJSON); d != "" {
				t.Errorf("%s: status (-collector +json):\n%s", world, d)
			}
		}
	}
}
