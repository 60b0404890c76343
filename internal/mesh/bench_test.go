package mesh

import (
	"fmt"
	"testing"

	"github.com/fairlead/fairlead/api/appmesh"
)

// BenchmarkBuild is the mesh of the benchmark: as many services as
// nodes, each behind a router with one route, ten backends for each node.
func BenchmarkBuild(b *testing.B) {
	for _, nodes := range []int{100, 1000} {
		view := wideView(nodes, 10)
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Build(view)
			}
		})
	}
}

func wideView(nodes, backends int) *View {
	in := Name{Owner: "000000000000", Mesh: "wide"}
	v := &View{
		Mesh:            &Record[appmesh.MeshSpec]{Mesh: in, ID: ID{Kind: KindMesh, Name: in.Mesh}, Spec: &appmesh.MeshSpec{}, Revision: 1},
		Revision:        int64(nodes),
		VirtualNodes:    map[string]*Record[appmesh.VirtualNodeSpec]{},
		VirtualServices: map[string]*Record[appmesh.VirtualServiceSpec]{},
		VirtualRouters:  map[string]*Record[appmesh.VirtualRouterSpec]{},
		Routes:          map[ID]*Record[appmesh.RouteSpec]{},
	}
	weight, prefix := int64(1), "/"
	service := func(i int) string { return fmt.Sprintf("service-%d.wide.local", i%nodes) }
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		spec := &appmesh.VirtualNodeSpec{
			Listeners: []appmesh.Listener{{
				PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: appmesh.PortProtocolHttp},
				TLS: &appmesh.ListenerTls{Mode: appmesh.ListenerTlsModeStrict, Certificate: &appmesh.ListenerTlsCertificate{
					File: &appmesh.ListenerTlsFileCertificate{CertificateChain: "/c.pem", PrivateKey: "/k.pem"}}},
			}},
			ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: name + ".wide.local"}},
			BackendDefaults: &appmesh.BackendDefaults{ClientPolicy: &appmesh.ClientPolicy{TLS: &appmesh.ClientPolicyTls{
				Validation: &appmesh.TlsValidationContext{Trust: &appmesh.TlsValidationContextTrust{
					File: &appmesh.TlsValidationContextFileTrust{CertificateChain: "/ca.pem"}}}}}},
		}
		for k := range backends {
			spec.Backends = append(spec.Backends, appmesh.Backend{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: service(i + k + 1)}})
		}
		v.VirtualNodes[name] = record(in, ID{Kind: KindVirtualNode, Name: name}, spec)
		router := ID{Kind: KindVirtualRouter, Name: fmt.Sprintf("router-%d", i)}
		v.VirtualRouters[router.Name] = record(in, router, &appmesh.VirtualRouterSpec{Listeners: []appmesh.VirtualRouterListener{
			{PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: appmesh.PortProtocolHttp}}}})
		v.VirtualServices[service(i)] = record(in, ID{Kind: KindVirtualService, Name: service(i)}, &appmesh.VirtualServiceSpec{
			Provider: &appmesh.VirtualServiceProvider{VirtualRouter: &appmesh.VirtualRouterServiceProvider{VirtualRouterName: router.Name}}})
		route := ID{Kind: KindRoute, Parent: router.Name, Name: "all"}
		v.Routes[route] = record(in, route, &appmesh.RouteSpec{HttpRoute: &appmesh.HttpRoute{
			Match: &appmesh.HttpRouteMatch{Prefix: &prefix},
			Action: &appmesh.HttpRouteAction{WeightedTargets: []appmesh.WeightedTarget{
				{VirtualNode: name, Weight: &weight}, {VirtualNode: fmt.Sprintf("node-%d", (i+1)%nodes), Weight: &weight}}},
		}})
	}
	return v
}

func record[S any](in Name, id ID, spec *S) *Record[S] {
	return &Record[S]{Mesh: in, ID: id, Version: 1, Spec: spec, Revision: 1}
}
