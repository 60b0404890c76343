package xds

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// realEnvoy is a stock Envoy that gets everything over a Unix socket from this
// test's engine, as it does from an agent.
type realEnvoy struct {
	t     *testing.T
	feed  *Feed
	admin *http.Client
	log   *bytes.Buffer

	socket string
	server *grpc.Server

	mu     sync.Mutex
	cond   *sync.Cond
	sent   map[string]int // "cluster a 1" → how often it was sent
	acked  map[string]int
	reject []Rejection
	settle *envoy.Config
}

const bootstrap = `
node: {id: mesh/m/virtualNode/n, cluster: proxies}
admin: {address: {pipe: {path: %q, mode: 0600}}}
dynamic_resources:
  ads_config:
    api_type: %s
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds}}]
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: xds
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]
`

func envoyBinary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("ENVOY_BIN"); bin != "" {
		return bin
	}
	bin, err := filepath.Abs("../../.tools/bin/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no Envoy to test with (make tools gets it): %v", err)
	}
	return bin
}

// startEnvoy starts an Envoy and serves it. Its configuration must have been
// published before, or Envoy waits for it.
func startEnvoy(t *testing.T, p Protocol) *realEnvoy {
	t.Helper()
	e := &realEnvoy{t: t, feed: &Feed{}, log: &bytes.Buffer{}, sent: map[string]int{}, acked: map[string]int{}}
	e.cond = sync.NewCond(&e.mu)
	dir, err := os.MkdirTemp("", "xds") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, admin := filepath.Join(dir, "xds.sock"), filepath.Join(dir, "admin.sock")
	e.socket = socket
	e.serve()

	api := map[Protocol]string{Delta: "DELTA_GRPC", StateOfTheWorld: "GRPC"}[p]
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(bootstrap, admin, api, socket)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(envoyBinary(t), "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
	cmd.Stderr = e.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("envoy: %s", e.log)
		}
	})
	e.admin = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", admin)
		}}}
	return e
}

// serve starts a server that knows nothing of streams before.
func (e *realEnvoy) serve() {
	e.t.Helper()
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		e.t.Fatal(err)
	}
	e.server = grpc.NewServer(append(ServerOptions(), grpc.StreamInterceptor(e.intercept))...)
	NewHandler(e.server, &Handler{VersionPrefix: "01234567", Acceptor: &acceptAll{feed: e.feed, observer: e.observer()}})
	go func() { _ = e.server.Serve(l) }()
	e.t.Cleanup(e.server.Stop)
}

// intercept notes what is sent.
func (e *realEnvoy) intercept(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	return h(srv, &noting{ss, e})
}

type noting struct {
	grpc.ServerStream
	e *realEnvoy
}

func (n *noting) SendMsg(m any) error {
	r := m.(*response)
	n.e.mu.Lock()
	for _, x := range r.resources {
		n.e.sent[x.Type.String()+" "+x.Name+" "+x.Version]++
	}
	for _, name := range r.removed {
		n.e.sent[envoy.Type(r.kind).String()+" "+name+" removed"]++
	}
	n.e.cond.Broadcast()
	n.e.mu.Unlock()
	return n.ServerStream.SendMsg(m)
}

func (e *realEnvoy) observer() Observer {
	change := func(f func()) {
		e.mu.Lock()
		defer e.mu.Unlock()
		f()
		e.cond.Broadcast()
	}
	return Observer{
		Acked: func(_ envoy.Type, accepted []*envoy.Resource) {
			change(func() {
				for _, x := range accepted {
					e.acked[x.Type.String()+" "+x.Name+" "+x.Version]++
				}
			})
		},
		Rejected: func(r Rejection) { change(func() { e.reject = append(e.reject, r) }) },
		Settled:  func(c *envoy.Config) { change(func() { e.settle = c }) },
	}
}

// wait waits until f, which is called with the lock held, is true.
func (e *realEnvoy) wait(what string, f func() bool) {
	e.t.Helper()
	late := time.AfterFunc(2*patience, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.cond.Broadcast()
	})
	defer late.Stop()
	deadline := time.Now().Add(2 * patience)
	e.mu.Lock()
	defer e.mu.Unlock()
	for !f() {
		if time.Now().After(deadline) {
			e.t.Fatalf("%s did not happen; sent %v, acked %v, rejected %v", what, e.sent, e.acked, e.reject)
		}
		e.cond.Wait()
	}
}

func (e *realEnvoy) publish(resources ...*envoy.Resource) *envoy.Config {
	e.t.Helper()
	c := config(resources...)
	e.feed.Publish(Target{Config: c})
	return c
}

func (e *realEnvoy) publishAndSettle(resources ...*envoy.Resource) {
	e.t.Helper()
	c := e.publish(resources...)
	e.wait("settling", func() bool { return e.settle == c })
}

// ---------------------------------------------------------- real resources

func pack(t envoy.Type, name, version string, m proto.Message, names ...string) *envoy.Resource {
	a := must(anypb.New(m))
	r := &envoy.Resource{Ref: envoy.Ref{Type: t, Name: name}, Version: version, Any: must(proto.Marshal(a)),
		Origin: mesh.ID{Kind: mesh.KindVirtualNode, Name: name}}
	for _, n := range names {
		r.Refs = append(r.Refs, ref(n))
	}
	return r
}

var ads = &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3,
	ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}

func edsCluster(name, version string) *envoy.Resource {
	return pack(envoy.Cluster, name, version, edsClusterProto(name, version), "endpoint "+name)
}

func edsClusterProto(name, version string) *clusterv3.Cluster {
	n := 1
	for _, b := range []byte(version) {
		n += int(b)
	}
	return &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(n) * time.Millisecond),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}}
}

func assignment(name, version, address string, port uint32) *envoy.Resource {
	return pack(envoy.Endpoint, name, version, assignmentProto(name, address, port))
}

func assignmentProto(name, address string, port uint32) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socketAddress(address, port)}}}}}}}
}

func socketAddress(address string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
}

func routes(name, version string, clusters ...string) *envoy.Resource {
	var names []string
	for _, c := range clusters {
		names = append(names, "cluster "+c)
	}
	return pack(envoy.Route, name, version, routesProto(name, version, clusters...), names...)
}

func routesProto(name, version string, clusters ...string) *routev3.RouteConfiguration {
	rc := &routev3.RouteConfiguration{Name: name}
	for _, c := range clusters {
		rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{Name: c, Domains: []string{c}, Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: c}}},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-version", Value: version}}},
		}}})
	}
	return rc
}

func listener(name, version string, port uint32, routes string) *envoy.Resource {
	return pack(envoy.Listener, name, version, listenerProto(name, version, port, routes), "route "+routes)
}

func listenerProto(name, version string, port uint32, routes string) *listenerv3.Listener {
	h := &hcmv3.HttpConnectionManager{StatPrefix: "s" + version,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads, RouteConfigName: routes}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: must(anypb.New(&routerv3.Router{}))}}}}
	return &listenerv3.Listener{Name: name, Address: socketAddress("127.0.0.1", port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "hcm",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: must(anypb.New(h))}}}}}}
}

// tlsListener presents a certificate that comes over ADS.
func tlsListener(name, version string, port uint32, routes, secret string) *envoy.Resource {
	l := listenerProto(name, version, port, routes)
	l.FilterChains[0].TransportSocket = &corev3.TransportSocket{Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: must(anypb.New(&tlsv3.DownstreamTlsContext{
			CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{
				{Name: secret, SdsConfig: ads}}}}))}}
	return pack(envoy.Listener, name, version, l, "route "+routes, "secret "+secret)
}

// secret is a certificate of a name; its key is another's if broken.
func secret(name, version string, broken bool) *envoy.Resource {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name + version},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	if broken {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	inline := func(kind string, b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{
			InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})}}
	}
	return pack(envoy.Secret, name, version, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline("CERTIFICATE", der),
			PrivateKey: inline("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))}}})
}

// freePort is a loopback port that nobody listens at just now.
func freePort(t testing.TB) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// backend is an application that says its name.
func backend(t testing.TB, name string) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// get asks Envoy's listener for a host and says how it was answered.
func get(t testing.TB, port uint32, host string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(int(port))+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Do(r)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("x-version"), b)
}
