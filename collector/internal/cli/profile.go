// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"provost/proto"
)

func profileCommand(s *session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "list and show profiles: how nodes are installed",
		Long: `A profile says how a class of nodes is installed. Profiles are files on the
frontend, in /etc/provost/profiles.`,
	}
	help(cmd, "provost profile list\nprovost profile show compute", exitUsual)
	cmd.AddCommand(profileListCommand(s), profileShowCommand(s))
	return group(cmd)
}

type profileOptions struct{ output string }

func (o *profileOptions) addFlag(cmd *cobra.Command, text string) {
	cmd.Flags().StringVarP(&o.output, "output", "o", text, "`FORMAT`: "+text+", json or yaml")
	complete(cmd, "output", text, "json", "yaml")
}

func profileListCommand(s *session) *cobra.Command {
	var o profileOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "the profiles that there are",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, o.output, "table", "json", "yaml"); err != nil {
				return err
			}
			return runProfileList(cmd.Context(), s, o)
		},
	}
	o.addFlag(cmd, "table")
	help(cmd, "provost profile list", exitUsual)
	return cmd
}

func runProfileList(ctx context.Context, s *session, o profileOptions) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.Profiles(ctx)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, list)
	case "yaml":
		return writeYAMLOf(s.Stdout, list)
	}
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	if len(list.Profiles) == 0 {
		fmt.Fprintf(out, "no profile; they are files in %s/profiles on the frontend\n", clean(configDir(list)))
	}
	for _, p := range list.Problems {
		fmt.Fprintf(s.Stderr, "provost: warning: left out: %s\n", clean(p))
	}
	if len(list.Problems) > 0 {
		fmt.Fprintln(s.Stderr, "hint: mend the files, then provost reload")
	}
	if len(list.Profiles) == 0 {
		return flush(out)
	}
	cols := []column{{title: "PROFILE"}, {title: "KIND", min: 8}, {title: "FAMILY", min: 7}, {title: "BOOT", min: 8}, {title: "STEPS", min: 5},
		{title: "ON-FAILURE", min: 8}, {title: "DEADLINE", min: 6}}
	writeTable(out, sc, min(sc.width, defaultWidth), cols, len(list.Profiles), func(i int, cs []cell) []string {
		p := &list.Profiles[i]
		for i, text := range []string{p.Name, p.Kind, p.Family, p.Boot, strconv.Itoa(len(p.Steps)), string(p.OnFailure), p.Deadline.String()} {
			cs[i] = cell{text: clean(text)}
		}
		return nil
	})
	return flush(out)
}

// configDir is where the site's files are; an older collector does not say.
func configDir(list *proto.ProfileList) string {
	if list.ConfigDir != "" {
		return list.ConfigDir
	}
	return "/etc/provost"
}

func profileShowCommand(s *session) *cobra.Command {
	var o profileOptions
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "one profile with its steps",
		Args:  arguments(1, 1, "say which profile to show"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json", "yaml"); err != nil {
				return err
			}
			if err := proto.CheckName("profile", args[0]); err != nil {
				return usage(cmd, "%v", err)
			}
			return runProfileShow(cmd.Context(), s, o, args[0])
		},
		ValidArgsFunction: s.completeProfiles,
	}
	o.addFlag(cmd, "text")
	help(cmd, "provost profile show compute", exitUsual)
	return cmd
}

func runProfileShow(ctx context.Context, s *session, o profileOptions, name string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	p, err := cl.Profile(ctx, name)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, p)
	case "yaml":
		return writeYAMLOf(s.Stdout, p)
	}
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	field := func(name, text string) {
		if text != "" {
			fmt.Fprintf(out, "%s %s\n", pad(name, 12), clean(text))
		}
	}
	field("name", p.Name)
	field("kind", p.Kind)
	field("family", p.Family)
	field("sequence", p.Sequence)
	field("boot", p.Boot)
	field("kernel", p.Kernel)
	for _, i := range p.Initrds {
		field("initrd", i)
	}
	field("args", p.Args)
	field("attempts", strconv.Itoa(p.Attempts))
	field("on-failure", string(p.OnFailure))
	field("deadline", p.Deadline.String())
	if len(p.Steps) == 0 {
		field("steps", "none")
		return flush(out)
	}
	out.WriteByte('\n')
	cols := []column{{title: "STEP"}, {title: "PHASE", min: 9}, {title: "SCRIPT", min: 10}, {title: "TIMEOUT", min: 7}, {title: "RETRIES", min: 7},
		{title: "RUN", min: 9}, {title: "ON-FAILURE", min: 4}}
	writeTable(out, sc, min(sc.width, defaultWidth), cols, len(p.Steps), func(i int, cs []cell) []string {
		st := p.Steps[i].WithDefaults()
		for i, text := range []string{st.Name, string(st.Phase), st.Script, st.Timeout.String(), strconv.Itoa(st.Retries), string(st.Run), st.OnFailure} {
			cs[i] = cell{text: clean(text)}
		}
		return nil
	})
	return flush(out)
}
