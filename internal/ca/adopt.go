package ca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"
)

// AuthorityAdoption is an authority that was made elsewhere, in PEM: its
// certificate, those above it, and its key if that is known.
type AuthorityAdoption struct {
	Certificate []byte
	Chain       []byte // of a subordinate, as in AuthorityImport; a root has none
	Key         []byte // empty: not known; then the authority can be trusted and nothing else
	Now         time.Time
}

// AdoptedAuthority is an authority that was checked.
type AdoptedAuthority struct {
	Root        bool
	Certificate *x509.Certificate
	Chain       []*x509.Certificate
	// Key and CSR, PEM, are those of an authority whose key is known; else CSR
	// is nil.
	Key PrivateKey
	CSR []byte
}

// Check reads the parts and wants them to be an authority's: whatever Private CA
// wants of a certificate that it imports, and the key of that certificate.
func (m AuthorityAdoption) Check() (*AdoptedAuthority, error) {
	if len(m.Certificate) > maxPEM {
		return nil, faultf(MalformedCertificate, "the certificate has %d bytes; at most %d", len(m.Certificate), maxPEM)
	}
	parsed, err := parseCertificates(MalformedCertificate, "the certificate", m.Certificate, 1)
	if err != nil {
		return nil, err
	}
	own := parsed[0]
	// Before a signature is verified: that costs by the key's size.
	if err := checkKeyStrength(own.PublicKey); err != nil {
		return nil, faultf(MalformedCertificate, "the public key of %s %v", own.Subject, err)
	}
	switch {
	case AlgorithmOf(own.PublicKey) == "":
		return nil, faultf(MalformedCertificate, "the key of %s must be one of %s", own.Subject, algorithmNames())
	case bytes.Equal(own.RawSubject, emptyName):
		return nil, faultf(MalformedCertificate, "the certificate has no subject; an authority must have one")
	case weak(own.SignatureAlgorithm):
		return nil, faultf(MalformedCertificate, "%s is signed with %s; SHA-256 or stronger is needed", own.Subject, own.SignatureAlgorithm)
	}
	out := &AdoptedAuthority{Root: selfIssued(own)}
	check := AuthorityImport{Root: out.Root, Certificate: m.Certificate, Chain: m.Chain, Now: m.Now}
	if len(m.Key) > 0 {
		if out.Key, out.CSR, err = m.request(own); err != nil {
			return nil, err
		}
		if check.CSR, err = ParseCSR(out.CSR); err != nil {
			return nil, err
		}
	}
	out.Certificate, out.Chain, err = check.Check()
	return out, err
}

// request reads the key and makes the CSR that the certificate could be the
// answer to.
func (m AuthorityAdoption) request(own *x509.Certificate) (PrivateKey, []byte, error) {
	key, err := ParseImportedKey(m.Key)
	if err != nil {
		return PrivateKey{}, nil, err
	}
	if !samePublicKey(key.Public(), own.PublicKey) {
		return PrivateKey{}, nil, faultf(CertificateMismatch, "the private key is not that of the certificate of %s", DescribeName(own.RawSubject))
	}
	s, err := signingFor(DefaultSigning(key.Public()), key.Public())
	if err != nil {
		return PrivateKey{}, nil, err
	}
	csr, err := makeAuthorityCSR(key, s, own.RawSubject, []pkix.Extension{basicConstraintsExtension(true, -1, true)})
	return key, csr, err
}

// EndsInRoot says whether the last certificate of a chain is a self-signed root.
func EndsInRoot(chain []*x509.Certificate) bool {
	return len(chain) > 0 && selfSigned(chain[len(chain)-1])
}

// Attributes are those of a distinguished name in DER, in its order.
func Attributes(name []byte) ([]Attribute, error) {
	var parts pkix.RDNSequence
	if rest, err := asn1.Unmarshal(name, &parts); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("read distinguished name: %w", err)
	}
	var all []Attribute
	for _, part := range parts {
		for _, a := range part {
			all = append(all, Attribute{OID: a.Type.String(), Value: fmt.Sprint(a.Value)})
		}
	}
	return all, nil
}
