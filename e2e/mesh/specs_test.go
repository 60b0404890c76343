package mesh_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/xds"
)

// feeder serves one configuration after the other to one proxy, as the server
// does, over the Unix socket on which an agent asks for no signature.
type feeder struct {
	socket   string
	feed     xds.Feed
	shape    chan envoy.Shape
	settled  chan *envoy.Config
	rejected chan xds.Rejection
}

func newFeeder(t *testing.T) *feeder {
	t.Helper()
	dir, err := os.MkdirTemp("", "feed") // names in t.TempDir are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a socket in the temporary folder
	f := &feeder{socket: filepath.Join(dir, "xds"), shape: make(chan envoy.Shape, 1), settled: make(chan *envoy.Config, 1024), rejected: make(chan xds.Rejection, 1024)}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(xds.ServerOptions()...)
	xds.NewHandler(server, &xds.Handler{Acceptor: f, Log: slog.New(slog.DiscardHandler)})
	go server.Serve(listener) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	return f
}

// Authenticate implements xds.Acceptor.
func (f *feeder) Authenticate(ctx context.Context, _ string) (context.Context, error) {
	return ctx, nil
}

// Accept implements xds.Acceptor.
func (f *feeder) Accept(_ context.Context, stream *xds.Stream) (xds.Observer, error) {
	shape, err := envoy.ShapeOf(stream.Node())
	if err != nil {
		return xds.Observer{}, err
	}
	select {
	case f.shape <- shape:
	default: // it has connected again
	}
	stream.Attach(&f.feed)
	return xds.Observer{
		Rejected: func(r xds.Rejection) { f.rejected <- r },
		Settled:  func(c *envoy.Config) { f.settled <- c },
	}, nil
}

// publish sends a configuration and waits until the proxy has all of it.
func (f *feeder) publish(t *testing.T, c *envoy.Config) {
	t.Helper()
	origins := make([]string, len(c.Origins))
	for i, origin := range c.Origins {
		origins[i] = origin.ID.String()
	}
	f.feed.Publish(xds.Target{Config: c, Manifest: xds.Manifest{Lineage: "0123456789abcdef", Revision: c.Revision, Origins: origins}})
	late := time.After(time.Minute)
	for {
		select {
		case got := <-f.settled:
			if got == c {
				return
			}
		case r := <-f.rejected:
			t.Fatalf("Envoy rejects %s %s of %s: %s", r.Resource.Type, r.Resource.Name, r.Resource.Origin, r.Message)
		case <-late:
			t.Fatalf("the configuration of %s at revision %d has not settled", c.Endpoint, c.Revision)
		}
	}
}

// hold gives a view's certificates and authorities contents that an Envoy takes.
func hold(t *testing.T, view *mesh.View, authority *meshtest.Authority, leaf meshtest.Certificate) {
	t.Helper()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	root, chain, key := read(authority.Root), read(leaf.Chain), api.NewSecret(read(leaf.Key))
	for _, c := range view.Certificates {
		c.Chain, c.Key, c.Roots, c.CRLs = chain, key, root, ""
	}
	for _, a := range view.Authorities {
		a.Roots, a.CRLs = root, ""
	}
	if view.Own != nil {
		view.Own.Roots, view.Own.CRLs = root, ""
	}
}

// TestRandomSpecs shows 2,000 random specs (FAIRLEAD_SOAK times as many) to one
// live Envoy behind a real agent: whole random meshes, seen from each of their
// endpoints in turn. It must not reject any resource.
func TestRandomSpecs(t *testing.T) {
	want := 2000 * meshtest.Soak(t)
	authority := meshtest.NewAuthority(t, "mesh")
	config := meshgen.Config{Nodes: 12, ACM: true, Unprivileged: true}
	var c meshtest.Certificate
	for range 2 {
		c = authority.Issue(t, "node-0.random.local")
		config.Files = append(config.Files, meshgen.Files{Chain: c.Chain, Key: c.Key, Trust: authority.Root})
	}
	f, n := newFeeder(t), meshtest.NewNetwork(t)
	agent := meshtest.StartAgent(t, &meshtest.Server{DataDir: t.TempDir()}, meshtest.AgentOptions{Resource: "mesh/random/virtualNode/node-0",
		XDS: "unix://" + f.socket, Key: &meshtest.Key{}, Address: n.Address(t, ""), DNS: n.DNS.Address()})
	var shape envoy.Shape
	select {
	case shape = <-f.shape:
	case <-time.After(time.Minute):
		t.Fatal("the agent does not connect")
	}
	began := time.Now()
	specs, pushes, revision := 0, 0, int64(1)
	for seed := uint64(1); specs < want; seed++ {
		config.SDS = seed%4 == 0 // nobody serves them here, and Envoy waits 1 s for each set
		view := config.View(rand.New(rand.NewPCG(seed, 2)))
		hold(t, view, authority, c)
		graph := mesh.Build(view)
		builder := envoy.NewBuilder() // of records that are in no store
		for _, endpoint := range graph.Sorted() {
			c, _, err := builder.Build(graph, endpoint.ID, shape)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			own := *c
			revision++
			own.Revision = revision
			f.publish(t, &own)
			pushes++
		}
		specs += 1 + len(view.VirtualNodes) + len(view.VirtualServices) + len(view.VirtualRouters) + len(view.Routes) + len(view.VirtualGateways) + len(view.GatewayRoutes)
	}
	counters, err := agent.Counters(t.Context(), `update_rejected$`)
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range counters {
		if count != 0 {
			t.Errorf("%s: %d", name, count)
		}
	}
	updates, err := agent.Counters(t.Context(), `(cds|lds|rds\..*)\.update_success$`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d specs in %d configurations in %s; Envoy has taken %d updates of clusters and %d of listeners", specs, pushes, time.Since(began).Round(time.Second),
		updates["cluster_manager.cds.update_success"], updates["listener_manager.lds.update_success"])
}
