package mesh_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

var update = flag.Bool("update", false, "write the graphs of the stories anew")

// TestStories builds the meshes of testdata: each file tells in prose what it
// shows, has a spec for each resource, named as its ARN, and the whole Graph.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			last := len(archive.Files) - 1
			if last < 0 || archive.Files[last].Name != "graph" {
				t.Fatal("the last file is not the graph")
			}
			got := describe(mesh.Build(story(t, archive.Files[:last])))
			if *update {
				archive.Files[last].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(archive.Files[last].Data), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func story(t *testing.T, files []txtar.File) *mesh.View {
	t.Helper()
	v := &mesh.View{
		Mesh:            read[appmesh.MeshSpec](t, mesh.ID{Kind: mesh.KindMesh, Name: "m"}, nil),
		VirtualNodes:    map[string]*mesh.Record[appmesh.VirtualNodeSpec]{},
		VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{},
		VirtualRouters:  map[string]*mesh.Record[appmesh.VirtualRouterSpec]{},
		VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{},
		Routes:          map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{},
		GatewayRoutes:   map[mesh.ID]*mesh.Record[appmesh.GatewayRouteSpec]{},
	}
	for _, f := range files {
		id := parseID(t, f.Name)
		switch id.Kind {
		case mesh.KindMesh:
			v.Mesh = read[appmesh.MeshSpec](t, id, f.Data)
		case mesh.KindVirtualNode:
			v.VirtualNodes[id.Name] = read[appmesh.VirtualNodeSpec](t, id, f.Data)
		case mesh.KindVirtualService:
			v.VirtualServices[id.Name] = read[appmesh.VirtualServiceSpec](t, id, f.Data)
		case mesh.KindVirtualRouter:
			v.VirtualRouters[id.Name] = read[appmesh.VirtualRouterSpec](t, id, f.Data)
		case mesh.KindVirtualGateway:
			v.VirtualGateways[id.Name] = read[appmesh.VirtualGatewaySpec](t, id, f.Data)
		case mesh.KindRoute:
			v.Routes[id] = read[appmesh.RouteSpec](t, id, f.Data)
		case mesh.KindGatewayRoute:
			v.GatewayRoutes[id] = read[appmesh.GatewayRouteSpec](t, id, f.Data)
		}
	}
	return v
}

// parseID reads what ID.String writes.
func parseID(t *testing.T, s string) mesh.ID {
	t.Helper()
	parts := strings.Split(s, "/")
	switch {
	case s == "mesh":
		return mesh.ID{Kind: mesh.KindMesh, Name: "m"}
	case len(parts) == 4:
		return mesh.ID{Kind: mesh.Kind(parts[2]), Parent: parts[1], Name: parts[3]}
	case len(parts) != 2:
		t.Fatalf("%s is no ID", s)
	}
	return mesh.ID{Kind: mesh.Kind(parts[0]), Name: parts[1]}
}

func read[S any](t *testing.T, id mesh.ID, text []byte) *mesh.Record[S] {
	t.Helper()
	spec := new(S)
	if err := yaml.UnmarshalStrict(text, spec); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return &mesh.Record[S]{Mesh: mesh.Name{Owner: "000000000000", Mesh: "m"}, ID: id, Version: 1, Spec: spec, Revision: 1}
}
