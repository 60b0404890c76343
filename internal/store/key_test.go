package store

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/mesh"
)

func TestPath(t *testing.T) {
	owned := func(name string) mesh.Name { return mesh.Name{Owner: account, Mesh: name} }
	for _, test := range []struct {
		name mesh.Name
		id   mesh.ID
		path string // or, after "!", a part of the error
	}{
		{demo, mesh.ID{Kind: mesh.KindMesh}, "mesh/111122223333/demo"},
		{demo, mesh.ID{Kind: mesh.KindMesh, Name: "demo"}, "mesh/111122223333/demo"},
		{demo, nodeID("web"), "virtualNode/111122223333/demo/web"},
		{demo, mesh.ID{Kind: mesh.KindVirtualService, Name: "web.apps.local"}, "virtualService/111122223333/demo/web.apps.local"},
		{demo, mesh.ID{Kind: mesh.KindRoute, Parent: "r", Name: "web"}, "route/111122223333/demo/r/web"},
		{demo, mesh.ID{Kind: mesh.KindGatewayRoute, Parent: "g", Name: "web"}, "gatewayRoute/111122223333/demo/g/web"},
		// A slash in a name is not a separator.
		{owned("a/b"), nodeID("c"), "virtualNode/111122223333/a%2Fb/c"},
		{owned("a"), nodeID("b/c"), "virtualNode/111122223333/a/b%2Fc"},
		{demo, nodeID("100%"), "virtualNode/111122223333/demo/100%25"},
		{demo, nodeID("%2F"), "virtualNode/111122223333/demo/%252F"},
		{demo, nodeID(".."), "virtualNode/111122223333/demo/.."},
		{demo, nodeID("é\x00\xff"), "virtualNode/111122223333/demo/%C3%A9%00%FF"},

		{demo, nodeID(""), "!empty name"},
		{mesh.Name{Mesh: "demo"}, nodeID("web"), "!empty name"},
		{owned(""), mesh.ID{Kind: mesh.KindMesh}, "!empty name"},
		{demo, mesh.ID{Kind: mesh.KindRoute, Name: "web"}, "!empty name"},
		{demo, mesh.ID{Kind: mesh.KindVirtualNode, Parent: "r", Name: "web"}, "!has no parent"},
		{demo, mesh.ID{Kind: "pod", Name: "web"}, "!unknown kind"},
	} {
		path, err := normal(test.name, test.id).path()
		if wrong, ok := strings.CutPrefix(test.path, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%v %v: error is %v, want %q", test.name, test.id, err, wrong)
			}
			continue
		}
		if err != nil || path != test.path {
			t.Errorf("%v %v: path is %q, %v; want %q", test.name, test.id, path, err, test.path)
			continue
		}
		if back, err := parsePath(path); err != nil || back != normal(test.name, test.id) {
			t.Errorf("%q reads as %+v, %v", path, back, err)
		}
	}
}

// Any two resources have different paths, each path reads as its resource, and
// a path begins with those collections that the resource is in and no others.
func TestPathIsOneToOne(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 1))
	alphabet := []string{"a", "b", "/", "%", "2F", ".", "é", "\x00", "\xff", " ", "?", "#", "+", "*"}
	word := func() string {
		var b strings.Builder
		for range 1 + random.IntN(3) {
			b.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		return b.String()
	}
	kinds := []mesh.Kind{mesh.KindMesh, mesh.KindVirtualNode, mesh.KindVirtualService, mesh.KindVirtualRouter,
		mesh.KindRoute, mesh.KindVirtualGateway, mesh.KindGatewayRoute}
	seen := map[string]resource{}
	var last resource
	for range 20_000 {
		r := resource{mesh.Name{Owner: word(), Mesh: word()}, mesh.ID{Kind: kinds[random.IntN(len(kinds))], Name: word()}}
		if hasParent(r.id.Kind) {
			r.id.Parent = word()
		}
		r = normal(r.mesh, r.id)
		path, err := r.path()
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[path]; ok && other != r {
			t.Fatalf("%+v and %+v have the path %q", other, r, path)
		}
		seen[path] = r
		if back, err := parsePath(path); err != nil || back != r {
			t.Fatalf("%q reads as %+v, %v; want %+v", path, back, err, r)
		}
		if last.id.Kind == r.id.Kind && r.id.Kind != mesh.KindMesh {
			in, err := collection(last.mesh, last.id.Kind, last.id.Parent)
			if err != nil {
				t.Fatal(err)
			}
			member := last.mesh == r.mesh && last.id.Parent == r.id.Parent
			if strings.HasPrefix(path, in) != member {
				t.Fatalf("%q and collection %q: member %v", path, in, member)
			}
		}
		last = r
	}
}

func TestParsePathRefusesWhatPathDoesNotWrite(t *testing.T) {
	for _, path := range []string{
		"", "mesh", "mesh/1", "mesh/1/a/b", "pod/1/a/b", "virtualNode/1/a", "virtualNode/1/a/b/c", "route/1/a/b",
		"virtualNode/1/a/", "virtualNode//a/b", "virtualNode/1/a/%2f", "virtualNode/1/a/%zz", "virtualNode/1/a/é",
	} {
		if r, err := parsePath(path); err == nil {
			t.Errorf("%q reads as %+v", path, r)
		}
	}
}
