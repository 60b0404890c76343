package envoy

import (
	"fmt"
	"testing"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

type (
	nodeSpec    = appmesh.VirtualNodeSpec
	serviceSpec = appmesh.VirtualServiceSpec
	routerSpec  = appmesh.VirtualRouterSpec
	routeSpec   = appmesh.RouteSpec
)

// largeMesh has n virtual nodes, each behind a service with a router, and each
// with ten backends: service 0 and the nine that follow the node.
func largeMesh(n int) *mesh.View {
	name := mesh.Name{Mesh: "large"}
	id := func(kind mesh.Kind, parent, name string) mesh.ID {
		return mesh.ID{Kind: kind, Parent: parent, Name: name}
	}
	view := &mesh.View{
		Revision:        1,
		Mesh:            &mesh.Record[appmesh.MeshSpec]{Mesh: name, ID: id(mesh.KindMesh, "", "large"), Revision: 1, Spec: &appmesh.MeshSpec{}},
		VirtualNodes:    map[string]*mesh.Record[nodeSpec]{},
		VirtualServices: map[string]*mesh.Record[serviceSpec]{},
		VirtualRouters:  map[string]*mesh.Record[routerSpec]{},
		Routes:          map[mesh.ID]*mesh.Record[routeSpec]{},
	}
	service := func(i int) string { return fmt.Sprintf("service-%d.apps.local", i%n) }
	mapping := &appmesh.PortMapping{Port: 8080, Protocol: appmesh.PortProtocolHttp}
	for i := range n {
		node, router, route := fmt.Sprintf("node-%d", i), fmt.Sprintf("router-%d", i), id(mesh.KindRoute, fmt.Sprintf("router-%d", i), "all")
		spec := &nodeSpec{
			Listeners:        []appmesh.Listener{{PortMapping: mapping}},
			ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: node + ".apps.local"}},
			Backends:         []appmesh.Backend{{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: service(0)}}},
		}
		for j := 1; j < 10; j++ {
			if s := service(i + j); s != service(0) {
				spec.Backends = append(spec.Backends, appmesh.Backend{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: s}})
			}
		}
		view.VirtualNodes[node] = &mesh.Record[nodeSpec]{Mesh: name, ID: id(mesh.KindVirtualNode, "", node), Revision: 1, Spec: spec}
		view.VirtualServices[service(i)] = &mesh.Record[serviceSpec]{Mesh: name, ID: id(mesh.KindVirtualService, "", service(i)), Revision: 1,
			Spec: &serviceSpec{Provider: &appmesh.VirtualServiceProvider{VirtualRouter: &appmesh.VirtualRouterServiceProvider{VirtualRouterName: router}}}}
		view.VirtualRouters[router] = &mesh.Record[routerSpec]{Mesh: name, ID: id(mesh.KindVirtualRouter, "", router), Revision: 1,
			Spec: &routerSpec{Listeners: []appmesh.VirtualRouterListener{{PortMapping: mapping}}}}
		view.Routes[route] = &mesh.Record[routeSpec]{Mesh: name, ID: route, Revision: 1, Spec: weights(node, 1)}
	}
	return view
}

func weights(node string, weight int64) *routeSpec {
	prefix := "/"
	return &routeSpec{HttpRoute: &appmesh.HttpRoute{
		Match:  &appmesh.HttpRouteMatch{Prefix: &prefix},
		Action: &appmesh.HttpRouteAction{WeightedTargets: []appmesh.WeightedTarget{{VirtualNode: node, Weight: &weight}}},
	}}
}

// BenchmarkRoute changes the route that all of 100 endpoints use, and rebuilds
// them all.
func BenchmarkRoute(b *testing.B) {
	view := largeMesh(100)
	id := mesh.ID{Kind: mesh.KindRoute, Parent: "router-0", Name: "all"}
	benchmark(b, view, func(revision int64) {
		timeout, unit := revision, appmesh.DurationUnitMs
		spec := weights("node-0", 1)
		spec.HttpRoute.Timeout = &appmesh.HttpTimeout{PerRequest: &appmesh.Duration{Value: &timeout, Unit: &unit}}
		view.Routes[id] = &mesh.Record[routeSpec]{Mesh: view.Mesh.Mesh, ID: id, Revision: revision, Spec: spec}
	})
}

// BenchmarkNode changes the outlier detection of a node that all of 100
// endpoints call.
func BenchmarkNode(b *testing.B) {
	view := largeMesh(100)
	benchmark(b, view, func(revision int64) {
		r := *view.VirtualNodes["node-0"]
		spec := *r.Spec
		seconds, unit, percent := int64(10), appmesh.DurationUnitS, int64(50)
		spec.Listeners = []appmesh.Listener{{PortMapping: spec.Listeners[0].PortMapping, OutlierDetection: &appmesh.OutlierDetection{
			MaxServerErrors: revision, Interval: &appmesh.Duration{Value: &seconds, Unit: &unit},
			BaseEjectionDuration: &appmesh.Duration{Value: &seconds, Unit: &unit}, MaxEjectionPercent: &percent,
		}}}
		r.Spec, r.Revision = &spec, revision
		view.VirtualNodes["node-0"] = &r
	})
}

// BenchmarkNothing rebuilds 100 endpoints of which nothing changed.
func BenchmarkNothing(b *testing.B) {
	benchmark(b, largeMesh(100), func(int64) {})
}

// BenchmarkFirst builds 100 endpoints for the first time.
func BenchmarkFirst(b *testing.B) {
	graph := mesh.Build(largeMesh(100))
	endpoints := graph.Sorted()
	for b.Loop() {
		builder := NewBuilder()
		for _, e := range endpoints {
			if _, _, err := builder.Build(graph, e.ID, Shape{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func benchmark(b *testing.B, view *mesh.View, change func(revision int64)) {
	builder := NewBuilder()
	pass := func() int {
		b.StopTimer()
		graph := mesh.Build(view)
		endpoints := graph.Sorted()
		b.StartTimer()
		for _, e := range endpoints {
			if _, _, err := builder.Build(graph, e.ID, Shape{}); err != nil {
				b.Fatal(err)
			}
		}
		return len(endpoints)
	}
	pass()
	revision := int64(1)
	for b.Loop() {
		revision++
		view.Revision = revision
		change(revision)
		pass()
	}
}
