// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/spf13/cobra"
	"provost/collector/internal/auth"
	"provost/collector/internal/registry"
	"provost/proto"
)

func tokenCommand(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "tokens of operators, and join keys of nodes", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("say what to do: token add, list, revoke")}
		}}
	var role string
	add := &cobra.Command{
		Use:   "add --role join|read|operate|admin NAME",
		Short: "make a token and print it, this once",
		Example: `  provostd token add --role read dashboard
  provostd token add --role join rack1 >join-key

Exit status: 0 made, 1 not made, 64 usage, 78 settings.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("token add takes one name")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := auth.ParseRole(role)
			if err != nil {
				return usageError{err}
			}
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			token, err := addToken(cmd.Context(), s, r, args[0], log)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	add.Flags().StringVar(&role, "role", "", "join, read, operate or admin")
	settingsFlags(add.Flags())
	cmd.AddCommand(add, tokenListCommand(log), tokenRevokeCommand(log))
	return cmd
}

// addToken asks the running collector, which alone can write its database; without one it writes by itself.
func addToken(ctx context.Context, s *settings, role auth.Role, name string, log *slog.Logger) (token string, err error) {
	var a proto.TokenAnswer
	err = askFor(ctx, s.Socket, http.MethodPost, "/v1/tokens", proto.TokenOrder{Name: name, Role: string(role)}, &a)
	if errors.Is(err, errNoCollector) {
		err = withoutCollector(ctx, s, err, log, func(reg *registry.Registry) (err error) {
			a.Token, err = reg.AddToken(ctx, role, name)
			return err
		})
	}
	return a.Token, err
}
