package store

import (
	"maps"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// draft is a view that is being made from another one. It clones only the maps
// that change; records keep their pointers.
type draft struct {
	view   *mesh.View
	cloned map[mesh.Kind]bool
}

func newDraft(from *mesh.View) *draft {
	if from == nil {
		return &draft{view: &mesh.View{
			VirtualNodes:    map[string]*mesh.Record[appmesh.VirtualNodeSpec]{},
			VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{},
			VirtualRouters:  map[string]*mesh.Record[appmesh.VirtualRouterSpec]{},
			VirtualGateways: map[string]*mesh.Record[appmesh.VirtualGatewaySpec]{},
			Routes:          map[mesh.ID]*mesh.Record[appmesh.RouteSpec]{},
			GatewayRoutes:   map[mesh.ID]*mesh.Record[appmesh.GatewayRouteSpec]{},
		}, cloned: map[mesh.Kind]bool{
			mesh.KindVirtualNode: true, mesh.KindVirtualService: true, mesh.KindVirtualRouter: true,
			mesh.KindVirtualGateway: true, mesh.KindRoute: true, mesh.KindGatewayRoute: true,
		}}
	}
	view := *from
	return &draft{view: &view, cloned: map[mesh.Kind]bool{}}
}

// table is the map of one kind, cloned before its first change.
func table[K comparable, S any](d *draft, kind mesh.Kind, m *map[K]*mesh.Record[S]) map[K]*mesh.Record[S] {
	if !d.cloned[kind] {
		*m = maps.Clone(*m)
		d.cloned[kind] = true
	}
	return *m
}

// put decodes a record into the draft. A record that the draft has at this
// revision stays as it is.
func (d *draft) put(r resource, value []byte, revision int64) error {
	v := d.view
	switch r.id.Kind {
	case mesh.KindMesh:
		return decodeInto(r, value, revision, v.Mesh, func(m *mesh.Record[appmesh.MeshSpec]) { v.Mesh = m })
	case mesh.KindVirtualNode:
		return putIn(d, r, value, revision, &v.VirtualNodes, r.id.Name)
	case mesh.KindVirtualService:
		return putIn(d, r, value, revision, &v.VirtualServices, r.id.Name)
	case mesh.KindVirtualRouter:
		return putIn(d, r, value, revision, &v.VirtualRouters, r.id.Name)
	case mesh.KindVirtualGateway:
		return putIn(d, r, value, revision, &v.VirtualGateways, r.id.Name)
	case mesh.KindRoute:
		return putIn(d, r, value, revision, &v.Routes, r.id)
	case mesh.KindGatewayRoute:
		return putIn(d, r, value, revision, &v.GatewayRoutes, r.id)
	}
	return nil
}

func putIn[K comparable, S any](d *draft, r resource, value []byte, revision int64, m *map[K]*mesh.Record[S], key K) error {
	return decodeInto(r, value, revision, (*m)[key], func(record *mesh.Record[S]) {
		table(d, r.id.Kind, m)[key] = record
	})
}

func decodeInto[S any](r resource, value []byte, revision int64, old *mesh.Record[S], set func(*mesh.Record[S])) error {
	if old != nil && old.Revision == revision {
		return nil
	}
	record, _, err := decodeRecord[S](r, value, revision)
	if err != nil {
		return err
	}
	set(record)
	return nil
}

// remove takes a record out of the draft.
func (d *draft) remove(r resource) {
	v := d.view
	switch r.id.Kind {
	case mesh.KindMesh:
		v.Mesh = nil
	case mesh.KindVirtualNode:
		delete(table(d, r.id.Kind, &v.VirtualNodes), r.id.Name)
	case mesh.KindVirtualService:
		delete(table(d, r.id.Kind, &v.VirtualServices), r.id.Name)
	case mesh.KindVirtualRouter:
		delete(table(d, r.id.Kind, &v.VirtualRouters), r.id.Name)
	case mesh.KindVirtualGateway:
		delete(table(d, r.id.Kind, &v.VirtualGateways), r.id.Name)
	case mesh.KindRoute:
		delete(table(d, r.id.Kind, &v.Routes), r.id)
	case mesh.KindGatewayRoute:
		delete(table(d, r.id.Kind, &v.GatewayRoutes), r.id)
	}
}

// resources are the names of all records of a view.
func resources(name mesh.Name, v *mesh.View) map[resource]bool {
	all := map[resource]bool{}
	if v.Mesh != nil {
		all[normal(name, mesh.ID{Kind: mesh.KindMesh})] = true
	}
	addNamed(all, name, v.VirtualNodes)
	addNamed(all, name, v.VirtualServices)
	addNamed(all, name, v.VirtualRouters)
	addNamed(all, name, v.VirtualGateways)
	addNamed(all, name, v.Routes)
	addNamed(all, name, v.GatewayRoutes)
	return all
}

func addNamed[K comparable, S any](all map[resource]bool, name mesh.Name, records map[K]*mesh.Record[S]) {
	for _, record := range records {
		all[resource{name, record.ID}] = true
	}
}
