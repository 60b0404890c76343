package mesh_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// forge makes certificates that no sound authority would: it signs whatever it
// is given. Its root is one that the victims trust.
type forge struct {
	t    *testing.T
	root *signed
}

// signed is a certificate, its key and what it was signed by.
type signed struct {
	template *x509.Certificate // as it was asked for
	der      []byte
	key      *ecdsa.PrivateKey
	issuer   *signed // nil: itself
}

func newForge(t *testing.T) *forge {
	t.Helper()
	f := &forge{t: t}
	f.root = f.sign(authorityTemplate("root"), nil)
	return f
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
}

// leafTemplate is a good leaf for the names that the victims accept.
func leafTemplate() *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{impersonated}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour)}
}

// sign signs a template; by itself if there is no issuer.
func (f *forge) sign(template *x509.Certificate, issuer *signed) *signed {
	f.t.Helper()
	key := must[*ecdsa.PrivateKey](f.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template.SerialNumber = must[*big.Int](f.t)(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
	out := &signed{template: template, key: key, issuer: issuer}
	by, with := template, key
	if issuer != nil {
		by, with = issuer.template, issuer.key
		template.AuthorityKeyId = by.SubjectKeyId
	}
	if template.SubjectKeyId == nil {
		template.SubjectKeyId = template.SerialNumber.Bytes()
	}
	out.der = must[[]byte](f.t)(x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, with))
	return out
}

// leaf is a leaf of the root's, changed.
func (f *forge) leaf(change func(*x509.Certificate)) *signed {
	f.t.Helper()
	template := leafTemplate()
	if change != nil {
		change(template)
	}
	return f.sign(template, f.root)
}

// below is a good leaf under an authority of the root's, which is changed.
func (f *forge) below(change func(*x509.Certificate)) *signed {
	f.t.Helper()
	template := authorityTemplate("issuing")
	if change != nil {
		change(template)
	}
	return f.sign(leafTemplate(), f.sign(template, f.root))
}

// pair is what an endpoint presents: the chain without its root.
func (s *signed) pair() *tls.Certificate {
	out := &tls.Certificate{PrivateKey: s.key}
	for c := s; c != nil; c = c.issuer {
		if c.issuer != nil || c == s {
			out.Certificate = append(out.Certificate, c.der)
		}
	}
	return out
}

func (s *signed) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.der})
}

// The tags of the kinds of names in a certificate (RFC 5280, 4.2.1.6).
const (
	emailName = 1
	dnsName   = 2
	dirName   = 4
	uriName   = 6
	ipName    = 7
)

// named replaces the names of a leaf by one, as it is: no library checks it.
func named(kind int, value string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: kind, Bytes: []byte(value)}
		if kind == dirName {
			der, err := asn1.Marshal(pkix.Name{CommonName: value}.ToRDNSequence())
			if err != nil {
				panic(err) // a constant
			}
			name.Bytes, name.IsCompound = der, true
		}
		der, err := asn1.Marshal([]asn1.RawValue{name})
		if err != nil {
			panic(err) // a constant
		}
		c.DNSNames = nil
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der})
	}
}

// commonNameOnly has the name where it counted long ago.
func commonNameOnly(c *x509.Certificate) {
	c.DNSNames, c.Subject = nil, pkix.Name{CommonName: impersonated}
}

func critical(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}})
}

// impostor is a forged authority with the root's own name and key id.
func (f *forge) impostor() *signed {
	f.t.Helper()
	template := authorityTemplate("root")
	template.SubjectKeyId = f.root.template.SubjectKeyId
	return f.sign(template, nil)
}

// withoutIssuer presents a leaf without the authority between it and the root.
func (f *forge) withoutIssuer() *tls.Certificate {
	pair := f.below(nil).pair()
	pair.Certificate = pair.Certificate[:1]
	return pair
}

// resigned is a good leaf with one bit of its signature changed.
func (f *forge) resigned() *tls.Certificate {
	pair := f.leaf(nil).pair()
	pair.Certificate[0][len(pair.Certificate[0])-1] ^= 1
	return pair
}

func keyPEM(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))})
}

func address4(text string) string { return string(net.ParseIP(text).To4()) }
