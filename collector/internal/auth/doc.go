// SPDX-License-Identifier: Apache-2.0

// Package auth holds what the collector proves itself and others by: its certificate authority, the signature of plans,
// the secrets of agents and operators, and what a role may do.
//
// It knows no request and no database. It must never log a secret or a key, keep a secret in clear, compare one in
// variable time, or ask anything outside of this machine.
package auth
