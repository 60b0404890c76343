package importer

import (
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

const cloudFormationPrefix = "AWS::AppMesh::"

// template is a CloudFormation template whose functions are being written out.
type template struct {
	session    *session
	root       *node
	place      place
	all        []*template // for what they export to each other
	conditions map[string]truth
	attributes map[string]*node // of resources, by Logical.Attribute
	busy       map[string]bool  // what is being written out, to find circles
	depth      int
}

// cloudFormation reads templates, JSON or YAML.
func (s *session) cloudFormation(documents []document) {
	var all []*template
	for _, d := range documents {
		if d.format == CloudFormation {
			all = append(all, &template{
				session: s, root: d.root, place: d.place,
				conditions: map[string]truth{}, attributes: map[string]*node{}, busy: map[string]bool{},
			})
		}
	}
	for _, t := range all {
		t.all = all
		t.read()
	}
	if len(all) > 0 {
		s.unusedParameters(all)
	}
}

func (t *template) read() {
	scope{t.session, "", t.root, t.place}.only("AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Mappings", "Conditions", "Resources", "Outputs", "Rules")
	resources := t.root.get("Resources")
	if resources == nil {
		return
	}
	at := t.place.member("Resources", resources)
	for _, m := range resources.members {
		here := at.member(m.name, m.value)
		kind := m.value.get("Type").str()
		switch {
		case strings.HasPrefix(m.name, "Fn::"):
			t.session.lost("", here, "%s is written out by AWS alone: give the template as AWS has it, aws cloudformation get-template --template-stage Processed", m.name)
		case kind == "AWS::CloudFormation::Stack":
			t.session.lost("", here, "a nested stack is a template of its own: give that, too, and its parameters")
		case !strings.HasPrefix(kind, cloudFormationPrefix):
			t.session.skip(kind, here)
		default:
			t.resource(m.name, m.value, here)
		}
	}
}

// cloudFormationKind is the kind of a resource's type.
func cloudFormationKind(kind string) (mesh.Kind, bool) {
	name := strings.TrimPrefix(kind, cloudFormationPrefix)
	for _, k := range manifest.Kinds() {
		if upper(string(k)) == name {
			return k, true
		}
	}
	return "", false
}

// upper is a name of the API as CloudFormation has it.
func upper(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

func (t *template) resource(logical string, n *node, at place) {
	kind, ok := cloudFormationKind(n.get("Type").str())
	if !ok {
		t.session.lost("", at, "there is no App Mesh resource %s", shorten(n.get("Type").str()))
		return
	}
	scope{t.session, "", n, at}.only("Type", "Properties", "DependsOn", "Condition", "Metadata", "DeletionPolicy", "UpdateReplacePolicy")
	if condition := n.get("Condition"); condition != nil {
		made := t.condition(condition.str())
		if made.unknown != "" {
			t.session.lost("", at, "whether there is such a resource cannot be known: %s", made.unknown)
			return
		}
		if !made.value {
			t.session.note("", at, "the condition %s does not hold, so there is no such resource", condition.str())
			return
		}
	}
	properties := n.get("Properties")
	at = at.member("Properties", properties)
	if properties == nil || properties.kind != object {
		t.session.lost("", at, "the resource has no properties")
		return
	}
	d := draft{at: at}
	name := t.names(logical, kind, &d)
	members := []string{upper(string(kind)) + "Name", "MeshName", "MeshOwner", "Spec", "Tags"}
	if parent := manifest.ParentKind(kind); parent != "" {
		members = append(members, upper(string(parent))+"Name")
	}
	scope{t.session, name, properties, at}.only(members...)
	d.specAt = at.member("Spec", properties.get("Spec"))
	d.spec = t.eval(properties.get("Spec"))
	var known bool
	if d.tags, known = t.session.tagsOf(t.eval(properties.get("Tags")), name, at.member("Tags", properties.get("Tags"))); !known {
		d.broken = true
	}
	t.session.add(d, dialect{loose: true})
}

// names reads what a resource and all that it is in are called.
func (t *template) names(logical string, kind mesh.Kind, d *draft) string {
	faults := map[string]string{}
	read := func(attribute string) string {
		n := t.attribute(logical, attribute)
		switch {
		case n == nil || n.str() == "" && n.kind != unresolved:
			faults[attribute] = "a string must be here"
		case n.kind == unresolved:
			faults[attribute] = n.text
		}
		return n.str()
	}
	d.id = mesh.ID{Kind: kind, Name: read(upper(string(kind)) + "Name")}
	if parent := manifest.ParentKind(kind); parent != "" {
		d.id.Parent = read(upper(string(parent)) + "Name")
	}
	d.mesh = d.id.Name
	if kind != mesh.KindMesh {
		d.mesh = read("MeshName")
	}
	if a, ok := readARN(d.mesh); ok {
		d.mesh, d.owner = a.mesh, a.owner
	}
	if t.root.at("Resources", logical, "Properties").get("MeshOwner") != nil {
		d.owner = read("MeshOwner")
		if d.owner != "" && d.owner == t.session.options.Parameters["AWS::AccountId"] {
			d.owner = ""
		}
	}
	if d.id.Name == "" { // for messages: a fault says so
		d.id.Name = logical
	}
	if d.mesh == "" && kind == mesh.KindMesh {
		d.mesh = logical
	}
	name := resourceName(d.mesh, d.id)
	for _, attribute := range []string{"MeshName", "MeshOwner", "VirtualRouterName", "VirtualGatewayName", upper(string(kind)) + "Name"} {
		if fault := faults[attribute]; fault != "" {
			delete(faults, attribute)
			t.session.lost(name, d.at.member(attribute, nil), "%s", fault)
			d.broken = true
		}
	}
	return name
}

// unusedParameters says which of the given values no template asks for: they
// may be misspelt.
func (s *session) unusedParameters(all []*template) {
	var names []string
	for name := range s.options.Parameters {
		first, _, _ := strings.Cut(name, ".")
		asked := strings.HasPrefix(name, "AWS::") || s.imported[name]
		for _, t := range all {
			asked = asked || t.root.at("Parameters", name) != nil || t.root.at("Resources", first) != nil
		}
		if !asked {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s.note("", place{}, "no template asks for the parameter %s", name)
	}
}
