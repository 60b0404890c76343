package meshgen

import (
	"fmt"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

var gatewayProtocols = []appmesh.VirtualGatewayPortProtocol{
	appmesh.VirtualGatewayPortProtocolHttp, appmesh.VirtualGatewayPortProtocolHttp2, appmesh.VirtualGatewayPortProtocolGrpc,
}

func (g *generator) gateway(i int) {
	name := fmt.Sprintf("gateway-%d", i)
	spec := &appmesh.VirtualGatewaySpec{}
	for _, number := range some(g, 2, int64(8443), 9080, 9443) {
		spec.Listeners = append(spec.Listeners, g.gatewayListener(number, pick(g, gatewayProtocols...)))
	}
	if policy := g.clientPolicy(); policy != nil && g.maybe(2) {
		spec.BackendDefaults = &appmesh.VirtualGatewayBackendDefaults{ClientPolicy: &appmesh.VirtualGatewayClientPolicy{TLS: gatewayPolicy(policy)}}
	}
	if l := g.logging(); l != nil {
		spec.Logging = &appmesh.VirtualGatewayLogging{AccessLog: &appmesh.VirtualGatewayAccessLog{
			File: (*appmesh.VirtualGatewayFileAccessLog)(l.AccessLog.File)}}
	}
	g.view.VirtualGateways[name] = put(g, mesh.ID{Kind: mesh.KindVirtualGateway, Name: name}, spec)
	for k := range g.IntN(8) {
		listener := pick(g, spec.Listeners...).PortMapping
		var match *int64
		if len(spec.Listeners) > 1 || g.maybe(3) {
			match = &listener.Port
		}
		target := g.gatewayTarget(appmesh.PortProtocol(listener.Protocol))
		if target == nil {
			continue
		}
		id := mesh.ID{Kind: mesh.KindGatewayRoute, Parent: name, Name: fmt.Sprintf("route-%d", k)}
		g.view.GatewayRoutes[id] = put(g, id, g.gatewayRoute(listener.Protocol, match, target))
	}
}

func (g *generator) gatewayListener(number int64, protocol appmesh.VirtualGatewayPortProtocol) appmesh.VirtualGatewayListener {
	l := appmesh.VirtualGatewayListener{
		PortMapping: &appmesh.VirtualGatewayPortMapping{Port: number, Protocol: protocol},
		TLS:         gatewayListenerTLS(g.listenerTLS()),
	}
	if g.maybe(3) {
		limit := g.between(1, 1000)
		switch protocol {
		case appmesh.VirtualGatewayPortProtocolHttp:
			l.ConnectionPool = &appmesh.VirtualGatewayConnectionPool{HTTP: &appmesh.VirtualGatewayHttpConnectionPool{MaxConnections: limit}}
		case appmesh.VirtualGatewayPortProtocolHttp2:
			l.ConnectionPool = &appmesh.VirtualGatewayConnectionPool{HTTP2: &appmesh.VirtualGatewayHttp2ConnectionPool{MaxRequests: limit}}
		case appmesh.VirtualGatewayPortProtocolGrpc:
			l.ConnectionPool = &appmesh.VirtualGatewayConnectionPool{GRPC: &appmesh.VirtualGatewayGrpcConnectionPool{MaxRequests: limit}}
		}
	}
	if g.maybe(4) {
		l.HealthCheck = &appmesh.VirtualGatewayHealthCheckPolicy{
			HealthyThreshold: 2, UnhealthyThreshold: 3, IntervalMillis: 5000, TimeoutMillis: 2000, Port: &number, Protocol: protocol}
		if protocol != appmesh.VirtualGatewayPortProtocolGrpc {
			l.HealthCheck.Path = new("/ping")
		}
	}
	return l
}

// gatewayTarget is a service that is dialled by the protocol, or one that
// nobody provides.
func (g *generator) gatewayTarget(protocol appmesh.PortProtocol) *appmesh.GatewayRouteTarget {
	for _, s := range some(g, len(g.services), g.services...) {
		i := slices.IndexFunc(s.ports, func(p port) bool { return p.protocol == protocol })
		if i < 0 && len(s.ports) > 0 {
			continue
		}
		target := &appmesh.GatewayRouteTarget{VirtualService: &appmesh.GatewayRouteVirtualService{VirtualServiceName: s.name}}
		if len(s.ports) > 1 || len(s.ports) == 1 && g.maybe(3) {
			target.Port = &s.ports[i].number
		}
		return target
	}
	return nil
}

func (g *generator) gatewayRoute(protocol appmesh.VirtualGatewayPortProtocol, port *int64, target *appmesh.GatewayRouteTarget) *appmesh.GatewayRouteSpec {
	spec := &appmesh.GatewayRouteSpec{Priority: g.priority()}
	switch protocol {
	case appmesh.VirtualGatewayPortProtocolHttp:
		spec.HttpRoute = g.httpGatewayRoute(port, target)
	case appmesh.VirtualGatewayPortProtocolHttp2:
		spec.Http2Route = g.httpGatewayRoute(port, target)
	case appmesh.VirtualGatewayPortProtocolGrpc:
		spec.GrpcRoute = g.grpcGatewayRoute(port, target)
	}
	return spec
}

func (g *generator) httpGatewayRoute(port *int64, target *appmesh.GatewayRouteTarget) *appmesh.HttpGatewayRoute {
	r := &appmesh.HttpGatewayRoute{
		Match:  &appmesh.HttpGatewayRouteMatch{Port: port},
		Action: &appmesh.HttpGatewayRouteAction{Target: target},
	}
	if g.maybe(3) {
		r.Match.Hostname = g.hostname()
	}
	if r.Match.Hostname == nil || g.maybe(2) {
		r.Match.Prefix, r.Match.Path = g.path()
	}
	if g.maybe(4) {
		for _, h := range g.headers() {
			r.Match.Headers = append(r.Match.Headers, appmesh.HttpGatewayRouteHeader(h))
		}
	}
	if g.maybe(5) {
		r.Match.QueryParameters = g.queries()
	}
	if g.maybe(5) {
		r.Match.Method = g.method()
	}
	if g.maybe(2) {
		r.Action.Rewrite = g.rewrite(r.Match)
	}
	return r
}

func (g *generator) rewrite(match *appmesh.HttpGatewayRouteMatch) *appmesh.HttpGatewayRouteRewrite {
	rewrite := &appmesh.HttpGatewayRouteRewrite{}
	switch {
	case match.Prefix != nil && len(*match.Prefix) > 0 && (*match.Prefix)[len(*match.Prefix)-1] == '/' && g.maybe(2):
		rewrite.Prefix = &appmesh.HttpGatewayRoutePrefixRewrite{Value: new("/inner/")}
	case match.Prefix != nil && g.maybe(2):
		rewrite.Prefix = &appmesh.HttpGatewayRoutePrefixRewrite{DefaultPrefix: g.toggle()}
	case match.Path != nil && g.maybe(2):
		rewrite.Path = &appmesh.HttpGatewayRoutePathRewrite{Exact: new("/inner")}
	}
	if *rewrite == (appmesh.HttpGatewayRouteRewrite{}) || g.maybe(2) {
		rewrite.Hostname = &appmesh.GatewayRouteHostnameRewrite{DefaultTargetHostname: g.toggle()}
	}
	return rewrite
}

func (g *generator) toggle() *appmesh.DefaultGatewayRouteRewrite {
	return new(pick(g, appmesh.DefaultGatewayRouteRewriteEnabled, appmesh.DefaultGatewayRouteRewriteDisabled))
}

func (g *generator) hostname() *appmesh.GatewayRouteHostnameMatch {
	if g.maybe(2) {
		return &appmesh.GatewayRouteHostnameMatch{Suffix: new(pick(g, ".random.example", ".example"))}
	}
	return &appmesh.GatewayRouteHostnameMatch{Exact: new(pick(g, "shop.random.example", "api.random.example"))}
}

func (g *generator) grpcGatewayRoute(port *int64, target *appmesh.GatewayRouteTarget) *appmesh.GrpcGatewayRoute {
	r := &appmesh.GrpcGatewayRoute{
		Match:  &appmesh.GrpcGatewayRouteMatch{Port: port},
		Action: &appmesh.GrpcGatewayRouteAction{Target: target},
	}
	if g.maybe(3) {
		r.Match.Hostname = g.hostname()
	}
	if r.Match.Hostname == nil || g.maybe(2) {
		r.Match.ServiceName = new("random.v1.Echo")
	}
	if g.maybe(4) {
		for _, h := range g.headers() {
			r.Match.Metadata = append(r.Match.Metadata, appmesh.GrpcGatewayRouteMetadata{
				Name: h.Name, Invert: h.Invert, Match: (*appmesh.GrpcMetadataMatchMethod)(h.Match)})
		}
	}
	if g.maybe(3) {
		r.Action.Rewrite = &appmesh.GrpcGatewayRouteRewrite{Hostname: &appmesh.GatewayRouteHostnameRewrite{DefaultTargetHostname: g.toggle()}}
	}
	return r
}

// gatewayListenerTLS and gatewayPolicy put a node's shapes into a gateway's,
// which differ by name only.
func gatewayListenerTLS(tls *appmesh.ListenerTls) *appmesh.VirtualGatewayListenerTls {
	if tls == nil {
		return nil
	}
	out := &appmesh.VirtualGatewayListenerTls{
		Mode: appmesh.VirtualGatewayListenerTlsMode(tls.Mode),
		Certificate: &appmesh.VirtualGatewayListenerTlsCertificate{
			ACM:  (*appmesh.VirtualGatewayListenerTlsAcmCertificate)(tls.Certificate.ACM),
			File: (*appmesh.VirtualGatewayListenerTlsFileCertificate)(tls.Certificate.File),
			SDS:  (*appmesh.VirtualGatewayListenerTlsSdsCertificate)(tls.Certificate.SDS),
		},
	}
	if v := tls.Validation; v != nil {
		out.Validation = &appmesh.VirtualGatewayListenerTlsValidationContext{
			SubjectAlternativeNames: v.SubjectAlternativeNames,
			Trust: &appmesh.VirtualGatewayListenerTlsValidationContextTrust{
				File: (*appmesh.VirtualGatewayTlsValidationContextFileTrust)(v.Trust.File),
				SDS:  (*appmesh.VirtualGatewayTlsValidationContextSdsTrust)(v.Trust.SDS),
			},
		}
	}
	return out
}

func gatewayPolicy(tls *appmesh.ClientPolicyTls) *appmesh.VirtualGatewayClientPolicyTls {
	out := &appmesh.VirtualGatewayClientPolicyTls{
		Enforce: tls.Enforce,
		Ports:   tls.Ports,
		Validation: &appmesh.VirtualGatewayTlsValidationContext{
			SubjectAlternativeNames: tls.Validation.SubjectAlternativeNames,
			Trust: &appmesh.VirtualGatewayTlsValidationContextTrust{
				ACM:  (*appmesh.VirtualGatewayTlsValidationContextAcmTrust)(tls.Validation.Trust.ACM),
				File: (*appmesh.VirtualGatewayTlsValidationContextFileTrust)(tls.Validation.Trust.File),
				SDS:  (*appmesh.VirtualGatewayTlsValidationContextSdsTrust)(tls.Validation.Trust.SDS),
			},
		},
	}
	if c := tls.Certificate; c != nil {
		out.Certificate = &appmesh.VirtualGatewayClientTlsCertificate{
			File: (*appmesh.VirtualGatewayListenerTlsFileCertificate)(c.File),
			SDS:  (*appmesh.VirtualGatewayListenerTlsSdsCertificate)(c.SDS),
		}
	}
	return out
}
