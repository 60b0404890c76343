package pki

import (
	"context"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// GetCertificateAuthorityCsr returns the authority's CSR, always the same bytes.
func (p *PrivateCA) GetCertificateAuthorityCsr(ctx context.Context, in *acmpca.GetCertificateAuthorityCsrRequest) (*acmpca.GetCertificateAuthorityCsrResponse, error) {
	a, err := p.show(ctx, "GetCertificateAuthorityCsr", in.CertificateAuthorityArn, doShowCSR)
	if err != nil {
		return nil, err
	}
	csr := string(a.CSR)
	return &acmpca.GetCertificateAuthorityCsrResponse{Csr: &csr}, nil
}

// GetCertificateAuthorityCertificate returns the authority's own certificate and
// those above it, root last; a root has none above it.
func (p *PrivateCA) GetCertificateAuthorityCertificate(ctx context.Context, in *acmpca.GetCertificateAuthorityCertificateRequest) (*acmpca.GetCertificateAuthorityCertificateResponse, error) {
	a, err := p.show(ctx, "GetCertificateAuthorityCertificate", in.CertificateAuthorityArn, doShowOwn)
	if err != nil {
		return nil, err
	}
	out := &acmpca.GetCertificateAuthorityCertificateResponse{Certificate: pemText(a.Certificate)}
	if len(a.Chain) > 0 {
		out.CertificateChain = pemText(a.Chain...)
	}
	return out, nil
}

// show reads an authority for a deed that changes nothing.
func (p *PrivateCA) show(ctx context.Context, operation, arn string, do deed) (*authority, error) {
	at, err := p.parseARN(ctx, operation, arn)
	if err != nil {
		return nil, err
	}
	var a *authority
	err = p.read(ctx, func(tx *store.Tx) error {
		o, err := p.get(tx, at)
		if err != nil {
			return err
		}
		a = o.Value
		return p.can(a, do, p.Now())
	})
	return a, err
}

// ImportCertificateAuthorityCertificate gives the authority its certificate, the
// first or a renewed one for the same key.
func (p *PrivateCA) ImportCertificateAuthorityCertificate(ctx context.Context, in *acmpca.ImportCertificateAuthorityCertificateRequest) error {
	at, err := p.parseARN(ctx, "ImportCertificateAuthorityCertificate", in.CertificateAuthorityArn)
	if err != nil {
		return err
	}
	return p.write(ctx, func(tx *store.Tx) error {
		return p.change(tx, at, doImport, func(a *authority, now time.Time) error {
			csr, err := ca.ParseCSR(a.CSR)
			if err != nil {
				return err
			}
			own, chain, err := ca.AuthorityImport{
				Root: a.Type == acmpca.CertificateAuthorityTypeRoot, CSR: csr,
				Certificate: in.Certificate, Chain: in.CertificateChain, Now: now,
			}.Check()
			if err != nil {
				return err
			}
			if err := p.adopt(tx, a, chain); err != nil {
				return err
			}
			a.Certificate, a.Chain = own.Raw, nil
			for _, c := range chain {
				a.Chain = append(a.Chain, c.Raw)
			}
			a.Serial, a.NotBefore, a.NotAfter = ca.DescribeSerial(own.SerialNumber), own.NotBefore, own.NotAfter
			// An expired one that was disabled stays so.
			if a.Status == pending {
				a.shift(active, now)
			}
			key, err := openKey(tx, at)
			if err != nil {
				return err
			}
			by, err := a.join(key)
			if err != nil {
				return err
			}
			return p.list(tx, a, by, listChange{})
		})
	})
}
