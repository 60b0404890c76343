package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"time"
)

// maxChainPEM bounds the chain of an authority (the model's limit), and
// maxChainLength how many certificates it may have: each is verified.
const (
	maxChainPEM    = 2 << 20
	maxChainLength = 10
)

// AuthorityImport is an authority's certificate as ImportCertificateAuthorityCertificate
// brings it, PEM.
type AuthorityImport struct {
	Root        bool // the authority's type
	CSR         *CSR // the authority's own; nil: its key is not known (AuthorityAdoption)
	Certificate []byte
	Chain       []byte // of a subordinate: its parent first, a self-signed root last
	Now         time.Time
}

// Check reads the certificate and its chain and wants them to be those of the
// authority whose CSR it is.
func (m AuthorityImport) Check() (certificate *x509.Certificate, chain []*x509.Certificate, err error) {
	if len(m.Certificate) > maxPEM {
		return nil, nil, faultf(MalformedCertificate, "the certificate has %d bytes; at most %d", len(m.Certificate), maxPEM)
	}
	parsed, err := parseCertificates(MalformedCertificate, "the certificate", m.Certificate, 1)
	if err != nil {
		return nil, nil, err
	}
	certificate = parsed[0]
	if chain, err = m.chain(); err != nil {
		return nil, nil, err
	}
	if err := m.checkCertificate(certificate); err != nil {
		return nil, nil, err
	}
	whole := append([]*x509.Certificate{certificate}, chain...)
	for i, c := range whole {
		if err := checkImportedAuthority(c, m.Now); err != nil {
			return nil, nil, err
		}
		if i > 0 && bytes.Equal(c.Raw, certificate.Raw) {
			return nil, nil, faultf(MalformedCertificate, "the chain must not include the authority's own certificate; it is certificate %d", i)
		}
		if i > 0 {
			if err := checkSigned(whole[i-1], c); err != nil {
				return nil, nil, err
			}
		}
	}
	if last := whole[len(whole)-1]; !selfSigned(last) {
		return nil, nil, faultf(MalformedCertificate, "the chain must end with a self-signed root; it ends with %s, issued by %s", last.Subject, last.Issuer)
	}
	if _, err := roomBelow(whole); err != nil {
		return nil, nil, faultf(MalformedCertificate, "%v", err)
	}
	return certificate, chain, nil
}

// chain reads the chain, which a subordinate must have and a root must not.
func (m AuthorityImport) chain() ([]*x509.Certificate, error) {
	switch given := len(bytes.TrimSpace(m.Chain)) > 0; {
	case m.Root && given:
		return nil, faultf(InvalidRequest, "a root authority's certificate is imported without a CertificateChain")
	case m.Root:
		return nil, nil
	case !given:
		return nil, faultf(InvalidRequest, "a subordinate authority's certificate needs its CertificateChain: its parent first, a self-signed root last")
	case len(m.Chain) > maxChainPEM:
		return nil, faultf(MalformedCertificate, "the chain has %d bytes; at most %d", len(m.Chain), maxChainPEM)
	}
	return parseCertificates(MalformedCertificate, "the chain", m.Chain, maxChainLength)
}

// checkCertificate wants the certificate to be the answer to the CSR.
func (m AuthorityImport) checkCertificate(c *x509.Certificate) error {
	switch {
	case m.CSR != nil && !samePublicKey(m.CSR.PublicKey(), c.PublicKey):
		return faultf(CertificateMismatch, "the certificate's public key is not that of the authority's CSR")
	case m.CSR != nil && !bytes.Equal(m.CSR.request.RawSubject, c.RawSubject):
		return faultf(CertificateMismatch, "the certificate's subject %s is not that of the authority's CSR, %s", c.Subject, m.CSR.request.Subject)
	case m.Root && !selfSigned(c):
		return faultf(MalformedCertificate, "a root authority's certificate must be self-signed; this one is issued by %s", c.Issuer)
	case !m.Root && selfIssued(c):
		return faultf(MalformedCertificate, "a subordinate authority's certificate must not be self-signed")
	}
	return nil
}

// criticalAllowed are the extensions that an authority's certificate may have
// as critical.
var criticalAllowed = []asn1.ObjectIdentifier{
	oidAKI, oidBasicConstraints, oidPolicies, oidEKU, oidInhibitAnyPolicy, oidIAN, oidKeyUsage,
	oidNameConstraints, oidPolicyMappings, oidSAN, oidSDA, oidSKI, oidSIA,
}

// checkImportedAuthority holds one certificate of an imported chain against the
// rules for all of them.
func checkImportedAuthority(c *x509.Certificate, now time.Time) error {
	if err := checkAuthority(c); err != nil {
		return faultf(MalformedCertificate, "%v", err)
	}
	if basic := find(c.Extensions, oidBasicConstraints); basic == nil || !basic.Critical {
		return faultf(MalformedCertificate, "the BasicConstraints of %s must be critical", c.Subject)
	}
	for _, e := range c.Extensions {
		if e.Critical && !contains(criticalAllowed, e.Id) {
			return faultf(MalformedCertificate, "%s has the extension %s as critical, which an authority may not have", c.Subject, e.Id)
		}
	}
	if err := checkKeyStrength(c.PublicKey); err != nil {
		return faultf(MalformedCertificate, "the public key of %s %v", c.Subject, err)
	}
	return checkCurrent(MalformedCertificate, c, now)
}

func checkCurrent(kind Kind, c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return faultf(kind, "%s has expired at %s", c.Subject, stamp(c.NotAfter))
	}
	if now.Before(c.NotBefore) {
		return faultf(kind, "%s is not valid before %s", c.Subject, stamp(c.NotBefore))
	}
	return nil
}

func contains(oids []asn1.ObjectIdentifier, oid asn1.ObjectIdentifier) bool {
	for _, o := range oids {
		if o.Equal(oid) {
			return true
		}
	}
	return false
}
