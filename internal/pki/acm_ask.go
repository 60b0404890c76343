package pki

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
)

// issuance is what an authority has answered.
type issuance struct {
	arn         string // of the certificate, among those of its authority
	certificate string
	chain       string
}

// issue asks authorities for the certificates of tasks, one after the other: more
// than one are this server's own, which do not keep it waiting.
func (m *ACM) issue(ctx context.Context, jobs []*job) {
	type asked struct{ account, authority string }
	groups := map[asked][]*job{}
	for _, j := range jobs {
		of := asked{j.at[1], j.of.Authority}
		groups[of] = append(groups[of], j)
	}
	for of, group := range groups {
		ctx, cancel := context.WithTimeout(asAccount(ctx, of.account), answerWithin)
		m.ask(ctx, group)
		m.fetch(ctx, group)
		cancel()
		readIssued(group)
	}
}

// ask has an authority issue what it has not been asked for yet.
func (m *ACM) ask(ctx context.Context, jobs []*job) {
	var open []*job
	var requests []*acmpca.IssueCertificateRequest
	for _, j := range jobs {
		if j.got.arn = j.task.Issued; j.got.arn == "" {
			open = append(open, j)
		}
	}
	if len(open) == 0 {
		return
	}
	signing, err := m.mayIssue(ctx, open[0].of)
	if err != nil {
		for _, j := range open {
			j.err = err
		}
		return
	}
	for _, j := range open {
		token := sha256.Sum256(fmt.Appendf(nil, "%s %d", j.of.ARN, j.task.Generation))
		idempotency := hex.EncodeToString(token[:])[:36]
		requests = append(requests, &acmpca.IssueCertificateRequest{
			CertificateAuthorityArn: j.of.Authority, Csr: j.task.CSR, IdempotencyToken: &idempotency, SigningAlgorithm: signing,
			Validity: &acmpca.Validity{Type: acmpca.ValidityPeriodTypeDays, Value: validDays},
		})
	}
	if own, ok := m.Authorities.(*PrivateCA); ok {
		for n, i := range own.issueAll(ctx, requests) {
			open[n].got.arn, open[n].err = i.answer, i.err
		}
		return
	}
	for n, in := range requests {
		out, err := m.Authorities.IssueCertificate(ctx, in)
		if open[n].err = err; err == nil {
			open[n].got.arn = *out.CertificateArn
		}
	}
}

// fetch gets what an authority has issued.
func (m *ACM) fetch(ctx context.Context, jobs []*job) {
	var open []*job
	var requests []*acmpca.GetCertificateRequest
	for _, j := range jobs {
		if j.err == nil {
			open = append(open, j)
			requests = append(requests, &acmpca.GetCertificateRequest{CertificateAuthorityArn: j.of.Authority, CertificateArn: j.got.arn})
		}
	}
	take := func(j *job, out *acmpca.GetCertificateResponse, err error) {
		if j.err = err; err != nil {
			return
		}
		j.got.certificate = *out.Certificate
		if out.CertificateChain != nil {
			j.got.chain = *out.CertificateChain
		}
	}
	if own, ok := m.Authorities.(*PrivateCA); ok {
		for n, f := range own.fetchAll(ctx, requests) {
			take(open[n], f.out, f.err)
		}
		return
	}
	for n, in := range requests {
		out, err := m.Authorities.GetCertificate(ctx, in)
		take(open[n], out, err)
	}
}

// errNoPermission is that of an authority whose owner has not let ACM use it.
var errNoPermission = errors.New("the authority does not permit acm.amazonaws.com to issue: give it the permission with acm-pca create-permission --principal acm.amazonaws.com --actions IssueCertificate GetCertificate ListPermissions")

// mayIssue returns how an authority signs, if it lets ACM have certificates.
// Of an authority of another account that one's policy decides, and of one that
// is not active its state: at the authority.
func (m *ACM) mayIssue(ctx context.Context, c *certificate) (acmpca.SigningAlgorithm, error) {
	described, err := m.Authorities.DescribeCertificateAuthority(ctx, &acmpca.DescribeCertificateAuthorityRequest{CertificateAuthorityArn: c.Authority})
	if err != nil {
		return "", err
	}
	authority := described.CertificateAuthority
	if owner, status := authority.OwnerAccount, authority.Status; owner != nil && *owner == account(ctx) && status != nil && *status == active {
		out, err := m.Authorities.ListPermissions(ctx, &acmpca.ListPermissionsRequest{CertificateAuthorityArn: c.Authority})
		if err != nil {
			return "", err
		}
		if !slices.ContainsFunc(out.Permissions, permitsACM) {
			return "", errNoPermission
		}
	}
	return authority.CertificateAuthorityConfiguration.SigningAlgorithm, nil
}

func permitsACM(p acmpca.Permission) bool {
	return p.Principal != nil && *p.Principal == acmPrincipal &&
		slices.Contains(p.Actions, acmpca.ActionTypeIssueCertificate) && slices.Contains(p.Actions, acmpca.ActionTypeGetCertificate)
}

// readIssued reads what an authority has answered, and wants it to be for the
// keys of the CSRs.
func readIssued(jobs []*job) {
	chains := map[string]chain{} // one authority's are mostly the same
	for _, j := range jobs {
		if j.err != nil {
			continue
		}
		if j.leaf, j.err = leafFor(j.got.certificate, j.task.CSR); j.err != nil {
			continue
		}
		above, known := chains[j.got.chain]
		if !known {
			if above, j.err = readChain(j.got.chain); j.err != nil {
				continue
			}
			chains[j.got.chain] = above
		}
		j.above = above
	}
}

func leafFor(certificate string, csr []byte) (*x509.Certificate, error) {
	leaf, err := parseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	// Who made the request is known, it was this server or another of the store's:
	// only its key is of interest here.
	block, _ := pem.Decode(csr)
	if block == nil {
		return nil, errors.New("the CSR of the task is not PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the CSR of the task: %w", err)
	}
	if key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(request.PublicKey) {
		return nil, errors.New("the certificate that the authority has issued is not for the key of the request")
	}
	return leaf, nil
}

// say logs and counts that a certificate was not issued.
func (m *ACM) say(ctx context.Context, c *certificate, t *task, err error) {
	if inProgress(err) {
		return
	}
	reason, lasting := failureReason(err)
	renewal := c.Generation > 0
	result := resultUnanswered
	if lasting {
		result = resultRefused
	}
	m.Metrics.attempted(c, result)
	m.Log.WarnContext(ctx, "certificate was not issued", "arn", c.ARN, "authority", c.Authority, "renewal", renewal, "reason", reason,
		"attempt", t.Failures+1, "again", renewal || !lasting, "error", err)
}

// note records what kept a task from being done. A request that the authority
// refuses is over with that; whatever else is tried again, ever more slowly.
func (m *ACM) note(t *task, c *certificate, i issuance, err error) (over bool) {
	now := m.Now().UTC()
	reason, lasting := failureReason(err)
	if c.Generation > 0 {
		c.Renewal = &renewal{Status: acm.RenewalStatusPendingAutoRenewal, Updated: now}
		if lasting {
			c.Renewal = &renewal{Status: acm.RenewalStatusFailed, Reason: reason, Updated: now}
		}
	} else if lasting {
		c.Status, c.Failure = acm.CertificateStatusFailed, reason
	}
	pause := longestPause
	if t.Failures < 12 {
		pause = min(longestPause, firstPause<<t.Failures)
	}
	t.Issued, t.NotYet = i.arn, now.Add(pause)
	t.Failures++
	return c.Status == acm.CertificateStatusFailed
}

func inProgress(err error) bool {
	var exception *api.Exception
	return errors.As(err, &exception) && exception.Code == "RequestInProgressException"
}

// failureReason is ACM's name for what an authority has refused, and whether it
// will refuse it again.
func failureReason(err error) (reason acm.FailureReason, lasting bool) {
	if errors.Is(err, errNoPermission) {
		return acm.FailureReasonPcaAccessDenied, true
	}
	switch ca.KindOf(err) {
	case ca.InvalidDuration:
		return acm.FailureReasonPcaInvalidDuration, true
	case ca.NameConstraints:
		return acm.FailureReasonPcaNameConstraintsValidation, true
	}
	var exception *api.Exception
	if !errors.As(err, &exception) {
		return acm.FailureReasonPcaRequestFailed, false
	}
	switch exception.Code {
	case "LimitExceededException":
		return acm.FailureReasonPcaLimitExceeded, true
	case "InvalidArnException":
		return acm.FailureReasonPcaInvalidArn, true
	case "InvalidStateException":
		return acm.FailureReasonPcaInvalidState, true
	case "ResourceNotFoundException":
		return acm.FailureReasonPcaResourceNotFound, true
	case "InvalidArgsException", "MalformedCSRException":
		return acm.FailureReasonPcaInvalidArgs, true
	case "AccessDeniedException":
		return acm.FailureReasonPcaAccessDenied, true
	case "ValidationException": // so Private CA refuses what would outlive it
		if strings.Contains(exception.Message, "validity") {
			return acm.FailureReasonPcaInvalidDuration, true
		}
		return acm.FailureReasonPcaInvalidArgs, true
	}
	return acm.FailureReasonPcaRequestFailed, false
}
