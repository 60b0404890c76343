package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// adoptedYears is how long a root that is made under an old ARN is valid.
const adoptedYears = 10

// AdoptAuthorityInput says what is to be under an ARN of Private CA: the
// authority of a certificate, or a new root.
type AdoptAuthorityInput struct {
	ARN         string     `json:"arn" required:"true" min:"1" max:"200"`
	Certificate *string    `json:"certificate,omitzero" min:"1" max:"32768"` // PEM
	Chain       *string    `json:"chain,omitzero" min:"1" max:"2097152"`     // PEM, of a subordinate: its parent first, a root last
	PrivateKey  api.Secret `json:"privateKey,omitzero" min:"1" max:"5120"`   // PEM; absent: it can be trusted, and nothing else
	Issue       *bool      `json:"issue,omitzero"`                           // make a new key and root
	CommonName  *string    `json:"commonName,omitzero" min:"1" max:"64"`     // of the new root
}

func (p *PrivateCA) adoptAuthority(ctx context.Context, r *awsapi.Request) (any, error) {
	var in AdoptAuthorityInput
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	out, err := p.AdoptAuthority(ctx, &in)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// adopted is an authority that is to be under an ARN, with what belongs to it.
type adopted struct {
	*authority
	certificate *x509.Certificate
	above       []*x509.Certificate
	key         ca.PrivateKey
	secret      []byte  // the key, PKCS #8; nil: not known
	serial      string  // of the root in the ledger
	ledger      *issued // the root's own certificate; nil: it was not made here
}

// AdoptAuthority puts an authority under an ARN that was another's: that of AWS,
// of an account that need not be this server's. Whose key is not given can be
// trusted and no more, until it is adopted again with its key; it is renewed by
// adopting the new certificate. ACM may use
// whatever is adopted.
func (p *PrivateCA) AdoptAuthority(ctx context.Context, in *AdoptAuthorityInput) (*Adoption, error) {
	owner, id, err := parseAdopted(in.ARN, p.Region, "acm-pca", "certificate-authority")
	if err != nil {
		return nil, err
	}
	var next *adopted
	if set(in.Issue) {
		next, err = p.newRoot(ctx, in)
	} else {
		next, err = p.given(in)
	}
	if ca.KindOf(err) == ca.InvalidParameter { // of a key, whose rules are ACM's
		err = acmpca.NewInvalidArgsException("%s", err.Error())
	}
	if err != nil {
		return nil, failure(err)
	}
	if err := p.settle(ctx, next.authority, owner, id, in.ARN); err != nil {
		return nil, err
	}
	out := &Adoption{ARN: in.ARN}
	at := placeOf(owner, id)
	err = p.write(ctx, func(tx *store.Tx) error {
		now := p.Now()
		o, err := store.GetObject[authority](tx, at)
		switch {
		case isNotFound(err):
			out.Adopted, out.Status = true, string(next.statusAt(now))
			return p.make(tx, at, next)
		case err != nil:
			return err
		}
		out.Status, out.Adopted = string(o.Value.statusAt(now)), false
		renewed, err := next.renews(o.Value)
		if err != nil {
			return err
		}
		if renewed {
			is := o.Value
			is.Certificate, is.Chain, is.Serial, is.NotBefore, is.NotAfter = next.Certificate, next.Chain, next.Serial, next.NotBefore, next.NotAfter
			out.Status = string(is.statusAt(now))
		}
		if err := p.same(o.Value, next, in, now); err != nil {
			return err
		}
		if out.Adopted = renewed || o.Value.keyless() && next.secret != nil; !out.Adopted {
			return nil
		}
		if next.secret != nil {
			o.Value.CSR = next.CSR
			if err := tx.PutSecret(at, next.secret); err != nil {
				return err
			}
		}
		return errors.Join(p.put(tx, at, o.Value), p.firstList(tx, o.Value, next))
	})
	if err == nil && next.ledger == nil && next.Type == acmpca.CertificateAuthorityTypeRoot {
		err = failure(p.rootOf(ctx, in.ARN, next.Certificate))
	}
	if err != nil {
		return nil, err
	}
	if out.Adopted {
		p.Log.InfoContext(ctx, "certificate authority was adopted", "arn", in.ARN, "new_root", set(in.Issue), "key", next.secret != nil, "actor", awsapi.PrincipalFrom(ctx).ARN())
	}
	return out, nil
}

// make stages a new authority.
func (p *PrivateCA) make(tx *store.Tx, at store.Place, n *adopted) error {
	if o, err := store.GetObject[owner](tx, ownerPlace(n.ID)); err == nil {
		return taken("the id "+n.ID, "it is an authority of account %s; lists of revoked certificates are found by the id", o.Value.Account)
	} else if !isNotFound(err) {
		return err
	}
	keyAt := keyPlace(n.certificate.RawSubjectPublicKeyInfo)
	if o, err := store.GetObject[keyOwner](tx, keyAt); err == nil {
		return taken("the public key of that certificate", "it is that of the authority %s", o.Value.ARN)
	} else if !isNotFound(err) {
		return err
	}
	if err := p.adopt(tx, n.authority, n.above); err != nil {
		return err
	}
	if err := errors.Join(
		p.put(tx, at, n.authority), store.PutObject(tx, ownerPlace(n.ID), &owner{n.Account}),
		store.PutObject(tx, keyAt, &keyOwner{p.arn(n.Account, n.ID)}), p.firstList(tx, n.authority, n),
	); err != nil {
		return err
	}
	if n.ledger != nil {
		if err := store.MakeObject(tx, certificatePlace(n.ID, n.serial), n.ledger); err != nil {
			return err
		}
	}
	if n.secret == nil {
		return nil
	}
	return tx.PutSecret(at, n.secret)
}

// firstList makes the list that proxies get of an adopted authority. One whose key
// is not known has none, and of one that has issued elsewhere nobody here knows
// the authorities below it: where that matters proxies get none, either.
func (p *PrivateCA) firstList(tx *store.Tx, a *authority, n *adopted) error {
	if n.secret == nil {
		return p.list(tx, a, nil, listChange{})
	}
	by, err := ca.NewAuthority(n.certificate, n.above, n.key.Signer())
	if err != nil {
		return err
	}
	var change listChange
	if n.ledger == nil {
		change.unknownUntil = n.certificate.NotAfter.UTC()
	}
	return p.list(tx, a, by, change)
}

// renews says whether the certificate is the successor, of the same key and subject,
// of the one that is all that is known of an authority: no other call takes it.
func (n *adopted) renews(is *authority) (bool, error) {
	if !is.keyless() || is.Type != n.Type || !n.NotAfter.After(is.NotAfter) {
		return false, nil
	}
	before, err := x509.ParseCertificate(is.Certificate)
	if err != nil {
		return false, fmt.Errorf("read the certificate of authority %s: %w", is.ID, err)
	}
	return bytes.Equal(before.RawSubjectPublicKeyInfo, n.certificate.RawSubjectPublicKeyInfo) && bytes.Equal(before.RawSubject, n.certificate.RawSubject), nil
}

// rootOf notes which imported certificates chain to a root that is adopted after
// them. Whoever ends in between adopts it again.
func (p *PrivateCA) rootOf(ctx context.Context, arn string, root []byte) error {
	return each(ctx, p.Store, store.Place{kindCertificate}, func(o *store.Object[certificate]) error {
		if same, err := o.Value.chainsTo(root); err != nil || !same || o.Value.Root == arn {
			return err
		}
		_, err := p.Store.Write(ctx, func(tx *store.Tx) error {
			now, err := store.GetObject[certificate](tx, o.Place)
			if err != nil {
				return ignoreNotFound(err)
			}
			if same, err := now.Value.chainsTo(root); err != nil || !same {
				return err
			}
			now.Value.Root = arn
			return now.Value.put(tx, o.Place)
		})
		return err
	})
}

// chainsTo says whether an imported certificate's chain ends in a root.
func (c *certificate) chainsTo(root []byte) (bool, error) {
	if c.Type != acm.CertificateTypeImported {
		return false, nil
	}
	chain, err := parseChain(c.Chain)
	return err == nil && len(chain) > 0 && bytes.Equal(chain[len(chain)-1].Raw, root), err
}

// same refuses to adopt what is not the authority that has the ARN already.
func (p *PrivateCA) same(is *authority, next *adopted, in *AdoptAuthorityInput, now time.Time) error {
	switch {
	case is.goneAt(now):
		return taken(in.ARN, "it was deleted, and is being removed; try again in some minutes")
	case is.Status == deleted:
		return taken(in.ARN, "it was deleted; bring it back with aws acm-pca restore-certificate-authority")
	case is.Certificate == nil:
		return taken(in.ARN, "an authority that waits for its certificate, with a key of its own")
	case set(in.Issue) && is.keyless():
		return taken(in.ARN, "an authority that is known by its certificate alone. Adopt it again with --cert and --key, and it can issue; a new root under the same ARN would not be the one that is trusted")
	case set(in.Issue) && (is.Type != next.Type || in.CommonName != nil && commonName(is) != *in.CommonName):
		return taken(in.ARN, "a %s authority with the common name %q", is.Type, commonName(is))
	case !set(in.Issue) && !bytes.Equal(is.Certificate, next.Certificate):
		return taken(in.ARN, "an authority with another certificate, serial number %s. A renewed certificate of the same key is for aws acm-pca import-certificate-authority-certificate", is.Serial)
	case !set(in.Issue) && !slices.EqualFunc(is.Chain, next.Chain, bytes.Equal):
		return taken(in.ARN, "an authority with the same certificate and another chain")
	}
	return nil
}

func commonName(a *authority) string {
	if s := a.Configuration.Subject; s != nil {
		return text(s.CommonName)
	}
	return ""
}

// given is the authority of a certificate.
func (p *PrivateCA) given(in *AdoptAuthorityInput) (*adopted, error) {
	if in.Certificate == nil {
		return nil, acmpca.NewInvalidArgsException("certificate: give the authority's certificate, or issue for a new root")
	}
	if in.CommonName != nil {
		return nil, acmpca.NewInvalidArgsException("commonName: is for a new root; a certificate has its own")
	}
	checked, err := ca.AuthorityAdoption{
		Certificate: []byte(*in.Certificate), Chain: []byte(text(in.Chain)), Key: []byte(in.PrivateKey.Reveal()), Now: p.Now(),
	}.Check()
	if err != nil {
		return nil, err
	}
	own := checked.Certificate
	subject, err := describedSubject(own.RawSubject)
	if err != nil {
		return nil, err
	}
	a := &authority{
		Type: acmpca.CertificateAuthorityTypeSubordinate, CSR: checked.CSR,
		Configuration: &acmpca.CertificateAuthorityConfiguration{
			KeyAlgorithm: acmpca.KeyAlgorithm(ca.AlgorithmOf(own.PublicKey)), SigningAlgorithm: acmpca.SigningAlgorithm(ca.DefaultSigning(own.PublicKey)), Subject: subject,
		},
		Serial: ca.DescribeSerial(own.SerialNumber), NotBefore: own.NotBefore, NotAfter: own.NotAfter, Certificate: own.Raw,
	}
	if checked.Root {
		a.Type = acmpca.CertificateAuthorityTypeRoot
	}
	for _, above := range checked.Chain {
		a.Chain = append(a.Chain, above.Raw)
	}
	n := &adopted{authority: a, certificate: own, above: checked.Chain, key: checked.Key}
	if checked.CSR != nil {
		n.secret, err = checked.Key.PKCS8()
	}
	return n, err
}

// newRoot makes a root with a key of its own, and enters it in its ledger.
func (p *PrivateCA) newRoot(ctx context.Context, in *AdoptAuthorityInput) (*adopted, error) {
	if in.Certificate != nil || in.Chain != nil || in.PrivateKey != (api.Secret{}) {
		return nil, acmpca.NewInvalidArgsException("issue: makes a new key and root; give either that or a certificate")
	}
	name := "Root CA " + in.ARN[len(in.ARN)-36:]
	if in.CommonName != nil {
		name = *in.CommonName
	}
	a := &authority{
		Type: acmpca.CertificateAuthorityTypeRoot,
		Configuration: &acmpca.CertificateAuthorityConfiguration{
			KeyAlgorithm: acmpca.KeyAlgorithmEcPrime256v1, SigningAlgorithm: acmpca.SigningAlgorithmSha256withecdsa, Subject: &acmpca.ASN1Subject{CommonName: &name},
		},
	}
	secret, err := a.makeKey()
	if err != nil {
		return nil, err
	}
	csr, err := ca.ParseCSR(a.CSR)
	if err != nil {
		return nil, err
	}
	key, err := ca.ParsePrivateKey(secret)
	if err != nil {
		return nil, err
	}
	template, err := ca.ParseTemplateARN(awsapi.Partition(p.Region), "arn:"+awsapi.Partition(p.Region)+":acm-pca:::template/RootCACertificate/V1")
	if err != nil {
		return nil, err
	}
	serial, err := ca.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	r := ca.Request{
		CSR: csr, Template: template, Algorithm: ca.SHA256WithECDSA, Now: p.Now().UTC(), Serial: serial,
		Validity: ca.Validity{Type: ca.ValidityType(acmpca.ValidityPeriodTypeYears), Value: adoptedYears},
	}
	if a.Certificate, err = ca.SelfSign(key.Signer(), r); err != nil {
		return nil, err
	}
	entry := &issued{Template: template.ARN(awsapi.Partition(p.Region)), Requester: awsapi.PrincipalFrom(ctx).ARN(), IssuedAt: r.Now, Root: true}
	if err := entry.describe(a.Certificate); err != nil {
		return nil, err
	}
	a.Serial, a.NotBefore, a.NotAfter = ca.DescribeSerial(serial.Int()), entry.NotBefore, entry.NotAfter
	own, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read the root just signed: %w", err)
	}
	return &adopted{authority: a, certificate: own, key: key, secret: secret, serial: serial.String(), ledger: entry}, nil
}

// settle gives an authority what does not depend on its certificate: its owner,
// ACM's permission and, if the owner is another account, what shares it with
// this server's.
func (p *PrivateCA) settle(ctx context.Context, a *authority, owner, id, arn string) error {
	now, principal := p.Now().UTC(), acmPrincipal
	a.ID, a.Account, a.Adopted = id, owner, true
	a.KeyStorage, a.UsageMode = acmpca.KeyStorageSecurityStandardFips1402Level3OrHigher, acmpca.CertificateAuthorityUsageModeGeneralPurpose
	a.Revocation, a.Tags = completed(nil), map[string]string{}
	a.Status, a.CreatedAt, a.ChangedAt = active, now, now
	a.Permissions = []acmpca.Permission{{
		CertificateAuthorityArn: &arn, Principal: &principal, SourceAccount: &a.Account, CreatedAt: api.Timestamp{Time: now},
		Actions: []acmpca.ActionType{acmpca.ActionTypeGetCertificate, acmpca.ActionTypeIssueCertificate, acmpca.ActionTypeListPermissions},
	}}
	if owner == account(ctx) {
		return nil
	}
	with := map[string]oneOrMany{"AWS": {account(ctx)}}
	shared, err := json.Marshal(policy{Version: "2012-10-17", Statement: []statement{
		{Effect: "Allow", Principal: with, Action: sharedReads, Resource: oneOrMany{arn}},
		{Effect: "Allow", Principal: with, Action: oneOrMany{"acm-pca:IssueCertificate"}, Resource: oneOrMany{arn},
			Condition: map[string]map[string]string{"StringEquals": {"acm-pca:TemplateArn": "arn:" + awsapi.Partition(p.Region) + ":acm-pca:::template/EndEntityCertificate/V1"}}},
	}}, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("write policy of %s: %w", arn, err)
	}
	a.Policy = string(shared)
	return nil
}

// describedSubject is a distinguished name as the API has it: its attributes by
// their names, or if that cannot say all of it by their OIDs.
func describedSubject(name []byte) (*acmpca.ASN1Subject, error) {
	attributes, err := ca.Attributes(name)
	if err != nil {
		return nil, err
	}
	var s acmpca.ASN1Subject
	named := map[string]**string{
		"2.5.4.6": &s.Country, "2.5.4.10": &s.Organization, "2.5.4.11": &s.OrganizationalUnit, "2.5.4.46": &s.DistinguishedNameQualifier,
		"2.5.4.8": &s.State, "2.5.4.3": &s.CommonName, "2.5.4.5": &s.SerialNumber, "2.5.4.7": &s.Locality, "2.5.4.12": &s.Title, "2.5.4.4": &s.Surname,
		"2.5.4.42": &s.GivenName, "2.5.4.43": &s.Initials, "2.5.4.65": &s.Pseudonym, "2.5.4.44": &s.GenerationQualifier,
	}
	var custom []acmpca.CustomAttribute
	other := false
	for _, a := range attributes {
		custom = append(custom, acmpca.CustomAttribute{ObjectIdentifier: a.OID, Value: a.Value})
		if to := named[a.OID]; to != nil && *to == nil {
			*to = &a.Value
		} else {
			other = true
		}
	}
	if other {
		return &acmpca.ASN1Subject{CustomAttributes: custom}, nil
	}
	return &s, nil
}
