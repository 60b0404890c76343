package importer

import (
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
)

// kubernetesDialect is where the controller's resources differ from the API's:
// they refer to each other as Kubernetes does. The references are resolved to
// names first, then the members are those that take a name.
var kubernetesDialect = dialect{renames: map[string][]string{
	"virtualServiceRef":    {"virtualServiceName"},
	"virtualServiceARN":    {"virtualServiceName"},
	"virtualNodeRef":       {"virtualNodeName", "virtualNode"},
	"virtualNodeARN":       {"virtualNodeName", "virtualNode"},
	"virtualRouterRef":     {"virtualRouterName"},
	"virtualRouterARN":     {"virtualRouterName"},
	"meshServiceDiscovery": {"serviceDiscovery"},
}}

const (
	kubernetesGroup   = "appmesh.k8s.aws/"
	kubernetesVersion = kubernetesGroup + "v1beta2"
)

// manifestObject is a resource of the controller.
type manifestObject struct {
	kind            string // as Kubernetes has it: VirtualNode
	namespace, name string
	awsName         string
	root            *node
	at              place
}

// cluster is all resources of the controller that were read.
type cluster struct {
	session *session
	objects []manifestObject
	index   map[manifestKey]int // into objects
	sole    map[string]string   // by kind, the name of the only object; "": there are several
}

// manifestKey is what a reference means. A mesh is in no namespace.
type manifestKey struct{ kind, namespace, name string }

// kubernetes reads manifests of the App Mesh controller for Kubernetes.
func (s *session) kubernetes(documents []document) {
	c := cluster{session: s, index: map[manifestKey]int{}, sole: map[string]string{}}
	for _, d := range documents {
		if d.format == Kubernetes {
			c.collect(d.root, d.place)
		}
	}
	for _, o := range c.objects {
		switch o.kind {
		case "Mesh", "VirtualNode", "VirtualService", "VirtualGateway", "GatewayRoute":
			c.one(o)
		case "VirtualRouter":
			c.router(o)
		case "BackendGroup": // its services go to the nodes that use it
			c.metadata(o, "")
			spec := o.root.get("spec")
			if spec == nil {
				spec = &node{kind: object}
			}
			scope{s, "", spec, o.at.member("spec", spec)}.only("virtualservices", "meshRef")
		default:
			s.lost("", o.at, "there is no App Mesh resource %s", shorten(o.kind))
		}
	}
}

func (c *cluster) collect(n *node, at place) {
	version, kind := n.get("apiVersion").str(), n.get("kind").str()
	if items := n.get("items"); items != nil && strings.HasSuffix(kind, "List") {
		scope{c.session, "", n, at}.only("apiVersion", "kind", "metadata", "items")
		for i, item := range items.items {
			c.collect(item, at.member("items", items).item(i, item))
		}
		return
	}
	if !strings.HasPrefix(version, kubernetesGroup) {
		c.session.skip(kind+" ("+version+")", at)
		return
	}
	if version != kubernetesVersion {
		c.session.lost("", at, "%s %s cannot be read, only %s: convert it first", shorten(version), shorten(kind), kubernetesVersion)
		return
	}
	scope{c.session, "", n, at}.only("apiVersion", "kind", "metadata", "spec", "status")
	o := manifestObject{kind: kind, root: n, at: at, name: n.at("metadata", "name").str(), namespace: n.at("metadata", "namespace").str()}
	if o.namespace == "" {
		o.namespace = "default"
	}
	if o.name == "" {
		c.session.lost("", at, "has no metadata.name")
		return
	}
	o.awsName = n.at("spec", "awsName").str()
	if o.awsName == "" {
		o.awsName = defaultName(kind, o.namespace, o.name)
	}
	if kind == "Mesh" {
		o.namespace = ""
	}
	if _, twice := c.index[manifestKey{kind, o.namespace, o.name}]; !twice {
		c.index[manifestKey{kind, o.namespace, o.name}] = len(c.objects)
	}
	if _, another := c.sole[kind]; another {
		c.sole[kind] = ""
	} else {
		c.sole[kind] = o.awsName
	}
	c.objects = append(c.objects, o)
}

// defaultName is the name in App Mesh of what has no awsName.
func defaultName(kind, namespace, name string) string {
	switch kind {
	case "Mesh":
		return name
	case "VirtualService":
		return name + "." + namespace
	}
	return name + "_" + namespace
}

// find is the object that a reference of another means: {name, namespace}.
func (c *cluster) find(kind string, ref *node, from manifestObject) (awsName string, found *manifestObject) {
	key := manifestKey{kind, ref.get("namespace").str(), ref.get("name").str()}
	if key.namespace == "" && kind != "Mesh" {
		key.namespace = from.namespace
	}
	if i, ok := c.index[key]; ok {
		return c.objects[i].awsName, &c.objects[i]
	}
	return defaultName(kind, key.namespace, key.name), nil
}

// meshOf is the mesh of an object: the one it names, the one that is asked for,
// or the only one there is.
func (c *cluster) meshOf(o manifestObject) string {
	if o.kind == "Mesh" {
		return o.awsName
	}
	if ref := o.root.at("spec", "meshRef"); ref != nil {
		name, _ := c.find("Mesh", ref, o)
		return name
	}
	if c.session.options.Mesh != "" {
		return c.session.options.Mesh
	}
	return c.sole["Mesh"]
}

// draft begins a resource, without its spec.
func (c *cluster) draft(o manifestObject, kind mesh.Kind) draft {
	d := draft{mesh: c.meshOf(o), id: mesh.ID{Kind: kind, Name: o.awsName}, at: o.at}
	if kind == mesh.KindGatewayRoute {
		if ref := o.root.at("spec", "virtualGatewayRef"); ref != nil {
			d.id.Parent, _ = c.find("VirtualGateway", ref, o)
		} else {
			d.id.Parent = c.sole["VirtualGateway"]
		}
	}
	name := resourceName(d.mesh, d.id)
	if d.mesh == "" {
		c.session.lost(name, o.at, "the mesh is not known: give --mesh NAME")
		d.broken = true
	}
	if kind == mesh.KindGatewayRoute && d.id.Parent == "" {
		c.session.lost(name, o.at, "the virtual gateway is not known: set spec.virtualGatewayRef, {name, namespace}")
		d.broken = true
	}
	c.metadata(o, name)
	if owner := o.root.at("spec", "meshOwner"); kind == mesh.KindMesh && owner != nil {
		c.session.note(name, o.at.member("spec", nil).member("meshOwner", owner), "the mesh is shared: it is account %s's; only that account can make it", shorten(owner.str()))
	}
	return d
}

// metadata says of labels and annotations that they stay behind.
func (c *cluster) metadata(o manifestObject, resource string) {
	metadata := o.root.get("metadata")
	at := o.at.member("metadata", metadata)
	scope{c.session, resource, metadata, at}.only("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "finalizers", "ownerReferences", "selfLink", "labels", "annotations")
	for _, member := range []string{"labels", "annotations"} {
		for _, m := range metadata.get(member).sorted() {
			if m.name != "kubectl.kubernetes.io/last-applied-configuration" {
				c.session.note(resource, at.member(member, nil).member(m.name, m.value), "is Kubernetes' and stays behind")
			}
		}
	}
}

// sorted are the members of an object; none of nil.
func (n *node) sorted() []member {
	if n == nil {
		return nil
	}
	return n.members
}

// without is an object without some of its members.
func (n *node) without(names ...string) *node {
	if n == nil || n.kind != object {
		return n
	}
	out := &node{kind: object, line: n.line}
	for _, m := range n.members {
		if !slices.Contains(names, m.name) {
			out.members = append(out.members, m)
		}
	}
	return out
}

// selectors are the members of a spec that say which pods or namespaces it is for.
var selectors = []string{"podSelector", "namespaceSelector", "gatewayRouteSelector"}

// one carries over an object that is one resource.
func (c *cluster) one(o manifestObject) {
	d := c.draft(o, mesh.Kind(strings.ToLower(o.kind[:1])+o.kind[1:]))
	spec := o.root.get("spec")
	d.specAt = o.at.member("spec", spec)
	c.selects(spec, resourceName(d.mesh, d.id), d.specAt)
	if spec == nil {
		spec = &node{kind: object, line: o.root.line}
	}
	spec = spec.without(append([]string{"awsName", "meshRef", "virtualGatewayRef", "meshOwner"}, selectors...)...)
	if o.kind == "VirtualNode" {
		spec = c.withGroups(spec, o, &d)
	}
	d.spec = c.resolve(spec, o, "", d.mesh)
	c.session.add(d, kubernetesDialect)
}

func (c *cluster) selects(spec *node, resource string, at place) {
	for _, selector := range selectors {
		n := spec.get(selector)
		switch {
		case n == nil:
		case selector == "podSelector":
			c.session.lost(resource, at.member(selector, n), "which proxies are of a resource is decided by their credentials: fairlead proxy credentials create makes them")
		default:
			c.session.note(resource, at.member(selector, n), "is not needed: every resource says itself which it belongs to")
		}
	}
}

// router carries over a virtual router and the routes within it.
func (c *cluster) router(o manifestObject) {
	d := c.draft(o, mesh.KindVirtualRouter)
	spec := o.root.get("spec")
	d.specAt = o.at.member("spec", spec)
	d.spec = c.resolve(spec.without("awsName", "meshRef", "routes"), o, "", d.mesh)
	if spec == nil {
		d.spec = &node{kind: object, line: o.root.line}
	}
	c.session.add(d, kubernetesDialect)
	routes := spec.get("routes")
	if routes == nil {
		return
	}
	for i, route := range routes.items {
		at := d.specAt.member("routes", routes).item(i, route)
		r := draft{
			mesh: d.mesh, at: at, specAt: at, broken: d.broken,
			id: mesh.ID{Kind: mesh.KindRoute, Parent: d.id.Name, Name: route.get("name").str()},
		}
		if r.id.Name == "" {
			c.session.lost(resourceName(r.mesh, r.id), at, "a route must have a name")
			r.broken = true
		}
		r.spec = c.resolve(route.without("name"), o, "", d.mesh)
		c.session.add(r, kubernetesDialect)
	}
}

// references are the members that refer to another object, and its kind.
var references = map[string]string{
	"virtualServiceRef": "VirtualService",
	"virtualNodeRef":    "VirtualNode",
	"virtualRouterRef":  "VirtualRouter",
}

// resolve replaces references by the names that they mean.
func (c *cluster) resolve(n *node, from manifestObject, name, inMesh string) *node {
	if n == nil || !c.session.spend() {
		return nil
	}
	if kind, ok := references[name]; ok && n.kind == object {
		for _, m := range n.members {
			if m.name != "name" && m.name != "namespace" && m.name != "uid" {
				return unknown(n.line, "a reference has a name and a namespace, and no %s", shorten(m.name))
			}
		}
		if n.get("name").str() == "" {
			return unknown(n.line, "a reference must have a name")
		}
		awsName, found := c.find(kind, n, from)
		if found == nil {
			c.session.note("", place{file: from.at.file, line: n.line}, "%s %s is not among the files; its name in App Mesh is taken to be %q", kind, shorten(n.get("name").str()), shorten(awsName))
		}
		return newText(awsName, n.line)
	}
	if strings.HasSuffix(name, "ARN") && references[strings.TrimSuffix(name, "ARN")+"Ref"] != "" {
		a, ok := readARN(n.str())
		if !ok || a.mesh != inMesh {
			return unknown(n.line, "%q is not the ARN of a resource of the mesh %q", shorten(n.str()), shorten(inMesh))
		}
		return newText(a.id.Name, n.line)
	}
	out := &node{kind: n.kind, text: n.text, line: n.line}
	for _, item := range n.items {
		if v := c.resolve(item, from, "", inMesh); v != nil {
			out.items = append(out.items, v)
		}
	}
	for _, m := range n.members {
		if v := c.resolve(m.value, from, m.name, inMesh); v != nil {
			out.members = append(out.members, member{m.name, v})
		}
	}
	return out
}

// withGroups adds the virtual services of a node's backend groups to its backends.
func (c *cluster) withGroups(spec *node, o manifestObject, d *draft) *node {
	groups := spec.get("backendGroups")
	if groups == nil {
		return spec
	}
	backends := &node{kind: list, line: groups.line}
	if own := spec.get("backends"); own != nil {
		backends.items = slices.Clone(own.items)
	}
	name := resourceName(d.mesh, d.id)
	for i, ref := range groups.items {
		at := d.specAt.member("backendGroups", groups).item(i, ref)
		scope{c.session, name, ref, at}.only("name", "namespace", "uid")
		_, group := c.find("BackendGroup", ref, o)
		if group == nil {
			c.session.lost(name, at, "the backend group %s is not among the files", shorten(ref.get("name").str()))
			d.broken = true
			continue
		}
		services := group.root.at("spec", "virtualservices")
		if services == nil {
			continue
		}
		for _, service := range services.items {
			// The names are relative to the group's namespace, not to the node's.
			if !c.session.spend() {
				return spec
			}
			target := service
			if service.get("namespace") == nil && service.kind == object {
				target = &node{kind: object, line: service.line, members: append(slices.Clone(service.members), member{"namespace", newText(group.namespace, service.line)})}
			}
			backends.items = append(backends.items, &node{kind: object, line: service.line, members: []member{
				{"virtualService", &node{kind: object, line: service.line, members: []member{{"virtualServiceRef", target}}}},
			}})
		}
	}
	out := spec.without("backendGroups", "backends")
	out.members = append(out.members, member{"backends", backends})
	return out
}
