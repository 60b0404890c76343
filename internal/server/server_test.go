package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/smithy-go"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
	"github.com/fairlead/fairlead/internal/xds"
)

const (
	testAccount = "123456789012"
	testRegion  = "eu-west-1"
)

// harness is the API over a real store and real HTTP.
type harness struct {
	url         string
	credentials aws.CredentialsProvider
	client      *sdk.Client
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{DataDir: dir, Account: testAccount, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	mux := awsapi.NewMux(awsapi.Config{Keys: s, Region: testRegion, Log: log})
	awsapi.Mount[appmesh.Service](mux, appmesh.SigningName, &Service{Store: s, Region: testRegion, Now: time.Now, Log: log}, appmesh.Operations)
	proxies, err := xds.NewServer(xds.Config{Source: s, TLS: &tls.Config{}, Log: log,
		Authenticate: func(context.Context, string) (iam.Principal, error) { return iam.Principal{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	(&Operator{Store: s, Account: testAccount, Proxies: proxies, Now: time.Now, Log: log}).Mount(mux)
	web := httptest.NewServer(WithWarnings(mux))
	t.Cleanup(web.Close)
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion(testRegion), config.WithSharedConfigFiles(nil),
		config.WithSharedCredentialsFiles([]string{filepath.Join(dir, "credentials")}), config.WithSharedConfigProfile("default"))
	if err != nil {
		t.Fatal(err)
	}
	return &harness{url: web.URL, credentials: cfg.Credentials, client: sdk.NewFromConfig(cfg, func(o *sdk.Options) {
		o.BaseEndpoint = aws.String(web.URL)
		o.Retryer = aws.NopRetryer{}
	})}
}

// answer is what a raw request got.
type answer struct {
	status int
	code   string // x-amzn-ErrorType
	body   string
	header http.Header
}

// send signs and sends a request, which change may spoil after it was signed.
func (h *harness) send(t *testing.T, method, path, body string, change func(*http.Request)) answer {
	t.Helper()
	return h.sendTo(t, "appmesh", method, path, body, change)
}

func (h *harness) sendTo(t *testing.T, service, method, path, body string, change func(*http.Request)) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	sum := sha256.Sum256([]byte(body))
	credentials, err := h.credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hex.EncodeToString(sum[:]), service, testRegion, time.Now()); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header.Get("X-Amzn-Errortype"), string(content), response.Header}
}

// must sends a request that has to succeed.
func (h *harness) must(t *testing.T, method, path, body string) answer {
	t.Helper()
	a := h.send(t, method, path, body, nil)
	if a.status != http.StatusOK {
		t.Fatalf("%s %s %s: %d %s", method, path, body, a.status, a.body)
	}
	return a
}

// exception is the code and the message of an SDK error.
func exception(err error) (code, message string) {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode(), e.ErrorMessage()
	}
	if err != nil {
		return "?", err.Error()
	}
	return "", ""
}
