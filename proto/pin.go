// SPDX-License-Identifier: Apache-2.0

package proto

import "encoding/hex"

// PinName is the name that a client that pins a CA asks for in its TLS handshake (SNI), given the SHA-256 of the CA
// certificate's DER. A collector that has two CAs for a while, because one takes the other's place, answers with a
// certificate of that one. What the client verifies is ServerName, as ever; a collector that does not know the name
// answers as if it had not been given.
func PinName(digest [32]byte) string {
	return "ca-" + hex.EncodeToString(digest[:16]) + "." + ServerName
}
