package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pca "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// issuing is what clients have asked of a server that is killed again and again,
// and what they were told. Every name is asked for once, so that the ledger's
// subjects say what was issued twice.
type issuing struct {
	s    *meshtest.Server
	root string
	pca  *acmpca.Client
	acm  *acm.Client

	mu        sync.Mutex
	told      map[string]string  // ARN of the certificate of Private CA, by name
	served    map[string]string  // serials that somebody got, with the name
	requested map[string]string  // ARN of the certificate of ACM, by name
	renewals  map[string]renewal // by name
}

// renewal is how far somebody came who asked for one.
type renewal int

const (
	notRenewed renewal = iota
	mayBeRenewed
	willBeRenewed
)

// step is one thing that a client does. It is called again with the same n if
// the server was killed before it had answered.
type step func(ctx context.Context, n int) error

// TestIssuedOnceThoughKilled kills the server 30 times, at a random moment, while
// clients have certificates issued by Private CA, requested of ACM and renewed;
// who got no answer asks again. No serial is there twice, nothing that anybody
// was told or given lacks in the ledger, and nothing was issued twice for one
// token, one request or one renewal.
func TestIssuedOnceThoughKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	i := &issuing{
		s: s, root: authorityForACM(t, s), pca: client(t, s, func(o *acmpca.Options) { o.Retryer = aws.NopRetryer{} }),
		told: map[string]string{}, served: map[string]string{}, requested: map[string]string{}, renewals: map[string]renewal{},
	}
	i.acm = acm.New(acmClient(t, s).Options(), func(o *acm.Options) { o.Retryer = aws.NopRetryer{} })
	var steps []step
	for w := range 4 {
		steps = append(steps, i.issuer(w))
	}
	steps = append(steps, i.requester(0), i.requester(1), i.renewer())
	at := make([]int, len(steps))
	for range 30 * meshtest.Soak(t) {
		group, ctx := errgroup.WithContext(t.Context())
		for w, do := range steps {
			group.Go(func() error { return untilGone(ctx, do, &at[w]) })
		}
		lived := time.NewTimer(50*time.Millisecond + time.Duration(random.Int64N(int64(600*time.Millisecond))))
		select {
		case <-lived.C:
		case <-ctx.Done():
		}
		s.Kill()
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		s.Restart(t)
	}
	i.check(t)
}

// untilGone does one step after the other until the server does not answer. What
// the server refuses is an error.
func untilGone(ctx context.Context, do step, n *int) error {
	for {
		err := do(ctx, *n)
		var refused smithy.APIError
		switch {
		case errors.As(err, &refused):
			return err
		case errors.Is(err, errWrong):
			return err
		case err != nil:
			return nil
		}
		*n++
	}
}

// errWrong is an answer that must not be.
var errWrong = errors.New("wrong")

// issuer has certificates issued by Private CA, each under a token, and every
// other one again under the same token, and fetches them.
func (i *issuing) issuer(worker int) step {
	csrs := map[int][]byte{} // the newest
	return func(ctx context.Context, n int) error {
		name := fmt.Sprintf("issued-%d-%d", worker, n)
		if csrs[n] == nil {
			csr, err := csrOf(name)
			if err != nil {
				return errors.Join(errWrong, err)
			}
			clear(csrs)
			csrs[n] = csr
		}
		for range 1 + n%2 {
			out, err := i.pca.IssueCertificate(ctx, &acmpca.IssueCertificateInput{
				CertificateAuthorityArn: &i.root, Csr: csrs[n], SigningAlgorithm: pca.SigningAlgorithmSha256withecdsa, IdempotencyToken: &name,
				Validity: &pca.Validity{Type: pca.ValidityPeriodTypeDays, Value: aws.Int64(1)},
			})
			if err != nil {
				return err
			}
			i.mu.Lock()
			before := i.told[name]
			i.told[name] = *out.CertificateArn
			i.mu.Unlock()
			if before != "" && before != *out.CertificateArn {
				return fmt.Errorf("%w: one token has issued %s and %s", errWrong, before, *out.CertificateArn)
			}
			got, err := i.pca.GetCertificate(ctx, &acmpca.GetCertificateInput{CertificateAuthorityArn: &i.root, CertificateArn: out.CertificateArn})
			if err != nil {
				return err
			}
			if err := i.serve(name, *got.Certificate); err != nil {
				return err
			}
		}
		return nil
	}
}

// serve notes that somebody was given a certificate.
func (i *issuing) serve(name, text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return fmt.Errorf("%w: %s is no certificate: %q", errWrong, name, text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return errors.Join(errWrong, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	serial := fmt.Sprintf("%032x", c.SerialNumber)
	if other := i.served[serial]; other != "" && other != name || c.Subject.CommonName != name {
		return fmt.Errorf("%w: %s is served with the serial %s of %s, for %s", errWrong, name, serial, other, c.Subject)
	}
	i.served[serial] = name
	return nil
}

func csrOf(name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), err
}

// requester requests certificates of ACM, one after the other: the server is to
// be busy, not to have a heap of work.
func (i *issuing) requester(worker int) step {
	return func(ctx context.Context, n int) error {
		name := requestedName(worker, n)
		out, err := i.acm.RequestCertificate(ctx, &acm.RequestCertificateInput{
			DomainName: &name, CertificateAuthorityArn: &i.root, KeyAlgorithm: types.KeyAlgorithmEcPrime256v1, IdempotencyToken: aws.String(fmt.Sprintf("t%d_%d", worker, n)),
		})
		if err != nil {
			return err
		}
		i.mu.Lock()
		before := i.requested[name]
		i.requested[name] = *out.CertificateArn
		i.mu.Unlock()
		if before != "" && before != *out.CertificateArn {
			return fmt.Errorf("%w: one token has requested %s and %s", errWrong, before, *out.CertificateArn)
		}
		return i.issued(ctx, *out.CertificateArn)
	}
}

// issued asks until a certificate of ACM is issued.
func (i *issuing) issued(ctx context.Context, arn string) error {
	for {
		d, err := i.acm.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &arn})
		if err != nil {
			return err
		}
		switch d.Certificate.Status {
		case types.CertificateStatusIssued:
			return nil
		case types.CertificateStatusPendingValidation:
		default:
			return fmt.Errorf("%w: %s is %s, %s", errWrong, arn, d.Certificate.Status, d.Certificate.FailureReason)
		}
	}
}

// renewer exports the certificates of the first requester and renews each once.
func (i *issuing) renewer() step {
	return func(ctx context.Context, n int) error {
		name := requestedName(0, n)
		arn, asked := i.request(name)
		for arn == "" { // the requester is not there yet
			if _, err := i.acm.ListCertificates(ctx, &acm.ListCertificatesInput{MaxItems: aws.Int32(1)}); err != nil {
				return err
			}
			arn, asked = i.request(name)
		}
		if asked != notRenewed {
			return nil // it was asked for and not answered: asking again may be another renewal
		}
		if err := i.issued(ctx, arn); err != nil {
			return err
		}
		out, err := i.acm.ExportCertificate(ctx, &acm.ExportCertificateInput{CertificateArn: &arn, Passphrase: []byte(passphrase)})
		if err != nil {
			return err
		}
		if err := i.serve(name, *out.Certificate); err != nil {
			return err
		}
		i.note(name, mayBeRenewed)
		if _, err := i.acm.RenewCertificate(ctx, &acm.RenewCertificateInput{CertificateArn: &arn}); err != nil {
			return err
		}
		i.note(name, willBeRenewed)
		return nil
	}
}

func requestedName(worker, n int) string { return fmt.Sprintf("requested-%d-%d.apps.local", worker, n) }

func (i *issuing) request(name string) (arn string, asked renewal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requested[name], i.renewals[name]
}

func (i *issuing) note(name string, asked renewal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.renewals[name] = asked
}

// entry is a certificate in an audit report, which lists the whole ledger.
type entry struct {
	ARN     string `json:"certificateArn"`
	Serial  string `json:"serial"`
	Subject string `json:"subject"`
}

// check waits until the server has done what it was asked for and holds its
// ledger against what its clients know.
func (i *issuing) check(t *testing.T) {
	renewed := 0
	for name, arn := range i.requested {
		d := waitIssued(t, i.acm, arn, issuedWithin)
		i.served[digits(*d.Serial)] = name
		if i.renewals[name] == willBeRenewed {
			renewed++
		}
	}
	if len(i.told) == 0 || len(i.requested) == 0 || renewed == 0 {
		t.Errorf("%d certificates issued, %d requested, %d renewed: nothing is shown", len(i.told), len(i.requested), renewed)
	}
	serials, arns, times := map[string]bool{}, map[string]bool{}, map[string]int{}
	for _, e := range ledger(t, i.s, i.root) {
		serial := digits(e.Serial)
		if serials[serial] {
			t.Errorf("the serial %s is in the ledger twice", serial)
		}
		serials[serial], arns[e.ARN] = true, true
		times[strings.TrimPrefix(e.Subject, "CN=")]++
	}
	for name, arn := range i.told {
		if !arns[arn] {
			t.Errorf("%s was told %s, which is not in the ledger", name, arn)
		}
	}
	for serial, name := range i.served {
		if !serials[serial] {
			t.Errorf("%s has the serial %s, which is not in the ledger", name, serial)
		}
	}
	for name, n := range times {
		least, most := 1, 1
		if _, asked := i.request(name); asked != notRenewed {
			least, most = int(asked), 2
		}
		if n < least || n > most {
			t.Errorf("%s was issued %d times, want %d to %d", name, n, least, most)
		}
	}
	for name := range i.requested {
		if times[name] == 0 {
			t.Errorf("%s is not in the ledger", name)
		}
	}
	t.Logf("%d certificates in the ledger: %d of Private CA and %d of ACM were answered, %d of these renewed", len(serials), len(i.told), len(i.requested), renewed)
}

// digits are a serial's 32 hexadecimal digits, whether or not leading zeros are
// shown.
func digits(serial string) string {
	return fmt.Sprintf("%032s", strings.ReplaceAll(serial, ":", ""))
}

// ledger reads all that an authority has issued, by its audit report.
func ledger(t *testing.T, s *meshtest.Server, authority string) []entry {
	t.Helper()
	c := client(t, s)
	out := must[*acmpca.CreateCertificateAuthorityAuditReportOutput](t)(c.CreateCertificateAuthorityAuditReport(t.Context(), &acmpca.CreateCertificateAuthorityAuditReportInput{
		CertificateAuthorityArn: &authority, S3BucketName: aws.String("bucket"), AuditReportResponseFormat: pca.AuditReportResponseFormatJson,
	}))
	meshtest.Eventually(t, issuedWithin, func(ctx context.Context) error {
		d, err := c.DescribeCertificateAuthorityAuditReport(ctx, &acmpca.DescribeCertificateAuthorityAuditReportInput{CertificateAuthorityArn: &authority, AuditReportId: out.AuditReportId})
		if err == nil && d.AuditReportStatus != pca.AuditReportStatusSuccess {
			err = fmt.Errorf("the audit report is %s", d.AuditReportStatus)
		}
		return err
	})
	var all []entry
	text := must[[]byte](t)(os.ReadFile(filepath.Join(s.DataDir, *out.S3Key)))
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	return all
}
