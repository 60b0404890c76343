package xds

import (
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// owner is the one goroutine that works for a mesh. Each turn it looks at the
// newest view, takes in proxies that wait, and publishes what has changed; what
// comes up meanwhile makes one further turn. There is no timer.
type owner struct {
	hub  *Hub
	name mesh.Name
	wake chan struct{} // capacity 1

	mu       sync.Mutex
	dirty    bool // there is news of the mesh
	holding  bool // a group is held: what it has must not be forgotten
	joining  []*joining
	leaving  []*proxy
	problems []mesh.Problem // as of the last refresh
	members  map[*proxy]struct{}
	logged   map[envoy.Ref]string // version whose rejection has been logged

	// Only the owner's goroutine uses these.
	compiler Compiler
	view     *mesh.View
	graph    *mesh.Graph
	groups   map[groupKey]*group
}

// groupKey is what proxies with the same configuration have in common.
type groupKey struct {
	endpoint mesh.ID
	shape    envoy.Shape
}

// group is the proxies of one endpoint and shape.
type group struct {
	feed     *Feed
	proxies  map[*proxy]struct{}
	config   *envoy.Config // published
	manifest Manifest
	accepted bool   // an operator lets the proxies lose what nothing explains
	hold     string // why a newer one is not published
	problems []mesh.Problem
}

func newOwner(h *Hub, name mesh.Name) *owner {
	return &owner{hub: h, name: name, wake: make(chan struct{}, 1), dirty: true, members: map[*proxy]struct{}{},
		logged: map[envoy.Ref]string{}, groups: map[groupKey]*group{}, compiler: h.newCompiler()}
}

// changed says that there is news of the mesh.
func (o *owner) changed() {
	o.mu.Lock()
	o.dirty = true
	o.mu.Unlock()
	o.nudge()
}

func (o *owner) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *owner) enqueue(j *joining) {
	o.mu.Lock()
	o.joining = append(o.joining, j)
	o.mu.Unlock()
	o.nudge()
}

func (o *owner) leave(p *proxy) {
	o.mu.Lock()
	o.leaving = append(o.leaving, p)
	o.mu.Unlock()
	o.nudge()
}

func (o *owner) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.joining) == 0 && len(o.leaving) == 0 && len(o.members) == 0 && !o.holding
}

func (o *owner) run() {
	for range o.wake {
		o.turn()
		if o.idle() && o.hub.retire(o) {
			return
		}
	}
}

// turn is one look at everything that is new.
func (o *owner) turn() {
	o.mu.Lock()
	joining, leaving, dirty := o.joining, o.leaving, o.dirty
	o.joining, o.leaving, o.dirty = nil, nil, false
	o.mu.Unlock()
	if dirty {
		o.refresh()
	}
	for _, j := range joining {
		err := status.Error(codes.Unavailable, "the mesh cannot be served at the moment")
		o.contain("take in a proxy", func() { err = o.take(j.proxy) })
		j.done <- err
	}
	for _, p := range leaving {
		o.drop(p)
	}
}

func (o *owner) contain(doing string, f func()) {
	// The panic has been logged and counted; the last good state stays.
	_ = o.hub.contain(o.name, doing, f)
}

// refresh brings all groups to the newest view.
func (o *owner) refresh() {
	view, ok := o.hub.source.View(o.name)
	if !ok {
		o.gone()
		return
	}
	if view != o.view {
		var graph *mesh.Graph
		o.contain("build the graph", func() { graph = o.compiler.Graph(view) })
		if graph == nil {
			return // the last good graph stays
		}
		o.view, o.graph = view, graph
	}
	problems := o.graph.Problems
	for key, g := range o.groups {
		o.contain("build "+key.endpoint.String(), func() { o.publish(key, g) })
		problems = append(problems[:len(problems):len(problems)], g.problems...)
		for p := range g.proxies {
			o.judge(p, g)
		}
	}
	o.note(problems)
}

// note keeps what other goroutines ask about.
func (o *owner) note(problems []mesh.Problem) {
	holding := false
	for _, g := range o.groups {
		holding = holding || g.hold != ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problems, o.holding = problems, holding
}

// gone ends the streams of a mesh that was deleted. If no change record says
// so, the store has lost it, and the proxies keep what they have.
func (o *owner) gone() {
	for key, g := range o.groups {
		o.vanished(key, g)
	}
	o.view, o.graph = nil, nil
	o.note(nil)
}

// vanished deals with a group whose endpoint is not there any more.
func (o *owner) vanished(key groupKey, g *group) {
	if guardShrink && !o.hub.source.ShrinkAccepted(o.name, key.endpoint) {
		if why := o.unexplained(key.endpoint, g.manifest); why != "" {
			o.holdGroup(key, g, why)
			return
		}
	}
	for p := range g.proxies {
		p.stream.End(unknown(o.name, key.endpoint))
	}
	delete(o.groups, key)
}

// unexplained says why the end of a mesh endpoint is no change that somebody
// made since a manifest; empty: somebody deleted it, or its mesh.
func (o *owner) unexplained(id mesh.ID, held Manifest) string {
	if held.Lineage != o.hub.source.Lineage() {
		return anotherStore(held.Lineage, o.hub.source.Lineage())
	}
	if revision, ok := o.hub.source.Deleted(o.name, id); ok && revision > held.Revision {
		return ""
	}
	if _, there := o.hub.source.View(o.name); !there {
		if revision, ok := o.hub.source.Deleted(o.name, mesh.ID{Kind: mesh.KindMesh}); ok && revision > held.Revision {
			return ""
		}
	}
	return "no change record explains why " + id.String() + " is gone"
}

// publish builds the configuration of a group and publishes it if it is new,
// whole, and takes nothing away without a reason.
func (o *owner) publish(key groupKey, g *group) {
	if o.graph.Endpoints[key.endpoint] == nil {
		o.vanished(key, g)
		return
	}
	config, problems, err := o.compiler.Build(o.graph, key.endpoint, key.shape)
	same := err == nil && g.config != nil && sameResources(g.config, config)
	if err == nil && !same {
		err = o.check(config, &problems)
	}
	g.problems = problems
	if err != nil {
		o.hub.log.Error("a configuration cannot be built; the last good one stays", "mesh", o.name.Mesh,
			"endpoint", key.endpoint.String(), "revision", o.view.Revision, "error", err)
		if _, told := err.(*CheckError); !told {
			g.problems = append(slices.Clip(g.problems), mesh.Problem{ID: key.endpoint,
				Message: "its configuration cannot be built, and the last good one stays: " + err.Error()})
		}
		return
	}
	g.accepted = o.hub.source.ShrinkAccepted(o.name, key.endpoint)
	if g.config != nil && !g.accepted {
		if why := o.shrink().refuse(g.manifest); why != "" {
			o.holdGroup(key, g, why)
			return
		}
	}
	if !same {
		g.config = config
	} // else nothing is to be sent, and the streams are not even woken
	g.hold, g.manifest = "", manifestOf(o.hub.source.Lineage(), o.view, config)
	g.manifest.AcceptShrink = g.accepted
	g.feed.Publish(Target{Config: g.config, Manifest: g.manifest})
}

// sameResources says whether two configurations hold the same, which the
// builder makes visible: then they share their lists.
func sameResources(a, b *envoy.Config) bool {
	for t := range a.Resources {
		if !equal(a.Resources[t], b.Resources[t]) {
			return false
		}
	}
	return true
}

// check finds what must never be on the wire, and makes it a Problem.
func (o *owner) check(config *envoy.Config, problems *[]mesh.Problem) error {
	err := Check(config)
	if broken, ok := err.(*CheckError); ok {
		*problems = append(*problems, mesh.Problem{ID: broken.Resource.Origin,
			Message: "Fairlead built a configuration that contradicts itself, and did not send it: " + broken.Error()})
	}
	return err
}

func (o *owner) shrink() shrink {
	return shrink{lineage: o.hub.source.Lineage(), view: o.view, graph: o.graph,
		deleted: func(id mesh.ID) (int64, bool) { return o.hub.source.Deleted(o.name, id) }}
}

// holdGroup keeps what a group has and says so, once.
func (o *owner) holdGroup(key groupKey, g *group, why string) {
	if g.hold != why {
		o.hub.log.Error("proxies are held: they would lose what no change explains", "mesh", o.name.Mesh,
			"endpoint", key.endpoint.String(), "why", why, "release", releaseHint(o.name, key.endpoint))
	}
	g.hold = why
	for p := range g.proxies {
		p.setGroupHold(why)
	}
}

func releaseHint(name mesh.Name, id mesh.ID) string {
	return "fairlead proxy accept-shrink mesh/" + name.Mesh + "/" + id.String()
}

// take lets a proxy in, or says why not.
func (o *owner) take(p *proxy) error {
	if o.graph == nil {
		if _, ok := o.hub.source.View(o.name); ok {
			return status.Error(codes.Unavailable, "the mesh cannot be served at the moment")
		}
		return o.refuseUnknown(p)
	}
	if o.graph.Endpoints[p.endpoint] == nil {
		return o.refuseUnknown(p)
	}
	key := groupKey{p.endpoint, p.shape}
	if limit := o.hub.limit; limit != nil && o.count(p.endpoint) >= limit(p.endpoint.Kind) {
		return status.Errorf(codes.ResourceExhausted, "%s has %d proxies, the most that it may have", p.endpoint, limit(p.endpoint.Kind))
	}
	g := o.groups[key]
	if g == nil {
		g = &group{feed: &Feed{}, proxies: map[*proxy]struct{}{}}
		o.publish(key, g)
		if g.config == nil {
			return status.Error(codes.Unavailable, "the configuration cannot be built at the moment")
		}
		o.groups[key] = g
	}
	g.proxies[p] = struct{}{}
	o.mu.Lock()
	o.members[p] = struct{}{}
	o.mu.Unlock()
	o.hub.found(o.name, p.endpoint)
	o.judge(p, g)
	p.stream.Attach(g.feed)
	return nil
}

// refuseUnknown ends the stream of a proxy whose endpoint is not there; it is
// sent nothing and keeps what it has. If the store has lost the endpoint, that
// is an alarm.
func (o *owner) refuseUnknown(p *proxy) error {
	if guardShrink && p.held != nil {
		if why := o.unexplained(p.endpoint, *p.held); why != "" && o.hub.lost(o.name, p.endpoint) {
			o.hub.log.Error("proxies are refused: the store has lost their mesh endpoint; they keep what they have", "mesh", o.name.Mesh,
				"endpoint", p.endpoint.String(), "proxy", p.info.Node, "address", p.info.Address, "why", why)
		}
	}
	return unknown(o.name, p.endpoint)
}

// count is how many proxies an endpoint has, of all shapes.
func (o *owner) count(id mesh.ID) (n int) {
	for key, g := range o.groups {
		if key.endpoint == id {
			n += len(g.proxies)
		}
	}
	return n
}

// judge holds or releases a proxy.
func (o *owner) judge(p *proxy, g *group) {
	p.setGroupHold(g.hold)
	if g.accepted {
		if p.setHold("") {
			p.held = nil
			p.stream.Release()
			o.hub.log.Warn("a held proxy was released by an operator", "mesh", o.name.Mesh, "endpoint", p.endpoint.String(), "proxy", p.info.Node)
		}
		return
	}
	if p.held == nil {
		return
	}
	why := o.shrink().refuse(*p.held)
	changed := p.setHold(why)
	if why == "" {
		// From here on what it holds is what it is sent.
		p.held = nil
		if changed {
			p.stream.Release()
		}
		return
	}
	p.stream.Hold(why)
	if changed {
		o.hub.log.Error("a proxy is held: it would lose what no change explains", "mesh", o.name.Mesh,
			"endpoint", p.endpoint.String(), "proxy", p.info.Node, "address", p.info.Address, "why", why,
			"release", releaseHint(o.name, p.endpoint))
	}
}

// drop forgets a proxy whose stream has ended.
func (o *owner) drop(p *proxy) {
	o.mu.Lock()
	delete(o.members, p)
	o.mu.Unlock()
	key := groupKey{p.endpoint, p.shape}
	g := o.groups[key]
	if g == nil {
		return
	}
	delete(g.proxies, p)
	if len(g.proxies) == 0 && g.hold == "" {
		delete(o.groups, key)
	}
}
