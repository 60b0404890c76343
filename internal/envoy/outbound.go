package envoy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

const egressStats = "egress"

// egress is the plan of an endpoint's outbound side: what its application, or
// on a gateway its own loop, finds behind each port.
type egress struct {
	tables    map[int64]*egressRoutes // by the port dialled
	tcp       map[int64]tcpBackend    // by the port dialled
	selectors []selector
}

// egressRoutes are the services behind one port.
type egressRoutes struct {
	protocol appmesh.PortProtocol
	services []servicePort
}

// servicePort is a virtual service at one of its ports.
type servicePort struct {
	backend *mesh.Backend
	port    int64
	first   bool // the service's lowest HTTP port: its name alone means this one
}

// tcpBackend is a TCP service that answers for a whole port.
type tcpBackend struct {
	backend *mesh.Backend
	port    int64 // the service's
}

// single says whether all HTTP arrives at one port, told apart by host: in
// direct mode and on a gateway.
func (a *assembly) single() bool { return a.shape.Direct() || a.endpoint.Gateway != nil }

// plan lays out the outbound side.
func (a *assembly) plan() egress {
	p := egress{tables: map[int64]*egressRoutes{}, tcp: map[int64]tcpBackend{}}
	if a.single() {
		p.tables[egressPort] = &egressRoutes{protocol: appmesh.PortProtocolHttp}
	}
	local := a.localPorts()
	var unserved []servicePort
	for _, b := range a.endpoint.Backends {
		first := true
		for _, l := range b.Service.Listeners {
			switch {
			case l.Protocol != appmesh.PortProtocolTcp:
				a.planHTTP(&p, servicePort{b, l.Port, first}, l.Protocol)
				first = false
			case a.endpoint.Gateway == nil:
				a.planTCP(&p, servicePort{b, l.Port, false}, local)
			}
		}
		if len(b.Service.Listeners) == 0 {
			unserved = append(unserved, servicePort{b, 0, true})
		}
	}
	// A service that nobody answers for is at every port: 404 is better than
	// whatever else takes all hosts there.
	for _, t := range p.tables {
		t.services = append(t.services, unserved...)
		slices.SortFunc(t.services, func(x, y servicePort) int {
			return cmp.Or(cmp.Compare(x.backend.Service.Name, y.backend.Service.Name), cmp.Compare(x.port, y.port))
		})
	}
	for _, key := range slices.Sorted(maps.Keys(local)) {
		a.problem("", "FAIRLEAD_TCP_EGRESS names %s, which is no TCP backend of %s", key, a.endpoint.ID)
	}
	p.selectors = a.selectors()
	return p
}

func (a *assembly) planHTTP(p *egress, sp servicePort, protocol appmesh.PortProtocol) {
	at := sp.port
	if a.single() {
		at = egressPort
	}
	if taken, ok := p.tcp[at]; ok {
		a.clash(sp, taken.backend)
		return
	}
	t := p.tables[at]
	switch {
	case t == nil:
		t = &egressRoutes{protocol: protocol}
		p.tables[at] = t
	case t.protocol != protocol:
		t.protocol = appmesh.PortProtocolHttp // the name of a mixed table
	}
	t.services = append(t.services, sp)
}

func (a *assembly) planTCP(p *egress, sp servicePort, local map[string]int64) {
	at := sp.port
	if a.shape.Direct() {
		name := fmt.Sprintf("%s:%d", sp.backend.Service.Name, sp.port)
		at = local[name]
		delete(local, name)
		if at == 0 {
			a.problem(a.backendField(sp.backend), "TCP service %s has no local port; FAIRLEAD_TCP_EGRESS gives it one", name)
			return
		}
	}
	if taken, ok := p.tcp[at]; ok {
		a.clash(sp, taken.backend)
		return
	}
	if t := p.tables[at]; t != nil {
		a.clash(sp, t.services[0].backend)
		return
	}
	p.tcp[at] = tcpBackend{sp.backend, sp.port}
}

// clash reports two services that only a port could tell apart.
func (a *assembly) clash(sp servicePort, with *mesh.Backend) {
	a.problem(a.backendField(sp.backend), "virtual service %s cannot be reached: its port %d belongs to virtual service %s, and TCP has nothing but the port to tell them apart",
		sp.backend.Service.Name, sp.port, with.Service.Name)
}

// backendField finds a backend in the endpoint's spec.
func (a *assembly) backendField(b *mesh.Backend) string {
	if a.endpoint.Node == nil {
		return ""
	}
	for i, spec := range a.endpoint.Node.Spec.Backends {
		if spec.VirtualService != nil && spec.VirtualService.VirtualServiceName == b.Service.Name {
			return fmt.Sprintf("spec.backends[%d].virtualService.virtualServiceName", i)
		}
	}
	return ""
}

// localPorts are the local ports of TCP backends, by service:port.
func (a *assembly) localPorts() map[string]int64 {
	if !a.shape.Direct() || a.endpoint.Gateway != nil {
		return nil
	}
	pairs, _ := parsePorts(a.shape.TCPEgress)
	local := make(map[string]int64, len(pairs))
	for _, p := range pairs {
		local[p.from] = p.to
	}
	return local
}

// outbound adds the egress listener with its route tables, and the clusters to
// the world outside.
func (a *assembly) outbound() error {
	p := a.plan()
	ports := slices.Sorted(maps.Keys(p.tables))
	for _, at := range ports {
		if err := a.egressTable(at, p.tables[at], p.selectors); err != nil {
			return err
		}
	}
	if !a.single() {
		if err := a.outside(awsCluster(a.graph.Name.Mesh)); err != nil {
			return err
		}
		if a.graph.AllowAll {
			if err := a.outside(allowAllCluster(a.graph.Name.Mesh)); err != nil {
				return err
			}
		}
	}
	k := key{}
	k.start("outbound").str(a.graph.Name.Mesh).endpoint(a.endpoint).str(a.shape.Bind).str(string(a.endpoint.IPPreference)).bool(a.graph.AllowAll)
	for _, at := range ports {
		k.int(at).str(string(p.tables[at].protocol))
	}
	tcp := slices.Sorted(maps.Keys(p.tcp))
	for _, at := range tcp {
		a.tcpKey(k.str("tcp").int(at), p.tcp[at])
	}
	return a.resource(&k, a.endpoint.ID, func(d *draft) (Ref, content) {
		return Ref{Listener, egressListener}, content{Message: d.egress(a, p, ports, tcp)}
	})
}

// outside adds a cluster to whatever address the application dials. It is the
// mesh's: all its endpoints share it.
func (a *assembly) outside(name string) error {
	origin := mesh.ID{Kind: mesh.KindMesh, Name: a.graph.Name.Mesh}
	return a.resource(a.key.start("outside").str(name), origin, func(d *draft) (Ref, content) {
		return Ref{Cluster, name}, content{Message: d.passThrough(name)}
	})
}

// egressTable adds the table of the services behind a port.
func (a *assembly) egressTable(at int64, t *egressRoutes, selectors []selector) error {
	selected := make([]*unit, len(selectors))
	for i, s := range selectors {
		u, err := a.serviceRoutes(s.backend, s.port, s.value)
		if err != nil {
			return err
		}
		selected[i] = u
	}
	taken, everyHost := a.taken(at, t.services)
	hosts := make([]*unit, 0, len(t.services)+1)
	for i, sp := range t.services {
		h, err := a.serviceHost(sp, at, selected, taken[i])
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	base := &routev3.RouteConfiguration{Name: egressTable(t.protocol, at)}
	if a.endpoint.Gateway == nil {
		if a.graph.AllowAll && !a.single() && !everyHost {
			h, err := a.allowAllHost()
			if err != nil {
				return err
			}
			hosts = append(hosts, h)
		}
		return a.table("node", base, hosts)
	}
	base.RequestHeadersToRemove = []string{serviceHeader}
	if len(selected) > 0 && !everyHost {
		h, err := a.namedHost("default_backend", []string{"*"}, selected...)
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	return a.table("gateway", base, hosts)
}

// serviceHost is the virtual host of a service at port at, without the domains
// that another service has there.
func (a *assembly) serviceHost(sp servicePort, at int64, selected []*unit, taken []string) (*unit, error) {
	routes, err := a.serviceRoutes(sp.backend, sp.port, "")
	if err != nil {
		return nil, err
	}
	name, single := sp.backend.Service.Name, a.single()
	k := a.key.start("service").str(name).int(sp.port).int(at).bool(sp.first).bool(single).strs(taken)
	return a.host(k, append(slices.Clip(selected), routes), func(d *draft) (string, []string) {
		domains := slices.DeleteFunc(sp.domains(at, single), func(domain string) bool { return slices.Contains(taken, domain) })
		if len(domains) == 0 {
			d.problem(mesh.ID{Kind: mesh.KindVirtualService, Name: name}, "", "the service cannot be reached at port %d: another one has its name there", sp.port)
		}
		if !sp.first && single {
			name = fmt.Sprintf("%s:%d", name, sp.port)
		}
		return name, domains
	})
}

// domains are the hosts by which a request at port at means a service: its name,
// with the service's port or without, and with the port where it arrives. At a
// single port the name alone means the service's first one.
func (sp servicePort) domains(at int64, single bool) []string {
	name := sp.backend.Service.Name
	var domains []string
	if sp.first || !single {
		domains = append(domains, name, fmt.Sprintf("%s:%d", name, at))
	}
	if sp.port != 0 && sp.port != at {
		domains = append(domains, fmt.Sprintf("%s:%d", name, sp.port))
	}
	return domains
}

// taken finds, for each service of a table, the domains that one before it has:
// Envoy refuses a table with a domain twice, and does not look at their case.
// Only unusual names can clash. everyHost is true if a service is called *.
func (a *assembly) taken(at int64, services []servicePort) (taken map[int][]string, everyHost bool) {
	unusual := func(sp servicePort) bool {
		name := sp.backend.Service.Name
		return strings.ContainsAny(name, ":*") || strings.ToLower(name) != name
	}
	if !slices.ContainsFunc(services, unusual) {
		return nil, false
	}
	taken = map[int][]string{}
	seen := map[string]bool{}
	for i, sp := range services {
		for _, domain := range sp.domains(at, a.single()) {
			folded := strings.ToLower(domain)
			if seen[folded] {
				taken[i] = append(taken[i], domain)
			}
			seen[folded] = true
		}
	}
	return taken, seen["*"]
}

func (a *assembly) allowAllHost() (*unit, error) {
	name := allowAllCluster(a.graph.Name.Mesh)
	routes, err := a.routes(a.key.start("allow all").str(name), func(d *draft) []*routev3.Route {
		return []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: d.ref(Cluster, name)},
			}},
		}}
	})
	if err != nil {
		return nil, err
	}
	return a.namedHost("mesh_allow_all", []string{"*"}, routes)
}

// egress is the outbound listener. In interception mode it knows the port that
// the application dialled, in direct mode the port where the connection arrived.
func (d *draft) egress(a *assembly, p egress, ports, tcp []int64) *listenerv3.Listener {
	at := bind{ports: []int64{egressPort}, stats: egressPort}
	at.host, at.dual = anyHost(a.endpoint.IPPreference)
	switch {
	case a.shape.Direct():
		at.host, at.dual = a.shape.Bind, false
		at.ports = append(at.ports, tcp...)
	case a.endpoint.Gateway != nil:
		// Nothing but the gateway's own listeners may come in here: it would
		// pass by the gateway's routes and TLS.
		at.host, at.dual = "127.0.0.1", false
	}
	listener := at.listener(egressListener, corev3.TrafficDirection_OUTBOUND)
	for _, at := range ports {
		protocol := p.tables[at].protocol
		listener.FilterChains = append(listener.FilterChains, &listenerv3.FilterChain{
			Name:             fmt.Sprintf("egress_%s_%d", protocol, at),
			FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: port(at)},
			Filters:          []*listenerv3.Filter{d.http(egressStats, egressTable(protocol, at), a.endpoint)},
		})
	}
	for _, at := range tcp {
		listener.FilterChains = append(listener.FilterChains, &listenerv3.FilterChain{
			Name:             fmt.Sprintf("egress_tcp_%d", at),
			FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: port(at)},
			Filters:          []*listenerv3.Filter{d.tcpRoute(a, p.tcp[at])},
		})
	}
	if !a.single() {
		d.outside(a, listener, p)
	}
	return listener
}

// outside lets through what the mesh's egress filter allows: AWS's own APIs
// always, everything with ALLOW_ALL. Envoy picks a chain by port first and never
// looks back, so what takes port 443 in general stands there as well.
func (d *draft) outside(a *assembly, l *listenerv3.Listener, p egress) {
	const https = 443
	l.ListenerFilters = append(l.ListenerFilters, d.originalDestination())
	d.inspectTLS(l, https)
	to := func(name, cluster string, match *listenerv3.FilterChainMatch) {
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
			Name: name, FilterChainMatch: match,
			Filters: []*listenerv3.Filter{d.tcp(egressStats, []weighted{{cluster, 1}}, nil)},
		})
	}
	to("egress_amazonaws", awsCluster(a.graph.Name.Mesh), &listenerv3.FilterChainMatch{
		DestinationPort: port(https), ServerNames: []string{"*.amazonaws.com"},
	})
	if !a.graph.AllowAll {
		return
	}
	everywhere := allowAllCluster(a.graph.Name.Mesh)
	_, tcp := p.tcp[https]
	if p.tables[https] == nil && !tcp {
		to("egress_mesh-allow-all_443", everywhere, &listenerv3.FilterChainMatch{DestinationPort: port(https)})
	}
	to("egress_mesh-allow-all", everywhere, nil)
}

// tcpTargets are the targets of a TCP service at its port: of its first route
// there.
func (a *assembly) tcpTargets(t tcpBackend) ([]weighted, *appmesh.TcpTimeout) {
	s := t.backend.Service
	if s.Node != nil {
		return []weighted{{a.names[t.backend.Edge(listenerOn(s.Node, t.port))], 1}}, nil
	}
	for _, r := range s.Routes {
		tcp := r.Record.Spec.TcpRoute
		if tcp == nil || (tcp.Match != nil && tcp.Match.Port != nil && *tcp.Match.Port != t.port) {
			continue
		}
		return a.targets(t.backend, r), tcp.Timeout
	}
	return nil, nil
}

func (a *assembly) tcpKey(k *key, t tcpBackend) {
	targets, timeout := a.tcpTargets(t)
	for _, w := range targets {
		k.str(w.cluster).int(w.weight)
	}
	k.str("timeout")
	if timeout != nil && timeout.Idle != nil {
		k.int(deref(timeout.Idle.Value)).str(string(deref(timeout.Idle.Unit)))
	}
}

func (d *draft) tcpRoute(a *assembly, t tcpBackend) *listenerv3.Filter {
	targets, timeout := a.tcpTargets(t)
	if timeout == nil {
		return d.tcp(egressStats, targets, nil)
	}
	return d.tcp(egressStats, targets, duration(timeout.Idle))
}
