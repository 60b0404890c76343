package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

func (c *caTest) request(authority string, change func(*acmpca.IssueCertificateRequest)) (*acmpca.IssueCertificateResponse, error) {
	c.t.Helper()
	in := &acmpca.IssueCertificateRequest{
		CertificateAuthorityArn: authority, Csr: leafCSR(c.t, "a.example.com"), SigningAlgorithm: "SHA256WITHECDSA",
		Validity: &acmpca.Validity{Type: "DAYS", Value: 10},
	}
	change(in)
	return c.IssueCertificate(c.ctx, in)
}

func TestIssueRefuses(t *testing.T) {
	c := newCATest(t)
	root := c.root(100)
	for name, x := range map[string]struct {
		change        func(*acmpca.IssueCertificateRequest)
		code, message string
	}{
		"no CSR": {func(in *acmpca.IssueCertificateRequest) { in.Csr = []byte("x") }, "MalformedCSRException", ""},
		"template": {func(in *acmpca.IssueCertificateRequest) {
			in.TemplateArn = ptr("arn:aws:acm-pca:::template/Nothing/V1")
		}, "InvalidArgsException", "Nothing"},
		"family":      {func(in *acmpca.IssueCertificateRequest) { in.SigningAlgorithm = "SHA256WITHRSA" }, "InvalidArgsException", ""},
		"not offered": {func(in *acmpca.IssueCertificateRequest) { in.SigningAlgorithm = "ML_DSA_44" }, "InvalidArgsException", "ML_DSA_44"},
		"outlives":    {func(in *acmpca.IssueCertificateRequest) { in.Validity.Value = 101 }, "ValidationException", ""},
		"not own CSR": {func(in *acmpca.IssueCertificateRequest) { in.TemplateArn = ptr(rootTemplate) }, "InvalidArgsException", "own CSR"},
		"no authority": {func(in *acmpca.IssueCertificateRequest) {
			in.CertificateAuthorityArn = c.arn(testAccount, "00000000-0000-0000-0000-000000000000")
		}, "ResourceNotFoundException", "does not exist"},
		"no ARN": {func(in *acmpca.IssueCertificateRequest) { in.CertificateAuthorityArn = "arn:aws:acm-pca:x" }, "InvalidArnException", "is not the ARN"},
		"other region": {func(in *acmpca.IssueCertificateRequest) {
			in.CertificateAuthorityArn = strings.ReplaceAll(root, testRegion, "us-east-1")
		}, "InvalidArnException", testRegion},
		"other account": {func(in *acmpca.IssueCertificateRequest) {
			in.CertificateAuthorityArn = strings.ReplaceAll(root, testAccount, "999999999999")
		}, "AccessDeniedException", "because no resource-based policy allows the acm-pca:IssueCertificate action"},
	} {
		_, err := c.request(root, x.change)
		t.Log(name)
		c.refused(err, x.code, x.message)
	}
	s := inState(c, disabled)
	_, err := c.request(s.arn, func(*acmpca.IssueCertificateRequest) {})
	c.refused(err, "InvalidStateException", "The certificate authority is not in a valid state for issuing certificates")
	if n := c.ledger(root); n != 1 {
		t.Errorf("%d certificates are in the ledger, want the root's own", n)
	}
	short := c.root(100, func(in *acmpca.CreateCertificateAuthorityRequest) {
		in.UsageMode = ptr(acmpca.CertificateAuthorityUsageModeShortLivedCertificate)
	})
	_, err = c.request(short, func(*acmpca.IssueCertificateRequest) {})
	c.refused(err, "ValidationException", "7")
	// What is wrong inside the process shows the kind as well.
	if ca.KindOf(err) != ca.InvalidDuration {
		t.Errorf("the kind of the fault is %q", ca.KindOf(err))
	}
}

// ledger is how many certificates an authority has issued.
func (c *caTest) ledger(authority string) (n int) {
	c.t.Helper()
	c.must(each(c.ctx, c.Store, store.Place{"authority-issued", idOf(authority)}, func(*store.Object[issued]) error {
		n++
		return nil
	}))
	return n
}

func TestIssueOncePerToken(t *testing.T) {
	c := newCATest(t)
	root := c.root(100)
	csr := leafCSR(t, "a.example.com")
	issue := func(days int64) string {
		t.Helper()
		out, err := c.request(root, func(in *acmpca.IssueCertificateRequest) {
			in.Csr, in.IdempotencyToken, in.Validity.Value = csr, ptr("once"), days
		})
		c.must(err)
		return *out.CertificateArn
	}
	first := issue(10)
	if again := issue(10); again != first {
		t.Errorf("the same request again: %s, want %s", again, first)
	}
	if other := issue(11); other == first {
		t.Error("another request with the same token is the first one's certificate")
	}
	c.clock.forward(tokenLife - time.Second)
	if again := issue(10); again != first {
		t.Errorf("after nearly five minutes: %s, want %s", again, first)
	}
	c.clock.forward(time.Second)
	c.must(c.sweep(c.ctx))
	if again := issue(10); again == first {
		t.Error("after five minutes a token still counts")
	}
	// Many at the same time are one.
	var wg sync.WaitGroup
	arns := make([]string, 20)
	for i := range arns {
		wg.Go(func() {
			out, err := c.IssueCertificate(c.ctx, &acmpca.IssueCertificateRequest{
				CertificateAuthorityArn: root, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA",
				Validity: &acmpca.Validity{Type: "DAYS", Value: 5}, IdempotencyToken: ptr("together"),
			})
			if err != nil {
				t.Error(err)
				return
			}
			arns[i] = *out.CertificateArn
		})
	}
	wg.Wait()
	for _, arn := range arns {
		if arn != arns[0] {
			t.Fatalf("one token, two certificates: %v", arns)
		}
	}
	in := createRequest("ROOT", "twice")
	in.IdempotencyToken = ptr("create")
	if a, b := c.create(in), c.create(in); a != b {
		t.Errorf("one token, two authorities: %s, %s", a, b)
	}
}

// TestPassthrough: what the API asks for arrives in the certificate.
func TestPassthrough(t *testing.T) {
	c := newCATest(t)
	root := c.root(100)
	out, err := c.request(root, func(in *acmpca.IssueCertificateRequest) {
		in.TemplateArn = ptr("arn:aws:acm-pca:::template/BlankEndEntityCertificate_APIPassthrough/V1")
		in.ValidityNotBefore = &acmpca.Validity{Type: "ABSOLUTE", Value: c.clock.Now().Add(-time.Minute).Unix()}
		in.ApiPassthrough = &acmpca.ApiPassthrough{
			Subject: &acmpca.ASN1Subject{CommonName: ptr("passed"), Locality: ptr("Here")},
			Extensions: &acmpca.Extensions{
				KeyUsage:         &acmpca.KeyUsage{DigitalSignature: ptr(true), KeyAgreement: ptr(true)},
				ExtendedKeyUsage: []acmpca.ExtendedKeyUsage{{ExtendedKeyUsageType: ptr(acmpca.ExtendedKeyUsageTypeClientAuth)}},
				SubjectAlternativeNames: []acmpca.GeneralName{
					{UniformResourceIdentifier: ptr("spiffe://mesh/node")}, {DnsName: ptr("b.example.com")}, {IpAddress: ptr("10.0.0.1")}, {Rfc822Name: ptr("a@example.com")},
				},
				CustomExtensions:    []acmpca.CustomExtension{{ObjectIdentifier: "1.3.6.1.4.1.55555.1", Value: "BQA="}},
				CertificatePolicies: []acmpca.PolicyInformation{{CertPolicyId: "1.2.3.4"}},
			},
		}
	})
	c.must(err)
	own, _ := c.certificate(root, *out.CertificateArn)
	cert := parsePEM(t, own)
	var names []string
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	names = append(append(names, cert.DNSNames...), cert.EmailAddresses...)
	if diff := cmp.Diff([]string{"spiffe://mesh/node", "10.0.0.1", "b.example.com", "a@example.com"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if cert.Subject.CommonName != "passed" || cert.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement ||
		len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(cert.Policies) != 1 ||
		!cert.NotBefore.Equal(c.clock.Now().Add(-time.Minute)) || !cert.NotAfter.Equal(c.clock.Now().AddDate(0, 0, 10)) {
		t.Errorf("subject %s, usage %b %v, policies %v, from %s to %s", cert.Subject, cert.KeyUsage, cert.ExtKeyUsage, cert.Policies, cert.NotBefore, cert.NotAfter)
	}
}

// TestNothingIsIssuedAfterDisabling: once an authority is disabled, whoever was
// about to sign by it has issued nothing, and what was answered is in the
// ledger.
func TestNothingIsIssuedAfterDisabling(t *testing.T) {
	c := newCATest(t)
	other := NewPrivateCA(c.Config) // a second server: it remembers its own
	root := c.root(100)
	csr := leafCSR(t, "a.example.com")
	in := &acmpca.IssueCertificateRequest{CertificateAuthorityArn: root, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: 5}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	answered := 1 // the root's own
	running, over := make(chan struct{}, 8), make(chan struct{})
	for i := range 8 {
		wg.Go(func() {
			service := []*PrivateCA{c.PrivateCA, other}[i%2]
			for first, after := true, 0; after < 20; first = false {
				select {
				case <-over: // a few more, which are all refused
					after++
				default:
				}
				_, err := service.IssueCertificate(c.ctx, in)
				if err != nil {
					if exception(err) != "InvalidStateException" {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				answered++
				mu.Unlock()
				if first {
					running <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-running
	}
	s := &subject{caTest: c, arn: root}
	c.must(s.update(disabled))
	before := c.ledger(root)
	close(over)
	wg.Wait()
	if after := c.ledger(root); after != before || after != answered {
		t.Errorf("%d certificates were in the ledger at the disabling, %d are now, %d were answered", before, after, answered)
	}
}

// TestKeyIsMadeLater: an RSA authority is CREATING until Run has made its key,
// on whichever server.
func TestKeyIsMadeLater(t *testing.T) {
	c := newCATest(t)
	in := createRequest("ROOT", "slow")
	in.CertificateAuthorityConfiguration.KeyAlgorithm, in.CertificateAuthorityConfiguration.SigningAlgorithm = "RSA_2048", "SHA384WITHRSA"
	arn := c.create(in)
	_, err := c.GetCertificateAuthorityCsr(c.ctx, &acmpca.GetCertificateAuthorityCsrRequest{CertificateAuthorityArn: arn})
	c.refused(err, "RequestInProgressException", arn)
	gone := c.create(in)
	c.must((&subject{caTest: c, arn: gone}).remove())
	later := NewPrivateCA(c.Config) // the first server ended before it came to it
	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan error)
	go func() { ended <- later.Run(ctx) }()
	c.must(waitFor(c.ctx, func() bool { return c.status(arn) == pending }))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	csr, err := ca.ParseCSR(c.csr(arn))
	c.must(err)
	if got := ca.AlgorithmOf(csr.PublicKey()); got != ca.RSA2048 {
		t.Errorf("the key is %s", got)
	}
	c.must(c.makeKeys(c.ctx)) // nothing is left, and nothing is made twice
	if again := c.csr(arn); string(again) != string(c.csr(arn)) {
		t.Error("the CSR has changed")
	}
	out, err := c.IssueCertificate(c.ctx, &acmpca.IssueCertificateRequest{
		CertificateAuthorityArn: arn, Csr: c.csr(arn), SigningAlgorithm: "SHA512WITHRSA", TemplateArn: ptr(rootTemplate), Validity: &acmpca.Validity{Type: "YEARS", Value: 10},
	})
	c.must(err)
	own, _ := c.certificate(arn, *out.CertificateArn)
	if got := parsePEM(t, own).SignatureAlgorithm; got != x509.SHA512WithRSA {
		t.Errorf("signed with %s", got)
	}
}

// waitFor asks until it is so.
func waitFor(ctx context.Context, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			return errors.New("it did not come to pass within a minute")
		case <-tick.C:
		}
	}
	return nil
}
