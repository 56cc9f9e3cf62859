// SPDX-License-Identifier: Apache-2.0

package report

import "net/http"

// SetTransport puts something else in the network's place, so that a sender can live in a bubble of synctest.
func (s *Sender) SetTransport(t http.RoundTripper) { s.client.http.HTTPClient.Transport = t }

// SetSent writes what other processes go by.
func (d Dir) SetSent(s Sent) error { return d.setSent(s) }
