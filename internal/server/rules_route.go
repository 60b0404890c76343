package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/envoy"
)

var routeRules = []rule[appmesh.RouteSpec]{
	{"B.12 1: a route is of one kind", func(s *appmesh.RouteSpec, f *faults) {
		exactlyOne(f, "spec", members(s), "httpRoute", "http2Route", "grpcRoute", "tcpRoute")
	}},
	{"B.12 7 and 21: weights add up to 1..100, and a target is listed once", routeTargets},
	{"B.12 11 and 13: paths begin with a slash, ranges are not empty", routeMatches},
	{"B.12 12: a gRPC method needs its service", func(s *appmesh.RouteSpec, f *faults) {
		if r := s.GrpcRoute; r != nil && r.Match != nil && r.Match.MethodName != nil && r.Match.ServiceName == nil {
			f.add("spec.grpcRoute.match.methodName", "%q needs serviceName beside it", *r.Match.MethodName)
		}
	}},
	{"B.12 5 and 6: a retry policy names events, and events that exist", routeRetries},
	{"B.1: a duration has a unit and a value", routeDurations},
}

// httpRetryEvents of facts B.7; the model takes any string.
var httpRetryEvents = []string{"server-error", "gateway-error", "client-error", "stream-error"}

func routeTargets(s *appmesh.RouteSpec, f *faults) {
	path, targets := weightedTargets(s)
	var sum int64
	for i, target := range targets {
		if target.Weight != nil {
			sum += *target.Weight
		}
		for _, before := range targets[:i] {
			if before.VirtualNode == target.VirtualNode && samePort(before.Port, target.Port) {
				f.add(fmt.Sprintf("%s[%d].virtualNode", path, i), "%q is a target already: add its weights", target.VirtualNode)
				break
			}
		}
	}
	if len(targets) > 0 && (sum < 1 || sum > 100) {
		f.add(path, "the weights add up to %d, which must be 1 to 100", sum)
	}
}

func samePort(a, b *int64) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// weightedTargets are a route's targets and where they stand.
func weightedTargets(s *appmesh.RouteSpec) (path string, targets []appmesh.WeightedTarget) {
	switch {
	case s.HttpRoute != nil && s.HttpRoute.Action != nil:
		return "spec.httpRoute.action.weightedTargets", s.HttpRoute.Action.WeightedTargets
	case s.Http2Route != nil && s.Http2Route.Action != nil:
		return "spec.http2Route.action.weightedTargets", s.Http2Route.Action.WeightedTargets
	case s.GrpcRoute != nil && s.GrpcRoute.Action != nil:
		return "spec.grpcRoute.action.weightedTargets", s.GrpcRoute.Action.WeightedTargets
	case s.TcpRoute != nil && s.TcpRoute.Action != nil:
		return "spec.tcpRoute.action.weightedTargets", s.TcpRoute.Action.WeightedTargets
	}
	return "spec", nil
}

// routeProtocol is the protocol of a route's kind and the port it matches.
func routeProtocol(s *appmesh.RouteSpec) (protocol appmesh.PortProtocol, path string, port *int64) {
	switch {
	case s.HttpRoute != nil:
		if s.HttpRoute.Match != nil {
			port = s.HttpRoute.Match.Port
		}
		return appmesh.PortProtocolHttp, "spec.httpRoute", port
	case s.Http2Route != nil:
		if s.Http2Route.Match != nil {
			port = s.Http2Route.Match.Port
		}
		return appmesh.PortProtocolHttp2, "spec.http2Route", port
	case s.GrpcRoute != nil:
		if s.GrpcRoute.Match != nil {
			port = s.GrpcRoute.Match.Port
		}
		return appmesh.PortProtocolGrpc, "spec.grpcRoute", port
	case s.TcpRoute != nil:
		if s.TcpRoute.Match != nil {
			port = s.TcpRoute.Match.Port
		}
		return appmesh.PortProtocolTcp, "spec.tcpRoute", port
	}
	return "", "spec", nil
}

func routeMatches(s *appmesh.RouteSpec, f *faults) {
	http := func(path string, r *appmesh.HttpRoute) {
		if r == nil || r.Match == nil {
			return
		}
		path += ".match"
		pathMatch(f, path, r.Match.Prefix, r.Match.Path)
		if len(members(r.Match)) == 0 {
			f.add(path, "at least one criterion must be set")
		}
		for i, h := range r.Match.Headers {
			headerMatch(f, fmt.Sprintf("%s.headers[%d]", path, i), h.Name, h.Match)
		}
		queryMatch(f, path, r.Match.QueryParameters)
	}
	http("spec.httpRoute", s.HttpRoute)
	http("spec.http2Route", s.Http2Route)
	if s.GrpcRoute == nil || s.GrpcRoute.Match == nil {
		return
	}
	m := s.GrpcRoute.Match
	grpcNames(f, "spec.grpcRoute.match", m.ServiceName, m.MethodName)
	for i, h := range m.Metadata {
		headerMatch(f, fmt.Sprintf("spec.grpcRoute.match.metadata[%d]", i), h.Name, (*appmesh.HeaderMatchMethod)(h.Match))
	}
}

// pathMatch: a prefix or a path, not both, each beginning with a slash.
func pathMatch(f *faults, path string, prefix *string, match *appmesh.HttpPathMatch) {
	if prefix != nil {
		if match != nil {
			f.add(path, "prefix and path exclude each other")
		}
		rooted(f, path+".prefix", *prefix)
	}
	if match == nil {
		return
	}
	exactlyOne(f, path+".path", members(match), "exact", "regex")
	if match.Exact != nil {
		rooted(f, path+".path.exact", *match.Exact)
	}
	expression(f, path+".path.regex", match.Regex)
}

// rooted: paths begin with a slash and are visible text.
func rooted(f *faults, path, value string) {
	switch {
	case !strings.HasPrefix(value, "/"):
		f.add(path, "%q must begin with /", value)
	case !cleanText(value):
		f.add(path, "%q has control characters", value)
	}
}

// expression: Envoy's regular expressions are RE2.
func expression(f *faults, path string, value *string) {
	if value == nil {
		return
	}
	if err := envoy.CheckExpression(*value); err != nil {
		f.add(path, "%q is not an RE2 expression: %s", *value, err)
	}
}

// headerMatch: the name can be a header's, the method can match.
func headerMatch(f *faults, path, name string, match *appmesh.HeaderMatchMethod) {
	if !isHeaderName(name) {
		f.add(path+".name", "%q cannot be the name of a header", name)
	}
	if match == nil {
		return
	}
	if r := match.Range; r != nil && r.Start != nil && r.End != nil && *r.End <= *r.Start {
		f.add(path+".match.range", "end %d must be more than start %d", *r.End, *r.Start)
	}
	expression(f, path+".match.regex", match.Regex)
	for member, value := range map[string]*string{"exact": match.Exact, "prefix": match.Prefix, "suffix": match.Suffix} {
		if value != nil && !cleanText(*value) {
			f.add(path+".match."+member, "%q has control characters", *value)
		}
	}
}

// isHeaderName says whether name is a token of RFC 9110, or one of HTTP/2's
// pseudo-headers.
func isHeaderName(name string) bool {
	name = strings.TrimPrefix(name, ":")
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

func queryMatch(f *faults, path string, parameters []appmesh.HttpQueryParameter) {
	for i, q := range parameters {
		at := fmt.Sprintf("%s.queryParameters[%d]", path, i)
		if q.Name == "" || !cleanText(q.Name) {
			f.add(at+".name", "%q cannot be the name of a query parameter", q.Name)
		}
		if q.Match != nil && q.Match.Exact != nil && (*q.Match.Exact == "" || !cleanText(*q.Match.Exact)) {
			f.add(at+".match.exact", "%q cannot be matched: to match any value, leave match out", *q.Match.Exact)
		}
	}
}

// grpcNames: names that can stand in the path /service/method.
func grpcNames(f *faults, path string, service, method *string) {
	if service != nil && !isGRPCName(*service, ".") {
		f.add(path+".serviceName", "%q cannot be the name of a gRPC service", *service)
	}
	if method != nil && !isGRPCName(*method, "") {
		f.add(path+".methodName", "%q cannot be the name of a gRPC method", *method)
	}
}

func isGRPCName(name, also string) bool {
	return name != "" && len(name) <= maxNameLength && !strings.ContainsFunc(name, func(r rune) bool {
		return (r > 0x7f || !isNameByte(byte(r)) || r == '.') && !strings.ContainsRune(also, r)
	})
}

func routeRetries(s *appmesh.RouteSpec, f *faults) {
	events := func(path string, http []string, others int) {
		if len(http)+others == 0 {
			f.add(path, "names no event: set httpRetryEvents, tcpRetryEvents or (gRPC) grpcRetryEvents")
		}
		for i, event := range http {
			if !slices.Contains(httpRetryEvents, event) {
				f.add(fmt.Sprintf("%s.httpRetryEvents[%d]", path, i), "%q is not one of %s", event, strings.Join(httpRetryEvents, ", "))
			}
		}
	}
	http := func(path string, r *appmesh.HttpRoute) {
		if r != nil && r.RetryPolicy != nil {
			events(path+".retryPolicy", r.RetryPolicy.HttpRetryEvents, len(r.RetryPolicy.TcpRetryEvents))
			wholeDuration(f, path+".retryPolicy.perRetryTimeout", r.RetryPolicy.PerRetryTimeout)
			retryCount(f, path, r.RetryPolicy.MaxRetries)
		}
	}
	http("spec.httpRoute", s.HttpRoute)
	http("spec.http2Route", s.Http2Route)
	if r := s.GrpcRoute; r != nil && r.RetryPolicy != nil {
		p := r.RetryPolicy
		events("spec.grpcRoute.retryPolicy", p.HttpRetryEvents, len(p.TcpRetryEvents)+len(p.GrpcRetryEvents))
		wholeDuration(f, "spec.grpcRoute.retryPolicy.perRetryTimeout", p.PerRetryTimeout)
		retryCount(f, "spec.grpcRoute", p.MaxRetries)
	}
}

// retryCount: Envoy counts in 32 bits.
func retryCount(f *faults, path string, count *int64) {
	if count != nil && *count > 1<<31-1 {
		f.add(path+".retryPolicy.maxRetries", "%d is more than %d", *count, 1<<31-1)
	}
}

func routeDurations(s *appmesh.RouteSpec, f *faults) {
	if s.HttpRoute != nil {
		httpTimeout(f, "spec.httpRoute.timeout", s.HttpRoute.Timeout)
	}
	if s.Http2Route != nil {
		httpTimeout(f, "spec.http2Route.timeout", s.Http2Route.Timeout)
	}
	if r := s.GrpcRoute; r != nil && r.Timeout != nil {
		wholeDuration(f, "spec.grpcRoute.timeout.perRequest", r.Timeout.PerRequest)
		wholeDuration(f, "spec.grpcRoute.timeout.idle", r.Timeout.Idle)
	}
	if r := s.TcpRoute; r != nil && r.Timeout != nil {
		wholeDuration(f, "spec.tcpRoute.timeout.idle", r.Timeout.Idle)
	}
}
