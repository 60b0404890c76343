package store

import (
	"net/url"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/internal/mesh"
)

// underWay is how many transactions that make a record in one collection may
// be between their reads and their writes at the same time, on all servers
// together, or that the cache has not heard of. Nearer to a limit than this, each
// one excludes the others.
const underWay = 512

// Below tells whether a collection, as in List, has less than limit records,
// and makes that a condition of the transaction, which is about to add one.
//
// Far below the limit it costs no read, and writers do not meet: the cache's
// count, and all that was written since, is the bound. Near the limit it counts
// in the store, and writes the collection's fence. Whatever was read before the
// fence was written, and relied on it, runs again.
func (tx *Tx) Below(name mesh.Name, kind mesh.Kind, parent string, limit int) (bool, error) {
	path, err := collection(name, kind, parent)
	if err != nil {
		return false, err
	}
	fence := fenceKey(name, kind, parent)
	far := false
	if tx.revision > 0 {
		count, revision := tx.cache.count(name, kind, parent)
		far = count+int(max(0, tx.revision-revision))+underWay <= limit
	}
	if !far {
		response, err := tx.get(dirRecord+path, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return false, err
		}
		if response.Count >= int64(limit) {
			return false, nil
		}
		tx.ops[fence] = clientv3.OpPut(fence, "")
	}
	tx.conditions[fence] = clientv3.Compare(clientv3.ModRevision(fence), "<", tx.revision+1)
	return true, nil
}

// fenceKey is the fence of a collection. It goes with what the collection is in.
func fenceKey(name mesh.Name, kind mesh.Kind, parent string) string {
	if kind == mesh.KindMesh {
		return dirFence + url.PathEscape(name.Owner)
	}
	return fencesOf(name) + string(kind) + "/" + url.PathEscape(parent)
}

// fencesOf begins the fences within a mesh.
func fencesOf(name mesh.Name) string {
	return dirFence + url.PathEscape(name.Owner) + "/" + url.PathEscape(name.Mesh) + "/"
}

// dropFences stages the end of the fences of the collections in a record that
// is deleted. Who relies on one of them relies on the record, too.
func (tx *Tx) dropFences(r resource) {
	switch r.id.Kind {
	case mesh.KindMesh:
		all := fencesOf(r.mesh)
		tx.ops[all] = clientv3.OpDelete(all, clientv3.WithPrefix())
	case mesh.KindVirtualRouter:
		key := fenceKey(r.mesh, mesh.KindRoute, r.id.Name)
		tx.ops[key] = clientv3.OpDelete(key)
	case mesh.KindVirtualGateway:
		key := fenceKey(r.mesh, mesh.KindGatewayRoute, r.id.Name)
		tx.ops[key] = clientv3.OpDelete(key)
	}
}

// count is how many records of a collection the cache has, as of its revision.
func (c *cache) count(name mesh.Name, kind mesh.Kind, parent string) (records int, revision int64) {
	c.mu.RLock()
	view, revision := c.views[name], c.revision
	if kind == mesh.KindMesh {
		for other := range c.views {
			if other.Owner == name.Owner {
				records++
			}
		}
	}
	c.mu.RUnlock()
	if view == nil {
		return records, revision
	}
	switch kind {
	case mesh.KindVirtualNode:
		records = len(view.VirtualNodes)
	case mesh.KindVirtualService:
		records = len(view.VirtualServices)
	case mesh.KindVirtualRouter:
		records = len(view.VirtualRouters)
	case mesh.KindVirtualGateway:
		records = len(view.VirtualGateways)
	case mesh.KindRoute:
		records = below(view.Routes, parent)
	case mesh.KindGatewayRoute:
		records = below(view.GatewayRoutes, parent)
	}
	return records, revision
}

// holds tells whether the cache has a record.
func (c *cache) holds(r resource) bool {
	c.mu.RLock()
	view := c.views[r.mesh]
	c.mu.RUnlock()
	if view == nil {
		return false
	}
	switch r.id.Kind {
	case mesh.KindMesh:
		return view.Mesh != nil
	case mesh.KindVirtualNode:
		return view.VirtualNodes[r.id.Name] != nil
	case mesh.KindVirtualService:
		return view.VirtualServices[r.id.Name] != nil
	case mesh.KindVirtualRouter:
		return view.VirtualRouters[r.id.Name] != nil
	case mesh.KindVirtualGateway:
		return view.VirtualGateways[r.id.Name] != nil
	case mesh.KindRoute:
		return view.Routes[r.id] != nil
	case mesh.KindGatewayRoute:
		return view.GatewayRoutes[r.id] != nil
	}
	return false
}

// below counts the records of a parent.
func below[S any](records map[mesh.ID]*mesh.Record[S], parent string) int {
	n := 0
	for id := range records {
		if id.Parent == parent {
			n++
		}
	}
	return n
}
