package pki

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	pca "github.com/aws/aws-sdk-go-v2/service/acmpca/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// issuedWithin is generous: the machine may be busy.
const issuedWithin = 30 * time.Second

// acmClient is the Go SDK with the root key.
func acmClient(t *testing.T, s *meshtest.Server) *acm.Client {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(meshtest.Region), config.WithSharedConfigFiles(nil), config.WithBaseEndpoint(s.API),
		config.WithSharedCredentialsFiles([]string{s.Credentials()}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatal(err)
	}
	return acm.NewFromConfig(cfg)
}

// authorityForACM is an active root that ACM may use.
func authorityForACM(t *testing.T, s *meshtest.Server) string {
	t.Helper()
	c := client(t, s)
	arn := authority(t, c)
	if _, err := c.CreatePermission(t.Context(), &acmpca.CreatePermissionInput{
		CertificateAuthorityArn: arn, Principal: aws.String("acm.amazonaws.com"), Actions: []pca.ActionType{pca.ActionTypeIssueCertificate, pca.ActionTypeGetCertificate, pca.ActionTypeListPermissions},
	}); err != nil {
		t.Fatal(err)
	}
	return *arn
}

// waitIssued waits until a certificate is issued, and describes it.
func waitIssued(t *testing.T, c *acm.Client, arn string, within time.Duration) *types.CertificateDetail {
	t.Helper()
	var d *types.CertificateDetail
	meshtest.Eventually(t, within, func(ctx context.Context) error {
		out, err := c.DescribeCertificate(ctx, &acm.DescribeCertificateInput{CertificateArn: &arn})
		if err != nil {
			return err
		}
		d = out.Certificate
		if d.Status != types.CertificateStatusIssued || d.RenewalSummary != nil && d.RenewalSummary.RenewalStatus == types.RenewalStatusPendingAutoRenewal {
			return fmt.Errorf("%s is %s %v", arn, d.Status, d.FailureReason)
		}
		return nil
	})
	return d
}

// files writes texts to a new folder.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const passphrase = "canary-passphrase-77d1"

// TestACMWithGoSDK walks from a request to the end of a certificate, and wants
// neither its keys nor its passphrase in any log or file.
func TestACMWithGoSDK(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{Debug: true})
	root := authorityForACM(t, s)
	c := acmClient(t, s)
	out, err := c.RequestCertificate(t.Context(), &acm.RequestCertificateInput{
		DomainName: aws.String("api.apps.local"), SubjectAlternativeNames: []string{"api.apps.local", "*.apps.local"}, CertificateAuthorityArn: &root,
		IdempotencyToken: aws.String("once"), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("web")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := *out.CertificateArn
	d := waitIssued(t, c, arn, issuedWithin)
	if d.Type != types.CertificateTypePrivate || d.KeyAlgorithm != "RSA-2048" || *d.Issuer != "root" || d.InUseBy == nil || !slices.Equal(d.SubjectAlternativeNames, []string{"api.apps.local", "*.apps.local"}) {
		t.Errorf("it is described as %+v", d)
	}
	secrets := [][]byte{[]byte(passphrase)}
	export := func() *acm.ExportCertificateOutput {
		t.Helper()
		e, err := c.ExportCertificate(t.Context(), &acm.ExportCertificateInput{CertificateArn: &arn, Passphrase: []byte(passphrase)})
		if err != nil {
			t.Fatal(err)
		}
		dir := files(t, map[string]string{"leaf.pem": *e.Certificate, "chain.pem": *e.CertificateChain, "key.pem": *e.PrivateKey})
		openssl := func(args ...string) string { return must[string](t)(command(t, s, dir, "openssl", args...)) }
		openssl("verify", "-CAfile", "chain.pem", "-verify_hostname", "x.apps.local", "leaf.pem")
		plain := openssl("pkey", "-in", "key.pem", "-passin", "pass:"+passphrase)
		if public := openssl("pkey", "-in", "key.pem", "-passin", "pass:"+passphrase, "-pubout"); public != openssl("x509", "-in", "leaf.pem", "-noout", "-pubkey") {
			t.Error("the key is not the certificate's")
		}
		block, _ := pem.Decode([]byte(plain))
		secrets = append(secrets, block.Bytes)
		return e
	}
	first := export()
	if got, err := c.GetCertificate(t.Context(), &acm.GetCertificateInput{CertificateArn: &arn}); err != nil || *got.Certificate != *first.Certificate || *got.CertificateChain != *first.CertificateChain {
		t.Errorf("GetCertificate: %v", err)
	}
	if _, err := c.RenewCertificate(t.Context(), &acm.RenewCertificateInput{CertificateArn: &arn}); err != nil {
		t.Fatal(err)
	}
	renewed := waitIssued(t, c, arn, issuedWithin)
	if renewed.RenewalSummary.RenewalStatus != types.RenewalStatusSuccess || *renewed.Serial == *d.Serial {
		t.Errorf("renewed it is %+v", renewed.RenewalSummary)
	}
	if second := export(); *second.Certificate == *first.Certificate {
		t.Error("the renewed certificate is the same")
	}
	if _, err := c.RequestCertificate(t.Context(), &acm.RequestCertificateInput{DomainName: aws.String("public.example.com")}); code(err) != "InvalidParameterException" {
		t.Errorf("a public certificate: %v", err)
	}
	if _, err := c.DeleteCertificate(t.Context(), &acm.DeleteCertificateInput{CertificateArn: &arn}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DescribeCertificate(t.Context(), &acm.DescribeCertificateInput{CertificateArn: &arn}); code(err) != "ResourceNotFoundException" {
		t.Errorf("after its end: %v", err)
	}
	if _, err := c.CreateAcmeEndpoint(t.Context(), &acm.CreateAcmeEndpointInput{
		AuthorizationBehavior: types.AcmeAuthorizationBehaviorPreApproved, CertificateAuthority: &types.CertificateAuthorityMemberPublicCertificateAuthority{Value: types.PublicCertificateAuthority{}}, IdempotencyToken: aws.String("t"),
	}); code(err) != "ValidationException" {
		t.Errorf("an ACME endpoint: %v", err)
	}
	s.Terminate(t)
	nowhere(t, s, secrets)
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

// nowhere wants no form of a secret in the log or in any file of a server that
// has ended.
func nowhere(t *testing.T, s *meshtest.Server, secrets [][]byte) {
	t.Helper()
	var forms []string
	for _, secret := range secrets {
		part := secret[max(0, len(secret)-24):]
		forms = append(forms, string(part), hex.EncodeToString(part), base64.StdEncoding.EncodeToString(part), base64.StdEncoding.EncodeToString(secret))
	}
	look := func(where, text string) {
		for _, form := range forms {
			if strings.Contains(text, form) {
				t.Errorf("a secret is in %s", where)
			}
		}
	}
	look("the log", s.Log())
	if err := filepath.WalkDir(s.DataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		look(path, string(text))
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestACMWithBoto3 imports, imports again, lists with filters and pages, tags.
func TestACMWithBoto3(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		must[string](t)(command(t, s, dir, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".pem", "-days", "30",
			"-subj", "/O=Apps/CN=own.apps.local", "-addext", "subjectAltName=DNS:own.apps.local", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=digitalSignature"))
	}
	program := `
import boto3, sys, time
root, d = sys.argv[1:]
acm = boto3.client("acm")
def read(name):
    return open(d + "/" + name, "rb").read()
arn = acm.import_certificate(Certificate=read("one.pem"), PrivateKey=read("one.key"), Tags=[{"Key": "team", "Value": "web"}])["CertificateArn"]
first = acm.describe_certificate(CertificateArn=arn)["Certificate"]
assert first["Type"] == "IMPORTED" and first["Status"] == "ISSUED" and first["KeyAlgorithm"] == "EC-prime256v1" and first["InUseBy"] == [], first
assert first["DomainName"] == "own.apps.local" and first["Issuer"] == "Apps" and first["Subject"] == "O=Apps,CN=own.apps.local", first
assert "CertificateChain" not in acm.get_certificate(CertificateArn=arn)
assert acm.import_certificate(CertificateArn=arn, Certificate=read("two.pem"), PrivateKey=read("two.key"))["CertificateArn"] == arn
second = acm.describe_certificate(CertificateArn=arn)["Certificate"]
assert second["Serial"] != first["Serial"] and second["CreatedAt"] == first["CreatedAt"], second
try:
    acm.import_certificate(Certificate=read("one.pem"), PrivateKey=read("two.key"))
    sys.exit("a key that is another's was taken")
except acm.exceptions.InvalidParameterException as e:
    assert "private key is not that of the certificate" in str(e), e
try:
    acm.export_certificate(CertificateArn=arn, Passphrase=b"correct horse")
    sys.exit("an imported key was exported")
except acm.exceptions.ValidationException as e:
    assert "is not a private certificate" in str(e), e
acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "stage", "Value": "test"}])
acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "team"}])
assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "stage", "Value": "test"}]
wanted = {acm.request_certificate(DomainName="h%d.apps.local" % i, CertificateAuthorityArn=root, KeyAlgorithm="EC_prime256v1")["CertificateArn"] for i in range(7)}
end = time.monotonic() + 30
while True:
    pages = acm.get_paginator("list_certificates").paginate(CertificateStatuses=["ISSUED"], Includes={"keyTypes": ["EC_prime256v1"]}, PaginationConfig={"PageSize": 3})
    listed = [c for page in pages for c in page["CertificateSummaryList"]]
    if wanted <= {c["CertificateArn"] for c in listed}:
        break
    assert time.monotonic() < end, listed
assert len(listed) == 8 and {c["Type"] for c in listed} == {"PRIVATE", "IMPORTED"}, listed
assert acm.list_certificates()["CertificateSummaryList"] == []
acm.put_account_configuration(ExpiryEvents={"DaysBeforeExpiry": 30}, IdempotencyToken="t")
assert acm.get_account_configuration()["ExpiryEvents"] == {"DaysBeforeExpiry": 30}
for c in wanted | {arn}:
    acm.delete_certificate(CertificateArn=c)
try:
    acm.describe_certificate(CertificateArn=arn)
    sys.exit("the certificate is still there")
except acm.exceptions.ResourceNotFoundException as e:
    assert "Could not find certificate" in str(e), e
`
	file := filepath.Join(dir, "program.py")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	must[string](t)(command(t, s, dir, meshtest.Tool(t, "python"), file, authorityForACM(t, s), dir))
}

// TestBurst: 50 RSA requests at once, when keys are made ahead. How long that
// takes is logged: it is for quiet machines to judge.
func TestBurst(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{Debug: true})
	root := authorityForACM(t, s)
	meshtest.Eventually(t, 2*time.Minute, func(context.Context) error {
		if !strings.Contains(s.Log(), "RSA keys are made ahead") {
			return errors.New("keys are still being made")
		}
		return nil
	})
	c := acmClient(t, s)
	const burst = 50
	begun := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	arns := make([]string, burst)
	for i := range arns {
		group.Go(func() error {
			out, err := c.RequestCertificate(ctx, &acm.RequestCertificateInput{DomainName: aws.String(fmt.Sprintf("h%d.apps.local", i)), CertificateAuthorityArn: &root})
			if err == nil {
				arns[i] = *out.CertificateArn
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, arn := range arns {
		waitIssued(t, c, arn, 2*issuedWithin)
	}
	t.Logf("%d RSA certificates were issued within %s of the first request", burst, time.Since(begun))
}
