package mesh

import (
	"maps"
	"slices"
	"strconv"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// Graph is one mesh with every reference resolved. It is immutable.
type Graph struct {
	Name         Name
	Revision     int64
	AllowAll     bool                 // egress filter ALLOW_ALL
	IPPreference appmesh.IpPreference // empty: unset
	Endpoints    map[ID]*Endpoint     // virtual nodes and virtual gateways
	Services     map[string]*Service
	Problems     []Problem
	// Certificates and Authorities are those that the specs name, by ARN; nil: it
	// cannot be had.
	Certificates map[string]*Certificate
	Authorities  map[string]*Authority
	TrustDomain  string     // of Fairlead's own SDS
	Own          *Authority // as in View

	view *View // that it was built from
}

// Problem is a user's mistake in a mesh, on the resource that has it.
type Problem struct {
	ID      ID
	Field   string // JSON path: spec.backends[0].virtualService.virtualServiceName
	Message string
}

// Origin is a record that a configuration was built from.
type Origin struct {
	ID       ID
	Revision int64
}

// Endpoint is a mesh endpoint: a virtual node or a virtual gateway. Exactly one
// of Node and Gateway is set, and its Spec too.
type Endpoint struct {
	ID      ID
	Node    *Record[appmesh.VirtualNodeSpec]
	Gateway *Record[appmesh.VirtualGatewaySpec]
	// DiscoveryName is the DNS hostname without trailing dot, or
	// serviceName.namespaceName; empty: none.
	DiscoveryName string
	// IPPreference is the endpoint's own, else the mesh's; empty: unset.
	IPPreference appmesh.IpPreference
	Listeners    []*Listener // by port as in the spec, one per port
	// Backends are the virtual services that the endpoint may call, by name; of
	// a gateway, those that its gateway routes reach.
	Backends []*Backend
	// GatewayRoutes are in matching order: priority, then exact paths before
	// longer prefixes before regular expressions, more criteria first, then name.
	GatewayRoutes []*GatewayRoute
	// Edges has one entry per server node, port and policy that the endpoint
	// reaches, in a stable order. Each is one cluster.
	Edges []*Edge
	// Origins are all records that the endpoint's proxies are configured from.
	Origins []Origin
}

// Listener is one listener of an endpoint. Exactly one of Node and Gateway is set.
type Listener struct {
	Port     int64
	Protocol appmesh.PortProtocol
	TLS      tlspolicy.Listener
	Node     *appmesh.Listener
	Gateway  *appmesh.VirtualGatewayListener
}

// Service is a virtual service. A service that a backend names and nobody has
// made has neither Record nor provider: its requests are answered 404.
type Service struct {
	Name   string
	Record *Record[appmesh.VirtualServiceSpec]
	// Listeners are the ports that clients dial: the router's, or if it has none
	// those of its routes' targets; with a node as provider, the node's.
	Listeners []ServiceListener
	Node      *Endpoint // provider, or nil
	Router    *Record[appmesh.VirtualRouterSpec]
	Routes    []*Route // of the router, in matching order
}

// ServiceListener is a port that clients of a service dial.
type ServiceListener struct {
	Port     int64
	Protocol appmesh.PortProtocol
}

// Route is a route with its targets found.
type Route struct {
	Record *Record[appmesh.RouteSpec]
	// Protocol is the route's kind: http for httpRoute.
	Protocol appmesh.PortProtocol
	// Targets are those that exist, in the order of the spec: none means that
	// every request is answered 503. Zero weights are kept.
	Targets []Target
}

// Target is a weighted target: a listener of a virtual node. Both are set.
type Target struct {
	Node     *Endpoint
	Listener *Listener
	Weight   int64
}

// GatewayRoute is a gateway route with its target found.
type GatewayRoute struct {
	Record   *Record[appmesh.GatewayRouteSpec]
	Protocol appmesh.PortProtocol // the route's kind
	Service  *Service
	Port     int64 // of the target service; 0: the service has no listener
}

// Backend is a virtual service that an endpoint may call, with the policy that
// applies there.
type Backend struct {
	Service *Service
	Policy  *tlspolicy.Policy // nil: none
	// Own is true when the policy is the backend's own, not the backend defaults.
	Own bool
	// Edges are those through which the service is reached, in the order of
	// Endpoint.Edges.
	Edges []*Edge
}

// Edge is the edge by which the backend's requests reach a listener of a
// target; nil if the listener is none of its targets', or its cluster's name is
// taken (a Problem says so).
func (b *Backend) Edge(l *Listener) *Edge {
	for _, e := range b.Edges {
		if e.Listener == l {
			return e
		}
	}
	return nil
}

// Edge is a client endpoint and a listener of a server virtual node, under one
// policy.
type Edge struct {
	Client   *Endpoint
	Server   *Endpoint
	Listener *Listener
	// Service is set when another edge of the client reaches the same node and
	// port under another policy: the virtual service whose own policy this is.
	Service  string
	Services []string // the virtual services through which the edge is used
	Policy   *tlspolicy.Policy
	Decision tlspolicy.Decision

	isDefault bool // a backend under the backend defaults uses it
}

// Cluster is the name of the Envoy cluster that the edge is, as App Mesh had it
// (facts/data-plane.md C.1): cds_egress_<mesh>_<node>_<protocol>_<port>, and
// _<virtual service> behind it for an edge with a Service. mesh is the mesh's
// name alone, without owner.
func (e *Edge) Cluster(mesh string) string {
	name := "cds_egress_" + mesh + "_" + e.Server.ID.Name + "_" + string(e.Listener.Protocol) + "_" +
		strconv.FormatInt(e.Listener.Port, 10)
	if e.Service != "" {
		name += "_" + e.Service
	}
	return name
}

// Sorted lists the endpoints by ID, so that output is stable.
func (g *Graph) Sorted() []*Endpoint {
	endpoints := slices.Collect(maps.Values(g.Endpoints))
	slices.SortFunc(endpoints, func(a, b *Endpoint) int { return a.ID.Compare(b.ID) })
	return endpoints
}
