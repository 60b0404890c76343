package xds

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// TestShrink is the rule by which proxies keep what they have (design.md 6). A
// proxy holds what was made at revision 30 from node n, written at 10, and route
// r/x, written at 20.
func TestShrink(t *testing.T) {
	held := Manifest{Lineage: "one", Revision: 30, Origins: []string{"mesh@5", "virtualNode/n@10", "virtualRouter/r/route/x@20"}}
	for _, c := range []struct {
		store   string // lineage, revision, and the records: n, x, mesh, with revisions
		deleted string // tombstones
		want    string // why the proxy is held
	}{
		{"one 30 mesh@5 n@10 x@20", "", ""},
		{"one 31 mesh@5 n@31 x@20", "", ""}, // updated
		{"one 31 mesh@5 n@10", "x@31", ""},  // deleted
		{"one 33 mesh@5 n@10 x@33", "", ""}, // deleted and made again

		{"two 99 mesh@5 n@10 x@20", "", "another store (lineage one…, this store is two…)"},
		{"one 29 mesh@5 n@10 x@20", "", "revision 30, the store's mesh is at 29: the store is older"},
		{"one 30 mesh@5 n@10", "", "no change record explains why these are gone: virtualRouter/r/route/x"},
		{"one 99 mesh@5 n@10", "x@25", "gone: virtualRouter/r/route/x"}, // a deletion before it was made again
		{"one 99", "", "gone: mesh, virtualNode/n, virtualRouter/r/route/x"},
		// Older, and written to since: what was written at 10 and 20 is lost.
		{"one 99 mesh@5 n@8 x@20", "", "the store has older records than those that the proxy's configuration was made from: virtualNode/n at 8, not 10"},
		{"one 99 mesh@5 n@8", "", "gone: virtualRouter/r/route/x; the store has older records"},
	} {
		g := shrink{view: &mesh.View{VirtualNodes: map[string]*mesh.Record[appmesh.VirtualNodeSpec]{}, Routes: map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{}}}
		words := strings.Fields(c.store)
		g.lineage = words[0]
		fmt.Sscan(words[1], &g.view.Revision) //nolint:errcheck // the table is right
		for _, word := range words[2:] {
			name, number, _ := strings.Cut(word, "@")
			var revision int64
			fmt.Sscan(number, &revision) //nolint:errcheck // the table is right
			switch name {
			case "mesh":
				g.view.Mesh = &mesh.Record[appmesh.MeshSpec]{Revision: revision}
			case "n":
				g.view.VirtualNodes["n"] = &mesh.Record[appmesh.VirtualNodeSpec]{Revision: revision}
			case "x":
				g.view.Routes[mesh.ID{Kind: mesh.KindRoute, Parent: "r", Name: "x"}] = &mesh.Record[appmesh.RouteSpec]{Revision: revision}
			}
		}
		g.deleted = func(id mesh.ID) (revision int64, ok bool) {
			if id.Kind != mesh.KindRoute || c.deleted == "" {
				return 0, false
			}
			fmt.Sscan(strings.TrimPrefix(c.deleted, "x@"), &revision) //nolint:errcheck // the table is right
			return revision, true
		}
		if got := g.refuse(held); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("store %s, deleted %q: %q, want %q", c.store, c.deleted, got, c.want)
		}
	}
	// What cannot be read is nothing that the store knows.
	g := shrink{lineage: "one", view: &mesh.View{Revision: 40}, deleted: func(mesh.ID) (int64, bool) { return 0, false }}
	for _, origin := range []string{"", "@", "nodes", "virtualNode/@1", "virtualNode/n@x"} {
		if got := g.refuse(Manifest{Lineage: "one", Revision: 30, Origins: []string{origin}}); !strings.Contains(got, "gone: "+origin) {
			t.Errorf("origin %q: %q", origin, got)
		}
	}
}
