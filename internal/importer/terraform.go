package importer

import (
	"strings"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// terraformDialect is how Terraform's provider for AWS names what the API has
// lists for: a block per item, in the singular.
var terraformDialect = dialect{blocks: true, renames: map[string][]string{
	"backend":         {"backends"},
	"listener":        {"listeners"},
	"weighted_target": {"weightedTargets"},
	"header":          {"headers"},
	"query_parameter": {"queryParameters"},
}}

const terraformPrefix = "aws_appmesh_"

// terraform reads state: terraform.tfstate of version 4, and the output of
// terraform show -json.
func (s *session) terraform(documents []document) {
	for _, d := range documents {
		if d.format != Terraform {
			continue
		}
		root := scope{s, "", d.root, d.place}
		switch {
		case d.root.get("planned_values") != nil:
			s.lost("", d.place, "this is a plan, in which values may be missing; give the state: terraform show -json")
		case d.root.get("format_version") != nil:
			root.only("format_version", "terraform_version", "values", "checks")
			values := d.root.get("values")
			if values != nil {
				at := d.place.member("values", values)
				scope{s, "", values, at}.only("root_module", "outputs")
				s.terraformModule(values.get("root_module"), at.member("root_module", values.get("root_module")))
			}
		case d.root.get("version").str() == "4":
			root.only("version", "terraform_version", "serial", "lineage", "outputs", "resources", "check_results")
			s.terraformState(d)
		default:
			s.lost("", d.place, "state of version %q cannot be read, only of version 4; terraform show -json writes one that can", shorten(d.root.get("version").str()))
		}
	}
}

func (s *session) terraformState(d document) {
	resources := d.root.get("resources")
	at := d.place.member("resources", resources)
	if resources == nil {
		return
	}
	for i, r := range resources.items {
		here := at.item(i, r)
		kind, ours := s.terraformKind(r.get("mode").str(), r.get("type").str(), here)
		if !ours {
			continue
		}
		scope{s, "", r, here}.only("module", "mode", "type", "name", "provider", "each", "instances")
		instances := r.get("instances")
		if instances == nil {
			continue
		}
		for j, instance := range instances.items {
			here := here.member("instances", instances).item(j, instance)
			scope{s, "", instance, here}.only("index_key", "status", "schema_version", "attributes", "sensitive_attributes", "private", "dependencies", "create_before_destroy", "deposed", "identity_schema_version", "identity")
			if instance.get("deposed").str() != "" {
				s.note("", here, "the object is only there until Terraform has deleted it, and stays behind")
				continue
			}
			s.terraformResource(kind, instance.get("attributes"), here.member("attributes", instance.get("attributes")), instance.get("sensitive_attributes"))
		}
	}
}

func (s *session) terraformModule(module *node, at place) {
	if module == nil {
		return
	}
	scope{s, "", module, at}.only("address", "resources", "child_modules")
	if resources := module.get("resources"); resources != nil {
		for i, r := range resources.items {
			here := at.member("resources", resources).item(i, r)
			kind, ours := s.terraformKind(r.get("mode").str(), r.get("type").str(), here)
			if !ours {
				continue
			}
			scope{s, "", r, here}.only("address", "mode", "type", "name", "index", "provider_name", "schema_version", "values", "sensitive_values", "depends_on", "tainted", "deposed_key", "identity_schema_version", "identity")
			if r.get("deposed_key").str() != "" {
				s.note("", here, "the object is only there until Terraform has deleted it, and stays behind")
				continue
			}
			s.terraformResource(kind, r.get("values"), here.member("values", r.get("values")), r.get("sensitive_values"))
		}
	}
	if modules := module.get("child_modules"); modules != nil {
		for i, m := range modules.items {
			s.terraformModule(m, at.member("child_modules", modules).item(i, m))
		}
	}
}

// terraformKind says which kind of ours a resource is, if it is one of ours.
func (s *session) terraformKind(mode, kind string, at place) (mesh.Kind, bool) {
	if mode != "managed" {
		s.skip("data "+kind, at)
		return "", false
	}
	name, appMesh := strings.CutPrefix(kind, terraformPrefix)
	for _, k := range manifest.Kinds() {
		if appMesh && strings.EqualFold(strings.ReplaceAll(name, "_", ""), string(k)) {
			return k, true
		}
	}
	if appMesh {
		s.lost("", at, "there is no App Mesh resource %s", shorten(kind))
		return "", false
	}
	s.skip(kind, at)
	return "", false
}

func (s *session) terraformResource(kind mesh.Kind, n *node, at place, sensitive *node) {
	if n == nil || n.kind != object {
		s.lost("", at, "the resource has no attributes")
		return
	}
	d := draft{at: at, spec: n.get("spec"), specAt: at.member("spec", n.get("spec"))}
	d.id = mesh.ID{Kind: kind, Name: n.get("name").str()}
	d.mesh = n.get("mesh_name").str()
	members := []string{"id", "arn", "created_date", "last_updated_date", "mesh_owner", "resource_owner", "tags", "tags_all", "name", "spec", "region"}
	parent := ""
	switch kind {
	case mesh.KindMesh:
		d.mesh = d.id.Name
	case mesh.KindRoute:
		parent = "virtual_router_name"
	case mesh.KindGatewayRoute:
		parent = "virtual_gateway_name"
	}
	if kind != mesh.KindMesh {
		members = append(members, "mesh_name")
	}
	if parent != "" {
		d.id.Parent = n.get(parent).str()
		members = append(members, parent)
	}
	name := resourceName(d.mesh, d.id)
	scope{s, name, n, at}.only(members...)
	if d.mesh == "" || d.id.Name == "" || parent != "" && d.id.Parent == "" {
		s.lost(name, at, "has no name, or none of what it is in")
		d.broken = true
	}
	if hasSecret(sensitive) {
		s.note(name, at, "Terraform holds some of the values for secrets; the documents have them in clear")
	}
	d.owner = s.sharedOwner(n.get("mesh_owner").str(), n.get("resource_owner").str(), name, at)
	tags := "tags_all" // with those that the provider gives to all resources
	if n.get(tags).empty() {
		tags = "tags"
	}
	var ok bool
	if d.tags, ok = s.tagsOf(n.get(tags), name, at.member(tags, n.get(tags))); !ok {
		d.broken = true
	}
	s.add(d, terraformDialect)
}

// hasSecret looks for anything in Terraform's marks of secret values: a list of
// paths, or a tree with true where a secret is.
func hasSecret(n *node) bool {
	if n == nil {
		return false
	}
	for _, item := range n.items {
		if item.kind == list || hasSecret(item) {
			return true
		}
	}
	for _, m := range n.members {
		if hasSecret(m.value) {
			return true
		}
	}
	return n.kind == boolean && n.text == "true"
}
