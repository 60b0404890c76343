// Package rotate replaces the root of a mesh's certificates under load, with real
// Envoys and a server that is killed on the way: no request fails, and once the old
// root is out nothing that chains to it is taken.
package rotate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	acmtypes "github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pca "github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

const (
	appName = "hello"
	rawPort = 9000 // of the TCP service whose client names the root
	autPort = 9001 // of the one whose client has no policy for it
	impPort = 9002 // of the one whose certificate was imported
	within  = time.Minute
)

// scene is a server, a client and the node "web", each with a real Envoy; web's
// certificates are of ACM, below a subordinate of the root.
type scene struct {
	server      *meshtest.Server
	acm         *acm.Client
	pca         *acmpca.Client
	root, sub   string
	leaf        string // of ACM
	client, web *meshtest.Agent
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{server: meshtest.StartServer(t, meshtest.ServerOptions{})}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(meshtest.Region), config.WithSharedConfigFiles(nil), config.WithBaseEndpoint(s.server.API),
		config.WithSharedCredentialsFiles([]string{s.server.Credentials()}), config.WithSharedConfigProfile("default"))
	check(t, err)
	s.acm, s.pca = acm.NewFromConfig(cfg), acmpca.NewFromConfig(cfg)
	s.root, s.sub = s.authority(t, pca.CertificateAuthorityTypeRoot, "mesh root"), s.authority(t, pca.CertificateAuthorityTypeSubordinate, "mesh issuing")
	s.install(t, s.root, s.root, "arn:aws:acm-pca:::template/RootCACertificate/V1", 3650)
	s.install(t, s.sub, s.root, "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1", 1000)
	_, err = s.pca.CreatePermission(t.Context(), &acmpca.CreatePermissionInput{
		CertificateAuthorityArn: &s.sub, Principal: aws.String("acm.amazonaws.com"), Actions: []pca.ActionType{pca.ActionTypeIssueCertificate, pca.ActionTypeGetCertificate, pca.ActionTypeListPermissions},
	})
	check(t, err)
	requested, err := s.acm.RequestCertificate(t.Context(), &acm.RequestCertificateInput{DomainName: aws.String("web.local"), CertificateAuthorityArn: &s.sub, KeyAlgorithm: acmtypes.KeyAlgorithmEcPrime256v1})
	check(t, err)
	s.leaf = *requested.CertificateArn
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		d, err := s.acm.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &s.leaf})
		if err == nil && d.Certificate.Status != acmtypes.CertificateStatusIssued {
			err = fmt.Errorf("it is %s", d.Certificate.Status)
		}
		return err
	})
	return s
}

// proxies starts the mesh's two Envoys; imported is the certificate of one listener.
func (s *scene) proxies(t *testing.T, imported string) {
	t.Helper()
	n := meshtest.NewNetwork(t)
	app := meshtest.StartApp(t, appName)
	s.apply(t, imported)
	s.web = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/web", Address: n.Address(t, "web.local"), DNS: n.DNS.Address(),
		Apps: map[int]int{8080: app.Port, rawPort: app.Port, autPort: app.Port, impPort: app.Port}})
	s.client = meshtest.StartAgent(t, s.server, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client", Address: n.Address(t, "client.local"), DNS: n.DNS.Address(),
		TCPEgress: []string{fmt.Sprintf("raw.local:%[1]d=%[1]d", rawPort), fmt.Sprintf("aut.local:%[1]d=%[1]d", autPort), fmt.Sprintf("imp.local:%[1]d=%[1]d", impPort)}})
	s.web.WaitReady(t)
	s.client.WaitReady(t)
	meshtest.Eventually(t, within, func(context.Context) error {
		for _, stream := range s.streams() {
			if err := stream.send(http.DefaultClient); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *scene) apply(t *testing.T, imported string) {
	t.Helper()
	listener := func(port int, protocol, certificate string) string {
		return fmt.Sprintf("{portMapping: {port: %d, protocol: %s}, tls: {mode: STRICT, certificate: {acm: {certificateArn: %q}}}}", port, protocol, certificate)
	}
	text := `{mesh: m, spec: {}}
---
mesh: m
virtualNode: web
spec:
  listeners: [` + strings.Join([]string{listener(8080, "http", s.leaf), listener(rawPort, "tcp", s.leaf), listener(autPort, "tcp", s.leaf), listener(impPort, "tcp", imported)}, ", ") + `]
  serviceDiscovery: {dns: {hostname: web.local}}
`
	for name, port := range map[string]int{"raw": rawPort, "aut": autPort, "imp": impPort} {
		text += fmt.Sprintf(`---
{virtualRouter: %[1]s, spec: {listeners: [{portMapping: {port: %[2]d, protocol: tcp}}]}}
---
{route: all, virtualRouter: %[1]s, spec: {tcpRoute: {action: {weightedTargets: [{virtualNode: web, weight: 1, port: %[2]d}]}}}}
---
{virtualService: %[1]s.local, spec: {provider: {virtualRouter: {virtualRouterName: %[1]s}}}}
`, name, port)
	}
	s.server.Apply(t, text+`---
{virtualRouter: hello, spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}}
---
{route: all, virtualRouter: hello, spec: {httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNode: web, weight: 1, port: 8080}]}}}}
---
{virtualService: hello.local, spec: {provider: {virtualRouter: {virtualRouterName: hello}}}}
---
mesh: m
virtualNode: client
spec:
  backendDefaults: {clientPolicy: {tls: {ports: [8080, 9000, 9002], validation: {trust: {acm: {certificateAuthorityArns: ["`+s.root+`"]}}}}}}
  backends: [{virtualService: {virtualServiceName: hello.local}}, {virtualService: {virtualServiceName: raw.local}}, {virtualService: {virtualServiceName: aut.local}}, {virtualService: {virtualServiceName: imp.local}}]
`)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) authority(t *testing.T, kind pca.CertificateAuthorityType, name string) string {
	t.Helper()
	out, err := s.pca.CreateCertificateAuthority(t.Context(), &acmpca.CreateCertificateAuthorityInput{CertificateAuthorityType: kind, CertificateAuthorityConfiguration: &pca.CertificateAuthorityConfiguration{
		KeyAlgorithm: pca.KeyAlgorithmEcPrime256v1, SigningAlgorithm: pca.SigningAlgorithmSha256withecdsa, Subject: &pca.ASN1Subject{CommonName: &name}}})
	check(t, err)
	return *out.CertificateAuthorityArn
}

// install gives an authority its certificate.
func (s *scene) install(t *testing.T, arn, by, template string, days int64) {
	t.Helper()
	csr, err := s.pca.GetCertificateAuthorityCsr(t.Context(), &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: &arn})
	check(t, err)
	own, chain := s.issue(t, by, template, []byte(*csr.Csr), days)
	in := &acmpca.ImportCertificateAuthorityCertificateInput{CertificateAuthorityArn: &arn, Certificate: own}
	if arn != by {
		in.CertificateChain = chain
	}
	_, err = s.pca.ImportCertificateAuthorityCertificate(t.Context(), in)
	check(t, err)
}

func (s *scene) issue(t *testing.T, by, template string, csr []byte, days int64) (own, chain []byte) {
	t.Helper()
	issued, err := s.pca.IssueCertificate(t.Context(), &acmpca.IssueCertificateInput{CertificateAuthorityArn: &by, Csr: csr, SigningAlgorithm: pca.SigningAlgorithmSha256withecdsa,
		TemplateArn: &template, Validity: &pca.Validity{Type: pca.ValidityPeriodTypeDays, Value: &days}})
	check(t, err)
	got, err := s.pca.GetCertificate(t.Context(), &acmpca.GetCertificateInput{CertificateAuthorityArn: &by, CertificateArn: issued.CertificateArn})
	check(t, err)
	return []byte(*got.Certificate), []byte(aws.ToString(got.CertificateChain))
}

// imported is a certificate below the root that ACM does not renew.
func (s *scene) imported(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "web.local"}, DNSNames: []string{"web.local"}}, key)
	check(t, err)
	own, chain := s.issue(t, s.root, "arn:aws:acm-pca:::template/EndEntityCertificate/V1", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 30)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	out, err := s.acm.ImportCertificate(t.Context(), &acm.ImportCertificateInput{Certificate: own, CertificateChain: chain, PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})})
	check(t, err)
	return *out.CertificateArn
}

// status is what an operator reads of the rotation.
type status struct {
	Step    string
	Undone  bool
	Paused  bool
	Proxies []struct{ Proxy, Address, Server, Why string }
	Issued  []struct{ Arn, Why string }

	Certificates []struct{ Arn, Why string }
}

func (s *scene) rotate(t testing.TB, flags ...string) (st status, err error) {
	t.Helper()
	err = s.server.JSON(t, &st, append([]string{"ca", "rotate", s.root}, flags...)...)
	return st, err
}

// reaches waits until the rotation is at one of some steps.
func (s *scene) reaches(t testing.TB, steps ...string) (st status) {
	t.Helper()
	meshtest.Eventually(t, within, func(context.Context) (err error) {
		if st, err = s.rotate(t, "--status"); err != nil {
			return err
		}
		for _, step := range steps {
			if st.Step == step {
				return nil
			}
		}
		return fmt.Errorf("it is %+v, not at %v", st, steps)
	})
	return st
}

// stream is requests of one kind at a steady rate.
type stream struct {
	name, url, host string
	fresh           bool // a new connection for each request
}

// streams are kept-alive requests, and TCP connections of which each is a new handshake
// between the two Envoys.
func (s *scene) streams() []stream {
	return []stream{
		{"kept alive", s.client.At(15001, "/load"), "hello.local:8080", false},
		{"a handshake each, by policy", s.client.At(rawPort, "/load"), "raw.local", true},
		{"a handshake each, without a policy", s.client.At(autPort, "/load"), "aut.local", true},
	}
}

func (s *scene) imports() stream {
	return stream{"imported", s.client.At(impPort, "/load"), "imp.local", true}
}

// send sends one request, which Go's client will not send a second time by itself.
func (s stream) send(client *http.Client) error {
	request, err := http.NewRequest(http.MethodPost, s.url, io.NopCloser(strings.NewReader("x")))
	if err != nil {
		return err
	}
	request.Host, request.ContentLength, request.Close = s.host, 1, s.fresh
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != appName) {
		err = fmt.Errorf("answer %d %.100q", response.StatusCode, body)
	}
	return err
}

// load sends the streams' requests, each stream 50 a second, until the function is
// called that it returns; that fails the test if a request has failed.
func (s *scene) load(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	served := map[string]int{}
	for _, one := range s.streams() {
		group.Go(func() {
			client := &http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				err := one.send(client)
				mu.Lock()
				if served[one.name]++; err != nil {
					failed = append(failed, fmt.Errorf("%s, request %d: %w", one.name, served[one.name], err))
				}
				mu.Unlock()
			}
		})
	}
	return func() {
		t.Helper()
		cancel()
		group.Wait()
		t.Log("requests", served)
		for _, one := range s.streams() {
			if served[one.name] < 100 {
				t.Errorf("%s: only %d requests", one.name, served[one.name])
			}
		}
		if len(failed) > 0 {
			t.Errorf("%d requests failed: %v", len(failed), errors.Join(failed[:min(3, len(failed))]...))
		}
	}
}
