package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

// control is a server for one proxy, on a Unix socket: the engine of package
// xds, with configurations made by hand.
type control struct {
	t      *testing.T
	socket string
	server *grpc.Server

	mu       sync.Mutex
	feed     *xds.Feed
	streams  int
	node     *corev3.Node // of the newest stream
	acked    map[string]string
	rejected map[string]string // Envoy's message, by type and name
	settled  *envoy.Config
	reports  []*structpb.Struct
}

func newControl(t *testing.T) *control {
	dir, err := os.MkdirTemp("", "control-")
	if err != nil {
		t.Fatal(err)
	}
	c := &control{t: t, socket: filepath.Join(dir, "s"), feed: &xds.Feed{}, acked: map[string]string{}, rejected: map[string]string{}}
	t.Cleanup(func() { c.stop(); os.RemoveAll(dir) })
	return c
}

// start serves; versions carry the lineage as a real server's do.
func (c *control) start(lineage string) {
	c.t.Helper()
	listener, err := net.Listen("unix", c.socket)
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = grpc.NewServer(xds.ServerOptions()...)
	xds.NewHandler(c.server, &xds.Handler{Acceptor: c, VersionPrefix: lineage})
	go c.server.Serve(listener) //nolint:errcheck // ends with stop
}

func (c *control) stop() {
	if c.server != nil {
		c.server.Stop()
		c.server = nil
	}
}

// fresh forgets what was published, as a server that starts does.
func (c *control) fresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.feed = &xds.Feed{}
}

func (c *control) publish(revision int64, lineage string, resources ...*envoy.Resource) *envoy.Config {
	c.t.Helper()
	config := &envoy.Config{Revision: revision}
	for _, r := range resources {
		config.Resources[r.Type] = append(config.Resources[r.Type], r)
	}
	if err := xds.Check(config); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	feed := c.feed
	c.mu.Unlock()
	feed.Publish(xds.Target{Config: config, Manifest: xds.Manifest{Lineage: lineage, Revision: revision, Origins: []string{"mesh"}}})
	return config
}

// Authenticate implements xds.Acceptor.
func (c *control) Authenticate(ctx context.Context, _ string) (context.Context, error) {
	return ctx, nil
}

// Accept implements xds.Acceptor.
func (c *control) Accept(_ context.Context, s *xds.Stream) (xds.Observer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams++
	c.node = s.Node()
	s.Attach(c.feed)
	locked := func(f func()) {
		c.mu.Lock()
		defer c.mu.Unlock()
		f()
	}
	return xds.Observer{
		Acked: func(kind envoy.Type, accepted []*envoy.Resource) {
			locked(func() {
				for _, r := range accepted {
					c.acked[kind.String()+" "+r.Name] = r.Version
				}
			})
		},
		Rejected: func(r xds.Rejection) {
			locked(func() { c.rejected[r.Resource.Type.String()+" "+r.Resource.Name] = r.Message })
		},
		Settled:  func(config *envoy.Config) { locked(func() { c.settled = config }) },
		Reported: func(r *structpb.Struct) { locked(func() { c.reports = append(c.reports, r) }) },
	}, nil
}

// waitSettled waits until the proxy has acknowledged a configuration.
func (c *control) waitSettled(config *envoy.Config) {
	c.t.Helper()
	eventually(c.t, 20*time.Second, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.settled != config {
			return fmt.Errorf("the proxy has not acknowledged all of revision %d; acknowledged: %v; rejected: %v", config.Revision, c.acked, c.rejected)
		}
		return nil
	})
}

// eventually tries until there is no error or the time is over.
func eventually(t testing.TB, within time.Duration, try func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", within, err)
		}
		<-tick.C
	}
}

// testProxy is an agent that runs in this process, with a real Envoy.
type testProxy struct {
	t      *testing.T
	bind   string
	config Config
	log    *lockedBuffer
	stop   context.CancelFunc
	done   chan error
}

// loopback finds an address of the loopback network for this test.
func loopback(t *testing.T) string {
	t.Helper()
	for i := range 200 {
		ip := fmt.Sprintf("127.88.%d.%d", (os.Getpid()+i)%250, 2+i%200)
		l, err := net.Listen("tcp", ip+":9901")
		if err == nil {
			l.Close()
			return ip
		}
	}
	t.Fatal("no free loopback address")
	return ""
}

func newProxy(t *testing.T, endpoint string, more map[string]string) *testProxy {
	t.Helper()
	p := &testProxy{t: t, bind: loopback(t), log: &lockedBuffer{}}
	env := map[string]string{"APPMESH_XDS_ENDPOINT": endpoint, "FAIRLEAD_BIND_ADDRESS": p.bind, "ENVOY_CONCURRENCY": "1",
		"LISTENER_DRAIN_WAIT_TIME_S": "5", "ENVOY_LOG_LEVEL": "warn"}
	for name, value := range more {
		env[name] = value
	}
	var err error
	if p.config, err = ConfigFrom(lookup(t, env)); err != nil {
		t.Fatal(err)
	}
	p.config.Version = "test"
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("the agent and its Envoy wrote:\n%s", p.log)
		}
	})
	return p
}

func (p *testProxy) start() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop, p.done = stop, make(chan error, 1)
	go func() {
		p.done <- Run(ctx, p.config, slog.New(slog.NewTextHandler(p.log, nil)), p.log)
	}()
}

// end stops the agent and waits for it.
func (p *testProxy) end() error {
	if p.stop == nil {
		return nil
	}
	p.stop()
	p.stop = nil
	select {
	case err := <-p.done:
		return err
	case <-time.After(30 * time.Second):
		p.t.Errorf("the agent has not ended")
		return nil
	}
}

func (p *testProxy) url(port int, path string) string {
	return fmt.Sprintf("http://%s:%d%s", p.bind, port, path)
}

// get returns status and body; 0 and the error if nobody answers.
func get(url string) (int, string) {
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// wants waits until a page answers with a status and a text in it.
func (p *testProxy) wants(url string, status int, text string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, func() error {
		got, body := get(url)
		if got != status || !strings.Contains(body, text) {
			return fmt.Errorf("GET %s: %d %q, want %d %q", url, got, body, status, text)
		}
		return nil
	})
}

func (p *testProxy) waitReady() {
	p.t.Helper()
	p.wants(p.url(9901, "/ready"), 200, "LIVE")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// resource serialises a message as the server would.
func resource(t testing.TB, kind envoy.Type, name string, m proto.Message) *envoy.Resource {
	t.Helper()
	packed := pack(t, m)
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(packed)
	if err != nil {
		t.Fatal(err)
	}
	found, err := findReferences(kind, encoded)
	if err != nil {
		t.Fatal(err)
	}
	return &envoy.Resource{Ref: envoy.Ref{Type: kind, Name: name}, Version: fmt.Sprintf("%x", len(encoded)) + hash(encoded), Any: encoded, Refs: found.ads}
}

func hash(b []byte) string {
	var h uint64 = 14695981039346656037
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return fmt.Sprintf("%016x", h)
}

func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

var overADS = &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(time.Second)}

// overAgent is how package envoy has `file` secrets fetched.
var overAgent = &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(time.Second),
	ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
		ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
		GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: envoy.AgentCluster}}}}}}}

// listener serves a route table on a port; with a secret, over TLS.
func listener(t testing.TB, name, bind string, port int, table string, secret *tlsv3.SdsSecretConfig) *envoy.Resource {
	chain := &listenerv3.FilterChain{Filters: []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{
		TypedConfig: pack(t, &hcmv3.HttpConnectionManager{StatPrefix: "ingress",
			RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: overADS, RouteConfigName: table}},
			HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}}})}}}}
	if secret != nil {
		chain.TransportSocket = &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: pack(t, &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret}}})}}
	}
	return resource(t, envoy.Listener, name, &listenerv3.Listener{Name: name, Address: tcpAddress(bind, uint32(port)),
		StatPrefix: fmt.Sprintf("0.0.0.0_%d", port), FilterChains: []*listenerv3.FilterChain{chain}})
}

// table answers everything with a word.
func table(t testing.TB, name, word string) *envoy.Resource {
	return resource(t, envoy.Route, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200,
				Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: word}}}}}}}}})
}

// cluster is one that Envoy takes, or with two endpoints, one that it rejects.
func cluster(t testing.TB, name string, endpoints int) *envoy.Resource {
	c := &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}, LoadAssignment: oneEndpoint(name, tcpAddress("127.0.0.1", 9))}
	for range endpoints - 1 {
		c.LoadAssignment.Endpoints[0].LbEndpoints = append(c.LoadAssignment.Endpoints[0].LbEndpoints, c.LoadAssignment.Endpoints[0].LbEndpoints[0])
	}
	return resource(t, envoy.Cluster, name, c)
}

// certificate issues one into files.
func certificate(t testing.TB, authority *ca.Authority, dir string, names ...string) (chain, key string) {
	t.Helper()
	leaf, err := authority.Issue(ca.Names{DNS: names}, time.Now(), time.Hour)
	chain, key = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(err, os.WriteFile(chain, leaf.Chain, 0o600), os.WriteFile(key, leaf.Key, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return chain, key
}

func newAuthority(t testing.TB) *ca.Authority {
	t.Helper()
	authority, err := ca.NewRoot("Test CA", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
