package mesh_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pca "github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// How many combinations the matrix runs: rounds × servers × clients, each for
// every one of matrixProtocols.
const (
	matrixRounds    = 8
	serversPerRound = 4
	clientsPerRound = 6
)

var matrixProtocols = []string{"http", "grpc", "tcp"}

// matrixPort is the port of a server's i-th listener for the protocol with index p.
func matrixPort(i, p int) int { return 8000 + 10*i + p }

// matrix is one client's and one server's Envoy that are configured through the
// API, time and again, and never restarted.
type matrix struct {
	material
	s      *meshtest.Server
	server *meshtest.Agent
	client caller
	tcp    map[string]int // local ports of the client's, by service:port
}

// call makes one request, as caller.call does; by tcp to the port asked for.
func (m *matrix) call(ctx context.Context, protocol, service string, port int) string {
	if protocol != "tcp" {
		return m.client.call(ctx, protocol, service, port)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return callTCP(ctx, fmt.Sprintf("%s:%d", m.client.proxy.Options.Address, m.tcp[fmt.Sprintf("%s:%d", service, port)]))
}

func serviceName(r, c int) string { return fmt.Sprintf("r%d-c%d.mesh.local", r, c) }

// TestMatrix runs combinations of client policy and server through two real
// Envoys: what the table of decisions says of each must be what both Envoys'
// counters show.
func TestMatrix(t *testing.T) {
	m := startMatrix(t)
	var before [2]int
	ran, verdicts := 0, map[tlspolicy.Verdict]int{}
	for i, r := range rounds(matrixRounds, serversPerRound, clientsPerRound) {
		m.configure(t, i, r)
		if i == 0 {
			before = [2]int{m.client.proxy.EnvoyPID(t), m.server.EnvoyPID(t)}
		}
		for _, e := range m.run(t, i, r) {
			ran++
			verdicts[e]++
		}
	}
	if after := [2]int{m.client.proxy.EnvoyPID(t), m.server.EnvoyPID(t)}; after != before || before[0] == 0 || before[1] == 0 {
		t.Errorf("Envoys were restarted: %v, then %v", before, after)
	}
	t.Logf("%d combinations, %d edges by protocol: %v", ran/len(matrixProtocols), ran, verdicts)
}

// configure writes the specs of a round and waits until both Envoys have them.
func (m *matrix) configure(t *testing.T, i int, r round) {
	t.Helper()
	server, ports := "virtualNode: server\nspec:\n  listeners:\n", []string{}
	for n, s := range r.servers {
		for p, protocol := range matrixProtocols {
			ports = append(ports, strconv.Itoa(matrixPort(n, p)))
			server += fmt.Sprintf("  - portMapping: {port: %d, protocol: %s}\n", matrixPort(n, p), protocol)
			if tls := s.yaml(m.material); tls != "" {
				server += "    tls: {" + tls + "}\n"
			}
		}
	}
	server += "  serviceDiscovery: {dns: {hostname: " + matrixServer + "}}\n"
	client, services := "virtualNode: client\nspec:\n  backends:\n", ""
	for n, c := range r.clients {
		client += backend(serviceName(i, n), c.yaml(m.material, ports))
		services += serviceOf(serviceName(i, n), "server")
	}
	m.s.Apply(t, "{mesh: m, spec: {}}\n---\n"+server+services+"\n---\n"+client)
	m.s.WaitSettled(t, 2)
}

// run makes real requests over each edge of a round and wants of it what the
// table says. It returns the verdicts.
func (m *matrix) run(t *testing.T, i int, r round) (verdicts []tlspolicy.Verdict) {
	t.Helper()
	type want struct {
		service, says string
		port          int
		decision      tlspolicy.Decision
	}
	var wants []want
	for n, s := range r.servers {
		for k, c := range r.clients {
			d := tlspolicy.Decide(m.edge(s, c))
			answers := []string{"200 server"}
			if d.Verdict == tlspolicy.VerdictBroken {
				answers = broken
			}
			for p, protocol := range matrixProtocols {
				w := want{serviceName(i, k), fmt.Sprintf("%+v to %+v by %s", c, s, protocol), matrixPort(n, p), d}
				got := ""
				waitOrExplain(t, func(ctx context.Context) error {
					if got = m.call(ctx, protocol, w.service, w.port); !slices.Contains(answers, got) {
						return fmt.Errorf("%s: answered %q, want one of %q: %s", w.says, got, answers, d.Reason)
					}
					return nil
				})
				wants = append(wants, w)
				verdicts = append(verdicts, d.Verdict)
			}
		}
	}
	waitOrExplain(t, func(context.Context) error {
		edges, err := m.s.Edges(t, "m")
		if err != nil {
			return err
		}
		for _, w := range wants {
			e, err := edgeTo(edges, "virtualNode/client", w.service, w.port)
			if err != nil {
				return err
			}
			encrypted := w.decision.Verdict != tlspolicy.VerdictPlaintext && w.decision.Verdict != tlspolicy.VerdictBroken
			switch {
			case e.Verdict != w.decision.Verdict || !e.Observed:
				return fmt.Errorf("%s: verdict %q (observed: %t), want %q (%s): %s", w.says, e.Verdict, e.Observed, w.decision.Verdict, w.decision.Reason, show(e))
			case encrypted && (e.Handshakes == 0 || e.ServerHandshakes == 0):
				return fmt.Errorf("%s: not counted by both Envoys: %s", w.says, show(e))
			}
		}
		return nil
	})
	return verdicts
}

// waitOrExplain waits as Eventually does. It goes on after a failure, so that
// one run of the matrix tells of all rounds.
func waitOrExplain(t *testing.T, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Error(err)
			return
		case <-tick.C:
		}
	}
}

// startMatrix makes certificates for every source and starts both proxies.
func startMatrix(t *testing.T) *matrix {
	t.Helper()
	m := &matrix{s: meshtest.StartServer(t, meshtest.ServerOptions{})}
	m.material = issueMaterial(t, m.s)
	sds := startProvider(t)
	for name, c := range m.files {
		sds.pair(t, "cert-"+name, c)
	}
	sds.trust("roots", content(t, m.rootFile))

	apps, local := map[int]int{}, []string{}
	for p, port := range []int{meshtest.StartApp(t, "server").Port, meshtest.StartGRPC(t, "server").Port, meshtest.StartTCP(t, "server").Port} {
		for i := range serversPerRound {
			apps[matrixPort(i, p)] = port
		}
	}
	m.tcp = map[string]int{}
	for r := range matrixRounds {
		for c := range clientsPerRound {
			for i := range serversPerRound {
				at, port := matrixPort(i, slices.Index(matrixProtocols, "tcp")), 20000+len(local)
				m.tcp[fmt.Sprintf("%s:%d", serviceName(r, c), at)] = port
				local = append(local, fmt.Sprintf("%s:%d=%d", serviceName(r, c), at, port))
			}
		}
	}
	m.s.Apply(t, "{mesh: m, spec: {}}\n---\nvirtualNode: server\nspec: {}\n---\nvirtualNode: client\nspec: {}")
	n := meshtest.NewNetwork(t)
	env := []string{"APPMESH_SDS_SOCKET_PATH=" + sds.socket}
	m.server = meshtest.StartAgent(t, m.s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/server",
		Address: n.Address(t, matrixServer), DNS: n.DNS.Address(), Apps: apps, Env: env})
	m.client.proxy = meshtest.StartAgent(t, m.s, meshtest.AgentOptions{Resource: "mesh/m/virtualNode/client",
		Address: n.Address(t, matrixClient), DNS: n.DNS.Address(), TCPEgress: local, Env: env})
	return m
}

// issueMaterial has Private CA make an authority, ACM a certificate for each name
// that it can have one for, and Private CA all of them for files and SDS. The one
// with a URI is imported into ACM.
func issueMaterial(t *testing.T, s *meshtest.Server) material {
	t.Helper()
	cfg := must[aws.Config](t)(config.LoadDefaultConfig(t.Context(), config.WithRegion(meshtest.Region), config.WithSharedConfigFiles(nil), config.WithBaseEndpoint(s.API),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default")))
	authorities, certificates := acmpca.NewFromConfig(cfg), acm.NewFromConfig(cfg)
	arn, root := makeRoot(t, authorities)
	m := material{root: arn, rootFile: filepath.Join(t.TempDir(), "root.pem"), certificates: map[string]string{}, files: map[string]meshtest.Certificate{}}
	write(t, m.rootFile, []byte(root))
	m.files["client"] = issueTo(t, authorities, arn, matrixClient)
	for carries, name := range carried {
		m.files[carries] = issueTo(t, authorities, arn, name)
		if carries == "uri" {
			imported := must[*acm.ImportCertificateOutput](t)(certificates.ImportCertificate(t.Context(), &acm.ImportCertificateInput{
				Certificate: content(t, m.files[carries].Chain), PrivateKey: content(t, m.files[carries].Key), CertificateChain: []byte(root)}))
			m.certificates[carries] = *imported.CertificateArn
			continue
		}
		requested := must[*acm.RequestCertificateOutput](t)(certificates.RequestCertificate(t.Context(), &acm.RequestCertificateInput{
			DomainName: &name, CertificateAuthorityArn: &arn, KeyAlgorithm: "EC_prime256v1"}))
		m.certificates[carries] = *requested.CertificateArn
	}
	for _, c := range m.certificates {
		meshtest.Eventually(t, within, func(ctx context.Context) error {
			out, err := certificates.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &c})
			if err == nil && out.Certificate.Status != "ISSUED" {
				err = fmt.Errorf("%s is %s", c, out.Certificate.Status)
			}
			return err
		})
	}
	return m
}

// makeRoot makes a root that ACM may use.
func makeRoot(t *testing.T, c *acmpca.Client) (arn, certificate string) {
	t.Helper()
	made := must[*acmpca.CreateCertificateAuthorityOutput](t)(c.CreateCertificateAuthority(t.Context(), &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: pca.CertificateAuthorityTypeRoot,
		CertificateAuthorityConfiguration: &pca.CertificateAuthorityConfiguration{KeyAlgorithm: pca.KeyAlgorithmEcPrime256v1,
			SigningAlgorithm: pca.SigningAlgorithmSha256withecdsa, Subject: &pca.ASN1Subject{CommonName: aws.String("root")}}}))
	arn = *made.CertificateAuthorityArn
	csr := must[*acmpca.GetCertificateAuthorityCsrOutput](t)(c.GetCertificateAuthorityCsr(t.Context(), &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: &arn}))
	certificate = sign(t, c, arn, "RootCACertificate/V1", []byte(*csr.Csr), 3650)
	must[*acmpca.ImportCertificateAuthorityCertificateOutput](t)(c.ImportCertificateAuthorityCertificate(t.Context(),
		&acmpca.ImportCertificateAuthorityCertificateInput{CertificateAuthorityArn: &arn, Certificate: []byte(certificate)}))
	must[*acmpca.CreatePermissionOutput](t)(c.CreatePermission(t.Context(), &acmpca.CreatePermissionInput{CertificateAuthorityArn: &arn,
		Principal: aws.String("acm.amazonaws.com"), Actions: []pca.ActionType{pca.ActionTypeIssueCertificate, pca.ActionTypeGetCertificate, pca.ActionTypeListPermissions}}))
	return arn, certificate
}

// issueTo writes a certificate for a name, a host's or a URI, and its key to files.
func issueTo(t *testing.T, c *acmpca.Client, authority, name string) meshtest.Certificate {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	request := &x509.CertificateRequest{DNSNames: []string{name}}
	if strings.Contains(name, "://") {
		request = &x509.CertificateRequest{URIs: []*url.URL{must[*url.URL](t)(url.Parse(name))}}
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, request, key))})
	out := meshtest.Certificate{Chain: filepath.Join(t.TempDir(), "chain.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	write(t, out.Chain, []byte(sign(t, c, authority, "EndEntityCertificate/V1", csr, 30)))
	write(t, out.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))}))
	return out
}

func sign(t *testing.T, c *acmpca.Client, authority, template string, csr []byte, days int64) string {
	t.Helper()
	issued := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(t.Context(), &acmpca.IssueCertificateInput{CertificateAuthorityArn: &authority, Csr: csr,
		SigningAlgorithm: pca.SigningAlgorithmSha256withecdsa, TemplateArn: aws.String("arn:aws:acm-pca:::template/" + template),
		Validity: &pca.Validity{Type: pca.ValidityPeriodTypeDays, Value: &days}}))
	of := &acmpca.GetCertificateInput{CertificateAuthorityArn: &authority, CertificateArn: issued.CertificateArn}
	if err := acmpca.NewCertificateIssuedWaiter(c).Wait(t.Context(), of, time.Minute); err != nil {
		t.Fatal(err)
	}
	return *must[*acmpca.GetCertificateOutput](t)(c.GetCertificate(t.Context(), of)).Certificate
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
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
