package pki

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// keyAlgorithms are those that are offered.
var keyAlgorithms = []ca.KeyAlgorithm{ca.RSA2048, ca.RSA3072, ca.RSA4096, ca.P256, ca.P384, ca.P521}

// CreateCertificateAuthority makes an authority and its key. The key of an RSA
// one takes seconds: it is made by Run, and the authority is CREATING until then.
func (p *PrivateCA) CreateCertificateAuthority(ctx context.Context, in *acmpca.CreateCertificateAuthorityRequest) (*acmpca.CreateCertificateAuthorityResponse, error) {
	a, err := p.planAuthority(account(ctx), in)
	if err != nil {
		return nil, failure(err)
	}
	var secret []byte
	slow := strings.HasPrefix(string(a.Configuration.KeyAlgorithm), "RSA_")
	if !slow {
		if secret, err = a.makeKey(); err != nil {
			return nil, failure(err)
		}
		a.Status = pending
	}
	token, err := tokenOf("CreateCertificateAuthority", a.Account, in.IdempotencyToken, in)
	if err != nil {
		return nil, err
	}
	arn := p.arn(a.Account, a.ID)
	answer := arn
	err = p.write(ctx, func(tx *store.Tx) error {
		before, err := p.once(tx, token, arn)
		if err != nil || before != "" {
			answer = before
			return err
		}
		answer = arn
		at := placeOf(a.Account, a.ID)
		if err := store.MakeObject(tx, at, a); err != nil {
			return err
		}
		if err := store.MakeObject(tx, ownerPlace(a.ID), &owner{a.Account}); err != nil {
			return err
		}
		if err := p.serve(tx, a); err != nil {
			return err
		}
		if slow {
			return store.MakeObject(tx, pendingPlace(pendingKey, a.Account, a.ID), &work{At: a.CreatedAt})
		}
		if err := p.claim(tx, a); err != nil {
			return err
		}
		return tx.PutSecret(at, secret)
	})
	if err != nil {
		return nil, err
	}
	if slow {
		p.rouse()
	}
	return &acmpca.CreateCertificateAuthorityResponse{CertificateAuthorityArn: &answer}, nil
}

// planAuthority is the authority of a request, without a key.
func (p *PrivateCA) planAuthority(account string, in *acmpca.CreateCertificateAuthorityRequest) (*authority, error) {
	c := in.CertificateAuthorityConfiguration
	if !slices.Contains(keyAlgorithms, ca.KeyAlgorithm(c.KeyAlgorithm)) {
		return nil, acmpca.NewInvalidArgsException("KeyAlgorithm %s is not offered here: use one of %s", c.KeyAlgorithm, join(keyAlgorithms))
	}
	if err := checkSigning(c); err != nil {
		return nil, err
	}
	if err := checkRevocation(in.RevocationConfiguration); err != nil {
		return nil, err
	}
	tags, err := addTags(nil, in.Tags)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("draw the id of an authority: %w", err)
	}
	now := p.Now().UTC()
	a := &authority{
		ID: id.String(), Account: account, Type: in.CertificateAuthorityType, Configuration: c,
		KeyStorage: acmpca.KeyStorageSecurityStandardFips1402Level3OrHigher, UsageMode: acmpca.CertificateAuthorityUsageModeGeneralPurpose,
		Revocation: completed(in.RevocationConfiguration), Tags: tags,
		Status: creating, CreatedAt: now, ChangedAt: now,
	}
	if in.KeyStorageSecurityStandard != nil {
		a.KeyStorage = *in.KeyStorageSecurityStandard
	}
	if in.UsageMode != nil {
		a.UsageMode = *in.UsageMode
	}
	// What makes no CSR is refused now, not when its slow key is there.
	probe, err := ca.GenerateKey(ca.P256)
	if err != nil {
		return nil, err
	}
	if _, err := ca.AuthorityCSR(probe, ca.SHA256WithECDSA, subjectOf(c.Subject), csrExtensionsOf(c.CsrExtensions)); err != nil {
		return nil, err
	}
	return a, nil
}

func join[S ~string](names []S) string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = string(n)
	}
	return strings.Join(all, ", ")
}

// checkSigning wants an algorithm that signs with the authority's kind of key.
func checkSigning(c *acmpca.CertificateAuthorityConfiguration) error {
	family := ca.SigningAlgorithm("ECDSA")
	offered := []ca.SigningAlgorithm{ca.SHA256WithECDSA, ca.SHA384WithECDSA, ca.SHA512WithECDSA}
	if strings.HasPrefix(string(c.KeyAlgorithm), "RSA_") {
		family = "RSA"
		offered = []ca.SigningAlgorithm{ca.SHA256WithRSA, ca.SHA384WithRSA, ca.SHA512WithRSA}
	}
	if !slices.Contains(offered, ca.SigningAlgorithm(c.SigningAlgorithm)) {
		return acmpca.NewInvalidArgsException("SigningAlgorithm %s is not offered for a key %s (%s): use one of %s", c.SigningAlgorithm, c.KeyAlgorithm, family, join(offered))
	}
	return nil
}

// makeKey makes the authority's key and its CSR. The secret is the key, PKCS #8.
func (a *authority) makeKey() (secret []byte, err error) {
	c := a.Configuration
	key, err := ca.GenerateKey(ca.KeyAlgorithm(c.KeyAlgorithm))
	if err != nil {
		return nil, err
	}
	a.CSR, err = ca.AuthorityCSR(key, ca.SigningAlgorithm(c.SigningAlgorithm), subjectOf(c.Subject), csrExtensionsOf(c.CsrExtensions))
	if err != nil {
		return nil, err
	}
	return key.PKCS8()
}
