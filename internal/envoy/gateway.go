package envoy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// A gateway passes a request through its Envoy twice: its listener finds the
// virtual service by gateway routes and hands the request to the gateway's own
// egress, which routes it as any client's.

// selector picks a service on a gateway's loop where the authority cannot: the
// service header carries the value.
type selector struct {
	value   string
	backend *mesh.Backend
	port    int64
}

// selectorOf is the value of the service header that a gateway route needs;
// empty: it needs none, the authority is rewritten to the service's name.
func selectorOf(r *mesh.GatewayRoute) string {
	several := len(r.Service.Listeners) > 1
	if rewritesHost(r.Record.Spec) && !several {
		return ""
	}
	if several {
		return fmt.Sprintf("%s:%d", r.Service.Name, r.Port)
	}
	return r.Service.Name
}

// rewritesHost says whether a gateway route makes the service's name the
// authority, as it does unless it says otherwise.
func rewritesHost(spec *appmesh.GatewayRouteSpec) bool {
	var host *appmesh.GatewayRouteHostnameRewrite
	http, _ := httpGatewayRoute(spec)
	switch {
	case http != nil && http.Action != nil && http.Action.Rewrite != nil:
		host = http.Action.Rewrite.Hostname
	case spec.GrpcRoute != nil && spec.GrpcRoute.Action != nil && spec.GrpcRoute.Action.Rewrite != nil:
		host = spec.GrpcRoute.Action.Rewrite.Hostname
	}
	return host == nil || deref(host.DefaultTargetHostname) != appmesh.DefaultGatewayRouteRewriteDisabled
}

func httpGatewayRoute(spec *appmesh.GatewayRouteSpec) (*appmesh.HttpGatewayRoute, string) {
	if spec.Http2Route != nil {
		return spec.Http2Route, "spec.http2Route.match"
	}
	return spec.HttpRoute, "spec.httpRoute.match"
}

// selectors are those of all the gateway's routes, each once.
func (a *assembly) selectors() []selector {
	var all []selector
	for _, r := range a.endpoint.GatewayRoutes {
		value := selectorOf(r)
		if value == "" {
			continue
		}
		i := slices.IndexFunc(a.endpoint.Backends, func(b *mesh.Backend) bool { return b.Service == r.Service })
		if i >= 0 {
			all = append(all, selector{value, a.endpoint.Backends[i], r.Port})
		}
	}
	slices.SortFunc(all, func(x, y selector) int { return cmp.Compare(x.value, y.value) })
	return slices.CompactFunc(all, func(x, y selector) bool { return x.value == y.value })
}

// gateway adds what a virtual gateway's proxy receives by: for each listener a
// port of its own, its routes, and the cluster of the loop.
func (a *assembly) gateway() error {
	e := a.endpoint
	for _, l := range e.Listeners {
		takes := a.accept(l)
		if !takes.anything() {
			continue
		}
		if err := a.loop(l); err != nil {
			return err
		}
		if err := a.gatewayTable(l); err != nil {
			return err
		}
		k := a.key.start("gateway").endpoint(e).int(l.Port).listenerTLS(&l.TLS).bool(takes.tls).str(a.shape.Bind).bool(a.shape.Agent).bool(a.shape.Provider).str(string(e.IPPreference))
		name := gatewayListener(l.Port)
		err := a.resource(k, e.ID, func(d *draft) (Ref, content) {
			return Ref{Listener, name}, content{Message: d.gatewayListener(a, name, l, takes)}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *draft) gatewayListener(a *assembly, name string, l *mesh.Listener, takes accepts) *listenerv3.Listener {
	e := a.endpoint
	at := bind{ports: []int64{l.Port}, stats: l.Port}
	at.host, at.dual = anyHost(e.IPPreference)
	if a.shape.Direct() {
		at.host, at.dual = a.shape.Bind, false
	}
	listener := at.listener(name, corev3.TrafficDirection_INBOUND)
	stats := ingressStats(l.Protocol, l.Port, len(e.Listeners) > 1)
	chain := fmt.Sprintf("ingress_%s_%d", l.Protocol, l.Port)
	listener.FilterChains = d.chains(chain, l, takes, nil, a.sources(), func() *listenerv3.Filter {
		return d.http(stats, ingressTable(l.Protocol, l.Port), e)
	})
	if inspects(l) {
		d.inspectTLS(listener)
	}
	return listener
}

func (a *assembly) loopName(l *mesh.Listener) string {
	return selfRedirectCluster(a.graph.Name.Mesh, a.endpoint.ID.Name, l.Protocol, l.Port, len(a.endpoint.Listeners) > 1)
}

// loop adds the cluster from a gateway's listener to the gateway's own egress.
// The listener's connection pool limits it.
func (a *assembly) loop(l *mesh.Listener) error {
	name := a.loopName(l)
	k := a.key.start("loop").str(name).endpoint(a.endpoint).int(l.Port).str(a.shape.Bind)
	return a.resource(k, a.endpoint.ID, func(d *draft) (Ref, content) {
		host := a.shape.Bind
		if host == "" {
			host = "127.0.0.1"
		}
		return Ref{Cluster, name}, content{Message: d.ingressCluster(name, host, egressPort, l.Protocol, gatewayPool(l.Gateway.ConnectionPool))}
	})
}

func gatewayPool(p *appmesh.VirtualGatewayConnectionPool) limits {
	switch {
	case p == nil:
	case p.HTTP != nil:
		return limits{connections: p.HTTP.MaxConnections, pending: deref(p.HTTP.MaxPendingRequests)}
	case p.HTTP2 != nil:
		return limits{requests: p.HTTP2.MaxRequests}
	case p.GRPC != nil:
		return limits{requests: p.GRPC.MaxRequests}
	}
	return limits{}
}

// gatewayTable adds the table of a gateway's listener. Envoy looks into one
// virtual host only, the most specific one for the request's host: so each has
// all routes that may apply there, those without a hostname too.
func (a *assembly) gatewayTable(l *mesh.Listener) error {
	var here []*mesh.GatewayRoute
	for _, r := range a.endpoint.GatewayRoutes {
		if c, _, ok := gatewayMatch(r.Record); ok && c.on(l.Port) {
			here = append(here, r)
		}
	}
	var hosts []*unit
	for _, p := range hostPatterns(here) {
		k := a.key.start("gateway routes").str(a.loopName(l)).str(string(p))
		for _, r := range here {
			record(k, r.Record).str(selectorOf(r)).str(r.Service.Name)
		}
		u, err := a.routes(k, func(d *draft) []*routev3.Route {
			var routes []*routev3.Route
			for _, r := range here {
				if patternOf(hostnameMatch(r.Record.Spec)).covers(p) {
					routes = append(routes, d.gatewayRoute(a.loopName(l), r)...)
				}
			}
			return routes
		})
		if err != nil {
			return err
		}
		h, err := a.namedHost(p.hostName(), []string{string(p)}, u)
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	base := &routev3.RouteConfiguration{Name: ingressTable(l.Protocol, l.Port), IgnorePortInHostMatching: true}
	return a.table("gateway ingress", base, hosts)
}

// pattern is a set of hosts as Envoy spells it: a host, * and a suffix, or *.
type pattern string

const everyHost pattern = "*"

func (p pattern) hostName() string {
	if p == everyHost {
		return "self_redirect"
	}
	return "self_redirect " + string(p)
}

// covers says whether every host of other is one of p.
func (p pattern) covers(other pattern) bool {
	suffix, wild := strings.CutPrefix(string(p), "*")
	// A suffix without a dot in front is a host as well (hostPatterns).
	return p == other || wild && strings.HasSuffix(string(other), suffix)
}

func hostnameMatch(spec *appmesh.GatewayRouteSpec) *appmesh.GatewayRouteHostnameMatch {
	http, _ := httpGatewayRoute(spec)
	switch {
	case http != nil && http.Match != nil:
		return http.Match.Hostname
	case spec.GrpcRoute != nil && spec.GrpcRoute.Match != nil:
		return spec.GrpcRoute.Match.Hostname
	}
	return nil
}

func patternOf(m *appmesh.GatewayRouteHostnameMatch) pattern {
	switch {
	case m == nil:
	case m.Exact != nil:
		return pattern(strings.ToLower(*m.Exact))
	case m.Suffix != nil:
		return pattern("*" + strings.ToLower(strings.TrimPrefix(*m.Suffix, "*")))
	}
	return everyHost
}

// hostPatterns are the virtual hosts that a table needs, the catch-all always.
func hostPatterns(routes []*mesh.GatewayRoute) []pattern {
	patterns := []pattern{everyHost}
	for _, r := range routes {
		p := patternOf(hostnameMatch(r.Record.Spec))
		patterns = append(patterns, p)
		// The hosts that end in example.com include example.com, but Envoy's
		// *example.com does not.
		if host, wild := strings.CutPrefix(string(p), "*"); wild && host != "" && !strings.HasPrefix(host, ".") {
			patterns = append(patterns, pattern(host))
		}
	}
	slices.Sort(patterns)
	return slices.Compact(patterns)
}

// gatewayMatch reads a gateway route of any kind; not ok: it is none.
func gatewayMatch(r *mesh.Record[appmesh.GatewayRouteSpec]) (c criteria, rewrite *appmesh.HttpGatewayRouteRewrite, ok bool) {
	http, field := httpGatewayRoute(r.Spec)
	switch {
	case http != nil && http.Match != nil:
		if http.Action != nil {
			rewrite = http.Action.Rewrite
		}
		return httpGatewayCriteria(r.ID, field, http.Match), rewrite, true
	case r.Spec.GrpcRoute != nil && r.Spec.GrpcRoute.Match != nil:
		return grpcGatewayCriteria(r.ID, r.Spec.GrpcRoute.Match), nil, true
	}
	return criteria{}, nil, false
}

// gatewayRoute spells a gateway route to a listener's loop.
func (d *draft) gatewayRoute(loop string, r *mesh.GatewayRoute) []*routev3.Route {
	c, rewrite, _ := gatewayMatch(r.Record)
	var routes []*routev3.Route
	for _, prefix := range prefixes(c, r.Protocol != appmesh.PortProtocolGrpc, rewrite) {
		c.prefix = prefix.match
		match := d.match(c)
		if match == nil {
			return nil
		}
		action := d.loopAction(loop, r)
		prefix.apply(match, action)
		route := &routev3.Route{
			Name: c.id.Name, Match: match, Action: &routev3.Route_Route{Route: action},
			// Nobody outside may say where a request goes.
			RequestHeadersToRemove: []string{serviceHeader},
		}
		if value := selectorOf(r); value != "" {
			route.RequestHeadersToAdd = []*corev3.HeaderValueOption{{
				Header:       &corev3.HeaderValue{Key: serviceHeader, Value: value},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}}
		}
		routes = append(routes, route)
	}
	return routes
}

// loopAction hands a request to the gateway's egress. The timeouts are those of
// the service's route, there.
func (d *draft) loopAction(loop string, r *mesh.GatewayRoute) *routev3.RouteAction {
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: d.ref(Cluster, loop)},
		Timeout:          never(),
		IdleTimeout:      never(),
	}
	if rewritesHost(r.Record.Spec) {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Service.Name}
	}
	return action
}

// pathRewrite is what becomes of a path: one match of a gateway route, which
// may need two.
type pathRewrite struct {
	match string // prefix; empty: the route matches otherwise
	to    string // instead of the prefix or, without one, of the path; empty: nothing changes
}

// prefixes are the matches and rewrites of a gateway route's path. A prefix /x
// that becomes / needs /x/ first, or /x/y would become //y.
func prefixes(c criteria, http bool, rewrite *appmesh.HttpGatewayRouteRewrite) []pathRewrite {
	switch {
	case !http:
		return []pathRewrite{{match: c.prefix}}
	case c.prefix == "" && rewrite != nil && rewrite.Path != nil && rewrite.Path.Exact != nil:
		return []pathRewrite{{to: *rewrite.Path.Exact}}
	case c.prefix == "":
		return []pathRewrite{{}}
	}
	to := "/"
	if rewrite != nil && rewrite.Prefix != nil {
		switch p := rewrite.Prefix; {
		case p.Value != nil:
			to = *p.Value
		case deref(p.DefaultPrefix) == appmesh.DefaultGatewayRouteRewriteDisabled:
			to = ""
		}
	}
	if to == "" || to == c.prefix {
		return []pathRewrite{{match: c.prefix}}
	}
	if strings.HasSuffix(c.prefix, "/") || !strings.HasSuffix(to, "/") {
		return []pathRewrite{{c.prefix, to}}
	}
	return []pathRewrite{{c.prefix + "/", to}, {c.prefix, to}}
}

func (p pathRewrite) apply(match *routev3.RouteMatch, action *routev3.RouteAction) {
	_, exact := match.PathSpecifier.(*routev3.RouteMatch_Path)
	switch {
	case p.to == "":
	case exact || p.match != "": // instead of what matched
		action.PrefixRewrite = p.to
	default: // instead of the whole path
		action.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern:      &matcherv3.RegexMatcher{Regex: "^.*$"},
			Substitution: strings.ReplaceAll(p.to, `\`, `\\`),
		}
	}
}
