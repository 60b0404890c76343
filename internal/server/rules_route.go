package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/envoy"
)

var routeRules = []rule[appmesh.RouteSpec]{
	{"route-kind", "B.12 1", "a route is of exactly one kind", func(s *appmesh.RouteSpec, f *faults) {
		exactlyOne(f, "spec", members(s), "httpRoute", "http2Route", "grpcRoute", "tcpRoute")
	}},
	{"weights", "B.12 7", "the weights of a route add up to 1 to 100", routeWeights},
	{"target-once", "B.12 21", "a target is listed once for each port", targetOnce},
	{"reference-by-name", "A.5", "a target is given by its name, not its ARN", func(s *appmesh.RouteSpec, f *faults) {
		path, targets := weightedTargets(s)
		for i, target := range targets {
			byName(f, fmt.Sprintf("%s[%d].virtualNode", path, i), target.VirtualNode)
		}
	}},
	{"match-criterion", "B.7", "an HTTP route matches by something", routeCriterion},
	{"path-match", "B.12 11", "prefix and path exclude each other, path is exact or a regex, each begins with / and is visible text", func(s *appmesh.RouteSpec, f *faults) {
		eachHTTPMatch(s, func(path string, m *appmesh.HttpRouteMatch) { pathMatch(f, path, m.Prefix, m.Path) })
	}},
	{"header-match", "B.12 13", "a header has a name that headers can have, and a match that something can match: a range ends behind its start", func(s *appmesh.RouteSpec, f *faults) {
		eachHTTPMatch(s, func(path string, m *appmesh.HttpRouteMatch) { headerMatches(f, path, m.Headers) })
		if s.GrpcRoute != nil && s.GrpcRoute.Match != nil {
			for i, h := range s.GrpcRoute.Match.Metadata {
				headerMatch(f, fmt.Sprintf("spec.grpcRoute.match.metadata[%d]", i), h.Name, (*appmesh.HeaderMatchMethod)(h.Match))
			}
		}
	}},
	{"query-match", "B.7", "a query parameter has a name, and a value unless match is left out", func(s *appmesh.RouteSpec, f *faults) {
		eachHTTPMatch(s, func(path string, m *appmesh.HttpRouteMatch) { queryMatch(f, path, m.QueryParameters) })
	}},
	{"grpc-names", "B.7", "gRPC services and methods have names that can be theirs", func(s *appmesh.RouteSpec, f *faults) {
		if r := s.GrpcRoute; r != nil && r.Match != nil {
			grpcNames(f, "spec.grpcRoute.match", r.Match.ServiceName, r.Match.MethodName)
		}
	}},
	{"grpc-method", "B.12 12", "a gRPC method needs its service", func(s *appmesh.RouteSpec, f *faults) {
		if r := s.GrpcRoute; r != nil && r.Match != nil && r.Match.MethodName != nil && r.Match.ServiceName == nil {
			f.add("spec.grpcRoute.match.methodName", "%q needs serviceName beside it", *r.Match.MethodName)
		}
	}},
	{"retry-event", "B.12 5", "a retry policy names at least one event", func(s *appmesh.RouteSpec, f *faults) {
		eachRetryPolicy(s, func(p retryPolicy) {
			if len(p.http)+p.others == 0 {
				f.add(p.path, "names no event: set httpRetryEvents, tcpRetryEvents or (gRPC) grpcRetryEvents")
			}
		})
	}},
	{"retry-event-name", "B.12 6", "the events of a retry policy exist", func(s *appmesh.RouteSpec, f *faults) {
		eachRetryPolicy(s, func(p retryPolicy) {
			for i, event := range p.http {
				if !slices.Contains(httpRetryEvents, event) {
					f.add(fmt.Sprintf("%s.httpRetryEvents[%d]", p.path, i), "%q is not one of %s", event, strings.Join(httpRetryEvents, ", "))
				}
			}
		})
	}},
	{"retry-count", "Envoy counts in 32 bits", "a retry policy has a number of retries that a proxy can count", func(s *appmesh.RouteSpec, f *faults) {
		eachRetryPolicy(s, func(p retryPolicy) {
			if p.count != nil && *p.count > 1<<31-1 {
				f.add(p.path+".maxRetries", "%d is more than %d", *p.count, 1<<31-1)
			}
		})
	}},
	{"duration", "B.1", "a duration has a unit and a value that a proxy can count", routeDurations},
}

// httpRetryEvents of facts B.7; the model takes any string.
var httpRetryEvents = []string{"server-error", "gateway-error", "client-error", "stream-error"}

func routeWeights(s *appmesh.RouteSpec, f *faults) {
	path, targets := weightedTargets(s)
	var sum int64
	for _, target := range targets {
		if target.Weight != nil {
			sum += *target.Weight
		}
	}
	if len(targets) > 0 && (sum < 1 || sum > 100) {
		f.add(path, "the weights add up to %d, which must be 1 to 100", sum)
	}
}

func targetOnce(s *appmesh.RouteSpec, f *faults) {
	path, targets := weightedTargets(s)
	for i, target := range targets {
		for _, before := range targets[:i] {
			if before.VirtualNode == target.VirtualNode && samePort(before.Port, target.Port) {
				f.add(fmt.Sprintf("%s[%d].virtualNode", path, i), "%q is a target already: add its weights", target.VirtualNode)
				break
			}
		}
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

// eachHTTPMatch visits what HTTP routes match by, and where it stands.
func eachHTTPMatch(s *appmesh.RouteSpec, visit func(path string, m *appmesh.HttpRouteMatch)) {
	if s.HttpRoute != nil && s.HttpRoute.Match != nil {
		visit("spec.httpRoute.match", s.HttpRoute.Match)
	}
	if s.Http2Route != nil && s.Http2Route.Match != nil {
		visit("spec.http2Route.match", s.Http2Route.Match)
	}
}

func routeCriterion(s *appmesh.RouteSpec, f *faults) {
	eachHTTPMatch(s, func(path string, m *appmesh.HttpRouteMatch) {
		if len(members(m)) == 0 {
			f.add(path, "at least one criterion must be set")
		}
	})
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

func headerMatches(f *faults, path string, headers []appmesh.HttpRouteHeader) {
	for i, h := range headers {
		headerMatch(f, fmt.Sprintf("%s.headers[%d]", path, i), h.Name, h.Match)
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
	for _, text := range []struct {
		member string
		value  *string
	}{{"exact", match.Exact}, {"prefix", match.Prefix}, {"suffix", match.Suffix}} {
		if text.value != nil && !cleanText(*text.value) {
			f.add(path+".match."+text.member, "%q has control characters", *text.value)
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

// retryPolicy is what the rules need of a route's retry policy.
type retryPolicy struct {
	path   string
	http   []string
	others int // events of other kinds
	count  *int64
}

// eachRetryPolicy visits the retry policies of a route.
func eachRetryPolicy(s *appmesh.RouteSpec, visit func(retryPolicy)) {
	if r := s.HttpRoute; r != nil && r.RetryPolicy != nil {
		visit(retryPolicy{"spec.httpRoute.retryPolicy", r.RetryPolicy.HttpRetryEvents, len(r.RetryPolicy.TcpRetryEvents), r.RetryPolicy.MaxRetries})
	}
	if r := s.Http2Route; r != nil && r.RetryPolicy != nil {
		visit(retryPolicy{"spec.http2Route.retryPolicy", r.RetryPolicy.HttpRetryEvents, len(r.RetryPolicy.TcpRetryEvents), r.RetryPolicy.MaxRetries})
	}
	if r := s.GrpcRoute; r != nil && r.RetryPolicy != nil {
		p := r.RetryPolicy
		visit(retryPolicy{"spec.grpcRoute.retryPolicy", p.HttpRetryEvents, len(p.TcpRetryEvents) + len(p.GrpcRetryEvents), p.MaxRetries})
	}
}

func routeDurations(s *appmesh.RouteSpec, f *faults) {
	http := func(path string, r *appmesh.HttpRoute) {
		if r == nil {
			return
		}
		httpTimeout(f, path+".timeout", r.Timeout)
		if r.RetryPolicy != nil {
			wholeDuration(f, path+".retryPolicy.perRetryTimeout", r.RetryPolicy.PerRetryTimeout)
		}
	}
	http("spec.httpRoute", s.HttpRoute)
	http("spec.http2Route", s.Http2Route)
	if r := s.GrpcRoute; r != nil && r.RetryPolicy != nil {
		wholeDuration(f, "spec.grpcRoute.retryPolicy.perRetryTimeout", r.RetryPolicy.PerRetryTimeout)
	}
	if r := s.GrpcRoute; r != nil && r.Timeout != nil {
		wholeDuration(f, "spec.grpcRoute.timeout.perRequest", r.Timeout.PerRequest)
		wholeDuration(f, "spec.grpcRoute.timeout.idle", r.Timeout.Idle)
	}
	if r := s.TcpRoute; r != nil && r.Timeout != nil {
		wholeDuration(f, "spec.tcpRoute.timeout.idle", r.Timeout.Idle)
	}
}
