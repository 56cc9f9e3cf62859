// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"provost/initrd/e2e/vm"
	"provost/proto"
)

// Node is one machine of the site: known to the collector, with a disk that outlives its boots.
type Node struct {
	Name   string
	Memory string // of the next PowerOn, as vm.Config has it
	UEFI   bool   // of the next PowerOn
	lab    *Lab
	mac    string
}

// Disk is the node's raw disk file.
func (n *Node) Disk() string { return n.lab.path(n.Name + ".disk") }

// MAC is the node's address.
func (n *Node) MAC() string { return n.mac }

// PowerOn starts the machine, which boots by PXE first and from its disk second. Its console
// goes to Dir/NAME.console, one boot after the other. It is killed when ctx ends.
func (n *Node) PowerOn(ctx context.Context) (*vm.VM, error) {
	return vm.Start(ctx, vm.Config{
		Name: n.Name, MAC: n.mac, Disk: n.Disk(), Dir: n.lab.Dir, Memory: n.Memory, UEFI: n.UEFI,
		BootURL: fmt.Sprintf("http://%s:%d/boot/%s", Host, n.lab.boot, n.mac),
	})
}

// Now asks the collector for the node's state.
func (n *Node) Now(ctx context.Context) (proto.Node, error) {
	nodes, err := n.lab.Status(ctx, n.Name)
	if err != nil {
		return proto.Node{}, err
	}
	if len(nodes) != 1 || nodes[0].Name != n.Name {
		return proto.Node{}, fmt.Errorf("asking for %s: got %d nodes", n.Name, len(nodes))
	}
	return nodes[0], nil
}

// Await asks twice a second until ok holds; ctx bounds it. what names the condition in the
// error. A collector that is down does not answer and is waited for.
func (n *Node) Await(ctx context.Context, what string, ok func(proto.Node) bool) (proto.Node, error) {
	var last proto.Node
	for {
		now, err := n.Now(ctx)
		if err == nil {
			if last = now; ok(now) {
				return now, nil
			}
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("waiting for %s to be %s: %w; last: %s", n.Name, what, ctx.Err(), Line(last))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// Events returns every event of the node's newest install, by time.
func (n *Node) Events(ctx context.Context) (proto.EventList, error) { return n.lab.Events(ctx, n.Name) }

// Line says a node's state in one line, for progress and for errors.
func Line(n proto.Node) string {
	line := []string{string(n.Status)}
	if n.Summary != "" && n.Summary != string(n.Status) {
		line = []string{n.Summary}
	}
	if n.Stage != "" {
		line = append(line, "stage "+n.Stage)
	}
	if n.Step != "" {
		line = append(line, "step "+n.Step)
	}
	if n.BootAction != "" {
		line = append(line, "boots "+string(n.BootAction))
	}
	return strings.Join(line, ", ")
}
