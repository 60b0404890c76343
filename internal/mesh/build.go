package mesh

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// Build makes the Graph of a view. It never fails: what cannot be resolved is
// left out and becomes a Problem on the resource that has it, and all the rest
// is built. Equal views give equal graphs.
func Build(view *View) *Graph {
	b := builder{
		view:     view,
		graph:    &Graph{Revision: view.Revision, Endpoints: map[ID]*Endpoint{}, Services: map[string]*Service{}, view: view},
		held:     hold(view),
		reach:    map[*Service]*reach{},
		defaults: map[*Endpoint]*tlspolicy.Policy{},
		origin:   numberOrigins(view),
	}
	if view.Mesh != nil {
		b.graph.Name = view.Mesh.Mesh
		if spec := view.Mesh.Spec; spec != nil {
			b.graph.AllowAll = spec.EgressFilter != nil && spec.EgressFilter.Type == appmesh.EgressFilterTypeAllowAll
			if spec.ServiceDiscovery != nil {
				b.graph.IPPreference = deref(spec.ServiceDiscovery.IpPreference)
			}
		}
	}
	b.trustDomain = view.trustDomain()
	b.graph.TrustDomain, b.graph.Own = b.trustDomain, view.Own

	b.nodes()
	b.gateways()
	b.routers()
	b.services()
	b.routesByGateway()
	for _, e := range b.graph.Sorted() {
		if e.Node != nil {
			b.nodeBackends(e)
		} else {
			b.gatewayRoutes(e)
		}
		b.edges(e)
		b.origins(e)
	}
	slices.SortFunc(b.graph.Problems, func(p, q Problem) int {
		return cmp.Or(p.ID.Compare(q.ID), cmp.Compare(p.Field, q.Field), cmp.Compare(p.Message, q.Message))
	})
	b.graph.Certificates, b.graph.Authorities = b.held.certificates, b.held.authorities
	return b.graph
}

// builder holds a Graph while it is built. What it does for each endpoint costs
// in proportion to what the endpoint reaches, never to the mesh.
type builder struct {
	view        *View
	graph       *Graph
	trustDomain string
	held        holdings
	routed      map[string]*routed              // by virtual router
	reach       map[*Service]*reach             // what lies behind a service
	defaults    map[*Endpoint]*tlspolicy.Policy // of backendDefaults, where there is one
	byGateway   map[string][]*Record[appmesh.GatewayRouteSpec]
	byListener  map[*Listener][]*Edge // of the endpoint at hand
	origin      originOf
	room        []Edge // for edges to come
	scratch     []int
}

func (b *builder) problem(id ID, field, message string) {
	b.graph.Problems = append(b.graph.Problems, Problem{ID: id, Field: field, Message: message})
}

func (b *builder) nodes() {
	for _, name := range slices.Sorted(maps.Keys(b.view.VirtualNodes)) {
		record := b.view.VirtualNodes[name]
		if record == nil || record.Spec == nil {
			continue
		}
		spec := record.Spec
		e := &Endpoint{ID: ID{Kind: KindVirtualNode, Name: name}, Node: record, IPPreference: b.graph.IPPreference}
		e.DiscoveryName, e.IPPreference = discovery(spec.ServiceDiscovery, e.IPPreference)
		for i := range spec.Listeners {
			l := &spec.Listeners[i]
			if l.PortMapping == nil {
				b.problem(e.ID, index("spec.listeners", i)+".portMapping", "the listener has no port mapping")
				continue
			}
			b.addListener(e, i, &Listener{
				Port:     l.PortMapping.Port,
				Protocol: l.PortMapping.Protocol,
				TLS:      b.listenerTLS(e.ID, i, l.TLS),
				Node:     l,
			})
		}
		if len(e.Listeners) > 0 && e.DiscoveryName == "" {
			b.problem(e.ID, "spec.serviceDiscovery", "the node has listeners but no service discovery: nobody can reach it")
		}
		if spec.BackendDefaults != nil && spec.BackendDefaults.ClientPolicy != nil {
			b.defaults[e] = b.policy(e.ID, "spec.backendDefaults.clientPolicy.tls", spec.BackendDefaults.ClientPolicy.TLS)
		}
		b.graph.Endpoints[e.ID] = e
	}
}

func (b *builder) gateways() {
	for _, name := range slices.Sorted(maps.Keys(b.view.VirtualGateways)) {
		record := b.view.VirtualGateways[name]
		if record == nil || record.Spec == nil {
			continue
		}
		spec := record.Spec
		e := &Endpoint{ID: ID{Kind: KindVirtualGateway, Name: name}, Gateway: record, IPPreference: b.graph.IPPreference}
		for i := range spec.Listeners {
			l := &spec.Listeners[i]
			if l.PortMapping == nil {
				b.problem(e.ID, index("spec.listeners", i)+".portMapping", "the listener has no port mapping")
				continue
			}
			b.addListener(e, i, &Listener{
				Port:     l.PortMapping.Port,
				Protocol: appmesh.PortProtocol(l.PortMapping.Protocol),
				TLS:      b.listenerTLS(e.ID, i, gatewayTLS(l.TLS)),
				Gateway:  l,
			})
		}
		if spec.BackendDefaults != nil && spec.BackendDefaults.ClientPolicy != nil {
			b.defaults[e] = b.policy(e.ID, "spec.backendDefaults.clientPolicy.tls", gatewayPolicy(spec.BackendDefaults.ClientPolicy.TLS))
		}
		b.graph.Endpoints[e.ID] = e
	}
}

func (b *builder) addListener(e *Endpoint, i int, l *Listener) {
	for _, other := range e.Listeners {
		if other.Port == l.Port {
			b.problem(e.ID, index("spec.listeners", i)+".portMapping.port", "another listener has this port")
			return
		}
	}
	e.Listeners = append(e.Listeners, l)
}

// discovery reads a node's discovery name, and its IP preference where it has
// one of its own.
func discovery(s *appmesh.ServiceDiscovery, inherited appmesh.IpPreference) (string, appmesh.IpPreference) {
	switch {
	case s == nil:
		return "", inherited
	case s.DNS != nil:
		return strings.TrimSuffix(s.DNS.Hostname, "."), cmp.Or(deref(s.DNS.IpPreference), inherited)
	case s.AwsCloudMap != nil:
		return s.AwsCloudMap.ServiceName + "." + s.AwsCloudMap.NamespaceName, cmp.Or(deref(s.AwsCloudMap.IpPreference), inherited)
	}
	return "", inherited
}

// nodeBackends resolves a node's backends: the backend's own policy replaces
// the default whole, and one without tls means none.
func (b *builder) nodeBackends(e *Endpoint) {
	backends := e.Node.Spec.Backends
	seen := make(map[string]bool, len(backends))
	e.Backends = make([]*Backend, 0, len(backends))
	for i := range backends {
		s := backends[i].VirtualService
		field := index("spec.backends", i) + ".virtualService"
		if s == nil {
			b.problem(e.ID, field, "the backend names no virtual service")
			continue
		}
		name, ok := serviceName(s.VirtualServiceName, b.graph.Name)
		if !ok {
			b.problem(e.ID, field+".virtualServiceName", s.VirtualServiceName+" is not a virtual service of this mesh")
			continue
		}
		if seen[name] {
			b.problem(e.ID, field+".virtualServiceName", "an earlier backend names "+name+" too; that one counts")
			continue
		}
		seen[name] = true
		backend := &Backend{Service: b.service(name, e.ID, field+".virtualServiceName"), Policy: b.defaults[e]}
		if s.ClientPolicy != nil {
			backend.Policy, backend.Own = b.policy(e.ID, field+".clientPolicy.tls", s.ClientPolicy.TLS), true
		}
		e.Backends = append(e.Backends, backend)
	}
	slices.SortFunc(e.Backends, func(x, y *Backend) int { return cmp.Compare(x.Service.Name, y.Service.Name) })
	b.portClashes(e)
}

// portClashes reports services that one node cannot tell apart: a TCP
// connection is matched by its port alone.
func (b *builder) portClashes(e *Endpoint) {
	type use struct {
		service string
		tcp     bool
	}
	var ports map[int64]use
	for _, backend := range e.Backends {
		for _, l := range backend.Service.Listeners {
			tcp := l.Protocol == appmesh.PortProtocolTcp
			first, taken := ports[l.Port]
			if taken && first.service != backend.Service.Name && (tcp || first.tcp) {
				b.problem(e.ID, "spec.backends", "services "+first.service+" and "+backend.Service.Name+
					" share port "+decimal(l.Port)+", and TCP connections are told apart by port alone")
				continue
			}
			if ports == nil {
				ports = map[int64]use{}
			}
			ports[l.Port] = use{backend.Service.Name, tcp || first.tcp}
		}
	}
}

// serviceName reads a backend's virtual service: a name, or the ARN of a
// service of this mesh.
func serviceName(s string, in Name) (string, bool) {
	if !strings.HasPrefix(s, "arn:") {
		return s, s != ""
	}
	path, ok := strings.CutPrefix(arnResource(s), "mesh/")
	if !ok {
		return "", false
	}
	meshName, rest, _ := strings.Cut(path, "/")
	meshName, owner, shared := strings.Cut(meshName, "@")
	name, ok := strings.CutPrefix(rest, "virtualService/")
	return name, ok && name != "" && meshName == in.Mesh && (!shared || owner == in.Owner)
}

// arnResource is the last part of arn:partition:service:region:account:resource.
func arnResource(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[5]
}
