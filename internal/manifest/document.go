package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/mesh"
)

// document is a create request of any kind: the kind follows from the names
// that are given. S is the spec of that kind.
type document[S any] struct {
	MeshName           string           `json:"meshName" required:"true" min:"1" max:"255"`
	MeshOwner          *string          `json:"meshOwner,omitzero" min:"12" max:"12"`
	VirtualNodeName    *string          `json:"virtualNodeName,omitzero" min:"1" max:"255"`
	VirtualServiceName *string          `json:"virtualServiceName,omitzero" min:"1" max:"255"`
	VirtualRouterName  *string          `json:"virtualRouterName,omitzero" min:"1" max:"255"`
	RouteName          *string          `json:"routeName,omitzero" min:"1" max:"255"`
	VirtualGatewayName *string          `json:"virtualGatewayName,omitzero" min:"1" max:"255"`
	GatewayRouteName   *string          `json:"gatewayRouteName,omitzero" min:"1" max:"255"`
	Spec               *S               `json:"spec,omitzero"`
	Tags               []appmesh.TagRef `json:"tags,omitzero" min:"0" max:"50"`
}

// nameMember is the member that names a resource of a kind.
func nameMember(k mesh.Kind) string { return string(k) + "Name" }

// namesOf are the members, beside meshName, that say which resource of a kind.
func namesOf(k mesh.Kind) []string {
	switch parent := ParentKind(k); {
	case k == mesh.KindMesh:
		return nil
	case parent != "":
		return []string{nameMember(parent), nameMember(k)}
	}
	return []string{nameMember(k)}
}

// kindOf finds the kind whose names are exactly those that a document has.
func kindOf(members map[string]jsontext.Value) (mesh.Kind, error) {
	var given []string
	for _, k := range Kinds()[1:] {
		if _, ok := members[nameMember(k)]; ok {
			given = append(given, nameMember(k))
		}
	}
	slices.Sort(given)
	for _, k := range Kinds() {
		if names := slices.Sorted(slices.Values(namesOf(k))); slices.Equal(names, given) {
			return k, nil
		}
	}
	if len(given) == 1 { // a route or a gateway route without what it stands in
		kind := mesh.Kind(strings.TrimSuffix(given[0], "Name"))
		return "", fmt.Errorf("names a %s but not its %s: %s is required", kind, ParentKind(kind), nameMember(ParentKind(kind)))
	}
	return "", fmt.Errorf("is one resource per document, and no resource has %s together", strings.Join(given, " and "))
}

// parse reads one document. Its error has one line for each fault.
func parse(data []byte) (Resource, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(data, &members); err != nil || members == nil {
		return Resource{}, errors.New("is not an object: a document is the create request of one resource, with meshName and spec")
	}
	if members["meshName"] == nil {
		return Resource{}, errors.New("has no meshName: a document is the create request of one resource (fairlead import reads other formats)")
	}
	if members["clientToken"] != nil {
		return Resource{}, errors.New("clientToken must be removed: the command makes a new one for each request")
	}
	kind, err := kindOf(members)
	if err != nil {
		return Resource{}, err
	}
	switch kind {
	case mesh.KindMesh:
		return parseAs[appmesh.MeshSpec](data, kind)
	case mesh.KindVirtualNode:
		return parseAs[appmesh.VirtualNodeSpec](data, kind)
	case mesh.KindVirtualService:
		return parseAs[appmesh.VirtualServiceSpec](data, kind)
	case mesh.KindVirtualRouter:
		return parseAs[appmesh.VirtualRouterSpec](data, kind)
	case mesh.KindRoute:
		return parseAs[appmesh.RouteSpec](data, kind)
	case mesh.KindVirtualGateway:
		return parseAs[appmesh.VirtualGatewaySpec](data, kind)
	}
	return parseAs[appmesh.GatewayRouteSpec](data, kind)
}

func parseAs[S any](data []byte, kind mesh.Kind) (Resource, error) {
	var d document[S]
	var errs []error
	if err := awsapi.DecodeValid(data, &d); err != nil {
		errs = append(errs, splitFaults(err)...)
	}
	names := map[mesh.Kind]*string{
		mesh.KindMesh: &d.MeshName, mesh.KindVirtualNode: d.VirtualNodeName, mesh.KindVirtualService: d.VirtualServiceName,
		mesh.KindVirtualRouter: d.VirtualRouterName, mesh.KindRoute: d.RouteName,
		mesh.KindVirtualGateway: d.VirtualGatewayName, mesh.KindGatewayRoute: d.GatewayRouteName,
	}
	for _, k := range []mesh.Kind{kind, ParentKind(kind)} {
		if k != "" && names[k] == nil && len(errs) == 0 { // null
			errs = append(errs, fmt.Errorf("%s is required", nameMember(k)))
		}
	}
	if d.Spec == nil && len(errs) == 0 {
		if kind != mesh.KindMesh {
			errs = append(errs, errors.New("spec is required"))
		}
		d.Spec = new(S) // a mesh without a spec has an empty one
	}
	if kind == mesh.KindMesh && d.MeshOwner != nil {
		errs = append(errs, errors.New("meshOwner must be removed: a mesh is made in the caller's account"))
	}
	tags, err := tagMap(d.Tags)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return Resource{}, err
	}
	id := mesh.ID{Kind: kind, Name: *names[kind]}
	if parent := ParentKind(kind); parent != "" {
		id.Parent = *names[parent]
	}
	owner := ""
	if d.MeshOwner != nil {
		owner = *d.MeshOwner
	}
	return Resource{Mesh: d.MeshName, MeshOwner: owner, ID: id, Spec: d.Spec, Tags: tags}, nil
}

// splitFaults makes one error of each fault.
func splitFaults(err error) []error {
	faults, ok := errors.AsType[awsapi.Faults](err)
	if !ok {
		return []error{err}
	}
	var all []error
	for _, f := range faults {
		if f.Path == "" {
			all = append(all, errors.New(f.Message))
			continue
		}
		all = append(all, errors.New(f.String()))
	}
	return all
}

// tagMap is nil if a document has no tags, and empty if it has an empty list.
func tagMap(refs []appmesh.TagRef) (map[string]string, error) {
	if refs == nil {
		return nil, nil
	}
	tags := map[string]string{}
	for i, ref := range refs {
		if _, twice := tags[ref.Key]; twice {
			return nil, fmt.Errorf("tags[%d].key %q is given twice", i, ref.Key)
		}
		if ref.Value != nil { // missing: the validation has said so
			tags[ref.Key] = *ref.Value
		}
	}
	return tags, nil
}
