package importer

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

// YAML writes resources as documents, each the create request of App Mesh's API.
func YAML(resources []manifest.Resource) ([]byte, error) {
	var out []byte
	for i := range resources {
		document, err := documentOf(&resources[i])
		if err != nil {
			return nil, err
		}
		if document, err = yaml.JSONToYAML(escape(document)); err != nil {
			return nil, fmt.Errorf("write %s: %w", resources[i].ID, err)
		}
		if i > 0 {
			out = append(out, "---\n"...)
		}
		out = append(out, document...)
	}
	return out, nil
}

// escape writes the characters of a JSON text that JSON takes as they are and
// YAML does not.
func escape(document []byte) []byte {
	out := make([]byte, 0, len(document))
	for _, r := range string(document) {
		if r >= 0x7f && r < 0xa0 || r == '\ufeff' || r == '\ufffe' || r == '\uffff' {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// JSON writes resources as YAML does, in a list.
func JSON(resources []manifest.Resource) ([]byte, error) {
	out := []byte("[")
	for i := range resources {
		document, err := documentOf(&resources[i])
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ",\n "...)
		}
		out = append(out, document...)
	}
	return append(out, "]\n"...), nil
}

func documentOf(r *manifest.Resource) ([]byte, error) {
	document := map[string]any{"meshName": r.Mesh, "spec": r.Spec}
	if r.MeshOwner != "" {
		document["meshOwner"] = r.MeshOwner
	}
	if r.ID.Kind != mesh.KindMesh {
		document[string(r.ID.Kind)+"Name"] = r.ID.Name
	}
	if parent := parentOf(r.ID.Kind); parent != "" {
		document[string(parent)+"Name"] = r.ID.Parent
	}
	if r.Tags != nil {
		tags := []map[string]string{}
		for _, key := range slices.Sorted(maps.Keys(r.Tags)) {
			tags = append(tags, map[string]string{"key": key, "value": r.Tags[key]})
		}
		document["tags"] = tags
	}
	out, err := json.Marshal(document, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", r.ID, err)
	}
	return out, nil
}
