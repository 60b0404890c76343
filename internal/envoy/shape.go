package envoy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// The keys of node metadata that make a Shape. All values are strings.
const (
	MetadataAgent       = "fairlead.agent"        // version of the agent, if there is one
	MetadataBindAddress = "fairlead.bind_address" // FAIRLEAD_BIND_ADDRESS
	MetadataAppAddress  = "fairlead.app_address"  // FAIRLEAD_APP_ADDRESS
	MetadataAppPorts    = "fairlead.app_ports"    // FAIRLEAD_APP_PORTS
	MetadataTCPEgress   = "fairlead.tcp_egress"   // FAIRLEAD_TCP_EGRESS
	MetadataProvider    = "fairlead.sds_provider" // "true" if APPMESH_SDS_SOCKET_PATH is set
)

// Shape is what one proxy's own surroundings decide about its listeners and its
// clusters on its own host: never who it is, and never another proxy's
// configuration. Proxies of one endpoint with equal shapes hold one Config.
type Shape struct {
	// Bind is the address of direct mode: every listener binds it, at the
	// ports of the spec. Empty: interception mode.
	Bind string
	// AppAddress is where the application listens; empty: the loopback address.
	AppAddress string
	// AppPorts maps listener ports to the application's: "8080=18080,…".
	AppPorts string
	// TCPEgress opens local ports for TCP backends in direct mode:
	// "service:port=localport,…".
	TCPEgress string
	// Agent is true when an agent serves the secrets of `file` certificates.
	Agent bool
	// Provider is true when a provider of this host's answers every `sds` secret,
	// also those in the mesh's trust domain.
	Provider bool
}

// ShapeOf reads the shape from a node's metadata. A node without any of it, as
// every App Mesh Envoy is, has the zero Shape.
func ShapeOf(node *corev3.Node) (Shape, error) {
	fields := node.GetMetadata().GetFields()
	read := func(key string) string { return fields[key].GetStringValue() }
	shape := Shape{
		Bind:       read(MetadataBindAddress),
		AppAddress: read(MetadataAppAddress),
		AppPorts:   read(MetadataAppPorts),
		TCPEgress:  read(MetadataTCPEgress),
		Agent:      read(MetadataAgent) != "",
		Provider:   read(MetadataProvider) == "true",
	}
	return shape.Canonical()
}

// Canonical checks a shape and brings its lists into one order. Its errors name
// the metadata key.
func (s Shape) Canonical() (Shape, error) {
	for key, address := range map[string]*string{MetadataBindAddress: &s.Bind, MetadataAppAddress: &s.AppAddress} {
		if *address == "" {
			continue
		}
		ip, err := netip.ParseAddr(*address)
		if err != nil || ip.Zone() != "" {
			return Shape{}, fmt.Errorf("read %s: %q is not an IP address", key, *address)
		}
		*address = ip.String()
	}
	ports, err := parsePorts(s.AppPorts)
	if err != nil {
		return Shape{}, fmt.Errorf("read %s: %w", MetadataAppPorts, err)
	}
	s.AppPorts = ports.String()
	tcp, err := parsePorts(s.TCPEgress)
	if err != nil {
		return Shape{}, fmt.Errorf("read %s: %w", MetadataTCPEgress, err)
	}
	local := map[int64]bool{egressPort: true}
	for _, p := range tcp {
		if service, _, ok := p.service(); !ok || service == "" {
			return Shape{}, fmt.Errorf("read %s: %q is not service:port", MetadataTCPEgress, p.from)
		}
		if local[p.to] {
			return Shape{}, fmt.Errorf("read %s: local port %d is taken twice", MetadataTCPEgress, p.to)
		}
		local[p.to] = true
	}
	s.TCPEgress = tcp.String()
	return s, nil
}

// Metadata is the node metadata from which ShapeOf reads the shape again, but
// for MetadataAgent, which carries the agent's version.
func (s Shape) Metadata() map[string]string {
	metadata := map[string]string{}
	for key, value := range map[string]string{
		MetadataBindAddress: s.Bind, MetadataAppAddress: s.AppAddress,
		MetadataAppPorts: s.AppPorts, MetadataTCPEgress: s.TCPEgress,
	} {
		if value != "" {
			metadata[key] = value
		}
	}
	if s.Provider {
		metadata[MetadataProvider] = "true"
	}
	return metadata
}

// Direct is true in direct mode, where clients dial the listeners themselves.
func (s Shape) Direct() bool { return s.Bind != "" }

// appPort is where the application serves a listener port.
func (s Shape) appPort(port int64) int64 {
	ports, _ := parsePorts(s.AppPorts)
	for _, p := range ports {
		if p.from == strconv.FormatInt(port, 10) {
			return p.to
		}
	}
	return port
}

// portPair is one "from=port" of a list.
type portPair struct {
	from string
	to   int64
}

// service reads a pair's left side as service:port. A service name may contain
// colons: the last one counts.
func (p portPair) service() (name string, port int64, ok bool) {
	i := strings.LastIndexByte(p.from, ':')
	if i < 0 {
		return "", 0, false
	}
	port, err := parsePort(p.from[i+1:])
	return p.from[:i], port, err == nil
}

type portPairs []portPair

func (p portPairs) String() string {
	parts := make([]string, len(p))
	for i, pair := range p {
		parts[i] = pair.from + "=" + strconv.FormatInt(pair.to, 10)
	}
	return strings.Join(parts, ",")
}

// parsePorts reads "a=1,b=2" into pairs sorted by their left sides.
func parsePorts(list string) (portPairs, error) {
	var pairs portPairs
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		i := strings.LastIndexByte(part, '=')
		if i <= 0 {
			return nil, fmt.Errorf("%q is not name=port", part)
		}
		port, err := parsePort(part[i+1:])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		pairs = append(pairs, portPair{part[:i], port})
	}
	slices.SortFunc(pairs, func(a, b portPair) int { return strings.Compare(a.from, b.from) })
	for i := 1; i < len(pairs); i++ {
		if pairs[i].from == pairs[i-1].from {
			return nil, fmt.Errorf("%q is given twice", pairs[i].from)
		}
	}
	return pairs, nil
}

func parsePort(s string) (int64, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is not a port", s)
	}
	return int64(port), nil
}
