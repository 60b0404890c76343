package store

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
)

// The keys of the store. Names are escaped, so that a slash always separates.
//
//	/fairlead/meta/schema                                the number of this layout
//	/fairlead/meta/lineage                               see Store.Lineage
//	/fairlead/meta/keyring                               the root keys, wrapped by the key-encryption key
//	/fairlead/meta/derivation                            sealed, what DeriveKey derives from
//	/fairlead/meta/restoring                             of a restore into an external etcd that has not finished
//	/fairlead/meta/root                                  the id of the root key
//	/fairlead/record/KIND/OWNER/MESH[/PARENT]/NAME       a record; of a mesh: /fairlead/record/mesh/OWNER/MESH
//	/fairlead/change/…                                   its newest change; a deletion leaves it as a tombstone
//	/fairlead/shrink/…                                   an accepted shrink, under a lease
//	/fairlead/fence/OWNER[/MESH/KIND/PARENT]             empty, see Tx.Below
//	/fairlead/accesskey/ID                               a sealed access key
//	/fairlead/object/KIND/…                              what is no mesh's: authorities, certificates (see Place)
//	/fairlead/secret/KIND/…                              the sealed secret of the object of that place
//	/fairlead/reference/ARN/KIND/OWNER/MESH/NAME         the record names what that ARN is of; holds the record's owner
//
// Sessions are sealed as if they lay at /fairlead/session/ID; nothing lies there.
const (
	keyRoot    = "/fairlead/"
	keySchema  = keyRoot + "meta/schema"
	keyLineage = keyRoot + "meta/lineage"
	keyKeyring = keyRoot + "meta/keyring"
	keyDerive  = keyRoot + "meta/derivation"
	keyRestore = keyRoot + "meta/restoring"
	keyRootKey = keyRoot + "meta/root"

	dirRecord    = keyRoot + "record/"
	dirChange    = keyRoot + "change/"
	dirShrink    = keyRoot + "shrink/"
	dirFence     = keyRoot + "fence/"
	dirAccessKey = keyRoot + "accesskey/"
	dirObject    = keyRoot + "object/"
	dirSecret    = keyRoot + "secret/"
	dirReference = keyRoot + "reference/"

	purposeObject = "object"
)

// resource names a record across all meshes.
type resource struct {
	mesh mesh.Name
	id   mesh.ID
}

// normal gives a mesh's own record its one id, however it was written.
func normal(name mesh.Name, id mesh.ID) resource {
	if id.Kind == mesh.KindMesh {
		id = mesh.ID{Kind: mesh.KindMesh, Name: name.Mesh}
	}
	return resource{name, id}
}

func hasParent(kind mesh.Kind) bool {
	return kind == mesh.KindRoute || kind == mesh.KindGatewayRoute
}

func knownKind(kind mesh.Kind) bool {
	switch kind {
	case mesh.KindMesh, mesh.KindVirtualNode, mesh.KindVirtualService, mesh.KindVirtualRouter,
		mesh.KindRoute, mesh.KindVirtualGateway, mesh.KindGatewayRoute:
		return true
	}
	return false
}

// path is the part of a resource's keys behind their directory. Every part of
// the name must be there.
func (r resource) path() (string, error) {
	parts := []string{r.mesh.Owner, r.mesh.Mesh}
	if r.id.Kind != mesh.KindMesh {
		if hasParent(r.id.Kind) {
			parts = append(parts, r.id.Parent)
		} else if r.id.Parent != "" {
			return "", fmt.Errorf("name a record: a %s has no parent, got %q", r.id.Kind, r.id.Parent)
		}
		parts = append(parts, r.id.Name)
	}
	if !knownKind(r.id.Kind) {
		return "", fmt.Errorf("name a record: unknown kind %q", r.id.Kind)
	}
	for i, part := range parts {
		if part == "" {
			return "", fmt.Errorf("name a record: empty name in %q/%q %s", r.mesh.Owner, r.mesh.Mesh, r.id)
		}
		parts[i] = url.PathEscape(part)
	}
	return string(r.id.Kind) + "/" + strings.Join(parts, "/"), nil
}

// collection is the common beginning of the paths of all records of a kind in a
// mesh, or below one parent. Of meshes: of an owner's, or of all.
func collection(name mesh.Name, kind mesh.Kind, parent string) (string, error) {
	if !knownKind(kind) {
		return "", fmt.Errorf("list records: unknown kind %q", kind)
	}
	path := string(kind) + "/"
	if kind == mesh.KindMesh {
		if name.Owner != "" {
			path += url.PathEscape(name.Owner) + "/"
		}
		return path, nil
	}
	if name.Owner == "" || name.Mesh == "" {
		return "", fmt.Errorf("list records: empty name of a mesh: %q/%q", name.Owner, name.Mesh)
	}
	path += url.PathEscape(name.Owner) + "/" + url.PathEscape(name.Mesh) + "/"
	if parent != "" {
		if !hasParent(kind) {
			return "", fmt.Errorf("list records: a %s has no parent, got %q", kind, parent)
		}
		path += url.PathEscape(parent) + "/"
	}
	return path, nil
}

// parsePath is the inverse of path.
func parsePath(path string) (resource, error) {
	parts := strings.Split(path, "/")
	kind := mesh.Kind(parts[0])
	want := 4
	switch {
	case !knownKind(kind):
		return resource{}, fmt.Errorf("read key %q: unknown kind", path)
	case kind == mesh.KindMesh:
		want = 3
	case hasParent(kind):
		want = 5
	}
	if len(parts) != want {
		return resource{}, fmt.Errorf("read key %q: %d parts instead of %d", path, len(parts), want)
	}
	for i, part := range parts {
		name, err := url.PathUnescape(part)
		if err != nil {
			return resource{}, fmt.Errorf("read key %q: %w", path, err)
		}
		if name == "" || url.PathEscape(name) != part {
			return resource{}, fmt.Errorf("read key %q: part %q is not escaped as it should be", path, part)
		}
		parts[i] = name
	}
	r := resource{mesh.Name{Owner: parts[1], Mesh: parts[2]}, mesh.ID{Kind: kind, Name: parts[want-1]}}
	if hasParent(kind) {
		r.id.Parent = parts[3]
	}
	return r, nil
}
