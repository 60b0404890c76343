package mesh_test

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// site is a random mesh as requests to the API, what of it exists now, and what
// may stand in the way.
type site struct {
	*rand.Rand
	t      *testing.T
	server *meshtest.Server
	specs  map[mesh.ID]any
	exists map[mesh.ID]bool
	mixed  bool // there are remains of other worlds
	writes int
}

func newSite(t *testing.T, s *meshtest.Server, rng *rand.Rand, view *mesh.View) *site {
	t.Helper()
	out := &site{Rand: rng, t: t, server: s, specs: map[mesh.ID]any{}, exists: map[mesh.ID]bool{}}
	out.use(view)
	return out
}

// use takes the specs of a view, for what is made or updated from now on.
func (s *site) use(view *mesh.View) {
	clear(s.specs)
	specsOf(s.specs, slices.Collect(maps.Values(view.VirtualNodes)))
	specsOf(s.specs, slices.Collect(maps.Values(view.VirtualServices)))
	specsOf(s.specs, slices.Collect(maps.Values(view.VirtualRouters)))
	specsOf(s.specs, slices.Collect(maps.Values(view.VirtualGateways)))
	specsOf(s.specs, slices.Collect(maps.Values(view.Routes)))
	specsOf(s.specs, slices.Collect(maps.Values(view.GatewayRoutes)))
}

func specsOf[S any](into map[mesh.ID]any, records []*mesh.Record[S]) {
	for _, r := range records {
		into[r.ID] = r.Spec
	}
}

// place is the collection that a resource is in and the member of its name.
func place(id mesh.ID) (collection, member string) {
	base := "/v20190125/meshes/" + meshgen.Mesh.Mesh + "/"
	switch id.Kind {
	case mesh.KindRoute:
		return base + "virtualRouter/" + url.PathEscape(id.Parent) + "/routes", "routeName"
	case mesh.KindGatewayRoute:
		return base + "virtualGateway/" + url.PathEscape(id.Parent) + "/gatewayRoutes", "gatewayRouteName"
	}
	return base + string(id.Kind) + "s", string(id.Kind) + "Name"
}

// put makes or updates a resource; false: what it refers to is not there yet, or
// is still as another world has it.
func (s *site) put(id mesh.ID) bool {
	s.t.Helper()
	collection, member := place(id)
	request := map[string]any{"spec": s.specs[id]}
	if s.exists[id] {
		collection += "/" + url.PathEscape(id.Name)
	} else {
		request[member] = id.Name
	}
	body, err := json.Marshal(request)
	if err != nil {
		s.t.Fatal(err)
	}
	a := s.server.Send(s.t, http.MethodPut, collection, string(body))
	if a.Code == "NotFoundException" || a.Code == "BadRequestException" && s.mixed {
		return false
	}
	if a.Status != http.StatusOK {
		s.t.Fatalf("put %s: %d %s\n%s", id, a.Status, a.Body, body)
	}
	s.exists[id] = true
	s.writes++
	return true
}

// remove deletes a resource; false: something refers to it still.
func (s *site) remove(id mesh.ID) bool {
	s.t.Helper()
	collection, _ := place(id)
	a := s.server.Send(s.t, http.MethodDelete, collection+"/"+url.PathEscape(id.Name), "")
	if a.Code == "ResourceInUseException" {
		return false
	}
	if a.Status != http.StatusOK {
		s.t.Fatalf("delete %s: %d %s", id, a.Status, a.Body)
	}
	delete(s.exists, id)
	s.writes++
	return true
}

// each does something with resources in random order; those that cannot go yet
// come again, as long as any goes.
func (s *site) each(ids []mesh.ID, do func(mesh.ID) bool) (left []mesh.ID) {
	for len(ids) > 0 {
		slices.SortFunc(ids, mesh.ID.Compare)
		s.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		left = nil
		for _, id := range ids {
			if !do(id) {
				left = append(left, id)
			}
		}
		if len(left) == len(ids) {
			return left
		}
		ids = left
	}
	return nil
}

// build makes what is missing and updates a share of the rest. It returns what
// does not fit into what is left of another world.
func (s *site) build(share float64) (left []mesh.ID) {
	s.t.Helper()
	var ids []mesh.ID
	for _, id := range slices.SortedFunc(maps.Keys(s.specs), mesh.ID.Compare) {
		if !s.exists[id] || s.Float64() < share {
			ids = append(ids, id)
		}
	}
	return s.each(ids, s.put)
}

// tear deletes about a share of what there is, but for what is to stay.
func (s *site) tear(share float64, stays func(mesh.ID) bool) {
	var gone []mesh.ID
	for _, id := range slices.SortedFunc(maps.Keys(s.exists), mesh.ID.Compare) {
		if !stays(id) && s.Float64() < share {
			gone = append(gone, id)
		}
	}
	s.each(gone, s.remove) // what is in use by what stays, stays
}

// TestRandomMeshesNeverDangle builds random meshes through the API, tears them
// down in random order and builds others over the rest, while every endpoint has
// a proxy: two recording ones, and for one node a real Envoy too. On no stream may
// anything ever refer to what is not there, also where a proxy refuses clusters,
// and Envoy rejects nothing.
func TestRandomMeshesNeverDangle(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	n := meshtest.NewNetwork(t)
	authority := meshtest.NewAuthority(t, "mesh")
	leaf := authority.Issue(t, "node-0.random.local")
	config := meshgen.Config{Nodes: 8, SDS: true, Unprivileged: true,
		Files: []meshgen.Files{{Chain: leaf.Chain, Key: leaf.Key, Trust: authority.Root}}}
	s.Apply(t, "{mesh: random, spec: {}}")

	var worlds []*mesh.View
	for seed := range uint64(4) {
		worlds = append(worlds, config.View(rand.New(rand.NewPCG(seed, 3))))
	}
	site := newSite(t, s, rand.New(rand.NewPCG(1, 1)), worlds[0])
	if left := site.build(0); len(left) > 0 {
		t.Fatalf("cannot be made: %v", left)
	}
	stays := func(id mesh.ID) bool {
		return id.Kind == mesh.KindVirtualGateway || id.Kind == mesh.KindVirtualNode && id.Name < "node-3"
	}
	var recorders []*recorder
	node := ""
	for _, id := range slices.SortedFunc(maps.Keys(site.exists), mesh.ID.Compare) {
		if !stays(id) {
			continue
		}
		resource := "mesh/" + meshgen.Mesh.Mesh + "/" + id.String()
		if id.Kind == mesh.KindVirtualNode && node == "" {
			node = resource
		}
		recorders = append(recorders, record(t, s, resource, "", true), record(t, s, resource, n.Address(t, ""), false))
	}
	agent := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: node, Address: n.Address(t, ""), DNS: n.DNS.Address()})
	s.WaitSettled(t, len(recorders)+1)

	began, misfits := time.Now(), 0
	for round := range 12 * meshtest.Soak(t) {
		site.tear([]float64{0.3, 0.6, 1}[round%3], stays)
		site.use(worlds[(round+1)%len(worlds)])
		site.mixed = true
		misfits += len(site.build(0.5))
		s.WaitSettled(t, len(recorders)+1)
		waitWhole(t, recorders)
	}
	messages, removed, refused := 0, 0, 0
	for _, r := range recorders {
		r.mu.Lock()
		messages, removed, refused = messages+r.messages, removed+r.removed, refused+r.refused
		for _, fault := range r.faults[:min(len(r.faults), 3)] {
			t.Error(fault)
		}
		r.mu.Unlock()
	}
	if removed == 0 || refused == 0 {
		t.Errorf("%d resources removed and %d refused: that is no test", removed, refused)
	}
	counters, err := agent.Counters(t.Context(), `update_rejected$`)
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range counters {
		if count != 0 {
			t.Errorf("%s: %d", name, count)
		}
	}
	t.Logf("%d writes in %s: %d messages to %d proxies, %d resources removed, %d refused; %d specs did not fit their surroundings", site.writes, time.Since(began).Round(time.Millisecond), messages, len(recorders), removed, refused, misfits)
}
