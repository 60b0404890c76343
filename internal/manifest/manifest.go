// Package manifest is App Mesh resources as files have them: how documents are
// read and written, in which order resources are made and deleted, and how two
// states differ. It decides nothing about the API and calls nobody; the
// operator commands do (cmd/fairlead). A document is the create request of App
// Mesh's API, as aws appmesh create-… --cli-input-yaml takes it.
package manifest

import (
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Resource is one App Mesh resource as a file has it.
type Resource struct {
	Mesh      string
	MeshOwner string // 12 digits; empty: the caller's account
	ID        mesh.ID

	// Spec points to the generated type of the kind's spec, as NewSpec makes it:
	// *appmesh.VirtualNodeSpec for a virtual node.
	Spec any
	Tags map[string]string // nil: the file says nothing of tags

	Source string // where it was read, for messages: file, document, line or path
}

// kinds are all kinds in the order in which resources can be made: what is
// referred to comes before what refers to it. Deletions go the other way.
var kinds = []mesh.Kind{
	mesh.KindMesh, mesh.KindVirtualNode, mesh.KindVirtualRouter, mesh.KindRoute,
	mesh.KindVirtualService, mesh.KindVirtualGateway, mesh.KindGatewayRoute,
}

// NewSpec makes an empty spec of a kind; nil for a kind that does not exist.
func NewSpec(k mesh.Kind) any {
	switch k {
	case mesh.KindMesh:
		return &appmesh.MeshSpec{}
	case mesh.KindVirtualNode:
		return &appmesh.VirtualNodeSpec{}
	case mesh.KindVirtualService:
		return &appmesh.VirtualServiceSpec{}
	case mesh.KindVirtualRouter:
		return &appmesh.VirtualRouterSpec{}
	case mesh.KindRoute:
		return &appmesh.RouteSpec{}
	case mesh.KindVirtualGateway:
		return &appmesh.VirtualGatewaySpec{}
	case mesh.KindGatewayRoute:
		return &appmesh.GatewayRouteSpec{}
	}
	return nil
}
