// Package ca makes certificate authorities and decides what each certificate,
// CRL and OCSP answer of theirs looks like, byte by byte: by Private CA's
// templates (template.go) or by the profile of Fairlead's own leaves (leaf.go).
// It refuses what an authority must not sign, lints each certificate before the
// real key signs it and verifies it afterwards; it checks authorities and
// certificates that are imported.
// What it does not do: keep anything, know the time, or decide who may have
// which name and when to renew; that is the caller's. A caller's mistake is a
// Fault. The rules are those of RFC 5280 and of AWS's documentation of ACM and
// Private CA; docs/architecture.md has its place among the packages.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"time"
)

// Authority is a certificate authority with its signing key. It may be used by
// many goroutines if its key may.
type Authority struct {
	Certificate *x509.Certificate
	// Chain are the authorities above it, root last; none for a root.
	Chain []*x509.Certificate

	key       crypto.Signer
	issuer    issuer
	throwaway *ecdsa.PrivateKey // signs what is linted
}

// issuer is what an issued certificate takes from its authority.
type issuer struct {
	name      []byte // DER
	keyID     []byte
	public    crypto.PublicKey
	notBefore time.Time
	notAfter  time.Time
	below     int                 // how many authorities may stand below; negative: any number
	chain     []*x509.Certificate // the authority and those above it: whose constraints apply
}

// NewAuthority joins an authority's certificate, those above it (root last) and
// the key, which may live in a key service. It is an InvalidState fault if that
// certificate may not sign others.
func NewAuthority(certificate *x509.Certificate, chain []*x509.Certificate, key crypto.Signer) (*Authority, error) {
	if !samePublicKey(key.Public(), certificate.PublicKey) {
		return nil, faultf(CertificateMismatch, "the key is not the one of the certificate of %s", certificate.Subject)
	}
	whole := append([]*x509.Certificate{certificate}, chain...)
	if err := checkLinks(whole); err != nil {
		return nil, err
	}
	below, err := roomBelow(whole)
	if err != nil {
		return nil, err
	}
	keyID := certificate.SubjectKeyId
	if len(keyID) == 0 {
		bits, err := keyBits(certificate.RawSubjectPublicKeyInfo)
		if err != nil {
			return nil, err
		}
		keyID = parityKeyID(bits)
	}
	throwaway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the key for linting: %w", err)
	}
	return &Authority{
		Certificate: certificate, Chain: chain, key: key, throwaway: throwaway,
		issuer: issuer{
			name: certificate.RawSubject, keyID: keyID, public: certificate.PublicKey,
			notBefore: certificate.NotBefore, notAfter: certificate.NotAfter, below: below, chain: whole,
		},
	}, nil
}

// ownBackdate lets Fairlead's own certificates work on hosts whose clocks run
// behind.
const ownBackdate = 5 * time.Minute

// NewRoot makes a self-signed P-256 root authority, valid from now for life.
func NewRoot(commonName string, now time.Time, life time.Duration) (*Authority, error) {
	key, err := GenerateKey(P256)
	if err != nil {
		return nil, err
	}
	serial, err := NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Int(), NotBefore: now.Add(-ownBackdate), NotAfter: now.Add(life),
		Subject: pkix.Name{CommonName: commonName},
		IsCA:    true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key.Signer())
	if err != nil {
		return nil, fmt.Errorf("self-sign %s: %w", commonName, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", commonName, err)
	}
	return NewAuthority(certificate, nil, key.Signer())
}

// Load reads an authority without a chain as PEM and EncodeKey wrote it.
func Load(certificatePEM, keyPEM []byte) (*Authority, error) {
	block, _ := pem.Decode(certificatePEM)
	if block == nil {
		return nil, fmt.Errorf("load authority: no PEM certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	block, _ = pem.Decode(keyPEM)
	if block == nil {
		return nil, fmt.Errorf("load authority %s: no PEM key", certificate.Subject)
	}
	key, err := ParsePrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key of authority %s: %w", certificate.Subject, err)
	}
	authority, err := NewAuthority(certificate, nil, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("load authority %s: %w", certificate.Subject, err)
	}
	return authority, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return EncodePEM(a.Certificate.Raw) }

// EncodeKey is the authority's private key, PKCS #8 in PEM.
func (a *Authority) EncodeKey() ([]byte, error) { return encodeKey(a.key) }

// EncodePEM is a certificate as ACM returns it, with a newline at its end.
// Private CA's have none: trim it there.
func EncodePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Serial is a certificate's serial number: 128 random bits (design.md 6).
type Serial [16]byte

// NewSerial draws a serial.
func NewSerial(random io.Reader) (Serial, error) {
	var s Serial
	if _, err := io.ReadFull(random, s[:]); err != nil {
		return Serial{}, fmt.Errorf("draw serial: %w", err)
	}
	return s, nil
}

// String is the serial as it ends a certificate's ARN: 32 hexadecimal digits.
func (s Serial) String() string { return hex.EncodeToString(s[:]) }

// Int is the serial as the positive number that it is.
func (s Serial) Int() *big.Int { return new(big.Int).SetBytes(s[:]) }

// parityKeyID is the key id that AWS gives: SHA-1 of the key's bits (RFC 5280
// 4.2.1.2). In FIPS mode it is ownKeyID: an id is only a name, and nothing
// then may call SHA-1.
func parityKeyID(bits []byte) []byte {
	if fips140.Enabled() {
		return ownKeyID(bits)
	}
	sum := sha1.Sum(bits)
	return sum[:]
}

// ownKeyID is the leftmost 160 bits of SHA-256 of the key's bits (RFC 7093,
// method 1).
func ownKeyID(bits []byte) []byte {
	sum := sha256.Sum256(bits)
	return sum[:20]
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
