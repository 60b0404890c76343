package pki

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	maxDomain = 64  // characters: it becomes the common name
	maxNames  = 100 // what a description can show
	// requestLife is how long a request with the same token is the same request.
	requestLife = time.Hour
)

// token is what a request with an idempotency token has made.
type token struct {
	ARN     string    `json:"arn"`
	Request string    `json:"request"` // fingerprint of what must be the same
	Expires time.Time `json:"expires"`
}

// RequestCertificate makes a certificate that waits to be issued.
func (m *ACM) RequestCertificate(ctx context.Context, in *acm.RequestCertificateRequest) (*acm.RequestCertificateResponse, error) {
	c, err := m.requested(in)
	if err != nil {
		return nil, err
	}
	account, arn := account(ctx), ""
	c.ARN = m.newCertificateARN(account)
	at, err := acmPlace(c.ARN)
	if err != nil {
		return nil, err
	}
	_, err = m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		if in.IdempotencyToken != nil {
			known, err := m.redeem(tx, store.Place{kindToken, account, *in.IdempotencyToken}, c)
			if err != nil || known != "" {
				arn = known
				return err
			}
		}
		arn = c.ARN
		if err := store.MakeObject(tx, at, c); err != nil {
			return err
		}
		if err := c.put(tx, at); err != nil {
			return err
		}
		return store.MakeObject(tx, taskPlace(at), &task{ARN: c.ARN, Algorithm: c.Algorithm})
	})
	if err != nil {
		return nil, failure(err)
	}
	m.kick()
	return &acm.RequestCertificateResponse{CertificateArn: &arn}, nil
}

// redeem finds the certificate that a token has made already, or makes the
// token that of c. A token that was used for another certificate becomes this
// one's, without an error: AWS's model knows none for it.
func (m *ACM) redeem(tx *store.Tx, at store.Place, c *certificate) (arn string, err error) {
	now, request := m.Now(), c.fingerprint()
	used, err := store.GetObject[token](tx, at)
	switch {
	case isNotFound(err):
	case err != nil:
		return "", err
	case used.Value.Request == request && now.Before(used.Value.Expires):
		before, err := acmPlace(used.Value.ARN)
		if err != nil {
			return "", err
		}
		_, err = store.GetObject[certificate](tx, before)
		if !isNotFound(err) { // else it was deleted since
			return used.Value.ARN, err
		}
	}
	return "", store.PutObject(tx, at, &token{ARN: c.ARN, Request: request, Expires: now.Add(requestLife)})
}

// fingerprint is the same for requests that ask for the same.
func (c *certificate) fingerprint() string {
	names := make([]string, len(c.Names))
	for i, name := range c.Names {
		names[i] = strings.ToLower(name)
	}
	slices.Sort(names)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", strings.ToLower(c.Domain), names, c.Authority))
	return hex.EncodeToString(sum[:])
}

// requested is the certificate that a request asks for, without an ARN.
func (m *ACM) requested(in *acm.RequestCertificateRequest) (*certificate, error) {
	switch {
	case in.CertificateAuthorityArn == nil:
		return nil, acm.NewInvalidParameterException("CertificateAuthorityArn: must be given: public certificates are not issued here. Name an authority of acm-pca list-certificate-authorities, or import a public certificate with import-certificate")
	case in.ManagedBy != nil:
		return nil, acm.NewInvalidParameterException("ManagedBy: %s does not manage certificates of this server; leave it out", *in.ManagedBy)
	case len(in.DomainValidationOptions) > 0:
		return nil, acm.NewInvalidDomainValidationOptionsException("DomainValidationOptions: only public certificates are validated; leave them out")
	case len(in.DomainName) > maxDomain:
		return nil, acm.NewInvalidParameterException("DomainName: %d characters; it becomes the common name, which has at most %d. Put longer names into SubjectAlternativeNames", len(in.DomainName), maxDomain)
	}
	c := &certificate{
		Type: acm.CertificateTypePrivate, Status: acm.CertificateStatusPendingValidation,
		Domain: in.DomainName, Names: distinctNames(append([]string{in.DomainName}, in.SubjectAlternativeNames...)), Authority: *in.CertificateAuthorityArn,
		Algorithm: acm.KeyAlgorithmRsa2048, Logging: string(acm.CertificateTransparencyLoggingPreferenceEnabled), Created: m.Now().UTC(),
	}
	if len(c.Names) > maxNames {
		return nil, acm.NewInvalidParameterException("SubjectAlternativeNames: %d names with the DomainName; at most %d", len(c.Names), maxNames)
	}
	for _, name := range c.Names {
		if err := ca.CheckDNSName(name); err != nil {
			return nil, acm.NewInvalidParameterException("SubjectAlternativeNames: %v", err)
		}
	}
	if in.KeyAlgorithm != nil {
		c.Algorithm = *in.KeyAlgorithm
	}
	switch c.Algorithm {
	case acm.KeyAlgorithmRsa2048, acm.KeyAlgorithmEcPrime256v1, acm.KeyAlgorithmEcSecp384r1:
	default:
		return nil, acm.NewInvalidParameterException("KeyAlgorithm: %s can only be imported; request RSA_2048, EC_prime256v1 or EC_secp384r1", c.Algorithm)
	}
	if err := c.setOptions(in.Options); err != nil {
		return nil, err
	}
	tags, err := tagsOf(in.Tags)
	c.Tags = tags
	return c, err
}

// setOptions takes the options that a private certificate can have.
func (c *certificate) setOptions(options *acm.CertificateOptions) error {
	if options == nil {
		return nil
	}
	if options.Export != nil && *options.Export != acm.CertificateExportEnabled {
		return acm.NewInvalidParameterException("Options.Export: a private certificate can always be exported; leave it out")
	}
	if p := options.CertificateTransparencyLoggingPreference; p != nil {
		c.Logging = string(*p)
	}
	return nil
}

// distinctNames drops names that are there already, whatever their case.
func distinctNames(names []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(name string) bool {
		key := strings.ToLower(name)
		again := seen[key]
		seen[key] = true
		return again
	})
}
