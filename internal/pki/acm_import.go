package pki

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// ImportCertificate takes a certificate with its key, new or in the place of
// one that was imported before.
func (m *ACM) ImportCertificate(ctx context.Context, in *acm.ImportCertificateRequest) (*acm.ImportCertificateResponse, error) {
	if in.CertificateArn != nil {
		return m.reimport(ctx, in)
	}
	imported, err := m.checkImport(in, nil)
	if err != nil {
		return nil, err
	}
	key, err := imported.Key.PKCS8()
	if err != nil {
		return nil, err
	}
	now := m.Now().UTC()
	c := &certificate{
		ARN: m.newCertificateARN(account(ctx)), Type: acm.CertificateTypeImported, Created: now,
		Logging: string(acm.CertificateTransparencyLoggingPreferenceDisabled),
	}
	if c.Tags, err = tagsOf(in.Tags); err != nil {
		return nil, err
	}
	c.take(imported)
	c.Imported = now
	at, err := acmPlace(c.ARN)
	if err != nil {
		return nil, err
	}
	_, err = m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		if err := store.MakeObject(tx, at, c); err != nil {
			return err
		}
		above := newChain(imported.Chain)
		if err := c.trace(tx, above); err != nil {
			return err
		}
		return c.putKey(tx, at, key, above)
	})
	if err != nil {
		return nil, failure(err)
	}
	m.sayNoCRLs(ctx, c.ARN, c.NoCRLs)
	return &acm.ImportCertificateResponse{CertificateArn: &c.ARN}, nil
}

func (m *ACM) reimport(ctx context.Context, in *acm.ImportCertificateRequest) (*acm.ImportCertificateResponse, error) {
	if len(in.Tags) > 0 {
		return nil, acm.NewInvalidParameterException("Tags: a certificate that is imported again keeps its tags; change them with add-tags-to-certificate")
	}
	err := m.change(ctx, *in.CertificateArn, func(tx *store.Tx, at store.Place, c *certificate) (bool, error) {
		if c.Type != acm.CertificateTypeImported {
			return false, acm.NewValidationException("CertificateArn: %s was not imported; only an imported certificate can be imported again", c.ARN)
		}
		previous, err := parseCertificate(c.Certificate)
		if err != nil {
			return false, err
		}
		imported, err := m.checkImport(in, previous)
		if err != nil {
			return false, err
		}
		key, err := imported.Key.PKCS8()
		if err != nil {
			return false, err
		}
		c.take(imported)
		c.Imported = m.Now().UTC()
		above := newChain(imported.Chain)
		if err := c.trace(tx, above); err != nil {
			return false, err
		}
		if err := m.keepsRoot(tx, c); err != nil {
			return false, err
		}
		return true, c.putKey(tx, at, key, above)
	})
	if err != nil {
		return nil, err
	}
	return &acm.ImportCertificateResponse{CertificateArn: in.CertificateArn}, nil
}

// keepsRoot refuses to take the root from a certificate that meshes use: their
// clients validate against it.
func (m *ACM) keepsRoot(tx *store.Tx, c *certificate) error {
	served, err := c.served()
	if err != nil || served.Roots != "" {
		return err
	}
	users, err := m.users(tx, c.ARN)
	if err != nil || len(users) == 0 {
		return err
	}
	return acm.NewInvalidParameterException("CertificateChain: %s is in use by %s, whose clients validate it: the chain must lead to a root, and include it", c.ARN, users[0])
}

func (m *ACM) checkImport(in *acm.ImportCertificateRequest, previous *x509.Certificate) (*ca.Imported, error) {
	imported, err := ca.CertificateImport{
		Certificate: in.Certificate, Key: []byte(in.PrivateKey.Reveal()), Chain: in.CertificateChain, Previous: previous, Now: m.Now(),
	}.Check()
	if ca.KindOf(err) != "" {
		return nil, acm.NewInvalidParameterException("%s", err.Error())
	}
	return imported, err
}

// take makes a certificate that was issued or imported the current one.
func (c *certificate) take(i *ca.Imported) {
	leaf := i.Certificate
	c.Status = acm.CertificateStatusIssued
	c.Algorithm = acm.KeyAlgorithm(ca.AlgorithmOf(leaf.PublicKey))
	c.Certificate, c.Chain = string(ca.EncodePEM(leaf.Raw)), ""
	for _, above := range i.Chain {
		c.Chain += string(ca.EncodePEM(above.Raw))
	}
	c.NotBefore, c.NotAfter = leaf.NotBefore.UTC(), leaf.NotAfter.UTC()
	c.Serial = ca.DescribeSerial(leaf.SerialNumber)
	c.Generation++
	c.Exported = false
	if c.Type == acm.CertificateTypeImported {
		c.Names = importedNames(leaf)
		c.Domain = ""
		if len(c.Names) > 0 {
			c.Domain = c.Names[0]
		}
	}
}

// importedNames are a certificate's common name, if it is a host's, and its DNS
// names.
func importedNames(leaf *x509.Certificate) []string {
	var all []string
	if name := leaf.Subject.CommonName; strings.Contains(name, ".") && ca.CheckDNSName(name) == nil {
		all = append(all, name)
	}
	return distinctNames(append(all, leaf.DNSNames...))
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("read certificate: it is not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return c, nil
}
