package mesh

import (
	"cmp"
	"maps"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
)

// routed is a virtual router with its routes, shared by all services that it
// provides.
type routed struct {
	record    *Record[appmesh.VirtualRouterSpec]
	routes    []*Route
	listeners []ServiceListener
}

// reach is what lies behind a service.
type reach struct {
	hops    []Target // each node and listener once, in a stable order; weights are 0
	origins []int    // numbers of originOf, each once
	names   []string // the service's own name alone
}

// routers resolves all virtual routers and their routes.
func (b *builder) routers() {
	byRouter := map[string][]*Record[appmesh.RouteSpec]{}
	for id, record := range b.view.Routes {
		if record == nil || record.Spec == nil {
			continue
		}
		if b.view.VirtualRouters[id.Parent] == nil {
			b.problem(id, "", "virtual router "+id.Parent+" does not exist")
			continue
		}
		byRouter[id.Parent] = append(byRouter[id.Parent], record)
	}
	b.routed = make(map[string]*routed, len(b.view.VirtualRouters))
	for name, record := range b.view.VirtualRouters {
		if record == nil {
			continue
		}
		r := &routed{record: record}
		sortRoutes(byRouter[name])
		for _, route := range byRouter[name] {
			if resolved := b.route(route); resolved != nil {
				r.routes = append(r.routes, resolved)
			}
		}
		r.listeners = b.routerListeners(r)
		b.routed[name] = r
	}
}

// routerListeners are the router's own, or without any the listeners of its
// routes' targets (facts/appmesh-api.md B.5).
func (b *builder) routerListeners(r *routed) []ServiceListener {
	var listeners []ServiceListener
	if r.record.Spec != nil {
		for i, l := range r.record.Spec.Listeners {
			if l.PortMapping == nil {
				b.problem(r.record.ID, index("spec.listeners", i)+".portMapping", "the listener has no port mapping")
				continue
			}
			listeners = append(listeners, ServiceListener{l.PortMapping.Port, l.PortMapping.Protocol})
		}
	}
	if len(listeners) == 0 {
		for _, route := range r.routes {
			for _, t := range route.Targets {
				listeners = append(listeners, ServiceListener{t.Listener.Port, t.Listener.Protocol})
			}
		}
	}
	return b.distinct(r.record.ID, listeners)
}

// distinct sorts listeners by port and keeps one of each port: of two
// protocols on one port the first by name, which is a problem.
func (b *builder) distinct(id ID, listeners []ServiceListener) []ServiceListener {
	slices.SortFunc(listeners, func(x, y ServiceListener) int {
		return cmp.Or(cmp.Compare(x.Port, y.Port), cmp.Compare(x.Protocol, y.Protocol))
	})
	return slices.CompactFunc(listeners, func(x, y ServiceListener) bool {
		if x.Port == y.Port && x.Protocol != y.Protocol {
			b.problem(id, "spec", "port "+decimal(x.Port)+" is both "+string(x.Protocol)+" and "+string(y.Protocol)+
				", by its listeners or those of its routes' targets: the first counts")
		}
		return x.Port == y.Port
	})
}

// route finds a route's targets; nil if the spec has no route in it.
func (b *builder) route(record *Record[appmesh.RouteSpec]) *Route {
	protocol, field, targets := weightedTargets(record.Spec)
	if protocol == "" {
		b.problem(record.ID, "spec", "the route has no httpRoute, http2Route, grpcRoute or tcpRoute with an action")
		return nil
	}
	route := &Route{Record: record, Protocol: protocol, Targets: make([]Target, 0, len(targets))}
	for i := range targets {
		field := index(field+".action.weightedTargets", i)
		node := b.graph.Endpoints[ID{Kind: KindVirtualNode, Name: targets[i].VirtualNode}]
		if node == nil {
			b.problem(record.ID, field+".virtualNode", "virtual node "+targets[i].VirtualNode+" does not exist")
			continue
		}
		listener := b.targetListener(record.ID, field, node, targets[i].Port, protocol)
		if listener == nil {
			continue
		}
		route.Targets = append(route.Targets, Target{Node: node, Listener: listener, Weight: deref(targets[i].Weight)})
	}
	return route
}

// targetListener is the listener of a node that a weighted target means: that
// of its port, or the node's only one.
func (b *builder) targetListener(id ID, field string, node *Endpoint, port *int64, protocol appmesh.PortProtocol) *Listener {
	if len(node.Listeners) == 0 {
		b.problem(id, field+".virtualNode", "virtual node "+node.ID.Name+" has no listener")
		return nil
	}
	listener := node.Listeners[0]
	switch {
	case port != nil:
		i := slices.IndexFunc(node.Listeners, func(l *Listener) bool { return l.Port == *port })
		if i < 0 {
			b.problem(id, field+".port", "virtual node "+node.ID.Name+" has no listener on port "+decimal(*port))
			return nil
		}
		listener = node.Listeners[i]
	case len(node.Listeners) > 1:
		i := slices.IndexFunc(node.Listeners, func(l *Listener) bool { return l.Protocol == protocol })
		listener = node.Listeners[max(i, 0)]
		b.problem(id, field+".port", "virtual node "+node.ID.Name+" has several listeners and the target names none: port "+
			decimal(listener.Port)+" is taken")
	}
	if listener.Protocol != protocol {
		b.problem(id, field, "the route is "+string(protocol)+", but port "+decimal(listener.Port)+" of virtual node "+
			node.ID.Name+" is "+string(listener.Protocol))
	}
	return listener
}

// weightedTargets reads the one route of a spec: its protocol, the field it
// stands in, and its targets.
func weightedTargets(spec *appmesh.RouteSpec) (appmesh.PortProtocol, string, []appmesh.WeightedTarget) {
	switch {
	case spec.HttpRoute != nil && spec.HttpRoute.Action != nil:
		return appmesh.PortProtocolHttp, "spec.httpRoute", spec.HttpRoute.Action.WeightedTargets
	case spec.Http2Route != nil && spec.Http2Route.Action != nil:
		return appmesh.PortProtocolHttp2, "spec.http2Route", spec.Http2Route.Action.WeightedTargets
	case spec.GrpcRoute != nil && spec.GrpcRoute.Action != nil:
		return appmesh.PortProtocolGrpc, "spec.grpcRoute", spec.GrpcRoute.Action.WeightedTargets
	case spec.TcpRoute != nil && spec.TcpRoute.Action != nil:
		return appmesh.PortProtocolTcp, "spec.tcpRoute", spec.TcpRoute.Action.WeightedTargets
	}
	return "", "", nil
}

// services resolves the providers of all virtual services.
func (b *builder) services() {
	for _, name := range slices.Sorted(maps.Keys(b.view.VirtualServices)) {
		record := b.view.VirtualServices[name]
		if record == nil {
			continue
		}
		s := &Service{Name: name, Record: record}
		b.provide(s)
		b.graph.Services[name] = s
		b.reach[s] = b.behind(s)
	}
}

func (b *builder) provide(s *Service) {
	if s.Record.Spec == nil || s.Record.Spec.Provider == nil {
		return
	}
	id := ID{Kind: KindVirtualService, Name: s.Name}
	switch p := s.Record.Spec.Provider; {
	case p.VirtualNode != nil:
		s.Node = b.graph.Endpoints[ID{Kind: KindVirtualNode, Name: p.VirtualNode.VirtualNodeName}]
		if s.Node == nil {
			b.problem(id, "spec.provider.virtualNode.virtualNodeName", "virtual node "+p.VirtualNode.VirtualNodeName+" does not exist")
			return
		}
		for _, l := range s.Node.Listeners {
			s.Listeners = append(s.Listeners, ServiceListener{l.Port, l.Protocol})
		}
		s.Listeners = b.distinct(id, s.Listeners)
	case p.VirtualRouter != nil:
		r := b.routed[p.VirtualRouter.VirtualRouterName]
		if r == nil {
			b.problem(id, "spec.provider.virtualRouter.virtualRouterName", "virtual router "+p.VirtualRouter.VirtualRouterName+" does not exist")
			return
		}
		s.Router, s.Routes, s.Listeners = r.record, r.routes, r.listeners
	}
}

// behind lists what a service reaches, and the records that say so.
func (b *builder) behind(s *Service) *reach {
	r := &reach{names: []string{s.Name}}
	from := func(id ID) { r.origins = append(r.origins, b.origin.number[id]) }
	from(ID{Kind: KindVirtualService, Name: s.Name})
	if s.Node != nil {
		from(s.Node.ID)
		for _, l := range s.Node.Listeners {
			r.hops = append(r.hops, Target{Node: s.Node, Listener: l})
		}
	}
	if s.Router != nil {
		from(s.Router.ID)
	}
	for _, route := range s.Routes {
		from(route.Record.ID)
		for _, t := range route.Targets {
			from(t.Node.ID)
			r.hops = append(r.hops, Target{Node: t.Node, Listener: t.Listener})
		}
	}
	slices.Sort(r.origins)
	r.origins = slices.Compact(r.origins)
	slices.SortFunc(r.hops, func(x, y Target) int {
		return cmp.Or(cmp.Compare(x.Node.ID.Name, y.Node.ID.Name), cmp.Compare(x.Listener.Port, y.Listener.Port))
	})
	r.hops = slices.CompactFunc(r.hops, func(x, y Target) bool { return x.Listener == y.Listener })
	return r
}

// service finds a virtual service. One that nobody made is in the Graph all
// the same, without a record: what names it is answered 404.
func (b *builder) service(name string, referrer ID, field string) *Service {
	s := b.graph.Services[name]
	if s == nil {
		s = &Service{Name: name}
		b.graph.Services[name] = s
	}
	if s.Record == nil {
		b.problem(referrer, field, "virtual service "+name+" does not exist")
	}
	return s
}
