package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// inspectTimeout is how long a connection may keep a PERMISSIVE listener
// guessing: where the server speaks first, it counts as plaintext then.
const inspectTimeout = time.Second

// bind is where a listener listens.
type bind struct {
	host  string
	dual  bool // IPv6 and IPv4
	ports []int64
	stats int64 // the port in the listener's statistics
}

// listener is a listener without filters and chains.
func (b bind) listener(name string, direction corev3.TrafficDirection) *listenerv3.Listener {
	at := func(port int64) *corev3.Address {
		address := address(b.host, port)
		address.GetSocketAddress().Ipv4Compat = b.dual
		return address
	}
	l := &listenerv3.Listener{
		Name:             name,
		Address:          at(b.ports[0]),
		StatPrefix:       listenerStats(b.stats),
		TrafficDirection: direction,
	}
	for _, port := range b.ports[1:] {
		l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: at(port)})
	}
	return l
}

// anyHost is the address of listeners that everyone may dial. With an IP
// preference of any kind App Mesh listens on both families.
func anyHost(p appmesh.IpPreference) (host string, dual bool) {
	if p == "" {
		return "0.0.0.0", false
	}
	return "::", true
}

func (d *draft) originalDestination() *listenerv3.ListenerFilter {
	return d.listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{})
}

// inspectTLS looks for TLS in what the client says first, on these ports alone:
// on others it would hold back protocols in which the server speaks first.
func (d *draft) inspectTLS(l *listenerv3.Listener, ports ...int64) {
	filter := d.listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{})
	if len(ports) > 0 {
		filter.FilterDisabled = &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: onPorts(ports)},
		}
	}
	l.ListenerFilters = append(l.ListenerFilters, filter)
	l.ListenerFiltersTimeout = durationpb.New(inspectTimeout)
	l.ContinueOnListenerFiltersTimeout = true
}

func onPorts(ports []int64) *listenerv3.ListenerFilterChainMatchPredicate {
	rules := make([]*listenerv3.ListenerFilterChainMatchPredicate, len(ports))
	for i, port := range ports {
		rules[i] = &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
				DestinationPortRange: &typev3.Int32Range{Start: int32(port), End: int32(port) + 1},
			},
		}
	}
	if len(rules) == 1 {
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{
		Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
		},
	}
}

func (d *draft) listenerFilter(name string, config proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       name,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: d.pack(config)},
	}
}

func (d *draft) filter(name string, config interface {
	proto.Message
	validated
}) *listenerv3.Filter {
	d.check(config)
	return &listenerv3.Filter{
		Name:       name,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: d.pack(config)},
	}
}

// http is a connection manager that routes by a table.
func (d *draft) http(stats, table string, e *mesh.Endpoint) *listenerv3.Filter {
	return d.filter("envoy.filters.network.http_connection_manager", &hcmv3.HttpConnectionManager{
		StatPrefix: stats,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: d.ref(Route, table),
		}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: d.pack(&routerv3.Router{})},
		}},
		Tracing:        &hcmv3.HttpConnectionManager_Tracing{},
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		AccessLog:      d.accessLog(e),
		// App Mesh matches paths as they are meant, not as they are written.
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
	})
}

// tcp is a proxy to targets by weight. Without any weight it closes.
func (d *draft) tcp(stats string, targets []weighted, idle *durationpb.Duration) *listenerv3.Filter {
	targets = reachable(targets)
	if len(targets) == 0 {
		return d.filter("envoy.filters.network.direct_response", &directv3.Config{})
	}
	proxy := &tcpv3.TcpProxy{StatPrefix: stats, IdleTimeout: idle}
	if len(targets) == 1 {
		proxy.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: d.ref(Cluster, targets[0].cluster)}
		return d.filter("envoy.filters.network.tcp_proxy", proxy)
	}
	clusters := &tcpv3.TcpProxy_WeightedCluster{}
	for _, t := range targets {
		if t.weight > 0 { // Envoy takes no zero here
			clusters.Clusters = append(clusters.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{
				Name: d.ref(Cluster, t.cluster), Weight: uint32(t.weight),
			})
		}
	}
	proxy.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: clusters}
	return d.filter("envoy.filters.network.tcp_proxy", proxy)
}

// port is a filter chain's match on the port that the client dialled.
func port(p int64) *wrapperspb.UInt32Value { return wrapperspb.UInt32(uint32(p)) }
