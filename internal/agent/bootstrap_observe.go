package agent

import (
	"fmt"
	"net/netip"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead/fairlead/internal/mesh"
)

// listenerTags take protocol and port off the stat prefix of a proxy with several
// listeners, so that Prometheus keeps envoy_http_conn_manager_prefix="ingress".
// They match what App Mesh's expressions match (`.*?\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$`
// and so on), but each begins with a word of its own: Envoy then looks at
// statistics of that family alone. With App Mesh's it takes 50 ms of processor
// time to add a cluster, whose 300 statistics each go through every expression.
var listenerTags = []struct{ name, expression string }{
	{"appmesh.listener_protocol", `^http\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$`},
	{"appmesh.listener_protocol", `^tcp\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$`},
	{"appmesh.listener_protocol", `^listener\..+?\.http\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$`},
	{"appmesh.listener_port", `^http\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$`},
	{"appmesh.listener_port", `^tcp\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$`},
	{"appmesh.listener_port", `^listener\..+?\.http\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$`},
	{"envoy_rds_route_config", `^http\.ingress\.\w+?\.[0-9]+?\.rds\.((.*?)\.)(.+?)$`},
}

// targetTags are those of the metrics extension. App Mesh's second expression
// stopped at a capital M, V or T; a service name may have them.
var targetTags = []struct{ name, expression string }{
	{"TargetVirtualNode", `^appmesh(?:\..+?\..+?)*(\.TargetVirtualNode\.(.+?))(?:\..+?\..+?)*\.(?:.+)$`},
	{"TargetVirtualService", `^appmesh(?:\..+?\..+?)*(\.TargetVirtualService\.(.+))\.(?:\w+)$`},
}

// addStats adds tags, in App Mesh's order, and sinks (facts/data-plane.md B.6).
func (c Config) addStats(b *builder, boot *bootstrapv3.Bootstrap) {
	var tags []*metricsv3.TagSpecifier
	fixed := func(name, value string) {
		tags = append(tags, &metricsv3.TagSpecifier{TagName: name, TagValue: &metricsv3.TagSpecifier_FixedValue{FixedValue: value}})
	}
	matched := func(name, expression string) {
		tags = append(tags, &metricsv3.TagSpecifier{TagName: name, TagValue: &metricsv3.TagSpecifier_Regex{Regex: expression}})
	}
	short, long := "virtual_node", "VirtualNode"
	if c.Endpoint.Kind == mesh.KindVirtualGateway {
		short, long = "virtual_gateway", "VirtualGateway"
	}
	if c.Envoy.StatsTags {
		fixed("appmesh.mesh", c.Mesh)
		fixed("appmesh."+short, c.Endpoint.Name)
	}
	if c.Envoy.MetricExtension {
		for _, tag := range targetTags {
			matched(tag.name, tag.expression)
		}
		fixed("Mesh", c.Mesh)
		fixed(long, c.Endpoint.Name)
	}
	for _, tag := range listenerTags {
		matched(tag.name, tag.expression)
	}
	boot.StatsConfig = &metricsv3.StatsConfig{StatsTags: tags}
	if interval := c.Envoy.StatsFlushInterval; interval > 0 {
		boot.StatsFlushInterval = durationpb.New(interval)
	}
	if address := c.statsd(); address != nil {
		boot.StatsSinks = append(boot.StatsSinks, &metricsv3.StatsSink{Name: "envoy.stat_sinks.dog_statsd",
			ConfigType: &metricsv3.StatsSink_TypedConfig{TypedConfig: b.any(&metricsv3.DogStatsdSink{
				DogStatsdSpecifier: &metricsv3.DogStatsdSink_Address{Address: address}})}})
	}
}

// statsd is where statistics are sent, or nil.
func (c Config) statsd() *corev3.Address {
	if c.Envoy.StatsdSocket != "" {
		return pipe(c.Envoy.StatsdSocket, 0)
	}
	to, err := netip.ParseAddrPort(c.Envoy.StatsdAddress)
	if err != nil {
		return nil
	}
	address := tcpAddress(to.Addr().String(), uint32(to.Port()))
	address.GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	return address
}

func (c Config) addTracing(b *builder, boot *bootstrapv3.Bootstrap) {
	var tracer *tracev3.Tracing_Http
	switch {
	case c.Envoy.Datadog != nil:
		const cluster = "datadog_agent"
		boot.StaticResources.Clusters = append(boot.StaticResources.Clusters, collectorCluster(cluster, c.Envoy.Datadog))
		tracer = &tracev3.Tracing_Http{Name: "envoy.tracers.datadog",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: b.any(&tracev3.DatadogConfig{
				CollectorCluster: cluster, ServiceName: c.Envoy.Datadog.Service})}}
	case c.Envoy.Jaeger != nil:
		const cluster = "jaeger"
		version := tracev3.ZipkinConfig_HTTP_PROTO
		if c.Envoy.JaegerJSON {
			version = tracev3.ZipkinConfig_HTTP_JSON
		}
		boot.StaticResources.Clusters = append(boot.StaticResources.Clusters, collectorCluster(cluster, c.Envoy.Jaeger))
		tracer = &tracev3.Tracing_Http{Name: "envoy.tracers.zipkin",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: b.any(&tracev3.ZipkinConfig{
				CollectorCluster: cluster, CollectorEndpoint: "/api/v2/spans", CollectorEndpointVersion: version,
				SharedSpanContext: wrapperspb.Bool(false)})}}
	default:
		return
	}
	//lint:ignore SA1019 the tracer is this host's matter, not the server's, which sends the connection managers; Envoy 1.40 takes it
	boot.Tracing = &tracev3.Tracing{Http: tracer}
}

func collectorCluster(name string, to *Collector) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment:       oneEndpoint(name, tcpAddress(to.Host, uint32(to.Port))),
	}
}

// envoyArguments are what Envoy is started with, besides its configuration.
func (c Config) envoyArguments(bootstrapFile string) []string {
	v := c.Envoy
	args := []string{"-c", bootstrapFile, "-l", v.LogLevel, "--drain-time-s", fmt.Sprint(int(c.DrainWait.Seconds()))}
	if v.Concurrency >= 0 {
		args = append(args, "--concurrency", fmt.Sprint(v.Concurrency))
	}
	if !v.HotRestart {
		args = append(args, "--disable-hot-restart")
	}
	if v.SkipDeprecatedLogs {
		args = append(args, "--skip-deprecated-logs")
	}
	return args
}
