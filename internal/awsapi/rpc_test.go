package awsapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
)

const (
	authorityARN   = "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/11111111-2222-4333-8444-555555555555"
	certificateARN = "arn:aws:acm:us-east-1:000000000000:certificate/11111111-2222-4333-8444-555555555555"
)

// clockTime is a time with a fraction.
var clockTime = api.Timestamp{Time: time.UnixMilli(1763899200500).UTC()}

// authority implements a few operations of Private CA. What it lacks panics, as
// a bug would.
type authority struct {
	acmpca.Service
	seen func(any) // each input
}

func (a authority) IssueCertificate(_ context.Context, in *acmpca.IssueCertificateRequest) (*acmpca.IssueCertificateResponse, error) {
	a.seen(in)
	arn := in.CertificateAuthorityArn + "/certificate/" + fmt.Sprintf("%x", in.Csr[:4])
	return &acmpca.IssueCertificateResponse{CertificateArn: &arn}, nil
}

func (a authority) RevokeCertificate(_ context.Context, in *acmpca.RevokeCertificateRequest) error {
	a.seen(in)
	return nil
}

func (a authority) ListCertificateAuthorities(_ context.Context, in *acmpca.ListCertificateAuthoritiesRequest) (*acmpca.ListCertificateAuthoritiesResponse, error) {
	a.seen(in)
	arn, status := authorityARN, acmpca.CertificateAuthorityStatusActive
	return &acmpca.ListCertificateAuthoritiesResponse{CertificateAuthorities: []acmpca.CertificateAuthority{{Arn: &arn, Status: &status, CreatedAt: clockTime}}}, nil
}

func (a authority) ImportCertificateAuthorityCertificate(_ context.Context, in *acmpca.ImportCertificateAuthorityCertificateRequest) error {
	a.seen(in)
	return nil
}

func (authority) GetPolicy(context.Context, *acmpca.GetPolicyRequest) (*acmpca.GetPolicyResponse, error) {
	return nil, acmpca.NewResourceNotFoundException("no policy is there, née")
}

func (authority) DeletePolicy(context.Context, *acmpca.DeletePolicyRequest) error {
	return errors.New("etcd: secret detail")
}

// manager implements a few operations of ACM.
type manager struct {
	acm.Service
	seen func(any)
}

func (m manager) RequestCertificate(_ context.Context, in *acm.RequestCertificateRequest) (*acm.RequestCertificateResponse, error) {
	m.seen(in)
	arn := certificateARN
	return &acm.RequestCertificateResponse{CertificateArn: &arn}, nil
}

func (m manager) ExportCertificate(_ context.Context, in *acm.ExportCertificateRequest) (*acm.ExportCertificateResponse, error) {
	m.seen(in)
	if in.Passphrase.Reveal() == "none" {
		return nil, acm.NewRequestInProgressException("not issued yet")
	}
	return &acm.ExportCertificateResponse{PrivateKey: api.NewSecret("key under " + in.Passphrase.Reveal())}, nil
}

func (m manager) ImportCertificate(_ context.Context, in *acm.ImportCertificateRequest) (*acm.ImportCertificateResponse, error) {
	m.seen(in)
	return &acm.ImportCertificateResponse{CertificateArn: in.CertificateArn}, nil
}

func (m manager) DescribeCertificate(_ context.Context, in *acm.DescribeCertificateRequest) (*acm.DescribeCertificateResponse, error) {
	m.seen(in)
	status, algorithm, arn := acm.CertificateStatusIssued, acm.KeyAlgorithm("RSA-2048"), in.CertificateArn
	return &acm.DescribeCertificateResponse{Certificate: &acm.CertificateDetail{CertificateArn: &arn, Status: &status, KeyAlgorithm: &algorithm, CreatedAt: clockTime, InUseBy: []string{}}}, nil
}

func (m manager) ListCertificates(_ context.Context, in *acm.ListCertificatesRequest) (*acm.ListCertificatesResponse, error) {
	m.seen(in)
	return &acm.ListCertificatesResponse{NextToken: in.NextToken}, nil
}

func (m manager) SearchCertificates(_ context.Context, in *acm.SearchCertificatesRequest) (*acm.SearchCertificatesResponse, error) {
	m.seen(in)
	return &acm.SearchCertificatesResponse{}, nil
}

func (m manager) GetAccountConfiguration(context.Context) (*acm.GetAccountConfigurationResponse, error) {
	days := int64(45)
	return &acm.GetAccountConfigurationResponse{ExpiryEvents: &acm.ExpiryEventsConfiguration{DaysBeforeExpiry: &days}}, nil
}

func (m manager) DeleteCertificate(_ context.Context, in *acm.DeleteCertificateRequest) error {
	m.seen(in)
	if strings.HasSuffix(in.CertificateArn, "used") {
		return acm.NewResourceInUseException("it is in use")
	}
	return nil
}

// newRPCMux serves both, and App Mesh beside them; seen is called with every
// input, one at a time if the requests are.
func newRPCMux(cfg Config, seen func(any)) *Mux {
	m := newTestMux(cfg)
	MountTargets[acmpca.Service](m, acmpca.SigningName, acmpca.TargetPrefix, authority{seen: seen}, acmpca.Operations)
	MountTargets[acm.Service](m, acm.SigningName, acm.TargetPrefix, manager{seen: seen}, acm.Operations)
	return m
}

// witness keeps the inputs of a server's services.
type witness struct {
	mu   sync.Mutex
	seen []any
}

func (w *witness) see(in any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, in)
}

// take returns what was seen since it was last called.
func (w *witness) take() []any {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func serveRPC(t *testing.T) (string, *witness) {
	t.Helper()
	w := &witness{}
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(newRPCMux(Config{}, w.see), nil)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, w
}

func inJSON(service, target, body string) rpc {
	return rpc{creds: rootCreds, service: service, target: "/", header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target}}, body: body}
}

func inCBOR(t *testing.T, service, path, notation string) rpc {
	return rpc{creds: rootCreds, service: service, target: path, header: http.Header{"Content-Type": {"application/cbor"}, "Smithy-Protocol": {"rpc-v2-cbor"}}, body: string(hexOf(t, notation))}
}

func TestRPCAnswers(t *testing.T) {
	revoked := &acmpca.RevokeCertificateRequest{CertificateAuthorityArn: authorityARN, CertificateSerial: "0a", RevocationReason: acmpca.RevocationReasonUnspecified}
	with := func(c rpc, change func(*rpc)) rpc { change(&c); return c }
	const list = "/service/ACMPrivateCA/operation/ListCertificateAuthorities"
	for _, test := range []struct {
		name     string
		protocol protocol
		call     rpc
		want     string // body, in CBOR hexadecimal
		seen     any
	}{
		{"exchange", jsonRPC, inJSON("acm-pca", "ACMPrivateCA.ListCertificateAuthorities", `{"MaxResults":5}`),
			`{"CertificateAuthorities":[{"Arn":"` + authorityARN + `","CreatedAt":1763899200.500,"Status":"ACTIVE"}]}`, &acmpca.ListCertificateAuthoritiesRequest{MaxResults: new(int64(5))}},
		{"exchange", rpcCBOR, inCBOR(t, "acm-pca", list, `a1 "MaxResults" 05`),
			fmt.Sprintf("%x", hexOf(t, `a1 "CertificateAuthorities" 81 a3 "Arn" "`+authorityARN+`" "CreatedAt" c1 fb41da48bdd0200000 "Status" "ACTIVE"`)), &acmpca.ListCertificateAuthoritiesRequest{MaxResults: new(int64(5))}},
		{"no body", rpcCBOR, with(inCBOR(t, "acm-pca", list, ``), func(c *rpc) { c.header.Del("Content-Type") }), "", &acmpca.ListCertificateAuthoritiesRequest{}},
		{"empty input", rpcCBOR, inCBOR(t, "acm-pca", list, `a0`), "", &acmpca.ListCertificateAuthoritiesRequest{}},
		{"empty input, indefinite, behind a prefix", rpcCBOR, inCBOR(t, "acm-pca", "/any/prefix"+list, `bfff`), "", &acmpca.ListCertificateAuthoritiesRequest{}},
		{"no body", jsonRPC, inJSON("acm", "CertificateManager.GetAccountConfiguration", ``), `{"ExpiryEvents":{"DaysBeforeExpiry":45}}`, nil},
		{"no input", jsonRPC, inJSON("acm", "CertificateManager.GetAccountConfiguration", `{}`), `{"ExpiryEvents":{"DaysBeforeExpiry":45}}`, nil},
		{"no output", jsonRPC, inJSON("acm-pca", "ACMPrivateCA.RevokeCertificate", `{"CertificateAuthorityArn":"`+authorityARN+`","CertificateSerial":"0a","RevocationReason":"UNSPECIFIED"}`), `{}`, revoked},
		{"no output", rpcCBOR, inCBOR(t, "acm-pca", "/service/ACMPrivateCA/operation/RevokeCertificate", `bf "CertificateAuthorityArn" "`+authorityARN+`" "CertificateSerial" "0a" "RevocationReason" "UNSPECIFIED" ff`), `a0`, revoked},
		{"absent and empty", jsonRPC, inJSON("acm", "CertificateManager.DescribeCertificate", `{"CertificateArn":"`+certificateARN+`"}`),
			`{"Certificate":{"CertificateArn":"` + certificateARN + `","CreatedAt":1763899200.500,"InUseBy":[],"KeyAlgorithm":"RSA-2048","Status":"ISSUED"}}`, &acm.DescribeCertificateRequest{CertificateArn: certificateARN}},
		{"secrets", jsonRPC, inJSON("acm", "CertificateManager.ExportCertificate", `{"CertificateArn":"`+certificateARN+`","Passphrase":"c2VzYW1l"}`),
			`{"PrivateKey":"key under sesame"}`, &acm.ExportCertificateRequest{CertificateArn: certificateARN, Passphrase: api.NewSecretBlob([]byte("sesame"))}},
		{"a chain of 2 MB", jsonRPC, inJSON("acm", "CertificateManager.ImportCertificate", `{"Certificate":"YQ==","PrivateKey":"YQ==","CertificateChain":"`+strings.Repeat("YWFh", 2<<20/3)+`"}`),
			`{}`, &acm.ImportCertificateRequest{Certificate: []byte("a"), PrivateKey: api.NewSecretBlob([]byte("a")), CertificateChain: bytes.Repeat([]byte("a"), 2<<20/3*3)}},
	} {
		var seen any
		w := test.call.serve(t, newRPCMux(Config{Now: func() time.Time { return signedAt }}, func(in any) { seen = in }))
		got := w.Body.String()
		if test.protocol == rpcCBOR {
			got = fmt.Sprintf("%x", got)
		}
		if w.Code != 200 || test.want != "" && got != test.want {
			t.Errorf("%s: got %d %s\nwant %s", test.name, w.Code, got, test.want)
		}
		if diff := cmp.Diff(test.seen, seen, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Errorf("%s: the service was asked (-want +got):\n%s", test.name, diff)
		}
		media, named := "application/x-amz-json-1.1", ""
		if test.protocol == rpcCBOR {
			media, named = "application/cbor", "rpc-v2-cbor"
		}
		if h := w.Header(); h.Get("Content-Type") != media || h.Get("Smithy-Protocol") != named || len(h.Get("X-Amzn-Requestid")) != 36 {
			t.Errorf("%s: headers %v", test.name, h)
		}
	}
}

func TestRPCErrors(t *testing.T) {
	const issue, operation = "/service/ACMPrivateCA/operation/IssueCertificate", "/service/ACMPrivateCA/operation/"
	with := func(c rpc, change func(*rpc)) rpc { change(&c); return c }
	for _, test := range []struct {
		name     string
		protocol protocol
		call     rpc
		want     string
	}{
		{"unknown operation", jsonRPC, inJSON("acm", "CertificateManager.MakeCertificate", `{}`), `400 UnknownOperationException: the service acm has no operation "MakeCertificate"`},
		{"unknown operation", rpcCBOR, inCBOR(t, "acm-pca", operation+"MakeCertificate", `a0`), `400 UnknownOperationException: the service acm-pca has no operation "MakeCertificate"`},
		{"other case", jsonRPC, inJSON("acm", "CertificateManager.listCertificates", `{}`), `400 UnknownOperationException: the service acm has no operation "listCertificates"`},
		{"operation of another", jsonRPC, inJSON("acm", "CertificateManager.IssueCertificate", `{}`), `400 UnknownOperationException: the service acm has no operation`},
		{"scope of another", jsonRPC, inJSON("acm", "ACMPrivateCA.MakeCertificate", `{}`), `400 InvalidSignatureException: Credential should be scoped to correct service: 'acm-pca'.`},
		{"scope of another", rpcCBOR, inCBOR(t, "acm", issue, `a0`), `400 InvalidSignatureException: Credential should be scoped to correct service: 'acm-pca'.`},
		{"App Mesh by target", jsonRPC, inJSON("appmesh", "AppMesh.ListMeshes", `{}`), `400 UnknownOperationException: no service has the target "AppMesh.ListMeshes"`},
		{"another Smithy protocol", rpcCBOR, with(inCBOR(t, "acm-pca", issue, `a0`), func(c *rpc) { c.header.Set("Smithy-Protocol", "rpc-v2-json") }), `400 UnknownOperationException: the Smithy-Protocol "rpc-v2-json" is not spoken here: rpc-v2-cbor is`},
		{"two Smithy protocols", rpcCBOR, with(inCBOR(t, "acm-pca", issue, `a0`), func(c *rpc) { c.header.Add("Smithy-Protocol", "rpc-v2-cbor") }), `400 UnknownOperationException: the Smithy-Protocol`},
		{"both protocols", rpcCBOR, with(inCBOR(t, "acm-pca", issue, `a0`), func(c *rpc) { c.header.Set("X-Amz-Target", "ACMPrivateCA.IssueCertificate") }), `400 UnknownOperationException: an operation is called by POST`},
		{"two targets", jsonRPC, with(inJSON("acm", "CertificateManager.ListCertificates", `{}`), func(c *rpc) { c.header.Add("X-Amz-Target", "CertificateManager.DeleteCertificate") }), `400 UnknownOperationException: an operation is called by POST`},
		{"JSON at a path of CBOR", jsonRPC, with(inJSON("acm-pca", "ACMPrivateCA.IssueCertificate", `{}`), func(c *rpc) { c.target = issue }), `400 UnknownOperationException: an operation is called by POST`},
		{"by PUT", rpcCBOR, with(inCBOR(t, "acm-pca", issue, `a0`), func(c *rpc) { c.method = "PUT" }), `400 UnknownOperationException: an operation is called by POST`},
		{"with a query", jsonRPC, with(inJSON("acm", "CertificateManager.ListCertificates", `{}`), func(c *rpc) { c.target = "/?MaxItems=1" }), `400 ValidationException: MaxItems is not a known query parameter`},
		{"no CBOR", rpcCBOR, with(inCBOR(t, "acm-pca", issue, `a0`), func(c *rpc) { c.header.Set("Content-Type", "application/json") }), `400 UnsupportedMediaTypeException: content-type "application/json" is not understood: send application/cbor`},
		{"no JSON", jsonRPC, with(inJSON("acm", "CertificateManager.ListCertificates", `{}`), func(c *rpc) { c.header.Set("Content-Type", "application/cbor") }), `400 UnsupportedMediaTypeException: content-type "application/cbor" is not understood: send application/x-amz-json-1.1`},

		{"bad JSON", jsonRPC, inJSON("acm", "CertificateManager.ListCertificates", `{"MaxItems":`), `400 SerializationException: the request body is not valid JSON: `},
		{"JSON twice", jsonRPC, inJSON("acm", "CertificateManager.ListCertificates", `{}{}`), `400 SerializationException: the request body has something behind`},
		{"a list", jsonRPC, inJSON("acm", "CertificateManager.ListCertificates", `[]`), `400 SerializationException: the request body must be a JSON object, not a list`},
		{"CBOR in JSON", jsonRPC, inJSON("acm", "CertificateManager.ListCertificates", "\xa0"), `400 SerializationException: the request body is not valid JSON: `},
		{"bad CBOR", rpcCBOR, inCBOR(t, "acm-pca", issue, `a1`), `400 SerializationException: the request body is not valid CBOR: it ends too early, at byte 1`},
		{"JSON in CBOR", rpcCBOR, inCBOR(t, "acm-pca", issue, `7b7d`), `400 SerializationException: the request body is not valid CBOR: it ends too early`},
		{"CBOR twice", rpcCBOR, inCBOR(t, "acm-pca", issue, `a0a0`), `400 SerializationException: the request body has something behind`},
		{"a CBOR list", rpcCBOR, inCBOR(t, "acm-pca", issue, `80`), `400 SerializationException: the request body must be a CBOR map, not a list`},

		{"unknown member", jsonRPC, inJSON("acm", "CertificateManager.ListCertificates", `{"MaxItem":1}`), `400 ValidationException: MaxItem is not a known field; did you mean MaxItems?`},
		{"unknown member", rpcCBOR, inCBOR(t, "acm-pca", operation+"ListCertificateAuthorities", `a1 "MaxItems" 01`), `400 ValidationException: MaxItems is not a known field`},
		{"nothing", rpcCBOR, inCBOR(t, "acm-pca", issue, ``), `400 ValidationException: 4 validation errors detected: CertificateAuthorityArn is required; Csr is required; SigningAlgorithm is required; Validity is required`},
		{"constraints", jsonRPC, inJSON("acm", "CertificateManager.ExportCertificate", `{"CertificateArn":"x","Passphrase":"YQ=="}`), `400 ValidationException: 3 validation errors detected: CertificateArn must be at least 20 characters long, not 1; CertificateArn must match the pattern ^arn:`},
		{"a name of one label", jsonRPC, inJSON("acm", "CertificateManager.RequestCertificate", `{"DomainName":"localhost"}`), `400 ValidationException: DomainName must match the pattern`},
		{"union of two", jsonRPC, inJSON("acm", "CertificateManager.SearchCertificates", `{"FilterStatement":{"And":[{"Filter":{"CertificateArn":"`+certificateARN+`"}}],"Or":[{"Filter":{"CertificateArn":"`+certificateARN+`"}}]}}`), `400 ValidationException: FilterStatement must have exactly one of And, Filter, Not, Or, not And and Or`},

		{"exception", jsonRPC, inJSON("acm-pca", "ACMPrivateCA.GetPolicy", `{"ResourceArn":"`+authorityARN+`"}`), `400 ResourceNotFoundException: no policy is there, née`},
		{"exception", rpcCBOR, inCBOR(t, "acm-pca", operation+"GetPolicy", `a1 "ResourceArn" "`+authorityARN+`"`), `400 ResourceNotFoundException: no policy is there, née`},
		{"internal error", jsonRPC, inJSON("acm-pca", "ACMPrivateCA.DeletePolicy", `{"ResourceArn":"`+authorityARN+`"}`), `500 InternalFailure: internal error; the server's log has its cause`},
		{"internal error", rpcCBOR, inCBOR(t, "acm-pca", operation+"DeletePolicy", `a1 "ResourceArn" "`+authorityARN+`"`), `500 InternalFailure: internal error; the server's log has its cause`},
		{"panic", rpcCBOR, inCBOR(t, "acm-pca", operation+"ListTags", `a1 "CertificateAuthorityArn" "`+authorityARN+`"`), `500 InternalFailure: internal error; the server's log has its cause`},
		{"of a proxy", rpcCBOR, with(inCBOR(t, "acm-pca", issue, `a0`), func(c *rpc) { c.creds = proxyCreds }), `400 AccessDeniedException: User: `},
	} {
		w := test.call.serve(t, newRPCMux(Config{Now: func() time.Time { return signedAt }}, func(in any) { t.Errorf("%s: the service was asked %v", test.name, in) }))
		code, message := readError(t, test.protocol, w)
		if got := fmt.Sprintf("%d %s: %s", w.Code, code, message); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: got %s\nwant %s", test.name, got, test.want)
		}
	}
}

// TestRPCLogsNoSecrets: at debug level, whatever fails.
func TestRPCLogsNoSecrets(t *testing.T) {
	var log bytes.Buffer
	mux := newRPCMux(Config{Now: func() time.Time { return signedAt }, Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))},
		func(in any) { panic(in) }) // the worst: a bug that holds the input in its hands
	const secret, secretInBase64 = "open sesame", "b3BlbiBzZXNhbWU="
	for _, body := range []string{
		`{"CertificateArn":"` + certificateARN + `","Passphrase":"` + secretInBase64 + `"}`,
		`{"CertificateArn":"` + certificateARN + `","Passphrase":"` + secret + `"}`,
		`{"CertificateArn":"` + certificateARN + `","Passphrase":["` + secretInBase64 + `"]}`,
		`{"CertificateArn":"x","Passphrase":"` + strings.Repeat(secretInBase64[:12], 20) + `"}`,
		`{"CertificateArn":"` + certificateARN + `","Passphrases":"` + secretInBase64 + `"}`,
	} {
		w := inJSON("acm", "CertificateManager.ExportCertificate", body).serve(t, mux)
		for _, shown := range []string{w.Body.String(), log.String()} {
			if w.Code == 200 || strings.Contains(shown, "sesame") || strings.Contains(shown, secretInBase64[:12]) || strings.Contains(shown, fmt.Sprintf("%x", secret)) {
				t.Errorf("%s: %d, shown: %s", body, w.Code, shown)
			}
		}
	}
}
