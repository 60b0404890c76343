// Package meshgen makes random meshes for tests: every spec in them is one that
// the API takes, and together they use all that the API has. Equal seeds give
// equal meshes. It decides nothing, and nothing but tests imports it. The pages
// it follows are facts/appmesh-api.md B and C.
package meshgen

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Files are the paths of a certificate chain, its key, and a trust bundle on
// the hosts of all proxies.
type Files struct {
	Chain, Key, Trust string
}

// Config says what meshes to make. The zero value makes the smallest mesh
// without TLS.
type Config struct {
	Nodes int     // virtual nodes; at least one is made
	Files []Files // the certificates to choose from; none: no TLS from files
	SDS   bool    // also certificates and trust from SDS, Fairlead's and others'
	ACM   bool    // also certificates and trust from ACM
	// Unprivileged keeps to ports that a program without root may listen at.
	Unprivileged bool
}

// Mesh is the name and owner of all meshes made here.
var Mesh = mesh.Name{Owner: "000000000000", Mesh: "random"}

// View makes a mesh of size virtual nodes that uses everything.
func View(rng *rand.Rand, size int) *mesh.View {
	return Config{
		Nodes: size,
		Files: []Files{
			{Chain: "/certificates/one.pem", Key: "/certificates/one.key", Trust: "/certificates/root-one.pem"},
			{Chain: "/certificates/two.pem", Key: "/certificates/two.key", Trust: "/certificates/root-two.pem"},
		},
		SDS: true,
		ACM: true,
	}.View(rng)
}

// View makes a mesh.
func (c Config) View(rng *rand.Rand) *mesh.View {
	g := &generator{Rand: rng, config: c, view: &mesh.View{
		VirtualNodes:    map[string]*mesh.Record[appmesh.VirtualNodeSpec]{},
		VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{},
		VirtualRouters:  map[string]*mesh.Record[appmesh.VirtualRouterSpec]{},
		VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{},
		Routes:          map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{},
		GatewayRoutes:   map[mesh.ID]*mesh.Record[appmesh.GatewayRouteSpec]{},
	}}
	g.mesh()
	g.held()
	for i := range max(c.Nodes, 1) {
		g.node(i)
	}
	for i := range 1 + c.Nodes/2 {
		g.router(i)
	}
	for i := range 1 + c.Nodes {
		g.service(i)
	}
	for _, name := range g.nodes {
		g.backends(g.view.VirtualNodes[name].Spec)
	}
	for i := range 1 + c.Nodes/8 {
		g.gateway(i)
	}
	return g.view
}

// generator holds a mesh while it is made.
type generator struct {
	*rand.Rand
	config   Config
	view     *mesh.View
	nodes    []string // names, in the order made
	routers  []string
	services []served
}

// port is a port with its protocol.
type port struct {
	number   int64
	protocol appmesh.PortProtocol
}

// served is a virtual service with the ports that its clients dial.
type served struct {
	name  string
	ports []port
}

func put[S any](g *generator, id mesh.ID, spec *S) *mesh.Record[S] {
	g.view.Revision++
	at := time.Unix(g.view.Revision, 0).UTC()
	return &mesh.Record[S]{
		Mesh:          Mesh,
		ID:            id,
		UID:           fmt.Sprintf("00000000-0000-4000-8000-%012d", g.view.Revision),
		Version:       1,
		CreatedAt:     at,
		UpdatedAt:     at,
		ResourceOwner: Mesh.Owner,
		Spec:          spec,
		Revision:      g.view.Revision,
	}
}

// maybe is true once in n times.
func (g *generator) maybe(n int) bool { return g.IntN(n) == 0 }

func (g *generator) between(low, high int64) int64 { return low + g.Int64N(high-low+1) }

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// some picks up to n different values.
func some[T any](g *generator, n int, from ...T) []T {
	from = slices.Clone(from)
	g.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return from[:min(len(from), 1+g.IntN(n))]
}

// duration goes from 0, which switches a timeout off, to some seconds.
func (g *generator) duration() *appmesh.Duration { return g.durationFrom(0) }

func (g *generator) durationFrom(least int64) *appmesh.Duration {
	if g.maybe(2) {
		return &appmesh.Duration{Unit: new(appmesh.DurationUnitS), Value: new(g.between(least, 60))}
	}
	return &appmesh.Duration{Unit: new(appmesh.DurationUnitMs), Value: new(g.between(least, 90_000))}
}

var preferences = appmesh.IpPreference("").Enum()

func (g *generator) preference() *appmesh.IpPreference {
	if !g.maybe(4) {
		return nil
	}
	return new(appmesh.IpPreference(pick(g, preferences...)))
}

func (g *generator) mesh() {
	spec := &appmesh.MeshSpec{}
	if g.maybe(2) {
		spec.EgressFilter = &appmesh.EgressFilter{Type: pick(g, appmesh.EgressFilterTypeAllowAll, appmesh.EgressFilterTypeDropAll)}
	}
	if g.maybe(4) {
		spec.ServiceDiscovery = &appmesh.MeshServiceDiscovery{IpPreference: g.preference()}
	}
	g.view.Mesh = put(g, mesh.ID{Kind: mesh.KindMesh, Name: Mesh.Mesh}, spec)
}

// service makes a virtual service: behind a node, behind a router, or behind
// nothing.
func (g *generator) service(i int) {
	s := served{name: fmt.Sprintf("service-%d.%s.local", i, Mesh.Mesh)}
	spec := &appmesh.VirtualServiceSpec{}
	switch {
	case g.maybe(12):
	case g.maybe(3):
		node := pick(g, g.nodes...)
		spec.Provider = &appmesh.VirtualServiceProvider{VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: node}}
		s.ports = g.listenerPorts(node)
	default:
		router := pick(g, g.routers...)
		spec.Provider = &appmesh.VirtualServiceProvider{VirtualRouter: &appmesh.VirtualRouterServiceProvider{VirtualRouterName: router}}
		for _, l := range g.view.VirtualRouters[router].Spec.Listeners {
			s.ports = append(s.ports, port{l.PortMapping.Port, l.PortMapping.Protocol})
		}
	}
	g.view.VirtualServices[s.name] = put(g, mesh.ID{Kind: mesh.KindVirtualService, Name: s.name}, spec)
	g.services = append(g.services, s)
}

// backends lets a node call some services, by name or ARN.
func (g *generator) backends(spec *appmesh.VirtualNodeSpec) {
	if g.maybe(3) {
		spec.BackendDefaults = &appmesh.BackendDefaults{ClientPolicy: &appmesh.ClientPolicy{TLS: g.clientPolicy()}}
	}
	if g.maybe(6) {
		return
	}
	for _, s := range some(g, 8, g.services...) {
		backend := &appmesh.VirtualServiceBackend{VirtualServiceName: s.name}
		if g.maybe(10) {
			backend.VirtualServiceName = "arn:aws:appmesh:us-east-1:" + Mesh.Owner + ":mesh/" + Mesh.Mesh + "/virtualService/" + s.name
		}
		if g.maybe(3) {
			backend.ClientPolicy = &appmesh.ClientPolicy{}
			if !g.maybe(4) {
				backend.ClientPolicy.TLS = g.clientPolicy()
			}
		}
		spec.Backends = append(spec.Backends, appmesh.Backend{VirtualService: backend})
	}
}

func (g *generator) listenerPorts(node string) []port {
	var ports []port
	for _, l := range g.view.VirtualNodes[node].Spec.Listeners {
		ports = append(ports, port{l.PortMapping.Port, l.PortMapping.Protocol})
	}
	return ports
}
