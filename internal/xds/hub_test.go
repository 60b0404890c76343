package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

const (
	account = "000000000000"
	lineage = "0123456789abcdef0123456789abcdef"
)

var demo = mesh.Name{Owner: account, Mesh: "demo"}

// memory is a Source whose meshes a test writes.
type memory struct {
	ready   chan struct{}
	lineage string
	nudges  chan mesh.Name

	mu       sync.Mutex
	views    map[mesh.Name]*mesh.View
	deleted  map[mesh.ID]int64
	accepted map[mesh.ID]bool
}

func newMemory() *memory {
	m := &memory{ready: make(chan struct{}), lineage: lineage, nudges: make(chan mesh.Name, 1000),
		views: map[mesh.Name]*mesh.View{}, deleted: map[mesh.ID]int64{}, accepted: map[mesh.ID]bool{}}
	close(m.ready)
	return m
}

func (m *memory) Ready() <-chan struct{} { return m.ready }
func (m *memory) Lineage() string        { return m.lineage }

func (m *memory) View(n mesh.Name) (*mesh.View, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.views[n]
	return v, ok
}

func (m *memory) Watch(ctx context.Context, deliver func(mesh.Name, *mesh.View)) error {
	for {
		select {
		case n := <-m.nudges:
			v, _ := m.View(n)
			deliver(n, v)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) Deleted(_ mesh.Name, id mesh.ID) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	revision, ok := m.deleted[id]
	return revision, ok
}

func (m *memory) ShrinkAccepted(_ mesh.Name, id mesh.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted[id]
}

// change changes the source and tells the watchers of a mesh.
func (m *memory) change(n mesh.Name, f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	m.nudges <- n
}

func (m *memory) set(n mesh.Name, v *mesh.View) {
	m.change(n, func() {
		if v == nil {
			delete(m.views, n)
		} else {
			m.views[n] = v
		}
	})
}

func nodeID(name string) mesh.ID    { return mesh.ID{Kind: mesh.KindVirtualNode, Name: name} }
func serviceID(name string) mesh.ID { return mesh.ID{Kind: mesh.KindVirtualService, Name: name} }

// view is a mesh at a revision: "node a" is a virtual node, "node a: x y" one
// with backends, "service x: b" a virtual service that node b provides.
func view(n mesh.Name, revision int64, lines ...string) *mesh.View {
	v := &mesh.View{Revision: revision,
		Mesh:            &mesh.Record[appmesh.MeshSpec]{Mesh: n, ID: mesh.ID{Kind: mesh.KindMesh}, Version: 1, Revision: 1, Spec: &appmesh.MeshSpec{}},
		VirtualNodes:    map[string]*mesh.Record[appmesh.VirtualNodeSpec]{},
		VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{},
		VirtualRouters:  map[string]*mesh.Record[appmesh.VirtualRouterSpec]{},
		VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{},
		Routes:          map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{},
		GatewayRoutes:   map[mesh.ID]*mesh.Record[appmesh.GatewayRouteSpec]{},
	}
	for _, line := range lines {
		head, rest, _ := strings.Cut(line, ":")
		kind, name, _ := strings.Cut(head, " ")
		switch kind {
		case "node":
			spec := &appmesh.VirtualNodeSpec{
				Listeners:        []appmesh.Listener{{PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: "http"}}},
				ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: name + ".local"}}}
			for _, b := range strings.Fields(rest) {
				spec.Backends = append(spec.Backends, appmesh.Backend{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: b}})
			}
			v.VirtualNodes[name] = &mesh.Record[appmesh.VirtualNodeSpec]{Mesh: n, ID: nodeID(name), Version: 1, Revision: revision, Spec: spec}
		case "service":
			v.VirtualServices[name] = &mesh.Record[appmesh.VirtualServiceSpec]{Mesh: n, ID: serviceID(name), Version: 1, Revision: revision,
				Spec: &appmesh.VirtualServiceSpec{Provider: &appmesh.VirtualServiceProvider{
					VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: strings.TrimSpace(rest)}}}}
		}
	}
	return v
}

// site is a server over TLS.
type serverRig struct {
	rig
	source *memory
	server *Server
	stop   func() error
}

func startServer(t testing.TB, source *memory, change ...func(*Config)) *serverRig {
	t.Helper()
	tlsConfig, pool := selfSigned(t)
	c := Config{Source: source, TLS: tlsConfig, Authenticate: authenticate,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, f := range change {
		f(&c)
	}
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	stop := sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() { _ = stop() })
	return &serverRig{rig: rig{t: t, addr: l.Addr().String(), pool: pool}, source: source, server: s, stop: stop}
}

// testWriter is the log of a test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// authenticate believes a header; signatures are package awsapi's business.
func authenticate(ctx context.Context, _ string) (iam.Principal, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	who := strings.Join(md.Get("x-who"), "")
	switch who {
	case "":
		return iam.Principal{}, iam.Refuse(iam.ErrUnauthenticated, "Missing Authentication Token")
	case "down":
		return iam.Principal{}, errors.New("the store does not answer")
	case "root":
		return iam.Principal{Kind: iam.Root, Account: account}, nil
	}
	return iam.Principal{Kind: iam.Proxy, Account: account, Resource: who}, nil
}

// as connects a proxy of a resource, with a key for it.
func (r *serverRig) as(p Protocol, resource string, metadata *structpb.Struct) *client {
	r.t.Helper()
	return r.dialAs(p, resource, resource, metadata)
}

func (r *serverRig) dialAs(p Protocol, who, node string, md *structpb.Struct) *client {
	r.t.Helper()
	add := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if who != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-who", who)
		}
		return streamer(ctx, desc, cc, method, opts...)
	}
	cc, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithStreamInterceptor(add),
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(r.pool, "")))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cc.Close() })
	return connect(r.t, cc, p, &corev3.Node{Id: node, Metadata: md})
}

// clusters asks for clusters and returns the names that come.
func (c *client) clusters() []string {
	c.t.Helper()
	c.send(req{kind: "cluster"})
	a := c.next()
	c.ack(a)
	return a.names
}

// silent asserts that nothing comes for a moment.
func (c *client) silent() {
	c.t.Helper()
	select {
	case a := <-c.in:
		c.t.Fatalf("came: %s %v", a, a.names)
	case err := <-c.ended:
		c.t.Fatalf("ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestStatusesOfRefusedStreams(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a", "node b")
	r := startServer(t, source, func(c *Config) { c.ProxyLimit = func(mesh.Kind) int { return 1 } })
	first := r.as(Delta, "mesh/demo/virtualNode/b", nil)
	first.clusters()
	for _, tc := range []struct {
		name, who, node string
		want            codes.Code
	}{
		{"no credentials", "", "mesh/demo/virtualNode/a", codes.Unauthenticated},
		{"the root key", "root", "mesh/demo/virtualNode/a", codes.PermissionDenied},
		{"another proxy's key", "mesh/demo/virtualNode/b", "mesh/demo/virtualNode/a", codes.PermissionDenied},
		{"no resource", "mesh/demo/virtualNode/a", "a", codes.InvalidArgument},
		{"unknown mesh", "mesh/other/virtualNode/a", "mesh/other/virtualNode/a", codes.InvalidArgument},
		{"unknown node", "mesh/demo/virtualNode/x", "mesh/demo/virtualNode/x", codes.InvalidArgument},
		{"one too many", "mesh/demo/virtualNode/b", "mesh/demo/virtualNode/b", codes.ResourceExhausted},
		{"keys cannot be read", "down", "mesh/demo/virtualNode/a", codes.Unavailable},
		{"a full ARN is fine", "mesh/demo/virtualNode/a", "arn:aws:appmesh:us-east-1:" + account + ":mesh/demo/virtualNode/a", codes.OK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := r.dialAs(Delta, tc.who, tc.node, nil)
			c.send(req{kind: "cluster"})
			if tc.want == codes.OK {
				c.next()
				return
			}
			if err := c.end(); status.Code(err) != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestAChangeReachesWhomItConcerns(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a: svc", "node b", "node c", "service svc: b")
	r := startServer(t, source)
	a := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	c := r.as(Delta, "mesh/demo/virtualNode/c", nil)
	before := a.clusters()
	c.clusters()
	if want := "cds_egress_demo_b_http_8080"; !strings.Contains(fmt.Sprint(before), want) {
		t.Fatalf("clusters %v, want %s among them", before, want)
	}
	source.set(demo, view(demo, 11, "node a: svc", "node b", "node c", "node d", "service svc: d"))
	if got := a.next(); got.kind != "cluster" || fmt.Sprint(got.names) != "[cds_egress_demo_d_http_8080]" {
		t.Errorf("got %s %v", got, got.names)
	}
	c.silent()
	// The proxy that it does not concern stands at the new revision all the same.
	eventually(t, "the revision", func() bool {
		for _, p := range r.server.Proxies() {
			if p.Endpoint == nodeID("c") {
				return p.Settled && p.Revision == 11 && p.Types[envoy.Cluster].Revision == 11
			}
		}
		return false
	})
}

func TestDeletedEndpointsEndTheirStreams(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after *mesh.View
		gone  mesh.ID
	}{
		{"the node", view(demo, 12, "node b"), nodeID("a")},
		{"the mesh", nil, mesh.ID{Kind: mesh.KindMesh}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := newMemory()
			source.views[demo] = view(demo, 10, "node a", "node b")
			r := startServer(t, source)
			c := r.as(Delta, "mesh/demo/virtualNode/a", nil)
			c.clusters()
			// The store loses it: nothing happens to the proxy.
			source.set(demo, tc.after)
			c.silent()
			eventually(t, "the hold", func() bool { return len(r.server.Proxies()) > 0 && r.server.Proxies()[0].Held != "" })
			t.Log(r.server.Proxies()[0].Held)
			// A change record explains it.
			source.change(demo, func() { source.deleted[tc.gone] = 12 })
			if err := c.end(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAPanicStaysInItsMesh(t *testing.T) {
	poisoned := mesh.Name{Owner: account, Mesh: "poisoned"}
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a: svc", "node b", "service svc: b")
	source.views[poisoned] = view(poisoned, 10, "node a")
	r := startServer(t, source, func(c *Config) { c.NewCompiler = func() Compiler { return poison{newCompiler()} } })
	a := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	a.clusters()
	p := r.as(Delta, "mesh/poisoned/virtualNode/a", nil)
	p.clusters()
	source.set(poisoned, view(poisoned, 666, "node a", "node b"))
	p.silent() // it keeps what it has
	source.set(demo, view(demo, 11, "node a: svc", "node b", "node c", "service svc: c"))
	if got := a.next(); fmt.Sprint(got.names) != "[cds_egress_demo_c_http_8080]" {
		t.Errorf("got %v", got.names)
	}
	// And recovers with the next good view.
	source.set(poisoned, view(poisoned, 667, "node a: svc", "node b", "service svc: b"))
	if got := p.next(); fmt.Sprint(got.names) != "[cds_egress_poisoned_b_http_8080]" {
		t.Errorf("got %v", got.names)
	}
}

// poison is a compiler with a bug.
type poison struct{ Compiler }

func (p poison) Graph(v *mesh.View) *mesh.Graph {
	if v.Revision == 666 {
		panic("poison")
	}
	return p.Compiler.Graph(v)
}

// dangle is a compiler that builds a configuration with a hole.
type dangle struct{ Compiler }

func (d dangle) Build(g *mesh.Graph, id mesh.ID, s envoy.Shape) (*envoy.Config, []mesh.Problem, error) {
	c, problems, err := d.Compiler.Build(g, id, s)
	if g.Revision == 666 {
		broken := *c
		broken.Resources[envoy.Cluster] = nil
		return &broken, problems, err
	}
	return c, problems, err
}

func TestAContradictionIsNotSent(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a: svc", "node b", "service svc: b")
	r := startServer(t, source, func(c *Config) { c.NewCompiler = func() Compiler { return dangle{newCompiler()} } })
	a := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	a.clusters()
	source.set(demo, view(demo, 666, "node a: svc", "node b", "service svc: b"))
	a.silent()
	eventually(t, "the problem", func() bool {
		for _, p := range r.server.Problems(demo) {
			if strings.Contains(p.Message, "contradicts itself") {
				return true
			}
		}
		return false
	})
}

func TestNothingBeforeTheStoreIsLoaded(t *testing.T) {
	source := newMemory()
	source.ready = make(chan struct{})
	r := startServer(t, source)
	c := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	c.send(req{kind: "cluster"})
	c.silent() // neither an answer nor "no such mesh"
	source.mu.Lock()
	source.views[demo] = view(demo, 10, "node a")
	source.mu.Unlock()
	close(source.ready)
	c.next()
}

func TestShutdownSaysUnavailable(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a")
	r := startServer(t, source)
	c := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	c.clusters()
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > shutdownTimeout {
		t.Errorf("took %s", took)
	}
	if err := c.end(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestReportsAreKept(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a")
	r := startServer(t, source)
	c := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	c.clusters()
	c.node = &corev3.Node{Metadata: must(structpb.NewStruct(map[string]any{"ready": true}))}
	c.send(req{kind: "report"})
	eventually(t, "the report", func() bool {
		p := r.server.Proxies()
		return len(p) == 1 && string(p[0].Report) == `{"ready":true}`
	})
	c.cancel()
	eventually(t, "the proxy to be gone", func() bool { return len(r.server.Proxies()) == 0 })
}

// The shrink guard, on connect: what an agent says it holds, what the store
// says now, and whether the agent is served.
func TestShrinkGuardOnConnect(t *testing.T) {
	full := []string{"node a: svc", "node b", "service svc: b"}
	origins := []string{"mesh", "virtualNode/a", "virtualNode/b", "virtualService/svc"}
	for _, tc := range []struct {
		name    string
		held    *Manifest
		now     *mesh.View
		deleted map[mesh.ID]int64
		hold    string // part of the reason; empty: served
	}{
		{name: "holds nothing", now: view(demo, 10, full...)},
		{name: "same store, same revision", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 10, full...)},
		{name: "same store, later", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 15, full...)},
		{name: "another store", held: &Manifest{"feedfeedfeed", 10, origins, false}, now: view(demo, 10, full...), hold: "another store"},
		{name: "an older store", held: &Manifest{lineage, 20, origins, false}, now: view(demo, 15, full...), hold: "the store is older"},
		{name: "half a store", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 15, "node a: svc"), hold: "virtualNode/b, virtualService/svc"},
		{name: "deleted since", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 15, "node a: svc"),
			deleted: map[mesh.ID]int64{nodeID("b"): 12, serviceID("svc"): 11}},
		{name: "one of two explained", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 15, "node a: svc"),
			deleted: map[mesh.ID]int64{nodeID("b"): 12}, hold: "gone: virtualService/svc"},
		{name: "deleted before, made again, lost", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 15, "node a: svc", "node b"),
			deleted: map[mesh.ID]int64{serviceID("svc"): 7}, hold: "virtualService/svc"},
		{name: "no longer a backend", held: &Manifest{lineage, 10, origins, false}, now: view(demo, 15, "node a", "node b", "service svc: b")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := newMemory()
			source.views[demo] = tc.now
			maps.Copy(source.deleted, tc.deleted)
			r := startServer(t, source)
			var md *structpb.Struct
			if tc.held != nil {
				md = heldMetadata(*tc.held)
			}
			c := r.as(Delta, "mesh/demo/virtualNode/a", md)
			c.send(req{kind: "manifest", names: []string{"manifest"}})
			c.send(req{kind: "cluster"})
			if tc.hold == "" {
				if m := c.next().manifest(t); m.Lineage != lineage || m.Revision != tc.now.Revision {
					t.Errorf("manifest %+v", m)
				}
				return
			}
			c.silent()
			eventually(t, "the hold", func() bool {
				p := r.server.Proxies()
				return len(p) == 1 && strings.Contains(p[0].Held, tc.hold)
			})
			t.Log(r.server.Proxies()[0].Held)
			source.change(demo, func() { source.accepted[nodeID("a")] = true })
			if m := c.next().manifest(t); !m.AcceptShrink {
				t.Errorf("manifest %+v: the agent would refuse as well", m)
			}
			if got := c.next(); got.kind != "cluster" {
				t.Errorf("got %s", got)
			}
			if held := r.server.Proxies()[0].Held; held != "" {
				t.Errorf("still held: %s", held)
			}
		})
	}
}

func TestShrinkGuardOnALiveStream(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a: svc", "node b", "service svc: b")
	r := startServer(t, source)
	c := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	c.clusters()
	source.set(demo, view(demo, 11, "node a: svc"))
	c.silent()
	eventually(t, "the hold", func() bool { return strings.Contains(r.server.Proxies()[0].Held, "virtualNode/b, virtualService/svc") })
	// Who connects now gets the last good configuration.
	other := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	if got := fmt.Sprint(other.clusters()); !strings.Contains(got, "cds_egress_demo_b") {
		t.Errorf("a second proxy got %s", got)
	}
	// The records come back: all is well.
	source.set(demo, view(demo, 12, "node a: svc", "node b", "service svc: b"))
	eventually(t, "the release", func() bool { return r.server.Proxies()[0].Held == "" })
	// They go again, and this time a change record says so.
	source.change(demo, func() {
		source.deleted[nodeID("b")], source.deleted[serviceID("svc")] = 13, 13
		source.views[demo] = view(demo, 13, "node a: svc")
	})
	eventually(t, "the change", func() bool { return r.server.Proxies()[0].Revision == 13 })
}

func TestRejectionsAreInTheStatus(t *testing.T) {
	source := newMemory()
	source.views[demo] = view(demo, 10, "node a: svc", "node b", "service svc: b")
	r := startServer(t, source)
	c := r.as(Delta, "mesh/demo/virtualNode/a", nil)
	c.send(req{kind: "cluster"})
	c.nack(c.next(), "Error adding/updating cluster(s) cds_egress_demo_b_http_8080: no")
	eventually(t, "the rejection", func() bool {
		p := r.server.Proxies()[0].Types[envoy.Cluster].Rejected
		return len(p) == 1 && p[0].Name == "cds_egress_demo_b_http_8080" && p[0].Revision == 10 && p[0].Origin == nodeID("b")
	})
}
