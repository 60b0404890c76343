package awsacm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pcatypes "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/store"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// motoAccount owns what is in moto.
const motoAccount = "123456789012"

var (
	apps   = mesh.Name{Owner: meshtest.Account, Mesh: "apps"}
	appsID = mesh.ID{Kind: mesh.KindMesh, Name: "apps"}
	webID  = mesh.ID{Kind: mesh.KindVirtualNode, Name: "web"}
)

// clock stands still until it is told otherwise.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// rig is a mirror on a store of its own, and clients of the AWS that it asks.
type rig struct {
	*Mirror
	t     *testing.T
	ctx   context.Context
	clock *clock
	log   *logBuffer

	registry *prometheus.Registry
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{DataDir: t.TempDir(), Account: meshtest.Account, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newRig(t *testing.T, s *store.Store, cfg aws.Config, account string) *rig {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ctx: t.Context(), clock: &clock{at: time.Now()}, log: &logBuffer{}, registry: registry}
	r.Mirror = New(Config{
		Store: s, ACM: acm.NewFromConfig(cfg), PCA: acmpca.NewFromConfig(cfg), Region: meshtest.Region, Account: account,
		Metrics: metrics, Now: r.clock.now, Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return r
}

// run runs the mirror until the test ends, or until the function is called.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				r.t.Error(err)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

func motoConfig(t *testing.T) aws.Config {
	t.Helper()
	return aws.Config{Region: meshtest.Region, BaseEndpoint: aws.String(meshtest.StartMoto(t)),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}
}

func fairleadConfig(t *testing.T, s *meshtest.Server) aws.Config {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(meshtest.Region), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseEndpoint = aws.String(s.API)
	return cfg
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// root makes an ACTIVE root in AWS.
func (r *rig) root() string {
	r.t.Helper()
	t, c := r.t, r.PCA
	made := must[*acmpca.CreateCertificateAuthorityOutput](t)(c.CreateCertificateAuthority(r.ctx, &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: pcatypes.CertificateAuthorityTypeRoot,
		CertificateAuthorityConfiguration: &pcatypes.CertificateAuthorityConfiguration{
			KeyAlgorithm: pcatypes.KeyAlgorithmRsa2048, SigningAlgorithm: pcatypes.SigningAlgorithmSha256withrsa,
			Subject: &pcatypes.ASN1Subject{CommonName: aws.String("Example root")},
		},
	}))
	arn := made.CertificateAuthorityArn
	if err := acmpca.NewCertificateAuthorityCSRCreatedWaiter(c).Wait(r.ctx, &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: arn}, time.Minute); err != nil {
		t.Fatal(err)
	}
	csr := must[*acmpca.GetCertificateAuthorityCsrOutput](t)(c.GetCertificateAuthorityCsr(r.ctx, &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: arn}))
	issued := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(r.ctx, &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: arn, Csr: []byte(*csr.Csr), SigningAlgorithm: pcatypes.SigningAlgorithmSha256withrsa,
		TemplateArn: aws.String("arn:aws:acm-pca:::template/RootCACertificate/V1"), Validity: &pcatypes.Validity{Type: pcatypes.ValidityPeriodTypeYears, Value: aws.Int64(10)},
	}))
	own := must[*acmpca.GetCertificateOutput](t)(c.GetCertificate(r.ctx, &acmpca.GetCertificateInput{CertificateAuthorityArn: arn, CertificateArn: issued.CertificateArn}))
	must[*acmpca.ImportCertificateAuthorityCertificateOutput](t)(c.ImportCertificateAuthorityCertificate(r.ctx,
		&acmpca.ImportCertificateAuthorityCertificateInput{CertificateAuthorityArn: arn, Certificate: []byte(*own.Certificate)}))
	return *arn
}

// permit lets ACM use an authority; moto lets it anyway, and knows no permissions.
func (r *rig) permit(authority string) {
	r.t.Helper()
	must[*acmpca.CreatePermissionOutput](r.t)(r.PCA.CreatePermission(r.ctx, &acmpca.CreatePermissionInput{CertificateAuthorityArn: &authority, Principal: aws.String("acm.amazonaws.com"),
		Actions: []pcatypes.ActionType{pcatypes.ActionTypeIssueCertificate, pcatypes.ActionTypeGetCertificate, pcatypes.ActionTypeListPermissions}}))
}

// request has ACM in AWS issue a private certificate.
func (r *rig) request(authority, name string) string {
	r.t.Helper()
	out := must[*acm.RequestCertificateOutput](r.t)(r.ACM.RequestCertificate(r.ctx, &acm.RequestCertificateInput{
		DomainName: &name, CertificateAuthorityArn: &authority, KeyAlgorithm: acmtypes.KeyAlgorithmEcPrime256v1}))
	meshtest.Eventually(r.t, time.Minute, func(context.Context) error {
		if d := r.describe(*out.CertificateArn); d.Status != acmtypes.CertificateStatusIssued {
			return errors.New(string(d.Status))
		}
		return nil
	})
	return *out.CertificateArn
}

func (r *rig) describe(arn string) *acmtypes.CertificateDetail {
	r.t.Helper()
	return must[*acm.DescribeCertificateOutput](r.t)(r.ACM.DescribeCertificate(r.ctx, &acm.DescribeCertificateInput{CertificateArn: &arn})).Certificate
}

// name makes the spec of a virtual node name certificates.
func (r *rig) name(certificates ...string) {
	r.t.Helper()
	spec := &appmesh.VirtualNodeSpec{}
	for _, arn := range certificates {
		spec.Listeners = append(spec.Listeners, appmesh.Listener{TLS: &appmesh.ListenerTls{
			Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}}}})
	}
	revision, err := r.Store.Write(r.ctx, func(tx *store.Tx) error {
		if _, err := store.Get[appmesh.MeshSpec](tx, apps, appsID); errors.Is(err, store.ErrNotFound) {
			if err := store.Put(tx, &mesh.Record[appmesh.MeshSpec]{Mesh: apps, ID: appsID, Version: 1, Spec: &appmesh.MeshSpec{}}); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		if _, err := store.Get[appmesh.VirtualNodeSpec](tx, apps, webID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return store.Put(tx, &mesh.Record[appmesh.VirtualNodeSpec]{Mesh: apps, ID: webID, Version: 1, ResourceOwner: meshtest.Account, Spec: spec})
	})
	if err == nil {
		err = r.Store.WaitFor(r.ctx, revision)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// served is a certificate as proxies get it, once ok.
func (r *rig) served(arn string, ok func(*mesh.Certificate) bool) *mesh.Certificate {
	r.t.Helper()
	var got *mesh.Certificate
	meshtest.Eventually(r.t, time.Minute, func(context.Context) error {
		view, there := r.Store.View(apps)
		if !there || view.Certificates[arn] == nil || !ok(view.Certificates[arn]) {
			return errors.New("it is not served")
		}
		got = view.Certificates[arn]
		return nil
	})
	return got
}

// calls counts those of one operation.
func (r *rig) calls(operation string) (n int) {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "fairlead_aws_calls_total" && m.GetLabel()[0].GetValue() == operation {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

// failures are the ARNs whose last look failed, and why.
func (r *rig) failures() map[string]string {
	r.t.Helper()
	all, err := r.statuses(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	failed := map[string]string{}
	for _, o := range all {
		if o.Value.Failure != "" {
			failed[o.Place[1]] = o.Value.Failure
		}
	}
	return failed
}
