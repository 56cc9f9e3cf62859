// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"io"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
	"provost/proto/prototest"
)

// newSite serves a site's API over HTTP.
func newSite(t *testing.T) (*registrytest.Site, *api.API, *httptest.Server) {
	t.Helper()
	site := registrytest.New(t)
	a, err := api.New(api.Config{Registry: site.Registry, Profiles: site.Profiles, CA: site.CA.PEM, Version: "test", Ready: site.Store.Err})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	return site, a, srv
}

// TestConformance runs the suite that the agent's fake collector passes too.
func TestConformance(t *testing.T) {
	prototest.Run(t, func(t *testing.T) prototest.Target {
		site, _, srv := newSite(t)
		site.Clock.Set(time.Now())
		ctx := context.Background()
		return prototest.Target{
			URL: srv.URL, Client: srv.Client(), JoinKey: registrytest.JoinKey,
			Define: func(spec proto.NodeSpec) {
				if _, err := site.AddNode(ctx, spec); err != nil {
					t.Fatal(err)
				}
			},
			Install: func(node string, scripts []prototest.Script) (string, string) {
				var all []registrytest.Script
				for _, s := range scripts {
					all = append(all, registrytest.Script{Name: s.Step.Name, Phase: s.Step.Phase, Body: s.Body})
				}
				prepared := registrytest.Prepared(node, all...)
				for i, s := range scripts {
					prepared.Steps[i].Reboot = s.Step.Reboot
				}
				site.Profiles.Put(node, prepared)
				if err := site.Order(ctx, []string{node}, proto.InstallOrder{Profile: node}, "suite"); err != nil {
					t.Fatal(err)
				}
				d := site.Script(site.Seen(node).MACs[0])
				return d.Install, d.Claim
			},
			Command: func(node string, verb proto.Verb, step string) {
				if err := site.Command(ctx, []string{node}, verb, proto.NodeOrder{Step: step}, "suite"); err != nil {
					t.Fatal(err)
				}
			},
			Events: func(node, id string) []proto.Event {
				list, err := site.InstallEvents(node, id)
				if err != nil {
					t.Fatal(err)
				}
				events := slices.DeleteFunc(list.Events, func(e proto.Event) bool { return e.Source != proto.SourceAgent })
				slices.SortStableFunc(events, func(a, b proto.Event) int { return int(a.Seq) - int(b.Seq) })
				return events
			},
			Log: func(node, id, name string) []byte {
				f, err := site.OpenLog(node, id, name)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				b, err := io.ReadAll(f)
				if err != nil {
					t.Fatal(err)
				}
				return b
			},
		}
	})
}
