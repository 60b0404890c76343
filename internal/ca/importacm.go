package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"time"
)

const (
	maxImportKey   = 5120    // bytes, as ACM documents it
	maxImportChain = 1 << 18 // bytes; ACM takes 2 MiB, which every handshake would carry
	maxImportNames = 250     // so would it all names
	maxOCSPURL     = 1000    // characters, as ACM documents it
)

// CertificateImport is a certificate as ACM's ImportCertificate brings it, PEM.
type CertificateImport struct {
	Certificate []byte
	Key         []byte
	Chain       []byte            // optional
	Previous    *x509.Certificate // what it replaces under its ARN; nil for a new one
	Now         time.Time
}

// Imported is a certificate that was checked, with its key and the chain above
// it in order.
type Imported struct {
	Certificate *x509.Certificate
	Chain       []*x509.Certificate
	Key         PrivateKey
}

// Check reads the parts and wants them to make a certificate that servers can
// use. Each refusal is an InvalidParameter fault.
func (m CertificateImport) Check() (*Imported, error) {
	if len(m.Certificate) > maxPEM {
		return nil, faultf(InvalidParameter, "the certificate has %d bytes; at most %d", len(m.Certificate), maxPEM)
	}
	parsed, err := parseCertificates(InvalidParameter, "the certificate", m.Certificate, 1)
	if err != nil {
		return nil, err
	}
	leaf := parsed[0]
	if err := checkImportedLeaf(leaf, m.Now); err != nil {
		return nil, err
	}
	key, err := ParseImportedKey(m.Key)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(key.Public(), leaf.PublicKey) {
		return nil, faultf(InvalidParameter, "the private key is not that of the certificate of %s", DescribeName(leaf.RawSubject))
	}
	chain, err := m.chain(leaf)
	if err != nil {
		return nil, err
	}
	if m.Previous != nil {
		if err := checkReimport(leaf, m.Previous); err != nil {
			return nil, err
		}
	}
	return &Imported{Certificate: leaf, Chain: chain, Key: key}, nil
}

func (m CertificateImport) chain(leaf *x509.Certificate) ([]*x509.Certificate, error) {
	if len(bytes.TrimSpace(m.Chain)) == 0 {
		return nil, nil
	}
	if len(m.Chain) > maxImportChain {
		return nil, faultf(InvalidParameter, "the chain has %d bytes; at most %d", len(m.Chain), maxImportChain)
	}
	chain, err := parseCertificates(InvalidParameter, "the chain", m.Chain, maxChainLength)
	if err != nil {
		return nil, err
	}
	child := leaf
	for i, c := range chain {
		if bytes.Equal(c.Raw, leaf.Raw) {
			return nil, faultf(InvalidParameter, "the chain must not include the certificate itself; it is certificate %d", i+1)
		}
		if err := checkAuthority(c); err != nil {
			return nil, faultf(InvalidParameter, "certificate %d of the chain: %v", i+1, err)
		}
		// Before its signature is verified: that costs by the key's size.
		if err := checkKeyStrength(c.PublicKey); err != nil {
			return nil, faultf(InvalidParameter, "certificate %d of the chain: its key %v", i+1, err)
		}
		if err := checkSigned(child, c); err != nil {
			return nil, faultf(InvalidParameter, "certificate %d of the chain does not certify the one before it: %v", i+1, err)
		}
		if err := checkCurrent(InvalidParameter, c, m.Now); err != nil {
			return nil, err
		}
		child = c
	}
	if _, err := roomBelow(chain); err != nil {
		return nil, faultf(InvalidParameter, "%v", err)
	}
	if err := checkConstraints(leaf, chain); err != nil {
		return nil, faultf(InvalidParameter, "%v", err)
	}
	return chain, nil
}

// checkImportedLeaf holds what Envoy would take and should not: short keys,
// authorities as leaves, thousands of names, wildcards in part of a label.
func checkImportedLeaf(c *x509.Certificate, now time.Time) error {
	if c.IsCA {
		return faultf(InvalidParameter, "the certificate is an authority's (CA:TRUE); import one of a server")
	}
	if bytes.Equal(c.RawIssuer, emptyName) {
		return faultf(InvalidParameter, "the certificate has no issuer")
	}
	if err := checkKeyStrength(c.PublicKey); err != nil {
		return faultf(InvalidParameter, "the certificate's public key %v", err)
	}
	if AlgorithmOf(c.PublicKey) == "" {
		return faultf(InvalidParameter, "the certificate's key must be one of %s", algorithmNames())
	}
	if weak(c.SignatureAlgorithm) {
		return faultf(InvalidParameter, "the certificate is signed with %s; SHA-256 or stronger is needed", c.SignatureAlgorithm)
	}
	if len(c.UnhandledCriticalExtensions) > 0 {
		return faultf(InvalidParameter, "the certificate has the critical extension %s, which its clients do not know", c.UnhandledCriticalExtensions[0])
	}
	if n := len(c.DNSNames) + len(c.URIs) + len(c.IPAddresses) + len(c.EmailAddresses); n > maxImportNames {
		return faultf(InvalidParameter, "the certificate has %d subject alternative names; at most %d", n, maxImportNames)
	}
	for _, name := range c.DNSNames {
		if CheckDNSName(name) != nil {
			return faultf(InvalidParameter, "the certificate's DNS name %.64q is none that all clients read alike: * may only be the whole first label", name)
		}
	}
	for _, uri := range c.OCSPServer {
		if len(uri) > maxOCSPURL {
			return faultf(InvalidParameter, "the certificate's OCSP URL has %d characters; at most %d", len(uri), maxOCSPURL)
		}
	}
	return checkCurrent(InvalidParameter, c, now)
}

// ParseImportedKey reads one unencrypted key in PEM: PKCS #8, or RSA's or
// OpenSSL's own form, which EC PARAMETERS may precede.
func ParseImportedKey(text []byte) (PrivateKey, error) {
	if len(text) > maxImportKey {
		return PrivateKey{}, faultf(InvalidParameter, "the private key has %d bytes; at most %d", len(text), maxImportKey)
	}
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return PrivateKey{}, faultf(InvalidParameter, "the private key is not PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return PrivateKey{}, faultf(InvalidParameter, "the private key is followed by something else")
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["Proc-Type"] != "" {
		return PrivateKey{}, faultf(InvalidParameter, "the private key is encrypted; decrypt it first")
	}
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return PrivateKey{}, faultf(InvalidParameter, "the private key is a PEM block %.40q; it must be PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY", block.Type)
	}
	if err != nil {
		// The cause may quote a part of the key.
		return PrivateKey{}, faultf(InvalidParameter, "the private key cannot be read: it is no valid %s", block.Type)
	}
	return newPrivateKey(parsed)
}

// checkReimport wants what users of the ARN rely on to stay: the kind of key,
// each usage, and one name at least.
func checkReimport(c, previous *x509.Certificate) error {
	if now, before := AlgorithmOf(c.PublicKey), AlgorithmOf(previous.PublicKey); now != before {
		return faultf(InvalidParameter, "the certificate replaces one with a key %s, so its own must be of that type and size, not %s", before, now)
	}
	if lost := previous.KeyUsage &^ c.KeyUsage; lost != 0 {
		return faultf(InvalidParameter, "the certificate lacks the key usages %s of the one that it replaces; usages may be added, not removed", strings.Join(KeyUsageNames(lost), ", "))
	}
	has := ExtendedUsages(c)
	for _, usage := range ExtendedUsages(previous) {
		if !slices.Contains(has, usage) {
			return faultf(InvalidParameter, "the certificate lacks the extended key usage %s of the one that it replaces; usages may be added, not removed", usage.Name)
		}
	}
	before := domains(previous)
	if len(before) > 0 && !slices.ContainsFunc(domains(c), func(name string) bool { return slices.Contains(before, name) }) {
		return faultf(InvalidParameter, "the certificate has none of the domain names of the one that it replaces: %.200s", strings.Join(before, ", "))
	}
	return nil
}

// domains are a certificate's DNS names and common name, in lower case.
func domains(c *x509.Certificate) []string {
	var all []string
	for _, name := range append([]string{c.Subject.CommonName}, c.DNSNames...) {
		if name != "" {
			all = append(all, strings.ToLower(name))
		}
	}
	return all
}
