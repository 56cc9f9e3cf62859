// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"provost/proto"
)

// TestAnswerFiles: an order makes an answer file, the boot script names it, a machine fetches it, an operator sees it
// without its secrets, and nothing that the collector shows or logs has them.
func TestAnswerFiles(t *testing.T) {
	const canary = "$6$salt$KanarienvogelHash"
	dir, data := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"secret": canary + "\n",
		"config/profiles/web.yaml": "kernel: images/vmlinuz\nargs: \"inst.ks={{ .Answer }}\"\nanswer: kickstart-el9.tmpl\n" +
			"vars: {rootpw-hash: \"file:" + dir + "/secret\"}\n",
		"config/vars.yaml":    "site: {timezone: Europe/Berlin}\n",
		"images/vmlinuz":      "kernel",
		"provostd.yaml":       "check-address: false\ndirs: {config: " + dir + "/config, images: " + dir + "/images}\n", // n1 has an address that is not this machine's
		"config/profiles/bad": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := start(t, data, "--config", filepath.Join(dir, "provostd.yaml"))
	const mac = "52:54:00:00:0d:02"
	if code := d.local("POST", "/v1/nodes", proto.NodeSpec{Name: "n1", MACs: []string{mac}, IP: "10.0.0.17", Profile: "web"}, nil); code != 201 {
		t.Fatalf("adding = %d", code)
	}
	if code := d.local("POST", "/v1/nodes/n1/install", proto.InstallOrder{}, nil); code != 200 {
		t.Fatalf("ordering = %d\n%s", code, d.err)
	}
	fetch := func(url string) (int, string) {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	_, script := fetch("http://" + d.rec.BootListen + "/boot/" + mac)
	m := regexp.MustCompile(`inst\.ks=(\S+)`).FindStringSubmatch(script)
	if m == nil {
		t.Fatalf("the boot script names no answer file:\n%s", script)
	}
	if strings.Contains(script, canary) {
		t.Error("the boot script has the secret")
	}
	code, ks := fetch(m[1])
	for _, want := range []string{`rootpw --iscrypted "` + canary + `"`, "timezone Europe/Berlin --utc", "--hostname=n1", "%post --nochroot --erroronfail"} {
		if code != 200 || !strings.Contains(ks, want) {
			t.Errorf("answer file = %d, without %q:\n%s", code, want, ks)
		}
	}
	if code, text := fetch(m[1] + "x"); code != 404 || strings.Contains(text, canary) {
		t.Errorf("another file = %d %q", code, text)
	}
	var r proto.RenderedNode
	if code := d.local("GET", "/v1/nodes/n1/render", nil, &r); code != 200 || len(r.Files) != 1 || r.Install == "" {
		t.Fatalf("render = %d %+v", code, r)
	}
	if want := strings.Replace(ks, canary, "********", 1); r.Files[0].Text != want {
		t.Errorf("rendered =\n%s\nwant\n%s", r.Files[0].Text, want)
	}
	if !strings.HasPrefix(r.Args, "inst.ks=http://"+d.rec.BootListen+"/boot/answer/"+r.Install+"/********/ks.cfg") {
		t.Errorf("rendered arguments = %s, listening on %s", r.Args, d.rec.BootListen)
	}
	for _, path := range []string{"/v1/nodes/n1", "/v1/status", "/v1/nodes/n1/installs/latest", "/v1/nodes/n1/installs/latest/events", "/v1/profiles/web"} {
		var raw any
		d.local("GET", path, nil, &raw)
		if b, err := json.Marshal(raw); err != nil || bytes.Contains(b, []byte("Kanarienvogel")) {
			t.Errorf("GET %s has the secret", path)
		}
	}

	// A secret that cannot be read refuses the order, and says why without what is in it.
	if err := os.Remove(filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	if code := d.local("POST", "/v1/nodes/n1/install", proto.InstallOrder{}, nil); code != 422 {
		t.Errorf("an order without the secret's file = %d, want 422", code)
	}
	if code, _ := fetch(m[1]); code != 200 {
		t.Errorf("the order that was refused took the answer file away: %d", code)
	}

	var out, errs bytes.Buffer
	config := []string{"--data", data, "--config", filepath.Join(dir, "provostd.yaml")}
	dhcp := append([]string{"dhcp-config", "dnsmasq", "--frontend", "10.0.0.1", "--subnet", "10.0.0.0/24"}, config...)
	if code := run(context.Background(), dhcp, &out, &errs); code != 0 || !strings.Contains(out.String(), "dhcp-host="+mac+",10.0.0.17,n1\n") ||
		!strings.Contains(out.String(), "dhcp-boot=tag:ipxe,http://10.0.0.1:"+d.rec.BootListen[strings.LastIndex(d.rec.BootListen, ":")+1:]+"/boot/${netX/mac}?serial=${serial:uristring}&uuid=${uuid}\n") {
		t.Errorf("dhcp-config = %d\n%s%s", code, out.String(), errs.String())
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"dhcp-config"}, "takes one of dnsmasq, isc, kea"},
		{[]string{"dhcp-config", "udhcpd"}, "use one of dnsmasq"},
		{[]string{"dhcp-config", "isc", "--frontend", "front.example"}, "is no address with a port"},
		{[]string{"dhcp-config", "isc", "--subnet", "10.0.0.0"}, "write a network"},
		{[]string{"dhcp-config", "isc", "--frontend", "10.0.0.1", "--only", "n9"}, "n9"},
		{[]string{"dhcp-config", "isc", "--frontend", "10.0.0.1", "--subnet", "10.9.0.0/16"}, "in none of the subnets"},
	} {
		errs.Reset()
		if code := run(context.Background(), append(c.args, config...), io.Discard, &errs); code != exitUsage || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v = %d %s, want %d and %q", c.args, code, errs.String(), exitUsage, c.want)
		}
	}
	if d.stop() != 0 {
		t.Error("the collector did not end well")
	}
	if strings.Contains(d.err.String(), "Kanarienvogel") || strings.Contains(d.out.String(), "Kanarienvogel") {
		t.Error("the collector's log has the secret")
	}
	// Without a collector the database is read.
	out.Reset()
	if code := run(context.Background(), dhcp, &out, &errs); code != 0 || !strings.Contains(out.String(), mac) {
		t.Errorf("dhcp-config without a collector = %d\n%s%s", code, out.String(), errs.String())
	}
}
