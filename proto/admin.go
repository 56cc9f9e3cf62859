// SPDX-License-Identifier: Apache-2.0

package proto

import "time"

// TokenList is GET /v1/tokens: the tokens that provostd token add made, by name. A token itself is nowhere.
type TokenList struct {
	Schema int         `json:"schema"`
	Tokens []TokenInfo `json:"tokens"`
}

// TokenInfo is one of them.
type TokenInfo struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"` // join, read, operate, admin
	Created time.Time `json:"created"`
}

// ReloadAnswer is POST /v1/reload: what is new in the profiles, by name. A profile counts as changed when its sequence or its
// answer file changed, too.
type ReloadAnswer struct {
	Schema    int      `json:"schema"`
	ConfigDir string   `json:"config_dir"`
	Profiles  int      `json:"profiles"` // that there are now
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Removed   []string `json:"removed"`
}
