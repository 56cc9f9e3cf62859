// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/template"
)

// hookFiles are the scripts that installers run, one for each hook, and agent.sh, with which each can begin.
//
//go:embed hooks
var hookFiles embed.FS

// hookView is the dot of a hook's script.
type hookView struct {
	AgentURL, AgentSHA256 string // where the agent can be fetched if the initrd has it not; its digest, if that is known
	Settings              bool   // the kernel arguments do not say where the collector is: write it down for the agent
	URLs, Pin, JoinKey    string
}

// makeHooks gives the text of each of a format's hooks, without a line break at its end.
func makeHooks(f format, external bool, d Data, v vars) (map[string]string, error) {
	view := hookView{AgentURL: d.Images + "/provost-agent", AgentSHA256: v["agent-sha256"]}
	if external && v["join-key"] != "" {
		view.Settings, view.URLs, view.Pin, view.JoinKey = true, strings.Join(d.URLs, ","), d.Pin, v["join-key"]
		if view.URLs == "" || view.Pin == "" {
			return nil, errors.New("the collector's own address is not known: set advertise in provostd.yaml")
		}
	}
	hooks := map[string]string{}
	for _, name := range f.hooks {
		script, err := hookScript(f.name+"-"+name, view)
		if err != nil {
			return nil, err
		}
		hooks[name] = wrapHook(f, name, script)
	}
	return hooks, nil
}

var hookTemplates = sync.OnceValues(func() (*template.Template, error) {
	return template.New("").Option("missingkey=error").Funcs(template.FuncMap{"sh": quoteShell}).ParseFS(hookFiles, "hooks/*.sh")
})

func hookScript(name string, view hookView) (string, error) {
	t, err := hookTemplates()
	if err != nil {
		return "", fmt.Errorf("reading the hooks: %w", err)
	}
	var b strings.Builder
	if err := t.ExecuteTemplate(&b, name+".sh", view); err != nil {
		return "", fmt.Errorf("making the hook %s: %w", name, plainError(err))
	}
	return strings.TrimSpace(b.String()), nil
}

// wrapHook puts a script where its installer looks for it.
func wrapHook(f format, name, script string) string {
	switch f.name {
	case "kickstart":
		return kickstartSection[name] + "\n" + script + "\n%end"
	case "autoyast":
		return fmt.Sprintf(autoyastScript, name, autoyastKeys[name], cdata(script))
	case "preseed":
		// One value of many lines; the shell gets them joined.
		return strings.ReplaceAll(script, "\n", " \\\n\t")
	}
	return "    - |\n" + indent(script, "      ")
}

// kickstartSection begins each section. %post is outside of the target: there the agent chroots by itself, step by step.
var kickstartSection = map[string]string{
	"pre":     "%pre --erroronfail --interpreter=/bin/sh --log=/tmp/provost-pre.log",
	"post":    "%post --nochroot --erroronfail --interpreter=/bin/sh --log=/tmp/provost-post.log",
	"onerror": "%onerror --interpreter=/bin/sh --log=/tmp/provost-onerror.log",
}

// autoyastScript has debug off, which is sh -x and writes what should not be in a log.
const autoyastScript = `      <script>
        <filename>provost-%s.sh</filename>
        <debug config:type="boolean">false</debug>
%s        <source><![CDATA[
%s
]]></source>
      </script>`

// autoyastKeys are the further elements of each kind of script (scripts.rnc of AutoYaST).
var autoyastKeys = map[string]string{
	"pre":    autoyastShell,
	"chroot": autoyastShell + "        <chrooted config:type=\"boolean\">true</chrooted>\n",
}

const autoyastShell = "        <interpreter>shell</interpreter>\n        <feedback config:type=\"boolean\">false</feedback>\n"

// cdata is a text inside of a CDATA section, which has one forbidden string.
func cdata(s string) string { return strings.ReplaceAll(s, "]]>", "]]]]><![CDATA[>") }

func indent(s, with string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = with + l
		}
	}
	return strings.Join(lines, "\n")
}
