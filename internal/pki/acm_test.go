package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// acmRig is an ACM over a real store and a real Private CA, with a clock that
// tests set.
type acmRig struct {
	*ACM
	t     testing.TB
	ctx   context.Context // the account's
	ca    *caTest
	clock *clock
	log   *logBuffer
}

func newACMRig(t *testing.T) *acmRig {
	t.Helper()
	return newACMRigOn(t, newCATest(t))
}

func newACMRigOn(t testing.TB, c *caTest) *acmRig {
	t.Helper()
	r := &acmRig{t: t, ctx: c.ctx, ca: c, clock: c.clock, log: &logBuffer{}}
	r.ACM = r.newACM(c.PrivateCA)
	return r
}

// newACM is the ACM of another server.
func (r *acmRig) newACM(p *PrivateCA) *ACM {
	return NewACM(ACMConfig{
		Store: p.Store, Authorities: p, Region: testRegion, Account: testAccount, Now: r.clock.Now,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// apps is the mesh of the node that uses certificates, and user that node.
var (
	apps   = mesh.Name{Owner: testAccount, Mesh: "apps"}
	appsID = mesh.ID{Kind: mesh.KindMesh, Name: "apps"}
	apiID  = mesh.ID{Kind: mesh.KindVirtualNode, Name: "api"}
)

const user = "arn:aws:appmesh:eu-west-1:123456789012:mesh/apps/virtualNode/api"

// use makes a virtual node whose listeners name certificates, these and no others.
func (r *acmRig) use(arns ...string) {
	r.t.Helper()
	spec := &appmesh.VirtualNodeSpec{}
	for _, arn := range arns {
		spec.Listeners = append(spec.Listeners, appmesh.Listener{TLS: &appmesh.ListenerTls{
			Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}},
		}})
	}
	r.ca.node(spec)
}

// node writes the spec of the virtual node, in a mesh that it makes.
func (c *caTest) node(spec *appmesh.VirtualNodeSpec) {
	c.t.Helper()
	revision, err := c.Store.Write(c.ctx, func(tx *store.Tx) error {
		if _, err := store.Get[appmesh.MeshSpec](tx, apps, appsID); errors.Is(err, store.ErrNotFound) {
			if err := store.Put(tx, &mesh.Record[appmesh.MeshSpec]{Mesh: apps, ID: appsID, Version: 1, Spec: &appmesh.MeshSpec{}}); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		if _, err := store.Get[appmesh.VirtualNodeSpec](tx, apps, apiID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return store.Put(tx, &mesh.Record[appmesh.VirtualNodeSpec]{Mesh: apps, ID: apiID, Version: 1, ResourceOwner: testAccount, Spec: spec})
	})
	c.must(err)
	c.must(c.Store.WaitFor(c.ctx, revision))
}

// describe is DescribeCertificate, which must not fail.
func (r *acmRig) describe(t testing.TB, arn string) *acm.CertificateDetail {
	t.Helper()
	out, err := r.DescribeCertificate(r.ctx, &acm.DescribeCertificateRequest{CertificateArn: arn})
	if err != nil {
		t.Fatal(err)
	}
	return out.Certificate
}

// logBuffer may be written by many.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// wantCode wants an exception of a code whose message has a text.
func wantCode(t *testing.T, err error, code, text string) {
	t.Helper()
	if exception(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %s with %q", err, code, text)
	}
}

// leafSpec is a certificate that tests import.
type leafSpec struct {
	algorithm ca.KeyAlgorithm
	name      string
	names     []string
	from, to  time.Time
	usage     x509.KeyUsage
	extended  []x509.ExtKeyUsage
}

// material is what is imported, PEM.
type material struct{ certificate, key, chain []byte }

func (r *acmRig) makeLeaf(t *testing.T, spec leafSpec) material {
	t.Helper()
	now := r.clock.Now()
	if spec.to.IsZero() {
		spec.from, spec.to = now.Add(-time.Hour), now.Add(90*24*time.Hour)
	}
	if spec.usage == 0 {
		spec.usage, spec.extended = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	root, err := ca.NewRoot("Test Root", now.Add(-24*time.Hour), 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rootKey, err := root.EncodeKey()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(rootKey)
	signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.GenerateKey(spec.algorithm)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1001), Subject: pkix.Name{CommonName: spec.name, Organization: []string{"Apps"}, Country: []string{"AU"}}, DNSNames: spec.names,
		NotBefore: spec.from, NotAfter: spec.to, KeyUsage: spec.usage, ExtKeyUsage: spec.extended,
	}, root.Certificate, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := key.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	return material{ca.EncodePEM(der), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), root.PEM()}
}

func (m material) request() *acm.ImportCertificateRequest {
	return &acm.ImportCertificateRequest{Certificate: m.certificate, PrivateKey: api.NewSecretBlob(m.key), CertificateChain: m.chain}
}

func (r *acmRig) importLeaf(t *testing.T, spec leafSpec, tags ...acm.Tag) string {
	t.Helper()
	in := r.makeLeaf(t, spec).request()
	in.Tags = tags
	out, err := r.ImportCertificate(r.ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return *out.CertificateArn
}

// TestImported: what is described and answered of an imported certificate.
func TestImported(t *testing.T) {
	r := newACMRig(t)
	m := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"API.apps.local", "*.apps.local"}})
	out, err := r.ImportCertificate(r.ctx, m.request())
	if err != nil {
		t.Fatal(err)
	}
	arn := *out.CertificateArn
	if !strings.HasPrefix(arn, "arn:aws:acm:eu-west-1:123456789012:certificate/") {
		t.Errorf("ARN %s", arn)
	}
	now := api.Timestamp{Time: r.clock.Now()}
	want := &acm.CertificateDetail{
		CertificateArn: &arn, CertificateKeyPairOrigin: ptr(acm.CertificateKeyPairOriginCustomerProvided), CreatedAt: now, ImportedAt: now,
		DomainName: ptr("api.apps.local"), DomainValidationOptions: []acm.DomainValidation{{DomainName: "api.apps.local"}},
		ExtendedKeyUsages: []acm.ExtendedKeyUsage{{Name: ptr(acm.ExtendedKeyUsageNameTlsWebServerAuthentication), OID: ptr("1.3.6.1.5.5.7.3.1")}},
		KeyUsages:         []acm.KeyUsage{{Name: ptr(acm.KeyUsageNameDigitalSignature)}},
		InUseBy:           []string{}, Issuer: ptr("Test Root"), KeyAlgorithm: ptr(acm.KeyAlgorithm("EC-prime256v1")),
		NotBefore: api.Timestamp{Time: r.clock.Now().Add(-time.Hour)}, NotAfter: api.Timestamp{Time: r.clock.Now().Add(90 * 24 * time.Hour)},
		Options:            &acm.CertificateOptions{CertificateTransparencyLoggingPreference: ptr(acm.CertificateTransparencyLoggingPreferenceDisabled)},
		RenewalEligibility: ptr(acm.RenewalEligibilityIneligible), Serial: ptr("03:e9"), SignatureAlgorithm: ptr("SHA256WITHECDSA"),
		Status: ptr(acm.CertificateStatusIssued), Subject: ptr("C=AU,O=Apps,CN=api.apps.local"),
		SubjectAlternativeNames: []string{"api.apps.local", "*.apps.local"}, Type: ptr(acm.CertificateTypeImported),
	}
	if diff := cmp.Diff(want, r.describe(t, arn)); diff != "" {
		t.Errorf("described otherwise (-want +got):\n%s", diff)
	}
	got, err := r.GetCertificate(r.ctx, &acm.GetCertificateRequest{CertificateArn: arn})
	if err != nil || *got.Certificate != string(m.certificate) || *got.CertificateChain != string(m.chain) {
		t.Errorf("GetCertificate: %v, %v", got, err)
	}
	_, err = r.ExportCertificate(r.ctx, &acm.ExportCertificateRequest{CertificateArn: arn, Passphrase: api.NewSecretBlob([]byte("correct horse"))})
	wantCode(t, err, "ValidationException", "is not a private certificate")
	wantCode(t, r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}), "ValidationException", "was imported")
	wantCode(t, r.UpdateCertificateOptions(r.ctx, &acm.UpdateCertificateOptionsRequest{CertificateArn: arn, Options: &acm.CertificateOptions{}}), "ValidationException", "was imported")

	m.chain = nil
	alone, err := r.ImportCertificate(r.ctx, m.request())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.GetCertificate(r.ctx, &acm.GetCertificateRequest{CertificateArn: *alone.CertificateArn}); err != nil || got.CertificateChain != nil {
		t.Errorf("without a chain: %v, %v", got.CertificateChain, err)
	}
	r.clock.forward(91 * 24 * time.Hour)
	if status := *r.describe(t, arn).Status; status != acm.CertificateStatusExpired {
		t.Errorf("after its end the status is %s", status)
	}
}

// TestReimport: what stays under the ARN, and what is refused.
func TestReimport(t *testing.T) {
	r := newACMRig(t)
	spec := leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}}
	arn := r.importLeaf(t, spec, acm.Tag{Key: "team", Value: ptr("web")})
	before := r.describe(t, arn)
	r.clock.forward(time.Hour)
	spec.names = []string{"api.apps.local", "www.apps.local"}
	in := r.makeLeaf(t, spec).request()
	in.CertificateArn = &arn
	in.Tags = []acm.Tag{{Key: "more"}}
	_, err := r.ImportCertificate(r.ctx, in)
	wantCode(t, err, "InvalidParameterException", "keeps its tags")
	in.Tags = nil
	if out, err := r.ImportCertificate(r.ctx, in); err != nil || *out.CertificateArn != arn {
		t.Fatalf("%v, %v", out, err)
	}
	after := r.describe(t, arn)
	if !after.CreatedAt.Equal(before.CreatedAt.Time) || !after.ImportedAt.Equal(r.clock.Now()) || len(after.SubjectAlternativeNames) != 2 {
		t.Errorf("imported again it is created %v, imported %v, of %v", after.CreatedAt, after.ImportedAt, after.SubjectAlternativeNames)
	}
	if tags, err := r.ListTagsForCertificate(r.ctx, &acm.ListTagsForCertificateRequest{CertificateArn: arn}); err != nil || len(tags.Tags) != 1 {
		t.Errorf("tags: %v, %v", tags, err)
	}
	for name, c := range map[string]struct {
		change func(*leafSpec)
		text   string
	}{
		"another kind of key": {func(s *leafSpec) { s.algorithm = ca.P384 }, "type and size"},
		"no common name":      {func(s *leafSpec) { s.name, s.names = "x.other.local", []string{"x.other.local"} }, "domain names"},
		"a usage less": {func(s *leafSpec) {
			s.usage, s.extended = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, "TLS_WEB_SERVER_AUTHENTICATION"},
		"it is over": {func(s *leafSpec) { s.from, s.to = r.clock.Now().Add(-2*time.Hour), r.clock.Now().Add(-time.Hour) }, ""},
	} {
		other := spec
		c.change(&other)
		in := r.makeLeaf(t, other).request()
		in.CertificateArn = &arn
		_, err := r.ImportCertificate(r.ctx, in)
		t.Log(name, err)
		wantCode(t, err, "InvalidParameterException", c.text)
	}
	in.CertificateArn = ptr(arn + "x")
	_, err = r.ImportCertificate(r.ctx, in)
	wantCode(t, err, "ResourceNotFoundException", "Could not find certificate")
}

// TestRequestRules: what cannot be requested, and what to do instead.
func TestRequestRules(t *testing.T) {
	r := newACMRig(t)
	long := strings.Repeat("a", 60) + ".apps.local"
	many := []string{}
	for i := range 100 {
		many = append(many, fmt.Sprintf("h%d.apps.local", i))
	}
	for name, c := range map[string]struct {
		change     func(*acm.RequestCertificateRequest)
		code, text string
	}{
		"public":     {func(in *acm.RequestCertificateRequest) { in.CertificateAuthorityArn = nil }, "InvalidParameterException", "public certificates are not issued here"},
		"long name":  {func(in *acm.RequestCertificateRequest) { in.DomainName = long }, "InvalidParameterException", "at most 64"},
		"many names": {func(in *acm.RequestCertificateRequest) { in.SubjectAlternativeNames = many }, "InvalidParameterException", "101 names"},
		"RSA 4096":   {func(in *acm.RequestCertificateRequest) { in.KeyAlgorithm = ptr(acm.KeyAlgorithmRsa4096) }, "InvalidParameterException", "only be imported"},
		"aws: tag":   {func(in *acm.RequestCertificateRequest) { in.Tags = []acm.Tag{{Key: "aws:x"}} }, "InvalidTagException", "AWS's own"},
		"tag twice":  {func(in *acm.RequestCertificateRequest) { in.Tags = []acm.Tag{{Key: "x"}, {Key: "x"}} }, "InvalidTagException", "twice"},
		"CloudFront": {func(in *acm.RequestCertificateRequest) { in.ManagedBy = ptr(acm.CertificateManagedByCloudfront) }, "InvalidParameterException", "ManagedBy"},
		"not exported": {func(in *acm.RequestCertificateRequest) {
			in.Options = &acm.CertificateOptions{Export: ptr(acm.CertificateExportDisabled)}
		}, "InvalidParameterException", "always be exported"},
		"validation": {func(in *acm.RequestCertificateRequest) {
			in.DomainValidationOptions = []acm.DomainValidationOption{{DomainName: "a.b", ValidationDomain: "b"}}
		}, "InvalidDomainValidationOptionsException", "only public"},
	} {
		in := acmRequest("api.apps.local")
		c.change(in)
		_, err := r.RequestCertificate(r.ctx, in)
		t.Log(name, err)
		wantCode(t, err, c.code, c.text)
	}
}

const someAuthority = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555"

func acmRequest(domain string, names ...string) *acm.RequestCertificateRequest {
	return &acm.RequestCertificateRequest{DomainName: domain, SubjectAlternativeNames: names, CertificateAuthorityArn: ptr(someAuthority)}
}

// TestRequested: what a certificate is before it is issued, and which requests
// are the same.
func TestRequested(t *testing.T) {
	r := newACMRig(t)
	ask := func(in *acm.RequestCertificateRequest) string {
		t.Helper()
		out, err := r.RequestCertificate(r.ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return *out.CertificateArn
	}
	in := acmRequest("api.apps.local", "API.apps.local", "www.apps.local")
	in.IdempotencyToken = ptr("t1")
	arn := ask(in)
	now := api.Timestamp{Time: r.clock.Now()}
	want := &acm.CertificateDetail{
		CertificateArn: &arn, CertificateAuthorityArn: ptr(someAuthority), CertificateKeyPairOrigin: ptr(acm.CertificateKeyPairOriginAwsManaged), CreatedAt: now,
		DomainName: ptr("api.apps.local"), InUseBy: []string{}, KeyAlgorithm: ptr(acm.KeyAlgorithm("RSA-2048")),
		Options:            &acm.CertificateOptions{CertificateTransparencyLoggingPreference: ptr(acm.CertificateTransparencyLoggingPreferenceEnabled)},
		RenewalEligibility: ptr(acm.RenewalEligibilityIneligible), Status: ptr(acm.CertificateStatusPendingValidation),
		SubjectAlternativeNames: []string{"api.apps.local", "www.apps.local"}, Type: ptr(acm.CertificateTypePrivate),
	}
	if diff := cmp.Diff(want, r.describe(t, arn)); diff != "" {
		t.Errorf("described otherwise (-want +got):\n%s", diff)
	}
	_, err := r.GetCertificate(r.ctx, &acm.GetCertificateRequest{CertificateArn: arn})
	wantCode(t, err, "RequestInProgressException", "not issued yet")
	_, err = r.ExportCertificate(r.ctx, &acm.ExportCertificateRequest{CertificateArn: arn, Passphrase: api.NewSecretBlob([]byte("correct horse"))})
	wantCode(t, err, "RequestInProgressException", "not issued yet")
	wantCode(t, r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}), "RequestInProgressException", "not issued yet")
	_, err = r.ExportCertificate(r.ctx, &acm.ExportCertificateRequest{CertificateArn: arn, Passphrase: api.NewSecretBlob([]byte("dollar$"))})
	wantCode(t, err, "ValidationException", "must not have the characters")
	if strings.Contains(fmt.Sprint(err), "dollar") {
		t.Error("the refusal shows the passphrase")
	}

	same := acmRequest("API.apps.local", "www.apps.local")
	same.IdempotencyToken = in.IdempotencyToken
	same.Tags = []acm.Tag{{Key: "team"}}
	r.clock.forward(time.Hour - time.Second)
	if again := ask(same); again != arn {
		t.Errorf("the same request within the hour made %s", again)
	}
	other := acmRequest("api.apps.local", "other.apps.local")
	other.IdempotencyToken = in.IdempotencyToken
	if again := ask(other); again == arn {
		t.Error("another request with the token made the same certificate")
	}
	r.clock.forward(time.Hour + time.Second)
	late := ask(other)
	r.clock.forward(time.Hour)
	if again := ask(other); again == late {
		t.Error("the token still holds after an hour")
	}
	deleted := ask(other)
	if err := r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: deleted}); err != nil {
		t.Fatal(err)
	}
	if again := ask(other); again == deleted {
		t.Error("the token makes a certificate that is deleted")
	}
	r.clock.forward(2 * time.Hour)
	if err := r.sweep(r.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Store.Read(r.ctx, func(tx *store.Tx) error {
		left, err := store.ListObjects[token](tx, store.Place{kindToken}, nil, 0)
		if len(left) > 0 {
			t.Errorf("%d tokens are left that are over", len(left))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestSameTokenAtOnce: requests with one token that come at the same time make
// one certificate.
func TestSameTokenAtOnce(t *testing.T) {
	r := newACMRig(t)
	var group errgroup.Group
	arns := make([]string, 8)
	for i := range arns {
		group.Go(func() error {
			in := acmRequest("api.apps.local")
			in.IdempotencyToken = ptr("once")
			out, err := r.RequestCertificate(r.ctx, in)
			if err == nil {
				arns[i] = *out.CertificateArn
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if all := slices.Compact(arns); len(all) != 1 {
		t.Errorf("they made %v", all)
	}
	if out, err := r.ListCertificates(r.ctx, &acm.ListCertificatesRequest{}); err != nil || len(out.CertificateSummaryList) != 1 {
		t.Errorf("there are %d certificates, %v", len(out.CertificateSummaryList), err)
	}
}

// TestWhoseCertificate: ARNs that are none, and those of others.
func TestWhoseCertificate(t *testing.T) {
	r := newACMRig(t)
	arn := r.importLeaf(t, leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}})
	describe := func(ctx context.Context, arn string) error {
		_, err := r.DescribeCertificate(ctx, &acm.DescribeCertificateRequest{CertificateArn: arn})
		return err
	}
	for _, bad := range []string{
		strings.Replace(arn, ":acm:", ":acm-pca:", 1), strings.Replace(arn, "certificate/", "key/", 1), arn + "/version/1",
		"arn:aws:acm:eu-west-1:123456789012:certificate", "arn:aws:acm:eu-west-1::certificate/x",
	} {
		wantCode(t, describe(r.ctx, bad), "InvalidArnException", "is not of the form")
	}
	for _, missing := range []string{arn[:len(arn)-1], strings.Replace(arn, "eu-west-1", "us-east-1", 1), strings.Replace(arn, testAccount, "999999999999", 1)} {
		wantCode(t, describe(r.ctx, missing), "ResourceNotFoundException", "Could not find certificate")
	}
	stranger := asAccount(t.Context(), "999999999999")
	wantCode(t, describe(stranger, arn), "ResourceNotFoundException", "Could not find certificate")
	wantCode(t, r.DeleteCertificate(stranger, &acm.DeleteCertificateRequest{CertificateArn: arn}), "ResourceNotFoundException", "Could not find certificate")
	if out, err := r.ListCertificates(stranger, &acm.ListCertificatesRequest{}); err != nil || len(out.CertificateSummaryList) > 0 {
		t.Errorf("a stranger lists %v, %v", out, err)
	}
}

// TestDeleteCertificate: not while something uses it.
func TestDeleteCertificate(t *testing.T) {
	r := newACMRig(t)
	arn := r.importLeaf(t, leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}})
	r.use(arn)
	if d := r.describe(t, arn); len(d.InUseBy) != 1 || d.InUseBy[0] != user {
		t.Errorf("in use by %v", d.InUseBy)
	}
	wantCode(t, r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: arn}), "ResourceInUseException", user)
	r.use()
	if err := r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: arn}); err != nil {
		t.Fatal(err)
	}
	at, err := acmPlace(arn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Store.Read(r.ctx, func(tx *store.Tx) error { _, err := tx.Secret(at); return err }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the key of a deleted certificate: %v", err)
	}
}
