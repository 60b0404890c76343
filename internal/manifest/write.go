package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fairlead/fairlead/internal/mesh"
)

// JSON is the document of a resource as one line of JSON: the create request,
// what names it first.
func JSON(r Resource) ([]byte, error) {
	out := []byte{'{'}
	member := func(name string, value any) error {
		text, err := json.Marshal(value, json.Deterministic(true))
		if err != nil {
			return fmt.Errorf("write %s: %w", r, err)
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, '"'), name...)
		out = append(append(out, '"', ':'), text...)
		return nil
	}
	names := []struct{ name, value string }{{"meshName", r.Mesh}, {"meshOwner", r.MeshOwner}}
	if parent := ParentKind(r.ID.Kind); parent != "" {
		names = append(names, struct{ name, value string }{nameMember(parent), r.ID.Parent})
	}
	if r.ID.Kind != mesh.KindMesh {
		names = append(names, struct{ name, value string }{nameMember(r.ID.Kind), r.ID.Name})
	}
	for _, n := range names {
		if n.value == "" {
			continue
		}
		if err := member(n.name, n.value); err != nil {
			return nil, err
		}
	}
	if err := member("spec", r.Spec); err != nil {
		return nil, err
	}
	if len(r.Tags) > 0 {
		if err := member("tags", tagList(r.Tags)); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

// tag is a tag as requests have it.
type tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func tagList(tags map[string]string) []tag {
	list := []tag{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, tag{key, tags[key]})
	}
	return list
}

// Write writes the documents of resources, in the order given: YAML documents
// between lines of ---, or one JSON list. Read reads both.
func Write(resources []Resource, asJSON bool) ([]byte, error) {
	var out bytes.Buffer
	var list []jsontext.Value
	for i, r := range resources {
		document, err := JSON(r)
		if err != nil {
			return nil, err
		}
		if asJSON {
			list = append(list, document)
			continue
		}
		text, err := toYAML(document)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(text)
	}
	if !asJSON {
		return out.Bytes(), nil
	}
	text, err := json.Marshal(list, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("write documents: %w", err)
	}
	return append(text, '\n'), nil
}

// YAML writes any value that has a JSON form as YAML.
func YAML(value any) ([]byte, error) {
	text, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return toYAML(text)
}
