// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"testing"
)

// The files are as the clients write them; addresses are made up.
func TestNextServers(t *testing.T) {
	const (
		networkd = "# This is private data. Do not parse.\nADDRESS=10.0.0.107\nNETMASK=255.255.255.0\nROUTER=10.0.0.254\nSERVER_ADDRESS=10.0.0.2\nNEXT_SERVER=10.0.0.1\nBROADCAST=10.0.0.255\nT1=900\nT2=1575\nLIFETIME=1800\nDNS=10.0.0.2\nCLIENTID=01525400000107\n"
		klibc    = "DEVICE='ens3'\nPROTO='dhcp'\nIPV4ADDR='10.0.0.107'\nIPV4BROADCAST='10.0.0.255'\nIPV4NETMASK='255.255.255.0'\nIPV4GATEWAY='10.0.0.254'\nIPV4DNS0='10.0.0.2'\nIPV4DNS1='0.0.0.0'\nHOSTNAME='n7'\nDNSDOMAIN=''\nNISDOMAIN=''\nROOTSERVER='10.0.0.1'\nROOTPATH=''\nfilename='pxelinux.0'\nUPTIME='21'\nDHCPLEASETIME='3600'\nDOMAINSEARCH='cluster'\n"
		nm       = "[device]\nmanaged=true\nconnection-uuid=2f1c27d0-6a1b-4ae2-9f6f-0d1f6e8ff6c4\nnm-owned=false\nroute-metric-default-aspired=100\nnext-server=10.0.0.1\ndhcp-bootfile=pxelinux.0\n"
		dracut   = "new_broadcast_address='10.0.0.255'\nnew_dhcp_server_identifier='10.0.0.2'\nnew_filename='pxelinux.0'\nnew_ip_address='10.0.0.107'\nnew_next_server='10.0.0.1'\nnew_routers='10.0.0.254'\nnew_subnet_mask='255.255.255.0'\n"
		dhclient = "lease {\n  interface \"eth0\";\n  fixed-address 10.0.0.107;\n  next-server 10.9.9.9;\n  option dhcp-server-identifier 10.0.0.2;\n}\nlease {\n  interface \"eth0\";\n  fixed-address 10.0.0.107;\n  filename \"pxelinux.0\";\n  next-server 10.0.0.1;\n}\n"
		wicked   = "<lease>\n  <ipv4:dhcp>\n    <server-id>10.0.0.2</server-id>\n    <boot-server-address>10.0.0.1</boot-server-address>\n    <boot-filename>pxelinux.0</boot-filename>\n  </ipv4:dhcp>\n</lease>\n"
	)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", map[string]string{"/run/": ""}, "[]"},
		{"systemd-networkd", map[string]string{"/run/systemd/netif/leases/2": networkd}, "[10.0.0.1]"},
		{"NetworkManager", map[string]string{"/run/NetworkManager/devices/1": "[device]\nmanaged=false\n", "/run/NetworkManager/devices/2": nm}, "[10.0.0.1]"},
		{"NetworkManager's lease", map[string]string{"/var/lib/NetworkManager/internal-2f1c-eth0.lease": networkd}, "[10.0.0.1]"},
		{"dracut with dhclient", map[string]string{"/tmp/dhclient.eth0.dhcpopts": dracut}, "[10.0.0.1]"},
		{"dracut with NetworkManager", map[string]string{"/tmp/dhclient.eth0.dhcpopts": "new_next_server=10.0.0.1\n"}, "[10.0.0.1]"},
		{"an older dracut", map[string]string{"/tmp/net.eth0.dhcpopts": dracut}, "[10.0.0.1]"},
		{"klibc", map[string]string{"/run/net-ens3.conf": klibc}, "[10.0.0.1]"},
		{"the newest of dhclient's leases", map[string]string{"/var/lib/dhcp/dhclient.leases": dhclient}, "[10.0.0.1]"},
		{"wicked", map[string]string{"/var/lib/wicked/lease-eth0-dhcp-ipv4.xml": wicked}, "[10.0.0.1]"},
		{"each once, in the order of trust", map[string]string{
			"/run/systemd/netif/leases/3": "NEXT_SERVER=10.0.0.3\n", "/run/systemd/netif/leases/2": networkd, "/tmp/dhclient.eth0.dhcpopts": "new_next_server='10.0.0.4'\n", "/run/net-a.conf": klibc,
		}, "[10.0.0.4 10.0.0.1 10.0.0.3]"},
		{"none told", map[string]string{"/run/net-a.conf": "ROOTSERVER='0.0.0.0'\n", "/run/systemd/netif/leases/2": "ADDRESS=10.0.0.107\n"}, "[]"},
		{"nonsense", map[string]string{"/run/systemd/netif/leases/2": "NEXT_SERVER=\nNEXT_SERVERS=10.0.0.1\nNEXT_SERVER=evil.example\nNEXT_SERVER=127.0.0.1\nNEXT_SERVER=::1\nNEXT_SERVER=224.0.0.1\nNEXT_SERVER=255.255.255.255\n"}, "[]"},
	} {
		if got := fmt.Sprint(root(t, c.files).NextServers()); got != c.want {
			t.Errorf("%s: NextServers = %s, want %s", c.name, got, c.want)
		}
	}
}
