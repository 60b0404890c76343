package envoy

import (
	"regexp/syntax"
	"unicode/utf8"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// criteria are the matches of a route or gateway route of any kind.
type criteria struct {
	id      mesh.ID
	field   string // spec.httpRoute.match
	prefix  string // of the path; empty: see path
	path    *appmesh.HttpPathMatch
	method  string
	scheme  string
	headers []appmesh.HttpRouteHeader
	query   []appmesh.HttpQueryParameter
	port    *int64
}

func httpCriteria(id mesh.ID, field string, m *appmesh.HttpRouteMatch) criteria {
	return criteria{
		id: id, field: field, prefix: deref(m.Prefix), path: m.Path, method: string(deref(m.Method)),
		scheme: string(deref(m.Scheme)), headers: m.Headers, query: m.QueryParameters, port: m.Port,
	}
}

func grpcCriteria(id mesh.ID, m *appmesh.GrpcRouteMatch) criteria {
	c := criteria{id: id, field: "spec.grpcRoute.match", port: m.Port}
	c.call(deref(m.ServiceName), deref(m.MethodName))
	for _, h := range m.Metadata {
		c.headers = append(c.headers, appmesh.HttpRouteHeader{Name: h.Name, Invert: h.Invert, Match: (*appmesh.HeaderMatchMethod)(h.Match)})
	}
	return c
}

func httpGatewayCriteria(id mesh.ID, field string, m *appmesh.HttpGatewayRouteMatch) criteria {
	c := criteria{
		id: id, field: field, prefix: deref(m.Prefix), path: m.Path, method: string(deref(m.Method)),
		query: m.QueryParameters, port: m.Port,
	}
	for _, h := range m.Headers {
		c.headers = append(c.headers, appmesh.HttpRouteHeader(h))
	}
	return c
}

func grpcGatewayCriteria(id mesh.ID, m *appmesh.GrpcGatewayRouteMatch) criteria {
	c := criteria{id: id, field: "spec.grpcRoute.match", port: m.Port}
	c.call(deref(m.ServiceName), "")
	for _, h := range m.Metadata {
		c.headers = append(c.headers, appmesh.HttpRouteHeader{Name: h.Name, Invert: h.Invert, Match: (*appmesh.HeaderMatchMethod)(h.Match)})
	}
	return c
}

// call matches a gRPC method, whose path is /service/method.
func (c *criteria) call(service, method string) {
	switch {
	case service == "":
	case method == "":
		c.prefix = "/" + service + "/"
	default:
		path := "/" + service + "/" + method
		c.path = &appmesh.HttpPathMatch{Exact: &path}
	}
}

// on says whether the criteria let requests to this port pass.
func (c *criteria) on(port int64) bool { return c.port == nil || *c.port == port }

// match spells the criteria; nil if they cannot be spelled, with a problem.
func (d *draft) match(c criteria) *routev3.RouteMatch {
	m := &routev3.RouteMatch{}
	switch {
	case c.path != nil && c.path.Exact != nil:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: *c.path.Exact}
	case c.path != nil && c.path.Regex != nil:
		regex := d.regex(c.id, c.field+".path.regex", *c.path.Regex)
		if regex == nil {
			return nil
		}
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex}
	case c.prefix != "":
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: c.prefix}
	default:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	}
	if c.method != "" {
		m.Headers = append(m.Headers, headerEquals(":method", c.method))
	}
	if c.scheme != "" {
		m.Headers = append(m.Headers, headerEquals(":scheme", c.scheme))
	}
	for _, h := range c.headers {
		matcher := d.header(c, h)
		if matcher == nil {
			return nil
		}
		m.Headers = append(m.Headers, matcher)
	}
	for _, q := range c.query {
		matcher := &routev3.QueryParameterMatcher{Name: q.Name}
		if q.Match != nil && q.Match.Exact != nil {
			matcher.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: exactly(*q.Match.Exact)}
		} else {
			matcher.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		}
		m.QueryParameters = append(m.QueryParameters, matcher)
	}
	return m
}

func (d *draft) header(c criteria, h appmesh.HttpRouteHeader) *routev3.HeaderMatcher {
	matcher := &routev3.HeaderMatcher{Name: h.Name, InvertMatch: deref(h.Invert)}
	text := func(s *matcherv3.StringMatcher) *routev3.HeaderMatcher {
		matcher.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: s}
		return matcher
	}
	m := h.Match
	switch {
	case m == nil:
		matcher.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	case m.Exact != nil:
		return text(exactly(*m.Exact))
	case m.Prefix != nil:
		return text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: *m.Prefix}})
	case m.Suffix != nil:
		return text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: *m.Suffix}})
	case m.Regex != nil:
		regex := d.regex(c.id, c.field+".headers", *m.Regex)
		if regex == nil {
			return nil
		}
		return text(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex}})
	case m.Range != nil:
		matcher.HeaderMatchSpecifier = &routev3.HeaderMatcher_RangeMatch{
			RangeMatch: &typev3.Int64Range{Start: deref(m.Range.Start), End: deref(m.Range.End)},
		}
	default:
		matcher.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	}
	return matcher
}

// regex checks an expression: one that Envoy does not take must not get a whole
// route table rejected.
func (d *draft) regex(id mesh.ID, field, expr string) *matcherv3.RegexMatcher {
	size, err := programSize(expr)
	if err == nil {
		err = CheckExpression(expr)
	}
	switch {
	case err != nil:
		d.problem(id, field, "the route is left out: %v", err)
		return nil
	case size > maxProgramSize:
		d.problem(id, field, "the route is left out: its regular expression is too large for Envoy")
		return nil
	}
	return &matcherv3.RegexMatcher{Regex: expr}
}

// maxProgramSize is the size of regular expressions that bootstraps allow
// (re2.max_program_size.error_level), as App Mesh's did.
const maxProgramSize = 1000

// programSize is no less than the size of RE2's program for an expression. Go's
// has an instruction for a class of characters where RE2, which matches bytes,
// needs some for every range.
func programSize(expr string) (int, error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, err
	}
	size := 16 // what RE2 adds around it
	for _, inst := range program.Inst {
		size++
		switch inst.Op {
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			size += 10
		case syntax.InstRune, syntax.InstRune1:
			size += len(inst.Rune) / 2
			if n := len(inst.Rune); n > 0 && inst.Rune[n-1] >= utf8.RuneSelf {
				size += 8 + n
			}
		}
	}
	return size, nil
}

func headerEquals(name, value string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly(value)},
	}
}
