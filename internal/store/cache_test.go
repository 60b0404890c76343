package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
)

// caughtUp returns the view of the demo mesh with everything until revision.
func caughtUp(t testing.TB, s *Store, revision int64) *mesh.View {
	t.Helper()
	if err := s.WaitFor(bounded(t), revision); err != nil {
		t.Fatal(err)
	}
	view, ok := s.View(demo)
	if !ok {
		t.Fatal("no view of the mesh")
	}
	return view
}

func TestViewsKeepWhatDoesNotChange(t *testing.T) {
	s := open(t, Config{})
	put(t, s, demo, meshID, meshSpec{})
	put(t, s, demo, nodeID("a"), nodeSpec{})
	put(t, s, demo, routeID("x"), routeSpec{})
	before := caughtUp(t, s, put(t, s, demo, nodeID("b"), nodeSpec{}))
	unchanged := maps.Clone(before.VirtualNodes)
	other := mesh.Name{Owner: account, Mesh: "other"}
	put(t, s, other, meshID, meshSpec{})
	revision := put(t, s, demo, nodeID("a"), nodeSpec{})
	after := caughtUp(t, s, revision)

	if after == before || after.Revision != revision {
		t.Errorf("revision of the new view is %d, want %d", after.Revision, revision)
	}
	if !maps.Equal(before.VirtualNodes, unchanged) {
		t.Error("a view that was handed out has changed")
	}
	if after.VirtualNodes["b"] != before.VirtualNodes["b"] || after.Routes[routeID("x")] != before.Routes[routeID("x")] || after.Mesh != before.Mesh {
		t.Error("an unchanged record has another pointer")
	}
	if got := after.VirtualNodes["a"]; got == before.VirtualNodes["a"] || got.Version != 2 || got.Revision != revision {
		t.Errorf("the changed record is %+v", got)
	}
	// A write to another mesh makes no new view of this one.
	revision = put(t, s, other, nodeID("a"), nodeSpec{})
	if caughtUp(t, s, revision) != after {
		t.Error("a change of another mesh made a new view")
	}
	want := []mesh.Name{demo, other}
	if diff := cmp.Diff(want, s.Meshes()); diff != "" {
		t.Error(diff)
	}
}

func TestViewsSurviveARestart(t *testing.T) {
	config := Config{DataDir: t.TempDir()}
	s := open(t, config)
	put(t, s, demo, meshID, meshSpec{})
	put(t, s, demo, nodeID("a"), nodeSpec{})
	put(t, s, demo, nodeID("gone"), nodeSpec{})
	put(t, s, demo, routeID("x"), routeSpec{})
	// The newest write is a deletion, which no record shows.
	deleted := remove[nodeSpec](t, s, demo, nodeID("gone"))
	before := caughtUp(t, s, deleted)
	lineage := s.Lineage()
	s.Close()

	s = open(t, config)
	after, ok := s.View(demo)
	if !ok {
		t.Fatal("no view of the mesh")
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	if after.Revision != deleted {
		t.Errorf("revision is %d, want that of the deletion, %d", after.Revision, deleted)
	}
	if revision, ok := s.Deleted(demo, nodeID("gone")); !ok || revision != deleted {
		t.Errorf("deleted at %d, %v", revision, ok)
	}
	if s.Lineage() != lineage {
		t.Error("the lineage is another one")
	}
}

func TestDeletionsLeaveTombstones(t *testing.T) {
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	s := open(t, Config{Now: func() time.Time { return now }})
	put(t, s, demo, meshID, meshSpec{})
	is := func(id mesh.ID, want int64) {
		t.Helper()
		caughtUp(t, s, s.latest(t))
		if got, ok := s.Deleted(demo, id); got != want || ok != (want > 0) {
			t.Errorf("%s deleted at %d, %v; want %d", id, got, ok, want)
		}
	}
	is(nodeID("a"), 0) // never was
	created := put(t, s, demo, nodeID("a"), nodeSpec{})
	is(nodeID("a"), 0)
	caughtUp(t, s, created)
	if got, _ := s.Change(demo, nodeID("a")); got.Op != OpCreate || got.Version != 1 || got.Revision != created || !got.Time.Equal(now) {
		t.Errorf("change is %+v", got)
	}
	first := remove[nodeSpec](t, s, demo, nodeID("a"))
	is(nodeID("a"), first)
	put(t, s, demo, nodeID("a"), nodeSpec{})
	is(nodeID("a"), 0) // is there again
	second := remove[nodeSpec](t, s, demo, nodeID("a"))
	is(nodeID("a"), second)

	now = now.Add(TombstoneAge + time.Hour)
	put(t, s, demo, nodeID("b"), nodeSpec{})
	newer := remove[nodeSpec](t, s, demo, nodeID("b"))
	is(nodeID("b"), newer)
	if err := s.Prune(bounded(t)); err != nil {
		t.Fatal(err)
	}
	is(nodeID("a"), 0) // forgotten
	is(nodeID("b"), newer)
	// Old as it is, the newest change says how far the mesh has come.
	now = now.Add(TombstoneAge + time.Hour)
	if err := s.Prune(bounded(t)); err != nil {
		t.Fatal(err)
	}
	is(nodeID("b"), newer)
	// With the mesh goes the need for it.
	remove[meshSpec](t, s, demo, meshID)
	now = now.Add(TombstoneAge + time.Hour)
	if err := s.WaitFor(bounded(t), s.latest(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitFor(bounded(t), s.latest(t)); err != nil {
		t.Fatal(err)
	}
	if len(s.cache.changes) > 0 {
		t.Errorf("changes left: %v", s.cache.changes)
	}
}

func (s *Store) latest(t testing.TB) int64 {
	t.Helper()
	response, err := s.client.Get(bounded(t), keySchema)
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.Revision
}

func TestTheActorOfAChangeIsKept(t *testing.T) {
	s := open(t, Config{})
	put(t, s, demo, meshID, meshSpec{})
	const actor = "arn:aws:iam::111122223333:root"
	revision, err := s.Write(bounded(t), func(tx *Tx) error {
		tx.Actor = actor
		if _, err := Get[nodeSpec](tx, demo, nodeID("a")); !errors.Is(err, ErrNotFound) {
			return err
		}
		return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: nodeID("a"), Version: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	caughtUp(t, s, revision)
	if got, _ := s.Change(demo, nodeID("a")); got.Actor != actor {
		t.Errorf("actor is %q", got.Actor)
	}
}

// delivery is what a watcher was told.
type delivery struct {
	name mesh.Name
	view *mesh.View
}

func watch(t *testing.T, s *Store, deliver func(delivery)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Watch(ctx, func(name mesh.Name, view *mesh.View) { deliver(delivery{name, view}) }); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// next waits for a delivery that fits.
func next(t *testing.T, told <-chan delivery, fits func(delivery) bool) delivery {
	t.Helper()
	ctx := bounded(t)
	for {
		select {
		case d := <-told:
			if fits(d) {
				return d
			}
		case <-ctx.Done():
			t.Fatal("not delivered")
		}
	}
}

func TestWatchDeliversTheLatestOfEachMesh(t *testing.T) {
	s := open(t, Config{})
	caughtUp(t, s, put(t, s, demo, meshID, meshSpec{}))
	told := make(chan delivery)
	watch(t, s, func(d delivery) { told <- d })
	if d := <-told; d.name != demo || d.view == nil {
		t.Fatalf("first delivery is %+v", d)
	}
	// The watcher is slow: it hears of the first change, and of all others at once.
	var revision int64
	for range 100 {
		revision = put(t, s, demo, nodeID("a"), nodeSpec{})
	}
	caughtUp(t, s, revision)
	deliveries := 0
	next(t, told, func(d delivery) bool { deliveries++; return d.view.Revision == revision })
	if deliveries > 2 {
		t.Errorf("%d deliveries for a watcher that was busy", deliveries)
	}
	remove[nodeSpec](t, s, demo, nodeID("a"))
	next(t, told, func(d delivery) bool { return len(d.view.VirtualNodes) == 0 })
	remove[meshSpec](t, s, demo, meshID)
	next(t, told, func(d delivery) bool { return d.name == demo && d.view == nil })
}

func TestShrinkIsAcceptedForAWhile(t *testing.T) {
	s := open(t, Config{})
	before := caughtUp(t, s, put(t, s, demo, meshID, meshSpec{}))
	told := make(chan delivery, 10)
	watch(t, s, func(d delivery) { told <- d })
	next(t, told, func(delivery) bool { return true })
	if s.ShrinkAccepted(demo, nodeID("a")) {
		t.Error("accepted before anybody did")
	}
	if err := s.AcceptShrink(bounded(t), demo, nodeID("a")); err != nil {
		t.Fatal(err)
	}
	if !s.ShrinkAccepted(demo, nodeID("a")) || s.ShrinkAccepted(demo, nodeID("b")) {
		t.Error("not accepted, or for another node")
	}
	if d := next(t, told, func(delivery) bool { return true }); d.view != before {
		t.Error("told of another view")
	}
	response, err := s.client.Get(bounded(t), dirShrink, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	lease := clientv3.LeaseID(response.Kvs[0].Lease)
	ttl, err := s.client.TimeToLive(bounded(t), lease)
	if err != nil || ttl.GrantedTTL != 600 {
		t.Errorf("lease of %d s, %v", ttl.GrantedTTL, err)
	}
	// The lease ends.
	if _, err := s.client.Revoke(bounded(t), lease); err != nil {
		t.Fatal(err)
	}
	next(t, told, func(delivery) bool { return !s.ShrinkAccepted(demo, nodeID("a")) })
}

func TestProxyKeys(t *testing.T) {
	config := Config{DataDir: t.TempDir()}
	s := open(t, config)
	ctx := bounded(t)
	const resource = "mesh/demo/virtualNode/web"
	made, err := s.CreateProxyKey(ctx, account, resource)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, config)
	k, err := s.Key(ctx, made.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := iam.Principal{Account: account, Kind: iam.Proxy, AccessKeyID: made.ID, Resource: resource}
	if k.Principal != want || !k.Secret.Equal(made.Secret) || len(made.Secret.Reveal()) != 40 || len(made.ID) != 20 {
		t.Errorf("key is %+v, want %+v", k, made)
	}
	keys, err := s.ListProxyKeys(ctx)
	if err != nil || len(keys) != 1 || keys[0].ID != made.ID || keys[0].Resource != resource {
		t.Errorf("list is %+v, %v", keys, err)
	}
	for id := range s.cache.keys {
		if id == made.ID {
			continue
		}
		if err := s.DeleteProxyKey(ctx, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("delete of the root key: %v", err)
		}
	}
	if err := s.DeleteProxyKey(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Key(ctx, made.ID); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("deleted key: %v", err)
	}
	if err := s.DeleteProxyKey(ctx, made.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
}

// Who may write to etcd cannot turn one key into another.
func TestAccessKeyMovedInTheStoreIsNotTaken(t *testing.T) {
	s := open(t, Config{})
	ctx := bounded(t)
	proxy, err := s.CreateProxyKey(ctx, account, "mesh/demo/virtualNode/web")
	if err != nil {
		t.Fatal(err)
	}
	var root string
	for id, k := range s.cache.keys {
		if k.Principal.Kind == iam.Root {
			root = id
		}
	}
	sealed, err := s.client.Get(ctx, dirAccessKey+root)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.client.Put(ctx, dirAccessKey+proxy.ID, string(sealed.Kvs[0].Value))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitFor(ctx, response.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Key(ctx, proxy.ID); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("the moved key is %+v, %v", k, err)
	}
}

// The watch breaks off while much happens, and what it has missed is compacted
// when it comes back.
func TestWatchGoesOnAfterCompaction(t *testing.T) {
	s := open(t, Config{})
	put(t, s, demo, meshID, meshSpec{})
	put(t, s, demo, nodeID("same"), nodeSpec{})
	put(t, s, demo, nodeID("changed"), nodeSpec{})
	gone := mesh.Name{Owner: account, Mesh: "gone"}
	put(t, s, gone, meshID, meshSpec{})
	put(t, s, demo, routeID("x"), routeSpec{})
	before := caughtUp(t, s, put(t, s, demo, nodeID("deleted"), nodeSpec{}))
	key, err := s.CreateProxyKey(bounded(t), account, "mesh/demo/virtualNode/same")
	if err != nil {
		t.Fatal(err)
	}

	// The cache stands still.
	s.stop()
	s.tasks.Wait()
	put(t, s, demo, nodeID("changed"), nodeSpec{})
	put(t, s, demo, nodeID("new"), nodeSpec{})
	remove[meshSpec](t, s, gone, meshID)
	if _, err := s.client.Delete(bounded(t), dirAccessKey+key.ID); err != nil {
		t.Fatal(err)
	}
	deleted := remove[nodeSpec](t, s, demo, nodeID("deleted"))
	if _, err := s.client.Compact(bounded(t), s.latest(t)); err != nil {
		t.Fatal(err)
	}
	told := make(chan delivery, 10)
	watch(t, s, func(d delivery) { told <- d })
	for range 2 {
		next(t, told, func(delivery) bool { return true })
	}
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	s.tasks.Go(func() { s.cache.run(ctx) })
	next(t, told, func(d delivery) bool { return d.name == gone && d.view == nil })

	after := caughtUp(t, s, deleted)
	if after.Revision != deleted {
		t.Errorf("revision is %d, want %d", after.Revision, deleted)
	}
	if after.VirtualNodes["same"] != before.VirtualNodes["same"] || after.Routes[routeID("x")] != before.Routes[routeID("x")] {
		t.Error("an unchanged record has another pointer")
	}
	if after.VirtualNodes["changed"].Version != 2 || after.VirtualNodes["new"] == nil || after.VirtualNodes["deleted"] != nil {
		t.Errorf("nodes are %v", after.VirtualNodes)
	}
	if revision, ok := s.Deleted(demo, nodeID("deleted")); !ok || revision != deleted {
		t.Errorf("deleted at %d, %v", revision, ok)
	}
	if _, err := s.Key(bounded(t), key.ID); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("deleted key: %v", err)
	}
	// And the watch is alive again.
	caughtUp(t, s, put(t, s, demo, nodeID("after"), nodeSpec{}))
}

// After any sequence of changes the followed cache is what a new one loads.
func TestFollowedCacheIsWhatAFreshOneLoads(t *testing.T) {
	endpoint, _ := external(t, 0)
	config := Config{Endpoints: []string{endpoint}, KEKFile: kekFile(t, 7)}
	s := open(t, config)
	put(t, s, demo, meshID, meshSpec{})
	var revision int64
	for i := range 3000 {
		id := nodeID(fmt.Sprint("n", i*7919%50))
		if _, there := mustGet(t, s, id); there && i%3 == 0 {
			revision = remove[nodeSpec](t, s, demo, id)
		} else {
			revision = put(t, s, demo, id, nodeSpec{})
		}
	}
	followed := caughtUp(t, s, revision)
	config.DataDir = ""
	loaded := caughtUp(t, open(t, config), revision)
	if diff := cmp.Diff(loaded, followed); diff != "" {
		t.Error(diff)
	}
}

func mustGet(t *testing.T, s *Store, id mesh.ID) (record *mesh.Record[appmesh.VirtualNodeSpec], there bool) {
	t.Helper()
	_, err := s.Read(bounded(t), func(tx *Tx) (err error) {
		record, err = Get[appmesh.VirtualNodeSpec](tx, demo, id)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return record, err == nil
}

func TestStorePutBackToAnOlderRevision(t *testing.T) {
	s := open(t, Config{})
	put(t, s, demo, meshID, meshSpec{})
	revision := put(t, s, demo, nodeID("a"), nodeSpec{})
	caughtUp(t, s, revision)
	s.stop()
	s.tasks.Wait()
	kvs, _, err := s.cache.list(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan delivery, 10)
	watch(t, s, func(d delivery) { told <- d })
	next(t, told, func(delivery) bool { return true })
	// All but the newest write, at a revision before it.
	older := kvs[:0]
	for _, kv := range kvs {
		if kv.ModRevision < revision {
			older = append(older, kv)
		}
	}
	if err := s.cache.replace(t.Context(), older, revision-1); err != nil {
		t.Fatal(err)
	}
	next(t, told, func(d delivery) bool {
		return d.view != nil && len(d.view.VirtualNodes) == 0 && d.view.Revision < revision
	})
	if s.Revision() != revision-1 {
		t.Errorf("revision is %d, want %d", s.Revision(), revision-1)
	}
	if _, ok := s.Change(demo, nodeID("a")); ok {
		t.Error("a change is known that the store does not have")
	}
}
