package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"
)

// Try signs a throw-away leaf with the authority's key and verifies it, to see
// that the key can be used. Nobody can use that leaf: it leaves nothing but
// the error, it ended in 1970, it has no usage, and nobody keeps its key.
func (a *Authority) Try() error {
	s, err := signingFor(DefaultSigning(a.key.Public()), a.issuer.public)
	if err != nil {
		return err
	}
	serial, err := NewSerial(rand.Reader)
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(a.throwaway.Public())
	if err != nil {
		return fmt.Errorf("encode a throw-away key: %w", err)
	}
	d := &draft{
		serial: serial, signing: s, issuer: a.issuer.name, subject: emptyName,
		notBefore: time.Unix(0, 0).UTC(), notAfter: time.Unix(1, 0).UTC(), spki: spki,
		extensions: []pkix.Extension{basicConstraintsExtension(false, -1, true), akiExtension(a.issuer.keyID)},
	}
	tbs, err := d.tbs()
	if err != nil {
		return err
	}
	signature, err := s.sign(a.key, tbs)
	if err != nil {
		return err
	}
	der, err := assemble(tbs, s, signature)
	if err != nil {
		return err
	}
	return d.verify(der, tbs, a.issuer.public)
}
