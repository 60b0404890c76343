package xds

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

// Source is what the Hub needs of the store (*store.Store).
type Source interface {
	// Ready is closed when the store has been loaded in full.
	Ready() <-chan struct{}
	Lineage() string
	// View is the latest view of a mesh; false: there is no such mesh.
	View(mesh.Name) (*mesh.View, bool)
	// Watch calls deliver whenever there is something new about a mesh.
	Watch(ctx context.Context, deliver func(mesh.Name, *mesh.View)) error
	// Deleted is the revision at which a record that is gone was deleted.
	Deleted(mesh.Name, mesh.ID) (revision int64, ok bool)
	// ShrinkAccepted says whether an operator lets a mesh endpoint's proxies
	// lose what no change explains.
	ShrinkAccepted(mesh.Name, mesh.ID) bool
}

// Compiler turns the views of one mesh into configurations. One goroutine uses
// it.
type Compiler interface {
	// Graph takes the newest view.
	Graph(*mesh.View) *mesh.Graph
	// Build makes the configuration of an endpoint's proxies; the same pointer
	// as before if nothing has changed for them.
	Build(*mesh.Graph, mesh.ID, envoy.Shape) (*envoy.Config, []mesh.Problem, error)
}

// Hub turns the store's meshes into Feeds. Each mesh that has streams has one
// goroutine that owns it (owner.go): what goes wrong in one mesh stays there.
type Hub struct {
	source      Source
	newCompiler func() Compiler
	metrics     *Metrics
	log         *slog.Logger
	now         func() time.Time
	limit       func(mesh.Kind) int // proxies of an endpoint; nil: any number
	witness     *witness            // nil: nothing is noted

	mu     sync.Mutex
	owners map[mesh.Name]*owner
	// alarmed are the endpoints of which it has been said that the store has
	// lost them. Only proxies with credentials for one put it here.
	alarmed map[lostEndpoint]bool
}

type lostEndpoint struct {
	mesh mesh.Name
	id   mesh.ID
}

func newHub(c Config) *Hub {
	h := &Hub{source: c.Source, newCompiler: c.NewCompiler, metrics: c.Metrics, log: c.Log, now: c.Now, limit: c.ProxyLimit,
		owners: map[mesh.Name]*owner{}, alarmed: map[lostEndpoint]bool{}}
	if c.Evidence != nil {
		h.witness = newWitness(h, c)
	}
	return h
}

// lost notes that the store has lost an endpoint, and says whether that is new.
func (h *Hub) lost(name mesh.Name, id mesh.ID) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = !h.alarmed[lostEndpoint{name, id}]
	h.alarmed[lostEndpoint{name, id}] = true
	return news
}

// found notes that an endpoint is there.
func (h *Hub) found(name mesh.Name, id mesh.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.alarmed, lostEndpoint{name, id})
}

// run nudges the owners of changed meshes until ctx ends.
func (h *Hub) run(ctx context.Context) error {
	return h.source.Watch(ctx, func(name mesh.Name, _ *mesh.View) {
		h.mu.Lock()
		o := h.owners[name]
		h.mu.Unlock()
		if o != nil {
			o.changed()
		}
	})
}

// join gives a proxy's stream its configuration, now and from now on. The error
// is a gRPC status.
func (h *Hub) join(ctx context.Context, p *proxy) error {
	if guardLoaded {
		select {
		case <-h.source.Ready():
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	j := &joining{proxy: p, done: make(chan error, 1)}
	h.mu.Lock()
	o := h.owners[p.mesh]
	if o == nil {
		o = newOwner(h, p.mesh)
		h.owners[p.mesh] = o
		go o.run()
	}
	p.owner = o
	o.enqueue(j)
	h.mu.Unlock()
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		o.leave(p)
		return status.FromContextError(ctx.Err()).Err()
	}
}

// retire removes an owner that has nothing to do, unless something came up.
func (h *Hub) retire(o *owner) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !o.idle() {
		return false
	}
	delete(h.owners, o.name)
	return true
}

func (h *Hub) all() []*owner {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*owner, 0, len(h.owners))
	for _, o := range h.owners {
		out = append(out, o)
	}
	return out
}

// proxy is one accepted stream of the server.
type proxy struct {
	owner    *owner
	stream   *Stream
	mesh     mesh.Name
	endpoint mesh.ID
	shape    envoy.Shape
	held     *Manifest // what an agent says it holds; nil: nothing
	info     ProxyInfo
	instance string // that its agent has drawn; empty: it has none

	mu        sync.Mutex
	hold      string // why this proxy is sent nothing
	groupHold string // why its group stays at an older configuration
	report    []byte
}

// setHold notes why the proxy is held (empty: it is not), and says whether that
// is new.
func (p *proxy) setHold(reason string) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = p.hold != reason
	switch {
	case p.hold == "" && reason != "":
		p.owner.hub.metrics.hold(1)
	case p.hold != "" && reason == "":
		p.owner.hub.metrics.hold(-1)
	}
	p.hold = reason
	return changed
}

func (p *proxy) setGroupHold(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groupHold = reason
}

// joining is a proxy that waits to be taken in.
type joining struct {
	proxy *proxy
	done  chan error
}

// unknown is the status of a stream for an endpoint that does not exist.
func unknown(name mesh.Name, id mesh.ID) error {
	return status.Errorf(codes.InvalidArgument, "mesh/%s/%s does not exist (owner %s)", name.Mesh, id, name.Owner)
}

// contain runs f and turns a panic into an error.
func (h *Hub) contain(name mesh.Name, doing string, f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.metrics.panicked("mesh")
			h.log.Error("a mesh panicked; its proxies keep what they have", "mesh", name.Mesh, "owner", name.Owner,
				"doing", doing, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: panic: %v", doing, p)
		}
	}()
	f()
	return nil
}
