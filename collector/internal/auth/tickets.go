// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// tickets lets clients resume their sessions (RFC 8446 §2.2), which costs both sides half of a handshake. After a restart ten
// thousand agents come back at once: so the keys rest on those of the CA, and not on the process. They change every day, those
// of the day before are good, too, and when a CA is replaced or ended, none is.
type tickets struct {
	ca *CA

	mu     sync.Mutex
	config *tls.Config
	day    int64
	of     *[]*issuer
}

const ticketDay = 24 * time.Hour

// forClient is a tls.Config's GetConfigForClient.
func (t *tickets) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	day, of := time.Now().Unix()/int64(ticketDay/time.Second), t.ca.issuers.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == of && t.day == day {
		return t.config, nil
	}
	var keys [2][32]byte
	for i := range keys {
		if err := ticketKey(*of, day-int64(i), keys[i][:]); err != nil {
			return nil, err
		}
	}
	t.config.SetSessionTicketKeys(keys[:])
	t.day, t.of = day, of
	return t.config, nil
}

func ticketKey(of []*issuer, day int64, to []byte) error {
	var secret []byte
	for _, i := range of {
		der, err := x509.MarshalPKCS8PrivateKey(i.key)
		if err != nil {
			return fmt.Errorf("deriving the key of session tickets: %w", err)
		}
		secret = append(secret, der...)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("provost session tickets, day %d", day), len(to))
	if err != nil {
		return fmt.Errorf("deriving the key of session tickets: %w", err)
	}
	copy(to, key)
	return nil
}
