// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"provost/collector/internal/profile"
)

// checkDir is where the site's files are unless another place is named.
const checkDir = "/etc/provost"

type checkOptions struct{ output string }

func checkCommand(s *session) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "say what is wrong in profiles, sequences, scripts",
		Long: `Check reads the profiles, sequences, templates, variables and scripts of a
configuration directory (/etc/provost) as the collector would, and says what is
wrong in which file and line: one line for each mistake, as a compiler does. It
needs no collector, so that files can be checked before they are installed.`,
		Args: arguments(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json"); err != nil {
				return err
			}
			return runCheck(s, o, append(args, checkDir)[0])
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
	complete(cmd, "output", "text", "json")
	help(cmd, "provost check\nprovost check ./site && sudo cp -r site/. /etc/provost && provost reload", `0   nothing is wrong
64  usage: the command line makes no sense
78  configuration: something is wrong in the files, or DIR is not there`)
	return cmd
}

func runCheck(s *session, o checkOptions, dir string) error {
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		if err == nil {
			err = fmt.Errorf("%s is no directory", dir)
		}
		s.say("provost: error: ", "checking the configuration: "+err.Error())
		if errors.Is(err, fs.ErrNotExist) {
			s.say("hint: ", "name the directory that holds profiles/ and sequences/")
		}
		return &exitError{exitConfig}
	}
	set, err := profile.Load(dir)
	if set == nil {
		return err
	}
	doc := struct {
		Schema    int      `json:"schema"`
		Dir       string   `json:"dir"`
		Profiles  []string `json:"profiles"`
		Sequences []string `json:"sequences"`
		Problems  []string `json:"problems"`
	}{1, dir, set.Names(), set.Sequences(), []string{}}
	if err := errors.Join(err, set.Check()); err != nil {
		doc.Problems = strings.Split(err.Error(), "\n")
	}
	if o.output == "json" {
		err = writeJSON(s.Stdout, doc)
	} else {
		out := bufio.NewWriter(s.Stdout)
		for _, p := range doc.Problems {
			out.WriteString(clean(p) + "\n")
		}
		if len(doc.Problems) == 0 {
			fmt.Fprintf(out, "%s and %s are good\n", count(len(doc.Profiles), "profile"), count(len(doc.Sequences), "sequence"))
		}
		err = flush(out)
	}
	if err == nil && len(doc.Problems) > 0 {
		err = &exitError{exitConfig}
	}
	return err
}
