package server

import (
	"context"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/edge"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/xds"
)

// Graphs turns views into Graphs with what this server is configured with. It
// is one half of an xds.Compiler.
type Graphs struct {
	// TrustDomain is that of the meshes' own certificates; empty: MESH.fairlead.
	TrustDomain string
}

// Graph builds the Graph of a view.
func (g Graphs) Graph(view *mesh.View) *mesh.Graph { return mesh.Build(g.complete(view)) }

// complete is a view as this server sees it: what is not in its store, it knows
// not to be there.
func (g Graphs) complete(view *mesh.View) *mesh.View {
	own := *view
	if g.TrustDomain != "" {
		own.TrustDomain = g.TrustDomain
	}
	if own.Certificates == nil && own.Authorities == nil {
		own.Certificates = map[string]*mesh.Certificate{}
	}
	return &own
}

// compiler makes the Graphs of one mesh and builds its configurations.
type compiler struct {
	graphs  Graphs
	graph   *mesh.Graph // the newest
	builder *envoy.Builder
}

func (c *compiler) Graph(view *mesh.View) *mesh.Graph {
	c.graph = mesh.Rebuild(c.graph, c.graphs.complete(view))
	return c.graph
}

func (c *compiler) Build(g *mesh.Graph, id mesh.ID, shape envoy.Shape) (*envoy.Config, []mesh.Problem, error) {
	return c.builder.Build(g, id, shape)
}

// Compiler makes the stages between store and streams for one mesh.
func (g Graphs) Compiler() xds.Compiler {
	return &compiler{graphs: g, builder: envoy.NewBuilder()}
}

// graph builds the mesh that a request names from the cache.
func (o *Operator) graph(r *awsapi.Request) (*mesh.Graph, error) {
	name := mesh.Name{Owner: o.Account, Mesh: r.Label("mesh")}
	view, ok := o.Store.View(name)
	if !ok {
		return nil, absent("Mesh", location{name, mesh.ID{Kind: mesh.KindMesh, Name: name.Mesh}})
	}
	return o.Graphs.Graph(view), nil
}

// Proxy is a proxy that is connected to this server.
type Proxy struct {
	Resource string `json:"resource"` // mesh/M/virtualNode/N
	xds.ProxyStatus
	Report *edge.Report `json:"report,omitzero"`
}

// ProxyList is all of them.
type ProxyList struct {
	Proxies []Proxy `json:"proxies"`
}

func (o *Operator) proxies(context.Context, *awsapi.Request) (any, error) {
	out := ProxyList{Proxies: []Proxy{}}
	for _, status := range o.Proxies.Proxies() {
		told := report(status)
		if status.AgentVersion != "" {
			// The agent opened the stream: its Envoy's version is in its report.
			status.EnvoyVersion = ""
			if told != nil {
				status.EnvoyVersion = told.EnvoyVersion
			}
		}
		out.Proxies = append(out.Proxies, Proxy{
			Resource:    iam.ResourceName(status.Mesh, status.Endpoint, o.Account),
			ProxyStatus: status, Report: told,
		})
	}
	return out, nil
}

// report reads what an agent told last. What cannot be read is no report:
// agents are of all ages, and not trusted.
func report(status xds.ProxyStatus) *edge.Report {
	if status.Report == nil {
		return nil
	}
	r := new(edge.Report)
	if err := json.Unmarshal(status.Report, r); err != nil {
		return nil
	}
	return r
}

// EdgeList is the edges of a mesh, with what is true of them.
type EdgeList struct {
	Mesh     string     `json:"mesh"`
	Revision int64      `json:"revision"`
	Edges    []edge.Row `json:"edges"`
}

func (o *Operator) edges(_ context.Context, r *awsapi.Request) (any, error) {
	g, err := o.graph(r)
	if err != nil {
		return nil, err
	}
	proxies := map[mesh.ID][]edge.Proxy{}
	for _, status := range o.Proxies.Proxies() {
		if status.Mesh != g.Name {
			continue
		}
		p := edge.Proxy{Settled: status.Settled, Held: status.Held, Report: report(status)}
		for _, t := range status.Types {
			for _, rejected := range t.Rejected {
				p.Rejected = append(p.Rejected, edge.Rejection{Resource: rejected.Name, Message: rejected.Message})
			}
		}
		proxies[status.Endpoint] = append(proxies[status.Endpoint], p)
	}
	return EdgeList{Mesh: g.Name.Mesh, Revision: g.Revision, Edges: edge.Table(g, proxies)}, nil
}

// Problem is a user's mistake in a mesh, or what an Envoy refused.
type Problem struct {
	Resource string `json:"resource"`
	Field    string `json:"field,omitzero"`
	Message  string `json:"message"`
}

// ProblemList is what is wrong in a mesh at a revision.
type ProblemList struct {
	Mesh     string    `json:"mesh"`
	Revision int64     `json:"revision"`
	Problems []Problem `json:"problems"`
}

// problems are the mistakes in the Graph, those found while it was built for
// proxies, and what their Envoys refused, each once.
func (o *Operator) problems(_ context.Context, r *awsapi.Request) (any, error) {
	g, err := o.graph(r)
	if err != nil {
		return nil, err
	}
	out := ProblemList{Mesh: g.Name.Mesh, Revision: g.Revision, Problems: []Problem{}}
	seen := map[Problem]bool{}
	add := func(p Problem) {
		if !seen[p] {
			seen[p] = true
			out.Problems = append(out.Problems, p)
		}
	}
	for _, p := range append(g.Problems, o.Proxies.Problems(g.Name)...) {
		add(Problem{Resource: p.ID.String(), Field: p.Field, Message: p.Message})
	}
	for _, status := range o.Proxies.Proxies() {
		if status.Mesh != g.Name {
			continue
		}
		if status.Held != "" {
			add(Problem{Resource: status.Endpoint.String(), Message: "a proxy is sent nothing: " + status.Held})
		}
		if told := report(status); told != nil {
			for _, problem := range told.Problems {
				add(Problem{Resource: status.Endpoint.String(), Message: "a proxy says: " + problem})
			}
		}
		for _, t := range status.Types {
			for _, rejected := range t.Rejected {
				add(Problem{Resource: rejected.Origin.String(), Message: "the Envoy of " + status.Endpoint.String() + " rejects " + t.Type + " " + rejected.Name + ": " + rejected.Message})
			}
		}
	}
	return out, nil
}
