package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	testAccount = "123456789012"
	testRegion  = "eu-west-1"
)

// clock is a time that only tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// caTest is a Private CA on a real store, with its caller.
type caTest struct {
	*PrivateCA
	t     testing.TB
	ctx   context.Context
	clock *clock
	logs  *bytes.Buffer
}

func newCATest(t testing.TB) *caTest {
	t.Helper()
	return newCATestOn(t, store.Config{DataDir: t.TempDir(), UnsafeNoFsync: true}, &clock{now: time.Now().Truncate(time.Second)})
}

func newCATestOn(t testing.TB, config store.Config, c *clock) *caTest {
	t.Helper()
	config.Account = testAccount
	s, err := store.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	logs := &bytes.Buffer{}
	p := NewPrivateCA(Config{
		Store: s, Region: testRegion, URL: "http://pki.test", Folder: config.DataDir, Now: c.Now,
		Log: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return &caTest{p, t, callerOf(t.Context(), testAccount), c, logs}
}

// callerOf is the context of a request of an account's root.
func callerOf(ctx context.Context, account string) context.Context {
	return awsapi.WithPrincipal(ctx, iam.Principal{Kind: iam.Root, Account: account, AccessKeyID: "AKIDEXAMPLE"})
}

func ptr[T any](v T) *T { return &v }

// exception is the code of the exception that an error is; "" for none.
func exception(err error) string {
	if e, ok := errors.AsType[*api.Exception](err); ok {
		return e.Code
	}
	if err != nil {
		return "not an exception: " + err.Error()
	}
	return ""
}

// refused wants an exception of a code, whose message has a text.
func (c *caTest) refused(err error, code, message string) {
	c.t.Helper()
	if exception(err) != code || !strings.Contains(err.Error(), message) {
		c.t.Errorf("got %v, want %s with %q", err, code, message)
	}
}

func (c *caTest) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func createRequest(kind acmpca.CertificateAuthorityType, name string) *acmpca.CreateCertificateAuthorityRequest {
	return &acmpca.CreateCertificateAuthorityRequest{
		CertificateAuthorityType: kind,
		CertificateAuthorityConfiguration: &acmpca.CertificateAuthorityConfiguration{
			KeyAlgorithm: "EC_prime256v1", SigningAlgorithm: "SHA256WITHECDSA",
			Subject: &acmpca.ASN1Subject{CommonName: ptr(name), Organization: ptr("Example"), Country: ptr("DE")},
		},
	}
}

func (c *caTest) create(in *acmpca.CreateCertificateAuthorityRequest) string {
	c.t.Helper()
	out, err := c.CreateCertificateAuthority(c.ctx, in)
	c.must(err)
	return *out.CertificateAuthorityArn
}

const (
	rootTemplate = "arn:aws:acm-pca:::template/RootCACertificate/V1"
	subTemplate  = "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1"
)

// issue lets an authority sign a CSR, and returns the certificate's ARN.
func (c *caTest) issue(authority string, csr []byte, template string, days int64) string {
	c.t.Helper()
	in := &acmpca.IssueCertificateRequest{CertificateAuthorityArn: authority, Csr: csr, SigningAlgorithm: "SHA256WITHECDSA", Validity: &acmpca.Validity{Type: "DAYS", Value: days}}
	if template != "" {
		in.TemplateArn = &template
	}
	out, err := c.IssueCertificate(c.ctx, in)
	c.must(err)
	return *out.CertificateArn
}

func (c *caTest) certificate(authority, arn string) (own, chain string) {
	c.t.Helper()
	out, err := c.GetCertificate(c.ctx, &acmpca.GetCertificateRequest{CertificateAuthorityArn: authority, CertificateArn: arn})
	c.must(err)
	return *out.Certificate, text(out.CertificateChain)
}

func (c *caTest) csr(authority string) []byte {
	c.t.Helper()
	out, err := c.GetCertificateAuthorityCsr(c.ctx, &acmpca.GetCertificateAuthorityCsrRequest{CertificateAuthorityArn: authority})
	c.must(err)
	return []byte(*out.Csr)
}

// root makes an ACTIVE root of some days.
func (c *caTest) root(days int64, change ...func(*acmpca.CreateCertificateAuthorityRequest)) string {
	c.t.Helper()
	in := createRequest("ROOT", "Example root")
	for _, f := range change {
		f(in)
	}
	arn := c.create(in)
	own, _ := c.certificate(arn, c.issue(arn, c.csr(arn), rootTemplate, days))
	c.must(c.ImportCertificateAuthorityCertificate(c.ctx, &acmpca.ImportCertificateAuthorityCertificateRequest{CertificateAuthorityArn: arn, Certificate: []byte(own)}))
	return arn
}

// leafCSR is a CSR for a host.
func leafCSR(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func parsePEM(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 || strings.HasSuffix(text, "\n") {
		t.Fatalf("not one certificate without a newline at its end: %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestHierarchy walks from nothing to a leaf under a subordinate under a root.
func TestHierarchy(t *testing.T) {
	c := newCATest(t)
	root := c.root(3650)
	sub := c.create(createRequest("SUBORDINATE", "Example issuing"))
	own, chain := c.certificate(root, c.issue(root, c.csr(sub), subTemplate, 365))
	c.must(c.ImportCertificateAuthorityCertificate(c.ctx, &acmpca.ImportCertificateAuthorityCertificateRequest{
		CertificateAuthorityArn: sub, Certificate: []byte(own), CertificateChain: []byte(chain),
	}))
	leaf, above := c.certificate(sub, c.issue(sub, leafCSR(t, "a.example.com"), "", 30))
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(chain))
	between.AppendCertsFromPEM([]byte(own))
	if above != own+"\n"+chain {
		t.Errorf("the chain of the leaf is\n%s\nwant the subordinate, then the root", above)
	}
	if _, err := parsePEM(t, leaf).Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "a.example.com", CurrentTime: c.clock.Now()}); err != nil {
		t.Error(err)
	}
}
