package awsapi

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/go-json-experiment/json"
)

// rpc is a request of a protocol other than App Mesh's.
type rpc struct {
	creds   aws.Credentials // zero: unsigned
	service string
	method  string // empty: POST
	target  string // path and query
	header  http.Header
	body    string
}

func (c rpc) serve(t *testing.T, handler http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	if c.method == "" {
		c.method = http.MethodPost
	}
	r := httptest.NewRequestWithContext(t.Context(), c.method, c.target, strings.NewReader(c.body))
	r.Host = "127.0.0.1:9480"
	for name, values := range c.header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	if c.creds.AccessKeyID != "" {
		r.URL = &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		if err := v4.NewSigner().SignHTTP(context.Background(), c.creds, r, hashOf([]byte(c.body)), c.service, testRegion, signedAt); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// readError reads an error as a client of the protocol does.
func readError(t *testing.T, p protocol, w *httptest.ResponseRecorder) (code, message string) {
	t.Helper()
	switch p {
	case rpcCBOR:
		v, err := cbor.Decode(w.Body.Bytes())
		m, ok := v.(cbor.Map)
		if err != nil || !ok || len(m) != 2 || w.Header().Get("Smithy-Protocol") != "rpc-v2-cbor" || w.Header().Get("Content-Type") != "application/cbor" {
			t.Errorf("no answer in CBOR: %v %v %q", err, w.Header(), w.Body)
			return "", ""
		}
		return string(m["__type"].(cbor.String)), string(m["message"].(cbor.String))
	case formQuery:
		var e queryFault
		if err := xml.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Header().Get("Content-Type") != "text/xml" || e.RequestID != w.Header().Get("X-Amzn-Requestid") {
			t.Errorf("no answer in XML: %v %v %s", err, w.Header(), w.Body)
		}
		return e.Code, e.Message
	}
	var e errorBody
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Header().Get("Content-Type") != map[protocol]string{jsonRPC: "application/x-amz-json-1.1", restJSON: "application/json"}[p] {
		t.Errorf("no answer in JSON: %v %v %s", err, w.Header(), w.Body)
	}
	return e.Type, e.Message
}

// TestEveryErrorInItsProtocol: whatever is wrong, before and after the
// operation is known, each client reads it.
func TestEveryErrorInItsProtocol(t *testing.T) {
	asJSON := func(target string) http.Header {
		return http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target}}
	}
	asCBOR := http.Header{"Content-Type": {"application/cbor"}, "Smithy-Protocol": {"rpc-v2-cbor"}, "Accept": {"application/cbor"}}
	asForm := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	wrong := aws.Credentials{AccessKeyID: rootCreds.AccessKeyID, SecretAccessKey: "x"}
	nobody := aws.Credentials{AccessKeyID: "FLNOBODY", SecretAccessKey: "x"}
	broken := aws.Credentials{AccessKeyID: "FLBROKEN", SecretAccessKey: "x"}
	const discovery, identity = "/service/Route53AutoNaming_v20170314/operation/ListNamespaces", "Action=GetCallerIdentity&Version=2011-06-15"
	large := strings.Repeat("x", MaxBody+1)
	for _, test := range []struct {
		name     string
		protocol protocol
		call     rpc
		want     string
	}{
		{"absent service", jsonRPC, rpc{rootCreds, "servicediscovery", "", "/", asJSON("Route53AutoNaming_v20170314.ListNamespaces"), "{}"}, "400 UnknownOperationException: servicediscovery:ListNamespaces is not there"},
		{"absent service", rpcCBOR, rpc{rootCreds, "servicediscovery", "", discovery, asCBOR, "\xa0"}, "400 UnknownOperationException: servicediscovery:ListNamespaces is not there: this server does not have the service servicediscovery"},
		{"behind a prefix", rpcCBOR, rpc{rootCreds, "servicediscovery", "", "/prefix" + discovery, asCBOR, "\xa0"}, "400 UnknownOperationException: servicediscovery:ListNamespaces is not there"},
		{"another scope", jsonRPC, rpc{rootCreds, "appmesh", "", "/", asJSON("Route53AutoNaming_v20170314.ListCertificates"), "{}"}, "400 InvalidSignatureException: Credential should be scoped to correct service: 'servicediscovery'."},
		{"another scope", rpcCBOR, rpc{rootCreds, "appmesh", "", discovery, asCBOR, "\xa0"}, "400 InvalidSignatureException: Credential should be scoped to correct service: 'servicediscovery'."},
		{"another scope", formQuery, rpc{rootCreds, "appmesh", "", "/", asForm, identity}, "403 SignatureDoesNotMatch: Credential should be scoped to correct service: 'sts'."},
		{"no such service", jsonRPC, rpc{rootCreds, "dynamodb", "", "/", asJSON("DynamoDB_20120810.ListTables"), "{}"}, `400 UnknownOperationException: no service has the target "DynamoDB_20120810.ListTables"`},
		{"a target at the path of another", jsonRPC, rpc{rootCreds, "appmesh", "PUT", "/v20190125/meshes", asJSON("CertificateManager.ListCertificates"), "{}"}, "400 UnknownOperationException: an operation is called by POST"},
		{"by GET", jsonRPC, rpc{rootCreds, "acm", "GET", "/", asJSON("CertificateManager.ListCertificates"), ""}, "400 UnknownOperationException: an operation is called by POST"},
		{"no target", jsonRPC, rpc{rootCreds, "acm", "", "/", asJSON(""), "{}"}, "400 UnknownOperationException: an operation is called by POST"},
		{"odd target", jsonRPC, rpc{rootCreds, "servicediscovery", "", "/", asJSON("Route53AutoNaming_v20170314.a b"), "{}"}, "400 UnknownOperationException: an operation is called by POST"},
		{"App Mesh in CBOR", rpcCBOR, rpc{rootCreds, "appmesh", "PUT", "/v20190125/meshes", asCBOR, "\xa0"}, "400 UnknownOperationException: an operation is called by POST"},

		{"unsigned", restJSON, rpc{target: "/v20190125/meshes"}, "403 MissingAuthenticationTokenException: Missing Authentication Token"},
		{"unsigned", jsonRPC, rpc{target: "/", header: asJSON("CertificateManager.ListCertificates")}, "400 MissingAuthenticationTokenException: Missing Authentication Token"},
		{"unsigned", rpcCBOR, rpc{target: discovery, header: asCBOR}, "400 MissingAuthenticationTokenException: Missing Authentication Token"},
		{"unsigned", formQuery, rpc{target: "/", header: asForm, body: identity}, "403 MissingAuthenticationToken: Missing Authentication Token"},
		{"wrong secret", rpcCBOR, rpc{wrong, "servicediscovery", "", discovery, asCBOR, "\xa0"}, "400 InvalidSignatureException: The request signature we calculated"},
		{"unknown key", jsonRPC, rpc{nobody, "servicediscovery", "", "/", asJSON("Route53AutoNaming_v20170314.ListCertificates"), "{}"}, "400 UnrecognizedClientException: The security token"},
		{"store away", rpcCBOR, rpc{broken, "servicediscovery", "", discovery, asCBOR, "\xa0"}, "503 ServiceUnavailableException: access keys cannot be looked up now"},
		{"store away", formQuery, rpc{broken, "sts", "", "/", asForm, identity}, "503 ServiceUnavailable: access keys cannot be looked up now"},
		{"too large", jsonRPC, rpc{rootCreds, "servicediscovery", "", "/", asJSON("Route53AutoNaming_v20170314.ImportCertificate"), large}, "400 RequestEntityTooLargeException: the request body is larger than 4194304 bytes"},
		{"too large", rpcCBOR, rpc{rootCreds, "servicediscovery", "", discovery, asCBOR, large}, "400 RequestEntityTooLargeException: the request body is larger"},
		{"too large", formQuery, rpc{rootCreds, "sts", "", "/", asForm, large}, "413 RequestEntityTooLarge: the request body is larger"},
		{"a long name", rpcCBOR, rpc{rootCreds, "servicediscovery", "", "/service/" + strings.Repeat("x", 128) + "/operation/" + strings.Repeat("y", 128), asCBOR, "\xa0"}, `400 UnknownOperationException: no service has the target "xxxx`},
		{"panic", formQuery, rpc{rootCreds, "sts", "", "/", asForm, identity + "&Marker=panic"}, "500 InternalFailure: internal error"},
		{"panic", restJSON, rpc{rootCreds, "appmesh", "DELETE", "/v20190125/meshes/m", nil, ""}, "500 InternalServerErrorException: internal error"},
		{"a form in JSON", formQuery, rpc{rootCreds, "sts", "POST", "/?Action=x", http.Header{"Content-Type": {"application/json"}}, "{}"}, "400 ValidationError: parameters are in the form or in the query, not in both"},
		{"a JSON media type", formQuery, rpc{rootCreds, "sts", "GET", "/?" + identity, http.Header{"Content-Type": {"application/json"}}, "{}"}, "415 UnsupportedMediaType: content-type"},
	} {
		w := test.call.serve(t, newTestMux(Config{Now: func() time.Time { return signedAt }}))
		code, message := readError(t, test.protocol, w)
		if got := fmt.Sprintf("%d %s: %s", w.Code, code, message); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: got %s\nwant %s", test.name, got, test.want)
		}
		if w.Header().Get("X-Amzn-Errortype") != code || len(w.Header().Get("X-Amzn-Requestid")) != 36 {
			t.Errorf("%s: headers %v", test.name, w.Header())
		}
	}
}

// TestPreviewScope: clients of the preview channel reach the same operations,
// and no others.
func TestPreviewScope(t *testing.T) {
	mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
	if w := (rpc{creds: rootCreds, service: "appmesh-preview", method: "GET", target: "/v20190125/meshes"}).serve(t, mux); w.Code != http.StatusOK {
		t.Errorf("App Mesh: %d %s", w.Code, w.Body)
	}
	if w := (rpc{creds: rootCreds, service: "appmesh-preview", method: "GET", target: "/fairlead/v1/widgets/a"}).serve(t, mux); w.Code != http.StatusForbidden {
		t.Errorf("the operator API: %d %s", w.Code, w.Body)
	}
}

// TestSessionKeys: with its token a session's key is good until its last
// moment; no signature comes without its token, no token with another key.
func TestSessionKeys(t *testing.T) {
	with := func(id, token string) aws.Credentials {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: sessionCreds.SecretAccessKey, SessionToken: token}
	}
	for _, test := range []struct {
		name  string
		creds aws.Credentials
		at    time.Time
		want  string
	}{
		{"good", sessionCreds, signedAt, ""},
		{"in its last moment", sessionCreds, sessionEnds.Add(-time.Nanosecond), ""},
		{"at its end", sessionCreds, sessionEnds, codeExpired},
		{"afterwards", sessionCreds, sessionEnds.Add(time.Minute), codeExpired},
		{"no token", with(sessionCreds.AccessKeyID, ""), signedAt, codeUnknownClient},
		{"another token", with(sessionCreds.AccessKeyID, "x"), signedAt, codeUnknownClient},
		{"another key", with(rootCreds.AccessKeyID, sessionCreds.SessionToken), signedAt, codeUnknownClient},
	} {
		mux := newTestMux(Config{Now: func() time.Time { return test.at }})
		if a := messageBy(t, test.creds, "GET /v20190125/meshes", "").send(t, mux); a.code != test.want || test.want == codeExpired && a.status != http.StatusForbidden {
			t.Errorf("%s: got %d %s, want %s", test.name, a.status, a.code, test.want)
		}
	}
	m := messageBy(t, sessionCreds, "GET /v20190125/meshes", "")
	m.swap("Authorization", ";x-amz-security-token", "")
	if a := m.send(t, atSigning(nil)); a.code != codeBadSignature || a.message != "'x-amz-security-token' must be a 'SignedHeader' in the AWS Authorization." {
		t.Errorf("an unsigned token: %d %s %s", a.status, a.code, a.message)
	}
}

// asCBOR makes botocore speak CBOR, as later versions may by themselves.
const botoCBOR = `
import sys, botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:]
session = botocore.session.get_session()
loader = session.get_component("data_loader")
load = loader.load_service_model
def forced(*args, **kwargs):
    model = load(*args, **kwargs)
    if "metadata" in model:
        model["metadata"].update(protocol="smithy-rpc-v2-cbor", protocols=["smithy-rpc-v2-cbor"])
    return model
loader.load_service_model = forced
for s in [secret, "wrong"]:
    c = session.create_client("acm-pca", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=s,
                              config=Config(retries={"total_max_attempts": 1}))
    try:
        c.get_policy(ResourceArn="arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/x")
    except ClientError as e:
        print(type(e).__name__, e.response["ResponseMetadata"]["HTTPHeaders"]["content-type"], e.response["Error"]["Code"])
`

// TestBoto3InCBOR: a client that speaks CBOR reads our errors.
func TestBoto3InCBOR(t *testing.T) {
	server := serveTest(t, Config{})
	cmd := exec.CommandContext(t.Context(), venv+"python", "-c", botoCBOR, server.URL, rootCreds.AccessKeyID, rootCreds.SecretAccessKey)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("botocore (make tools installs it): %v\n%s", err, out)
	}
	if want := "ClientError application/cbor UnknownOperationException\nClientError application/cbor InvalidSignatureException\n"; string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}
