// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"provost/collector/internal/client"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

// manyNodes is the number of nodes up to which an order goes without being asked about.
const manyNodes = 20

// target is the nodes that an order touches: resolved before it is given, so that what was shown and agreed to is what
// is ordered, whatever %failed or @group mean a moment later.
type target struct {
	set    string // folded names
	nodes  []proto.Node
	booted int
}

// resolve asks which nodes an expression means. None at all is an error.
func resolve(ctx context.Context, cl *client.Client, expr string) (target, error) {
	list, err := cl.Nodes(ctx, client.Query{Nodes: expr})
	if err != nil {
		return target{}, err
	}
	t := target{nodes: list.Nodes}
	if len(list.Nodes) == 0 {
		return t, &hintError{fmt.Errorf("%s is no node at the moment: nothing was ordered", expr), "`provost status` shows what there is"}
	}
	names := make([]string, len(list.Nodes))
	for i, n := range list.Nodes {
		names[i] = n.Name
		if n.Status == proto.StatusBooted {
			t.booted++
		}
	}
	t.set = nodeset.Fold(names)
	return t, nil
}

func (t target) String() string { return count(len(t.nodes), "node") + ", " + clean(t.set) }

// confirm asks for the number of nodes when an order touches many, or, where harm is that an installed system is lost,
// a booted one. doing completes "this …". Without a terminal only --yes will do.
func (s *session) confirm(cmd *cobra.Command, t target, yes, harm bool, doing string) error {
	if yes || len(t.nodes) <= manyNodes && !(harm && t.booted > 0) {
		return nil
	}
	what := fmt.Sprintf("this %s %s", doing, count(len(t.nodes), "node"))
	switch {
	case harm && t.booted > 0 && len(t.nodes) == 1:
		what += ", which is booted"
	case harm && t.booted > 0:
		what += fmt.Sprintf(", %d of them booted", t.booted)
	}
	if !s.screen(s.Stdin).terminal || !s.screen(s.Stderr).terminal {
		return &usageError{text: what + ", and nobody is there to ask", hint: "add --yes when that is meant: " + t.set, cmd: cmd}
	}
	s.say("provost: ", what+": "+t.set)
	fmt.Fprintf(s.Stderr, "type the number of nodes to go on: ")
	line, err := bufio.NewReader(io.LimitReader(s.Stdin, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(line) != strconv.Itoa(len(t.nodes)) {
		return &usageError{text: "that is not the number: nothing was ordered", hint: "`provost status` shows the nodes one by one"}
	}
	return nil
}

// oneNode checks the argument of a command that takes a single node's name.
func oneNode(cmd *cobra.Command, arg string) error {
	if err := proto.CheckNode(arg); err != nil {
		return &usageError{text: err.Error(), hint: cmd.Name() + " takes the name of one node, no node set", cmd: cmd}
	}
	return nil
}
