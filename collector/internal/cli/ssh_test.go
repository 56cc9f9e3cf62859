// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"provost/proto"
)

const rescueKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AQ6Rxw0tWQ9p2Jc0C2oV3t8dE4wB4lYqz8G6m5v0r"

// rescueWorld has nodes with a way in, and every reason for having none.
func rescueWorld() *fake {
	f := &fake{list: proto.NodeList{Schema: 1}}
	add := func(n proto.Node) {
		n.Schema, n.Profile, n.BootAction = 1, "compute", proto.BootInstall
		if n.Summary == "" {
			n.Summary = string(n.Status)
		}
		f.list.Nodes = append(f.list.Nodes, n)
	}
	shell := &proto.Rescue{Port: 2200, HostKey: rescueKey, Address: "10.0.0.7"}
	full := &proto.Facts{Run: &proto.Space{Path: "/run/provost", Free: 90 << 20, Total: 100 << 20}, Target: &proto.Space{Path: "/mnt/sysroot", Free: 400 << 20, Total: 20 << 30},
		Load: 3.5, MemoryMB: 2048, AvailableMB: 100, At: before("10s")}
	add(proto.Node{Name: "n1", Status: proto.StatusInstalling, Stage: "packages-started", Install: id3, LastSeen: before("10s"), Rescue: shell, Facts: full})
	add(proto.Node{Name: "n2", Status: proto.StatusInstalling, Install: id3, LastSeen: before("10s"), Rescue: &proto.Rescue{Port: 2200, HostKey: rescueKey}})
	add(proto.Node{Name: "n3", Status: proto.StatusInstalling, Install: id3, LastSeen: before("10s"), Rescue: &proto.Rescue{Port: 2200, HostKey: "* ssh-ed25519 AAAA"}})
	add(proto.Node{Name: "n4", Status: proto.StatusBooted, Install: id3, LastSeen: before("1h")})
	add(proto.Node{Name: "n5", Status: proto.StatusDefined})
	add(proto.Node{Name: "n6", Status: proto.StatusOrdered, Install: id3})
	add(proto.Node{Name: "n7", Status: proto.StatusInstalling, Install: id3, LastSeen: before("1h"), Facts: full})
	f.list.Nodes[6].Facts = &proto.Facts{Target: full.Target, At: before("1h")}
	add(proto.Node{Name: "n8", Status: proto.StatusInstalling, Install: id3, LastSeen: before("10s")})
	return f
}

// sshd lets anybody in with key and answers every command with its words and 7.
func sshd(t *testing.T, host ssh.Signer, key ssh.PublicKey) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &ssh.ServerConfig{PublicKeyCallback: func(m ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if m.User() != "root" || string(k.Marshal()) != string(key.Marshal()) {
			return nil, os.ErrPermission
		}
		return nil, nil
	}}
	c.AddHostKey(host)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, channels, requests, err := ssh.NewServerConn(conn, c)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for nc := range channels {
					ch, reqs, err := nc.Accept()
					if err != nil {
						return
					}
					go func() {
						for r := range reqs {
							r.Reply(r.Type == "exec", nil)
							if r.Type == "exec" {
								ch.Write([]byte("ran " + string(r.Payload[4:]) + "\n"))
								ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{7}))
								ch.Close()
							}
						}
					}()
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

// TestSSH goes in with the real client; a host key that is not the told one keeps it out.
func TestSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("the ssh program is not installed")
	}
	pair := func() (ssh.Signer, ed25519.PrivateKey) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return s, key
	}
	host, _ := pair()
	stranger, _ := pair()
	mine, private := pair()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	id := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(id, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	port := sshd(t, host, mine.PublicKey())
	line := func(k ssh.Signer) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey()))) }
	f := rescueWorld()
	f.list.Nodes[0].Rescue = &proto.Rescue{Port: port, HostKey: line(host) + " a comment", Address: "127.0.0.1"}
	f.list.Nodes[1].Rescue = &proto.Rescue{Port: port, HostKey: line(stranger), Address: "127.0.0.1"}
	start(t, f)
	for _, c := range []struct {
		node         string
		want         int
		stdout, says string
	}{
		{"n1", 7, "ran log -f otherpkgs\n", ""},
		{"n2", 255, "", "verification failed"},
	} {
		var out, errs strings.Builder
		got := program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), []string{"ssh", "-i", id, c.node, "log", "-f", "otherpkgs"})
		if got != c.want || out.String() != c.stdout || !strings.Contains(errs.String(), c.says) {
			t.Errorf("provost ssh %s = %d, %q, %q, want %d, %q, %q", c.node, got, &out, &errs, c.want, c.stdout, c.says)
		}
	}
	t.Setenv("PATH", t.TempDir())
	var out, errs strings.Builder
	if got := program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), []string{"ssh", "n1"}); got != 1 ||
		!strings.Contains(errs.String(), "there is no ssh program here") || !strings.Contains(errs.String(), "hint: install an OpenSSH client") {
		t.Errorf("without an ssh program = %d, %q", got, &errs)
	}
}
