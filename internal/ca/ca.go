// Package ca makes certificate authorities and issues certificates from them.
// Names and usages come from the caller's template, never from a request.
// What it does not do: keep anything (that is package store) or decide when to
// renew (package secrets, with the CA issue).
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// backdate lets a certificate work on hosts whose clocks run behind.
const backdate = 5 * time.Minute

// Authority is a certificate authority with its signing key.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// Names are the subject alternative names of a leaf.
type Names struct {
	DNS  []string
	URIs []string
	IPs  []net.IP
}

// Leaf is an issued certificate and its key, PEM. The chain is the leaf alone:
// the root does not travel.
type Leaf struct {
	Chain []byte
	Key   []byte
}

// NewRoot makes a self-signed P-256 root authority, valid from now for life.
func NewRoot(commonName string, now time.Time, life time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key of %s: %w", commonName, err)
	}
	template, err := template(now, life)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: commonName}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("self-sign %s: %w", commonName, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", commonName, err)
	}
	return &Authority{Certificate: certificate, key: key}, nil
}

// Load reads an authority as PEM and EncodeKey wrote it.
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
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key of authority %s: %w", certificate.Subject, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("load authority %s: the key is not the certificate's", certificate.Subject)
	}
	return &Authority{Certificate: certificate, key: key}, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// EncodeKey is the authority's private key, PKCS #8 in PEM.
func (a *Authority) EncodeKey() ([]byte, error) { return encodeKey(a.key) }

// Issue makes a new P-256 key and a certificate for it, for servers and
// clients, valid from now for life but never longer than the authority.
func (a *Authority) Issue(names Names, now time.Time, life time.Duration) (*Leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate leaf key: %w", err)
	}
	template, err := template(now, life)
	if err != nil {
		return nil, err
	}
	if template.NotAfter.After(a.Certificate.NotAfter) {
		template.NotAfter = a.Certificate.NotAfter
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames, template.IPAddresses = names.DNS, names.IPs
	for _, text := range names.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("issue for URI %q: %w", text, err)
		}
		template.URIs = append(template.URIs, uri)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue from %s: %w", a.Certificate.Subject, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return &Leaf{Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM}, nil
}

// template has a serial of 128 random bits (design.md 6) and the validity.
func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("draw serial: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-backdate), NotAfter: now.Add(life)}, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
