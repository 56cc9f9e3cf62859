// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

// retention is how much is kept, as it is written in the settings.
type retention struct {
	Feed     string `mapstructure:"feed"`      // a duration
	Installs int    `mapstructure:"installs"`  // of each node
	LogQuota string `mapstructure:"log-quota"` // bytes with a unit; 0 is without a limit
}

// parse gives the settings' meaning.
func (r retention) parse() (keep registry.Retention, quota int64, err error) {
	feed, err := time.ParseDuration(r.Feed)
	if err != nil || feed < time.Hour {
		return keep, 0, fmt.Errorf("retention.feed %q: use a duration of at least 1h, as 168h", r.Feed)
	}
	if r.Installs < 1 || r.Installs > 1000 {
		return keep, 0, fmt.Errorf("retention.installs %d: use 1 to 1000", r.Installs)
	}
	if quota, err = parseSize(r.LogQuota); err != nil {
		return keep, 0, fmt.Errorf("retention.log-quota %q: %w", r.LogQuota, err)
	}
	return registry.Retention{Feed: feed, Installs: r.Installs}, quota, nil
}

// parseSize reads bytes with a unit of 1024.
func parseSize(s string) (int64, error) {
	if s == "0" {
		return 0, nil
	}
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			v, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			if shift := 10 * (i + 1); err == nil && v > 0 && v <= 1<<62>>shift {
				return v << shift, nil
			}
		}
	}
	return 0, fmt.Errorf("use a number with KiB, MiB, GiB or TiB, as 20GiB; 0 is without a limit")
}

// backup makes a copy of the database beside it and gives it without a name, so that nothing is left of it whatever happens.
// Where there is no room for it none is begun: the collector itself needs the disk.
func (s *Server) backup(ctx context.Context) (*os.File, error) {
	size, err := s.store.Size()
	if err == nil {
		err = store.RoomForCopy(s.set.Dirs.Data, size)
	}
	if errors.Is(err, store.ErrFull) {
		return nil, &proto.Problem{Status: 503, Code: proto.CodeStorage, Detail: "no backup was made: " + err.Error(), Hint: "make room on the frontend's disk"}
	}
	if err != nil {
		return nil, fmt.Errorf("making a backup: %w", err)
	}
	dir, err := os.MkdirTemp(s.set.Dirs.Data, "backup-")
	if err != nil {
		return nil, fmt.Errorf("making a backup: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "provost.db")
	if _, err := s.store.Backup(ctx, path); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// removeOldBackups removes what a crash in the middle of a backup left.
func (s *Server) removeOldBackups() {
	left, err := filepath.Glob(filepath.Join(s.set.Dirs.Data, "backup-*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			s.log.Warn("removing what a backup left", "path", dir, "error", err)
		}
	}
}
