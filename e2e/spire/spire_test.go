//go:build spire

// Package spire runs the real SPIRE, server and agent, with a Fairlead server as
// its upstream authority: make test-spire.
package spire

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

const serverConf = `server {
    bind_address = "127.0.0.1"
    bind_port = "{{.Port}}"
    socket_path = "{{.Dir}}/server.sock"
    trust_domain = "example.org"
    data_dir = "{{.Dir}}"
    ca_ttl = "24h"
    default_x509_svid_ttl = "1h"
}
plugins {
    DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "{{.Dir}}/spire.sqlite3" } }
    KeyManager "memory" { plugin_data {} }
    NodeAttestor "join_token" { plugin_data {} }
    UpstreamAuthority "aws_pca" { plugin_data {
        region = "us-east-1"
        certificate_authority_arn = "{{.Authority}}"
        endpoint = "{{.API}}"
    } }
}
`

const agentConf = `agent {
    data_dir = "{{.Dir}}/agent"
    server_address = "127.0.0.1"
    server_port = "{{.Port}}"
    socket_path = "{{.Dir}}/agent.sock"
    trust_bundle_path = "{{.Dir}}/bundle.pem"
    trust_domain = "example.org"
    join_token = "{{.Token}}"
}
plugins {
    KeyManager "memory" { plugin_data {} }
    NodeAttestor "join_token" { plugin_data {} }
    WorkloadAttestor "unix" { plugin_data {} }
}
`

// spire is a SPIRE in a folder, with the settings of both its programs.
type spire struct {
	t                           *testing.T
	env                         []string
	Dir, Port, Authority, API   string
	Token                       string
	serverProgram, agentProgram string
}

func newSPIRE(t *testing.T, s *meshtest.Server, authority string) *spire {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs("../../.tools/bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// No AWS_ENDPOINT_URL: the plugin's own setting must do.
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_SHARED_CREDENTIALS_FILE=" + s.Credentials(), "AWS_EC2_METADATA_DISABLED=true"}
	return &spire{t: t, env: env, Dir: dir, Port: port, Authority: authority, API: s.API,
		serverProgram: filepath.Join(bin, "spire-server"), agentProgram: filepath.Join(bin, "spire-agent")}
}

// start runs one of the programs with its configuration.
func (s *spire) start(name, program, conf string) *meshtest.Process {
	s.t.Helper()
	var text bytes.Buffer
	if err := template.Must(template.New(name).Parse(conf)).Execute(&text, s); err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.Dir, name+".conf")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(program, "run", "-config", file)
	cmd.Env, cmd.Dir = s.env, s.Dir
	return meshtest.Start(s.t, name, cmd, nil)
}

// run runs a command of one of the programs and returns what it says.
func (s *spire) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = s.env, s.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// ask is run of the server's program, which must succeed while p runs.
func (s *spire) ask(p *meshtest.Process, program string, args ...string) (said string) {
	s.t.Helper()
	meshtest.Eventually(s.t, time.Minute, func(ctx context.Context) (err error) {
		if !p.Running() {
			s.t.Fatalf("%s has ended", p.Name)
		}
		said, err = s.run(ctx, program, args...)
		return err
	})
	return said
}

// root makes an ACTIVE root, and returns its certificate.
func root(t *testing.T, s *meshtest.Server) (arn string, certificate []byte) {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(meshtest.Region), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatal(err)
	}
	c := acmpca.NewFromConfig(cfg, func(o *acmpca.Options) { o.BaseEndpoint = aws.String(s.API) })
	made, err := c.CreateCertificateAuthority(t.Context(), &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: types.CertificateAuthorityTypeRoot,
		CertificateAuthorityConfiguration: &types.CertificateAuthorityConfiguration{
			KeyAlgorithm: types.KeyAlgorithmEcPrime256v1, SigningAlgorithm: types.SigningAlgorithmSha256withecdsa, Subject: &types.ASN1Subject{CommonName: aws.String("Example root")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := c.GetCertificateAuthorityCsr(t.Context(), &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: made.CertificateAuthorityArn})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := c.IssueCertificate(t.Context(), &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: made.CertificateAuthorityArn, Csr: []byte(*csr.Csr), SigningAlgorithm: types.SigningAlgorithmSha256withecdsa,
		TemplateArn: aws.String("arn:aws:acm-pca:::template/RootCACertificate/V1"), Validity: &types.Validity{Type: types.ValidityPeriodTypeYears, Value: aws.Int64(10)},
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := c.GetCertificate(t.Context(), &acmpca.GetCertificateInput{CertificateAuthorityArn: made.CertificateAuthorityArn, CertificateArn: issued.CertificateArn})
	if err == nil {
		_, err = c.ImportCertificateAuthorityCertificate(t.Context(), &acmpca.ImportCertificateAuthorityCertificateInput{
			CertificateAuthorityArn: made.CertificateAuthorityArn, Certificate: []byte(*own.Certificate)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return *made.CertificateAuthorityArn, []byte(*own.Certificate)
}

// TestUpstreamAuthority: SPIRE has its own certificate signed by our root through
// its plugin aws_pca, and what its agent gives a process verifies against that root.
func TestUpstreamAuthority(t *testing.T) {
	fairlead := meshtest.StartServer(t, meshtest.ServerOptions{})
	arn, rootPEM := root(t, fairlead)
	s := newSPIRE(t, fairlead, arn)
	server := s.start("spire-server", s.serverProgram, serverConf)
	socket := []string{"-socketPath", s.Dir + "/server.sock"}
	s.ask(server, s.serverProgram, append([]string{"healthcheck"}, socket...)...)
	token := regexp.MustCompile(`Token: (\S+)`).FindStringSubmatch(s.ask(server, s.serverProgram, append([]string{"token", "generate", "-spiffeID", "spiffe://example.org/agent"}, socket...)...))
	if token == nil {
		t.Fatal("no token")
	}
	s.Token = token[1]
	bundle := s.ask(server, s.serverProgram, append([]string{"bundle", "show"}, socket...)...)
	if strings.TrimSpace(bundle) != strings.TrimSpace(string(rootPEM)) {
		t.Errorf("SPIRE's bundle is not our root:\n%s", bundle)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "bundle.pem"), []byte(bundle), 0o600); err != nil {
		t.Fatal(err)
	}
	s.ask(server, s.serverProgram, append([]string{"entry", "create", "-parentID", "spiffe://example.org/agent", "-spiffeID", "spiffe://example.org/web",
		"-selector", fmt.Sprintf("unix:uid:%d", os.Getuid())}, socket...)...)
	agent := s.start("spire-agent", s.agentProgram, agentConf)
	s.ask(agent, s.agentProgram, "api", "fetch", "x509", "-socketPath", s.Dir+"/agent.sock", "-write", s.Dir)

	verifySVID(t, filepath.Join(s.Dir, "svid.0.pem"), rootPEM)
	file := filepath.Join(s.Dir, "root.pem")
	if err := os.WriteFile(file, rootPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.run(t.Context(), "openssl", "verify", "-x509_strict", "-CAfile", file, "-untrusted", "svid.0.pem", "svid.0.pem"); err != nil {
		t.Error(err, out)
	}
	// A CA that is not ours stands below the root, and an operator sees what that means.
	if out, err := fairlead.Fairlead(t, "ca", "list"); err != nil || !strings.Contains(string(out), "it has certified authorities that are not of this server") {
		t.Errorf("%v %s", err, out)
	}
}

func verifySVID(t *testing.T, file string, rootPEM []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	if err := checkSVID(chain, rootPEM); err != nil {
		t.Error(err)
	}
}

func checkSVID(chain []*x509.Certificate, rootPEM []byte) error {
	if len(chain) != 2 || len(chain[0].URIs) != 1 || chain[0].URIs[0].String() != "spiffe://example.org/web" {
		return fmt.Errorf("the chain has %d certificates", len(chain))
	}
	if between := chain[1]; !between.IsCA || !between.MaxPathLenZero || between.URIs[0].String() != "spiffe://example.org" {
		return errors.New("SPIRE's own certificate is not of the template SubordinateCACertificate_PathLen0")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(rootPEM)
	intermediates.AddCert(chain[1])
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}
