package mesh

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// edges makes the edges of an endpoint: one per server node, port and policy.
func (b *builder) edges(e *Endpoint) {
	if b.byListener == nil {
		b.byListener = map[*Listener][]*Edge{}
	}
	clear(b.byListener)
	for _, backend := range e.Backends {
		reach := b.reach[backend.Service]
		if reach == nil {
			continue
		}
		backend.Edges = make([]*Edge, 0, len(reach.hops))
		for _, hop := range reach.hops {
			edge := b.find(backend, hop)
			if edge == nil {
				edge = b.decide(e, backend, hop)
				edge.Services = reach.names
				b.byListener[hop.Listener] = append(b.byListener[hop.Listener], edge)
			} else {
				edge.Services = append(edge.Services, backend.Service.Name)
			}
			edge.isDefault = edge.isDefault || !backend.Own
			backend.Edges = append(backend.Edges, edge)
		}
	}
	if len(b.byListener) == 0 {
		return
	}
	e.Edges = make([]*Edge, 0, len(b.byListener))
	named := false
	for _, edges := range b.byListener {
		named = nameByService(edges) || named
		e.Edges = append(e.Edges, edges...)
	}
	slices.SortFunc(e.Edges, compareEdges)
	if named {
		b.dropCollisions(e)
	}
}

// find looks for an edge that a backend can share: to the same listener, under
// a policy that says the same.
func (b *builder) find(backend *Backend, hop Target) *Edge {
	for _, edge := range b.byListener[hop.Listener] {
		if samePolicy(edge.Policy, backend.Policy) {
			return edge
		}
	}
	return nil
}

// decide makes an edge. Edges live as long as the Graph does, so they are
// allocated many at a time.
func (b *builder) decide(e *Endpoint, backend *Backend, hop Target) *Edge {
	if len(b.room) == cap(b.room) {
		b.room = make([]Edge, 0, 128)
	}
	b.room = append(b.room, Edge{
		Client:   e,
		Server:   hop.Node,
		Listener: hop.Listener,
		Policy:   backend.Policy,
		Decision: tlspolicy.Decide(tlspolicy.Edge{
			Policy:        backend.Policy,
			Port:          hop.Listener.Port,
			Listener:      hop.Listener.TLS,
			DiscoveryName: hop.Node.DiscoveryName,
			Server:        b.facts(hop.Listener.TLS.Certificate, backend.Policy),
		}),
	})
	return &b.room[len(b.room)-1]
}

// nameByService gives the edges to one listener, if they are several, the name
// of the virtual service whose own policy each is under. The backend defaults'
// edge keeps the plain name.
func nameByService(edges []*Edge) bool {
	if len(edges) < 2 {
		return false
	}
	for _, edge := range edges {
		if !edge.isDefault {
			edge.Service = edge.Services[0]
		}
	}
	return true
}

func compareEdges(x, y *Edge) int {
	return cmp.Or(
		cmp.Compare(x.Server.ID.Name, y.Server.ID.Name),
		cmp.Compare(x.Listener.Port, y.Listener.Port),
		cmp.Compare(x.Service, y.Service))
}

// dropCollisions takes out edges whose cluster would have another's name, as a
// node called a_http_80_b may bring about: one of two policies must not stand
// for both.
func (b *builder) dropCollisions(e *Endpoint) {
	taken := make(map[string]*Edge, len(e.Edges))
	kept := e.Edges[:0]
	for _, edge := range e.Edges {
		name := edge.Cluster(b.graph.Name.Mesh)
		if first := taken[name]; first != nil {
			b.problem(e.ID, "spec.backends", "cluster "+name+" would be "+first.Server.ID.String()+" for "+
				strings.Join(first.Services, ", ")+" and "+edge.Server.ID.String()+" for "+strings.Join(edge.Services, ", ")+
				", which is left out: rename a virtual service or a node")
			for _, backend := range e.Backends {
				backend.Edges = slices.DeleteFunc(backend.Edges, func(other *Edge) bool { return other == edge })
			}
			continue
		}
		taken[name] = edge
		kept = append(kept, edge)
	}
	clear(e.Edges[len(kept):])
	e.Edges = kept
}
