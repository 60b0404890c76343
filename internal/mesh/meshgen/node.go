package meshgen

import (
	"fmt"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

var protocols = []appmesh.PortProtocol{
	appmesh.PortProtocolHttp, appmesh.PortProtocolHttp2, appmesh.PortProtocolGrpc, appmesh.PortProtocolTcp,
}

func (g *generator) node(i int) {
	name := fmt.Sprintf("node-%d", i)
	if g.maybe(8) {
		name = fmt.Sprintf("node_%d_%s.prod", i, Mesh.Mesh) // as the controller for Kubernetes names them, and with a dot
	}
	spec := &appmesh.VirtualNodeSpec{Logging: g.logging()}
	// The first node has every protocol, so that each route finds a target.
	if i == 0 {
		for k, protocol := range protocols {
			spec.Listeners = append(spec.Listeners, g.listener(port{int64(8080 + k), protocol}))
		}
	} else if !g.maybe(10) { // else a node that only calls others
		lowest := int64(80)
		if g.config.Unprivileged {
			lowest = 1080
		}
		for _, number := range some(g, 3, lowest, 8080, 8081, 9090, 15443) {
			spec.Listeners = append(spec.Listeners, g.listener(port{number, pick(g, protocols...)}))
		}
	}
	if len(spec.Listeners) > 0 {
		spec.ServiceDiscovery = g.discovery(i)
	}
	g.view.VirtualNodes[name] = put(g, mesh.ID{Kind: mesh.KindVirtualNode, Name: name}, spec)
	g.nodes = append(g.nodes, name)
}

func (g *generator) discovery(i int) *appmesh.ServiceDiscovery {
	if g.maybe(4) {
		cloudMap := &appmesh.AwsCloudMapServiceDiscovery{
			NamespaceName: Mesh.Mesh + ".local",
			ServiceName:   fmt.Sprintf("node-%d", i),
			IpPreference:  g.preference(),
		}
		if g.maybe(2) {
			cloudMap.Attributes = []appmesh.AwsCloudMapInstanceAttribute{{Key: "version", Value: "v1"}}
		}
		return &appmesh.ServiceDiscovery{AwsCloudMap: cloudMap}
	}
	dns := &appmesh.DnsServiceDiscovery{Hostname: fmt.Sprintf("node-%d.%s.local", i, Mesh.Mesh), IpPreference: g.preference()}
	switch g.IntN(8) {
	case 0:
		dns.Hostname += "."
	case 1:
		dns.Hostname = "127.0.0.1"
	}
	if g.maybe(2) {
		dns.ResponseType = new(appmesh.DnsResponseType(pick(g, appmesh.DnsResponseType("").Enum()...)))
	}
	return &appmesh.ServiceDiscovery{DNS: dns}
}

func (g *generator) listener(p port) appmesh.Listener {
	l := appmesh.Listener{PortMapping: &appmesh.PortMapping{Port: p.number, Protocol: p.protocol}, TLS: g.listenerTLS()}
	if g.maybe(3) {
		l.ConnectionPool = g.pool(p.protocol)
	}
	if g.maybe(3) {
		l.Timeout = g.listenerTimeout(p.protocol)
	}
	if g.maybe(4) {
		l.OutlierDetection = &appmesh.OutlierDetection{
			BaseEjectionDuration: g.durationFrom(1),
			Interval:             g.durationFrom(1),
			MaxEjectionPercent:   new(g.between(0, 100)),
			MaxServerErrors:      g.between(1, 10),
		}
	}
	if g.maybe(4) {
		l.HealthCheck = &appmesh.HealthCheckPolicy{
			HealthyThreshold:   g.between(2, 10),
			UnhealthyThreshold: g.between(2, 10),
			IntervalMillis:     g.between(5000, 300_000),
			TimeoutMillis:      g.between(2000, 60_000),
			Port:               new(p.number),
			Protocol:           p.protocol,
		}
		if p.protocol == appmesh.PortProtocolHttp || p.protocol == appmesh.PortProtocolHttp2 {
			l.HealthCheck.Path = new("/ping")
		}
	}
	return l
}

func (g *generator) pool(protocol appmesh.PortProtocol) *appmesh.VirtualNodeConnectionPool {
	limit := g.between(1, 1000)
	switch protocol {
	case appmesh.PortProtocolHttp:
		pool := &appmesh.VirtualNodeHttpConnectionPool{MaxConnections: limit}
		if g.maybe(2) {
			pool.MaxPendingRequests = new(g.between(1, 2147483647))
		}
		return &appmesh.VirtualNodeConnectionPool{HTTP: pool}
	case appmesh.PortProtocolHttp2:
		return &appmesh.VirtualNodeConnectionPool{HTTP2: &appmesh.VirtualNodeHttp2ConnectionPool{MaxRequests: limit}}
	case appmesh.PortProtocolGrpc:
		return &appmesh.VirtualNodeConnectionPool{GRPC: &appmesh.VirtualNodeGrpcConnectionPool{MaxRequests: limit}}
	}
	return &appmesh.VirtualNodeConnectionPool{TCP: &appmesh.VirtualNodeTcpConnectionPool{MaxConnections: limit}}
}

func (g *generator) listenerTimeout(protocol appmesh.PortProtocol) *appmesh.ListenerTimeout {
	switch protocol {
	case appmesh.PortProtocolHttp:
		return &appmesh.ListenerTimeout{HTTP: g.httpTimeout()}
	case appmesh.PortProtocolHttp2:
		return &appmesh.ListenerTimeout{HTTP2: g.httpTimeout()}
	case appmesh.PortProtocolGrpc:
		return &appmesh.ListenerTimeout{GRPC: (*appmesh.GrpcTimeout)(g.httpTimeout())}
	}
	return &appmesh.ListenerTimeout{TCP: &appmesh.TcpTimeout{Idle: g.duration()}}
}

func (g *generator) httpTimeout() *appmesh.HttpTimeout {
	t := &appmesh.HttpTimeout{}
	if g.maybe(2) {
		t.Idle = g.duration()
	}
	if g.maybe(2) || t.Idle == nil {
		t.PerRequest = g.duration()
	}
	return t
}

func (g *generator) logging() *appmesh.Logging {
	if !g.maybe(4) {
		return nil
	}
	return &appmesh.Logging{AccessLog: &appmesh.AccessLog{File: &appmesh.FileAccessLog{Path: "/dev/null", Format: g.logFormat()}}}
}

func (g *generator) logFormat() *appmesh.LoggingFormat {
	switch g.IntN(3) {
	case 0:
		return &appmesh.LoggingFormat{Text: new("[%START_TIME%] %REQ(:METHOD)% %RESPONSE_CODE% 100%% done\n")}
	case 1:
		return &appmesh.LoggingFormat{Json: []appmesh.JsonFormatRef{
			{Key: "at", Value: "%START_TIME%"}, {Key: "code", Value: "%RESPONSE_CODE%"}, {Key: "app", Value: "random"}}}
	}
	return nil
}
