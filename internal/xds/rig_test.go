package xds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// patience bounds every wait for something that must happen.
const patience = 15 * time.Second

// ---------------------------------------------------------------- resources

// res makes a resource whose content is its version: "cluster a 1". What it
// names is given as "endpoint a".
func res(spec string, names ...string) *envoy.Resource {
	f := strings.Fields(spec)
	r := &envoy.Resource{Ref: ref(f[0] + " " + f[1]), Version: f[2], Origin: mesh.ID{Kind: mesh.KindVirtualNode, Name: "n"}}
	for _, n := range names {
		r.Refs = append(r.Refs, ref(n))
	}
	a, err := anypb.New(wrapperspb.String(spec))
	if err != nil {
		panic(err)
	}
	a.TypeUrl = r.Type.URL()
	if r.Any, err = proto.Marshal(a); err != nil {
		panic(err)
	}
	return r
}

func ref(s string) envoy.Ref {
	kind, name, _ := strings.Cut(s, " ")
	for t := envoy.Type(0); t < envoy.NumTypes; t++ {
		if t.String() == kind {
			return envoy.Ref{Type: t, Name: name}
		}
	}
	panic("no type " + kind)
}

// revisions makes each Config the next revision.
var revisions atomic.Int64

// config is a Config of these resources.
func config(resources ...*envoy.Resource) *envoy.Config {
	c := &envoy.Config{Mesh: mesh.Name{Owner: "000000000000", Mesh: "m"}, Revision: revisions.Add(1),
		Endpoint: mesh.ID{Kind: mesh.KindVirtualNode, Name: "n"}}
	for _, r := range resources {
		c.Resources[r.Type] = append(c.Resources[r.Type], r)
	}
	for _, l := range c.Resources {
		sort.Slice(l, func(i, j int) bool { return l[i].Name < l[j].Name })
	}
	if err := Check(c); err != nil {
		panic(err)
	}
	return c
}

// ------------------------------------------------------------------- server

// acceptAll serves one Feed to everyone.
type acceptAll struct {
	feed     *Feed
	observer Observer
	streams  chan *Stream
	accept   func(*Stream) error
}

func (a *acceptAll) Authenticate(ctx context.Context, _ string) (context.Context, error) {
	return ctx, nil
}

func (a *acceptAll) Accept(_ context.Context, s *Stream) (Observer, error) {
	if a.accept != nil {
		if err := a.accept(s); err != nil {
			return Observer{}, err
		}
	}
	if a.feed != nil {
		s.Attach(a.feed)
	}
	if a.streams != nil {
		a.streams <- s
	}
	return a.observer, nil
}

// selfSigned is a server certificate for 127.0.0.1 and a pool that trusts it.
func selfSigned(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "xds"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// rig is an engine behind real gRPC over loopback TLS.
type rig struct {
	t        testing.TB
	addr     string
	pool     *x509.CertPool
	feed     *Feed
	acceptor *acceptAll
	handler  *Handler
}

func newRig(t testing.TB, change ...func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, feed: &Feed{}}
	r.acceptor = &acceptAll{feed: r.feed}
	r.handler = &Handler{Acceptor: r.acceptor}
	for _, f := range change {
		f(r)
	}
	tlsConfig, pool := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(ServerOptions(), grpc.Creds(credentials.NewTLS(tlsConfig)))...)
	NewHandler(server, r.handler)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	r.addr, r.pool = l.Addr().String(), pool
	return r
}

func (r *rig) publish(resources ...*envoy.Resource) *envoy.Config {
	c := config(resources...)
	r.feed.Publish(Target{Config: c, Manifest: Manifest{Lineage: "0123456789abcdef", Revision: c.Revision}})
	return c
}

// ------------------------------------------------------------------- client

// client is one simulated proxy. It answers only when it is told to (or by run).
type client struct {
	t      testing.TB
	delta  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	sotw   discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node   *corev3.Node
	in     chan answer
	ended  chan error
	cancel context.CancelFunc

	barriers    int
	names       []string // of secrets, asked for by quiet
	secretNonce string
}

// answer is a response of either protocol.
type answer struct {
	kind     string // cluster, manifest, …
	nonce    string
	version  string
	specs    []string // the content of each resource, in order
	names    []string // delta
	versions []string // delta
	removed  []string
	bodies   []*anypb.Any
}

// String is an answer in short: "cluster [a 1, b 1] -[c]".
func (a answer) String() string {
	s := a.kind + " ["
	for i, spec := range a.specs {
		if i > 0 {
			s += ", "
		}
		_, rest, _ := strings.Cut(spec, " ")
		s += rest
	}
	s += "]"
	if len(a.removed) > 0 {
		s += " -[" + strings.Join(a.removed, ", ") + "]"
	}
	return s
}

func (r *rig) dial(options ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(r.pool, "")))
	cc, err := grpc.NewClient("passthrough:///"+r.addr, options...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func (r *rig) connect(p Protocol) *client {
	r.t.Helper()
	return connect(r.t, r.dial(), p, &corev3.Node{Id: "mesh/m/virtualNode/n"})
}

func connect(t testing.TB, cc *grpc.ClientConn, p Protocol, node *corev3.Node) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := &client{t: t, node: node, in: make(chan answer, 1000), ended: make(chan error, 1), cancel: cancel}
	ads := discoveryv3.NewAggregatedDiscoveryServiceClient(cc)
	var err error
	if p == Delta {
		c.delta, err = ads.DeltaAggregatedResources(ctx)
	} else {
		c.sotw, err = ads.StreamAggregatedResources(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			a, err := c.recv()
			if err != nil {
				c.ended <- err
				return
			}
			c.in <- a
		}
	}()
	return c
}

func kindName(url string) string {
	if t, ok := envoy.TypeOf(url); ok {
		return t.String()
	}
	return strings.ToLower(url[strings.LastIndexByte(url, '.')+1:])
}

func (c *client) recv() (answer, error) {
	var a answer
	if c.delta != nil {
		m, err := c.delta.Recv()
		if err != nil {
			return a, err
		}
		a = answer{kind: kindName(m.GetTypeUrl()), nonce: m.GetNonce(), version: m.GetSystemVersionInfo(), removed: m.GetRemovedResources()}
		for _, r := range m.GetResources() {
			a.names = append(a.names, r.GetName())
			a.versions = append(a.versions, r.GetVersion())
			a.bodies = append(a.bodies, r.GetResource())
		}
	} else {
		m, err := c.sotw.Recv()
		if err != nil {
			return a, err
		}
		a = answer{kind: kindName(m.GetTypeUrl()), nonce: m.GetNonce(), version: m.GetVersionInfo(), bodies: m.GetResources()}
	}
	for _, b := range a.bodies {
		var s wrapperspb.StringValue
		if a.kind != "manifest" && proto.Unmarshal(b.GetValue(), &s) == nil {
			a.specs = append(a.specs, s.GetValue())
		}
	}
	return a, nil
}

// req is a request; Kind is the short name of the type.
type req struct {
	kind        string
	names       []string // delta: to subscribe
	unsubscribe []string
	initial     map[string]string
	nonce       string
	version     string
	nack        string
}

func urlOf(kind string) string {
	switch kind {
	case "manifest":
		return ManifestURL
	case "report":
		return ReportURL
	case "runtime":
		return "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	}
	return ref(kind + " x").Type.URL()
}

func (c *client) send(r req) {
	c.t.Helper()
	node := c.node
	c.node = nil
	var detail *statusv3.Status
	if r.nack != "" {
		detail = &statusv3.Status{Code: int32(codes.Internal), Message: r.nack}
	}
	var err error
	if c.delta != nil {
		err = c.delta.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: urlOf(r.kind), ResourceNamesSubscribe: r.names,
			ResourceNamesUnsubscribe: r.unsubscribe, InitialResourceVersions: r.initial, ResponseNonce: r.nonce, ErrorDetail: detail})
	} else {
		err = c.sotw.Send(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: urlOf(r.kind), ResourceNames: r.names,
			VersionInfo: r.version, ResponseNonce: r.nonce, ErrorDetail: detail})
	}
	if err != nil {
		c.t.Logf("send %s: %v", r.kind, err)
	}
}

// next is the next answer.
func (c *client) next() answer {
	c.t.Helper()
	select {
	case a := <-c.in:
		return a
	case err := <-c.ended:
		c.t.Fatalf("the stream ended: %v", err)
	case <-time.After(patience):
		c.t.Fatal("no answer came")
	}
	return answer{}
}

// expect takes the next answer, which must read so.
func (c *client) expect(want string) answer {
	c.t.Helper()
	a := c.next()
	if a.String() != want {
		c.t.Fatalf("got  %s\nwant %s", a, want)
	}
	return a
}

// ack accepts an answer; SotW repeats the names.
func (c *client) ack(a answer, names ...string) {
	c.t.Helper()
	if c.delta != nil {
		names = nil
	}
	c.send(req{kind: a.kind, nonce: a.nonce, version: a.version, names: names})
}

func (c *client) nack(a answer, message string, names ...string) {
	c.t.Helper()
	if c.delta != nil {
		names = nil
	}
	c.send(req{kind: a.kind, nonce: a.nonce, nack: message, names: names})
}

// quiet asserts that nothing is on its way: it asks twice for a secret that
// does not exist, which must be answered at once, and the answers must be the
// only things that come. Twice, because what is due is sent in the order of the
// types.
func (c *client) quiet() {
	c.t.Helper()
	for range 2 {
		c.barriers++
		name := fmt.Sprintf("barrier-%d", c.barriers)
		c.names = append(c.names, name)
		if c.delta != nil {
			c.send(req{kind: "secret", names: []string{name}})
			c.ack(c.expect("secret [] -[" + name + "]"))
			continue
		}
		c.send(req{kind: "secret", names: c.names, nonce: c.secretNonce})
		a := c.expect("secret []")
		c.secretNonce = a.nonce
		c.ack(a, c.names...)
	}
}

// end waits for the stream's end and returns its status.
func (c *client) end() error {
	c.t.Helper()
	select {
	case err := <-c.ended:
		return err
	case <-time.After(patience):
		c.t.Fatal("the stream did not end")
	}
	return nil
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("%s did not happen", what)
		case <-tick.C:
		}
	}
}

func heldMetadata(m Manifest) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		MetadataAgent: structpb.NewStringValue("1"),
		MetadataHeld:  structpb.NewStructValue(m.Struct()),
	}}
}

func (a answer) manifest(t testing.TB) Manifest {
	t.Helper()
	b, err := proto.Marshal(a.bodies[0])
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return v
}
