package envoy

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// accepts says what a listener takes: TLS, plaintext, both or neither. Neither
// means that its TLS cannot be built: it refuses.
type accepts struct{ tls, plaintext bool }

func (a accepts) anything() bool { return a.tls || a.plaintext }

// accept reads a listener's mode. Where its TLS cannot be built, why says so,
// and the listener refuses TLS: it never falls back to plaintext.
func (s sources) accept(l *tlspolicy.Listener) (a accepts, why string) {
	switch l.Mode {
	case tlspolicy.ModeNone, tlspolicy.ModeDisabled, "":
		return accepts{plaintext: true}, ""
	case tlspolicy.ModePermissive:
		a.plaintext = true
	}
	if why = s.lacksCertificate(l.Certificate); why != "" {
		return a, "the certificate: " + why
	}
	if l.Validation != nil {
		if why = s.lacksTrust(&l.Validation.Trust); why != "" {
			return a, "the trust: " + why
		}
	}
	a.tls = true
	return a, ""
}

// accept is what an endpoint's listener takes, with a problem where it refuses,
// and notes the secret that it needs.
func (a *assembly) accept(l *mesh.Listener) accepts {
	takes, why := a.sources().accept(&l.TLS)
	if c := l.TLS.Certificate; takes.tls && c.Source == tlspolicy.SourceACM {
		a.need(secret{certificate: c.ARN})
	}
	if v := l.TLS.Validation; takes.tls && v != nil && a.sources().ownTrust(&v.Trust) {
		a.need(secret{own: a.graph.TrustDomain})
	}
	if why != "" {
		_, field, _ := strings.Cut(l.TLS.Field, " ")
		a.problem(field, "port %d refuses every TLS connection: %s", l.Port, why)
	}
	return takes
}

// inspects says whether a listener must look for TLS: also when it takes
// plaintext alone although the mode says both, because a TLS client is not to
// be taken for a plaintext one.
func inspects(l *mesh.Listener) bool { return l.TLS.Mode == tlspolicy.ModePermissive }

// listenerKey adds a listener's TLS, which the record does not decide alone.
func (k *key) listenerTLS(l *tlspolicy.Listener) *key {
	k.str(string(l.Mode)).certificate(l.Certificate)
	if l.Validation == nil {
		return k.str("")
	}
	return k.trust(&l.Validation.Trust).strs(l.Validation.SANs)
}

// chains are the filter chains of one listener of the spec. match is nil where
// the port needs no match.
func (d *draft) chains(name string, l *mesh.Listener, takes accepts, match *wrapperspb.UInt32Value, s sources, filter func() *listenerv3.Filter) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	chain := func(kind, transport string) *listenerv3.FilterChain {
		c := &listenerv3.FilterChain{Name: name + kind, Filters: []*listenerv3.Filter{filter()}}
		if match != nil || inspects(l) {
			c.FilterChainMatch = &listenerv3.FilterChainMatch{DestinationPort: match}
		}
		if inspects(l) {
			c.FilterChainMatch.TransportProtocol = transport
		}
		chains = append(chains, c)
		return c
	}
	if takes.tls {
		chain("_tls", "tls").TransportSocket = d.downstreamTLS(&l.TLS, l.Protocol, s)
	}
	if takes.plaintext {
		chain("_plaintext", "raw_buffer")
	}
	return chains
}

// inbound adds what a virtual node's proxy receives by: one listener for all
// ports, their route tables, and the clusters to the application.
func (a *assembly) inbound() error {
	e := a.endpoint
	k := key{}
	k.start("inbound").str(a.graph.Name.Mesh).endpoint(e).str(a.shape.Bind).bool(a.shape.Agent).bool(a.shape.Provider).str(string(e.IPPreference))
	var listeners []*mesh.Listener
	var taken []accepts
	for _, l := range e.Listeners {
		if err := a.application(l); err != nil {
			return err
		}
		takes := a.accept(l)
		k.int(l.Port).str(string(l.Protocol)).listenerTLS(&l.TLS).bool(takes.tls)
		if !takes.anything() {
			continue
		}
		listeners, taken = append(listeners, l), append(taken, takes)
		if l.Protocol != appmesh.PortProtocolTcp {
			if err := a.ingressRoutes(l); err != nil {
				return err
			}
		}
	}
	if len(listeners) == 0 {
		return nil
	}
	return a.resource(&k, e.ID, func(d *draft) (Ref, content) {
		return Ref{Listener, ingressListener}, content{Message: d.ingress(a, listeners, taken)}
	})
}

func (d *draft) ingress(a *assembly, listeners []*mesh.Listener, taken []accepts) *listenerv3.Listener {
	e := a.endpoint
	at := bind{ports: []int64{ingressPort}, stats: ingressPort}
	at.host, at.dual = anyHost(e.IPPreference)
	if a.shape.Direct() {
		at = bind{host: a.shape.Bind, stats: ingressPort}
		for _, l := range listeners {
			at.ports = append(at.ports, l.Port)
		}
	}
	listener := at.listener(ingressListener, corev3.TrafficDirection_INBOUND)
	if !a.shape.Direct() {
		listener.ListenerFilters = append(listener.ListenerFilters, d.originalDestination())
	}
	var inspected []int64
	for i, l := range listeners {
		if inspects(l) {
			inspected = append(inspected, l.Port)
		}
		stats := ingressStats(l.Protocol, l.Port, len(e.Listeners) > 1)
		name := fmt.Sprintf("ingress_%s_%d", l.Protocol, l.Port)
		listener.FilterChains = append(listener.FilterChains, d.chains(name, l, taken[i], port(l.Port), a.sources(), func() *listenerv3.Filter {
			if l.Protocol != appmesh.PortProtocolTcp {
				return d.http(stats, ingressTable(l.Protocol, l.Port), e)
			}
			_, idle := timeouts(l.Node.Timeout)
			return d.tcp(stats, []weighted{{a.ingressClusterName(l), 1}}, idle)
		})...)
	}
	if len(inspected) > 0 {
		d.inspectTLS(listener, inspected...)
	}
	return listener
}

func (a *assembly) ingressClusterName(l *mesh.Listener) string {
	return IngressCluster(a.graph.Name.Mesh, a.endpoint.ID.Name, l.Protocol, l.Port)
}

// application adds the cluster to the application behind a listener.
func (a *assembly) application(l *mesh.Listener) error {
	e := a.endpoint
	name := a.ingressClusterName(l)
	k := a.key.start("application").str(name).endpoint(e).str(a.shape.AppAddress).str(a.shape.AppPorts).str(string(e.IPPreference))
	return a.resource(k, e.ID, func(d *draft) (Ref, content) {
		host := a.shape.AppAddress
		if host == "" {
			host = loopback(e.IPPreference)
		}
		c := d.ingressCluster(name, host, a.shape.appPort(l.Port), l.Protocol, nodePool(l.Node.ConnectionPool))
		return Ref{Cluster, name}, content{Message: c}
	})
}

func loopback(p appmesh.IpPreference) string {
	if strings.HasPrefix(string(p), "IPv6") {
		return "::1"
	}
	return "127.0.0.1"
}

// ingressRoutes adds the table by which a listener's requests go to the application.
func (a *assembly) ingressRoutes(l *mesh.Listener) error {
	k := a.key.start("ingress routes").str(a.graph.Name.Mesh).endpoint(a.endpoint).int(l.Port)
	routes, err := a.routes(k, func(d *draft) []*routev3.Route {
		action := &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: d.ref(Cluster, a.ingressClusterName(l))},
		}
		action.Timeout, action.IdleTimeout = timeouts(l.Node.Timeout)
		return []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: action},
		}}
	})
	if err != nil {
		return err
	}
	host, err := a.namedHost("ingress", []string{"*"}, routes)
	if err != nil {
		return err
	}
	return a.table("ingress", &routev3.RouteConfiguration{Name: ingressTable(l.Protocol, l.Port)}, []*unit{host})
}

// timeouts are those of a listener, of whichever protocol; nil: Envoy's.
func timeouts(t *appmesh.ListenerTimeout) (perRequest, idle *durationpb.Duration) {
	switch {
	case t == nil:
		return nil, nil
	case t.HTTP != nil:
		return duration(t.HTTP.PerRequest), duration(t.HTTP.Idle)
	case t.HTTP2 != nil:
		return duration(t.HTTP2.PerRequest), duration(t.HTTP2.Idle)
	case t.GRPC != nil:
		return duration(t.GRPC.PerRequest), duration(t.GRPC.Idle)
	case t.TCP != nil:
		return nil, duration(t.TCP.Idle)
	}
	return nil, nil
}

func nodePool(p *appmesh.VirtualNodeConnectionPool) limits {
	switch {
	case p == nil:
	case p.HTTP != nil:
		return limits{connections: p.HTTP.MaxConnections, pending: deref(p.HTTP.MaxPendingRequests)}
	case p.HTTP2 != nil:
		return limits{requests: p.HTTP2.MaxRequests}
	case p.GRPC != nil:
		return limits{requests: p.GRPC.MaxRequests}
	case p.TCP != nil:
		return limits{connections: p.TCP.MaxConnections}
	}
	return limits{}
}
