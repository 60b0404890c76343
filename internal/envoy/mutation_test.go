package envoy

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/mesh"
)

// TestGoldenNotices takes every field out of every resource of every golden
// file, one at a time, and wants the golden file to notice: nothing that is
// built, TLS and secrets above all, can get lost unseen.
func TestGoldenNotices(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	mutants := 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		graph := mesh.Build(readMesh(t, archive))
		builder := NewBuilder()
		for _, f := range archive.Files {
			want, ok := strings.CutPrefix(f.Name, "want ")
			if !ok {
				continue
			}
			config, _ := buildWanted(t, builder, graph, want)
			for _, list := range config.Resources {
				for _, r := range list {
					if seen[r.Version] {
						continue
					}
					seen[r.Version] = true
					m := decode(r)
					whole := show(m)
					eachMutant(m.ProtoReflect(), "", func(field string) {
						mutants++
						if show(m) == whole {
							t.Errorf("%s: %s %s without %s looks the same", f.Name, r.Type, r.Name, field)
						}
					})
				}
			}
		}
	}
	if mutants < 5000 {
		t.Errorf("only %d mutants", mutants)
	}
}

// show is the view of a message, which it leaves as it is.
func show(m proto.Message) (text string) {
	defer func() {
		if recover() != nil {
			text = "cannot be shown" // the view expects what is missing
		}
	}()
	v := &view{}
	v.message(proto.Clone(m))
	return v.out.String()
}

// unseen are fields that no view shows, for a reason.
var unseen = map[protoreflect.FullName]string{
	"envoy.config.core.v3.ConfigSource.resource_api_version":      "the lint of TestRandomMeshes and Envoy look at it",
	"envoy.config.core.v3.ApiConfigSource.api_type":               "Envoy refuses a secret without it",
	"envoy.config.core.v3.ApiConfigSource.transport_api_version":  "Envoy refuses a secret without it",
	"envoy.config.endpoint.v3.ClusterLoadAssignment.cluster_name": "Envoy refuses another one",
}

// eachMutant visits m with each of its fields gone in turn, at any depth.
func eachMutant(m protoreflect.Message, path string, visit func(field string)) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner := unpack(packed)
		original := packed.Value
		eachMutant(inner.ProtoReflect(), path, func(field string) {
			if err := anypb.MarshalFrom(packed, inner, proto.MarshalOptions{}); err != nil {
				panic(err)
			}
			visit(field)
			packed.Value = original
		})
		return
	}
	var fields []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, f)
		return true
	})
	for _, f := range fields {
		name := path + "." + string(f.Name())
		if unseen[f.FullName()] == "" {
			whole := proto.Clone(m.Interface())
			m.Clear(f)
			visit(name)
			proto.Reset(m.Interface())
			proto.Merge(m.Interface(), whole)
		}
		value := m.Get(f)
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				eachMutant(v.Message(), name, visit)
				return true
			})
		case f.IsMap():
		case f.IsList() && f.Message() != nil:
			for i := range value.List().Len() {
				eachMutant(value.List().Get(i).Message(), name, visit)
			}
		case f.Message() != nil:
			eachMutant(value.Message(), name, visit)
		}
	}
}
