// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/inventory"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

// maxImport bounds the file, in bytes: as much as the collector takes.
const maxImport = 32 << 20

type nodeImportOptions struct {
	format, output string
	dryRun, yes    bool
}

func (o *nodeImportOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.format, "format", "", "`FORMAT`: yaml, csv or xcat; as the file's name says, without it")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would change")
	f.BoolVar(&o.yes, "yes", false, "do not ask, however many nodes change")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
}

func nodeImportCommand(s *session) *cobra.Command {
	var o nodeImportOptions
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "add and change nodes as a file says",
		Long: `Import reads nodes from a file, or with "-" from standard input, adds those that
are new and changes the others: all of them, or, when anything is wrong with
one, none. What the file does not mention of a node stays as it is. Nodes that
are not in the file are left alone.

  yaml  what provost node show -o yaml prints
  csv   a header line with name, mac, ip, serial, profile, groups, protected,
        attr.KEY; several MACs or groups in one field stand between blanks; an
        empty field takes away what was there
  xcat  the stanzas of xCAT's lsdef -t node -z; os, arch, provmethod and the
        lists of postscripts become attributes

Changes of more than 20 nodes that are there already are asked about.`,
		Args: arguments(1, 1, "say which file to read"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.format == "" {
				o.format = inventory.Guess(args[0])
			}
			if !slices.Contains(inventory.Formats, o.format) {
				if o.format == "" {
					return usage(cmd, "the name of %s does not say what is in it: add --format %s", args[0], strings.Join(inventory.Formats, "|"))
				}
				return usage(cmd, "--format %q: use %s", o.format, strings.Join(inventory.Formats, ", "))
			}
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			return runNodeImport(cmd.Context(), s, cmd, o, args[0])
		},
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "format", inventory.Formats...)
	complete(cmd, "output", "text", "json")
	help(cmd, `provost node import nodes.csv --dry-run
provost node show @rack1 -o yaml > rack1.yaml
provost node import rack1.yaml
lsdef -t node -z | provost node import - --format xcat`, `0   done, or --dry-run found nothing wrong
1   something is wrong with the file or its nodes: nothing was imported
64  usage: the command line makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

func runNodeImport(ctx context.Context, s *session, cmd *cobra.Command, o nodeImportOptions, path string) error {
	b, err := s.readInventory(cmd, path)
	if err != nil {
		return err
	}
	if len(b) > maxImport {
		return usage(cmd, "%s has over %s: split it", path, size(maxImport))
	}
	file := inventory.Parse(o.format, b)
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	inv := proto.Inventory{DryRun: true, Nodes: make([]proto.InventoryNode, len(file.Nodes))}
	for i, e := range file.Nodes {
		inv.Nodes[i] = e.InventoryNode
	}
	// First what would be done, so that all problems are known, those of the file and those of its nodes together.
	plan, err := cl.Import(ctx, inv)
	if err != nil {
		return err
	}
	problems := file.Problems
	for _, p := range plan.Problems {
		if p.Index >= 0 && p.Index < len(file.Nodes) {
			problems = append(problems, inventory.Problem{Line: file.Nodes[p.Index].Line, Text: p.Detail})
		}
	}
	slices.SortStableFunc(problems, func(a, b inventory.Problem) int { return cmp.Compare(a.Line, b.Line) })
	for _, p := range problems {
		s.say("", fmt.Sprintf("%s:%d: %s", path, p.Line, p.Text))
	}
	for _, n := range file.Notes {
		s.say("provost: ", n)
	}
	if len(problems) > 0 {
		return &hintError{fmt.Errorf("nothing was imported: %s in %s", count(len(problems), "problem"), path), "mend the file, then import it again"}
	}
	done := plan
	if !o.dryRun {
		if err := s.confirm(cmd, changed(plan.Changes), o.yes, false, "changes"); err != nil {
			return err
		}
		inv.DryRun = false
		if done, err = cl.Import(ctx, inv); err != nil {
			return err
		}
	}
	if o.output == "json" {
		return writeJSON(s.Stdout, done)
	}
	return writeImport(s, done, len(file.Nodes))
}

// readInventory reads the file, one byte more than is allowed at most.
func (s *session) readInventory(cmd *cobra.Command, path string) ([]byte, error) {
	in := s.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usage(cmd, "%v", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	if err != nil {
		return nil, &hintError{fmt.Errorf("reading %s: %w", path, err), ""}
	}
	return b, nil
}

// changed is the nodes that were there before.
func changed(changes []proto.NodeChange) target {
	var t target
	var names []string
	for _, c := range changes {
		if !c.New {
			names = append(names, c.Name)
			t.nodes = append(t.nodes, proto.Node{Name: c.Name})
		}
	}
	t.set = nodeset.Fold(names)
	return t
}

// maxShown is the number of nodes whose changes are written one by one; -o json has all.
const maxShown = 500

// writeImport says what changed: "+" is a new node, "~" one that was there.
func writeImport(s *session, a *proto.InventoryAnswer, all int) error {
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	width, added := min(sc.width, defaultWidth), 0
	var bare []string
	for i, c := range a.Changes {
		mark := "~ "
		profile := false
		var parts []string
		for _, f := range c.Fields {
			profile = profile || f.Field == "profile"
			switch {
			case c.New || f.Old == "":
				parts = append(parts, f.Field+" "+f.New)
			case f.New == "":
				parts = append(parts, f.Field+" "+f.Old+" → none")
			default:
				parts = append(parts, f.Field+" "+f.Old+" → "+f.New)
			}
		}
		if c.New {
			mark = "+ "
			added++
			if !profile {
				bare = append(bare, c.Name)
			}
		}
		if i == maxShown {
			fmt.Fprintf(out, "… and %s\n", count(len(a.Changes)-i, "node"))
		}
		if i >= maxShown {
			continue
		}
		for j, l := range wrap(clean(c.Name+": "+strings.Join(parts, "; ")), width-2) {
			if j > 0 {
				mark = "    "
			}
			out.WriteString(mark + l + "\n")
		}
	}
	verb := ""
	if a.DryRun {
		verb = "would be "
	}
	fmt.Fprintf(out, "%s: %d %sadded, %d %schanged, %d as they are\n", count(all, "node"), added, verb, len(a.Changes)-added, verb, all-len(a.Changes))
	if len(bare) > 0 && !a.DryRun {
		fmt.Fprintf(out, "%s no profile yet: provost node set %s --profile PROFILE\n", have(len(bare)), quoteSet(nodeset.Fold(bare)))
	}
	return flush(out)
}

func have(n int) string {
	if n == 1 {
		return "one has"
	}
	return fmt.Sprintf("%d have", n)
}
