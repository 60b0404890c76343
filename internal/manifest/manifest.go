// Package manifest is App Mesh resources as files have them: how documents are
// read and written, in which order resources are made and deleted, what refers
// to what, and how two states differ. It decides nothing about the API and
// calls nobody; the operator commands do (cmd/fairlead). A document is the
// create request of App Mesh's API, as aws appmesh create-… --cli-input-yaml
// takes it.
package manifest

import (
	"cmp"
	"slices"

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

// Name is the resource within its mesh, as its ARN has it: virtualNode/web,
// virtualRouter/color/route/all; a mesh is mesh/apps.
func (r Resource) Name() string {
	if r.ID.Kind == mesh.KindMesh {
		return string(mesh.KindMesh) + "/" + r.Mesh
	}
	return r.ID.String()
}

// String is the name and the mesh, for messages: virtualNode/web (mesh apps).
func (r Resource) String() string {
	if r.ID.Kind == mesh.KindMesh {
		return r.Name()
	}
	return r.Name() + " (mesh " + r.Mesh + ")"
}

// Key identifies a resource within some files. The mesh's owner is no part of
// it: one document may name it and another one leave it out, and both mean the
// same resource.
type Key struct {
	Mesh string
	ID   mesh.ID
}

// Key is the resource's identity.
func (r Resource) Key() Key { return Key{r.Mesh, r.ID} }

// In is the mesh that the resource is in, or is.
func (r Resource) In() mesh.Name { return mesh.Name{Owner: r.MeshOwner, Mesh: r.Mesh} }

// Kinds are all kinds in the order in which resources can be made: what is
// referred to comes before what refers to it. Deletions go the other way.
func Kinds() []mesh.Kind {
	return []mesh.Kind{
		mesh.KindMesh, mesh.KindVirtualNode, mesh.KindVirtualRouter, mesh.KindRoute,
		mesh.KindVirtualService, mesh.KindVirtualGateway, mesh.KindGatewayRoute,
	}
}

// ParentKind is the kind that a route or a gateway route stands in; "" for the
// other kinds, which stand in the mesh.
func ParentKind(k mesh.Kind) mesh.Kind {
	switch k {
	case mesh.KindRoute:
		return mesh.KindVirtualRouter
	case mesh.KindGatewayRoute:
		return mesh.KindVirtualGateway
	}
	return ""
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

// Sort puts resources into the order in which they can be made, mesh by mesh.
// Backwards it is the order in which they can be deleted.
func Sort(resources []Resource) {
	slices.SortStableFunc(resources, func(a, b Resource) int {
		return cmp.Or(
			cmp.Compare(a.MeshOwner, b.MeshOwner), cmp.Compare(a.Mesh, b.Mesh),
			cmp.Compare(slices.Index(Kinds(), a.ID.Kind), slices.Index(Kinds(), b.ID.Kind)),
			a.ID.Compare(b.ID))
	})
}
