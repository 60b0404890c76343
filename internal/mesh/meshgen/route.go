package meshgen

import (
	"fmt"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// router makes a virtual router with listeners and routes. Each route is of the
// protocol of a listener, and so are its targets.
func (g *generator) router(i int) {
	name := fmt.Sprintf("router-%d", i)
	spec := &appmesh.VirtualRouterSpec{}
	for _, number := range some(g, 2, int64(80), 8080, 9090) {
		spec.Listeners = append(spec.Listeners, appmesh.VirtualRouterListener{
			PortMapping: &appmesh.PortMapping{Port: number, Protocol: pick(g, protocols...)}})
	}
	g.view.VirtualRouters[name] = put(g, mesh.ID{Kind: mesh.KindVirtualRouter, Name: name}, spec)
	g.routers = append(g.routers, name)
	for k := range g.IntN(5) {
		id := mesh.ID{Kind: mesh.KindRoute, Parent: name, Name: fmt.Sprintf("route-%d", k)}
		listener := pick(g, spec.Listeners...).PortMapping
		var match *int64
		if len(spec.Listeners) > 1 || g.maybe(3) {
			match = &listener.Port
		}
		g.view.Routes[id] = put(g, id, g.route(listener.Protocol, match))
	}
}

func (g *generator) route(protocol appmesh.PortProtocol, port *int64) *appmesh.RouteSpec {
	spec := &appmesh.RouteSpec{Priority: g.priority()}
	targets := g.targets(protocol)
	switch protocol {
	case appmesh.PortProtocolHttp:
		spec.HttpRoute = g.httpRoute(port, targets)
	case appmesh.PortProtocolHttp2:
		spec.Http2Route = g.httpRoute(port, targets)
		if g.maybe(4) {
			spec.Http2Route.Match.Scheme = new(pick(g, appmesh.HttpSchemeHttp, appmesh.HttpSchemeHttps))
		}
	case appmesh.PortProtocolGrpc:
		spec.GrpcRoute = g.grpcRoute(port, targets)
	case appmesh.PortProtocolTcp:
		spec.TcpRoute = &appmesh.TcpRoute{Action: &appmesh.TcpRouteAction{WeightedTargets: targets}}
		if port != nil {
			spec.TcpRoute.Match = &appmesh.TcpRouteMatch{Port: port}
		}
		if g.maybe(3) {
			spec.TcpRoute.Timeout = &appmesh.TcpTimeout{Idle: g.duration()}
		}
	}
	return spec
}

func (g *generator) priority() *int64 {
	if g.maybe(2) {
		return nil
	}
	return new(g.between(0, 1000))
}

// targets are up to five listeners of the protocol, each with a weight that
// may be 0; together 1 to 100.
func (g *generator) targets(protocol appmesh.PortProtocol) []appmesh.WeightedTarget {
	var targets []appmesh.WeightedTarget
	for _, name := range some(g, 5, g.nodes...) {
		targets = g.target(targets, name, protocol)
	}
	if len(targets) == 0 {
		targets = g.target(targets, g.nodes[0], protocol)
	}
	if *targets[0].Weight == 0 {
		targets[0].Weight = new(int64(1))
	}
	return targets
}

func (g *generator) target(targets []appmesh.WeightedTarget, name string, protocol appmesh.PortProtocol) []appmesh.WeightedTarget {
	ports := g.listenerPorts(name)
	i := slices.IndexFunc(ports, func(p port) bool { return p.protocol == protocol })
	if i < 0 {
		return targets
	}
	t := appmesh.WeightedTarget{VirtualNode: name, Weight: new(g.between(0, 20))}
	if len(ports) > 1 || g.maybe(3) {
		t.Port = &ports[i].number
	}
	return append(targets, t)
}

func (g *generator) httpRoute(port *int64, targets []appmesh.WeightedTarget) *appmesh.HttpRoute {
	r := &appmesh.HttpRoute{
		Match:  &appmesh.HttpRouteMatch{Port: port},
		Action: &appmesh.HttpRouteAction{WeightedTargets: targets},
	}
	r.Match.Prefix, r.Match.Path = g.path()
	if g.maybe(3) {
		r.Match.Headers = g.headers()
	}
	if g.maybe(4) {
		r.Match.QueryParameters = g.queries()
	}
	if g.maybe(4) {
		r.Match.Method = g.method()
	}
	if g.maybe(3) {
		r.Timeout = g.httpTimeout()
	}
	if g.maybe(3) {
		r.RetryPolicy = &appmesh.HttpRetryPolicy{MaxRetries: new(g.between(0, 5)), PerRetryTimeout: g.duration(),
			HttpRetryEvents: g.retryEvents()}
		if g.maybe(2) {
			r.RetryPolicy.TcpRetryEvents = []appmesh.TcpRetryPolicyEvent{appmesh.TcpRetryPolicyEventConnectionError}
		}
	}
	return r
}

func (g *generator) retryEvents() []string {
	return some(g, 4, "server-error", "gateway-error", "client-error", "stream-error")
}

func (g *generator) grpcRoute(port *int64, targets []appmesh.WeightedTarget) *appmesh.GrpcRoute {
	r := &appmesh.GrpcRoute{
		Match:  &appmesh.GrpcRouteMatch{Port: port},
		Action: &appmesh.GrpcRouteAction{WeightedTargets: targets},
	}
	if g.maybe(2) {
		r.Match.ServiceName = new("random.v1.Echo")
		if g.maybe(2) {
			r.Match.MethodName = new("Say")
		}
	}
	if g.maybe(3) {
		for _, h := range g.headers() {
			r.Match.Metadata = append(r.Match.Metadata, appmesh.GrpcRouteMetadata{
				Name: h.Name, Invert: h.Invert, Match: (*appmesh.GrpcRouteMetadataMatchMethod)(h.Match)})
		}
	}
	if g.maybe(3) {
		r.Timeout = (*appmesh.GrpcTimeout)(g.httpTimeout())
	}
	if g.maybe(3) {
		r.RetryPolicy = &appmesh.GrpcRetryPolicy{MaxRetries: new(g.between(0, 5)), PerRetryTimeout: g.duration()}
		for _, event := range some(g, 5, appmesh.GrpcRetryPolicyEvent("").Enum()...) {
			r.RetryPolicy.GrpcRetryEvents = append(r.RetryPolicy.GrpcRetryEvents, appmesh.GrpcRetryPolicyEvent(event))
		}
		if g.maybe(2) {
			r.RetryPolicy.HttpRetryEvents = g.retryEvents()
		}
	}
	return r
}

// path is a prefix or a path; neither stands for itself only beside other
// criteria, so one of them is always there.
func (g *generator) path() (prefix *string, path *appmesh.HttpPathMatch) {
	switch g.IntN(5) {
	case 0:
		return nil, &appmesh.HttpPathMatch{Exact: new(pick(g, "/", "/exact", "/a/b.html"))}
	case 1:
		return nil, &appmesh.HttpPathMatch{Regex: new(pick(g, "/items/[0-9]+", "/.*\\.png", "/(a|b)/c?"))}
	case 2:
		return new("/"), nil
	}
	return new(pick(g, "/api", "/api/", "/api/v2", "/shop")), nil
}

func (g *generator) method() *appmesh.HttpMethod {
	return new(appmesh.HttpMethod(pick(g, appmesh.HttpMethod("").Enum()...)))
}

func (g *generator) queries() []appmesh.HttpQueryParameter {
	var out []appmesh.HttpQueryParameter
	for _, name := range some(g, 2, "page", "debug", "q") {
		q := appmesh.HttpQueryParameter{Name: name}
		if g.maybe(2) {
			q.Match = &appmesh.QueryParameterMatch{Exact: new("1")}
		}
		out = append(out, q)
	}
	return out
}

func (g *generator) headers() []appmesh.HttpRouteHeader {
	var out []appmesh.HttpRouteHeader
	for _, name := range some(g, 3, "x-user", "x-version", "cookie", "X-Mixed-Case", "x-number") {
		h := appmesh.HttpRouteHeader{Name: name, Match: g.headerMatch()}
		if g.maybe(3) {
			h.Invert = new(g.maybe(2))
		}
		out = append(out, h)
	}
	return out
}

func (g *generator) headerMatch() *appmesh.HeaderMatchMethod {
	switch g.IntN(6) {
	case 0:
		return &appmesh.HeaderMatchMethod{Exact: new("one")}
	case 1:
		return &appmesh.HeaderMatchMethod{Prefix: new("on")}
	case 2:
		return &appmesh.HeaderMatchMethod{Suffix: new("ne")}
	case 3:
		return &appmesh.HeaderMatchMethod{Regex: new("o.e|tw[op]")}
	case 4:
		start := g.between(-100, 100)
		return &appmesh.HeaderMatchMethod{Range: &appmesh.MatchRange{Start: &start, End: new(start + g.between(1, 100))}}
	}
	return nil
}
