package agent

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// lookup reads variables from a table, on top of those that an agent needs.
func lookup(t testing.TB, more map[string]string) func(string) (string, bool) {
	t.Helper()
	variables := map[string]string{
		"APPMESH_RESOURCE_ARN":  "mesh/apps/virtualNode/colorteller",
		"APPMESH_XDS_ENDPOINT":  "127.0.0.1:9481",
		"ENVOY_BIN":             envoyBinary(t),
		"FAIRLEAD_STATE_DIR":    filepath.Join(t.TempDir(), "state"),
		"FAIRLEAD_BIND_ADDRESS": "",
	}
	maps.Copy(variables, more)
	return func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	}
}

// envoyBinary is the Envoy that `make tools` installs.
func envoyBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ENVOY_BIN"); path != "" {
		return path
	}
	path, err := filepath.Abs("../../.tools/bin/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Envoy: %v; make tools installs one", err)
	}
	return path
}

func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadVariables(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        string
	}{
		{"APPMESH_RESOURCE_ARN", "", "APPMESH_RESOURCE_ARN: is not set; it names what this proxy is"},
		{"APPMESH_RESOURCE_ARN", "mesh/apps/virtualNode", `APPMESH_RESOURCE_ARN: "mesh/apps/virtualNode" does not name a mesh endpoint`},
		{"APPMESH_RESOURCE_ARN", "mesh/apps/virtualRouter/r", "only virtual nodes and virtual gateways have proxies"},
		{"APPMESH_XDS_ENDPOINT", "", "APPMESH_XDS_ENDPOINT: is not set; it is the server's xDS address"},
		{"APPMESH_XDS_ENDPOINT", "control.local", `APPMESH_XDS_ENDPOINT: "control.local" is neither host:port nor unix:///path`},
		{"APPMESH_XDS_ENDPOINT", "https://control.local:9481", `is neither host:port nor unix:///path`},
		{"APPMESH_XDS_ENDPOINT", "control.local:xds", `APPMESH_XDS_ENDPOINT: "xds" is not a port`},
		{"APPMESH_XDS_ENDPOINT", "unix://relative", "has no absolute path: it is unix:///path"},
		{"FAIRLEAD_CA_FILE", "/nowhere/ca.pem", "FAIRLEAD_CA_FILE: read the server's CA: open /nowhere/ca.pem"},
		{"FAIRLEAD_BIND_ADDRESS", "localhost", `FAIRLEAD_BIND_ADDRESS: read fairlead.bind_address: "localhost" is not an IP address`},
		{"FAIRLEAD_APP_PORTS", "8080:18080", `FAIRLEAD_APP_PORTS: read fairlead.app_ports: "8080:18080" is not name=port`},
		{"FAIRLEAD_TCP_EGRESS", "db.local:5432=15432", "FAIRLEAD_TCP_EGRESS: is for direct mode: set FAIRLEAD_BIND_ADDRESS too"},
		{"FAIRLEAD_DNS_RESOLVER", "dns.local:53", `FAIRLEAD_DNS_RESOLVER: "dns.local:53" is not IP:port`},
		{"ENVOY_BIN", "/nowhere/envoy", "ENVOY_BIN: no Envoy to run: "},
		{"ENVOY_CONCURRENCY", "two", `ENVOY_CONCURRENCY: "two" is not a whole number from 0 to 65536`},
		{"ENVOY_INITIAL_FETCH_TIMEOUT", "5s", `ENVOY_INITIAL_FETCH_TIMEOUT: "5s" is not a whole number`},
		{"ENVOY_ADMIN_ACCESS_PORT", "99010", `ENVOY_ADMIN_ACCESS_PORT: "99010" is not a whole number from 1 to 65535`},
		{"ENVOY_ADMIN_MODE", "pipe", `ENVOY_ADMIN_MODE: "pipe" is neither tcp nor uds`},
		{"ENVOY_STATS_FLUSH_INTERVAL", "5", `ENVOY_STATS_FLUSH_INTERVAL: "5" is not a duration such as 5s`},
		{"DISABLE_HOT_RESTART", "yes", `DISABLE_HOT_RESTART: "yes" is neither true nor false; use 1 or 0`},
		{"ENVOY_RESOURCES_CONFIG_FILE", "/nowhere.yaml", "ENVOY_RESOURCES_CONFIG_FILE: stat /nowhere.yaml"},
		{"APPNET_AGENT_ADMIN_MODE", "http", `APPNET_AGENT_ADMIN_MODE: "http" is neither tcp nor uds`},
	} {
		_, err := ConfigFrom(lookup(t, map[string]string{test.name: test.value}))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: %v\nwant %s", test.name, test.value, err, test.want)
		}
	}
}

func TestAllBadVariablesAtOnce(t *testing.T) {
	_, err := ConfigFrom(lookup(t, map[string]string{"ENVOY_CONCURRENCY": "x", "ENABLE_ENVOY_STATS_TAGS": "x", "APPMESH_RESOURCE_ARN": "x"}))
	if n := strings.Count(err.Error(), "\n"); n != 2 {
		t.Errorf("three are bad:\n%v", err)
	}
}

func TestVariables(t *testing.T) {
	arn := "arn:aws:appmesh:eu-west-1:111122223333:mesh/apps@444455556666/virtualGateway/edge"
	for _, test := range []struct {
		about string
		env   map[string]string
		got   func(Config) any
		want  any
	}{
		{"the names are tried in App Mesh's order",
			map[string]string{"APPMESH_RESOURCE_ARN": " ", "APPMESH_RESOURCE_NAME": "mesh/a/virtualNode/b", "APPMESH_VIRTUAL_NODE_NAME": "mesh/a/virtualNode/c"},
			func(c Config) any { return []string{c.Resource, c.Cluster, c.TrustDomain} },
			[]string{"mesh/a/virtualNode/b", "mesh/a/virtualNode/b", "a.fairlead"}},
		{"a full ARN, a shared mesh, a name for metrics",
			map[string]string{"APPMESH_RESOURCE_ARN": arn, "APPMESH_RESOURCE_CLUSTER": "edge"},
			func(c Config) any { return []any{c.Resource, c.Cluster, c.meshName(), c.Endpoint} },
			[]any{arn, "edge", mesh.Name{Owner: "444455556666", Mesh: "apps"}, mesh.ID{Kind: mesh.KindVirtualGateway, Name: "edge"}}},
		{"admin and API are for this host alone",
			nil, func(c Config) any { return []Address{c.Admin, c.API} },
			[]Address{{"tcp", "127.0.0.1:9901"}, {"tcp", "127.0.0.1:9902"}}},
		{"in direct mode at the proxy's own address",
			map[string]string{"FAIRLEAD_BIND_ADDRESS": "127.0.0.7", "ENVOY_ADMIN_ACCESS_PORT": "9999"},
			func(c Config) any { return []Address{c.Admin, c.API} },
			[]Address{{"tcp", "127.0.0.7:9999"}, {"tcp", "127.0.0.7:9902"}}},
		{"as App Mesh's controller sets them",
			map[string]string{"ENVOY_ADMIN_ACCESS_ENABLE_IPV6": "false", "APPNET_AGENT_ADMIN_MODE": "uds", "APPNET_AGENT_ADMIN_UDS_PATH": "/tmp/agent.sock"},
			func(c Config) any { return []Address{c.Admin, c.API} },
			[]Address{{"tcp", "0.0.0.0:9901"}, {"unix", "/tmp/agent.sock"}}},
		{"IPv6", map[string]string{"ENVOY_ADMIN_ACCESS_ENABLE_IPV6": "1", "APPNET_AGENT_HTTP_BIND_ADDRESS": "[::]"},
			func(c Config) any { return []Address{c.Admin, c.API} },
			[]Address{{"tcp", "[::]:9901"}, {"tcp", "[::]:9902"}}},
		{"a timer out of range falls back to its default",
			map[string]string{"LISTENER_DRAIN_WAIT_TIME_S": "300"}, func(c Config) any { return c.DrainWait }, 20 * time.Second},
		{"a timer in range", map[string]string{"LISTENER_DRAIN_WAIT_TIME_S": "5"}, func(c Config) any { return c.DrainWait }, 5 * time.Second},
		{"restarts have no limit unless one is set", nil, func(c Config) any { return c.RestartLimit }, -1},
		{"and then at most 10", map[string]string{"APPNET_ENVOY_RESTART_COUNT": "99"}, func(c Config) any { return c.RestartLimit }, 10},
		{"a relay's socket: plain, one worker", map[string]string{"APPMESH_XDS_ENDPOINT": "unix:///tmp/relay.sock"},
			func(c Config) any { return []any{c.Server, c.ServerSocket, c.Envoy.Concurrency} }, []any{"", "/tmp/relay.sock", 1}},
		{"a log level that Envoy has not", map[string]string{"ENVOY_LOG_LEVEL": "LOUD"}, func(c Config) any { return c.Envoy.LogLevel }, "info"},
		{"direct mode", map[string]string{"FAIRLEAD_BIND_ADDRESS": "127.0.0.2", "FAIRLEAD_APP_PORTS": "8080=18080", "FAIRLEAD_TCP_EGRESS": "db:1=2"},
			func(c Config) any { return c.Shape },
			envoy.Shape{Bind: "127.0.0.2", AppPorts: "8080=18080", TCPEgress: "db:1=2"}},
	} {
		c, err := ConfigFrom(lookup(t, test.env))
		if err != nil {
			t.Errorf("%s: %v", test.about, err)
			continue
		}
		if diff := cmp.Diff(test.want, test.got(c)); diff != "" {
			t.Errorf("%s:\n%s", test.about, diff)
		}
	}
}

// What has no effect here is said, and stops nobody.
func TestWarnings(t *testing.T) {
	for name, value := range map[string]string{
		"ENABLE_ENVOY_XRAY_TRACING":        "1",
		"APPMESH_PREVIEW":                  "1",
		"APPMESH_SIGNING_NAME":             "appmesh-preview",
		"APPNET_ENVOY_LOG_DESTINATION":     "/var/log",
		"APPMESH_METRIC_EXTENSION_VERSION": "1",
		"LISTENER_DRAIN_WAIT_TIME_S":       "soon",
		"ENVOY_LOG_LEVEL":                  "loud",
	} {
		c, err := ConfigFrom(lookup(t, map[string]string{name: value}))
		if err != nil || !slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.HasPrefix(w, name+": ") }) {
			t.Errorf("%s=%s: %v, warnings %q", name, value, err, c.Warnings)
		}
	}
	if c, err := ConfigFrom(lookup(t, map[string]string{"APPMESH_PREVIEW": "0"})); err != nil || len(c.Warnings) > 0 {
		t.Errorf("a switch that is off is warned of: %v %q", err, c.Warnings)
	}
}
