package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pca "github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// within bounds waits for what takes a moment.
const within = 30 * time.Second

// shop is a mesh whose server, blue, has a certificate from ACM; its client
// reaches it as blue.local without a policy, and as trusting.local under one that
// trusts the authority.
type shop struct {
	t            *testing.T
	server       *meshtest.Server
	acm          *acm.Client
	root         string // ARN of the authority
	certificate  string // ARN
	roots        *x509.CertPool
	blue, client *meshtest.Agent
}

var shopServices = []string{"blue.local", "trusting.local"}

func openShop(t *testing.T, certify func(*shop) (arn string)) *shop {
	s := &shop{t: t, server: meshtest.StartServer(t, meshtest.ServerOptions{Debug: true}), roots: x509.NewCertPool()}
	s.root, s.acm = authorityForACM(t, s.server), acmClient(t, s.server)
	own := must[*acmpca.GetCertificateAuthorityCertificateOutput](t)(client(t, s.server).GetCertificateAuthorityCertificate(t.Context(),
		&acmpca.GetCertificateAuthorityCertificateInput{CertificateAuthorityArn: &s.root}))
	s.roots.AppendCertsFromPEM([]byte(*own.Certificate))
	s.certificate = certify(s)
	waitIssued(t, s.acm, s.certificate, issuedWithin)

	n := meshtest.NewNetwork(t)
	app := meshtest.StartApp(t, "blue")
	s.server.Apply(t, `{mesh: m, spec: {}}
---
virtualNode: blue
spec:
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls: {mode: STRICT, certificate: {acm: {certificateArn: "`+s.certificate+`"}}}
  serviceDiscovery: {dns: {hostname: blue.local}}
---
virtualService: blue.local
spec: {provider: {virtualNode: {virtualNodeName: blue}}}
---
virtualService: trusting.local
spec: {provider: {virtualNode: {virtualNodeName: blue}}}
---
virtualNode: client
spec:
  backends:
  - virtualService: {virtualServiceName: blue.local}
  - virtualService:
      virtualServiceName: trusting.local
      clientPolicy: {tls: {validation: {trust: {acm: {certificateAuthorityArns: ["`+s.root+`"]}}}}}
`)
	s.blue = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/blue",
		Address: n.Address(t, "blue.local"), Apps: map[int]int{8080: app.Port}, DNS: n.DNS.Address()})
	s.client = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client",
		Address: n.Address(t, "client.local"), DNS: n.DNS.Address()})
	s.blue.WaitReady(t)
	s.client.WaitReady(t)
	return s
}

// request has ACM issue a certificate.
func (s *shop) request() string {
	return *must[*acm.RequestCertificateOutput](s.t)(s.acm.RequestCertificate(s.t.Context(), &acm.RequestCertificateInput{
		DomainName: aws.String("blue.local"), CertificateAuthorityArn: &s.root, KeyAlgorithm: "EC_secp384r1", // what an Envoy as a client refuses by its presets
	})).CertificateArn
}

// importNew imports a certificate with a new key, under an ARN if one is given.
func (s *shop) importNew(under *string) string {
	s.t.Helper()
	key := must[*ecdsa.PrivateKey](s.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	csr := must[[]byte](s.t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "blue.local"}, DNSNames: []string{"blue.local"}}, key))
	authorities := client(s.t, s.server)
	issued := must[*acmpca.IssueCertificateOutput](s.t)(authorities.IssueCertificate(s.t.Context(), &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: &s.root, Csr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}),
		SigningAlgorithm: pca.SigningAlgorithmSha256withecdsa, Validity: &pca.Validity{Type: pca.ValidityPeriodTypeDays, Value: aws.Int64(30)},
	}))
	got := must[*acmpca.GetCertificateOutput](s.t)(authorities.GetCertificate(s.t.Context(), &acmpca.GetCertificateInput{
		CertificateAuthorityArn: &s.root, CertificateArn: issued.CertificateArn}))
	pkcs8 := must[[]byte](s.t)(x509.MarshalPKCS8PrivateKey(key))
	return *must[*acm.ImportCertificateOutput](s.t)(s.acm.ImportCertificate(s.t.Context(), &acm.ImportCertificateInput{
		CertificateArn: under, Certificate: []byte(*got.Certificate), CertificateChain: []byte(*got.CertificateChain),
		PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	})).CertificateArn
}

// load calls all services without a pause worth the name until stop is called, which
// wants every one of the calls to have been answered.
func (s *shop) load() (stop func()) {
	var total atomic.Int64
	var failed sync.Map
	stopped := make(chan struct{})
	var workers sync.WaitGroup
	for _, service := range shopServices {
		workers.Go(func() {
			pause := time.NewTicker(10 * time.Millisecond)
			defer pause.Stop()
			for {
				if got := s.call(s.t.Context(), service); got != "blue" {
					failed.Store(got, service)
				}
				total.Add(1)
				select {
				case <-stopped:
					return
				case <-pause.C:
				}
			}
		})
	}
	return func() {
		s.t.Helper()
		close(stopped)
		workers.Wait()
		failed.Range(func(answer, service any) bool {
			s.t.Errorf("%s answered %q", service, answer)
			return true
		})
		if total.Load() < 60 {
			s.t.Errorf("only %d requests", total.Load())
		}
		s.t.Logf("%d requests", total.Load())
	}
}

// call asks the client's Envoy for a service, and says what is answered.
func (s *shop) call(ctx context.Context, service string) string {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.client.At(15001, "/"), nil)
	if err != nil {
		return err.Error()
	}
	request.Host = service
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Sprint(answer.StatusCode)
	}
	return strings.TrimSpace(string(body))
}

// wants waits until all services are answered so.
func (s *shop) wants(when, answer string) {
	s.t.Helper()
	for _, service := range shopServices {
		meshtest.Eventually(s.t, within, func(ctx context.Context) error {
			if got := s.call(ctx, service); got != answer {
				return fmt.Errorf("%s: %s answers %q, want %q", when, service, got, answer)
			}
			return nil
		})
	}
}

// verdicts waits until all edges have a verdict that counters carry, with a
// cause that has a part.
func (s *shop) verdicts(when string, verdict tlspolicy.Verdict, why string) {
	s.t.Helper()
	meshtest.Eventually(s.t, within, func(ctx context.Context) error {
		for _, service := range shopServices {
			s.call(ctx, service)
		}
		edges, err := s.server.Edges(s.t, "m")
		if err != nil {
			return err
		}
		for _, e := range edges {
			if e.Verdict != verdict || !e.Observed || !strings.Contains(e.Why, why) {
				return fmt.Errorf("%s: %v is %s (observed: %t), want %s: %s", when, e.Services, e.Verdict, e.Observed, verdict, e.Why)
			}
		}
		if len(edges) != len(shopServices) {
			return fmt.Errorf("edges: %+v", edges)
		}
		return nil
	})
}

// serial is that of the certificate on a new connection to blue.
func (s *shop) serial(ctx context.Context) (*big.Int, error) {
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: s.roots, ServerName: "blue.local"}}).DialContext(ctx, "tcp", s.blue.Options.Address+":8080")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber, nil
}

// renew renews the certificate, and waits until blue serves the new one, which it
// returns the serial of.
func (s *shop) renew() *big.Int {
	s.t.Helper()
	return s.replace(func() error {
		_, err := s.acm.RenewCertificate(s.t.Context(), &acm.RenewCertificateInput{CertificateArn: &s.certificate})
		return err
	})
}

// replace waits until blue serves what came of a renewal or an import, and returns
// its serial.
func (s *shop) replace(by func() error) *big.Int {
	s.t.Helper()
	before, err := s.serial(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := by(); err != nil {
		s.t.Fatal(err)
	}
	d := waitIssued(s.t, s.acm, s.certificate, issuedWithin)
	want, _ := new(big.Int).SetString(strings.ReplaceAll(*d.Serial, ":", ""), 16)
	meshtest.Eventually(s.t, within, func(ctx context.Context) error {
		got, err := s.serial(ctx)
		if err == nil && (got.Cmp(want) != 0 || got.Cmp(before) == 0) {
			err = fmt.Errorf("blue serves %x, not %x", got, want)
		}
		return err
	})
	return want
}

// revoke puts a certificate on the list of its authority.
func (s *shop) revoke(serial *big.Int) {
	s.t.Helper()
	if _, err := client(s.t, s.server).RevokeCertificate(s.t.Context(), &acmpca.RevokeCertificateInput{
		CertificateAuthorityArn: &s.root, CertificateSerial: aws.String(hex.EncodeToString(serial.Bytes())), RevocationReason: pca.RevocationReasonKeyCompromise,
	}); err != nil {
		s.t.Fatal(err)
	}
}

// restartEnvoy has every connection to blue made anew.
func (s *shop) restartEnvoy() {
	s.t.Helper()
	pid := s.blue.EnvoyPID(s.t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	meshtest.Eventually(s.t, within, func(context.Context) error {
		if now := s.blue.EnvoyPID(s.t); now == 0 || now == pid {
			return fmt.Errorf("Envoy %d does not run", now)
		}
		return nil
	})
	s.blue.WaitReady(s.t)
}

// TestMeshRenews requests a certificate, names it in a mesh of two real Envoys,
// and renews it under load: no request fails, and each new certificate is served.
func TestMeshRenews(t *testing.T) {
	s := openShop(t, (*shop).request)
	s.wants("at first", "blue")
	s.verdicts("at first", tlspolicy.VerdictVerified, "seen: ")

	stop := s.load()
	kept, err := net.Dial("tcp", s.blue.Options.Address+":8080")
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.Client(kept, &tls.Config{RootCAs: s.roots, ServerName: "blue.local"})
	defer secured.Close()
	if err := secured.Handshake(); err != nil {
		t.Fatal(err)
	}
	var slowest time.Duration
	for range 100 {
		began := time.Now()
		s.renew()
		slowest = max(slowest, time.Since(began))
	}
	if _, err := fmt.Fprint(secured, "GET / HTTP/1.1\r\nHost: blue.local\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(secured); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("a connection from before the renewals: %q, %v", answer, err)
	}
	stop()
	t.Logf("asked for, issued and served after at most %s", slowest)

	// A new Envoy has it from its agent, whose state on the disk holds no key.
	s.restartEnvoy()
	s.wants("after Envoy's death", "blue")
	s.server.KillAll()
	s.restartEnvoy()
	s.wants("after Envoy's death, without the server", "blue")
	for _, agent := range []*meshtest.Agent{s.blue, s.client} {
		text, err := os.ReadFile(agent.Options.StateDir + "/config.json")
		if err != nil || strings.Contains(string(text), "PRIVATE") || strings.Contains(string(text), "v3.Secret\"") || !json.Valid(text) {
			t.Errorf("the state of %s: %v", agent.Name, err)
		}
	}
}

// TestMeshReimports imports one certificate after the other under the ARN that a
// mesh of two real Envoys names, under load: no request fails.
func TestMeshReimports(t *testing.T) {
	s := openShop(t, func(s *shop) string { return s.importNew(nil) })
	s.wants("at first", "blue")
	stop := s.load()
	for range 10 {
		s.replace(func() error {
			if arn := s.importNew(&s.certificate); arn != s.certificate {
				return fmt.Errorf("imported under %s, not under %s", arn, s.certificate)
			}
			return nil
		})
	}
	stop()
}

// TestMeshRefusesRevoked revokes the certificate of a server: clients refuse it
// with their next connection, with a policy and without; and take it again when
// the revocation is taken back.
func TestMeshRefusesRevoked(t *testing.T) {
	s := openShop(t, (*shop).request)
	s.wants("at first", "blue")
	serial, err := s.serial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.revoke(serial)
	s.restartEnvoy()
	s.wants("revoked", "503")
	s.verdicts("revoked", tlspolicy.VerdictBroken, "or is revoked")
	if out, err := s.server.Fairlead(t, "ca", "unrevoke", s.root+"/certificate/"+hex.EncodeToString(serial.Bytes())); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.wants("taken back", "blue")
	s.verdicts("taken back", tlspolicy.VerdictVerified, "seen: ")
}
