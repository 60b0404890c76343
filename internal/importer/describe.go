package importer

import (
	"slices"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// describe reads the output of aws appmesh describe-…: {"virtualNode": {…}}. The
// tags of a resource may stand beside it, as {"virtualNode": {…}, "tags": […]}.
func (s *session) describe(documents []document) {
	for _, d := range documents {
		if d.format != Describe {
			continue
		}
		tags := d.root.get("tags")
		found := 0
		for _, m := range d.root.members {
			at := d.place.member(m.name, m.value)
			if kind, ok := describable(m.name); ok && m.value.kind == object {
				found++
				s.described(kind, m.value, at, tags, d.place)
			} else if m.name != "tags" && listed(m.name) {
				found++
				s.lost("", at, "a list has no specs: describe each resource of it")
			} else if m.name != "tags" && m.name != "nextToken" && m.name != "ResponseMetadata" {
				s.unknown("", at)
			}
		}
		if tags != nil && found != 1 {
			s.lost("", d.place.member("tags", tags), `tags say not whose they are: put them beside their resource, as {"virtualNode": {…}, "tags": […]}`)
		}
	}
}

// describable says which kind a member of a describe's output is.
func describable(name string) (mesh.Kind, bool) {
	return mesh.Kind(name), slices.Contains(manifest.Kinds(), mesh.Kind(name))
}

// listed says whether a member is a list's output, which has references only.
func listed(name string) bool {
	return slices.Contains([]string{
		"meshes", "virtualNodes", "virtualServices", "virtualRouters", "virtualGateways", "routes", "gatewayRoutes", "tags",
	}, name)
}

func (s *session) described(kind mesh.Kind, n *node, at place, tags *node, tagsAt place) {
	d := draft{at: at, spec: n.get("spec"), specAt: at.member("spec", n.get("spec"))}
	d.mesh = n.get("meshName").str()
	d.id = mesh.ID{Kind: kind, Name: n.get(string(kind) + "Name").str()}
	members := []string{"meshName", string(kind) + "Name", "spec", "metadata", "status"}
	if parent := manifest.ParentKind(kind); parent != "" {
		d.id.Parent = n.get(string(parent) + "Name").str()
		members = append(members, string(parent)+"Name")
	}
	name := resourceName(d.mesh, d.id)
	scope{s, name, n, at}.only(members...)
	if d.mesh == "" || d.id.Name == "" || manifest.ParentKind(kind) != "" && d.id.Parent == "" {
		s.lost(name, at, "has no name, or none of what it is in")
		d.broken = true
	}
	metadata, status := n.get("metadata"), n.get("status")
	if metadata != nil {
		scope{s, name, metadata, at.member("metadata", metadata)}.only("arn", "createdAt", "lastUpdatedAt", "meshOwner", "resourceOwner", "uid", "version")
	}
	if status != nil {
		scope{s, name, status, at.member("status", status)}.only("status")
		if status.get("status").str() == "DELETED" {
			s.note(name, at, "the resource was deleted when it was described, and stays behind")
			return
		}
	}
	d.owner = s.sharedOwner(metadata.get("meshOwner").str(), metadata.get("resourceOwner").str(), name, at)
	var ok bool
	if d.tags, ok = s.tagsOf(tags, name, tagsAt.member("tags", tags)); !ok {
		d.broken = true
	}
	s.add(d, dialect{exact: true})
}

// sharedOwner is the owner of a mesh that is another account's; empty: it is
// not.
func (s *session) sharedOwner(meshOwner, resourceOwner, resource string, at place) string {
	if meshOwner == "" || meshOwner == resourceOwner {
		return ""
	}
	s.note(resource, at, "the mesh is shared: it is account %s's, and the resource account %s's", shorten(meshOwner), shorten(resourceOwner))
	return meshOwner
}
