package pki

import (
	"context"
	"crypto/x509"
	"regexp"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// DescribeCertificate answers everything about a certificate but its key.
func (m *ACM) DescribeCertificate(ctx context.Context, in *acm.DescribeCertificateRequest) (*acm.DescribeCertificateResponse, error) {
	var c *certificate
	var users []string
	if _, err := m.Store.Read(ctx, func(tx *store.Tx) (err error) {
		if _, c, err = certificateOf(ctx, tx, in.CertificateArn); err != nil {
			return err
		}
		users, err = m.users(tx, c.ARN)
		return err
	}); err != nil {
		return nil, failure(err)
	}
	detail, err := c.detail(users, m.Now())
	if err != nil {
		return nil, err
	}
	return &acm.DescribeCertificateResponse{Certificate: detail}, nil
}

// detail is the certificate as it is described (facts/certificates.md A.3).
func (c *certificate) detail(users []string, now time.Time) (*acm.CertificateDetail, error) {
	status, eligibility := c.status(now), c.eligibility(users, now)
	logging := acm.CertificateTransparencyLoggingPreference(c.Logging)
	d := &acm.CertificateDetail{
		CertificateArn: &c.ARN, CertificateAuthorityArn: given(c.Authority), CreatedAt: timestamp(c.Created),
		CertificateKeyPairOrigin: c.keyPairOrigin(),
		DomainName:               given(c.Domain), FailureReason: given(c.Failure), ImportedAt: timestamp(c.Imported), IssuedAt: timestamp(c.Issued),
		InUseBy: append([]string{}, users...), KeyAlgorithm: c.hyphenated(),
		NotAfter: timestamp(c.NotAfter), NotBefore: timestamp(c.NotBefore),
		Options:            &acm.CertificateOptions{CertificateTransparencyLoggingPreference: &logging},
		RenewalEligibility: &eligibility, Serial: given(c.Serial), Status: &status, SubjectAlternativeNames: c.Names, Type: &c.Type,
	}
	if c.Type == acm.CertificateTypeImported && c.Domain != "" {
		d.DomainValidationOptions = []acm.DomainValidation{{DomainName: c.Domain}}
	}
	if r := c.Renewal; r != nil {
		// Terraform waits for this of private certificates, too.
		d.RenewalSummary = &acm.RenewalSummary{DomainValidationOptions: []acm.DomainValidation{}, RenewalStatus: r.Status, RenewalStatusReason: given(r.Reason), UpdatedAt: timestamp(r.Updated)}
	}
	if c.Certificate == "" {
		return d, nil
	}
	leaf, err := parseCertificate(c.Certificate)
	if err != nil {
		return nil, err
	}
	d.Issuer, d.Subject = given(ca.DescribeIssuer(leaf)), given(ca.DescribeName(leaf.RawSubject))
	d.SignatureAlgorithm = given(ca.DescribeSigning(leaf))
	d.KeyUsages, d.ExtendedKeyUsages = []acm.KeyUsage{}, []acm.ExtendedKeyUsage{}
	for _, name := range keyUsages(leaf) {
		d.KeyUsages = append(d.KeyUsages, acm.KeyUsage{Name: &name})
	}
	for _, usage := range ca.ExtendedUsages(leaf) {
		d.ExtendedKeyUsages = append(d.ExtendedKeyUsages, acm.ExtendedKeyUsage{Name: given(acm.ExtendedKeyUsageName(usage.Name)), OID: given(usage.OID)})
	}
	return d, nil
}

// summary is the certificate as it is listed.
func (c *certificate) summary(users []string, now time.Time) (s acm.CertificateSummary, err error) {
	status, eligibility := c.status(now), c.eligibility(users, now)
	inUse, more, export := len(users) > 0, false, c.exportOption()
	s = acm.CertificateSummary{
		CertificateArn: &c.ARN, CertificateKeyPairOrigin: c.keyPairOrigin(), CreatedAt: timestamp(c.Created), DomainName: given(c.Domain),
		ExportOption: &export, Exported: &c.Exported, HasAdditionalSubjectAlternativeNames: &more, ImportedAt: timestamp(c.Imported), InUse: &inUse, IssuedAt: timestamp(c.Issued),
		KeyAlgorithm: c.hyphenated(), NotAfter: timestamp(c.NotAfter), NotBefore: timestamp(c.NotBefore),
		RenewalEligibility: &eligibility, Status: &status, SubjectAlternativeNameSummaries: c.Names, Type: &c.Type,
	}
	if len(s.SubjectAlternativeNameSummaries) > maxNames { // imported ones may have more
		s.SubjectAlternativeNameSummaries, more = s.SubjectAlternativeNameSummaries[:maxNames], true
	}
	s.KeyUsages, s.ExtendedKeyUsages, err = c.usages()
	return s, err
}

// usages are none as long as the certificate is not issued.
func (c *certificate) usages() (usages []acm.KeyUsageName, extended []acm.ExtendedKeyUsageName, err error) {
	if c.Certificate == "" {
		return nil, nil, nil
	}
	leaf, err := parseCertificate(c.Certificate)
	if err != nil {
		return nil, nil, err
	}
	for _, usage := range ca.ExtendedUsages(leaf) {
		extended = append(extended, acm.ExtendedKeyUsageName(usage.Name))
	}
	return keyUsages(leaf), extended, nil
}

func keyUsages(leaf *x509.Certificate) []acm.KeyUsageName {
	var all []acm.KeyUsageName
	for _, name := range ca.KeyUsageNames(leaf.KeyUsage) {
		all = append(all, acm.KeyUsageName(name))
	}
	return all
}

// hyphenated is the key algorithm as ACM answers it, other than it is asked for.
func (c *certificate) hyphenated() *acm.KeyAlgorithm {
	return given(acm.KeyAlgorithm(ca.KeyAlgorithm(c.Algorithm).Hyphenated()))
}

func (c *certificate) keyPairOrigin() *acm.CertificateKeyPairOrigin {
	if c.Type == acm.CertificateTypeImported {
		return given(acm.CertificateKeyPairOriginCustomerProvided)
	}
	return given(acm.CertificateKeyPairOriginAwsManaged)
}

// exportOption says whether ExportCertificate would answer the key.
func (c *certificate) exportOption() acm.CertificateExport {
	if c.Type == acm.CertificateTypePrivate {
		return acm.CertificateExportEnabled
	}
	return acm.CertificateExportDisabled
}

// strangeLabel begins a label that looks encoded and is no IDNA.
var strangeLabel = regexp.MustCompile(`^..--`)

// eligibility says whether the certificate will be renewed: if it is private,
// issued and not over, and either used or exported (facts/certificates.md A.2).
func (c *certificate) eligibility(users []string, now time.Time) acm.RenewalEligibility {
	if c.unrenewable(users, now) != "" {
		return acm.RenewalEligibilityIneligible
	}
	return acm.RenewalEligibilityEligible
}

// unrenewable says why the certificate will not be renewed; empty: it will.
func (c *certificate) unrenewable(users []string, now time.Time) string {
	switch status := c.status(now); {
	case c.Type != acm.CertificateTypePrivate:
		return "it was imported: import its successor under the same ARN"
	case status != acm.CertificateStatusIssued:
		return "it is " + string(status)
	case len(users) == 0 && !c.Exported:
		return "nothing uses it, and it was not exported since it was issued"
	}
	for _, name := range c.Names {
		for label := range strings.SplitSeq(strings.ToLower(name), ".") {
			if strangeLabel.MatchString(label) && !strings.HasPrefix(label, "xn--") {
				return "ACM renews no name like " + name
			}
		}
	}
	return ""
}

func timestamp(t time.Time) api.Timestamp { return api.Timestamp{Time: t} }

// given is nil for what is not there.
func given[T ~string](value T) *T {
	if value == "" {
		return nil
	}
	return &value
}
