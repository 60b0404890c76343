package mesh

import (
	"cmp"
	"math"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
)

// precedence is where a route stands among those of its router or gateway: the
// smaller is tried first (facts/appmesh-api.md B.7, B.8).
type precedence struct {
	priority int64 // 0 is highest; a route without one comes last
	path     pathClass
	length   int // of the path or prefix: longer first
	headers  int // header or metadata criteria: more first
	criteria int // all other criteria: more first
}

type pathClass int

const (
	exactPath pathClass = iota
	pathPrefix
	pathRegex
)

func (p precedence) compare(q precedence) int {
	return cmp.Or(
		cmp.Compare(p.priority, q.priority),
		cmp.Compare(p.path, q.path),
		cmp.Compare(q.length, p.length),
		cmp.Compare(q.headers, p.headers),
		cmp.Compare(q.criteria, p.criteria))
}

func priority(p *int64) int64 {
	if p == nil {
		return math.MaxInt64
	}
	return *p
}

// sortRoutes puts the routes of one router into matching order.
func sortRoutes(routes []*Record[appmesh.RouteSpec]) {
	sortBy(routes, func(r *Record[appmesh.RouteSpec]) precedence { return routePrecedence(r.Spec) })
}

// sortGatewayRoutes puts the gateway routes of one gateway into matching order.
func sortGatewayRoutes(routes []*Record[appmesh.GatewayRouteSpec]) {
	sortBy(routes, func(r *Record[appmesh.GatewayRouteSpec]) precedence { return gatewayRoutePrecedence(r.Spec) })
}

func sortBy[S any](records []*Record[S], of func(*Record[S]) precedence) {
	if len(records) < 2 {
		return
	}
	slices.SortFunc(records, func(x, y *Record[S]) int {
		return cmp.Or(of(x).compare(of(y)), cmp.Compare(x.ID.Name, y.ID.Name))
	})
}

func routePrecedence(spec *appmesh.RouteSpec) precedence {
	p := precedence{priority: priority(spec.Priority), path: pathPrefix}
	http := spec.HttpRoute
	if http == nil {
		http = spec.Http2Route
	}
	switch {
	case http != nil && http.Match != nil:
		m := http.Match
		p.path, p.length = pathPrecedence(m.Path, m.Prefix)
		p.headers = len(m.Headers)
		p.criteria = len(m.QueryParameters) + count(m.Method != nil, m.Scheme != nil, m.Port != nil)
	case spec.GrpcRoute != nil && spec.GrpcRoute.Match != nil:
		m := spec.GrpcRoute.Match
		p.path, p.length = grpcPrecedence(m.ServiceName, m.MethodName)
		p.headers = len(m.Metadata)
		p.criteria = count(m.Port != nil)
	case spec.TcpRoute != nil && spec.TcpRoute.Match != nil:
		p.criteria = count(spec.TcpRoute.Match.Port != nil)
	}
	return p
}

func gatewayRoutePrecedence(spec *appmesh.GatewayRouteSpec) precedence {
	p := precedence{priority: priority(spec.Priority), path: pathPrefix}
	http := spec.HttpRoute
	if http == nil {
		http = spec.Http2Route
	}
	switch {
	case http != nil && http.Match != nil:
		m := http.Match
		p.path, p.length = pathPrecedence(m.Path, m.Prefix)
		p.headers = len(m.Headers)
		p.criteria = len(m.QueryParameters) + count(m.Method != nil, m.Hostname != nil, m.Port != nil)
	case spec.GrpcRoute != nil && spec.GrpcRoute.Match != nil:
		m := spec.GrpcRoute.Match
		p.path, p.length = grpcPrecedence(m.ServiceName, nil)
		p.headers = len(m.Metadata)
		p.criteria = count(m.Hostname != nil, m.Port != nil)
	}
	return p
}

// pathPrecedence ranks an HTTP path; none is the prefix "/", which matches the
// same.
func pathPrecedence(path *appmesh.HttpPathMatch, prefix *string) (pathClass, int) {
	switch {
	case path != nil && path.Exact != nil:
		return exactPath, len(*path.Exact)
	case path != nil && path.Regex != nil:
		return pathRegex, len(*path.Regex)
	case prefix != nil:
		return pathPrefix, len(*prefix)
	}
	return pathPrefix, len("/")
}

// grpcPrecedence ranks a gRPC service and method as the path that they are:
// /service/method.
func grpcPrecedence(service, method *string) (pathClass, int) {
	switch {
	case service != nil && method != nil:
		return exactPath, len(*service) + len(*method)
	case service != nil:
		return pathPrefix, len("/") + len(*service) + len("/")
	}
	return pathPrefix, len("/")
}

func count(criteria ...bool) int {
	n := 0
	for _, c := range criteria {
		if c {
			n++
		}
	}
	return n
}
