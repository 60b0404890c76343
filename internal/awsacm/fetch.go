package awsacm

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/smithy-go"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// fetched is what AWS has under an ARN.
type fetched struct {
	certificate *store.Certificate
	key         []byte // PKCS #8; nil: as it was
	authority   *store.Authority
	seen        string // of a certificate that was exported now
	same        bool   // as what the store has
}

func (f *fetched) serial() string {
	if f.certificate == nil {
		return ""
	}
	return f.certificate.Serial
}

func (f *fetched) state() string {
	if f.certificate == nil {
		return f.authority.Status
	}
	return f.certificate.Status
}

// refusal is an answer of AWS that trying again does not change.
type refusal struct{ says string }

func (r refusal) Error() string { return r.says }

// maxFailure bounds what is stored and told of an error.
const maxFailure = 500

// failureText says why something could not be fetched. AWS's errors name the
// caller and what it may not do, and no secret.
func failureText(err error) string {
	text := err.Error()
	var exception smithy.APIError
	if errors.As(err, &exception) {
		text = "AWS says " + exception.ErrorCode() + ": " + exception.ErrorMessage()
	}
	if len(text) > maxFailure {
		text = text[:maxFailure] + "…"
	}
	return text
}

func (m *Mirror) fetch(ctx context.Context, arn string, held holding) (*fetched, error) {
	if isAuthority(arn) {
		return m.fetchAuthority(ctx, arn, held.authority)
	}
	return m.fetchCertificate(ctx, arn, held)
}

func (m *Mirror) fetchCertificate(ctx context.Context, arn string, held holding) (*fetched, error) {
	if err := m.describes.Wait(ctx); err != nil {
		return nil, fmt.Errorf("wait to describe: %w", err)
	}
	out, err := m.ACM.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &arn})
	m.Metrics.called("DescribeCertificate", err)
	if err != nil {
		return nil, err
	}
	d := out.Certificate
	if d == nil || aws.ToString(d.CertificateArn) != arn {
		return nil, errors.New("AWS describes another certificate than was asked for")
	}
	if d.Type != acmtypes.CertificateTypePrivate {
		return nil, refusal{fmt.Sprintf("its type is %s: ACM gives out the keys of private certificates alone. Request one of a private authority (acm request-certificate --certificate-authority-arn)", d.Type)}
	}
	next := &store.Certificate{ARN: arn}
	if held.certificate != nil {
		*next = *held.certificate
	}
	next.Type, next.Status, next.Failure = string(d.Type), string(d.Status), string(d.FailureReason)
	if d.Status == acmtypes.CertificateStatusExpired {
		next.Status = string(acmtypes.CertificateStatusIssued) // NotAfter says the rest
	}
	seen := fmt.Sprintf("%s %d", aws.ToString(d.Serial), aws.ToTime(d.NotBefore).Unix())
	if d.Status != acmtypes.CertificateStatusIssued || next.Chain != "" && held.status.Seen == seen {
		return &fetched{certificate: next, same: reflect.DeepEqual(next, held.certificate)}, nil
	}
	return m.export(ctx, d, next, seen)
}

// export has ACM give out a certificate and its key, and reads them into next.
func (m *Mirror) export(ctx context.Context, d *acmtypes.CertificateDetail, next *store.Certificate, seen string) (*fetched, error) {
	if err := m.exports.Wait(ctx); err != nil {
		return nil, fmt.Errorf("wait to export: %w", err)
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("make a passphrase: %w", err)
	}
	passphrase := base64.RawURLEncoding.AppendEncode(nil, random) // ACM forbids #, $ and %
	out, err := m.ACM.ExportCertificate(ctx, &acm.ExportCertificateInput{CertificateArn: d.CertificateArn, Passphrase: passphrase})
	m.Metrics.called("ExportCertificate", err)
	if err != nil {
		return nil, err
	}
	key, err := ca.DecryptKey([]byte(aws.ToString(out.PrivateKey)), passphrase)
	if err != nil {
		return nil, fmt.Errorf("open what ACM exports: %w", err)
	}
	e := exported{certificate: aws.ToString(out.Certificate), chain: aws.ToString(out.CertificateChain), key: key.Signer().Public()}
	read, err := e.read()
	if errors.Is(err, errNoRoot) && d.CertificateAuthorityArn != nil {
		if e.chain, err = m.authorityChain(ctx, *d.CertificateAuthorityArn); err != nil {
			return nil, err
		}
		read, err = e.read()
	}
	if err != nil {
		return nil, err
	}
	if read.Serial == next.Serial && next.Chain != "" && read.Chain == next.Chain {
		return nil, errors.New("ACM describes another certificate than before, and exports the one before")
	}
	read.ARN, read.Type, read.Status = next.ARN, next.Type, next.Status
	pkcs8, err := key.PKCS8()
	if err != nil {
		return nil, err
	}
	return &fetched{certificate: read, key: pkcs8, seen: seen}, nil
}

// authorityChain is an authority's certificate and what is above it, PEM.
func (m *Mirror) authorityChain(ctx context.Context, arn string) (string, error) {
	if err := m.authorities.Wait(ctx); err != nil {
		return "", fmt.Errorf("wait to read an authority: %w", err)
	}
	out, err := m.PCA.GetCertificateAuthorityCertificate(ctx, &acmpca.GetCertificateAuthorityCertificateInput{CertificateAuthorityArn: &arn})
	m.Metrics.called("GetCertificateAuthorityCertificate", err)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Certificate) + "\n" + aws.ToString(out.CertificateChain), nil
}

func (m *Mirror) fetchAuthority(ctx context.Context, arn string, held *store.Authority) (*fetched, error) {
	account, err := parseARN(arn, m.Region)
	if err != nil {
		return nil, err
	}
	if err := m.authorities.Wait(ctx); err != nil {
		return nil, fmt.Errorf("wait to describe an authority: %w", err)
	}
	out, err := m.PCA.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityInput{CertificateAuthorityArn: &arn})
	m.Metrics.called("DescribeCertificateAuthority", err)
	if err != nil {
		return nil, err
	}
	d := out.CertificateAuthority
	if d == nil || aws.ToString(d.Arn) != arn {
		return nil, errors.New("AWS describes another authority than was asked for")
	}
	next := &store.Authority{ARN: arn, Account: account, Root: d.Type == pcatypes.CertificateAuthorityTypeRoot, Status: string(d.Status)}
	if account != m.Account {
		next.Readers = []string{m.Account} // it could be read with this account's credentials
	}
	if d.NotAfter != nil {
		next.NotAfter = d.NotAfter.UTC().Truncate(time.Second)
	}
	switch {
	case next.Root && d.Status == pcatypes.CertificateAuthorityStatusActive:
		chain, err := m.authorityChain(ctx, arn)
		if err != nil {
			return nil, err
		}
		if next.Roots, next.NotAfter, err = readRoot(chain); err != nil {
			return nil, err
		}
	case held != nil:
		next.Roots = held.Roots // what was trusted stays so until a spec says otherwise
	}
	if d.Status == pcatypes.CertificateAuthorityStatusExpired {
		next.Status = string(pcatypes.CertificateAuthorityStatusActive) // NotAfter says the rest
	}
	return &fetched{authority: next, same: reflect.DeepEqual(next, held)}, nil
}
