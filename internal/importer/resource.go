package importer

import (
	"errors"
	"reflect"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// draft is a resource as its source has it.
type draft struct {
	mesh, owner string
	id          mesh.ID
	at          place // of the resource
	spec        *node // nil: there is none
	specAt      place
	tags        map[string]string // nil: the source says nothing of tags
	broken      bool              // something of it has been blamed already
}

var account = regexp.MustCompile(`^[0-9]{12}$`)

// add turns a draft into a resource, or says why that cannot be.
func (s *session) add(d draft, in dialect) {
	name := resourceName(d.mesh, d.id)
	shape := shaper{dialect: in, session: s, resource: name, broken: d.broken, places: map[string]place{"": d.specAt}}
	if at, ok := s.first[name+"@"+d.owner]; ok {
		shape.blame(d.at, "is there twice; the first is at %s", at)
	} else {
		s.first[name+"@"+d.owner] = d.at
	}
	for _, part := range []string{d.mesh, d.id.Name, d.id.Parent} {
		if strings.ContainsAny(part, "/@") && d.id.Kind != mesh.KindVirtualService {
			shape.blame(d.at, "a name must not contain / or @: %q", shorten(part))
		}
	}
	if d.owner != "" && !account.MatchString(d.owner) {
		shape.blame(d.at, "the owner of a mesh is an account of 12 digits, not %q", shorten(d.owner))
	}
	spec := manifest.NewSpec(d.id.Kind)
	shaped := &node{kind: object}
	switch {
	case d.spec != nil && d.spec.kind != null:
		if v := shape.value(d.spec, reflect.TypeOf(spec), d.specAt, ""); v != nil {
			shaped = v
		}
	case d.id.Kind != mesh.KindMesh:
		shape.blame(d.at, "has no spec")
	}
	if !shape.broken {
		shape.decode(shaped, spec)
	}
	if shape.broken {
		s.lost(name, d.at, "the resource is left out: without what is said of it here it would mean something else")
		return
	}
	s.result.Resources = append(s.result.Resources, manifest.Resource{
		Mesh: d.mesh, MeshOwner: d.owner, ID: d.id, Spec: spec, Tags: d.tags, Source: d.at.String(),
	})
}

// decode reads a spec as the server does, and says what is wrong with it where
// it stands in the source.
func (s *shaper) decode(shaped *node, spec any) {
	document, err := json.Marshal(plain(shaped))
	if err == nil {
		err = awsapi.DecodeValid(document, spec)
	}
	faults, ok := errors.AsType[awsapi.Faults](err)
	switch {
	case ok:
		for _, f := range faults {
			s.blame(s.nearest(f.Path), "%s", strings.TrimSpace(f.Path+" "+f.Message))
		}
	case err != nil:
		s.blame(s.places[""], "%v", err)
	}
}

// nearest is where the value of a path in the API's JSON stands, or what it
// would stand in.
func (s *shaper) nearest(path string) place {
	for {
		if at, ok := s.places[path]; ok {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

// scope is where the members of a source object are looked at, so that none of
// them is forgotten.
type scope struct {
	session  *session
	resource string
	object   *node
	at       place
}

// only says of every member that is not among names that it is not carried over.
func (c scope) only(names ...string) {
	for _, m := range c.object.members {
		known := false
		for _, name := range names {
			known = known || name == m.name
		}
		if !known && !m.value.empty() && !(m.value.kind == text && m.value.text == "") {
			c.session.unknown(c.resource, c.at.member(m.name, m.value))
		}
	}
}

func (s *session) unknown(resource string, at place) {
	s.lost(resource, at, "nothing that is known here: it stays behind")
}

// tagsOf reads tags: a list of objects with a key and a value, whatever the
// case of these, or an object.
func (s *session) tagsOf(n *node, resource string, at place) (tags map[string]string, ok bool) {
	if n == nil || n.kind == null {
		return nil, true
	}
	tags = map[string]string{}
	pair := func(key, value *node, here place) {
		switch {
		case key.str() == "" || value == nil || value.kind == unresolved || value.kind == list || value.kind == object:
			s.lost(resource, here, "a tag must have a key and a value")
			ok = false
		case strings.HasPrefix(key.str(), "aws:"):
			s.note(resource, here, "the tag %q is AWS's own and stays behind", shorten(key.str()))
		default:
			tags[key.str()] = value.str()
		}
	}
	ok = true
	for i, item := range n.items {
		pair(orElse(item.get("key"), item.get("Key")), orElse(item.get("value"), item.get("Value")), at.item(i, item))
		scope{s, resource, item, at.item(i, item)}.only("key", "Key", "value", "Value", "PropagateAtLaunch")
	}
	for _, m := range n.members {
		pair(newText(m.name, m.value.line), m.value, at.member(m.name, m.value))
	}
	if n.kind != list && n.kind != object {
		s.lost(resource, at, "tags must be a list or an object")
		ok = false
	}
	if len(tags) == 0 {
		tags = nil
	}
	return tags, ok
}

func orElse(a, b *node) *node {
	if a != nil {
		return a
	}
	return b
}

// arn is the ARN of an App Mesh resource, read.
type arn struct {
	mesh, owner string // owner: empty, or of a shared mesh
	id          mesh.ID
}

// readARN reads arn:partition:appmesh:region:account:mesh/M[@OWNER][/kind/name[/kind/name]].
func readARN(text string) (arn, bool) {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "appmesh" {
		return arn{}, false
	}
	path := strings.Split(parts[5], "/")
	if len(path) < 2 || path[0] != string(mesh.KindMesh) || path[1] == "" {
		return arn{}, false
	}
	var a arn
	a.mesh, a.owner, _ = strings.Cut(path[1], "@")
	switch len(path) {
	case 2:
		a.id = mesh.ID{Kind: mesh.KindMesh, Name: a.mesh}
	case 4:
		a.id = mesh.ID{Kind: mesh.Kind(path[2]), Name: path[3]}
	case 6:
		a.id = mesh.ID{Kind: mesh.Kind(path[4]), Parent: path[3], Name: path[5]}
	default:
		return arn{}, false
	}
	return a, a.id.Name != ""
}
