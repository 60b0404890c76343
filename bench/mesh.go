package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/bench/loadrun"
)

const (
	meshName  = "bench"
	endpoints = 100 // virtual nodes, and as many virtual services
	backends  = 10  // of each virtual node
	port      = 8080
	// lonely is the one virtual node that may call the changed service in the
	// narrow mesh.
	lonely = 50
	// narrator is the virtual node of the real Envoy; cloud is what it calls,
	// by Cloud Map.
	narrator, cloud = "narrator", "cloud"
)

func nodeName(i int) string    { return fmt.Sprintf("node-%03d", i) }
func serviceName(i int) string { return fmt.Sprintf("service-%03d.bench.local", i) }
func resourceOf(node string) string {
	return "mesh/" + meshName + "/virtualNode/" + node
}

// reach says who may call the changed service, service-000.
type reach bool

const (
	broad  reach = true  // every virtual node
	narrow reach = false // one virtual node
)

// backendsOf are the virtual services that a virtual node may call: the changed
// one if it is in reach, and others, the same number of callers for each.
func (r reach) backendsOf(i int) []string {
	var names []string
	if r == broad || i == lonely {
		names = append(names, serviceName(0))
	}
	for k := 1; len(names) < backends; k++ {
		if other := (i + k*k) % endpoints; other != 0 {
			names = append(names, serviceName(other))
		}
	}
	return names
}

// proxiesReached is how many of n proxies, spread evenly over the virtual
// nodes, call the changed service.
func (r reach) proxiesReached(n int) int {
	if r == broad {
		return n
	}
	return max(1, n/endpoints)
}

func pointer[T any](v T) *T { return &v }

func duration(seconds int64) *appmesh.Duration {
	return &appmesh.Duration{Unit: pointer(appmesh.DurationUnit("s")), Value: &seconds}
}

// nodeSpec is a virtual node as in the benchmark's mesh: one http listener, ten
// backends, a client policy that takes what the server offers.
func nodeSpec(hostname string, calls []string) *appmesh.VirtualNodeSpec {
	spec := &appmesh.VirtualNodeSpec{
		Listeners:        []appmesh.Listener{{PortMapping: &appmesh.PortMapping{Port: port, Protocol: "http"}}},
		ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: hostname}},
	}
	for _, name := range calls {
		spec.Backends = append(spec.Backends, appmesh.Backend{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: name}})
	}
	return spec
}

func outlierDetection(ejection int64) *appmesh.OutlierDetection {
	return &appmesh.OutlierDetection{BaseEjectionDuration: duration(ejection), Interval: duration(10), MaxEjectionPercent: pointer(int64(50)), MaxServerErrors: 5}
}

// serverSpec is node-000, the virtual node that changes.
func serverSpec(r reach, ejection int64, mode appmesh.ListenerTlsMode) *appmesh.VirtualNodeSpec {
	spec := nodeSpec(nodeName(0)+".bench.local", r.backendsOf(0))
	spec.Listeners[0].OutlierDetection = outlierDetection(ejection)
	spec.Listeners[0].TLS = &appmesh.ListenerTls{Mode: mode, Certificate: &appmesh.ListenerTlsCertificate{
		File: &appmesh.ListenerTlsFileCertificate{CertificateChain: "/etc/bench/chain.pem", PrivateKey: "/etc/bench/key.pem"}}}
	return spec
}

// cloudSpec is the virtual node behind the EDS cluster of the real Envoy.
func cloudSpec(ejection int64) *appmesh.VirtualNodeSpec {
	spec := nodeSpec("", nil)
	spec.ServiceDiscovery = &appmesh.ServiceDiscovery{AwsCloudMap: &appmesh.AwsCloudMapServiceDiscovery{NamespaceName: "bench.local", ServiceName: cloud}}
	spec.Listeners[0].OutlierDetection = outlierDetection(ejection)
	return spec
}

// routeSpec sends everything with the marker's header to node-000, and the
// rest as well.
func routeSpec(marker string) *appmesh.RouteSpec {
	return &appmesh.RouteSpec{HttpRoute: &appmesh.HttpRoute{
		Match: &appmesh.HttpRouteMatch{Prefix: pointer("/"), Headers: []appmesh.HttpRouteHeader{
			{Name: "x-bench", Invert: pointer(true), Match: &appmesh.HeaderMatchMethod{Exact: pointer(marker)}}}},
		Action: &appmesh.HttpRouteAction{WeightedTargets: []appmesh.WeightedTarget{{VirtualNode: nodeName(0), Weight: pointer(int64(1))}}},
	}}
}

func meshPath(rest string) string { return "/v20190125/meshes/" + meshName + rest }

// makeMesh creates the mesh through the API.
func makeMesh(ctx context.Context, c *client, r reach) error {
	type object = map[string]any
	create := func(path string, body object) error { return c.do(ctx, http.MethodPut, path, body, nil) }
	if err := create("/v20190125/meshes", object{"meshName": meshName}); err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(8)
	node := func(name string, spec *appmesh.VirtualNodeSpec) {
		all.Go(func() error { return create(meshPath("/virtualNodes"), object{"virtualNodeName": name, "spec": spec}) })
	}
	node(nodeName(0), serverSpec(r, 10, "DISABLED"))
	for i := 1; i < endpoints; i++ {
		node(nodeName(i), nodeSpec(nodeName(i)+".bench.local", r.backendsOf(i)))
	}
	node(cloud, cloudSpec(10))
	node(narrator, nodeSpec(narrator+".bench.local", []string{cloud + ".bench.local"}))
	if err := all.Wait(); err != nil {
		return err
	}
	for i := range endpoints {
		all.Go(func() error { return makeService(create, i) })
	}
	all.Go(func() error {
		return create(meshPath("/virtualServices"), object{"virtualServiceName": cloud + ".bench.local",
			"spec": appmesh.VirtualServiceSpec{Provider: nodeProvider(cloud)}})
	})
	return all.Wait()
}

func nodeProvider(node string) *appmesh.VirtualServiceProvider {
	return &appmesh.VirtualServiceProvider{VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: node}}
}

// makeService makes a virtual service: every other one with a router and one
// route, the rest with the node itself behind it.
func makeService(create func(path string, body map[string]any) error, i int) error {
	provider := nodeProvider(nodeName(i))
	if i%2 == 0 {
		router := fmt.Sprintf("router-%03d", i)
		provider = &appmesh.VirtualServiceProvider{VirtualRouter: &appmesh.VirtualRouterServiceProvider{VirtualRouterName: router}}
		listener := appmesh.VirtualRouterListener{PortMapping: &appmesh.PortMapping{Port: port, Protocol: "http"}}
		if err := create(meshPath("/virtualRouters"), map[string]any{"virtualRouterName": router,
			"spec": appmesh.VirtualRouterSpec{Listeners: []appmesh.VirtualRouterListener{listener}}}); err != nil {
			return err
		}
		route := routeSpec("unset")
		route.HttpRoute.Action.WeightedTargets[0].VirtualNode = nodeName(i)
		if err := create(meshPath("/virtualRouter/"+router+"/routes"), map[string]any{"routeName": "all", "spec": route}); err != nil {
			return err
		}
	}
	return create(meshPath("/virtualServices"), map[string]any{"virtualServiceName": serviceName(i),
		"spec": appmesh.VirtualServiceSpec{Provider: provider}})
}

// numberHole stands in a spec for a number that differs in every round.
const numberHole = 987654321

func update(api, path string, spec any) (loadrun.Request, error) {
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return loadrun.Request{}, fmt.Errorf("write spec: %w", err)
	}
	text := strings.ReplaceAll(string(body), fmt.Sprint(numberHole), "1000{{.Round}}")
	return loadrun.Request{Method: http.MethodPut, URL: api + meshPath(path), Body: text}, nil
}

// The changes of the benchmark, by name.
const (
	changeRoute   = "one route"
	changeOutlier = "outlier detection"
	changeTLS     = "TLS DISABLED to PERMISSIVE"
)

var changeNames = []string{changeRoute, changeOutlier, changeTLS}

// changes are what is done to the mesh while n proxies look.
func changes(api string, r reach, n int) ([]loadrun.Change, error) {
	reached := r.proxiesReached(n)
	server := "/virtualNodes/" + nodeName(0)
	route, err := update(api, "/virtualRouter/router-000/routes/all", routeSpec("{{.Marker}}"))
	if err != nil {
		return nil, err
	}
	outlier, err := update(api, server, serverSpec(r, numberHole, "DISABLED"))
	if err != nil {
		return nil, err
	}
	permissive, err := update(api, server, serverSpec(r, 10, "PERMISSIVE"))
	if err != nil {
		return nil, err
	}
	disabled, err := update(api, server, serverSpec(r, 10, "DISABLED"))
	if err != nil {
		return nil, err
	}
	return []loadrun.Change{
		{Name: changeRoute, Request: route, Marker: "mk{{.Unique}}", Types: "rds", Expect: reached},
		{Name: changeOutlier, Request: outlier, Types: "cds", Expect: reached},
		{Name: changeTLS, Request: permissive, Undo: &disabled, Types: "cds", Expect: reached},
	}, nil
}
