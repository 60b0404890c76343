package agent

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// unknownAccount stands for the account of a resource that was named without
// it. Only the server knows, and only the server decides by it.
const unknownAccount = "000000000000"

// Config is all that an agent is told. ConfigFrom makes it from the environment.
type Config struct {
	Resource string // node.id, as given: an ARN, or mesh/M/virtualNode/N
	Mesh     string
	Endpoint mesh.ID
	Cluster  string // node.cluster: the name in metrics and traces
	Version  string // of this agent

	Server       string // host:port of the xDS address, over TLS and signed
	ServerSocket string // instead: an absolute path, plain and unsigned
	CAFile       string // who vouches for the server; empty: the system's roots
	Region       string // empty: as the AWS profile says, else us-east-1
	TrustDomain  string

	Shape    envoy.Shape // of direct mode; its zero value is interception
	Resolver netip.AddrPort
	StateDir string // where the configuration is kept over a restart
	// StateDirGiven tells a directory that the user chose, which must work, from
	// the default, without which the agent works too.
	StateDirGiven bool

	Admin Address // Envoy's admin, as far as it is for others
	API   Address // the agent's own

	Envoy               EnvoyConfig
	DrainWait           time.Duration
	RestartLimit        int           // restarts of Envoy without a stable time between; -1: no limit
	DisconnectedTimeout time.Duration // without the server for longer: UNHEALTHY

	LoggingReset time.Duration // how long a temporary log level lasts

	Warnings []string // what was asked for and has no effect
}

// Address is where something is served.
type Address struct {
	Network string // tcp or unix
	Address string // host:port or a path
}

// ConfigFrom reads the variables that App Mesh's Envoy image knew and those
// that start with FAIRLEAD_ (design.md 3 "Agent"). The error names each bad
// variable.
func ConfigFrom(lookup func(name string) (string, bool)) (Config, error) {
	e := &environment{lookup: lookup}
	c := Config{
		Region:              e.or("AWS_REGION", e.text("AWS_DEFAULT_REGION")),
		DrainWait:           e.seconds("LISTENER_DRAIN_WAIT_TIME_S", 20, 5, 110),
		DisconnectedTimeout: e.seconds("HC_DISCONNECTED_TIMEOUT_S", 604800, 3600, 604800),
		LoggingReset:        e.seconds("APPNET_AGENT_LOGGING_RESET_TIMEOUT", 300, 1, 1<<20),
		RestartLimit:        -1,
	}
	if e.text("APPNET_ENVOY_RESTART_COUNT") != "" {
		c.RestartLimit = min(e.lenient("APPNET_ENVOY_RESTART_COUNT", 3, 0, 1<<30), 10)
	}
	c.readIdentity(e)
	c.readServer(e)
	c.readShape(e)
	c.readAddresses(e)
	c.readStateDir(e)
	c.Envoy = envoyConfigFrom(e, c)
	c.Shape.Provider = c.Envoy.SDSSocket != ""
	e.ignored("the server is named by APPMESH_XDS_ENDPOINT", "APPMESH_PREVIEW", "APPMESH_DUALSTACK_ENDPOINT", "APPMESH_FIPS_ENDPOINT", "APPNET_ENABLE_RELAY_MODE_FOR_XDS")
	if name := e.or("APPMESH_SIGNING_NAME", "appmesh"); name != "appmesh" {
		e.warn("APPMESH_SIGNING_NAME", "has no effect: streams are signed for appmesh, not %q", name)
	}
	c.Warnings = e.warnings
	return c, e.err()
}

// meshName is the mesh as far as a proxy knows: its owner may be unknown here.
func (c Config) meshName() mesh.Name {
	name, _, err := iam.ParseResource(c.Resource, unknownAccount)
	if err != nil {
		return mesh.Name{Mesh: c.Mesh}
	}
	return name
}

// serverName is the server as the user named it.
func (c Config) serverName() string {
	if c.ServerSocket != "" {
		return "unix://" + c.ServerSocket
	}
	return c.Server
}

func (c *Config) readIdentity(e *environment) {
	resource, variable := e.first("APPMESH_RESOURCE_ARN", "APPMESH_RESOURCE_NAME", "APPMESH_VIRTUAL_NODE_NAME")
	if resource == "" {
		e.fail("APPMESH_RESOURCE_ARN", "is not set; it names what this proxy is: mesh/MESH/virtualNode/NAME, mesh/MESH/virtualGateway/NAME or the ARN of one")
		return
	}
	name, id, err := iam.ParseResource(resource, unknownAccount)
	if err != nil {
		e.fail(variable, "%w", err)
		return
	}
	c.Resource, c.Mesh, c.Endpoint = resource, name.Mesh, id
	c.Cluster, _ = e.first("APPMESH_RESOURCE_CLUSTER", "APPMESH_VIRTUAL_NODE_CLUSTER")
	if c.Cluster == "" {
		c.Cluster = resource
	}
	c.TrustDomain = e.or("FAIRLEAD_TRUST_DOMAIN", name.Mesh+".fairlead")
}

func (c *Config) readServer(e *environment) {
	const variable = "APPMESH_XDS_ENDPOINT"
	endpoint := e.text(variable)
	if path, isSocket := strings.CutPrefix(endpoint, "unix://"); isSocket {
		if !filepath.IsAbs(path) {
			e.fail(variable, "%q has no absolute path: it is unix:///path", endpoint)
		} else if _, err := os.Stat(path); err != nil {
			e.warn(variable, "nothing is at %s yet", path)
		}
		c.ServerSocket = path
		return
	}
	switch host, port, err := net.SplitHostPort(endpoint); {
	case endpoint == "":
		e.fail(variable, "is not set; it is the server's xDS address, host:port (App Mesh's own endpoints exist no longer)")
	case err != nil || host == "" || strings.Contains(host, "/"):
		e.fail(variable, "%q is neither host:port nor unix:///path", endpoint)
	default:
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			e.fail(variable, "%q is not a port", port)
		}
	}
	c.Server = endpoint
	if c.CAFile = e.text("FAIRLEAD_CA_FILE"); c.CAFile != "" {
		if _, err := loadRoots(c.CAFile); err != nil {
			e.fail("FAIRLEAD_CA_FILE", "%w", err)
		}
	}
}

func (c *Config) readShape(e *environment) {
	check := func(variable string, field *string, only func(value string) envoy.Shape) {
		*field = e.text(variable)
		if _, err := only(*field).Canonical(); err != nil {
			e.fail(variable, "%w", err)
		}
	}
	check("FAIRLEAD_BIND_ADDRESS", &c.Shape.Bind, func(v string) envoy.Shape { return envoy.Shape{Bind: v} })
	check("FAIRLEAD_APP_ADDRESS", &c.Shape.AppAddress, func(v string) envoy.Shape { return envoy.Shape{AppAddress: v} })
	check("FAIRLEAD_APP_PORTS", &c.Shape.AppPorts, func(v string) envoy.Shape { return envoy.Shape{AppPorts: v} })
	check("FAIRLEAD_TCP_EGRESS", &c.Shape.TCPEgress, func(v string) envoy.Shape { return envoy.Shape{TCPEgress: v} })
	if c.Shape.TCPEgress != "" && c.Shape.Bind == "" {
		e.fail("FAIRLEAD_TCP_EGRESS", "is for direct mode: set FAIRLEAD_BIND_ADDRESS too")
	}
	if resolver := e.text("FAIRLEAD_DNS_RESOLVER"); resolver != "" {
		var err error
		if c.Resolver, err = netip.ParseAddrPort(resolver); err != nil {
			e.fail("FAIRLEAD_DNS_RESOLVER", "%q is not IP:port", resolver)
		}
	}
}

// readAddresses decides who can reach Envoy's admin and the agent's own API:
// this host alone, or in direct mode this proxy's address, unless a variable of
// App Mesh says otherwise.
func (c *Config) readAddresses(e *environment) {
	host := "127.0.0.1"
	if c.Shape.Bind != "" {
		host = c.Shape.Bind
	}
	at := func(host string, port int) Address {
		return Address{"tcp", net.JoinHostPort(host, strconv.Itoa(port))}
	}
	adminHost := host
	if e.text("ENVOY_ADMIN_ACCESS_ENABLE_IPV6") != "" { // whoever sets it, as the controller does, wants App Mesh's address
		adminHost = "0.0.0.0"
		if e.boolean("ENVOY_ADMIN_ACCESS_ENABLE_IPV6", false) {
			adminHost = "::"
		}
	}
	c.Admin = at(adminHost, e.port("ENVOY_ADMIN_ACCESS_PORT", 9901))
	switch mode := e.or("ENVOY_ADMIN_MODE", "tcp"); mode {
	case "tcp":
	case "uds":
		c.Admin = Address{"unix", "/tmp/envoy_admin.sock"}
	default:
		e.fail("ENVOY_ADMIN_MODE", "%q is neither tcp nor uds", mode)
	}
	c.API = at(strings.Trim(e.or("APPNET_AGENT_HTTP_BIND_ADDRESS", host), "[]"), e.port("APPNET_AGENT_HTTP_PORT", 9902))
	switch mode := e.or("APPNET_AGENT_ADMIN_MODE", "tcp"); mode {
	case "tcp":
	case "uds":
		c.API = Address{"unix", e.or("APPNET_AGENT_ADMIN_UDS_PATH", "/var/run/ecs/appnet_admin.sock")}
	default:
		e.fail("APPNET_AGENT_ADMIN_MODE", "%q is neither tcp nor uds", mode)
	}
}

// readStateDir finds a directory of this proxy's own: two proxies of one
// endpoint on one host differ by their address.
func (c *Config) readStateDir(e *environment) {
	if c.StateDir = e.text("FAIRLEAD_STATE_DIR"); c.StateDir != "" {
		c.StateDirGiven = true
		return
	}
	base := "/var/lib"
	if os.Geteuid() != 0 {
		home := e.text("HOME")
		if base = e.text("XDG_STATE_HOME"); base == "" && home != "" {
			base = filepath.Join(home, ".local", "state")
		}
	}
	if base == "" || c.Mesh == "" {
		return
	}
	own := strings.NewReplacer("/", "_", ":", "_").Replace(c.Resource)
	if c.Shape.Bind != "" {
		own += "@" + strings.ReplaceAll(c.Shape.Bind, ":", "_")
	}
	c.StateDir = filepath.Join(base, "fairlead", "agent", own)
}

// findEnvoy is the binary to run: ENVOY_BIN, or envoy on the PATH.
func findEnvoy(e *environment) string {
	name := e.or("ENVOY_BIN", "envoy")
	path, err := exec.LookPath(name)
	if err != nil {
		e.fail("ENVOY_BIN", "%w", fmt.Errorf("no Envoy to run: %w; install a stock Envoy, or name one", err))
	}
	return path
}
