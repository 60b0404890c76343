package server

import (
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

var gatewayRouteRules = []rule[appmesh.GatewayRouteSpec]{
	{"B.12 1: a gateway route is of one kind", func(s *appmesh.GatewayRouteSpec, f *faults) {
		exactlyOne(f, "spec", members(s), "httpRoute", "http2Route", "grpcRoute")
	}},
	{"B.12 11, 13, 14, 16: a gateway route matches something, and not what is reserved", gatewayMatches},
	{"B.12 15: a rewrite fits what is matched", gatewayRewrites},
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

func gatewayMatches(s *appmesh.GatewayRouteSpec, f *faults) {
	httpGatewayMatch(f, "spec.httpRoute", s.HttpRoute)
	httpGatewayMatch(f, "spec.http2Route", s.Http2Route)
	if s.GrpcRoute == nil || s.GrpcRoute.Match == nil {
		return
	}
	m, path := s.GrpcRoute.Match, "spec.grpcRoute.match"
	if m.ServiceName == nil && m.Hostname == nil && m.Metadata == nil {
		f.add(path, "at least one of serviceName, hostname and metadata must be set")
	}
	grpcNames(f, path, m.ServiceName, nil)
	if m.ServiceName != nil && (strings.HasPrefix(*m.ServiceName, "aws.app-mesh") || strings.HasPrefix(*m.ServiceName, "aws.appmesh")) {
		f.add(path+".serviceName", "%q is reserved: names that begin with aws.appmesh or aws.app-mesh are", *m.ServiceName)
	}
	hostnameMatch(f, path, m.Hostname)
	for i, h := range m.Metadata {
		headerMatch(f, fmt.Sprintf("%s.metadata[%d]", path, i), h.Name, (*appmesh.HeaderMatchMethod)(h.Match))
	}
}

func httpGatewayMatch(f *faults, path string, r *appmesh.HttpGatewayRoute) {
	if r == nil || r.Match == nil {
		return
	}
	m := r.Match
	path += ".match"
	if m.Prefix == nil && m.Path == nil && m.Hostname == nil {
		f.add(path, "at least one of prefix, path and hostname must be set")
	}
	pathMatch(f, path, m.Prefix, m.Path)
	if m.Prefix != nil {
		reservedPath(f, path+".prefix", *m.Prefix)
	}
	if m.Path != nil && m.Path.Exact != nil {
		reservedPath(f, path+".path.exact", *m.Path.Exact)
	}
	hostnameMatch(f, path, m.Hostname)
	for i, h := range m.Headers {
		headerMatch(f, fmt.Sprintf("%s.headers[%d]", path, i), h.Name, h.Match)
	}
	queryMatch(f, path, m.QueryParameters)
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

func gatewayRewrites(s *appmesh.GatewayRouteSpec, f *faults) {
	http := func(path string, r *appmesh.HttpGatewayRoute) {
		if r == nil || r.Action == nil || r.Action.Rewrite == nil || r.Match == nil {
			return
		}
		rewrite, at := r.Action.Rewrite, path+".action.rewrite"
		if rewrite.Prefix != nil && rewrite.Path != nil {
			f.add(at, "prefix and path exclude each other")
		}
		if rewrite.Prefix != nil {
			prefixRewrite(f, at+".prefix", rewrite.Prefix, r.Match)
		}
		if rewrite.Path == nil {
			return
		}
		switch {
		case rewrite.Path.Exact == nil:
			f.add(at+".path.exact", "must be set")
		case !strings.HasPrefix(*rewrite.Path.Exact, "/"):
			f.add(at+".path.exact", "%q must begin with /", *rewrite.Path.Exact)
		}
	}
	http("spec.httpRoute", s.HttpRoute)
	http("spec.http2Route", s.Http2Route)
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
