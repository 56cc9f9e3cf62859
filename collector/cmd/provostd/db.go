// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"provost/collector/internal/store"
)

// backupTime bounds a backup over the socket: making it and copying it.
const backupTime = 2 * time.Hour

func dbCommand(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{Use: "db", Short: "the database: check, back up, restore, compact", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("say what to do: db check, backup, restore, compact")}
		}}
	cmd.AddCommand(dbCheckCommand(), dbBackupCommand(log), dbRestoreCommand(), dbCompactCommand())
	return cmd
}

// dbSubcommand is what all of them share: settings, and the database's path.
func dbSubcommand(use, short, long, example string, min, max int, run func(cmd *cobra.Command, s *settings, db string, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < min || len(args) > max {
				return usageError{fmt.Errorf("use: provostd db %s", use)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			return run(cmd, s, filepath.Join(s.Dirs.Data, "provost.db"), args)
		}}
	settingsFlags(cmd.Flags())
	return cmd
}

func dbCheckCommand() *cobra.Command {
	return dbSubcommand("check [FILE]", "read a whole database and say whether it is sound",
		`Check reads every page of the database, or of a backup, and counts what is in it.
It changes nothing. The database of a running collector is in use: check a
backup of it.`,
		`  provostd db check
  provostd db backup /tmp/b.db && provostd db check /tmp/b.db

Exit status: 0 sound, 1 damaged or in use, 64 usage, 78 settings.`, 0, 1,
		func(cmd *cobra.Command, _ *settings, db string, args []string) error {
			if len(args) == 1 {
				db = args[0]
			}
			r, err := store.Check(db)
			if errors.Is(err, store.ErrHeld) {
				return fmt.Errorf("%w; or check a copy: provostd db backup FILE, then provostd db check FILE", err)
			}
			if err != nil {
				return err
			}
			printReport(cmd.OutOrStdout(), r)
			if len(r.Problems) > 0 {
				return fmt.Errorf("%s is damaged: restore a backup; provostd puts it aside when it starts and cannot use it", db)
			}
			return nil
		})
}

func printReport(w io.Writer, r *store.Report) {
	fmt.Fprintf(w, "database   %s\nschema     %d\nsize       %d bytes\nevents     %d", r.Path, r.Schema, r.Bytes, r.Events)
	if r.Events > 0 {
		fmt.Fprintf(w, ", revisions %d to %d", r.First, r.Last)
	}
	fmt.Fprintln(w)
	for _, c := range r.Counts {
		fmt.Fprintf(w, "%-10s %d, %d bytes\n", c.Bucket, c.Keys, c.Bytes)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem    %s\n", p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "sound")
	}
}

func dbBackupCommand(log *slog.Logger) *cobra.Command {
	return dbSubcommand("backup FILE", "copy the database while the collector goes on",
		`Backup writes the database as it is at one moment into a new file. A running
collector is asked for it over its socket and goes on meanwhile; without one the
database itself is read. A backup has the secrets of the installs that are under
way: only its owner may read it, keep it so. Where it would fill the disk it is
not begun. The logs (DATA/logs), the CA (DATA/ca) and the join key
(DATA/join-key) are plain files: copy them beside it.`,
		`  provostd db backup /var/backups/provost-$(date +%F).db

Exit status: 0 written, 1 not, 64 usage, 78 settings.`, 1, 1,
		func(cmd *cobra.Command, s *settings, db string, args []string) error {
			if err := backupTo(cmd.Context(), s, db, args[0], log); err != nil {
				return err
			}
			r, err := store.Check(args[0])
			if err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				return fmt.Errorf("the backup %s is damaged: %s", args[0], r.Problems[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, up to revision %d\n", args[0], r.Bytes, r.Last)
			return nil
		})
}

func backupTo(ctx context.Context, s *settings, db, path string, log *slog.Logger) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: name another file, or move it away", path)
	}
	if err := roomForBackup(s.Socket, db, filepath.Dir(path)); err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".provost-backup-")
	if err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	err = ask(ctx, s.Socket, "GET", "/v1/backup", nil, tmp, backupTime)
	if errors.Is(err, errNoCollector) {
		if _, statErr := os.Stat(db); statErr != nil {
			return fmt.Errorf("%w, and there is no database %s: name its --data", err, db)
		}
		st, err := store.Open(db, store.Options{Log: log})
		if err != nil {
			return err
		}
		_, err = st.Backup(ctx, path)
		return errors.Join(err, st.Close())
	}
	if err != nil {
		return fmt.Errorf("asking the collector for a backup: %w", err)
	}
	if err := errors.Join(tmp.Sync(), os.Link(tmp.Name(), path)); err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// roomForBackup refuses a copy into a directory whose disk it could fill. A running collector makes one beside the database at
// the same time.
func roomForBackup(socket, db, dir string) error {
	var from, to unix.Stat_t
	if unix.Stat(db, &from) != nil || unix.Stat(dir, &to) != nil {
		return nil // what cannot be seen from here fails by itself, or the collector looks
	}
	size := from.Blocks * 512 // holes are not copied
	if _, err := os.Stat(socket); err == nil && from.Dev == to.Dev {
		size *= 2
	}
	return store.RoomForCopy(dir, size)
}

func dbRestoreCommand() *cobra.Command {
	return dbSubcommand("restore BACKUP", "make the database from a backup, where there is none",
		`Restore checks a backup and copies it to DATA/provost.db. A database that is there
is never overwritten: stop the collector and move it away first. The restored one
has an ID of its own: who watched the one before is told to begin anew. A file that
was copied into its place by hand has not, and nobody notices.`,
		`  systemctl stop provostd
  mv /var/lib/provostd/provost.db /var/lib/provostd/provost.db.before
  provostd db restore /var/backups/provost-2026-11-20.db

Exit status: 0 restored, 1 not, 64 usage, 78 settings.`, 1, 1,
		func(cmd *cobra.Command, _ *settings, db string, args []string) error {
			if err := os.MkdirAll(filepath.Dir(db), 0o750); err != nil {
				return fmt.Errorf("making the data directory: %w", err)
			}
			r, err := store.Restore(args[0], db)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, up to revision %d\n", db, r.Bytes, r.Last)
			return nil
		})
}

func dbCompactCommand() *cobra.Command {
	return dbSubcommand("compact", "give back the room that the database does not use",
		`Compact copies the database into a new file, checks that, and puts it in place of
the old one. The collector must be stopped. A crash leaves the old file or the new one.`,
		`  systemctl stop provostd && provostd db compact && systemctl start provostd

Exit status: 0 done, 1 not, 64 usage, 78 settings.`, 0, 0,
		func(cmd *cobra.Command, _ *settings, db string, _ []string) error {
			before, after, err := store.Compact(db)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes before, %d after\n", db, before, after)
			return nil
		})
}
