package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	homeAccount  = "111122223333"
	otherAccount = "444455556666"
	allowAll     = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	denyAll      = `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`
	trustHome    = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + homeAccount + `"},"Action":"sts:AssumeRole"}}`
)

// plane is a whole API as a server has it.
type plane struct {
	*controlPlane
	url  string
	root aws.Credentials
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	c := &serverConfig{DataDir: t.TempDir(), AccountID: homeAccount, Region: "us-east-1", PKIURL: "http://127.0.0.1:1"}
	p := &controlPlane{config: c, log: slog.New(slog.NewTextHandler(t.Output(), nil)), metrics: prometheus.NewRegistry(), ops: &operations{}}
	var err error
	if p.store, err = store.Open(t.Context(), store.Config{DataDir: c.DataDir, Account: homeAccount, UnsafeNoFsync: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.store.Close)
	if p.tls, err = newServerTLS(c, p.log); err != nil {
		t.Fatal(err)
	}
	if p.listener.xds, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.listener.xds.Close() })
	if err := p.routes(t.Context()); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(p.api)
	t.Cleanup(web.Close)
	shared, err := config.LoadSharedConfigProfile(t.Context(), "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{c.DataDir + "/credentials"}, []string{}
	})
	if err != nil {
		t.Fatal(err)
	}
	return &plane{p, web.URL, shared.Credentials}
}

func (p *plane) entity(t *testing.T, e iam.Entity) {
	t.Helper()
	if _, err := p.store.EditEntity(t.Context(), e.Ref, func(*iam.Entity) (*iam.Entity, error) { return &e, nil }); err != nil {
		t.Fatal(err)
	}
}

// user makes a user with a key and policies that allow or deny everything.
func (p *plane) user(t *testing.T, account, name string, policies ...string) (iam.Key, aws.Credentials) {
	t.Helper()
	for policy, text := range map[string]string{"allow": allowAll, "deny": denyAll} {
		p.entity(t, iam.Entity{Ref: iam.Ref{Kind: iam.KindPolicy, Account: account, Name: policy}, Document: text})
	}
	p.entity(t, iam.Entity{Ref: iam.Ref{Kind: iam.KindUser, Account: account, Name: name}, Policies: policies})
	key, err := p.store.CreateUserKey(t.Context(), account, name)
	if err != nil {
		t.Fatal(err)
	}
	return key, credentialsOf(key, "")
}

func credentialsOf(key iam.Key, token string) aws.Credentials {
	return aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal(), SessionToken: token}
}

// operation is a call of the matrix.
type apiCall struct {
	service, name  string
	method, target string
	header         map[string]string
	body           string
	foreign        bool // it names a resource of the server's account, or is Fairlead's own
}

func (p *plane) send(t *testing.T, creds aws.Credentials, o apiCall) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), o.method, p.url+o.target, bytes.NewReader([]byte(o.body)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range o.header {
		r.Header.Set(name, value)
	}
	sum := sha256.Sum256([]byte(o.body))
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hex.EncodeToString(sum[:]), o.service, "us-east-1", time.Now(), func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = false
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

var member = regexp.MustCompile(`^\{(\w+)\}$`)

// callOf makes a call that names what its rule needs and is wrong otherwise.
func callOf[S any](t *testing.T, service, prefix string, op api.Operation[S]) apiCall {
	t.Helper()
	rule, known := iam.ResourceOf(service, op.Name)
	if !known {
		t.Fatalf("%s:%s has no rule in iam.ResourceOf", service, op.Name)
	}
	o := apiCall{service: service, name: op.Name, method: op.Method, target: regexp.MustCompile(`\{\w+\}`).ReplaceAllString(op.URI, "x")}
	arn := "arn:aws:" + service + ":us-east-1:" + homeAccount + ":x/00000000-0000-4000-8000-000000000000"
	named := member.FindStringSubmatch(rule)
	o.foreign = named != nil && op.Name != "ImportCertificate"
	switch {
	case prefix != "":
		o.method, o.target, o.header, o.body = http.MethodPost, "/", map[string]string{"X-Amz-Target": prefix + "." + op.Name, "Content-Type": "application/x-amz-json-1.1"}, "{}"
		if o.foreign {
			o.body = fmt.Sprintf(`{%q: %q}`, named[1], arn)
		}
	case named != nil:
		o.target += "?resourceArn=" + strings.ReplaceAll(arn, "/", "%2F")
	}
	return o
}

// onlyWithAWS are routes of a server with --acm aws, which this one is not; they
// pass the same place.
var onlyWithAWS = map[string]bool{"/fairlead/v1/acm-fetched": true, "/fairlead/v1/acm-events": true}

// everyCall is a call of every operation of every API, from the generated tables
// and from the routes of Fairlead's own.
func everyCall(t *testing.T) []apiCall {
	t.Helper()
	var all []apiCall
	for _, op := range appmesh.Operations {
		all = append(all, callOf(t, appmesh.SigningName, "", op))
	}
	for _, op := range acm.Operations {
		all = append(all, callOf(t, acm.SigningName, acm.TargetPrefix, op))
	}
	for _, op := range acmpca.Operations {
		all = append(all, callOf(t, acmpca.SigningName, acmpca.TargetPrefix, op))
	}
	for _, row := range tableRows(readPage(t, "reference/operator-api.md")) { // TestOperatorReference holds it to the routes
		if method, path, ok := strings.Cut(strings.Trim(row[0], "`"), " "); ok && strings.HasPrefix(path, "/fairlead/v1/") && !onlyWithAWS[path] {
			path = regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x")
			all = append(all, apiCall{service: "fairlead", name: strings.TrimPrefix(strings.Trim(row[1], "`"), "fairlead:"), method: method, target: path, foreign: true})
		}
	}
	return append(all, apiCall{service: "sts", name: "AssumeRole", method: "POST", target: "/", foreign: true, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		body: "Action=AssumeRole&Version=2011-06-15&RoleSessionName=ci&RoleArn=arn:aws:iam::" + homeAccount + ":role/deploy"})
}

// TestMatrix: every operation of every API as everybody.
func TestMatrix(t *testing.T) {
	p := newPlane(t)
	p.entity(t, iam.Entity{Ref: iam.Ref{Kind: iam.KindRole, Account: homeAccount, Name: "deploy"}, Trust: trustHome, MaxSession: 3600, Policies: nil})
	allowedKey, allowed := p.user(t, homeAccount, "allowed", "allow")
	_, denied := p.user(t, homeAccount, "denied", "allow", "deny")
	_, nobody := p.user(t, homeAccount, "nobody")
	_, other := p.user(t, otherAccount, "other", "allow")
	disabledKey, disabled := p.user(t, homeAccount, "disabled", "allow")
	if _, err := p.store.EditEntity(t.Context(), iam.Ref{Kind: iam.KindUser, Account: homeAccount, Name: "disabled"}, func(e *iam.Entity) (*iam.Entity, error) {
		e.Keys[0].Disabled = e.HasKey(disabledKey.ID)
		return e, nil
	}); err != nil {
		t.Fatal(err)
	}
	session, token, err := p.store.CreateSession(t.Context(), allowedKey.ID, time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	proxyKey, err := p.store.CreateProxyKey(t.Context(), homeAccount, "mesh/m/virtualNode/n")
	if err != nil {
		t.Fatal(err)
	}
	calls := everyCall(t)
	if len(calls) < 38+40+23+7+1 {
		t.Errorf("%d operations only", len(calls))
	}
	for _, call := range calls {
		action := call.service + ":" + call.name
		for _, caller := range []struct {
			name   string
			creds  aws.Credentials
			reason string // of the refusal; empty: it is not refused
		}{
			{"root", p.root, ""},
			{"allowed", allowed, ""},
			{"denied", denied, action + " on resource: … with an explicit deny in an identity-based policy"},
			{"no policy", nobody, action + " on resource: … because no identity-based policy allows the " + action + " action"},
			{"other account", other, map[bool]string{true: action + " on resource: … because no resource-based policy allows the " + action + " action"}[call.foreign]},
			{"proxy", credentialsOf(proxyKey, ""), action + " because the key of a proxy"},
			{"expired session", credentialsOf(session, token), "The security token included in the request is expired"},
			{"disabled key", disabled, "The security token included in the request is invalid"},
		} {
			status, body := p.send(t, caller.creds, call)
			refused := status == http.StatusForbidden || strings.Contains(body, "is not authorized to perform") || strings.Contains(body, "security token")
			before, after, _ := strings.Cut(caller.reason, "…")
			right := strings.Contains(body, before) && strings.Contains(body, after)
			if refused != (caller.reason != "") || !right {
				t.Errorf("%s as %s: %d %s", action, caller.name, status, body)
			}
		}
	}
	t.Logf("%d operations as 8 callers", len(calls))
}
