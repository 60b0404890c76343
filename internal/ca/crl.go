package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Reason says why a certificate was revoked, by Private CA's name.
type Reason string

// reasonCodes are CRLReason's numbers (RFC 5280 5.3.1). Zero is left out of a
// CRL, as there.
var reasonCodes = map[Reason]int{
	"UNSPECIFIED":                      0,
	"KEY_COMPROMISE":                   1,
	"CERTIFICATE_AUTHORITY_COMPROMISE": 2,
	"AFFILIATION_CHANGED":              3,
	"SUPERSEDED":                       4,
	"CESSATION_OF_OPERATION":           5,
	"PRIVILEGE_WITHDRAWN":              9,
	"A_A_COMPROMISE":                   10,
}

// ParseReason wants one of Private CA's reasons. There is no hold.
func ParseReason(name string) (Reason, error) {
	if _, ok := reasonCodes[Reason(name)]; !ok {
		return "", faultf(InvalidRequest, "revocation reason %.64q is not known", name)
	}
	return Reason(name), nil
}

// Revoked is a certificate that is not to be trusted any more.
type Revoked struct {
	Serial *big.Int
	At     time.Time
	Reason Reason
}

// CRL is what a revocation list says besides who signs it.
type CRL struct {
	Revoked    []Revoked
	ThisUpdate time.Time // its number is this, in milliseconds: later lists have larger ones
	NextUpdate time.Time
	// Partition is where a list of a part of the certificates lies, the same
	// URL that those have as their distribution point; empty for a whole list.
	Partition string
}

// SignCRL makes a version 2 CRL, DER, and verifies it.
func (a *Authority) SignCRL(l CRL) ([]byte, error) {
	if a.Certificate.KeyUsage != 0 && a.Certificate.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, faultf(InvalidState, "the authority %s may not sign CRLs: its key usage lacks cRLSign", a.Certificate.Subject)
	}
	if !l.NextUpdate.After(l.ThisUpdate) {
		return nil, fmt.Errorf("sign CRL of %s: its next update %s is not after this one %s", a.Certificate.Subject, stamp(l.NextUpdate), stamp(l.ThisUpdate))
	}
	s, err := signingFor(DefaultSigning(a.issuer.public), a.issuer.public)
	if err != nil {
		return nil, err
	}
	list := &x509.RevocationList{
		SignatureAlgorithm: s.x509, Number: big.NewInt(l.ThisUpdate.UnixMilli()),
		ThisUpdate: l.ThisUpdate.UTC(), NextUpdate: l.NextUpdate.UTC(),
	}
	for _, r := range l.Revoked {
		code, ok := reasonCodes[r.Reason]
		if !ok {
			return nil, fmt.Errorf("sign CRL of %s: %s was revoked for the unknown reason %q", a.Certificate.Subject, DescribeSerial(r.Serial), r.Reason)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.At.UTC(), ReasonCode: code})
	}
	if l.Partition != "" {
		extension, err := idpExtension(l.Partition)
		if err != nil {
			return nil, err
		}
		list.ExtraExtensions = []pkix.Extension{extension}
	}
	// The list names its authority by the key id that the certificates have.
	signer := *a.Certificate
	signer.SubjectKeyId = a.issuer.keyID
	signer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, list, &signer, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign CRL of %s: %w", a.Certificate.Subject, err)
	}
	read, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("read the CRL of %s just signed: %w", a.Certificate.Subject, err)
	}
	if err := a.Certificate.CheckSignature(read.SignatureAlgorithm, read.RawTBSRevocationList, read.Signature); err != nil {
		return nil, fmt.Errorf("the signature of the CRL of %s just signed is wrong: %w", a.Certificate.Subject, err)
	}
	if len(read.RevokedCertificateEntries) != len(l.Revoked) || read.Number.Cmp(list.Number) != 0 {
		return nil, fmt.Errorf("the CRL of %s just signed is not the one that was decided", a.Certificate.Subject)
	}
	return der, nil
}

// idpExtension says that a CRL is of one distribution point only; critical, so
// that nobody takes it for a whole one (RFC 5280 5.2.5).
func idpExtension(url string) (pkix.Extension, error) {
	if !isIA5(url, 2048) {
		return pkix.Extension{}, fmt.Errorf("CRL partition %q is no URL", url)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addDistributionPointName(b, []string{url}) })
	return pkix.Extension{Id: oidIDP, Critical: true, Value: must(&b)}, nil
}
