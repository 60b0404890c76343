package pki

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
)

// permit lets ACM have certificates of an authority.
func (r *acmRig) permit(authority string) string {
	r.t.Helper()
	r.ca.must(r.ca.CreatePermission(r.ctx, &acmpca.CreatePermissionRequest{
		CertificateAuthorityArn: authority, Principal: acmPrincipal, Actions: []acmpca.ActionType{"IssueCertificate", "GetCertificate", "ListPermissions"},
	}))
	return authority
}

// ask requests a certificate with a P-256 key.
func (r *acmRig) ask(authority, domain string, names ...string) string {
	r.t.Helper()
	in := acmRequest(domain, names...)
	in.CertificateAuthorityArn, in.KeyAlgorithm = &authority, ptr(acm.KeyAlgorithmEcPrime256v1)
	out, err := r.RequestCertificate(r.ctx, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return *out.CertificateArn
}

// issued does all tasks.
func (r *acmRig) issued() {
	r.t.Helper()
	if err := r.work(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

func (r *acmRig) export(arn, passphrase string) *acm.ExportCertificateResponse {
	r.t.Helper()
	out, err := r.ExportCertificate(r.ctx, &acm.ExportCertificateRequest{CertificateArn: arn, Passphrase: api.NewSecretBlob([]byte(passphrase))})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// ledger is how many certificates an authority has issued besides its own.
func (r *acmRig) ledger(authority string) int {
	r.t.Helper()
	return r.ca.ledger(authority) - 1
}

// TestIssued walks from a request through export and renewal.
func TestIssued(t *testing.T) {
	r := newACMRig(t)
	root := r.permit(r.ca.root(3650))
	arn := r.ask(root, "api.apps.local", "*.apps.local")
	r.issued()
	d := r.describe(t, arn)
	if *d.Status != "ISSUED" || *d.Issuer != "Example" || *d.Subject != "CN=api.apps.local" || *d.RenewalEligibility != "INELIGIBLE" || !d.IssuedAt.Equal(r.clock.Now()) || d.RenewalSummary != nil {
		t.Errorf("issued it is %+v", d)
	}
	if life := d.NotAfter.Sub(r.clock.Now()); life != validDays*24*time.Hour {
		t.Errorf("it is valid for %s", life)
	}
	first := r.export(arn, "correct horse")
	chain := verifyExport(t, r, first, "correct horse", "x.apps.local")
	if len(chain) != 2 {
		t.Errorf("the chain has %d certificates", len(chain))
	}
	if e := *r.describe(t, arn).RenewalEligibility; e != "ELIGIBLE" {
		t.Errorf("exported it is %s", e)
	}
	if err := r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}); err != nil {
		t.Fatal(err)
	}
	if s := r.describe(t, arn).RenewalSummary; s == nil || s.RenewalStatus != "PENDING_AUTO_RENEWAL" || s.DomainValidationOptions == nil {
		t.Errorf("renewal under way: %+v", s)
	}
	r.issued()
	after := r.describe(t, arn)
	if s := after.RenewalSummary; s == nil || s.RenewalStatus != "SUCCESS" || *after.Serial == *d.Serial || *after.RenewalEligibility != "INELIGIBLE" {
		t.Errorf("renewed it is %+v", after)
	}
	wantCode(t, r.RenewCertificate(r.ctx, &acm.RenewCertificateRequest{CertificateArn: arn}), "ValidationException", "not eligible")
	second := r.export(arn, "battery staple")
	verifyExport(t, r, second, "battery staple", "api.apps.local")
	if *first.Certificate == *second.Certificate {
		t.Error("the renewed certificate is the same")
	}
	if n := r.ledger(root); n != 2 {
		t.Errorf("the authority has issued %d, want 2", n)
	}
	_, err := r.ImportCertificate(r.ctx, func() *acm.ImportCertificateRequest {
		in := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "api.apps.local", names: []string{"api.apps.local"}}).request()
		in.CertificateArn = &arn
		return in
	}())
	wantCode(t, err, "ValidationException", "was not imported")
}

// verifyExport wants key, certificate and chain to belong together.
func verifyExport(t *testing.T, r *acmRig, e *acm.ExportCertificateResponse, passphrase, host string) []*x509.Certificate {
	t.Helper()
	key, err := ca.DecryptKey([]byte(e.PrivateKey.Reveal()), []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := parseCertificate(*e.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if equal, ok := key.Public().(interface {
		Equal(x interface{}) bool
	}); ok && !equal.Equal(leaf.PublicKey) {
		t.Error("the key is not the certificate's")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(*e.CertificateChain)) || !strings.HasSuffix(*e.Certificate, "-----END CERTIFICATE-----\n") {
		t.Errorf("certificate or chain are not PEM with a newline at the end:\n%s%s", *e.Certificate, *e.CertificateChain)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: r.clock.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return chains[0]
}

// TestIssueFailures: what the authority refuses ends a request, with its reason.
func TestIssueFailures(t *testing.T) {
	r := newACMRig(t)
	silent := r.ca.root(3650)
	pending := r.permit(r.ca.create(createRequest("ROOT", "no certificate yet")))
	short := r.permit(r.ca.root(100))
	shortLived := r.permit(r.ca.root(3650, func(in *acmpca.CreateCertificateAuthorityRequest) {
		in.UsageMode = ptr(acmpca.CertificateAuthorityUsageModeShortLivedCertificate)
	}))
	disabled := r.permit(r.ca.root(3650))
	r.ca.must(r.ca.UpdateCertificateAuthority(r.ctx, &acmpca.UpdateCertificateAuthorityRequest{CertificateAuthorityArn: disabled, Status: ptr(acmpca.CertificateAuthorityStatusDisabled)}))
	for _, c := range []struct {
		authority string
		want      acm.FailureReason
	}{
		{silent, "PCA_ACCESS_DENIED"},
		{pending, "PCA_INVALID_STATE"},
		{short, "PCA_INVALID_DURATION"},
		{shortLived, "PCA_INVALID_DURATION"},
		{disabled, "PCA_INVALID_STATE"},
		{silent[:len(silent)-12] + "000000000000", "PCA_RESOURCE_NOT_FOUND"},
		{strings.Replace(silent, testRegion, "us-east-1", 1), "PCA_INVALID_ARN"},
		{strings.Replace(silent, testAccount, "999999999999", 1), "PCA_ACCESS_DENIED"},
	} {
		arn := r.ask(c.authority, "api.apps.local")
		r.issued()
		d := r.describe(t, arn)
		if *d.Status != "FAILED" || d.FailureReason == nil || *d.FailureReason != c.want {
			t.Errorf("%s: %s %v, want FAILED %s", c.authority, *d.Status, d.FailureReason, c.want)
			continue
		}
		_, err := r.GetCertificate(r.ctx, &acm.GetCertificateRequest{CertificateArn: arn})
		wantCode(t, err, "ValidationException", string(c.want))
		if err := r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: arn}); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(r.log.String(), "create-permission --principal acm.amazonaws.com") {
		t.Error("the log does not say which permission is missing")
	}
	if tasks, err := r.ready(r.ctx); err != nil || len(tasks) > 0 {
		t.Errorf("%d tasks are left, %v", len(tasks), err)
	}
}

// outage is a real authority that does not answer at times: it hangs up before
// or after it has done what it was asked for.
type outage struct {
	acmpca.Service
	mu            sync.Mutex
	before, after int // calls of IssueCertificate that end so
	notYet        int // calls of GetCertificate that come too early
	asked         int // calls of IssueCertificate
}

var errOutage = errors.New("connection reset by peer")

func (o *outage) IssueCertificate(ctx context.Context, in *acmpca.IssueCertificateRequest) (*acmpca.IssueCertificateResponse, error) {
	o.mu.Lock()
	o.asked++
	before, after := o.before > 0, o.after > 0
	switch {
	case before:
		o.before--
	case after:
		o.after--
	}
	o.mu.Unlock()
	if before {
		return nil, errOutage
	}
	out, err := o.Service.IssueCertificate(ctx, in)
	if after {
		return nil, errOutage
	}
	return out, err
}

func (o *outage) GetCertificate(ctx context.Context, in *acmpca.GetCertificateRequest) (*acmpca.GetCertificateResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.notYet > 0 {
		o.notYet--
		return nil, acmpca.NewRequestInProgressException("not yet")
	}
	return o.Service.GetCertificate(ctx, in)
}

// TestIssuedLater: an authority that takes its time, as AWS's does, is asked
// for the certificate and not to issue another.
func TestIssuedLater(t *testing.T) {
	r := newACMRig(t)
	root := r.permit(r.ca.root(3650))
	o := &outage{Service: r.ca.PrivateCA, notYet: 2}
	r.Authorities = o
	arn := r.ask(root, "api.apps.local")
	for range 3 {
		if s := *r.describe(t, arn).Status; s != "PENDING_VALIDATION" {
			t.Fatalf("it is %s already", s)
		}
		r.issued()
		r.clock.forward(10 * time.Minute) // longer than the authority knows a token
	}
	if s := *r.describe(t, arn).Status; s != "ISSUED" || o.asked != 1 || r.ledger(root) != 1 {
		t.Errorf("it is %s, after the authority was asked %d times and has issued %d", s, o.asked, r.ledger(root))
	}
	if strings.Contains(r.log.String(), "was not issued") {
		t.Error("the log warns of what is usual")
	}
}

// TestIssueAgain: an authority that does not answer is asked again, more and
// more slowly, for the same certificate.
func TestIssueAgain(t *testing.T) {
	r := newACMRig(t)
	root := r.permit(r.ca.root(3650))
	o := &outage{Service: r.ca.PrivateCA, before: 2, after: 1}
	r.Authorities = o
	registry := prometheus.NewRegistry()
	var err error
	if r.Metrics, err = NewACMMetrics(registry); err != nil {
		t.Fatal(err)
	}
	arn := r.ask(root, "api.apps.local")
	for i, pause := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		if pause > 0 {
			r.clock.forward(pause - time.Millisecond)
			r.issued()
		}
		if s := *r.describe(t, arn).Status; s != "PENDING_VALIDATION" {
			t.Fatalf("after %d attempts it is %s", i, s)
		}
		r.clock.forward(time.Millisecond)
		r.issued()
	}
	if s := *r.describe(t, arn).Status; s != "ISSUED" {
		t.Fatalf("at last it is %s", s)
	}
	if n := r.ledger(root); n != 1 {
		t.Errorf("the authority has issued %d, want 1", n)
	}
	r.export(arn, "correct horse")

	// A renewal that fails says so, keeps the old certificate and heals.
	before := r.describe(t, arn)
	r.ca.must(r.ca.DeletePermission(r.ctx, &acmpca.DeletePermissionRequest{CertificateAuthorityArn: root, Principal: acmPrincipal}))
	r.clock.forward(RenewalDue(before.NotBefore.Time, before.NotAfter.Time, *before.Serial).Sub(r.clock.Now()))
	if err := r.step(r.ctx); err != nil {
		t.Fatal(err)
	}
	d := r.describe(t, arn)
	if s := d.RenewalSummary; *d.Status != "ISSUED" || *d.Serial != *before.Serial || s == nil || s.RenewalStatus != "FAILED" || *s.RenewalStatusReason != "PCA_ACCESS_DENIED" {
		t.Errorf("after a failed renewal: %s %+v", *d.Status, d.RenewalSummary)
	}
	r.permit(root)
	r.clock.forward(time.Second)
	if err := r.step(r.ctx); err != nil {
		t.Fatal(err)
	}
	if d := r.describe(t, arn); d.RenewalSummary.RenewalStatus != "SUCCESS" || *d.Serial == *before.Serial {
		t.Errorf("it did not heal: %+v", d.RenewalSummary)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, m := range families[0].Metric {
		counted[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = m.Counter.GetValue()
	}
	if diff := cmp.Diff(map[string]float64{"request unanswered": 3, "request issued": 1, "renewal refused": 1, "renewal issued": 1}, counted); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// TestTwoWorkers: two servers on one etcd issue each certificate once, and one
// takes over what the other has left.
func TestTwoWorkers(t *testing.T) {
	servers, _ := newReplicas(t, 2)
	r := newACMRigOn(t, servers[0])
	root := r.permit(r.ca.root(3650))
	other := r.newACM(servers[1].PrivateCA)
	var arns []string
	for i := range 40 {
		arns = append(arns, r.ask(root, fmt.Sprintf("h%d.apps.local", i)))
	}
	group, ctx := errgroup.WithContext(r.ctx)
	for _, m := range []*ACM{r.ACM, other} {
		group.Go(func() error { return m.work(ctx) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	r.clock.forward(claimLife)
	r.issued()
	for _, arn := range arns {
		if s := *r.describe(t, arn).Status; s != "ISSUED" {
			t.Errorf("%s is %s", arn, s)
		}
	}
	if n := r.ledger(root); n != len(arns) {
		t.Errorf("the authority has issued %d certificates for %d requests", n, len(arns))
	}

	// Both renew them when that is due.
	r.use(arns...)
	r.clock.forward((validDays - 30) * 24 * time.Hour)
	group, ctx = errgroup.WithContext(r.ctx)
	for _, m := range []*ACM{r.ACM, other} {
		group.Go(func() error { return m.step(ctx) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	r.clock.forward(claimLife)
	r.issued()
	for _, arn := range arns {
		if s := r.describe(t, arn).RenewalSummary; s == nil || s.RenewalStatus != "SUCCESS" {
			t.Errorf("%s is renewed %v", arn, s)
		}
	}
	renewed := r.ledger(root)
	if renewed != 2*len(arns) {
		t.Errorf("the authority has issued %d certificates for %d requests and as many renewals", renewed, len(arns))
	}

	// A server that dies between the authority's answer and its own write.
	arn := r.ask(root, "left.apps.local")
	tasks, err := other.ready(r.ctx)
	if err != nil || len(tasks) != 1 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	jobs := []*job{{at: tasks[0].Place}}
	if err := other.claim(r.ctx, jobs); err != nil {
		t.Fatal(err)
	}
	if other.issue(r.ctx, jobs); jobs[0].err != nil {
		t.Fatal(jobs[0].err)
	}
	r.issued()
	if s := *r.describe(t, arn).Status; s != "PENDING_VALIDATION" {
		t.Errorf("somebody else's task was done: %s", s)
	}
	r.clock.forward(claimLife)
	r.issued()
	if s := *r.describe(t, arn).Status; s != "ISSUED" {
		t.Errorf("nobody took the task over: %s", s)
	}
	if n := r.ledger(root) - renewed; n != 1 {
		t.Errorf("the authority has issued %d certificates for one request", n)
	}
}

// TestDeletedWhileIssued: a certificate that is deleted meanwhile stays deleted.
func TestDeletedWhileIssued(t *testing.T) {
	r := newACMRig(t)
	root := r.permit(r.ca.root(3650))
	arn := r.ask(root, "api.apps.local")
	tasks, err := r.ready(r.ctx)
	if err != nil || len(tasks) != 1 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	if err := r.DeleteCertificate(r.ctx, &acm.DeleteCertificateRequest{CertificateArn: arn}); err != nil {
		t.Fatal(err)
	}
	if err := r.perform(r.ctx, tasks); err != nil {
		t.Fatal(err)
	}
	_, err = r.DescribeCertificate(r.ctx, &acm.DescribeCertificateRequest{CertificateArn: arn})
	wantCode(t, err, "ResourceNotFoundException", "")
}

// TestKeysAhead: RSA keys are made once there is an authority, and not before.
func TestKeysAhead(t *testing.T) {
	r := newACMRig(t)
	r.keysAhead(r.ctx)
	if r.keys.warmed() {
		t.Error("keys are made on a server without an authority")
	}
	root := r.permit(r.ca.root(3650))
	r.keysAhead(r.ctx)
	if !r.keys.warmed() {
		t.Error("no keys are made on a server with an authority")
	}
	ctx, cancel := context.WithCancel(r.ctx)
	filled := make(chan error)
	go func() { filled <- r.keys.fill(ctx, r.Log) }()
	key := <-r.keys.ready
	r.keys.ready <- key
	in := acmRequest("api.apps.local")
	in.CertificateAuthorityArn = &root
	out, err := r.RequestCertificate(r.ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	r.issued()
	if d := r.describe(t, *out.CertificateArn); *d.Status != "ISSUED" || *d.KeyAlgorithm != "RSA-2048" {
		t.Errorf("%s with a key %s", *d.Status, *d.KeyAlgorithm)
	}
	cancel()
	if err := <-filled; err != nil {
		t.Error(err)
	}
}

// TestExportedKeysStaySecret: no passphrase and no key appears in a log or an error, and
// none in the clear in what the API answers or the store holds.
func TestExportedKeysStaySecret(t *testing.T) {
	r := newACMRig(t)
	root := r.permit(r.ca.root(3650))
	const passphrase = "canary-passphrase-5f1e"
	arn := r.ask(root, "api.apps.local")
	r.issued()
	e := r.export(arn, passphrase)
	key, err := ca.DecryptKey([]byte(e.PrivateKey.Reveal()), []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	m := r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "own.apps.local", names: []string{"own.apps.local"}})
	imported, err := r.ImportCertificate(r.ctx, m.request())
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	note := func(_ any, err error) { fmt.Fprintf(&said, "%v\n", err) }
	note(r.ExportCertificate(r.ctx, &acm.ExportCertificateRequest{CertificateArn: *imported.CertificateArn, Passphrase: api.NewSecretBlob([]byte(passphrase))}))
	note(r.ExportCertificate(r.ctx, &acm.ExportCertificateRequest{CertificateArn: arn, Passphrase: api.NewSecretBlob([]byte(passphrase + "$"))}))
	other := m.request()
	other.Certificate = r.makeLeaf(t, leafSpec{algorithm: ca.P256, name: "x.apps.local", names: []string{"x.apps.local"}}).certificate
	note(r.ImportCertificate(r.ctx, other))
	other.Certificate, other.PrivateKey = m.certificate, api.NewSecretBlob(append([]byte("x"), m.key...))
	note(r.ImportCertificate(r.ctx, other))

	der, err := key.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(m.key)
	everything := r.log.String() + r.ca.logs.String() + said.String() + *e.Certificate + *e.CertificateChain + e.PrivateKey.Reveal()
	for name, secret := range map[string][]byte{"passphrase": []byte(passphrase), "issued key": der, "imported key": block.Bytes} {
		// The last bytes are the key's own, whatever stands before them.
		part := secret[max(0, len(secret)-24):]
		for _, form := range []string{string(part), hex.EncodeToString(part), base64.StdEncoding.EncodeToString(secret), base64.StdEncoding.EncodeToString(part)} {
			if strings.Contains(everything, form) {
				t.Errorf("%s is shown", name)
			}
		}
	}
}
