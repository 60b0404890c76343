package pki

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// issued is a certificate in the ledger of its authority.
type issued struct {
	Certificate []byte    `json:"certificate"`      // DER
	Template    string    `json:"template"`         // ARN
	Requester   string    `json:"requester"`        // ARN of the principal
	Service     string    `json:"service,omitzero"` // principal of the service that asked for the requester
	IssuedAt    time.Time `json:"issuedAt"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	Subject     string    `json:"subject"`
	Root        bool      `json:"root,omitzero"` // the authority's own, which it signed itself

	RevokedAt time.Time `json:"revokedAt,omitzero"`
	Reason    ca.Reason `json:"reason,omitzero"`
}

type serviceKey struct{}

// AsService marks requests that a service makes for its caller: a service's
// principal, such as acm.amazonaws.com, is in audit reports.
func AsService(ctx context.Context, principal string) context.Context {
	return context.WithValue(ctx, serviceKey{}, principal)
}

func serviceOf(ctx context.Context) string {
	principal, _ := ctx.Value(serviceKey{}).(string)
	return principal
}

// IssueCertificate signs a certificate and enters it in the ledger, before
// anybody can have it: both or neither is answered. An authority that was
// disabled or deleted meanwhile has issued nothing.
func (p *PrivateCA) IssueCertificate(ctx context.Context, in *acmpca.IssueCertificateRequest) (*acmpca.IssueCertificateResponse, error) {
	at, err := p.parseARN(ctx, "IssueCertificate", in.CertificateAuthorityArn)
	if err != nil {
		return nil, err
	}
	r, err := p.request(in)
	if err != nil {
		return nil, failure(err)
	}
	token, err := tokenOf("IssueCertificate", at[1], in.IdempotencyToken, in)
	if err != nil {
		return nil, err
	}
	entry := issued{Template: r.Template.ARN(awsapi.Partition(p.Region)), Requester: awsapi.PrincipalFrom(ctx).ARN(), Service: serviceOf(ctx), IssuedAt: r.Now, Root: r.Template.Root()}
	arn := certificateARN(in.CertificateAuthorityArn, r.Serial.String())
	answer, again, other := arn, false, false
	err = p.write(ctx, func(tx *store.Tx) error {
		before, err := p.once(tx, token, arn)
		if err != nil || before != "" {
			answer = before
			return err
		}
		answer = arn
		der, err := p.signRecalled(tx, at, r, again)
		again = true
		if err != nil {
			return err
		}
		if err := entry.describe(der); err != nil {
			return err
		}
		if other = false; r.Template.CA() && !r.Template.Root() {
			if other, err = p.noteOther(tx, at, der); err != nil {
				return err
			}
		}
		return store.MakeObject(tx, certificatePlace(at[2], r.Serial.String()), &entry)
	})
	if err != nil {
		return nil, err
	}
	if other {
		p.Log.WarnContext(ctx, "an authority that is not of this server was certified: until that certificate ends or is revoked, proxies that trust a root above get no CRLs, since those of that authority are missing",
			"authority", in.CertificateAuthorityArn, "certificate", answer)
	}
	return &acmpca.IssueCertificateResponse{CertificateArn: &answer}, nil
}

// request is what does not depend on the authority.
func (p *PrivateCA) request(in *acmpca.IssueCertificateRequest) (ca.Request, error) {
	template, err := p.parseTemplate(in.TemplateArn)
	if err != nil {
		return ca.Request{}, err
	}
	csr, err := ca.ParseCSR(in.Csr)
	if err != nil {
		return ca.Request{}, err
	}
	serial, err := ca.NewSerial(rand.Reader)
	if err != nil {
		return ca.Request{}, err
	}
	r := ca.Request{
		CSR: csr, Template: template, Passthrough: passthroughOf(in.ApiPassthrough),
		Algorithm: ca.SigningAlgorithm(in.SigningAlgorithm), Validity: validityOf(*in.Validity),
		Now: p.Now().UTC(), Serial: serial,
	}
	if in.ValidityNotBefore != nil {
		v := validityOf(*in.ValidityNotBefore)
		r.NotBefore = &v
	}
	return r, nil
}

func (e *issued) describe(der []byte) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read the certificate just signed: %w", err)
	}
	e.Certificate, e.NotBefore, e.NotAfter, e.Subject = der, c.NotBefore, c.NotAfter, ca.DescribeName(c.RawSubject)
	return nil
}

// GetCertificate returns a certificate from the ledger: also one that has
// expired or was revoked.
func (p *PrivateCA) GetCertificate(ctx context.Context, in *acmpca.GetCertificateRequest) (*acmpca.GetCertificateResponse, error) {
	at, err := p.parseARN(ctx, "GetCertificate", in.CertificateAuthorityArn)
	if err != nil {
		return nil, err
	}
	serial, err := parseCertificateARN(in.CertificateAuthorityArn, in.CertificateArn)
	if err != nil {
		return nil, err
	}
	var out *acmpca.GetCertificateResponse
	err = p.read(ctx, func(tx *store.Tx) error {
		a, err := p.get(tx, at)
		if err != nil {
			return err
		}
		if err := p.can(a.Value, doShow, p.Now()); err != nil {
			return err
		}
		c, err := store.GetObject[issued](tx, certificatePlace(at[2], serial))
		if isNotFound(err) {
			return acmpca.NewResourceNotFoundException("The certificate %s does not exist", in.CertificateArn)
		}
		if err != nil {
			return err
		}
		out = &acmpca.GetCertificateResponse{Certificate: pemText(c.Value.Certificate)}
		if !c.Value.Root {
			out.CertificateChain = pemText(append([][]byte{a.Value.Certificate}, a.Value.Chain...)...)
		}
		return nil
	})
	return out, err
}
