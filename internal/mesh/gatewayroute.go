package mesh

import (
	"cmp"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
)

// gatewayRoutes resolves a gateway's routes. Their services are the gateway's
// backends, under the policy of its backendDefaults.
func (b *builder) gatewayRoutes(e *Endpoint) {
	seen := map[string]bool{}
	for _, record := range b.byGateway[e.ID.Name] {
		route := b.gatewayRoute(e, record)
		if route == nil {
			continue
		}
		e.GatewayRoutes = append(e.GatewayRoutes, route)
		if !seen[route.Service.Name] {
			seen[route.Service.Name] = true
			e.Backends = append(e.Backends, &Backend{Service: route.Service, Policy: b.defaults[e]})
		}
	}
	slices.SortFunc(e.Backends, func(x, y *Backend) int { return cmp.Compare(x.Service.Name, y.Service.Name) })
}

// routesByGateway puts the gateway routes of each gateway into matching order.
func (b *builder) routesByGateway() {
	b.byGateway = map[string][]*Record[appmesh.GatewayRouteSpec]{}
	for id, record := range b.view.GatewayRoutes {
		if record == nil || record.Spec == nil {
			continue
		}
		if b.view.VirtualGateways[id.Parent] == nil {
			b.problem(id, "", "virtual gateway "+id.Parent+" does not exist")
			continue
		}
		b.byGateway[id.Parent] = append(b.byGateway[id.Parent], record)
	}
	for _, routes := range b.byGateway {
		sortGatewayRoutes(routes)
	}
}

func (b *builder) gatewayRoute(e *Endpoint, record *Record[appmesh.GatewayRouteSpec]) *GatewayRoute {
	protocol, field, target, port := gatewayTarget(record.Spec)
	if target == nil || target.VirtualService == nil {
		b.problem(record.ID, "spec", "the gateway route has no httpRoute, http2Route or grpcRoute with a target")
		return nil
	}
	if port != nil && !slices.ContainsFunc(e.Listeners, func(l *Listener) bool { return l.Port == *port }) {
		b.problem(record.ID, field+".match.port", "virtual gateway "+e.ID.Name+" has no listener on port "+decimal(*port))
	}
	field += ".action.target"
	name, ok := serviceName(target.VirtualService.VirtualServiceName, b.graph.Name)
	if !ok {
		b.problem(record.ID, field+".virtualService.virtualServiceName",
			target.VirtualService.VirtualServiceName+" is not a virtual service of this mesh")
		return nil
	}
	route := &GatewayRoute{
		Record:   record,
		Protocol: protocol,
		Service:  b.service(name, record.ID, field+".virtualService.virtualServiceName"),
	}
	route.Port = b.servicePort(record.ID, field+".port", route.Service, target.Port, protocol)
	return route
}

// servicePort is the port of a service that a gateway route means: the target's
// own, or that of the service's only listener.
func (b *builder) servicePort(id ID, field string, s *Service, port *int64, protocol appmesh.PortProtocol) int64 {
	switch {
	case port != nil:
		if !slices.ContainsFunc(s.Listeners, func(l ServiceListener) bool { return l.Port == *port }) && s.Record != nil {
			b.problem(id, field, "virtual service "+s.Name+" has no listener on port "+decimal(*port))
		}
		return *port
	case len(s.Listeners) == 0:
		return 0
	case len(s.Listeners) == 1:
		return s.Listeners[0].Port
	}
	i := max(0, slices.IndexFunc(s.Listeners, func(l ServiceListener) bool { return l.Protocol == protocol }))
	b.problem(id, field, "virtual service "+s.Name+" has several listeners and the target names none: port "+
		decimal(s.Listeners[i].Port)+" is taken")
	return s.Listeners[i].Port
}

// gatewayTarget reads the one route of a spec: its protocol, the field it
// stands in, its target and the gateway's port that it matches.
func gatewayTarget(spec *appmesh.GatewayRouteSpec) (appmesh.PortProtocol, string, *appmesh.GatewayRouteTarget, *int64) {
	http := func(r *appmesh.HttpGatewayRoute) (*appmesh.GatewayRouteTarget, *int64) {
		if r.Match == nil {
			return r.Action.Target, nil
		}
		return r.Action.Target, r.Match.Port
	}
	switch {
	case spec.HttpRoute != nil && spec.HttpRoute.Action != nil:
		target, port := http(spec.HttpRoute)
		return appmesh.PortProtocolHttp, "spec.httpRoute", target, port
	case spec.Http2Route != nil && spec.Http2Route.Action != nil:
		target, port := http(spec.Http2Route)
		return appmesh.PortProtocolHttp2, "spec.http2Route", target, port
	case spec.GrpcRoute != nil && spec.GrpcRoute.Action != nil:
		var port *int64
		if spec.GrpcRoute.Match != nil {
			port = spec.GrpcRoute.Match.Port
		}
		return appmesh.PortProtocolGrpc, "spec.grpcRoute", spec.GrpcRoute.Action.Target, port
	}
	return "", "spec", nil, nil
}
