package importer

import (
	"reflect"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fairlead/fairlead/api/appmesh"
)

// dialect says how a format writes the structures of the API.
type dialect struct {
	exact bool // names are the API's; else case and underscores do not count
	// renames are names of the format and the API's, of which the first that
	// there is counts.
	renames map[string][]string
	blocks  bool // Terraform: an object is a list of one, and nothing is an empty value
	loose   bool // CloudFormation: "8080" is a number where a number is wanted
}

// shaper turns a value of a source document into JSON of a type of the API.
// Whatever it cannot turn, it says.
type shaper struct {
	dialect
	session  *session
	resource string
	broken   bool             // the resource must not be carried over
	places   map[string]place // by path in the API's JSON
}

// blame says of a value that it cannot be carried over, nor can its resource: a
// resource without it would mean something else.
func (s *shaper) blame(at place, format string, args ...any) {
	s.broken = true
	s.session.lost(s.resource, at, format, args...)
}

// value turns a value; nil is absent.
func (s *shaper) value(n *node, t reflect.Type, at place, path string) *node {
	if n == nil || n.kind == null || !s.session.spend() {
		return nil
	}
	if path != "" {
		s.places[path] = at
	}
	if n.kind == unresolved {
		s.blame(at, "%s", n.text)
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.value(n, t.Elem(), at, path)
	case reflect.Struct:
		return s.structure(s.unblock(n, at), t, at, path)
	case reflect.Slice:
		return s.sequence(n, t, at, path)
	}
	return s.scalar(n, t.Kind(), at)
}

// unblock is the one object of a Terraform block.
func (s *shaper) unblock(n *node, at place) *node {
	if !s.blocks || n.kind != list {
		return n
	}
	switch len(n.items) {
	case 0:
		return nil
	case 1:
		if n.items[0].kind == null { // a block with nothing in it
			return &node{kind: object, line: n.line}
		}
		return n.items[0]
	}
	s.blame(at, "there must be one block, not %d", len(n.items))
	return nil
}

func (s *shaper) structure(n *node, t reflect.Type, at place, path string) *node {
	if n == nil {
		return nil
	}
	if n.kind != object {
		s.blame(at, "must be an object, not %s", n.kind)
		return nil
	}
	out := &node{kind: object, line: n.line}
	for _, m := range n.members {
		here := at.member(m.name, m.value)
		field, known := s.field(t, m.name)
		switch {
		case !known:
			s.unknown(m, here, path)
			continue
		case out.get(apiName(field)) != nil:
			s.blame(here, "is given twice")
			continue
		}
		name := apiName(field)
		value := s.value(m.value, field.Type, here, joinPath(path, name))
		if value != nil && !(s.blocks && zero(value, field, t)) {
			out.members = append(out.members, member{name, value})
		}
	}
	return out
}

var aboutTLS = regexp.MustCompile(`(^|\.)(tls|clientPolicy)(\.|$)`)

// unknown says that a member has no place in the API. Where TLS is decided the
// resource is not carried over without it: the rest could be weaker.
func (s *shaper) unknown(m member, at place, path string) {
	if s.blocks && (m.value.empty() || m.value.kind == text && m.value.text == "") {
		return // Terraform writes down every attribute that there is, also without a value
	}
	if aboutTLS.MatchString(path) {
		s.blame(at, "App Mesh's API has no such field, and TLS without it could be weaker")
		return
	}
	s.session.lost(s.resource, at, "App Mesh's API has no such field")
}

// zero says whether a value is how Terraform writes that there is none. Where
// the API requires one, zero is a value: a weight of 0.
func zero(n *node, field reflect.StructField, in reflect.Type) bool {
	switch n.kind {
	case text:
		return n.text == ""
	case number:
		return n.text == "0" && field.Tag.Get("required") != "true" && in != reflect.TypeFor[appmesh.Duration]()
	case list:
		return len(n.items) == 0
	}
	return false
}

func (s *shaper) field(t reflect.Type, name string) (reflect.StructField, bool) {
	for _, name := range append([]string{name}, s.renames[name]...) {
		for i := range t.NumField() {
			f := t.Field(i)
			if api := apiName(f); api == name || !s.exact && strings.EqualFold(api, strings.ReplaceAll(name, "_", "")) {
				return f, true
			}
		}
	}
	return reflect.StructField{}, false
}

// apiName is the name of a member in the API's JSON.
func apiName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (s *shaper) sequence(n *node, t reflect.Type, at place, path string) *node {
	if s.blocks && n.kind == object && t.Elem() == reflect.TypeFor[appmesh.AwsCloudMapInstanceAttribute]() {
		n = pairs(n)
	}
	if n.kind != list {
		s.blame(at, "must be a list, not %s", n.kind)
		return nil
	}
	out := &node{kind: list, line: n.line}
	for i, item := range n.items {
		here, path := at.item(i, item), place{path: path}.item(i, nil).path
		if item.kind == null && !s.blocks {
			s.blame(here, "must not be null")
			continue
		}
		if value := s.value(item, t.Elem(), here, path); value != nil {
			out.items = append(out.items, value)
		}
	}
	return out
}

// pairs writes a map as App Mesh does: {k: v} is [{key: k, value: v}].
func pairs(n *node) *node {
	out := &node{kind: list, line: n.line}
	for _, m := range n.members {
		out.items = append(out.items, &node{kind: object, line: m.value.line, members: []member{
			{"key", newText(m.name, m.value.line)}, {"value", m.value},
		}})
	}
	return out
}

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)

func (s *shaper) scalar(n *node, want reflect.Kind, at place) *node {
	out := &node{kind: n.kind, text: n.text, line: n.line}
	switch want {
	case reflect.String:
		if n.kind == text || s.loose && (n.kind == number || n.kind == boolean) {
			out.kind = text
			return out
		}
		s.blame(at, "must be a string, not %s", describeScalar(n))
	case reflect.Bool:
		if n.kind == boolean || s.loose && n.kind == text && (strings.EqualFold(n.text, "true") || strings.EqualFold(n.text, "false")) {
			out.kind, out.text = boolean, strings.ToLower(n.text)
			return out
		}
		s.blame(at, "must be true or false, not %s", describeScalar(n))
	default:
		if (n.kind == number || s.loose && n.kind == text) && integer.MatchString(n.text) {
			out.kind = number
			return out
		}
		s.blame(at, "must be an integer, not %s", describeScalar(n))
	}
	return nil
}

func describeScalar(n *node) string {
	switch n.kind {
	case text:
		return `"` + shorten(n.text) + `"`
	case number, boolean:
		return shorten(n.text)
	}
	return n.kind.String()
}

// plain is a shaped value as encoding packages write it.
func plain(n *node) any {
	switch n.kind {
	case text:
		return n.text
	case list:
		items := make([]any, 0, len(n.items))
		for _, item := range n.items {
			items = append(items, plain(item))
		}
		return items
	case object:
		members := make(map[string]any, len(n.members))
		for _, m := range n.members {
			members[m.name] = plain(m.value)
		}
		return members
	}
	if n.kind == null {
		return nil
	}
	return jsontext.Value(n.text)
}
