package server

import (
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

var gatewayRouteRules = []rule[appmesh.GatewayRouteSpec]{
	{"route-kind", "B.12 1", "a gateway route is of exactly one kind", func(s *appmesh.GatewayRouteSpec, f *faults) {
		exactlyOne(f, "spec", members(s), "httpRoute", "http2Route", "grpcRoute")
	}},
	{"reference-by-name", "A.5", "a target is given by its name, not its ARN", func(s *appmesh.GatewayRouteSpec, f *faults) {
		if target, path, _ := gatewayTarget(s); target != nil && target.VirtualService != nil {
			byName(f, path+".action.target.virtualService.virtualServiceName", target.VirtualService.VirtualServiceName)
		}
	}},
	{"match-criterion", "B.12 14", "a gateway route matches by prefix, path or hostname; a gRPC one by serviceName, hostname or metadata", gatewayCriterion},
	{"reserved", "B.12 14", "paths below /aws-appmesh and /aws-app-mesh and gRPC services below aws.appmesh and aws.app-mesh are reserved", gatewayReserved},
	{"path-match", "B.12 11", "prefix and path exclude each other, path is exact or a regex, each begins with / and is visible text", func(s *appmesh.GatewayRouteSpec, f *faults) {
		eachHTTPGatewayMatch(s, func(path string, m *appmesh.HttpGatewayRouteMatch) { pathMatch(f, path, m.Prefix, m.Path) })
	}},
	{"hostname-match", "B.12 16", "a host name is matched by exact or by suffix, which can be a host name or its end", func(s *appmesh.GatewayRouteSpec, f *faults) {
		eachHTTPGatewayMatch(s, func(path string, m *appmesh.HttpGatewayRouteMatch) { hostnameMatch(f, path, m.Hostname) })
		if s.GrpcRoute != nil && s.GrpcRoute.Match != nil {
			hostnameMatch(f, "spec.grpcRoute.match", s.GrpcRoute.Match.Hostname)
		}
	}},
	{"header-match", "B.12 13", "a header has a name that headers can have, and a match that something can match: a range ends behind its start", func(s *appmesh.GatewayRouteSpec, f *faults) {
		eachHTTPGatewayMatch(s, func(path string, m *appmesh.HttpGatewayRouteMatch) {
			for i, h := range m.Headers {
				headerMatch(f, fmt.Sprintf("%s.headers[%d]", path, i), h.Name, h.Match)
			}
		})
		if s.GrpcRoute != nil && s.GrpcRoute.Match != nil {
			for i, h := range s.GrpcRoute.Match.Metadata {
				headerMatch(f, fmt.Sprintf("spec.grpcRoute.match.metadata[%d]", i), h.Name, (*appmesh.HeaderMatchMethod)(h.Match))
			}
		}
	}},
	{"query-match", "B.8", "a query parameter has a name, and a value unless match is left out", func(s *appmesh.GatewayRouteSpec, f *faults) {
		eachHTTPGatewayMatch(s, func(path string, m *appmesh.HttpGatewayRouteMatch) { queryMatch(f, path, m.QueryParameters) })
	}},
	{"grpc-names", "B.8", "gRPC services have names that can be theirs", func(s *appmesh.GatewayRouteSpec, f *faults) {
		if s.GrpcRoute != nil && s.GrpcRoute.Match != nil {
			grpcNames(f, "spec.grpcRoute.match", s.GrpcRoute.Match.ServiceName, nil)
		}
	}},
	{"prefix-rewrite", "B.12 15", "a prefix is rewritten by defaultPrefix or by value, where match.prefix is set; value begins and ends with /, as match.prefix then does", gatewayPrefixRewrites},
	{"path-rewrite", "B.12 15", "a path is rewritten to one that begins with /, and not together with a prefix", gatewayPathRewrites},
}

// gatewayTarget is the target of a gateway route, where it stands, and the
// port that the route matches.
func gatewayTarget(s *appmesh.GatewayRouteSpec) (target *appmesh.GatewayRouteTarget, path string, matchPort *int64) {
	http := func(r *appmesh.HttpGatewayRoute) (*appmesh.GatewayRouteTarget, *int64) {
		var port *int64
		if r.Match != nil {
			port = r.Match.Port
		}
		if r.Action == nil {
			return nil, port
		}
		return r.Action.Target, port
	}
	switch {
	case s.HttpRoute != nil:
		target, matchPort = http(s.HttpRoute)
		return target, "spec.httpRoute", matchPort
	case s.Http2Route != nil:
		target, matchPort = http(s.Http2Route)
		return target, "spec.http2Route", matchPort
	case s.GrpcRoute != nil:
		if s.GrpcRoute.Match != nil {
			matchPort = s.GrpcRoute.Match.Port
		}
		if s.GrpcRoute.Action != nil {
			target = s.GrpcRoute.Action.Target
		}
		return target, "spec.grpcRoute", matchPort
	}
	return nil, "spec", nil
}

// eachHTTPGatewayMatch visits what HTTP gateway routes match by, and where it
// stands.
func eachHTTPGatewayMatch(s *appmesh.GatewayRouteSpec, visit func(path string, m *appmesh.HttpGatewayRouteMatch)) {
	if s.HttpRoute != nil && s.HttpRoute.Match != nil {
		visit("spec.httpRoute.match", s.HttpRoute.Match)
	}
	if s.Http2Route != nil && s.Http2Route.Match != nil {
		visit("spec.http2Route.match", s.Http2Route.Match)
	}
}

func gatewayCriterion(s *appmesh.GatewayRouteSpec, f *faults) {
	eachHTTPGatewayMatch(s, func(path string, m *appmesh.HttpGatewayRouteMatch) {
		if m.Prefix == nil && m.Path == nil && m.Hostname == nil {
			f.add(path, "at least one of prefix, path and hostname must be set")
		}
	})
	if s.GrpcRoute == nil || s.GrpcRoute.Match == nil {
		return
	}
	if m := s.GrpcRoute.Match; m.ServiceName == nil && m.Hostname == nil && m.Metadata == nil {
		f.add("spec.grpcRoute.match", "at least one of serviceName, hostname and metadata must be set")
	}
}

func gatewayReserved(s *appmesh.GatewayRouteSpec, f *faults) {
	eachHTTPGatewayMatch(s, func(path string, m *appmesh.HttpGatewayRouteMatch) {
		if m.Prefix != nil {
			reservedPath(f, path+".prefix", *m.Prefix)
		}
		if m.Path != nil && m.Path.Exact != nil {
			reservedPath(f, path+".path.exact", *m.Path.Exact)
		}
	})
	if s.GrpcRoute == nil || s.GrpcRoute.Match == nil || s.GrpcRoute.Match.ServiceName == nil {
		return
	}
	if name := *s.GrpcRoute.Match.ServiceName; strings.HasPrefix(name, "aws.app-mesh") || strings.HasPrefix(name, "aws.appmesh") {
		f.add("spec.grpcRoute.match.serviceName", "%q is reserved: names that begin with aws.appmesh or aws.app-mesh are", name)
	}
}

func reservedPath(f *faults, path, value string) {
	if strings.HasPrefix(value, "/aws-appmesh") || strings.HasPrefix(value, "/aws-app-mesh") {
		f.add(path, "%q is reserved: paths that begin with /aws-appmesh or /aws-app-mesh are", value)
	}
}

func hostnameMatch(f *faults, path string, m *appmesh.GatewayRouteHostnameMatch) {
	if m == nil {
		return
	}
	path += ".hostname"
	exactlyOne(f, path, members(m), "exact", "suffix")
	if m.Exact != nil && !isHostname(*m.Exact) && !isIP(*m.Exact) {
		f.add(path+".exact", "%q is not a host name", *m.Exact)
	}
	if m.Suffix != nil && !isHostname(strings.TrimLeft(*m.Suffix, ".-")) {
		f.add(path+".suffix", "%q cannot be the end of a host name", *m.Suffix)
	}
}

// eachRewrite visits the rewrites of HTTP gateway routes, where they stand and
// what is matched there.
func eachRewrite(s *appmesh.GatewayRouteSpec, visit func(path string, r *appmesh.HttpGatewayRouteRewrite, m *appmesh.HttpGatewayRouteMatch)) {
	http := func(path string, r *appmesh.HttpGatewayRoute) {
		if r != nil && r.Action != nil && r.Action.Rewrite != nil && r.Match != nil {
			visit(path+".action.rewrite", r.Action.Rewrite, r.Match)
		}
	}
	http("spec.httpRoute", s.HttpRoute)
	http("spec.http2Route", s.Http2Route)
}

func gatewayPrefixRewrites(s *appmesh.GatewayRouteSpec, f *faults) {
	eachRewrite(s, func(path string, r *appmesh.HttpGatewayRouteRewrite, m *appmesh.HttpGatewayRouteMatch) {
		if r.Prefix != nil {
			prefixRewrite(f, path+".prefix", r.Prefix, m)
		}
	})
}

func gatewayPathRewrites(s *appmesh.GatewayRouteSpec, f *faults) {
	eachRewrite(s, func(path string, r *appmesh.HttpGatewayRouteRewrite, _ *appmesh.HttpGatewayRouteMatch) {
		if r.Path == nil {
			return
		}
		if r.Prefix != nil {
			f.add(path, "prefix and path exclude each other")
		}
		if r.Path.Exact == nil {
			f.add(path+".path.exact", "must be set")
			return
		}
		rooted(f, path+".path.exact", *r.Path.Exact)
	})
}

func prefixRewrite(f *faults, at string, p *appmesh.HttpGatewayRoutePrefixRewrite, m *appmesh.HttpGatewayRouteMatch) {
	exactlyOne(f, at, members(p), "defaultPrefix", "value")
	if m.Prefix == nil {
		f.add(at, "is possible only where match.prefix is set")
	}
	if p.Value == nil {
		return
	}
	if !strings.HasPrefix(*p.Value, "/") || !strings.HasSuffix(*p.Value, "/") || !cleanText(*p.Value) {
		f.add(at+".value", "%q must begin and end with /", *p.Value)
	}
	if m.Prefix != nil && !strings.HasSuffix(*m.Prefix, "/") {
		f.add(at+".value", "%q needs a match.prefix that ends with /, not %q", *p.Value, *m.Prefix)
	}
}
