package ca

import (
	"bytes"
	"crypto/x509"
	"fmt"
)

// lint reads the draft as a throw-away key signed it, as any client would, and
// holds it against its profile and its issuer. What it finds is the caller's
// mistake: a passthrough asked for something that no certificate may have.
func (d *draft) lint(der []byte, i *issuer) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return faultf(InvalidArgs, "the certificate could not be read by its clients: %v", err)
	}
	for _, check := range []func(*x509.Certificate, *issuer) error{d.lintSerial, d.lintValidity, d.lintKeyIDs, d.lintAuthority, d.lintNames, d.lintOwn} {
		if err := check(c, i); err != nil {
			return err
		}
	}
	return checkConstraints(c, i.chain)
}

// lintSerial is not the caller's mistake: serials are drawn here.
func (d *draft) lintSerial(c *x509.Certificate, _ *issuer) error {
	// 128 random bits are below 2^64 once in 2^64 times.
	if n := c.SerialNumber.BitLen(); n < 64 || n > 128 {
		return fmt.Errorf("serial %s is not 128 random bits", d.serial)
	}
	return nil
}

func (d *draft) lintValidity(c *x509.Certificate, i *issuer) error {
	if !c.NotBefore.Equal(d.notBefore) || !c.NotAfter.Equal(d.notAfter) || !c.NotAfter.After(c.NotBefore) {
		return fmt.Errorf("certificate %s is valid from %s to %s; decided was %s to %s", d.serial, stamp(c.NotBefore), stamp(c.NotAfter), stamp(d.notBefore), stamp(d.notAfter))
	}
	if !d.profile.root && c.NotAfter.After(i.notAfter) {
		return faultf(InvalidDuration, "the certificate would end at %s, its authority at %s", stamp(c.NotAfter), stamp(i.notAfter))
	}
	return nil
}

func (d *draft) lintKeyIDs(c *x509.Certificate, i *issuer) error {
	if len(c.SubjectKeyId) == 0 {
		return fmt.Errorf("certificate %s has no subject key id", d.serial)
	}
	if !d.profile.root && !bytes.Equal(c.AuthorityKeyId, i.keyID) {
		return fmt.Errorf("certificate %s has another authority key id than its authority", d.serial)
	}
	return nil
}

// lintAuthority holds what makes an authority, and nothing else may have.
func (d *draft) lintAuthority(c *x509.Certificate, _ *issuer) error {
	p := d.profile
	if !c.BasicConstraintsValid || c.IsCA != p.isCA {
		return fmt.Errorf("certificate %s has other basic constraints than decided", d.serial)
	}
	if p.isCA {
		if p.pathLen != c.MaxPathLen || c.MaxPathLenZero != (p.pathLen == 0) {
			return fmt.Errorf("certificate %s has another path length than decided", d.serial)
		}
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return faultf(InvalidArgs, "the key usage of an authority must have keyCertSign")
		}
		return nil
	}
	// RFC 5280 4.2.1.3 and 4.2.1.10.
	if c.KeyUsage&x509.KeyUsageCertSign != 0 {
		return faultf(InvalidArgs, "key usage keyCertSign is only for authorities: use a SubordinateCACertificate template")
	}
	if find(c.Extensions, oidNameConstraints) != nil {
		return faultf(InvalidArgs, "name constraints are only for authorities: use a SubordinateCACertificate template")
	}
	return nil
}

// lintNames refuses names that different clients read differently. Private CA
// copies the CSR's names without a look; control characters are the exception.
func (d *draft) lintNames(c *x509.Certificate, _ *issuer) error {
	for _, name := range c.DNSNames {
		if !isIA5(name, 253) {
			return faultf(InvalidArgs, "the DNS name %.64q must be 1 to 253 printable ASCII characters", name)
		}
	}
	if san := find(c.Extensions, oidSAN); san != nil && bytes.Equal(san.Value, emptyName) {
		return faultf(InvalidArgs, "the subject alternative name extension has no names")
	}
	if bytes.Equal(c.RawSubject, emptyName) {
		if san := find(c.Extensions, oidSAN); san == nil || !san.Critical {
			return fmt.Errorf("certificate %s has no subject and no critical names", d.serial)
		}
	}
	return nil
}

// lintOwn is for Fairlead's own leaves, which no API shapes: exactly these
// usages, whole names, a P-256 key (RFC 8813: no keyEncipherment on it).
func (d *draft) lintOwn(c *x509.Certificate, _ *issuer) error {
	if !d.profile.own {
		return nil
	}
	if AlgorithmOf(c.PublicKey) != P256 || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.UnknownExtKeyUsage) > 0 ||
		len(c.ExtKeyUsage) != 2 || c.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || c.ExtKeyUsage[1] != x509.ExtKeyUsageClientAuth {
		return fmt.Errorf("certificate %s has another key or other usages than a leaf of a mesh", d.serial)
	}
	for _, name := range c.DNSNames {
		if err := CheckDNSName(name); err != nil {
			return err
		}
	}
	for _, uri := range c.URIs {
		if err := CheckSPIFFEID(uri.String()); err != nil {
			return err
		}
	}
	return nil
}
