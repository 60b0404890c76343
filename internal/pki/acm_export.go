package pki

import (
	"context"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// GetCertificate answers the certificate and the chain above it.
func (m *ACM) GetCertificate(ctx context.Context, in *acm.GetCertificateRequest) (*acm.GetCertificateResponse, error) {
	c, err := m.read(ctx, in.CertificateArn)
	if err != nil {
		return nil, err
	}
	if err := c.checkIssued(); err != nil {
		return nil, err
	}
	return &acm.GetCertificateResponse{Certificate: &c.Certificate, CertificateChain: c.chain()}, nil
}

// checkIssued wants a certificate to be there, if only an expired one.
func (c *certificate) checkIssued() error {
	switch c.Status {
	case acm.CertificateStatusPendingValidation:
		return acm.NewRequestInProgressException("Certificate ARN: %s is not issued yet. Wait until its status is ISSUED.", c.ARN)
	case acm.CertificateStatusFailed:
		return acm.NewValidationException("Certificate ARN: %s was not issued: %s. Delete it and request another.", c.ARN, c.Failure)
	}
	return nil
}

// chain is nil if there is none, as of an imported certificate it can be.
func (c *certificate) chain() *string {
	if c.Chain == "" {
		return nil
	}
	return &c.Chain
}

// ExportCertificate answers a private certificate with its key under the
// caller's passphrase.
func (m *ACM) ExportCertificate(ctx context.Context, in *acm.ExportCertificateRequest) (*acm.ExportCertificateResponse, error) {
	passphrase := []byte(in.Passphrase.Reveal())
	if err := ca.CheckPassphrase(passphrase); err != nil {
		return nil, acm.NewValidationException("Passphrase: %s", err.Error())
	}
	var exported *certificate
	var der []byte
	err := m.change(ctx, in.CertificateArn, func(tx *store.Tx, at store.Place, c *certificate) (bool, error) {
		if c.Type != acm.CertificateTypePrivate {
			return false, acm.NewValidationException("Certificate ARN: %s is not a private certificate", c.ARN)
		}
		if err := c.checkIssued(); err != nil {
			return false, err
		}
		var err error
		if der, err = tx.Secret(at); err != nil {
			return false, err
		}
		first := !c.Exported
		c.Exported = true
		exported = c
		return first, nil
	})
	if err != nil {
		return nil, err
	}
	key, err := ca.ParsePrivateKey(der)
	if err != nil {
		return nil, err
	}
	if err := m.exports.Acquire(ctx, 1); err != nil {
		return nil, failure(err)
	}
	defer m.exports.Release(1)
	text, err := ca.EncryptKey(key, passphrase)
	if err != nil {
		return nil, err
	}
	return &acm.ExportCertificateResponse{Certificate: &exported.Certificate, CertificateChain: exported.chain(), PrivateKey: api.NewSecret(string(text))}, nil
}
