// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"provost/collector/internal/auth"
	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

func tokenCommand(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "tokens of operators, and join keys of nodes", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return usageError{errors.New("say what to do: token add")} }}
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
	cmd.AddCommand(add)
	return cmd
}

// addToken asks the running collector, which alone can write its database; without one it writes by itself.
func addToken(ctx context.Context, s *settings, role auth.Role, name string, log *slog.Logger) (string, error) {
	token, err := askForToken(ctx, s.Socket, proto.TokenOrder{Name: name, Role: string(role)})
	var refused *proto.Problem
	if err == nil || errors.As(err, &refused) {
		return token, err
	}
	path := filepath.Join(s.Dirs.Data, "provost.db")
	if _, statErr := os.Stat(path); statErr != nil {
		return "", fmt.Errorf("no collector answers on %s (%w), and there is no database %s: start provostd serve, or name its --data", s.Socket, err, path)
	}
	st, err := store.Open(path, store.Options{Log: log})
	if err != nil {
		return "", err
	}
	defer st.Close()
	set, err := profile.Load("")
	if err != nil {
		return "", err
	}
	reg, err := registry.Open(ctx, registry.Options{Store: st, Profiles: profiles{set}, Log: log})
	if err != nil {
		return "", err
	}
	return reg.AddToken(ctx, role, name)
}

func askForToken(ctx context.Context, socket string, o proto.TokenOrder) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("encoding request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://provostd/v1/tokens", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("making request: %w", err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode != http.StatusCreated {
		p := &proto.Problem{Status: resp.StatusCode}
		if json.Unmarshal(b, p) != nil || p.Detail == "" {
			p.Detail = "the collector answered " + resp.Status
		}
		return "", p
	}
	var a proto.TokenAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return a.Token, nil
}
