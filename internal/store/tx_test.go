package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

type (
	meshSpec  = appmesh.MeshSpec
	nodeSpec  = appmesh.VirtualNodeSpec
	routeSpec = appmesh.RouteSpec
)

var meshID = mesh.ID{Kind: mesh.KindMesh}

func routeID(name string) mesh.ID { return mesh.ID{Kind: mesh.KindRoute, Parent: "r", Name: name} }

func remove[S any](t testing.TB, s *Store, name mesh.Name, id mesh.ID) int64 {
	t.Helper()
	revision, err := s.Write(bounded(t), func(tx *Tx) error {
		if _, err := Get[S](tx, name, id); err != nil {
			return err
		}
		return Delete(tx, name, id)
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestRecordComesBackAsItWasPut(t *testing.T) {
	s := open(t, Config{})
	at := time.Date(2026, 10, 1, 12, 0, 0, 123456789, time.UTC)
	hostname := "web.local"
	record := &mesh.Record[nodeSpec]{
		Mesh: demo, ID: nodeID("a/b"), UID: "1f0e", Version: 1, CreatedAt: at, UpdatedAt: at.Add(time.Second),
		ResourceOwner: "444455556666", Tags: map[string]string{"k": "v"},
		Spec: &nodeSpec{
			Backends:         []appmesh.Backend{}, // empty and absent are different things to Terraform
			ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: hostname}},
		},
	}
	revision, err := s.Write(bounded(t), func(tx *Tx) error {
		if _, err := Get[nodeSpec](tx, demo, record.ID); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("get before put: %w", err)
		}
		return Put(tx, record)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := *record
	want.Revision = revision
	var got *mesh.Record[nodeSpec]
	if _, err := s.Read(bounded(t), func(tx *Tx) (err error) {
		got, err = Get[nodeSpec](tx, demo, record.ID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
}

// What a transaction relies on × what another one does meanwhile → whether it
// runs again.
func TestConditions(t *testing.T) {
	s := open(t, Config{})
	get := func(id mesh.ID) func(*Tx) error {
		return func(tx *Tx) error {
			_, err := Get[nodeSpec](tx, demo, id)
			if errors.Is(err, ErrNotFound) {
				err = nil
			}
			return err
		}
	}
	exists := func(id mesh.ID) func(*Tx) error {
		return func(tx *Tx) error { _, err := tx.Exists(demo, id); return err }
	}
	list := func(kind mesh.Kind, parent string) func(*Tx) error {
		return func(tx *Tx) error { _, err := List[routeSpec](tx, demo, kind, parent); return err }
	}
	empty := func(kind mesh.Kind, parent string) func(*Tx) error {
		return func(tx *Tx) error { _, err := tx.Empty(demo, kind, parent); return err }
	}
	makeNode := func(name string) func() { return func() { put(t, s, demo, nodeID(name), nodeSpec{}) } }
	dropNode := func(name string) func() { return func() { remove[nodeSpec](t, s, demo, nodeID(name)) } }
	makeRoute := func(name string) func() { return func() { put(t, s, demo, routeID(name), routeSpec{}) } }
	dropRoute := func(name string) func() { return func() { remove[routeSpec](t, s, demo, routeID(name)) } }
	both := func(a, b func()) func() { return func() { a(); b() } }

	// There are the nodes a and b and the routes r/x and r/y.
	for _, test := range []struct {
		relies string
		on     func(*Tx) error
		other  string
		does   func()
		again  bool
	}{
		{"get a", get(nodeID("a")), "nothing", func() {}, false},
		{"get a", get(nodeID("a")), "updates a", makeNode("a"), true},
		{"get a", get(nodeID("a")), "deletes a", dropNode("a"), true},
		{"get a", get(nodeID("a")), "updates b", makeNode("b"), false},
		{"get a", get(nodeID("a")), "creates aa", makeNode("aa"), false},
		{"c not there", get(nodeID("c")), "creates c", makeNode("c"), true},
		{"c not there", get(nodeID("c")), "creates and deletes c", both(makeNode("c"), dropNode("c")), false},

		{"a exists", exists(nodeID("a")), "updates a", makeNode("a"), false},
		{"a exists", exists(nodeID("a")), "deletes a", dropNode("a"), true},
		{"a exists", exists(nodeID("a")), "deletes and creates a", both(dropNode("a"), makeNode("a")), true},
		{"c does not exist", exists(nodeID("c")), "creates c", makeNode("c"), true},

		{"list of routes", list(mesh.KindRoute, ""), "creates r/z", makeRoute("z"), true},
		{"list of routes", list(mesh.KindRoute, ""), "updates r/x", makeRoute("x"), true},
		{"list of routes", list(mesh.KindRoute, ""), "deletes r/y", dropRoute("y"), true},
		{"list of routes", list(mesh.KindRoute, ""), "creates a node", makeNode("c"), false},
		{"list of routes of r", list(mesh.KindRoute, "r"), "deletes r/x", dropRoute("x"), true},
		{"list of routes of q", list(mesh.KindRoute, "q"), "creates r/z", makeRoute("z"), false},

		{"q has no routes", empty(mesh.KindRoute, "q"), "creates r/z", makeRoute("z"), false},
		{"r has routes", empty(mesh.KindRoute, "r"), "creates r/z", makeRoute("z"), false},
		{"r has routes", empty(mesh.KindRoute, "r"), "deletes r/x", dropRoute("x"), true},
		{"no gateways", empty(mesh.KindVirtualGateway, ""), "creates one", func() {
			id := mesh.ID{Kind: mesh.KindVirtualGateway, Name: "g"}
			put(t, s, demo, id, appmesh.VirtualGatewaySpec{})
			remove[appmesh.VirtualGatewaySpec](t, s, demo, id)
			put(t, s, demo, id, appmesh.VirtualGatewaySpec{})
		}, true},
	} {
		t.Run(test.relies+", another "+test.other, func(t *testing.T) {
			reset(t, s)
			runs := 0
			_, err := s.Write(bounded(t), func(tx *Tx) error {
				if tx.foretold {
					return errNotForetold // what is read is to be the condition
				}
				runs++
				if err := test.on(tx); err != nil {
					return err
				}
				if runs == 1 {
					test.does()
				}
				marker := mesh.ID{Kind: mesh.KindVirtualRouter, Name: "marker"}
				if _, err := Get[appmesh.VirtualRouterSpec](tx, demo, marker); !errors.Is(err, ErrNotFound) {
					return fmt.Errorf("get marker: %w", err)
				}
				return Put(tx, &mesh.Record[appmesh.VirtualRouterSpec]{Mesh: demo, ID: marker, Version: 1})
			})
			if err != nil {
				t.Fatal(err)
			}
			if again := runs > 1; again != test.again {
				t.Errorf("ran again: %v, want %v", again, test.again)
			}
		})
	}
}

// reset leaves the nodes a and b and the routes r/x and r/y.
func reset(t testing.TB, s *Store) {
	t.Helper()
	for _, dir := range []string{dirRecord, dirChange} {
		if _, err := s.client.Delete(bounded(t), dir, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, demo, nodeID("a"), nodeSpec{})
	put(t, s, demo, nodeID("b"), nodeSpec{})
	put(t, s, demo, routeID("x"), routeSpec{})
	put(t, s, demo, routeID("y"), routeSpec{})
}

func TestReadsAreOfOneRevision(t *testing.T) {
	s := open(t, Config{})
	reset(t, s)
	_, err := s.Read(bounded(t), func(tx *Tx) error {
		a, err := Get[nodeSpec](tx, demo, nodeID("a"))
		if err != nil {
			return err
		}
		put(t, s, demo, nodeID("b"), nodeSpec{})
		remove[routeSpec](t, s, demo, routeID("x"))
		b, err := Get[nodeSpec](tx, demo, nodeID("b"))
		if err != nil {
			return err
		}
		if b.Version != 1 || a.Revision > b.Revision {
			t.Errorf("b is of a later revision: version %d", b.Version)
		}
		if there, err := tx.Exists(demo, routeID("x")); err != nil || !there {
			t.Errorf("r/x is there: %v, %v", there, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWriteOfWhatWasNotReadIsRefused(t *testing.T) {
	s := open(t, Config{})
	reset(t, s)
	for name, fn := range map[string]func(tx *Tx) error{
		"put":           func(tx *Tx) error { return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: nodeID("a")}) },
		"delete":        func(tx *Tx) error { return Delete(tx, demo, nodeID("a")) },
		"put in a read": nil,
	} {
		var err error
		if fn == nil {
			_, err = s.Read(bounded(t), func(tx *Tx) error {
				if _, err := Get[nodeSpec](tx, demo, nodeID("a")); err != nil {
					return err
				}
				return Delete(tx, demo, nodeID("a"))
			})
		} else {
			_, err = s.Write(bounded(t), fn)
		}
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := s.Read(bounded(t), func(tx *Tx) error { _, err := Get[nodeSpec](tx, demo, nodeID("a")); return err }); err != nil {
		t.Error(err)
	}
}

// Two servers on one etcd: routes are made to nodes that exist while nodes
// without routes are deleted and made again. No route ever names a node that
// is not there.
func TestReferencesNeverDangle(t *testing.T) {
	endpoint, _ := external(t, 0)
	kek := kekFile(t, 7)
	servers := []*Store{
		open(t, Config{Endpoints: []string{endpoint}, KEKFile: kek}),
		open(t, Config{Endpoints: []string{endpoint}, KEKFile: kek}),
	}
	// Their caches know a mesh, and guess at what is in it.
	revision := put(t, servers[0], demo, meshID, meshSpec{})
	for _, s := range servers {
		if err := s.WaitFor(bounded(t), revision); err != nil {
			t.Fatal(err)
		}
	}
	const nodes, workers, rounds = 4, 8, 60
	var made, inUse, dangling atomic.Int64
	errInUse, errNoNode := errors.New("in use"), errors.New("no such node")
	target := func(r *mesh.Record[routeSpec]) string { return r.Tags["target"] }

	makeRoute := func(tx *Tx, route, node string) error {
		if ok, err := tx.Exists(demo, nodeID(node)); err != nil || !ok {
			return errors.Join(err, errNoNode)
		}
		old, err := Get[routeSpec](tx, demo, routeID(route))
		if err == nil {
			if old.Version%3 == 0 {
				return Delete(tx, demo, routeID(route))
			}
		} else if !errors.Is(err, ErrNotFound) {
			return err
		} else {
			old = &mesh.Record[routeSpec]{Mesh: demo, ID: routeID(route)}
		}
		changed := *old
		changed.Version++
		changed.Tags = map[string]string{"target": node}
		return Put(tx, &changed)
	}
	toggleNode := func(tx *Tx, node string) error {
		_, err := Get[nodeSpec](tx, demo, nodeID(node))
		if errors.Is(err, ErrNotFound) {
			return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: nodeID(node), Version: 1})
		}
		if err != nil {
			return err
		}
		routes, err := List[routeSpec](tx, demo, mesh.KindRoute, "")
		if err != nil {
			return err
		}
		for _, r := range routes {
			if target(r) == node {
				return errInUse
			}
		}
		return Delete(tx, demo, nodeID(node))
	}
	check := func(s *Store) {
		_, err := s.Read(bounded(t), func(tx *Tx) error {
			routes, err := List[routeSpec](tx, demo, mesh.KindRoute, "")
			for _, r := range routes {
				if ok, existsErr := tx.Exists(demo, nodeID(target(r))); existsErr != nil || !ok {
					dangling.Add(1)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			s := servers[w%len(servers)]
			for range rounds {
				node := fmt.Sprint("n", random.IntN(nodes))
				_, err := s.Write(bounded(t), func(tx *Tx) error {
					if w < workers/2 {
						return makeRoute(tx, fmt.Sprint("r", random.IntN(3)), node)
					}
					return toggleNode(tx, node)
				})
				switch {
				case err == nil:
					made.Add(1)
				case errors.Is(err, errInUse) || errors.Is(err, errNoNode):
					inUse.Add(1)
				default:
					t.Error(err)
				}
				check(s)
			}
		})
	}
	group.Wait()
	t.Logf("%d writes, %d refused for their references", made.Load(), inUse.Load())
	if dangling.Load() > 0 || made.Load() == 0 || inUse.Load() == 0 {
		t.Errorf("%d dangling references seen, %d writes, %d refusals", dangling.Load(), made.Load(), inUse.Load())
	}
}

func TestNoUpdateIsLost(t *testing.T) {
	s := open(t, Config{UnsafeNoFsync: true})
	const writers, each = 16, 10
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range each {
				put(t, s, demo, nodeID("one"), nodeSpec{})
			}
		})
	}
	group.Wait()
	if _, err := s.Read(bounded(t), func(tx *Tx) error {
		record, err := Get[nodeSpec](tx, demo, nodeID("one"))
		if err == nil && record.Version != writers*each {
			t.Errorf("version is %d after %d updates", record.Version, writers*each)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestWritersOfDifferentRecordsDoNotConflict(t *testing.T) {
	s := open(t, Config{})
	if err := s.WaitFor(bounded(t), put(t, s, demo, meshID, meshSpec{})); err != nil {
		t.Fatal(err)
	}
	const writers, each = 64, 20
	var runs atomic.Int64
	var group sync.WaitGroup
	start := time.Now()
	for w := range writers {
		group.Go(func() {
			for i := range each {
				create(t, s, nodeID(fmt.Sprintf("n%d-%d", w, i)), &runs)
			}
		})
	}
	group.Wait()
	t.Logf("%.0f creates/s with fsync", writers*each/time.Since(start).Seconds())
	if runs.Load() != writers*each {
		t.Errorf("%d runs for %d creates", runs.Load(), writers*each)
	}
}

// create makes a node the way the API does: the mesh exists, the node does not.
func create(t testing.TB, s *Store, id mesh.ID, runs *atomic.Int64) {
	if _, err := s.Write(bounded(t), func(tx *Tx) error {
		runs.Add(1)
		if ok, err := tx.Exists(demo, meshID); err != nil || !ok {
			return errors.Join(err, errors.New("no mesh"))
		}
		if _, err := Get[nodeSpec](tx, demo, id); !errors.Is(err, ErrNotFound) {
			return errors.Join(err, errors.New("is there"))
		}
		return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: id, Version: 1, Spec: benchSpec()})
	}); err != nil {
		t.Error(err)
	}
}

func benchSpec() *nodeSpec {
	spec := &nodeSpec{ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: "web.apps.local"}}}
	for i := range 10 {
		spec.Backends = append(spec.Backends, appmesh.Backend{
			VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: fmt.Sprintf("service-%d.apps.local", i)},
		})
	}
	return spec
}

func TestReplayedTokens(t *testing.T) {
	s := open(t, Config{})
	id := nodeID("a")
	write := func(version int64, tokens ...Token) {
		t.Helper()
		if _, err := s.Write(bounded(t), func(tx *Tx) error {
			if _, err := Get[nodeSpec](tx, demo, id); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			return Put(tx, &mesh.Record[nodeSpec]{Mesh: demo, ID: id, Version: version}, tokens...)
		}); err != nil {
			t.Fatal(err)
		}
	}
	means := func(client, request string, want Replay) {
		t.Helper()
		if _, err := s.Read(bounded(t), func(tx *Tx) error {
			got, err := Replayed(tx, demo, id, Token{Client: client, Request: request})
			if got != want {
				t.Errorf("token %s with request %s: %d, want %d", client, request, got, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	means("create", "1", Fresh)
	write(1, Token{Client: "create", Request: "1"})
	means("create", "1", Repeated)
	means("create", "2", Reused)
	write(2) // an update without a token forgets none
	means("create", "1", Repeated)
	for i := range int64(20) {
		write(3+i, Token{Client: fmt.Sprint("update", i), Request: "1"})
	}
	means("create", "1", Repeated) // for as long as the record lives
	means("update19", "1", Repeated)
	means("update12", "1", Repeated)
	means("update3", "1", Fresh) // long ago
	remove[nodeSpec](t, s, demo, id)
	means("create", "1", Fresh)
}

func BenchmarkCreate64Writers(b *testing.B) {
	s := open(b, Config{})
	put(b, s, demo, meshID, meshSpec{})
	var runs, next atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			create(b, s, nodeID(fmt.Sprint("n", next.Add(1))), &runs)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

// Pages are the list, cut: all of it once, in its order, and nothing beside it.
func TestPagesAreTheList(t *testing.T) {
	s := open(t, Config{})
	near := mesh.Name{Owner: account, Mesh: "demo2"} // begins as demo does
	for _, name := range []string{"a", "a-b", "a.b", "ab", "b", "z"} {
		put(t, s, demo, nodeID(name), nodeSpec{})
		put(t, s, near, nodeID(name), nodeSpec{})
		put(t, s, demo, routeID(name), routeSpec{})
		put(t, s, demo, mesh.ID{Kind: mesh.KindRoute, Parent: "r2", Name: name}, routeSpec{})
	}
	if _, err := s.Read(bounded(t), func(tx *Tx) error {
		var want, got []mesh.ID
		all, err := List[routeSpec](tx, demo, mesh.KindRoute, "r")
		for _, r := range all {
			want = append(want, r.ID)
		}
		for after := ""; err == nil; {
			var page []*mesh.Record[routeSpec]
			if page, err = Page[routeSpec](tx, demo, mesh.KindRoute, "r", after, 4); len(page) == 0 {
				break
			}
			for _, r := range page {
				got, after = append(got, r.ID), r.ID.Name
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) != 6 {
			t.Errorf("pages of 4 (-list +pages):\n%s", diff)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
