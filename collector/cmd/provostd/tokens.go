// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

func tokenListCommand(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "the tokens that there are, by name; never the tokens themselves",
		Example: `  provostd token list

Exit status: 0 listed, 1 not, 64 usage, 78 settings.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			var list proto.TokenList
			err = askFor(cmd.Context(), s.Socket, http.MethodGet, "/v1/tokens", nil, &list)
			if errors.Is(err, errNoCollector) {
				err = withoutCollector(cmd.Context(), s, err, log, func(reg *registry.Registry) error {
					list.Tokens = reg.Tokens()
					return nil
				})
			}
			if err != nil {
				return err
			}
			for _, t := range list.Tokens {
				fmt.Fprintf(cmd.OutOrStdout(), "%-24s %-8s %s\n", t.Name, t.Role, t.Created.UTC().Format(time.RFC3339))
			}
			return nil
		},
	}
	settingsFlags(cmd.Flags())
	return cmd
}

func tokenRevokeCommand(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "end a token: from now on nobody gets in by it",
		Example: `  provostd token revoke dashboard

Exit status: 0 revoked, 1 not, 64 usage, 78 settings.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("token revoke takes one name")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			err = askFor(cmd.Context(), s.Socket, http.MethodDelete, "/v1/tokens/"+url.PathEscape(args[0]), nil, nil)
			if errors.Is(err, errNoCollector) {
				err = withoutCollector(cmd.Context(), s, err, log, func(reg *registry.Registry) error { return reg.RevokeToken(cmd.Context(), args[0]) })
			}
			return err
		},
	}
	settingsFlags(cmd.Flags())
	return cmd
}

// withoutCollector opens the database itself, since nobody else has it.
func withoutCollector(ctx context.Context, s *settings, why error, log *slog.Logger, fn func(*registry.Registry) error) error {
	path := filepath.Join(s.Dirs.Data, "provost.db")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w, and there is no database %s: start provostd serve, or name its --data", why, path)
	}
	st, err := store.Open(path, store.Options{Log: log})
	if err != nil {
		return err
	}
	defer st.Close()
	set, err := profile.Load("")
	if err != nil {
		return err
	}
	reg, err := registry.Open(ctx, registry.Options{Store: st, Profiles: profiles{set: set}, Log: log})
	if err != nil {
		return err
	}
	return fn(reg)
}
