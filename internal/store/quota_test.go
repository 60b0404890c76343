package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

var errFullUp = errors.New("the limit is reached")

// createBelow makes a record as package server does: read, bound, put.
func createBelow[S any](t *testing.T, s *Store, name mesh.Name, id mesh.ID, limit int) error {
	t.Helper()
	_, err := s.Write(bounded(t), func(tx *Tx) error {
		if id.Kind != mesh.KindMesh {
			if ok, err := tx.Exists(name, mesh.ID{Kind: mesh.KindMesh}); err != nil || !ok {
				return errors.Join(err, errNoMesh)
			}
		}
		if _, err := Get[S](tx, name, id); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("get before put: %w", err)
		}
		below, err := tx.Below(name, id.Kind, id.Parent, limit)
		if err != nil {
			return err
		}
		if !below {
			return errFullUp
		}
		return Put(tx, &mesh.Record[S]{Mesh: name, ID: id, UID: "u", Version: 1, Spec: new(S)})
	})
	return err
}

var errNoMesh = errors.New("no such mesh")

// Two servers race to a limit, from nothing and from what is far below it, and
// end at it: none beyond, none missing.
func TestRacingCreatesStayWithinALimit(t *testing.T) {
	endpoint, _ := external(t, 0)
	kek := kekFile(t, 7)
	servers := []*Store{
		open(t, Config{Endpoints: []string{endpoint}, KEKFile: kek}),
		open(t, Config{Endpoints: []string{endpoint}, KEKFile: kek}),
	}
	put(t, servers[0], demo, meshID, appmesh.MeshSpec{})
	for _, c := range []struct {
		limit, writers, each int
		id                   func(name string) mesh.ID
	}{
		{1, 16, 2, nodeID},
		{20, 16, 4, func(name string) mesh.ID { return mesh.ID{Kind: mesh.KindVirtualService, Name: name} }},
		{underWay + 30, 16, 36, routeID}, // more than half of them is far below the limit
	} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			var made, refused atomic.Int64
			var all sync.WaitGroup
			for w := range c.writers {
				all.Go(func() {
					for i := range c.each {
						switch err := createBelow[meshSpec](t, servers[w%2], demo, c.id(fmt.Sprintf("%d-%d", w, i)), c.limit); {
						case err == nil:
							made.Add(1)
						case errors.Is(err, errFullUp):
							refused.Add(1)
						default:
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			if made.Load() != int64(c.limit) || refused.Load() != int64(c.writers*c.each-c.limit) {
				t.Errorf("made %d, refused %d; want %d made", made.Load(), refused.Load(), c.limit)
			}
			id := c.id("x")
			if _, err := servers[1].Read(bounded(t), func(tx *Tx) error {
				records, err := List[meshSpec](tx, demo, id.Kind, id.Parent)
				if len(records) != c.limit {
					t.Errorf("%d records, want %d", len(records), c.limit)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What is deleted makes room again, for meshes too, and another owner, mesh or
// parent counts for itself.
func TestLimitsCountWhatIsThere(t *testing.T) {
	s := open(t, Config{})
	other := mesh.Name{Owner: account, Mesh: "other"}
	foreign := mesh.Name{Owner: "999900001111", Mesh: "demo"}
	want := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || err != nil && want == nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	want("a mesh", createBelow[meshSpec](t, s, demo, meshID, 1), nil)
	want("a second mesh", createBelow[meshSpec](t, s, other, meshID, 1), errFullUp)
	want("another owner's", createBelow[meshSpec](t, s, foreign, meshID, 1), nil)
	want("a second mesh where two may be", createBelow[meshSpec](t, s, other, meshID, 2), nil)
	for _, name := range []mesh.Name{demo, other} {
		want("a node", createBelow[nodeSpec](t, s, name, nodeID("a"), 1), nil)
		want("a second node", createBelow[nodeSpec](t, s, name, nodeID("b"), 1), errFullUp)
		remove[nodeSpec](t, s, name, nodeID("a"))
		want("a node in its place", createBelow[nodeSpec](t, s, name, nodeID("b"), 1), nil)
	}
	for _, parent := range []string{"r", "r2"} {
		route := func(name string) mesh.ID { return mesh.ID{Kind: mesh.KindRoute, Parent: parent, Name: name} }
		want("a route", createBelow[routeSpec](t, s, demo, route("a"), 1), nil)
		want("a second route", createBelow[routeSpec](t, s, demo, route("b"), 1), errFullUp)
	}
}

// Fences go with what they are in, and only those.
func TestFencesAreDropped(t *testing.T) {
	s := open(t, Config{})
	near := mesh.Name{Owner: account, Mesh: "demo2"} // begins as demo does
	for _, name := range []mesh.Name{demo, near} {
		for _, id := range []mesh.ID{meshID, {Kind: mesh.KindVirtualRouter, Name: "r"}, nodeID("a"), routeID("x"), {Kind: mesh.KindRoute, Parent: "r2", Name: "x"}} {
			if err := createBelow[meshSpec](t, s, name, id, 5); err != nil {
				t.Fatal(err)
			}
		}
	}
	fences := func(name mesh.Name) int64 {
		t.Helper()
		response, err := s.client.Get(bounded(t), fencesOf(name), clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return response.Count
	}
	if n := fences(demo); n != 4 {
		t.Errorf("%d fences, want 4", n)
	}
	remove[meshSpec](t, s, demo, mesh.ID{Kind: mesh.KindVirtualRouter, Name: "r"})
	if n := fences(demo); n != 3 {
		t.Errorf("%d fences without the router, want 3", n)
	}
	remove[meshSpec](t, s, demo, meshID)
	if here, beside := fences(demo), fences(near); here != 0 || beside != 4 {
		t.Errorf("%d fences without the mesh, %d beside it; want 0 and 4", here, beside)
	}
}
