// Package pki runs Private CA as its users do: real AWS clients and openssl
// against a real server.
package pki

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/schemas"
	"github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/smithy-go/transport/http/protocol/rpcv2"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

// client is the Go SDK with the root key.
func client(t *testing.T, s *meshtest.Server, options ...func(*acmpca.Options)) *acmpca.Client {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(meshtest.Region), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatal(err)
	}
	return acmpca.NewFromConfig(cfg, append([]func(*acmpca.Options){func(o *acmpca.Options) { o.BaseEndpoint = aws.String(s.API) }}, options...)...)
}

func speakCBOR(o *acmpca.Options) { o.Protocol = rpcv2.NewCBOR(schemas.ACMPrivateCA) }

// command runs a program in a folder and returns what it says.
func command(t *testing.T, s *meshtest.Server, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, s.AWSEnv()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%v: %v", err, v)
		}
		return v
	}
}

// check lets openssl verify leaf.pem under issuing.pem under root.pem, with the
// CRL and the OCSP answer that it points to, and returns what they say.
func check(t *testing.T, s *meshtest.Server, dir string) (crl, ocsp string) {
	t.Helper()
	run := func(args ...string) string { return must[string](t)(command(t, s, dir, "openssl", args...)) }
	run("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-verify_hostname", "web.example.com", "leaf.pem")
	where := regexp.MustCompile(`URI:(\S+)`).FindStringSubmatch(run("x509", "-in", "leaf.pem", "-noout", "-ext", "crlDistributionPoints"))
	if where == nil {
		t.Fatal("the leaf points to no CRL")
	}
	must[string](t)(command(t, s, dir, "curl", "-fsS", "-o", "crl.der", where[1]))
	run("crl", "-inform", "DER", "-in", "crl.der", "-out", "crl.pem")
	crl, _ = command(t, s, dir, "openssl", "verify", "-crl_check", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-CRLfile", "crl.pem", "leaf.pem")
	url := strings.TrimSpace(run("x509", "-in", "leaf.pem", "-noout", "-ocsp_uri"))
	return crl, run("ocsp", "-issuer", "issuing.pem", "-CAfile", "root.pem", "-cert", "leaf.pem", "-url", url)
}

// TestBoto3 walks with boto3 in both protocols; openssl checks what came of it.
func TestBoto3(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	for _, protocol := range []string{"json", "cbor"} {
		for _, x := range []struct{ step, crl, ocsp string }{
			{"delete", "leaf.pem: OK", "leaf.pem: good"},
			{"revoke", "certificate revoked", "leaf.pem: revoked"},
		} {
			dir := t.TempDir()
			walk := must[string](t)(filepath.Abs("testdata/walk.py"))
			if out, err := command(t, s, dir, meshtest.Tool(t, "python"), walk, dir, protocol, x.step); err != nil {
				t.Fatalf("%s: %v\n%s", protocol, err, out)
			}
			crl, ocsp := check(t, s, dir)
			if !strings.Contains(crl, x.crl) || !strings.Contains(ocsp, x.ocsp) || !strings.Contains(ocsp, "Response verify OK") {
				t.Errorf("%s, %s: openssl says of the CRL:\n%s\nand of the status:\n%s", protocol, x.step, crl, ocsp)
			}
		}
	}
	for _, reports := range must[[]string](t)(filepath.Glob(filepath.Join(s.DataDir, "audit-report", "*", "*.json"))) {
		var rows []map[string]string
		text := must[[]byte](t)(os.ReadFile(reports))
		if err := json.Unmarshal(text, &rows); err != nil || len(rows) != 1 {
			t.Errorf("%s: %v %s", reports, err, text)
		}
	}
}

// authority makes an ACTIVE P-256 root by the Go SDK.
func authority(t *testing.T, c *acmpca.Client) *string {
	t.Helper()
	return authorityWith(t, c, types.KeyAlgorithmEcPrime256v1, types.SigningAlgorithmSha256withecdsa)
}

func authorityWith(t *testing.T, c *acmpca.Client, key types.KeyAlgorithm, signing types.SigningAlgorithm) *string {
	t.Helper()
	made := must[*acmpca.CreateCertificateAuthorityOutput](t)(c.CreateCertificateAuthority(t.Context(), &acmpca.CreateCertificateAuthorityInput{
		CertificateAuthorityType: types.CertificateAuthorityTypeRoot,
		CertificateAuthorityConfiguration: &types.CertificateAuthorityConfiguration{
			KeyAlgorithm: key, SigningAlgorithm: signing, Subject: &types.ASN1Subject{CommonName: aws.String("root")},
		},
	}))
	arn := made.CertificateAuthorityArn
	if err := acmpca.NewCertificateAuthorityCSRCreatedWaiter(c).Wait(t.Context(), &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: arn}, time.Minute); err != nil {
		t.Fatal(err)
	}
	csr := must[*acmpca.GetCertificateAuthorityCsrOutput](t)(c.GetCertificateAuthorityCsr(t.Context(), &acmpca.GetCertificateAuthorityCsrInput{CertificateAuthorityArn: arn}))
	issued := must[*acmpca.IssueCertificateOutput](t)(c.IssueCertificate(t.Context(), &acmpca.IssueCertificateInput{
		CertificateAuthorityArn: arn, Csr: []byte(*csr.Csr), SigningAlgorithm: signing,
		TemplateArn: aws.String("arn:aws:acm-pca:::template/RootCACertificate/V1"), Validity: &types.Validity{Type: types.ValidityPeriodTypeYears, Value: aws.Int64(10)},
	}))
	waiter := acmpca.NewCertificateIssuedWaiter(c)
	if err := waiter.Wait(t.Context(), &acmpca.GetCertificateInput{CertificateAuthorityArn: arn, CertificateArn: issued.CertificateArn}, time.Minute); err != nil {
		t.Fatal(err)
	}
	own := must[*acmpca.GetCertificateOutput](t)(c.GetCertificate(t.Context(), &acmpca.GetCertificateInput{CertificateAuthorityArn: arn, CertificateArn: issued.CertificateArn}))
	_, err := c.ImportCertificateAuthorityCertificate(t.Context(), &acmpca.ImportCertificateAuthorityCertificateInput{CertificateAuthorityArn: arn, Certificate: []byte(*own.Certificate)})
	if err != nil {
		t.Fatal(err)
	}
	return arn
}

// TestGoSDK walks with the Go SDK in both protocols: its types and its typed
// exceptions.
func TestGoSDK(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	for name, options := range map[string][]func(*acmpca.Options){"JSON": nil, "CBOR": {speakCBOR}} {
		t.Run(name, func(t *testing.T) {
			c := client(t, s, options...)
			arn := authority(t, c)
			described := must[*acmpca.DescribeCertificateAuthorityOutput](t)(c.DescribeCertificateAuthority(t.Context(), &acmpca.DescribeCertificateAuthorityInput{CertificateAuthorityArn: arn})).CertificateAuthority
			if described.Status != types.CertificateAuthorityStatusActive || described.NotAfter.Before(time.Now().AddDate(9, 11, 0)) {
				t.Errorf("status %s, ends %s", described.Status, described.NotAfter)
			}
			_, err := c.DeleteCertificateAuthority(t.Context(), &acmpca.DeleteCertificateAuthorityInput{CertificateAuthorityArn: arn})
			if _, ok := errors.AsType[*types.InvalidStateException](err); !ok {
				t.Errorf("delete of an ACTIVE one: %v", err)
			}
			_, err = c.GetPolicy(t.Context(), &acmpca.GetPolicyInput{ResourceArn: arn})
			if _, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok {
				t.Errorf("no policy: %v", err)
			}
			for _, to := range []types.CertificateAuthorityStatus{"DISABLED", "DISABLED"} {
				if _, err := c.UpdateCertificateAuthority(t.Context(), &acmpca.UpdateCertificateAuthorityInput{CertificateAuthorityArn: arn, Status: to}); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.DeleteCertificateAuthority(t.Context(), &acmpca.DeleteCertificateAuthorityInput{CertificateAuthorityArn: arn}); err != nil {
				t.Error(err)
			}
			if _, err := c.RestoreCertificateAuthority(t.Context(), &acmpca.RestoreCertificateAuthorityInput{CertificateAuthorityArn: arn}); err != nil {
				t.Error(err)
			}
		})
	}
}
