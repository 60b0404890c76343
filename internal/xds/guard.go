package xds

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// shrink decides whether a proxy may lose what it holds. It is the guard
// against a store that has come back empty, old or in part: such a store
// explains nothing, and a control plane that says nothing stops no traffic.
type shrink struct {
	lineage string
	view    *mesh.View
	graph   *mesh.Graph // of the view
	deleted func(mesh.ID) (revision int64, ok bool)
}

// refuse says why a proxy that holds a configuration must not be sent one made
// from this view; empty: it may be.
func (g shrink) refuse(held Manifest) string {
	if !guardShrink {
		return ""
	}
	if held.Lineage != g.lineage {
		return anotherStore(held.Lineage, g.lineage)
	}
	if held.Revision > g.view.Revision {
		return fmt.Sprintf("the proxy's configuration is of revision %d, the store's mesh is at %d: the store is older", held.Revision, g.view.Revision)
	}
	var lost, older, withheld []string
	for _, origin := range held.Origins {
		id, revision, ok := parseOrigin(origin)
		if !ok {
			lost = append(lost, origin)
			continue
		}
		now, there := revisionOf(g.view, id)
		switch {
		case id.IsARN():
			switch now, there, named := g.held(id); {
			case there && now < revision:
				older = append(older, fmt.Sprintf("%s at %d, not %d", id, now, revision))
			case named && !there && id.Kind == mesh.KindCertificate:
				withheld = append(withheld, id.Name)
			}
			// That no spec names it any more is a change of the spec. An authority
			// that cannot be had is not trusted, whoever trusted it.
		case there && now < revision:
			// An older store that has been written to since it came back. That the
			// record is there explains nothing: what it says has been lost.
			older = append(older, fmt.Sprintf("%s at %d, not %d", id, now, revision))
		case !there && !g.deletedSince(id, held.Revision):
			lost = append(lost, id.String())
		}
	}
	var why []string
	if len(lost) > 0 {
		why = append(why, "no change record explains why these are gone: "+some(lost))
	}
	if len(older) > 0 {
		why = append(why, "the store has older records than those that the proxy's configuration was made from: "+some(older))
	}
	if len(withheld) > 0 {
		why = append(why, "specs name these certificates, and the store does not have them: "+some(withheld))
	}
	return strings.Join(why, "; ")
}

// held is the revision of a certificate or an authority, whether the store has
// it, and whether a spec names it.
func (g shrink) held(id mesh.ID) (revision int64, there, named bool) {
	if id.Kind == mesh.KindAuthority {
		a, named := g.graph.Authorities[id.Name]
		if a == nil {
			return 0, false, named
		}
		return a.Revision, true, named
	}
	c, named := g.graph.Certificates[id.Name]
	if c == nil {
		return 0, false, named
	}
	return c.Revision, true, named
}

// some names the first few of a list.
func some(list []string) string {
	const named = 5
	if len(list) <= named {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:named], ", "), len(list)-named)
}

func anotherStore(held, own string) string {
	return fmt.Sprintf("the proxy's configuration was made from another store (lineage %.8s…, this store is %.8s…)", held, own)
}

// deletedSince says whether somebody has deleted a record after a revision.
func (g shrink) deletedSince(id mesh.ID, since int64) bool {
	revision, ok := g.deleted(id)
	return ok && revision > since
}

// revisionOf is the revision of a record of a view; false: it is not there.
func revisionOf(v *mesh.View, id mesh.ID) (revision int64, ok bool) {
	switch id.Kind {
	case mesh.KindMesh:
		return recordRevision(map[string]*mesh.Record[appmesh.MeshSpec]{"": v.Mesh}, "")
	case mesh.KindVirtualNode:
		return recordRevision(v.VirtualNodes, id.Name)
	case mesh.KindVirtualService:
		return recordRevision(v.VirtualServices, id.Name)
	case mesh.KindVirtualRouter:
		return recordRevision(v.VirtualRouters, id.Name)
	case mesh.KindVirtualGateway:
		return recordRevision(v.VirtualGateways, id.Name)
	case mesh.KindRoute:
		return recordRevision(v.Routes, id)
	case mesh.KindGatewayRoute:
		return recordRevision(v.GatewayRoutes, id)
	}
	return 0, false
}

func recordRevision[K comparable, S any](records map[K]*mesh.Record[S], key K) (int64, bool) {
	record := records[key]
	if record == nil {
		return 0, false
	}
	return record.Revision, true
}

// parseOrigin reads an origin of a manifest, with a revision or without (0).
// False: it names no record.
func parseOrigin(origin string) (id mesh.ID, revision int64, ok bool) {
	if at := strings.LastIndex(origin, "@"); at >= 0 {
		if n, err := strconv.ParseInt(origin[at+1:], 10, 64); err == nil {
			origin, revision = origin[:at], n
		}
	}
	id, ok = parseID(origin)
	return id, revision, ok
}

// parseID is the inverse of mesh.ID's String.
func parseID(s string) (mesh.ID, bool) {
	if s == string(mesh.KindMesh) {
		return mesh.ID{Kind: mesh.KindMesh}, true
	}
	if strings.HasPrefix(s, "arn:") {
		return mesh.ARNID(s), true
	}
	kind, name, ok := strings.Cut(s, "/")
	if !ok || name == "" {
		return mesh.ID{}, false
	}
	for _, child := range []struct {
		parent, kind mesh.Kind
	}{{mesh.KindVirtualRouter, mesh.KindRoute}, {mesh.KindVirtualGateway, mesh.KindGatewayRoute}} {
		parent, own, found := strings.Cut(name, "/"+string(child.kind)+"/")
		if found && kind == string(child.parent) {
			return mesh.ID{Kind: child.kind, Parent: parent, Name: own}, true
		}
	}
	return mesh.ID{Kind: mesh.Kind(kind), Name: name}, true
}

// manifestOf says what a configuration was made from, as of a view.
func manifestOf(lineage string, view *mesh.View, config *envoy.Config) Manifest {
	m := Manifest{Lineage: lineage, Revision: view.Revision, Origins: make([]string, len(config.Origins))}
	for i, o := range config.Origins {
		m.Origins[i] = o.ID.String() + "@" + strconv.FormatInt(o.Revision, 10)
	}
	return m
}
