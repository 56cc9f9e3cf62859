// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"provost/collector/internal/image"
)

type imageOptions struct {
	sha256  string
	replace bool
}

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "bring distributions below the images directory",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("say what to do: image import")}
		},
	}
	var o imageOptions
	imp := &cobra.Command{
		Use:   "import NAME ISO|DIR|URL",
		Short: "bring the content of an ISO image or a directory below the images directory",
		Long: `Copies an installation image, whole and checked, to NAME below the images
directory, which the boot server serves as /images/NAME, and prints what a profile says of
it. Neither a mount nor another program is needed. An ISO image is compared with
--sha256, or with the checksums beside it (SHA256SUMS, CHECKSUM, NAME.sha256). Of
Ubuntu's live server the ISO image is kept, too, since that is what it boots from.
A download that was cut off goes on when the command is given again.`,
		Example: `  provostd image import rocky9 /srv/iso/Rocky-9.6-x86_64-dvd.iso
  provostd image import noble https://releases.ubuntu.com/noble/ubuntu-24.04-live-server-amd64.iso
  provostd image import bookworm ./netboot --replace

Exit status: 0 imported, 1 not imported (nothing is changed), 64 usage, 78 settings.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{errors.New("image import takes a name, and an ISO image, a directory or a URL")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			return o.run(cmd.Context(), s.Dirs.Images, args[0], args[1], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	imp.Flags().StringVar(&o.sha256, "sha256", "", "the `DIGEST` that the ISO image must have, in hex")
	imp.Flags().BoolVar(&o.replace, "replace", false, "take the place of an image of that name")
	settingsFlags(imp.Flags())
	cmd.AddCommand(imp)
	return cmd
}

func (o *imageOptions) run(ctx context.Context, dir, name, source string, stdout, stderr io.Writer) error {
	r, err := image.Import(ctx, source, image.Options{Dir: dir, Name: name, SHA256: o.sha256, Replace: o.replace, Progress: progressLines(stderr)})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %d files, %d MB\n", r.Path, r.Files, r.Bytes/1e6)
	if r.Verified != "" {
		fmt.Fprintf(stdout, "digest compared with %s\n", r.Verified)
	}
	if r.Unverified {
		fmt.Fprintln(stderr, "note: no digest was compared: give --sha256 if you have one")
	}
	if r.Links > 0 {
		fmt.Fprintf(stderr, "note: symbolic links left out: %d\n", r.Links)
	}
	if r.Note != "" {
		fmt.Fprintln(stderr, "note:", r.Note)
	}
	if r.Kernel == "" {
		fmt.Fprintln(stderr, "note: no kernel was found where distributions keep theirs: name kernel and initrds\nin the profile yourself")
		return nil
	}
	fmt.Fprintf(stdout, "for a profile:\n  family: %s\n  kernel: %s\n  initrds: [%s, overlay]\n", r.Family, r.Kernel, r.Initrd)
	if r.Args != "" {
		fmt.Fprintf(stdout, "  args: \"%s\"\n  answer: %s    # or another one that ships, or your own\n", r.Args, r.Answer)
	}
	return nil
}

// progressLines says every 10 s how far it is: a line each time, for terminals and logs alike.
func progressLines(w io.Writer) func(string, int64, int64) {
	const every = 10 * time.Second
	last := time.Now()
	return func(what string, done, total int64) {
		if time.Since(last) < every {
			return
		}
		last = time.Now()
		if total > 0 {
			fmt.Fprintf(w, "%s: %d of %d MB (%d %%)\n", what, done/1e6, total/1e6, done*100/total)
		} else {
			fmt.Fprintf(w, "%s: %d MB\n", what, done/1e6)
		}
	}
}
