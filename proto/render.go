// SPDX-License-Identifier: Apache-2.0

package proto

// RenderedNode is GET /v1/nodes/{node}/render: what the node's installer gets of the collector, with every secret as a
// row of asterisks.
type RenderedNode struct {
	Schema  int            `json:"schema"`
	Node    string         `json:"node"`
	Profile string         `json:"profile"`
	Install string         `json:"install,omitempty"` // whose snapshot it is; empty: what an install that is ordered now would get
	Args    string         `json:"args,omitempty"`    // kernel arguments of the profile, without the agent's
	Files   []RenderedFile `json:"files"`             // answer files, by name
	Scripts []RenderedFile `json:"scripts,omitempty"` // of an install's boot, by name: boot.ipxe, boot.grub, boot.pxelinux
}

// RenderedFile is one answer file, or boot script.
type RenderedFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}
