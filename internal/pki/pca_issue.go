package pki

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
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
	Root        bool      `json:"root,omitzero"`       // the authority's own, which it signed itself
	Generation  int       `json:"generation,omitzero"` // of the authority

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

// issuing is a certificate on its way into the ledger.
type issuing struct {
	in      *acmpca.IssueCertificateRequest
	at      store.Place // of the authority
	token   store.Place
	request ca.Request
	entry   issued
	arn     string // its own
	signed  bool   // in an attempt at the transaction that did not succeed

	answer string // ARN: its own, or that of what the same request got before
	other  bool   // it certifies an authority that is not of this server
	err    error
}

// IssueCertificate signs a certificate and enters it in the ledger, before
// anybody can have it: both or neither is answered. An authority that was
// disabled or deleted meanwhile has issued nothing.
func (p *PrivateCA) IssueCertificate(ctx context.Context, in *acmpca.IssueCertificateRequest) (*acmpca.IssueCertificateResponse, error) {
	i := p.issueAll(ctx, []*acmpca.IssueCertificateRequest{in})[0]
	if i.err != nil {
		return nil, i.err
	}
	return &acmpca.IssueCertificateResponse{CertificateArn: &i.answer}, nil
}

// issueAll issues certificates, in one transaction if none of them is refused.
// The requests must not be the same under one token.
func (p *PrivateCA) issueAll(ctx context.Context, requests []*acmpca.IssueCertificateRequest) []*issuing {
	all := make([]*issuing, len(requests))
	var good []*issuing
	for n, in := range requests {
		all[n] = &issuing{in: in}
		if all[n].err = p.prepare(ctx, all[n]); all[n].err == nil {
			good = append(good, all[n])
		}
	}
	together(good, func(some []*issuing) error { //nolint:errcheck // each has its own error
		err := p.write(ctx, func(tx *store.Tx) error { return p.enter(tx, some) })
		for _, i := range some {
			i.err = err
		}
		return err
	})
	for _, i := range good {
		if i.err == nil && i.other {
			p.Log.WarnContext(ctx, "an authority that is not of this server was certified: until that certificate ends or is revoked, proxies that trust a root above get no CRLs, since those of that authority are missing",
				"authority", i.in.CertificateAuthorityArn, "certificate", i.answer)
		}
	}
	return all
}

// together does something to many in one transaction. Where that is refused it
// does it to one after the other, so that a bad one does not keep the rest from it.
func together[T any](many []T, do func(some []T) error) error {
	if len(many) == 0 {
		return nil
	}
	err := do(many)
	if err == nil || len(many) == 1 || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) {
		return err
	}
	var all []error
	for n := range many {
		all = append(all, do(many[n:n+1]))
	}
	return errors.Join(all...)
}

// prepare does what needs no transaction.
func (p *PrivateCA) prepare(ctx context.Context, i *issuing) (err error) {
	in := i.in
	if i.at, err = p.parseARN(ctx, "IssueCertificate", in.CertificateAuthorityArn); err != nil {
		return err
	}
	if i.request, err = p.request(in); err != nil {
		return failure(err)
	}
	if i.token, err = tokenOf("IssueCertificate", i.at[1], in.IdempotencyToken, in); err != nil {
		return err
	}
	r := i.request
	i.entry = issued{Template: r.Template.ARN(awsapi.Partition(p.Region)), Requester: awsapi.PrincipalFrom(ctx).ARN(), Service: serviceOf(ctx), IssuedAt: r.Now, Root: r.Template.Root()}
	i.arn = certificateARN(in.CertificateAuthorityArn, r.Serial.String())
	return nil
}

// enter signs certificates and stages them for the ledger.
func (p *PrivateCA) enter(tx *store.Tx, some []*issuing) error {
	var tokens []store.Place
	for _, i := range some {
		if i.token != nil {
			tokens = append(tokens, i.token)
		}
	}
	if err := tx.ReadAhead(tokens, nil); err != nil {
		return err
	}
	for _, i := range some {
		before, err := p.once(tx, i.token, i.arn)
		if i.answer = before; err != nil {
			return err
		}
		if before != "" {
			continue
		}
		i.answer = i.arn
		der, by, err := p.signRecalled(tx, i.at, i.request, i.signed)
		i.signed = true
		if err != nil {
			return err
		}
		i.entry.Generation = by.Generation
		if err := i.entry.describe(der); err != nil {
			return err
		}
		if i.other = false; i.request.Template.CA() && !i.request.Template.Root() {
			if i.other, err = p.noteOther(tx, i.at, der); err != nil {
				return err
			}
		}
		if err := store.MakeObject(tx, certificatePlace(i.at[2], i.request.Serial.String()), &i.entry); err != nil {
			return err
		}
	}
	return nil
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

// fetching is a certificate on its way out of the ledger.
type fetching struct {
	in     *acmpca.GetCertificateRequest
	at     store.Place // of the authority
	serial string
	out    *acmpca.GetCertificateResponse
	err    error
}

// GetCertificate returns a certificate from the ledger: also one that has
// expired or was revoked.
func (p *PrivateCA) GetCertificate(ctx context.Context, in *acmpca.GetCertificateRequest) (*acmpca.GetCertificateResponse, error) {
	f := p.fetchAll(ctx, []*acmpca.GetCertificateRequest{in})[0]
	return f.out, f.err
}

// fetchAll gets certificates as of one revision.
func (p *PrivateCA) fetchAll(ctx context.Context, requests []*acmpca.GetCertificateRequest) []*fetching {
	all := make([]*fetching, len(requests))
	var good []*fetching
	for n, in := range requests {
		f := &fetching{in: in}
		if f.at, f.err = p.parseARN(ctx, "GetCertificate", in.CertificateAuthorityArn); f.err == nil {
			f.serial, f.err = parseCertificateARN(in.CertificateAuthorityArn, in.CertificateArn)
		}
		if all[n] = f; f.err == nil {
			good = append(good, f)
		}
	}
	together(good, func(some []*fetching) error { //nolint:errcheck // each has its own error
		err := p.read(ctx, func(tx *store.Tx) error {
			var places []store.Place
			for _, f := range some {
				places = append(places, f.at, certificatePlace(f.at[2], f.serial))
			}
			if err := tx.ReadAhead(places, nil); err != nil {
				return err
			}
			for _, f := range some {
				if err := p.fetch(tx, f); err != nil {
					return err
				}
			}
			return nil
		})
		for _, f := range some {
			if f.err = err; err != nil {
				f.out = nil
			}
		}
		return err
	})
	return all
}

func (p *PrivateCA) fetch(tx *store.Tx, f *fetching) error {
	a, err := p.get(tx, f.at)
	if err != nil {
		return err
	}
	if err := p.can(a.Value, doShow, p.Now()); err != nil {
		return err
	}
	c, err := store.GetObject[issued](tx, certificatePlace(f.at[2], f.serial))
	if isNotFound(err) {
		return acmpca.NewResourceNotFoundException("The certificate %s does not exist", f.in.CertificateArn)
	}
	if err != nil {
		return err
	}
	f.out = &acmpca.GetCertificateResponse{Certificate: pemText(c.Value.Certificate)}
	if !c.Value.Root {
		issuer := a.Value.own(c.Value.Generation)
		if issuer == nil {
			return acmpca.NewInvalidStateException("The certificate %s was issued by a root that is past and gone", f.in.CertificateArn)
		}
		f.out.CertificateChain = pemText(append([][]byte{issuer}, a.Value.Chain...)...)
	}
	return nil
}
