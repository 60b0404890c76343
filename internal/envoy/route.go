package envoy

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// A route table is put together from virtual hosts, and these from routes, that
// are serialised already: a host is built once for all tables that have it. The
// numbers of the fields that the parts are:
const (
	tableHostsField = 2 // RouteConfiguration.virtual_hosts
	hostRoutesField = 3 // VirtualHost.routes
)

// table adds a route table. base is the table without its virtual hosts; kind
// tells apart what base differs in.
func (a *assembly) table(kind string, base *routev3.RouteConfiguration, hosts []*unit) error {
	k := a.key.start("table").str(kind).str(base.Name).id(a.endpoint.ID).serials(hosts)
	return a.resource(k, a.endpoint.ID, func(d *draft) (Ref, content) {
		parts := []byte{} // not nil: the table is more than base
		for _, h := range hosts {
			parts = append(parts, h.part...)
			d.refs = append(d.refs, h.refs...)
		}
		d.check(base)
		return Ref{Route, base.Name}, content{Message: base, parts: parts}
	})
}

// host builds a virtual host, or finds it built. make gives its name and
// domains; without domains it is left out.
func (a *assembly) host(k *key, routes []*unit, make func(*draft) (name string, domains []string)) (*unit, error) {
	return a.unit(k.serials(routes), func(d *draft) *unit {
		name, domains := make(d)
		if len(domains) == 0 {
			return &unit{}
		}
		host := d.encode(&routev3.VirtualHost{Name: name, Domains: domains})
		for _, r := range routes {
			host = append(host, r.part...)
			d.refs = append(d.refs, r.refs...)
		}
		part := protowire.AppendTag(nil, tableHostsField, protowire.BytesType)
		return &unit{part: protowire.AppendBytes(part, host), refs: d.references()}
	})
}

// namedHost is a virtual host whose name and domains are known.
func (a *assembly) namedHost(name string, domains []string, routes ...*unit) (*unit, error) {
	k := a.key.start("host").str(name).strs(domains)
	return a.host(k, routes, func(*draft) (string, []string) { return name, domains })
}

// encode serialises a part of a message.
func (d *draft) encode(m proto.Message) []byte {
	d.check(m)
	encoded, err := deterministic.Marshal(m)
	if err != nil {
		d.fail(err)
	}
	return encoded
}

// routes builds the routes of a virtual host, or finds them built.
func (a *assembly) routes(k *key, make func(*draft) []*routev3.Route) (*unit, error) {
	return a.unit(k, func(d *draft) *unit {
		var part []byte
		for _, r := range make(d) {
			part = protowire.AppendTag(part, hostRoutesField, protowire.BytesType)
			part = protowire.AppendBytes(part, d.encode(r))
		}
		return &unit{part: part, refs: d.references()}
	})
}

// serviceRoutes are the routes of a virtual service to one of its ports. With a
// selector they are for requests that name it in the service header, and answer
// all of those.
func (a *assembly) serviceRoutes(b *mesh.Backend, port int64, selector string) (*unit, error) {
	s := b.Service
	k := a.key.start("routes").str(s.Name).int(port).str(selector)
	k.int(int64(len(s.Listeners)))
	for _, l := range s.Listeners {
		k.int(l.Port).str(string(l.Protocol))
	}
	record(record(k, s.Record), s.Router)
	if s.Node != nil {
		k.str("node").str(a.names[b.Edge(listenerOn(s.Node, port))])
	}
	for _, r := range s.Routes {
		record(k, r.Record).int(int64(len(r.Targets)))
		for _, t := range r.Targets {
			k.str(a.names[b.Edge(t.Listener)]).int(t.Weight)
		}
	}
	return a.routes(k, func(d *draft) []*routev3.Route {
		routes := d.provider(a, b, port)
		if selector == "" {
			return routes
		}
		only := headerEquals(serviceHeader, selector)
		for _, r := range routes {
			r.Match.Headers = append(r.Match.Headers, only)
		}
		return append(routes, &routev3.Route{
			Match: &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
				Headers:       []*routev3.HeaderMatcher{only},
			},
			Action: respond(404),
		})
	})
}

func listenerOn(e *mesh.Endpoint, port int64) *mesh.Listener {
	for _, l := range e.Listeners {
		if l.Port == port {
			return l
		}
	}
	return nil
}

// provider spells who answers for a service: nobody, a node, or a router's routes.
func (d *draft) provider(a *assembly, b *mesh.Backend, port int64) []*routev3.Route {
	s := b.Service
	if s.Node != nil {
		action := &routev3.RouteAction{RetryPolicy: d.defaultRetry()}
		node := &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}}
		d.to(node, action, []weighted{{a.names[b.Edge(listenerOn(s.Node, port))], 1}})
		return []*routev3.Route{node}
	}
	var routes []*routev3.Route
	for _, r := range s.Routes {
		c, action := d.routeOf(r)
		if action == nil || !c.on(port) || !speaks(s, port, r.Protocol) {
			continue
		}
		match := d.match(c)
		if match == nil {
			continue
		}
		route := &routev3.Route{Name: r.Record.ID.Name, Match: match}
		d.to(route, action, a.targets(b, r))
		routes = append(routes, route)
	}
	return routes
}

func (a *assembly) targets(b *mesh.Backend, r *mesh.Route) []weighted {
	targets := make([]weighted, len(r.Targets))
	for i, t := range r.Targets {
		targets[i] = weighted{a.names[b.Edge(t.Listener)], t.Weight}
	}
	return targets
}

// speaks says whether a route of this protocol belongs to a port. Only among
// several listeners it makes a difference: a route without a port is for those
// of its protocol.
func speaks(s *mesh.Service, port int64, protocol appmesh.PortProtocol) bool {
	if len(s.Listeners) < 2 {
		return true
	}
	for _, l := range s.Listeners {
		if l.Port == port {
			return l.Protocol == protocol
		}
	}
	return false
}

// routeOf reads a route of any HTTP kind; no action: it is none.
func (d *draft) routeOf(r *mesh.Route) (criteria, *routev3.RouteAction) {
	spec := r.Record.Spec
	http := func(field string, h *appmesh.HttpRoute) (criteria, *routev3.RouteAction) {
		action := &routev3.RouteAction{RetryPolicy: d.httpRetry(h.RetryPolicy)}
		if h.Timeout != nil {
			action.Timeout, action.IdleTimeout = duration(h.Timeout.PerRequest), duration(h.Timeout.Idle)
		}
		return httpCriteria(r.Record.ID, field, h.Match), action
	}
	switch {
	case spec.HttpRoute != nil && spec.HttpRoute.Match != nil:
		return http("spec.httpRoute.match", spec.HttpRoute)
	case spec.Http2Route != nil && spec.Http2Route.Match != nil:
		return http("spec.http2Route.match", spec.Http2Route)
	case spec.GrpcRoute != nil && spec.GrpcRoute.Match != nil:
		g := spec.GrpcRoute
		action := &routev3.RouteAction{RetryPolicy: d.grpcRetry(g.RetryPolicy)}
		if g.Timeout != nil {
			action.Timeout, action.IdleTimeout = duration(g.Timeout.PerRequest), duration(g.Timeout.Idle)
		}
		return grpcCriteria(r.Record.ID, g.Match), action
	}
	return criteria{}, nil
}

// weighted is a target's cluster; an empty one cannot be reached.
type weighted struct {
	cluster string
	weight  int64
}

// reachable leaves out what cannot be reached, and everything if no weight is left.
func reachable(targets []weighted) []weighted {
	var sum int64
	var left []weighted
	for _, t := range targets {
		if t.cluster != "" {
			left, sum = append(left, t), sum+t.weight
		}
	}
	if sum == 0 {
		return nil
	}
	return left
}

// to points a route at its targets. Without any weight it answers 503: Envoy
// refuses a whole table for weights that are all zero.
func (d *draft) to(route *routev3.Route, action *routev3.RouteAction, targets []weighted) {
	switch targets = reachable(targets); len(targets) {
	case 0:
		route.Action = respond(503)
		return
	case 1:
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: d.ref(Cluster, targets[0].cluster)}
	default:
		clusters := &routev3.WeightedCluster{}
		for _, t := range targets {
			clusters.Clusters = append(clusters.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: d.ref(Cluster, t.cluster), Weight: count(t.weight),
			})
		}
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: clusters}
	}
	route.Action = &routev3.Route_Route{Route: action}
}

func respond(status uint32) *routev3.Route_DirectResponse {
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: status}}
}

// never is a timeout that does not end.
func never() *durationpb.Duration { return durationpb.New(time.Duration(0)) }
