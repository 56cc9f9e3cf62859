// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

type nodeRenderOptions struct{ output, file string }

func nodeRenderCommand(s *session) *cobra.Command {
	var o nodeRenderOptions
	cmd := &cobra.Command{
		Use:   "render NODE",
		Short: "what a node's installer gets: kernel arguments, answer files",
		Long: `Render prints the kernel arguments and the answer files of a node, as its
installer gets them: of the install that is under way, or else what an install
that is ordered now would get; with --file boot.ipxe, boot.grub or boot.pxelinux
the script that boots it, for each boot loader. Secrets are shown as ********.`,
		Args: arguments(1, 1, "say which node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			if o.file != "" && o.output == "json" {
				return usage(cmd, "--file goes with text only")
			}
			return runNodeRender(cmd, s, o, args[0])
		},
		ValidArgsFunction: s.completeNodes,
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
	cmd.Flags().StringVar(&o.file, "file", "", "print this `NAME`d answer file or boot script, and nothing else")
	complete(cmd, "output", "text", "json")
	help(cmd, "provost node render n1\nprovost node render n1 --file ks.cfg | ksvalidator /dev/stdin\nprovost node render n1 --file boot.grub", exitUsual)
	return cmd
}

func runNodeRender(cmd *cobra.Command, s *session, o nodeRenderOptions, node string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	r, err := cl.Render(cmd.Context(), node)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(s.Stdout)
	if o.output == "json" {
		if err := writeJSON(out, r); err != nil {
			return err
		}
		return flush(out)
	}
	show := func(text string) {
		w := &escapeWriter{w: out}
		w.Write([]byte(text)) // both go to a bufio.Writer, whose error flush gives
		w.Flush()
	}
	if o.file != "" {
		var names []string
		for _, f := range append(r.Files, r.Scripts...) {
			if f.Name == o.file {
				show(f.Text)
				return flush(out)
			}
			names = append(names, f.Name)
		}
		return usage(cmd, "node %s has no answer file or boot script %q: it has %s", node, o.file, orNone(names))
	}
	what := "what an install that is ordered now would get"
	if r.Install != "" {
		what = "install " + r.Install
	}
	fmt.Fprintf(out, "# %s, profile %s, %s\n", clean(r.Node), clean(r.Profile), clean(what))
	showRendered(out, show, "kernel arguments", r.Args+"\n")
	for _, f := range r.Files {
		showRendered(out, show, f.Name, f.Text)
	}
	return flush(out)
}

func showRendered(out *bufio.Writer, show func(string), name, text string) {
	fmt.Fprintf(out, "\n==> %s <==\n", clean(name))
	show(text)
	if !strings.HasSuffix(text, "\n") {
		out.WriteByte('\n')
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
