package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairlead/fairlead/internal/envoy"
)

// TestEnvoyTakesTheBootstrap has the real Envoy validate what every variable
// makes of it.
func TestEnvoyTakesTheBootstrap(t *testing.T) {
	for _, test := range []struct {
		about string
		env   map[string]string
	}{
		{"nothing but what is needed", nil},
		{"direct mode with a resolver", map[string]string{"FAIRLEAD_BIND_ADDRESS": "127.0.0.2", "FAIRLEAD_DNS_RESOLVER": "127.0.0.1:5353"}},
		{"tags, metrics, statsd by UDP, Jaeger", map[string]string{"ENABLE_ENVOY_STATS_TAGS": "1", "APPMESH_METRIC_EXTENSION_VERSION": "1",
			"ENABLE_ENVOY_DOG_STATSD": "1", "ENABLE_ENVOY_JAEGER_TRACING": "1", "JAEGER_TRACER_VERSION": "JSON", "ENVOY_STATS_FLUSH_INTERVAL": "10s"}},
		{"statsd by socket, Datadog, access log", map[string]string{"ENABLE_ENVOY_DOG_STATSD": "1", "STATSD_SOCKET_PATH": "/tmp/statsd.sock",
			"ENABLE_ENVOY_DATADOG_TRACING": "1", "ENVOY_ADMIN_ACCESS_LOG_FILE": "/dev/null"}},
		{"limits, an SDS provider, Kubernetes", map[string]string{"MAX_REQUESTS_PER_IO_CYCLE": "1", "APPMESH_SDS_SOCKET_PATH": "/run/spire/agent.sock",
			"APPMESH_PLATFORM_K8S_VERSION": "v1.37", "ENVOY_INITIAL_FETCH_TIMEOUT": "30", "AWS_REGION": "eu-west-1"}},
		{"the user's own files, in both spellings", map[string]string{
			"ENVOY_RESOURCES_CONFIG_FILE": write(t, "resources.yaml", "staticResources:\n  clusters:\n  - {name: mine, connectTimeout: 1s}\n"),
			"ENVOY_STATS_CONFIG_FILE":     write(t, "stats.yaml", "stats_config:\n  stats_tags:\n  - {tagName: team, fixed_value: blue}\n"),
			"ENVOY_TRACING_CFG_FILE": write(t, "tracing.yaml", `
tracing:
  http:
    name: envoy.tracers.zipkin
    typed_config:
      "@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig
      collector_cluster: mine
      collector_endpoint: /api/v2/spans
      collector_endpoint_version: HTTP_JSON
`),
			"ENVOY_STATS_SINKS_CFG_FILE": write(t, "sinks.yaml", `
stats_sinks:
- name: envoy.stat_sinks.statsd
  typed_config:
    "@type": type.googleapis.com/envoy.config.metrics.v3.StatsdSink
    address: {socket_address: {address: 127.0.0.1, port_value: 8125, protocol: UDP}}
`)}},
	} {
		config, err := ConfigFrom(lookup(t, test.env))
		if err != nil {
			t.Errorf("%s: %v", test.about, err)
			continue
		}
		dir := t.TempDir()
		encoded, err := config.bootstrapJSON(sockets{xds: filepath.Join(dir, "xds.sock"), admin: filepath.Join(dir, "admin.sock")})
		if err != nil {
			t.Errorf("%s: %v", test.about, err)
			continue
		}
		file := filepath.Join(dir, "bootstrap.json")
		if err := os.WriteFile(file, encoded, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(config.Envoy.Binary, append(config.envoyArguments(file), "--mode", "validate")...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "deprecated") {
			t.Errorf("%s: %v\n%s\n%s", test.about, err, encoded, out)
		}
	}
}

// TestMergedFiles shows what becomes of the user's own files.
func TestMergedFiles(t *testing.T) {
	resources := func(content string) map[string]string {
		return map[string]string{"ENVOY_RESOURCES_CONFIG_FILE": write(t, "resources.yaml", content)}
	}
	for _, test := range []struct {
		about string
		env   map[string]string
		want  string // error; empty: merged
	}{
		{"resources add up", resources("static_resources: {clusters: [{name: mine}]}"), ""},
		{"a name that Envoy does not know", resources("static_resources: {cluster: [{name: mine}]}"), "unknown name static_resources.cluster"},
		{"both spellings at once", resources("static_resources: {}\nstaticResources: {}"), "static_resources is there twice, as static_resources and staticResources"},
		{"what the agent decides", resources("admin: {}"), "admin is set elsewhere"},
		{"who the proxy is", resources("node: {id: other}"), "node is set elsewhere"},
		{"not YAML", resources("static_resources: ["), "ENVOY_RESOURCES_CONFIG_FILE: parse "},
		{"two sources of tracing", map[string]string{"ENABLE_ENVOY_JAEGER_TRACING": "1", "ENVOY_TRACING_CFG_FILE": write(t, "t.yaml", "tracing: {}")},
			"ENVOY_TRACING_CFG_FILE: merge "},
		{"a file for another purpose", map[string]string{"ENVOY_STATS_CONFIG_FILE": write(t, "s.yaml", "tracing: {}")}, "it is for stats_config and has tracing"},
	} {
		config, err := ConfigFrom(lookup(t, test.env))
		if err != nil {
			t.Errorf("%s: %v", test.about, err)
			continue
		}
		encoded, err := config.bootstrapJSON(sockets{"/x", "/a"})
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %s", test.about, err, test.want)
			}
			continue
		}
		var boot bootstrapv3.Bootstrap
		if err == nil {
			err = protojson.Unmarshal(encoded, &boot)
		}
		if err != nil {
			t.Errorf("%s: %v", test.about, err)
			continue
		}
		var names []string
		for _, c := range boot.StaticResources.Clusters {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); got != envoy.AgentCluster+" "+envoy.SDSCluster+" mine" {
			t.Errorf("%s: clusters %s", test.about, got)
		}
	}
}

// TestNode shows what a proxy says of itself: names that shape its listeners,
// and none of its credentials.
func TestNode(t *testing.T) {
	config, err := ConfigFrom(lookup(t, map[string]string{"FAIRLEAD_BIND_ADDRESS": "127.0.0.2", "FAIRLEAD_APP_PORTS": "8080=18080",
		"AWS_SECRET_ACCESS_KEY": "canary"}))
	if err != nil {
		t.Fatal(err)
	}
	config.Version = "1.2.3"
	shape, err := envoy.ShapeOf(config.node())
	if want := (envoy.Shape{Bind: "127.0.0.2", AppPorts: "8080=18080", Agent: true}); err != nil || shape != want {
		t.Errorf("shape %+v, want %+v (%v)", shape, want, err)
	}
	encoded, err := config.bootstrapJSON(sockets{"/x", "/a"})
	if err != nil || strings.Contains(string(encoded), "canary") {
		t.Errorf("%v %s", err, encoded)
	}
}
