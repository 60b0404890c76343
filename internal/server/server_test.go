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
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	sdk "github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/smithy-go"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

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
	store       *store.Store
	service     *Service
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	dir := t.TempDir()
	return serveAPI(t, openStore(t, store.Config{DataDir: dir, UnsafeNoFsync: true}), dir)
}

func openStore(t *testing.T, config store.Config) *store.Store {
	t.Helper()
	config.Account = testAccount
	s, err := store.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// newReplicas are servers on one etcd, each with a store of its own.
func newReplicas(t *testing.T, n int) []*harness {
	t.Helper()
	endpoint := startEtcd(t)
	kek := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(kek, []byte(strings.Repeat("0f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	var all []*harness
	var first string // the folder of the credentials
	for range n {
		dir := t.TempDir()
		s := openStore(t, store.Config{DataDir: dir, Endpoints: []string{endpoint}, KEKFile: kek})
		if first == "" {
			first = dir
		}
		all = append(all, serveAPI(t, s, first))
	}
	return all
}

// startEtcd is an etcd that somebody else runs.
func startEtcd(t *testing.T) (endpoint string) {
	t.Helper()
	// The path of a socket has at most 108 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls, c.ListenPeerUrls, c.InitialCluster = []url.URL{peer}, nil, c.Name+"="+peer.String()
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	c.AdvertiseClientUrls, c.ListenClientUrls = []url.URL{client}, []url.URL{client}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync = 20, 100, true
	etcd, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		etcd.Server.HardStop() // Close alone waits for watches to end
		etcd.Close()
	})
	<-etcd.Server.ReadyNotify()
	return client.String()
}

// serveAPI serves a store's API. The credentials of the root key are in dir.
func serveAPI(t *testing.T, s *store.Store, dir string) *harness {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	service := &Service{Store: s, Region: testRegion, Now: time.Now, Log: log}
	mux := awsapi.NewMux(awsapi.Config{Keys: s, Region: testRegion, Account: testAccount, Log: log})
	awsapi.Mount[appmesh.Service](mux, appmesh.SigningName, service, appmesh.Operations)
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
	client := sdk.NewFromConfig(cfg, func(o *sdk.Options) {
		o.BaseEndpoint = aws.String(web.URL)
		o.Retryer = aws.NopRetryer{}
	})
	return &harness{url: web.URL, credentials: cfg.Credentials, client: client, store: s, service: service}
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
