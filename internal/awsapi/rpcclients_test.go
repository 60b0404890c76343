package awsapi

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
)

const boto3SeesOfPCA = `issue {"CertificateArn": "CA/certificate/00ff2d63"}
revoke {}
list {"CertificateAuthorities": [{"Arn": "CA", "CreatedAt": "2025-11-23T12:00:00.500000+00:00", "Status": "ACTIVE"}]}
policy ResourceNotFoundException 400 ResourceNotFoundException no policy is there, née
internal ClientError 500 InternalFailure internal error; the server's log has its cause under the id of this request
panic ClientError 500 InternalFailure internal error; the server's log has its cause under the id of this request
invalid ClientError 400 ValidationException RevocationReason must be one of UNSPECIFIED, KEY_COMPROMISE, CERTIFICATE_AUTHORITY_COMPROMISE, AFFILIATION_CHANGED, SUPERSEDED, CESSATION_OF_OPERATION, PRIVILEGE_WITHDRAWN, A_A_COMPROMISE, not "HOLD"
`

const boto3SeesOfACM = `request {"CertificateArn": "CERTIFICATE"}
describe {"Certificate": {"CertificateArn": "CERTIFICATE", "CreatedAt": "2025-11-23T12:00:00.500000+00:00", "InUseBy": [], "KeyAlgorithm": "RSA-2048", "Status": "ISSUED"}}
export {"PrivateKey": "key under sesame"}
early RequestInProgressException 400 RequestInProgressException not issued yet
import {"CertificateArn": "CERTIFICATE"}
list {"NextToken": "a+b/c=\u00e9"}
search {}
account {"ExpiryEvents": {"DaysBeforeExpiry": 45}}
delete {}
in use ResourceInUseException 400 ResourceInUseException it is in use
invalid ValidationException 400 ValidationException DomainName must match the pattern ^(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]$, not be "localhost"
`

// pcaInputs and acmInputs are what the service is asked by testdata/rpc.py.
func pcaInputs() []any {
	return []any{
		&acmpca.IssueCertificateRequest{CertificateAuthorityArn: authorityARN, Csr: []byte("\x00\xff-csr"), SigningAlgorithm: acmpca.SigningAlgorithmSha256withecdsa,
			Validity: &acmpca.Validity{Type: acmpca.ValidityPeriodTypeDays, Value: 30},
			ApiPassthrough: &acmpca.ApiPassthrough{Extensions: &acmpca.Extensions{KeyUsage: &acmpca.KeyUsage{DigitalSignature: new(true), CRLSign: new(false)},
				SubjectAlternativeNames: []acmpca.GeneralName{{DnsName: new("é.example.com")}}}}},
		&acmpca.RevokeCertificateRequest{CertificateAuthorityArn: authorityARN, CertificateSerial: "0a:0b", RevocationReason: acmpca.RevocationReasonSuperseded},
		&acmpca.ListCertificateAuthoritiesRequest{},
	}
}

func acmInputs() []any {
	passphrase := func(s string) api.SecretBlob { return api.NewSecretBlob([]byte(s)) }
	start := api.Timestamp{Time: time.Date(2026, 11, 23, 12, 0, 0, 5e8, time.UTC)}
	return []any{
		&acm.RequestCertificateRequest{DomainName: "*.apps.example", SubjectAlternativeNames: []string{"*.apps.example", "b.example"}, CertificateAuthorityArn: new(authorityARN),
			IdempotencyToken: new("t_1"), Tags: []acm.Tag{{Key: "é", Value: new("")}, {Key: "k"}},
			Options: &acm.CertificateOptions{CertificateTransparencyLoggingPreference: new(acm.CertificateTransparencyLoggingPreferenceDisabled)}},
		&acm.DescribeCertificateRequest{CertificateArn: certificateARN},
		&acm.ExportCertificateRequest{CertificateArn: certificateARN, Passphrase: passphrase("sesame")},
		&acm.ExportCertificateRequest{CertificateArn: certificateARN, Passphrase: passphrase("none")},
		&acm.ImportCertificateRequest{CertificateArn: new(certificateARN), Certificate: []byte("cert"), PrivateKey: passphrase("key\x00"), CertificateChain: []byte("chain")},
		&acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: []acm.KeyAlgorithm{acm.KeyAlgorithmEcPrime256v1}}, NextToken: new("a+b/c=é"), MaxItems: new(int64(7))},
		&acm.SearchCertificatesRequest{FilterStatement: &acm.CertificateFilterStatement{Not: &acm.CertificateFilterStatement{Filter: &acm.CertificateFilter{
			X509AttributeFilter: &acm.X509AttributeFilter{NotBefore: &acm.TimestampRange{Start: start}}}}}},
		&acm.DeleteCertificateRequest{CertificateArn: certificateARN},
		&acm.DeleteCertificateRequest{CertificateArn: certificateARN + "/used"},
	}
}

// TestBoto3RPC: inputs arrive typed, outputs and exceptions are what boto3
// reads, in the protocol that it has chosen and in the other.
func TestBoto3RPC(t *testing.T) {
	const inJSON, inCBOR = "types ['application/x-amz-json-1.1']\n", "types ['application/cbor']\n"
	for _, test := range []struct {
		name, want string
		arguments  []string
		inputs     []any
	}{
		{"JSON", boto3SeesOfPCA + inJSON + boto3SeesOfACM + inJSON, nil, append(pcaInputs(), acmInputs()...)},
		{"CBOR", boto3SeesOfPCA + inCBOR, []string{"cbor"}, pcaInputs()},
	} {
		t.Run(test.name, func(t *testing.T) {
			url, asked := serveRPC(t)
			cmd := exec.CommandContext(t.Context(), venv+"python", append([]string{"testdata/rpc.py", url, rootCreds.AccessKeyID, rootCreds.SecretAccessKey}, test.arguments...)...)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("boto3 (make tools installs it): %v\n%s", err, out)
			}
			got := strings.NewReplacer(authorityARN, "CA", certificateARN, "CERTIFICATE").Replace(string(out))
			if diff := cmp.Diff(strings.Split(test.want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("what boto3 sees (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.inputs, asked.take()); diff != "" {
				t.Errorf("what the service is asked (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCLIRPC: the aws command on both services.
func TestCLIRPC(t *testing.T) {
	url, asked := serveRPC(t)
	csr, passphrase := filepath.Join(t.TempDir(), "csr"), filepath.Join(t.TempDir(), "passphrase")
	for file, content := range map[string]string{csr: "\x00\xff-csr", passphrase: "sesame"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name      string
		arguments []string
		want      string // of what it prints, whole or not
		seen      []any
	}{
		{"issue", []string{"acm-pca", "issue-certificate", "--certificate-authority-arn", authorityARN, "--csr", "fileb://" + csr, "--signing-algorithm", "SHA256WITHECDSA", "--validity", "Value=30,Type=DAYS"},
			authorityARN + "/certificate/00ff2d63", []any{&acmpca.IssueCertificateRequest{CertificateAuthorityArn: authorityARN, Csr: []byte("\x00\xff-csr"),
				SigningAlgorithm: acmpca.SigningAlgorithmSha256withecdsa, Validity: &acmpca.Validity{Type: acmpca.ValidityPeriodTypeDays, Value: 30}}}},
		{"export", []string{"acm", "export-certificate", "--certificate-arn", certificateARN, "--passphrase", "fileb://" + passphrase}, "key under sesame",
			[]any{&acm.ExportCertificateRequest{CertificateArn: certificateARN, Passphrase: api.NewSecretBlob([]byte("sesame"))}}},
		{"list", []string{"acm", "list-certificates", "--includes", "keyTypes=RSA_2048,EC_prime256v1", "--no-paginate"}, "",
			[]any{&acm.ListCertificatesRequest{Includes: &acm.Filters{KeyTypes: []acm.KeyAlgorithm{acm.KeyAlgorithmRsa2048, acm.KeyAlgorithmEcPrime256v1}}}}},
		{"account", []string{"acm", "get-account-configuration"}, "45", nil},
		{"exception", []string{"acm-pca", "get-policy", "--resource-arn", authorityARN}, "(ResourceNotFoundException) when calling the GetPolicy operation: no policy is there, née", nil},
		{"invalid", []string{"acm", "request-certificate", "--domain-name", "localhost"}, "(ValidationException) when calling the RequestCertificate operation: DomainName must match", nil},
	} {
		cmd := exec.CommandContext(t.Context(), venv+"aws", append(test.arguments, "--output", "text")...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+url, "AWS_REGION="+testRegion, "AWS_DEFAULT_REGION="+testRegion, "PYTHONUTF8=1",
			"AWS_ACCESS_KEY_ID="+rootCreds.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+rootCreds.SecretAccessKey, "AWS_CONFIG_FILE=/dev/null")
		out, err := cmd.CombinedOutput()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
			t.Fatalf("aws CLI (make tools installs it): %v", err)
		}
		if !strings.Contains(string(out), test.want) {
			t.Errorf("%s: %s\nwant %s", test.name, out, test.want)
		}
		if diff := cmp.Diff(test.seen, asked.take()); diff != "" {
			t.Errorf("%s: what the service is asked (-want +got):\n%s", test.name, diff)
		}
	}
}
