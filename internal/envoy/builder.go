package envoy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fairlead/fairlead/internal/mesh"
)

// Builder builds the Configs of one mesh. It remembers every unit it built — a
// cluster, a virtual host, a route table, a listener — by all inputs of that
// unit, so that a change rebuilds only what depends on it and equal resources
// are one pointer for all endpoints. Records count by ID and store revision:
// a Graph made of records that are not in the store needs a Builder of its own.
//
// A Builder belongs to one goroutine. Its zero value is not usable.
type Builder struct {
	graph      *mesh.Graph // of the last call: another one starts a generation
	generation uint64
	serial     uint64
	units      map[string]*unit
	resources  map[contentKey]*interned
	secrets    map[string]*heldSecret // by name
	configs    map[configKey]*built
}

// keepGenerations is for how many Graphs a Builder remembers what nobody asks for.
const keepGenerations = 8

// unit is a piece that was built: a resource, or a part of one.
type unit struct {
	part     []byte    // serialised, of a part
	resource *interned // nil: a part, or nothing to serve
	refs     []Ref     // of a part
	problems []mesh.Problem
	serial   uint64 // tells units apart for good
	used     uint64 // generation
}

type contentKey struct {
	ref     Ref
	version string
}

type interned struct {
	*Resource
	used uint64
}

type configKey struct {
	id    mesh.ID
	shape Shape
}

type built struct {
	graph    *mesh.Graph
	config   *Config
	problems []mesh.Problem
	secrets  []secret
	used     uint64
}

// NewBuilder returns a Builder that remembers nothing yet.
func NewBuilder() *Builder {
	return &Builder{
		units:     map[string]*unit{},
		resources: map[contentKey]*interned{},
		secrets:   map[string]*heldSecret{},
		configs:   map[configKey]*built{},
	}
}

// Build makes the config of the proxies of endpoint id that have this shape.
// The problems are users' mistakes, and what this version cannot serve: what has
// one is left out or refuses, and the rest is there. An error means that there
// is no config to send, and the last good one stays.
func (b *Builder) Build(g *mesh.Graph, id mesh.ID, shape Shape) (*Config, []mesh.Problem, error) {
	endpoint := g.Endpoints[id]
	if endpoint == nil {
		return nil, nil, fmt.Errorf("build %s: mesh %s has no such endpoint", id, g.Name.Mesh)
	}
	if g != b.graph {
		if b.graph == nil || b.graph.Endpoints[id] != endpoint {
			b.advance() // what was Renewed looks at no unit, and makes none
		}
		b.graph = g
	}
	key := configKey{id, shape}
	last := b.configs[key]
	if last != nil && last.graph == g {
		return last.config, last.problems, nil
	}
	a := &assembly{
		builder: b, graph: g, endpoint: endpoint, shape: shape,
		config: &Config{Mesh: g.Name, Endpoint: id, Revision: g.Revision, Origins: slices.Clip(endpoint.Origins)},
	}
	assemble := a.assemble
	if last != nil && last.graph.Endpoints[id] == endpoint {
		assemble = func() error { return a.renew(last) }
	}
	if err := assemble(); err != nil {
		return nil, a.problems, fmt.Errorf("build %s: %w", id, err)
	}
	if last != nil && a.config.Equal(last.config) {
		a.config.Resources = last.config.Resources
	}
	b.configs[key] = &built{g, a.config, a.problems, a.secrets, b.generation}
	return a.config, a.problems, nil
}

// advance starts a generation and, now and then, forgets what was not used for
// a while.
func (b *Builder) advance() {
	b.generation++
	if b.generation%keepGenerations != 0 {
		return
	}
	oldest := b.generation - keepGenerations
	for key, u := range b.units {
		if u.used < oldest {
			delete(b.units, key)
		}
	}
	for key, r := range b.resources {
		if r.used < oldest {
			delete(b.resources, key)
		}
	}
	for name, s := range b.secrets {
		if s.used < oldest {
			delete(b.secrets, name)
		}
	}
	for key, c := range b.configs {
		if c.used < oldest {
			delete(b.configs, key)
		}
	}
}

// assembly is one run of Build.
type assembly struct {
	builder  *Builder
	graph    *mesh.Graph
	endpoint *mesh.Endpoint
	shape    Shape
	config   *Config
	problems []mesh.Problem
	names    map[*mesh.Edge]string // of the clusters
	secrets  []secret
	key      key // scratch
}

func (a *assembly) assemble() error {
	if err := a.clusters(); err != nil {
		return err
	}
	side := a.inbound
	if a.endpoint.Gateway != nil {
		side = a.gateway
	}
	if err := side(); err != nil {
		return err
	}
	if err := a.outbound(); err != nil {
		return err
	}
	if err := a.addSecrets(); err != nil {
		return err
	}
	for t := range a.config.Resources {
		sortByName(a.config.Resources[t])
	}
	return a.config.Check()
}

// renew assembles for a graph that was Renewed: nothing but the content of
// secrets can differ from what was built last.
func (a *assembly) renew(last *built) error {
	a.problems, a.secrets = last.problems, last.secrets
	a.config.Resources = last.config.Resources
	a.config.Resources[Secret] = nil
	if err := a.addSecrets(); err != nil {
		return err
	}
	sortByName(a.config.Resources[Secret])
	return nil
}

func sortByName(list []*Resource) {
	slices.SortFunc(list, func(x, y *Resource) int { return cmp.Compare(x.Name, y.Name) })
}

func (a *assembly) problem(field, format string, args ...any) {
	a.problems = append(a.problems, mesh.Problem{ID: a.endpoint.ID, Field: field, Message: fmt.Sprintf(format, args...)})
}

// resource adds the resource that make builds, or that it built before for the
// same key. The key holds every input of make; make adds nothing to a itself.
func (a *assembly) resource(k *key, origin mesh.ID, make func(*draft) (Ref, content)) error {
	u, err := a.unit(k, func(d *draft) *unit {
		ref, content := make(d)
		encoded := d.serialise(content)
		if d.err != nil {
			return nil
		}
		return &unit{resource: a.builder.intern(ref, encoded, d.references(), origin)}
	})
	if err != nil {
		return err
	}
	r := u.resource.Resource
	a.config.Resources[r.Type] = append(a.config.Resources[r.Type], r)
	return nil
}

// unit returns what make built for the key, now or earlier.
func (a *assembly) unit(k *key, make func(*draft) *unit) (*unit, error) {
	u := a.builder.units[string(k.bytes)]
	if u == nil {
		stored := string(k.bytes) // make may use the scratch key
		d := &draft{}
		if u = make(d); d.err != nil {
			return nil, d.err
		}
		a.builder.serial++
		u.problems, u.serial = d.problems, a.builder.serial
		a.builder.units[stored] = u
	}
	u.used = a.builder.generation
	if u.resource != nil {
		u.resource.used = u.used
	}
	a.problems = append(a.problems, u.problems...)
	return u, nil
}

// intern returns the one Resource with this name, content and origin.
func (b *Builder) intern(ref Ref, encoded []byte, refs []Ref, origin mesh.ID) *interned {
	key := contentKey{ref, version(encoded, origin)}
	r := b.resources[key]
	if r == nil {
		r = &interned{Resource: &Resource{Ref: ref, Version: key.version, Any: encoded, Refs: refs, Origin: origin}}
		b.resources[key] = r
	}
	return r
}
