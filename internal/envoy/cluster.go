package envoy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

const (
	connectTimeout        = time.Second            // to another endpoint
	localConnectTimeout   = 250 * time.Millisecond // to the application, and on a gateway's loop
	outsideConnectTimeout = 5 * time.Second        // to wherever the application dialled
	unlimited             = 2147483647             // App Mesh's way to switch a circuit breaker off

	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// clusters adds a cluster for every edge, and for an edge to Cloud Map its
// endpoints.
func (a *assembly) clusters() error {
	a.names = make(map[*mesh.Edge]string, len(a.endpoint.Edges))
	for _, e := range a.endpoint.Edges {
		name := e.Cluster(a.graph.Name.Mesh)
		a.names[e] = name
		why := a.sources().refusal(&e.Decision)
		if why == "" {
			a.needEdge(&e.Decision)
		} else {
			a.refuses(e, why)
		}
		k := a.key.start("cluster").str(name).endpoint(e.Server).int(e.Listener.Port)
		a.sources().keyOf(k.decision(&e.Decision).bool(why != ""), e.Decision.Certificate).str(string(e.Server.IPPreference)).str(e.Server.DiscoveryName)
		err := a.resource(k, e.Server.ID, func(d *draft) (Ref, content) {
			return Ref{Cluster, name}, content{Message: d.egressCluster(name, e, a.sources())}
		})
		if err != nil {
			return err
		}
		if a.sources().served(e) == byCloudMap {
			if err := a.assignment(name, e.Server.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// assignment adds the endpoints of a Cloud Map cluster: none, until Cloud Map is
// there. They always accompany their cluster, or Envoy would wait for them.
func (a *assembly) assignment(name string, origin mesh.ID) error {
	return a.resource(a.key.start("assignment").str(name).id(origin), origin, func(*draft) (Ref, content) {
		return Ref{Endpoint, name}, content{Message: &endpointv3.ClusterLoadAssignment{ClusterName: name}}
	})
}

// discovery is how an edge's cluster finds its endpoints.
type discovery uint8

const (
	byNothing  discovery = iota // the server says nothing, or the edge is closed
	byDNS                       // one address of many, as a load balancer has
	byDNSAll                    // every address is an endpoint
	byCloudMap                  // over ADS
)

func (s sources) served(e *mesh.Edge) discovery {
	if e.Server.Node == nil || s.refusal(&e.Decision) != "" {
		return byNothing
	}
	sd := e.Server.Node.Spec.ServiceDiscovery
	switch {
	case sd == nil:
		return byNothing
	case sd.AwsCloudMap != nil:
		return byCloudMap
	case sd.DNS == nil || sd.DNS.Hostname == "":
		return byNothing
	case sd.DNS.ResponseType != nil && *sd.DNS.ResponseType == appmesh.DnsResponseTypeEndpoints:
		return byDNSAll
	}
	return byDNS
}

// egressCluster leads to a listener of another virtual node. An edge that cannot
// be built as decided has no endpoints: it refuses.
func (d *draft) egressCluster(name string, e *mesh.Edge, s sources) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:            name,
		ConnectTimeout:  durationpb.New(connectTimeout),
		CircuitBreakers: thresholds(limits{}),
	}
	if isHTTP2(e.Listener.Protocol) {
		c.TypedExtensionProtocolOptions = d.http2()
	}
	switch how := s.served(e); how {
	case byNothing:
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: name}
		return c
	case byCloudMap:
		d.ref(Endpoint, name)
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}
	case byDNS, byDNSAll:
		sd := e.Server.Node.Spec.ServiceDiscovery.DNS
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		if how == byDNSAll {
			c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		}
		c.LoadAssignment = oneEndpoint(name, absolute(sd.Hostname), e.Listener.Port)
		c.DnsLookupFamily = lookupFamily(e.Server.IPPreference)
	}
	if e.Decision.Transport == tlspolicy.TLS {
		c.TransportSocket = d.upstreamTLS(&e.Decision, e.Listener.Protocol, s)
	}
	if l := e.Listener.Node; l != nil {
		d.watchHealth(c, e, l)
	}
	return c
}

// ingressCluster leads to the application behind a node's listener.
func (d *draft) ingressCluster(name, host string, port int64, protocol appmesh.PortProtocol, pool limits) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(localConnectTimeout),
		CircuitBreakers:      thresholds(pool),
		LoadAssignment:       oneEndpoint(name, host, port),
	}
	if isHTTP2(protocol) {
		c.TypedExtensionProtocolOptions = d.http2()
	}
	return c
}

// passThrough leads to the address that the application dialled.
func (d *draft) passThrough(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(outsideConnectTimeout),
		CircuitBreakers:      thresholds(limits{}),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: d.pack(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
				UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
					HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		})},
	}
}

func (d *draft) http2() map[string]*anypb.Any {
	return map[string]*anypb.Any{httpOptions: d.pack(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		},
	})}
}

// watchHealth has the client probe the server and leave out endpoints that
// fail, as the server's listener asks.
func (d *draft) watchHealth(c *clusterv3.Cluster, e *mesh.Edge, l *appmesh.Listener) {
	if l.HealthCheck != nil {
		if check := d.healthCheck(e, l.HealthCheck); check != nil {
			c.HealthChecks = []*corev3.HealthCheck{check}
			c.IgnoreHealthOnHostRemoval = true
		}
	}
	if o := l.OutlierDetection; o != nil {
		c.OutlierDetection = &clusterv3.OutlierDetection{
			Consecutive_5Xx:    count(o.MaxServerErrors),
			Interval:           positive(o.Interval),
			BaseEjectionTime:   positive(o.BaseEjectionDuration),
			MaxEjectionPercent: wrapperspb.UInt32(uint32(deref(o.MaxEjectionPercent))),
			// App Mesh ejects by server errors alone, and one host always may go.
			EnforcingSuccessRate: wrapperspb.UInt32(0),
			AlwaysEjectOneHost:   wrapperspb.Bool(true),
		}
	}
}

func (d *draft) healthCheck(e *mesh.Edge, p *appmesh.HealthCheckPolicy) *corev3.HealthCheck {
	port := e.Listener.Port
	if p.Port != nil {
		port = *p.Port
	}
	interval := durationpb.New(time.Duration(p.IntervalMillis) * time.Millisecond)
	check := &corev3.HealthCheck{
		Timeout:            durationpb.New(time.Duration(p.TimeoutMillis) * time.Millisecond),
		Interval:           interval,
		NoTrafficInterval:  interval, // Envoy's default, a minute, is for the idle
		UnhealthyThreshold: count(p.UnhealthyThreshold),
		HealthyThreshold:   count(p.HealthyThreshold),
		AltPort:            count(port),
	}
	switch p.Protocol {
	case appmesh.PortProtocolTcp:
		check.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	case appmesh.PortProtocolGrpc:
		if !isHTTP2(e.Listener.Protocol) {
			d.problem(e.Server.ID, "spec.listeners.healthCheck.protocol", "a %s listener cannot be probed by grpc: there is no health check", e.Listener.Protocol)
			return nil
		}
		check.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{Authority: e.Server.DiscoveryName}}
	default:
		probe := &corev3.HealthCheck_HttpHealthCheck{Host: e.Server.DiscoveryName + ":" + strconv.FormatInt(port, 10), Path: "/"}
		if p.Path != nil && *p.Path != "" {
			probe.Path = *p.Path
		}
		if p.Protocol == appmesh.PortProtocolHttp2 {
			probe.CodecClientType = typev3.CodecClientType_HTTP2
		}
		check.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: probe}
	}
	return check
}

// limits are a connection pool's; zero: none.
type limits struct{ connections, pending, requests int64 }

func thresholds(l limits) *clusterv3.CircuitBreakers {
	or := func(limit int64) *wrapperspb.UInt32Value {
		if limit <= 0 {
			limit = unlimited
		}
		return count(limit)
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     or(l.connections),
		MaxPendingRequests: or(l.pending),
		MaxRequests:        or(l.requests),
		MaxRetries:         or(0),
	}}}
}

func oneEndpoint(cluster, host string, port int64) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: address(host, port)},
		}}},
	}}}
}

func address(host string, port int64) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// absolute keeps resolvers from trying their search domains.
func absolute(host string) string {
	if isAddress(host) || strings.HasSuffix(host, ".") {
		return host
	}
	return host + "."
}

func lookupFamily(p appmesh.IpPreference) clusterv3.Cluster_DnsLookupFamily {
	switch p {
	case appmesh.IpPreferenceIPv4Preferred:
		return clusterv3.Cluster_V4_PREFERRED
	case appmesh.IpPreferenceIPv4Only:
		return clusterv3.Cluster_V4_ONLY
	case appmesh.IpPreferenceIPv6Only:
		return clusterv3.Cluster_V6_ONLY
	}
	return clusterv3.Cluster_AUTO
}

// refuses reports an edge that cannot be built, on the end whose field decided.
func (a *assembly) refuses(e *mesh.Edge, why string) {
	whose, field, _ := strings.Cut(e.Decision.Field, " ")
	id := e.Client.ID
	if whose == e.Server.ID.String() {
		id = e.Server.ID
	}
	a.problems = append(a.problems, mesh.Problem{ID: id, Field: field, Message: fmt.Sprintf(
		"the edge from %s to %s port %d refuses every connection: %s", e.Client.ID, e.Server.ID, e.Listener.Port, why)})
}
