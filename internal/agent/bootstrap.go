package agent

import (
	"cmp"
	"fmt"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/internal/envoy"
)

// sockets are those between the agent and its Envoy, in a directory of mode
// 0700, each of mode 0600.
type sockets struct {
	xds   string // the agent's: ADS and SDS
	admin string // Envoy's real admin
}

// bootstrap is what a stock Envoy starts with: who it is, that everything else
// comes from the agent, and where its own admin is.
func (c Config) bootstrap(s sockets) (*bootstrapv3.Bootstrap, error) {
	b := &builder{}
	ads := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(c.Envoy.InitialFetchTimeout),
	}
	provider := s.xds // without one, the agent answers that it has no such secret
	if c.Envoy.SDSSocket != "" {
		provider = c.Envoy.SDSSocket
	}
	boot := &bootstrapv3.Bootstrap{
		Node: c.node(),
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: envoy.AgentCluster}}}},
			},
			LdsConfig: ads,
			CdsConfig: ads,
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{
			b.socketCluster(envoy.AgentCluster, s.xds),
			b.socketCluster(envoy.SDSCluster, provider),
		}},
		ClusterManager: &bootstrapv3.ClusterManager{OutlierDetection: &bootstrapv3.ClusterManager_OutlierDetection{EventLogPath: c.Envoy.OutlierEventLog}},
		LayeredRuntime: c.runtime(b),
		Admin:          &bootstrapv3.Admin{Address: pipe(s.admin, 0o600)},
	}
	if path := c.Envoy.AdminAccessLog; path != "" {
		boot.Admin.AccessLog = []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.file",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&filelogv3.FileAccessLog{Path: path})}}}
	}
	if c.Resolver.IsValid() {
		boot.TypedDnsResolverConfig = &corev3.TypedExtensionConfig{Name: "envoy.network.dns_resolver.cares",
			TypedConfig: b.any(&caresv3.CaresDnsResolverConfig{
				Resolvers:          []*corev3.Address{tcpAddress(c.Resolver.Addr().String(), uint32(c.Resolver.Port()))},
				DnsResolverOptions: &corev3.DnsResolverOptions{NoDefaultSearchDomain: true},
			})}
	}
	c.addStats(b, boot)
	c.addTracing(b, boot)
	return boot, b.err
}

// node is who this proxy says it is. The metadata shapes its own listeners and
// no more: what it may be is for its credential to say.
func (c Config) node() *corev3.Node {
	fields := map[string]any{envoy.MetadataAgent: cmp.Or(c.Version, "unknown")}
	for key, value := range c.Shape.Metadata() {
		fields[key] = value
	}
	if c.Envoy.MetricExtension {
		fields["aws.appmesh.metric_filter"] = map[string]any{"level": "1"}
	}
	if len(c.Envoy.Kubernetes) > 0 {
		platform := map[string]any{}
		for field, value := range c.Envoy.Kubernetes {
			platform[field] = value
		}
		fields["aws.appmesh.platformInfo"] = map[string]any{"k8sPlatformInfo": platform}
	}
	metadata, err := structpb.NewStruct(fields)
	if err != nil {
		metadata = nil // not UTF-8; every variable that matters was checked
	}
	node := &corev3.Node{Id: c.Resource, Cluster: c.Cluster, Metadata: metadata}
	if c.Region != "" {
		node.Locality = &corev3.Locality{Region: c.Region}
	}
	return node
}

// runtime keeps of App Mesh's layer what stock Envoys still know.
func (c Config) runtime(b *builder) *bootstrapv3.LayeredRuntime {
	static := map[string]any{"re2.max_program_size.error_level": 1000}
	if n := c.Envoy.MaxRequestsPerIOCycle; n > 0 {
		static["http.max_requests_per_io_cycle"] = n
	}
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
		{Name: "static_layer_0", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: b.object(static)}},
		{Name: "admin_layer", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
	}}
}

// builder makes the parts of a bootstrap and keeps the first error.
type builder struct{ err error }

func (b *builder) any(m proto.Message) *anypb.Any {
	packed, err := anypb.New(m)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("build bootstrap: %w", err)
	}
	return packed
}

func (b *builder) object(fields map[string]any) *structpb.Struct {
	object, err := structpb.NewStruct(fields)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("build bootstrap: %w", err)
	}
	return object
}

// socketCluster speaks HTTP/2 over a Unix socket.
func (b *builder) socketCluster(name, path string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment:       oneEndpoint(name, pipe(path, 0)),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.any(&httpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}}}}}),
		},
	}
}

func oneEndpoint(cluster string, address *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}}}}}}}
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

func tcpAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
}
