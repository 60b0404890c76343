package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	stssdk "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/server"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	account = "123456789012"
	region  = "us-east-1"
	venv    = "../../.tools/venv/bin/"
)

// meshes answers the one operation that the tests call; the others panic.
type meshes struct{ appmesh.Service }

func (meshes) ListMeshes(ctx context.Context, _ *appmesh.ListMeshesInput) (*appmesh.ListMeshesOutput, error) {
	p := awsapi.PrincipalFrom(ctx)
	return &appmesh.ListMeshesOutput{Meshes: []appmesh.MeshRef{}, NextToken: aws.String(p.ARN())}, nil
}

// scene is STS beside App Mesh, on a real store.
type scene struct {
	url   string
	store *store.Store
	root  aws.Credentials
	proxy aws.Credentials
	ahead atomic.Int64 // how far the server's clock is ahead of ours
}

func (s *scene) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{}
	dir := t.TempDir()
	var err error
	if s.store, err = store.Open(t.Context(), store.Config{DataDir: dir, Account: account}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.store.Close)
	shared, err := config.LoadSharedConfigProfile(t.Context(), "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{dir + "/credentials"}, []string{}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.root = shared.Credentials
	key, err := s.store.CreateProxyKey(t.Context(), account, "mesh/m/virtualNode/n")
	if err != nil {
		t.Fatal(err)
	}
	s.proxy = aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
	mux := awsapi.NewMux(awsapi.Config{Keys: s.store, Region: region, Account: account, Now: s.now})
	(&server.STS{Store: s.store, Now: s.now}).Mount(mux)
	awsapi.Mount[appmesh.Service](mux, appmesh.SigningName, meshes{}, appmesh.Operations)
	web := httptest.NewUnstartedServer(nil)
	web.Config = awsapi.NewServer(mux, nil)
	web.Start()
	t.Cleanup(web.Close)
	s.url = web.URL
	return s
}

// list calls App Mesh with credentials and returns who the server says they
// are, or the code of the refusal.
func (s *scene) list(t *testing.T, creds aws.Credentials) string {
	t.Helper()
	client := sdk.New(sdk.Options{BaseEndpoint: &s.url, Region: region, RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: creds}})
	out, err := client.ListMeshes(t.Context(), nil)
	if refused, ok := errors.AsType[smithy.APIError](err); ok {
		return refused.ErrorCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return *out.NextToken
}

// aws runs the AWS CLI and returns the fields of its text output, or what it says.
func (s *scene) aws(t *testing.T, creds aws.Credentials, arguments ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), venv+"aws", append(arguments, "--output", "text")...)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+s.url, "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region, "AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_ACCESS_KEY_ID="+creds.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+creds.SecretAccessKey, "AWS_MAX_ATTEMPTS=1")
	if creds.SessionToken != "" {
		cmd.Env = append(cmd.Env, "AWS_SESSION_TOKEN="+creds.SessionToken)
	}
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("aws CLI (make tools installs it): %v", err)
	}
	return strings.Fields(string(out))
}

// session gets credentials by the AWS CLI.
func (s *scene) session(t *testing.T, more ...string) (creds aws.Credentials, expires time.Time) {
	t.Helper()
	fields := s.aws(t, s.root, append([]string{"sts", "get-session-token", "--query", "Credentials.[AccessKeyId,SecretAccessKey,SessionToken,Expiration]"}, more...)...)
	if len(fields) != 4 {
		t.Fatalf("get-session-token: %q", fields)
	}
	expires, err := time.Parse(time.RFC3339, fields[3])
	if err != nil {
		t.Fatal(err)
	}
	return aws.Credentials{AccessKeyID: fields[0], SecretAccessKey: fields[1], SessionToken: fields[2]}, expires
}

const rootARN = "arn:aws:iam::" + account + ":root"

// TestCLI: what people and Terraform do first, with every sort of key.
func TestCLI(t *testing.T) {
	s := newScene(t)
	identity := []string{"sts", "get-caller-identity", "--query", "[Account,Arn,UserId]"}
	session, expires := s.session(t)
	if left := time.Until(expires); left > time.Hour || left < 59*time.Minute {
		t.Errorf("a session of the root key is good for %s, want the hour that AWS gives it", left)
	}
	if !strings.HasPrefix(session.AccessKeyID, "ASIA") || len(session.AccessKeyID) != 20 || len(session.SecretAccessKey) != 40 {
		t.Errorf("credentials %s with a secret of %d characters", session.AccessKeyID, len(session.SecretAccessKey))
	}
	for _, test := range []struct {
		name  string
		creds aws.Credentials
		call  []string
		want  string
	}{
		{"the root key", s.root, identity, account + " " + rootARN + " " + account},
		{"a session", session, identity, account + " " + rootARN + " " + account},
		{"a proxy", s.proxy, identity, account + " arn:aws:iam::" + account + ":user/proxy/mesh/m/virtualNode/n " + s.proxy.AccessKeyID},
		{"App Mesh by a session", session, []string{"appmesh", "list-meshes", "--no-paginate", "--query", "nextToken"}, rootARN},

		{"a session for a session", session, []string{"sts", "get-session-token"}, "(AccessDenied) when calling the GetSessionToken operation: Cannot call GetSessionToken with session credentials"},
		{"a session for a proxy", s.proxy, []string{"sts", "get-session-token"}, "(AccessDenied) when calling the GetSessionToken operation: User: arn:aws:iam::" + account + ":user/proxy/mesh/m/virtualNode/n is not authorized to perform: sts:GetSessionToken"},
		{"MFA", s.root, []string{"sts", "get-session-token", "--serial-number", "arn:aws:iam::1:mfa/x", "--token-code", "123456"}, "(AccessDenied) when calling the GetSessionToken operation: MultiFactorAuthentication failed"},
		{"an action that is not there", s.root, []string{"sts", "get-access-key-info", "--access-key-id", s.root.AccessKeyID}, "(InvalidAction) when calling the GetAccessKeyInfo operation: Could not find operation GetAccessKeyInfo for version 2011-06-15"},
		{"a wrong secret", aws.Credentials{AccessKeyID: s.root.AccessKeyID, SecretAccessKey: "x"}, identity, "(SignatureDoesNotMatch) when calling the GetCallerIdentity operation: The request signature we calculated"},
		{"an unknown key", aws.Credentials{AccessKeyID: "AKIAAAAAAAAAAAAAAAAA", SecretAccessKey: "x"}, identity, "(InvalidClientTokenId) when calling the GetCallerIdentity operation: The security token included in the request is invalid."},
		{"a service that is not there", s.root, []string{"servicediscovery", "list-namespaces"}, "(UnknownOperationException) when calling the ListNamespaces operation: servicediscovery:ListNamespaces is not there"},
	} {
		if got := strings.Join(s.aws(t, test.creds, test.call...), " "); !strings.Contains(got, test.want) {
			t.Errorf("%s: got %s\nwant %s", test.name, got, test.want)
		}
	}
}

// TestSessionCredentials: they are good for what their key is, until they
// expire, and in no other combination.
func TestSessionCredentials(t *testing.T) {
	s := newScene(t)
	session, _ := s.session(t, "--duration-seconds", "900")
	other, _ := s.session(t)
	mixed := func(id, secret, token string) aws.Credentials {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}
	}
	for _, test := range []struct {
		name  string
		creds aws.Credentials
		want  string
	}{
		{"as given", session, rootARN},
		{"without the token", mixed(session.AccessKeyID, session.SecretAccessKey, ""), "UnrecognizedClientException"},
		{"with the token of another", mixed(session.AccessKeyID, session.SecretAccessKey, other.SessionToken), "UnrecognizedClientException"},
		{"with the secret of another", mixed(session.AccessKeyID, other.SecretAccessKey, session.SessionToken), "InvalidSignatureException"},
		{"with the secret of its key", mixed(session.AccessKeyID, s.root.SecretAccessKey, session.SessionToken), "InvalidSignatureException"},
		{"the token with the root key", mixed(s.root.AccessKeyID, s.root.SecretAccessKey, session.SessionToken), "UnrecognizedClientException"},
		{"cut short", mixed(session.AccessKeyID, session.SecretAccessKey, session.SessionToken[:100]), "UnrecognizedClientException"},
	} {
		if got := s.list(t, test.creds); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
	// The SDK's clock is ours, and the server's runs ahead: a signature of
	// five minutes ago is still good, so the session can be seen to end.
	s.ahead.Store(int64(4 * time.Minute))
	short, expires := s.session(t, "--duration-seconds", "900")
	if left := time.Until(expires); left < 18*time.Minute {
		t.Errorf("expires in %s by our clock", left)
	}
	key, token, err := s.store.CreateSession(t.Context(), s.root.AccessKeyID, s.now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.list(t, mixed(key.ID, key.Secret.Reveal(), token)); got != "ExpiredTokenException" {
		t.Errorf("an expired session: %s", got)
	}
	if got := s.list(t, mixed(key.ID, "x", token)); got != "InvalidSignatureException" {
		t.Errorf("an expired session and a wrong secret: %s", got)
	}
	if got := strings.Join(s.aws(t, mixed(key.ID, key.Secret.Reveal(), token), "sts", "get-caller-identity"), " "); !strings.Contains(got, "(ExpiredToken) when calling the GetCallerIdentity operation: The security token included in the request is expired") {
		t.Errorf("an expired session asks who it is: %s", got)
	}
	if got := s.list(t, short); got != rootARN {
		t.Errorf("a session that is good: %s", got)
	}
}

// boto is what a script and Terraform's Go SDK do besides: presigned calls.
const boto = `
import sys, urllib.request, urllib.error, boto3
url, key, secret = sys.argv[1:]
sts = boto3.client("sts", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret)
print(sts.get_caller_identity()["Arn"], len(sts.get_caller_identity()["ResponseMetadata"]["RequestId"]))
c = sts.get_session_token(DurationSeconds=1000)["Credentials"]
session = boto3.Session(c["AccessKeyId"], c["SecretAccessKey"], c["SessionToken"], region_name="us-east-1")
print(session.client("appmesh", endpoint_url=url).list_meshes()["nextToken"])
sts = session.client("sts", endpoint_url=url)
with urllib.request.urlopen(sts.generate_presigned_url("get_caller_identity", HttpMethod="GET")) as a:
    print(a.headers["Content-Type"], "<Account>123456789012</Account>" in a.read().decode())
mesh = session.client("appmesh", endpoint_url=url).generate_presigned_url("list_meshes")
print(urllib.request.urlopen(mesh).status)
try:
    urllib.request.urlopen(mesh.replace("X-Amz-Security-Token=", "X-Amz-Security-Token=x"))
except urllib.error.HTTPError as e:
    print(e.code, e.headers["x-amzn-ErrorType"])
`

func TestBoto3(t *testing.T) {
	s := newScene(t)
	cmd := exec.CommandContext(t.Context(), venv+"python", "-c", boto, s.url, s.root.AccessKeyID, s.root.SecretAccessKey)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("boto3 (make tools installs it): %v\n%s", err, out)
	}
	if want := rootARN + " 36\n" + rootARN + "\ntext/xml True\n200\n403 UnrecognizedClientException\n"; string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// TestGoSDK: what Terraform does when it starts.
func TestGoSDK(t *testing.T) {
	s := newScene(t)
	client := func(creds aws.Credentials) *stssdk.Client {
		return stssdk.New(stssdk.Options{BaseEndpoint: &s.url, Region: region, RetryMaxAttempts: 1, Credentials: credentials.StaticCredentialsProvider{Value: creds}})
	}
	identity, err := client(s.root).GetCallerIdentity(t.Context(), nil)
	if err != nil || *identity.Arn != rootARN || *identity.Account != account || *identity.UserId != account {
		t.Errorf("GetCallerIdentity: %+v, %v", identity, err)
	}
	session, err := client(s.root).GetSessionToken(t.Context(), &stssdk.GetSessionTokenInput{DurationSeconds: aws.Int32(900)})
	if err != nil {
		t.Fatal(err)
	}
	c := session.Credentials
	if left := time.Until(*c.Expiration); left > 15*time.Minute || left < 14*time.Minute {
		t.Errorf("expires in %s", left)
	}
	creds := aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken}
	if got := s.list(t, creds); got != rootARN {
		t.Errorf("App Mesh by the session: %s", got)
	}
	_, err = client(creds).GetSessionToken(t.Context(), nil)
	if refused, ok := errors.AsType[smithy.APIError](err); !ok || refused.ErrorCode() != "AccessDenied" {
		t.Errorf("a session by a session: %v", err)
	}
	// A clock that is wrong is corrected by the answer's Date, in XML too.
	s.ahead.Store(int64(20 * time.Minute))
	retrying := stssdk.New(stssdk.Options{BaseEndpoint: &s.url, Region: region, RetryMaxAttempts: 3, Credentials: credentials.StaticCredentialsProvider{Value: s.root}})
	if _, err := retrying.GetCallerIdentity(t.Context(), nil); err != nil {
		t.Errorf("a client 20 minutes behind: %v", err)
	}
}

// TestForms: requests that no SDK sends are refused in XML.
func TestForms(t *testing.T) {
	s := newScene(t)
	const identity, token = "Action=GetCallerIdentity&Version=2011-06-15", "Action=GetSessionToken&Version=2011-06-15"
	for _, test := range []struct {
		name, method, target, body, service string
		status                              int
		want                                string
	}{
		{"in the form", "POST", "/", identity, "sts", 200, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>` + rootARN + `</Arn><UserId>` + account + `</UserId><Account>` + account + `</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>`},
		{"in the query", "GET", "/?" + identity, "", "sts", 200, "<GetCallerIdentityResult>"},
		{"escaped", "POST", "/", "Action=Get%43allerIdentity&Version=2011-06-15", "sts", 200, "<GetCallerIdentityResult>"},
		{"900 seconds", "POST", "/", token + "&DurationSeconds=900", "sts", 200, "<Expiration>"},
		{"899 seconds", "POST", "/", token + "&DurationSeconds=899", "sts", 400, `<Error><Type>Sender</Type><Code>ValidationError</Code><Message>DurationSeconds must be a number from 900 to 129600, not &#34;899&#34;</Message></Error>`},
		{"129600 seconds", "POST", "/", token + "&DurationSeconds=129600", "sts", 200, "<Expiration>"},
		{"129601 seconds", "POST", "/", token + "&DurationSeconds=129601", "sts", 400, "<Code>ValidationError</Code>"},
		{"no number", "POST", "/", token + "&DurationSeconds=1e3", "sts", 400, "<Code>ValidationError</Code>"},
		{"empty number", "POST", "/", token + "&DurationSeconds=", "sts", 400, "<Code>ValidationError</Code>"},
		{"both", "POST", "/?" + identity, identity, "sts", 400, "in the form or in the query, not in both"},
		{"twice", "POST", "/", identity + "&Action=GetSessionToken", "sts", 400, "Action is given twice"},
		{"unknown parameter", "POST", "/", identity + "&Extra=%3Cx%3E", "sts", 400, "Extra is not a known parameter of GetCallerIdentity"},
		{"unknown action", "POST", "/", "Action=AssumeRoleWithSAML&Version=2011-06-15", "sts", 400, "<Code>InvalidAction</Code><Message>Could not find operation AssumeRoleWithSAML for version 2011-06-15</Message>"},
		{"no action", "POST", "/", "Version=2011-06-15", "sts", 400, "<Code>InvalidAction</Code>"},
		{"another version", "POST", "/", "Action=GetCallerIdentity&Version=2010-05-08", "sts", 400, "<Code>InvalidAction</Code>"},
		{"not UTF-8", "POST", "/", identity + "&%ff=x", "sts", 400, "is not UTF-8 text"},
		{"control characters", "POST", "/", identity + "&%01=x", "sts", 400, "<Code>ValidationError</Code>"},
		{"broken escape", "POST", "/", identity + "&x=%2", "sts", 400, "the form cannot be read"},
		{"empty", "POST", "/", "", "sts", 400, "<Code>InvalidAction</Code>"},
		{"10,000 parameters", "POST", "/", identity + strings.Repeat("&a=b", 10_000), "sts", 400, "it has more than 100 parameters"},
		{"signed for App Mesh", "POST", "/", identity, "appmesh", 403, "<Code>SignatureDoesNotMatch</Code><Message>Credential should be scoped to correct service: &#39;sts&#39;.</Message>"},
		{"another method", "PUT", "/?" + identity, "", "sts", 405, "<Code>MethodNotAllowed</Code>"},
		{"unsigned", "POST", "/", identity, "", 403, "<Code>MissingAuthenticationToken</Code>"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, s.url+test.target, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		if test.service != "" {
			sum := sha256.Sum256([]byte(test.body))
			if err := v4.NewSigner().SignHTTP(t.Context(), s.root, r, hex.EncodeToString(sum[:]), test.service, region, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		var parsed struct{ XMLName xml.Name }
		if err != nil || xml.Unmarshal(body, &parsed) != nil || answer.Header.Get("Content-Type") != "text/xml" {
			t.Errorf("%s: %v, no XML: %s", test.name, err, body)
		}
		if id := answer.Header.Get("x-amzn-RequestId"); len(id) != 36 || !strings.Contains(string(body), "<RequestId>"+id+"</RequestId>") {
			t.Errorf("%s: the id of the request is %q: %s", test.name, id, body)
		}
		if answer.StatusCode != test.status || !strings.Contains(string(body), test.want) {
			t.Errorf("%s: got %d %s\nwant %d %s", test.name, answer.StatusCode, body, test.status, test.want)
		}
	}
}
