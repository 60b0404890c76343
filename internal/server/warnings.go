package server

import (
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// nodeWarnings are what surprises in the TLS of a node's listeners.
func (s *Service) nodeWarnings(r *mesh.Record[appmesh.VirtualNodeSpec]) []string {
	if !slices.ContainsFunc(r.Spec.Listeners, func(l appmesh.Listener) bool { return l.TLS != nil }) {
		return nil
	}
	return s.listenerWarnings(r.Mesh, r.ID, &mesh.View{
		VirtualNodes: map[string]*mesh.Record[appmesh.VirtualNodeSpec]{r.ID.Name: r},
	})
}

// gatewayWarnings are what surprises in the TLS of a gateway's listeners.
func (s *Service) gatewayWarnings(r *mesh.Record[appmesh.VirtualGatewaySpec]) []string {
	if !slices.ContainsFunc(r.Spec.Listeners, func(l appmesh.VirtualGatewayListener) bool { return l.TLS != nil }) {
		return nil
	}
	return s.listenerWarnings(r.Mesh, r.ID, &mesh.View{
		VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{r.ID.Name: r},
	})
}

// listenerWarnings reads the endpoint as the mesh will, alone.
func (s *Service) listenerWarnings(name mesh.Name, id mesh.ID, alone *mesh.View) []string {
	alone.Mesh = &mesh.Record[appmesh.MeshSpec]{Mesh: name, Spec: &appmesh.MeshSpec{}}
	endpoint := s.Graphs.Graph(alone).Endpoints[id]
	if endpoint == nil {
		return nil
	}
	var all []string
	for _, l := range endpoint.Listeners {
		for _, w := range tlspolicy.Warnings(l.TLS) {
			all = append(all, w.Field+": "+w.Message)
		}
	}
	return all
}
