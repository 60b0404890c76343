// Package mesh turns the records of one mesh at one revision into an immutable
// Graph: references resolved, problems listed, edges decided. It is pure: no
// store, no clock, no streams. A change rebuilds the whole Graph.
package mesh

import (
	"cmp"
	"time"

	"github.com/fairlead/fairlead/api/appmesh"
)

// Kind is a resource kind as its ARN spells it.
type Kind string

// The kinds of the App Mesh API.
const (
	KindMesh           Kind = "mesh"
	KindVirtualNode    Kind = "virtualNode"
	KindVirtualService Kind = "virtualService"
	KindVirtualRouter  Kind = "virtualRouter"
	KindRoute          Kind = "route"
	KindVirtualGateway Kind = "virtualGateway"
	KindGatewayRoute   Kind = "gatewayRoute"
)

// Kinds of what specs name and other APIs make. The name of such an ID is an ARN.
const (
	KindCertificate Kind = "certificate"
	KindAuthority   Kind = "certificate-authority"
)

// Name identifies a mesh: mesh names are unique per owner account.
type Name struct {
	Owner string // 12 digits
	Mesh  string
}

// ID identifies a resource within its mesh.
type ID struct {
	Kind   Kind
	Parent string // a route's virtual router, a gateway route's virtual gateway; else empty
	Name   string
}

// String is the part of the resource's ARN behind mesh/NAME/; for the mesh
// itself it is "mesh", for a certificate or an authority the ARN.
func (id ID) String() string {
	switch id.Kind {
	case KindMesh:
		return string(KindMesh)
	case KindCertificate, KindAuthority:
		return id.Name
	case KindRoute:
		return string(KindVirtualRouter) + "/" + id.Parent + "/route/" + id.Name
	case KindGatewayRoute:
		return string(KindVirtualGateway) + "/" + id.Parent + "/gatewayRoute/" + id.Name
	}
	return string(id.Kind) + "/" + id.Name
}

// Compare orders IDs by kind, parent and name.
func (id ID) Compare(other ID) int {
	return cmp.Or(
		cmp.Compare(id.Kind, other.Kind),
		cmp.Compare(id.Parent, other.Parent),
		cmp.Compare(id.Name, other.Name))
}

// Record is a stored resource with its spec exactly as it was sent. Records
// are immutable and shared: an unchanged resource keeps its pointer from view
// to view.
type Record[S any] struct {
	Mesh          Name
	ID            ID
	UID           string // lowercase UUID, new with every create
	Version       int64  // from 1, +1 with every update
	CreatedAt     time.Time
	UpdatedAt     time.Time
	ResourceOwner string // account that made it
	Spec          *S
	Tags          map[string]string
	Revision      int64 // of the store, when it was written last
}

// View is all records of one mesh at one revision of the store.
type View struct {
	Mesh     *Record[appmesh.MeshSpec]
	Revision int64 // of the newest write that the view contains
	// TrustDomain is that of the SDS secrets that Fairlead's agents issue
	// themselves; empty: <mesh>.fairlead in lower case.
	TrustDomain string

	VirtualNodes    map[string]*Record[appmesh.VirtualNodeSpec]
	VirtualServices map[string]*Record[appmesh.VirtualServiceSpec]
	VirtualRouters  map[string]*Record[appmesh.VirtualRouterSpec]
	VirtualGateways map[string]*Record[appmesh.VirtualGatewaySpec]
	Routes          map[ID]*Record[appmesh.RouteSpec]
	GatewayRoutes   map[ID]*Record[appmesh.GatewayRouteSpec]

	// Certificates and Authorities are those that the specs name and that proxies
	// may have now, by ARN. One that a spec names and that is not here cannot be
	// had: where it counts, proxies keep the last good one or refuse. Both maps nil:
	// nothing is known of any, as of a mesh that is not in a store.
	Certificates map[string]*Certificate
	Authorities  map[string]*Authority
	// Own is the trust in the mesh's own authority, which issues the certificates
	// of secrets in the trust domain; nil: there is none, or no spec names such.
	Own *Authority
}
