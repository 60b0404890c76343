package pki

import (
	"context"
	"errors"
	"net/http"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// AdoptCertificateInput says what is to be under an ARN of ACM: a certificate
// that an authority is to issue, or one that is given with its key.
type AdoptCertificateInput struct {
	ARN string `json:"arn" required:"true" min:"1" max:"200"`

	Authority *string  `json:"authority,omitzero" min:"1" max:"200"` // ARN of who issues it
	Names     []string `json:"names,omitzero" min:"1" max:"100" each-min:"1" each-max:"253"`

	Certificate *string    `json:"certificate,omitzero" min:"1" max:"32768"` // PEM
	Chain       *string    `json:"chain,omitzero" min:"1" max:"2097152"`     // PEM, from its issuer to a root
	PrivateKey  api.Secret `json:"privateKey,omitzero" min:"1" max:"5120"`   // PEM
}

// MountOperator routes what the operator API has of ACM.
func (m *ACM) MountOperator(mux *awsapi.Mux) {
	m.mountRenewals(mux)
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/certificates/adopt", "AdoptCertificate", func(ctx context.Context, r *awsapi.Request) (any, error) {
		var in AdoptCertificateInput
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		out, err := m.AdoptCertificate(ctx, &in)
		if err != nil {
			return nil, err
		}
		return out, nil
	})
}

// AdoptCertificate puts a certificate under an ARN that was another's, AWS's: one
// that Run issues and renews as others, or one that is imported.
func (m *ACM) AdoptCertificate(ctx context.Context, in *AdoptCertificateInput) (*Adoption, error) {
	owner, id, err := parseAdopted(in.ARN, m.Region, "acm", "certificate")
	if err != nil {
		return nil, err
	}
	if own := account(ctx); owner != own {
		return nil, badARN("arn: %s is of the account %s, and this server's is %s: only mesh endpoints of its own account may use a certificate, and nobody here could manage it. To keep the ARNs make a server with --account-id %[2]s and a new --data-dir", in.ARN, owner, own)
	}
	c, imported, err := m.adopted(ctx, in)
	if err != nil {
		return nil, failure(err)
	}
	out := &Adoption{ARN: in.ARN}
	_, err = m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		at := store.Place{kindCertificate, owner, id}
		o, err := store.GetObject[certificate](tx, at)
		if err == nil {
			out.Status, out.Adopted = string(o.Value.status(m.Now())), false
			if again, err := o.Value.sameAs(c); err != nil || !again {
				return err
			}
		} else if !isNotFound(err) {
			return err
		}
		out.Status, out.Adopted = string(c.Status), true
		if imported != nil {
			key, err := imported.Key.PKCS8()
			if err != nil {
				return err
			}
			above := newChain(imported.Chain)
			return errors.Join(c.trace(tx, above), c.putKey(tx, at, key, above))
		}
		if err := c.put(tx, at); err != nil {
			return err
		}
		if _, err := store.GetObject[task](tx, taskPlace(at)); err != nil && !isNotFound(err) {
			return err
		}
		return store.PutObject(tx, taskPlace(at), &task{ARN: c.ARN, Algorithm: c.Algorithm})
	})
	if err != nil {
		return nil, failure(err)
	}
	if out.Adopted {
		m.Log.InfoContext(ctx, "certificate was adopted", "arn", in.ARN, "type", c.Type, "authority", c.Authority, "actor", awsapi.PrincipalFrom(ctx).ARN())
		m.sayNoCRLs(ctx, c.ARN, c.NoCRLs)
		m.kick()
	}
	return out, nil
}

// sameAs wants what is under an ARN to be what is to be adopted under it. Again
// says that it was never issued and failed: then it is tried anew.
func (c *certificate) sameAs(next *certificate) (again bool, err error) {
	switch {
	case c.Status == acm.CertificateStatusFailed && c.Generation == 0:
		return true, nil
	case c.Type != next.Type:
		return false, taken(c.ARN, "a certificate of the type %s", c.Type)
	case c.Type == acm.CertificateTypeImported && (c.Certificate != next.Certificate || c.Chain != next.Chain):
		return false, taken(c.ARN, "an imported certificate with another certificate or chain, serial number %s. Replace it with aws acm import-certificate --certificate-arn", c.Serial)
	case c.Type == acm.CertificateTypePrivate && c.fingerprint() != next.fingerprint():
		return false, taken(c.ARN, "a certificate of %s for %.300q", c.Authority, c.Names)
	}
	return false, nil
}

// adopted is the certificate that is to be under an ARN, with its parts if it is
// imported.
func (m *ACM) adopted(ctx context.Context, in *AdoptCertificateInput) (c *certificate, imported *ca.Imported, err error) {
	issue := in.Authority != nil || in.Names != nil
	if imports := in.Certificate != nil || in.Chain != nil || in.PrivateKey != (api.Secret{}); imports == issue {
		return nil, nil, acm.NewInvalidParameterException("give either authority and names, for a certificate that is issued here, or certificate, privateKey and chain")
	}
	if issue {
		c, err = m.issuable(ctx, in)
		return c, nil, err
	}
	if in.Certificate == nil || in.Chain == nil || in.PrivateKey == (api.Secret{}) {
		return nil, nil, acm.NewInvalidParameterException("certificate, privateKey and chain: all three are needed; clients without a policy of their own validate against the root that the chain ends in")
	}
	imported, err = m.checkImport(&acm.ImportCertificateRequest{
		Certificate: []byte(*in.Certificate), CertificateChain: []byte(*in.Chain), PrivateKey: api.NewSecretBlob([]byte(in.PrivateKey.Reveal())),
	}, nil)
	if err != nil {
		return nil, nil, err
	}
	if !ca.EndsInRoot(imported.Chain) {
		return nil, nil, acm.NewInvalidParameterException("chain: it does not end in a self-signed root, which clients without a policy of their own validate against: add the certificates above, the root last")
	}
	now := m.Now().UTC()
	c = &certificate{
		ARN: in.ARN, Type: acm.CertificateTypeImported, Created: now, Tags: map[string]string{},
		Logging: string(acm.CertificateTransparencyLoggingPreferenceDisabled),
	}
	c.take(imported)
	c.Imported = now
	return c, imported, nil
}

// issuable is a certificate that waits to be issued, by an authority that can.
func (m *ACM) issuable(ctx context.Context, in *AdoptCertificateInput) (*certificate, error) {
	if in.Authority == nil || len(in.Names) == 0 {
		return nil, acm.NewInvalidParameterException("authority and names: both are needed for a certificate that is issued here")
	}
	c, err := m.requested(&acm.RequestCertificateRequest{CertificateAuthorityArn: in.Authority, DomainName: in.Names[0], SubjectAlternativeNames: in.Names[1:]})
	if err != nil {
		return nil, err
	}
	c.ARN = in.ARN
	described, err := m.Authorities.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: c.Authority})
	if err != nil {
		return nil, err
	}
	if status := described.CertificateAuthority.Status; status == nil || *status != active {
		return nil, acm.NewInvalidParameterException("authority: %s is not ACTIVE and cannot issue", c.Authority)
	}
	// Only an authority with a key has a CSR to show, and the refusal says how it
	// gets one.
	if _, err := m.Authorities.GetCertificateAuthorityCsr(ctx, &acmpca.GetCertificateAuthorityCsrRequest{CertificateAuthorityArn: c.Authority}); err != nil {
		return nil, err
	}
	return c, nil
}
