package agent

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EnvoyConfig is what App Mesh's variables say of the Envoy process and its
// bootstrap (facts/data-plane.md A.3 and A.4).
type EnvoyConfig struct {
	Binary             string
	LogLevel           string
	Concurrency        int // -1: as many workers as cores
	HotRestart         bool
	SkipDeprecatedLogs bool

	InitialFetchTimeout time.Duration // of listeners and clusters; 0: for ever

	// The files. ConfigFile is used as it is; the others, YAML in the form of a
	// bootstrap, are merged into ours.
	ConfigFile, ResourcesFile, TracingFile, StatsFile, SinksFile string

	StatsFlushInterval    time.Duration // 0: Envoy's default
	StatsTags             bool
	MetricExtension       bool
	AdminAccessLog        string
	OutlierEventLog       string
	MaxRequestsPerIOCycle int    // 0: Envoy's default
	SDSSocket             string // of the provider of `sds` secrets; empty: none

	Datadog *Collector
	Jaeger  *Collector
	// JaegerJSON: spans as JSON, not as protocol buffers.
	JaegerJSON bool
	// StatsdAddress (UDP, IP:port) or StatsdSocket gets the statistics.
	StatsdAddress, StatsdSocket string

	Kubernetes map[string]string // platformInfo, by its own field names
}

// Collector is where spans go.
type Collector struct {
	Host    string
	Port    int
	Service string
}

// levels are Envoy's log levels.
var levels = []string{"info", "debug", "warn", "warning", "error", "trace", "critical", "off"}

func envoyConfigFrom(e *environment, c Config) EnvoyConfig {
	concurrency := -1
	if c.ServerSocket != "" {
		concurrency = 1 // as App Mesh's agent had it behind a relay
	}
	v := EnvoyConfig{
		Binary:              findEnvoy(e),
		LogLevel:            strings.ToLower(e.or("ENVOY_LOG_LEVEL", "info")),
		Concurrency:         e.integer("ENVOY_CONCURRENCY", concurrency, 0, 1<<16),
		HotRestart:          !e.boolean("DISABLE_HOT_RESTART", true),
		SkipDeprecatedLogs:  e.boolean("ENVOY_SKIP_DEPRECATED_LOGS", true),
		InitialFetchTimeout: time.Duration(e.integer("ENVOY_INITIAL_FETCH_TIMEOUT", 0, 0, 1<<20)) * time.Second,

		ConfigFile:    existing(e, "ENVOY_CONFIG_FILE"),
		ResourcesFile: existing(e, "ENVOY_RESOURCES_CONFIG_FILE"),
		TracingFile:   existing(e, "ENVOY_TRACING_CFG_FILE"),
		StatsFile:     existing(e, "ENVOY_STATS_CONFIG_FILE"),
		SinksFile:     existing(e, "ENVOY_STATS_SINKS_CFG_FILE"),

		StatsTags:       e.boolean("ENABLE_ENVOY_STATS_TAGS", false),
		MetricExtension: e.text("APPMESH_METRIC_EXTENSION_VERSION") == "1",
		AdminAccessLog:  e.text("ENVOY_ADMIN_ACCESS_LOG_FILE"),
		OutlierEventLog: e.or("ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH", "/dev/stdout"),
		SDSSocket:       e.text("APPMESH_SDS_SOCKET_PATH"),
	}
	if !slices.Contains(levels, v.LogLevel) {
		e.warn("ENVOY_LOG_LEVEL", "%q is not a log level; info is used", v.LogLevel)
		v.LogLevel = "info"
	}
	if text := e.text("ENVOY_STATS_FLUSH_INTERVAL"); text != "" {
		interval, err := time.ParseDuration(text)
		if err != nil || interval < time.Millisecond {
			e.fail("ENVOY_STATS_FLUSH_INTERVAL", "%q is not a duration such as 5s", text)
		}
		v.StatsFlushInterval = interval
	}
	if e.text("MAX_REQUESTS_PER_IO_CYCLE") != "" {
		v.MaxRequestsPerIOCycle = e.integer("MAX_REQUESTS_PER_IO_CYCLE", 0, 1, 1<<30)
	}
	v.readTracing(e, c)
	v.readStatsd(e)
	v.Kubernetes = map[string]string{}
	for field, variable := range map[string]string{"k8sVersion": "APPMESH_PLATFORM_K8S_VERSION",
		"appMeshControllerVersion": "APPMESH_PLATFORM_APP_MESH_CONTROLLER_VERSION", "podUid": "APPMESH_PLATFORM_K8S_POD_UID"} {
		if text := e.text(variable); text != "" {
			v.Kubernetes[field] = text
		}
	}
	if v.MetricExtension {
		e.warn("APPMESH_METRIC_EXTENSION_VERSION", "only the tags are set: a stock Envoy has no filter that counts App Mesh's own metrics")
	}
	e.ignored("Envoy's log goes to standard error", "APPNET_ENVOY_LOG_DESTINATION")
	return v
}

// existing is the path of a file that must be there.
func existing(e *environment, variable string) string {
	path := e.text(variable)
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		e.fail(variable, "%w", err)
	case info.IsDir():
		e.fail(variable, "%s is a directory", path)
	case info.Size() == 0 && variable == "ENVOY_CONFIG_FILE":
		return "" // as App Mesh had it: an empty file is written over
	}
	return path
}

// readTracing takes at most one tracer. X-Ray's is not in a stock Envoy: whoever
// asks for it gets a proxy without traces and a warning, not an outage.
func (v *EnvoyConfig) readTracing(e *environment, c Config) {
	if e.boolean("ENABLE_ENVOY_XRAY_TRACING", false) {
		e.warn("ENABLE_ENVOY_XRAY_TRACING", "has no effect: a stock Envoy has no X-Ray tracer; send spans to an OpenTelemetry collector by ENVOY_TRACING_CFG_FILE, or use ENABLE_ENVOY_JAEGER_TRACING")
	}
	if e.boolean("ENABLE_ENVOY_DATADOG_TRACING", false) {
		v.Datadog = &Collector{Host: e.or("DATADOG_TRACER_ADDRESS", "127.0.0.1"), Port: e.port("DATADOG_TRACER_PORT", 8126),
			Service: e.or("DD_SERVICE", "envoy-"+c.Mesh+"/"+c.Endpoint.Name)}
	}
	if e.boolean("ENABLE_ENVOY_JAEGER_TRACING", false) {
		v.Jaeger = &Collector{Host: e.or("JAEGER_TRACER_ADDRESS", "127.0.0.1"), Port: e.port("JAEGER_TRACER_PORT", 9411)}
		switch version := e.or("JAEGER_TRACER_VERSION", "PROTO"); version {
		case "PROTO":
		case "JSON":
			v.JaegerJSON = true
		default:
			e.fail("JAEGER_TRACER_VERSION", "%q is neither PROTO nor JSON", version)
		}
	}
	if v.Datadog != nil && v.Jaeger != nil {
		e.fail("ENABLE_ENVOY_JAEGER_TRACING", "only one tracer can be enabled, and ENABLE_ENVOY_DATADOG_TRACING is set too")
	}
}

func (v *EnvoyConfig) readStatsd(e *environment) {
	if !e.boolean("ENABLE_ENVOY_DOG_STATSD", false) || v.SinksFile != "" {
		return
	}
	if v.StatsdSocket = e.text("STATSD_SOCKET_PATH"); v.StatsdSocket != "" {
		return
	}
	host := e.or("STATSD_ADDRESS", "127.0.0.1")
	if _, err := netip.ParseAddr(host); err != nil {
		e.fail("STATSD_ADDRESS", "%q is not an IP address", host)
	}
	v.StatsdAddress = net.JoinHostPort(host, strconv.Itoa(e.port("STATSD_PORT", 8125)))
}
