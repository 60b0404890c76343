package iam

import (
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
)

// AuthorizeStream says which mesh endpoint a stream is for, given the node.id
// of its first request: a full ARN or "mesh/M/virtualNode/N". The id is checked,
// never trusted: a proxy gets the resource that its key is bound to or nothing.
// The error is a Refusal with ErrDenied (status 7) or ErrInvalidResource
// (status 3). Whether the endpoint exists is for the caller to find out.
func AuthorizeStream(p Principal, nodeID string) (mesh.Name, mesh.ID, error) {
	name, id, err := ParseResource(nodeID, p.Account)
	if err != nil {
		return mesh.Name{}, mesh.ID{}, err
	}
	const action = "appmesh:StreamAggregatedResources"
	if p.Kind == User || p.Kind == RoleSession {
		return mesh.Name{}, mesh.ID{}, Refuse(ErrDenied, "User: %s is not authorized to perform: %s on resource: %s because only a key that is bound to it opens its stream; make one with: fairlead proxy credentials create %s",
			p.ARN(), action, nodeID, ResourceName(name, id, p.Account))
	}
	if p.Kind != Proxy {
		return mesh.Name{}, mesh.ID{}, Refuse(ErrDenied, "User: %s is not authorized to perform: %s on resource: %s because the root key opens no stream; make a key for this proxy with: fairlead proxy credentials create %s",
			p.ARN(), action, nodeID, ResourceName(name, id, p.Account))
	}
	boundName, boundID, err := ParseResource(p.Resource, p.Account)
	if err != nil || boundName != name || boundID != id {
		return mesh.Name{}, mesh.ID{}, Refuse(ErrDenied, "User: %s is not authorized to perform: %s on resource: %s because its key is bound to %s",
			p.ARN(), action, nodeID, p.Resource)
	}
	return name, id, nil
}

// ParseResource reads the name of a mesh endpoint: a full ARN, or
// "mesh/M/virtualNode/N" or "mesh/M/virtualGateway/N" as seen from an account.
// M may be NAME@OWNER for a mesh of another account; without it the mesh belongs
// to the ARN's account, else to the given one. The error is a Refusal with
// ErrInvalidResource.
func ParseResource(resource, account string) (mesh.Name, mesh.ID, error) {
	invalid := func(why string) (mesh.Name, mesh.ID, error) {
		return mesh.Name{}, mesh.ID{}, Refuse(ErrInvalidResource, "%q does not name a mesh endpoint: %s; it is mesh/MESH/virtualNode/NAME, mesh/MESH/virtualGateway/NAME or the ARN of one", clip(resource), why)
	}
	path := resource
	if strings.HasPrefix(resource, "arn:") {
		fields := strings.SplitN(resource, ":", 6)
		if len(fields) < 6 || fields[2] != "appmesh" {
			return invalid("it is not an ARN of App Mesh")
		}
		account, path = fields[4], fields[5]
	}
	// Mesh names hold no slash, those of nodes and gateways may.
	parts := strings.SplitN(path, "/", 4)
	if len(parts) < 4 || parts[0] != "mesh" {
		return invalid("it does not have four parts that start with mesh")
	}
	name := mesh.Name{Owner: account, Mesh: parts[1]}
	if before, owner, shared := strings.Cut(parts[1], "@"); shared {
		name = mesh.Name{Owner: owner, Mesh: before}
	}
	id := mesh.ID{Kind: mesh.Kind(parts[2]), Name: parts[3]}
	switch {
	case !isAccount(name.Owner) || !isAccount(account):
		return invalid("an account has 12 digits")
	case name.Mesh == "" || id.Name == "":
		return invalid("a name is empty")
	case id.Kind != mesh.KindVirtualNode && id.Kind != mesh.KindVirtualGateway:
		return invalid("only virtual nodes and virtual gateways have proxies")
	}
	return name, id, nil
}

// ResourceName is the inverse of ParseResource as seen from an account: the
// form in which a Principal's Resource is kept.
func ResourceName(name mesh.Name, id mesh.ID, account string) string {
	meshName := name.Mesh
	if name.Owner != account {
		meshName += "@" + name.Owner
	}
	return "mesh/" + meshName + "/" + id.String()
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// clip bounds what a message repeats of what a caller sent.
func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
